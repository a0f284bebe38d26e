//! Egress-gateway rules as the workers see them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use imbl::OrdMap;
use octoplane_packet::Prefix;

use crate::fast_map::FastMap;
use crate::ipcache::Remotes;
use crate::model::{EgressGateway, EgressGatewayRule, EgressKey};

/// Where traffic leaves from (specification of the datapath, section 2.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EgressRule {
    /// The node it leaves from.
    pub gateway: EgressGateway,
    /// Number of that node, for [`crate::Snapshot::tunnel_end`]; 0: there is none.
    pub tunnel_end: u32,
    /// Source address it gets there; `None`: drop reason 204.
    pub egress_ip: Option<IpAddr>,
}

/// The rules of both families.
#[derive(Clone, Default)]
pub(crate) struct EgressTable {
    rules: FastMap<EgressKey, EgressRule>,
    /// How many rules have each pair of prefix lengths: source and destination, per family.
    shapes4: OrdMap<(u8, u8), u32>,
    shapes6: OrdMap<(u8, u8), u32>,
}

impl EgressTable {
    pub(crate) fn insert(&mut self, rule: &EgressGatewayRule, remotes: &Remotes) {
        let value = EgressRule {
            gateway: rule.gateway,
            tunnel_end: match rule.gateway {
                EgressGateway::Node(addr) => remotes.peer_number(addr),
                EgressGateway::Missing | EgressGateway::Excluded => 0,
            },
            egress_ip: rule.egress_ip,
        };
        if self.rules.insert(rule.key, value).is_none() {
            *self.shapes(&rule.key).entry(shape(&rule.key)).or_default() += 1;
        }
    }

    pub(crate) fn remove(&mut self, key: &EgressKey) {
        if self.rules.remove(key).is_none() {
            return;
        }
        let shapes = self.shapes(key);
        match shapes.get_mut(&shape(key)) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = shapes.remove(&shape(key)),
        }
    }

    pub(crate) fn find4(&self, src: u32, dst: u32) -> Option<&EgressRule> {
        if self.rules.is_empty() {
            return None;
        }
        let (src, dst) = (Ipv4Addr::from_bits(src).into(), Ipv4Addr::from_bits(dst).into());
        self.find(&self.shapes4, src, dst)
    }

    pub(crate) fn find6(&self, src: u128, dst: u128) -> Option<&EgressRule> {
        if self.rules.is_empty() {
            return None;
        }
        let (src, dst) = (Ipv6Addr::from_bits(src).into(), Ipv6Addr::from_bits(dst).into());
        self.find(&self.shapes6, src, dst)
    }

    fn find(&self, shapes: &OrdMap<(u8, u8), u32>, src: IpAddr, dst: IpAddr) -> Option<&EgressRule> {
        shapes.keys().rev().find_map(|&(source, destination)| {
            self.rules.get(&EgressKey {
                source: Prefix::containing(src, source),
                destination: Prefix::containing(dst, destination),
            })
        })
    }

    fn shapes(&mut self, key: &EgressKey) -> &mut OrdMap<(u8, u8), u32> {
        if key.source.addr().is_ipv4() {
            &mut self.shapes4
        } else {
            &mut self.shapes6
        }
    }
}

fn shape(key: &EgressKey) -> (u8, u8) {
    (key.source.len(), key.destination.len())
}
