//! Egress gateway (specification, 1.6 step 5, 1.7 step 6 and 2.12).

use std::net::IpAddr;

use crate::config::{Direction, EgressRule, EgressVia};
use crate::conntrack::Kind;
use crate::fib::{Target, identity};
use crate::model::{Model, Rx};
use crate::outcome::{Flow, Stop, Told, code};
use crate::wire::Packet;

/// What a rule says.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Redirect {
    /// There is none, or the destination is excluded.
    None,
    /// This node is the gateway, with this address if there is one.
    Here(Option<IpAddr>),
    /// To the gateway node.
    To(IpAddr),
}

impl Model {
    fn rule(&self, pkt: &Packet) -> Option<&EgressRule> {
        self.state
            .egress_gateways
            .iter()
            .filter(|rule| rule.source.contains(pkt.src()) && rule.destination.contains(pkt.dst()))
            .max_by_key(|rule| (rule.source.len, rule.destination.len))
    }

    /// What the rules say of a packet that a pod opens a flow out of the cluster with.
    pub(crate) fn egress_rule(&self, pkt: &Packet, dst_id: u32) -> Flow<Redirect> {
        if identity::in_cluster(dst_id) {
            return Ok(Redirect::None);
        }
        Ok(match self.rule(pkt) {
            None => Redirect::None,
            Some(rule) => match rule.gateway {
                EgressVia::None => return Err(Stop::Drop(code::NO_EGRESS_GATEWAY, Direction::Egress)),
                EgressVia::Excluded => Redirect::None,
                EgressVia::Node(addr) if self.is_own(addr) => Redirect::Here(rule.egress_ip),
                EgressVia::Node(addr) => Redirect::To(addr),
            },
        })
    }

    /// Sends a packet of a pod to the gateway node, which is a hop (specification, section 5, TTL).
    pub(crate) fn to_gateway(&self, rx: &mut Rx<'_>, pkt: &mut Packet, peer: IpAddr, src_id: u32) -> Flow {
        if pkt.ttl() <= 1 {
            return Err(Stop::Refuse(code::TTL, rx.direction(), Told::TimeExceeded));
        }
        pkt.set_ttl(pkt.ttl() - 1);
        self.encapsulate(rx, pkt, peer, src_id, Direction::Egress)
    }

    /// A packet of a pod on another node for which this node is the gateway. Whether it was one.
    pub(crate) fn egress_here(&mut self, rx: &mut Rx<'_>, pkt: &mut Packet) -> Flow<bool> {
        // Routes to the kernel, and its own addresses, are no way out of the cluster.
        if !matches!(self.target(pkt.dst()), Target::Exit(_) | Target::Unknown) {
            return Ok(false);
        }
        // What answers somebody does not leave by itself (1.6 step 5).
        let tuple = pkt.tuple().map_err(|code| rx.drop(code))?;
        if self.ct.get(&tuple.reversed(), Kind::Out).is_some() {
            return Ok(false);
        }
        let dst_id = self.identity(pkt.dst());
        let Ok(Redirect::Here(to)) = self.egress_rule(pkt, dst_id) else {
            return Ok(false);
        };
        let to = to.ok_or_else(|| rx.drop(code::NO_EGRESS_IP))?;
        if pkt.ttl() <= 1 {
            return Err(Stop::Refuse(code::TTL, rx.direction(), Told::TimeExceeded));
        }
        let exit = self.exit(rx, pkt.dst())?;
        self.fits(pkt, (&exit.port, exit.mtu), rx.direction())?;
        pkt.set_ttl(pkt.ttl() - 1);
        self.snat(rx, pkt, to, true)?;
        self.transmit(rx, pkt, &exit)?;
        Ok(true)
    }

    /// The node behind which the pod is that a reply from outside goes to (specification, 3.6 step 5).
    pub(crate) fn egress_reply(&self, pkt: &Packet) -> Option<IpAddr> {
        let rule = self
            .state
            .egress_gateways
            .iter()
            .filter(|rule| rule.source.contains(pkt.dst()) && rule.destination.contains(pkt.src()))
            .max_by_key(|rule| (rule.source.len, rule.destination.len))?;
        match rule.gateway {
            EgressVia::Node(addr) if self.is_own(addr) => self.ipcache(pkt.dst())?.tunnel_endpoint,
            _ => None,
        }
    }
}
