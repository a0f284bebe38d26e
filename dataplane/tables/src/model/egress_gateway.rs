//! Which node traffic leaves the cluster from.

use std::net::IpAddr;

use octoplane_packet::Prefix;

/// The node that traffic leaves from (specification of the datapath, section 2.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EgressGateway {
    /// The node with this address.
    Node(IpAddr),
    /// There is none at the moment: packets are dropped.
    Missing,
    /// These destinations are reached as if there was no rule.
    Excluded,
}

/// Names an egress-gateway rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EgressKey {
    /// Endpoints.
    pub source: Prefix,
    /// Where they send to, in the same family.
    pub destination: Prefix,
}

/// One rule. The longest source wins, then the longest destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EgressGatewayRule {
    /// What the rule is about.
    pub key: EgressKey,
    /// The node that traffic leaves from.
    pub gateway: EgressGateway,
    /// Source address it gets there; `None`: packets are dropped at the gateway.
    pub egress_ip: Option<IpAddr>,
}
