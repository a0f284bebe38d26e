//! Egress-gateway rules.

use crate::error::ChangeError;
use crate::model::{EgressGateway, EgressGatewayRule, EgressKey};
use crate::state::State;
use crate::store::Capacity;
use crate::validate::{field, unusable};

impl State {
    pub(super) fn put_egress_gateway(
        &mut self,
        rule: EgressGatewayRule,
        capacity: &Capacity,
    ) -> Result<(), ChangeError> {
        let key = rule.key;
        let refuse = |name: &str, why: String| Err(field(object(&key), name, why));
        let ipv4 = key.source.addr().is_ipv4();
        if key.destination.addr().is_ipv4() != ipv4 {
            return refuse(
                "destination",
                format!("{} is of another address family than source", key.destination),
            );
        }
        // The gateway may be of the other family: it is where a tunnel leads to.
        if let EgressGateway::Node(addr) = rule.gateway
            && let Some(why) = unusable(addr)
        {
            return refuse("gateway", format!("{addr} is not the address of a node: {why}"));
        }
        if let Some(addr) = rule.egress_ip {
            if addr.is_ipv4() != ipv4 {
                return refuse(
                    "egress_ip",
                    format!("{addr} is of another address family than source"),
                );
            }
            if let Some(why) = unusable(addr) {
                return refuse("egress_ip", format!("{addr} is not the address of a node: {why}"));
            }
        }
        if !self.egress_gateways.contains_key(&key) && self.egress_gateways.len() >= capacity.egress_gateways
        {
            return Err(ChangeError::TableFull {
                table: "egress_gateways",
                size: capacity.egress_gateways,
            });
        }
        self.egress_gateways.insert(key, rule);
        Ok(())
    }

    pub(super) fn remove_egress_gateway(&mut self, key: &EgressKey) -> Result<(), ChangeError> {
        let gone = self.egress_gateways.remove(key);
        gone.map(drop)
            .ok_or_else(|| ChangeError::NotFound { object: object(key) })
    }
}

fn object(key: &EgressKey) -> String {
    format!("egress gateway {} to {}", key.source, key.destination)
}
