//! The node's settings as the workers see them.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use octoplane_packet::Prefix;
use rustc_hash::FxBuildHasher;

use crate::model::{Dsr, Forwarding, NoBackend, Node, PolicyMode, Routing, Tunnel};

/// The node's settings, digested.
#[derive(Debug, Clone)]
pub struct NodeView {
    own4: HashSet<u32, FxBuildHasher>,
    own6: HashSet<u128, FxBuildHasher>,
    /// The first of the node's own addresses of each family: where its proxies listen.
    pub first4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub first6: Option<Ipv6Addr>,
    /// One of the addresses on which NodePort services answer over IPv4.
    pub nodeport4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub nodeport6: Option<Ipv6Addr>,
    native4: Vec<(u32, u32)>,
    native6: Vec<(u128, u128)>,
    /// Source address for masquerading IPv4; `None`: none is.
    pub masquerade4: Option<Ipv4Addr>,
    /// Source address for masquerading IPv6; `None`: none is.
    pub masquerade6: Option<Ipv6Addr>,
    /// First NodePort.
    pub nodeport_min: u16,
    /// Last NodePort.
    pub nodeport_max: u16,
    /// How endpoints of other nodes are reached.
    pub routing: Routing,
    /// Our end of all tunnels.
    pub tunnel: Tunnel,
    /// When policy is enforced; [`crate::Snapshot::policy`] has regard to it.
    pub policy_mode: PolicyMode,
    /// Whether what policy refuses is allowed and reported only; [`crate::EndpointPolicy`] has regard to it.
    pub audit: bool,
    /// Whether endpoints are told what policy refuses.
    pub policy_deny_response: bool,
    /// What becomes of packets to a service without backends.
    pub no_backend: NoBackend,
    /// How packets reach a service's backend on another node, unless the service says.
    pub forwarding: Forwarding,
    /// Direct server return, where that is how.
    pub dsr: Dsr,
    /// Whether the node has addresses of both families.
    pub dual_stack: bool,
}

impl NodeView {
    pub(crate) fn new(node: &Node) -> Self {
        let mut view = Self {
            own4: HashSet::default(),
            own6: HashSet::default(),
            first4: first4(&node.addresses),
            first6: first6(&node.addresses),
            nodeport4: first4(node.nodeport_addresses()),
            nodeport6: first6(node.nodeport_addresses()),
            native4: Vec::new(),
            native6: Vec::new(),
            masquerade4: node.masquerade4,
            masquerade6: node.masquerade6,
            nodeport_min: node.nodeport_min,
            nodeport_max: node.nodeport_max,
            routing: node.routing,
            tunnel: node.tunnel,
            policy_mode: node.policy_mode,
            audit: node.audit,
            policy_deny_response: node.policy_deny_response,
            no_backend: node.no_backend,
            forwarding: node.forwarding,
            dsr: node.dsr,
            dual_stack: dual_stack(node),
        };
        for addr in &node.addresses {
            match addr {
                IpAddr::V4(addr) => _ = view.own4.insert(addr.to_bits()),
                IpAddr::V6(addr) => _ = view.own6.insert(addr.to_bits()),
            }
        }
        for prefix in &node.native_cidrs {
            match prefix.addr() {
                IpAddr::V4(addr) => view.native4.push((addr.to_bits(), mask4(*prefix))),
                IpAddr::V6(addr) => view.native6.push((addr.to_bits(), mask6(*prefix))),
            }
        }
        view
    }

    /// Whether an IPv4 address (most significant byte first) is one of the node's own.
    pub fn own4(&self, addr: u32) -> bool {
        self.own4.contains(&addr)
    }

    /// Whether an IPv6 address (most significant byte first) is one of the node's own.
    pub fn own6(&self, addr: u128) -> bool {
        self.own6.contains(&addr)
    }

    /// Whether an IPv4 destination is never masqueraded.
    pub fn native4(&self, addr: u32) -> bool {
        self.native4.iter().any(|&(network, mask)| addr & mask == network)
    }

    /// Whether an IPv6 destination is never masqueraded.
    pub fn native6(&self, addr: u128) -> bool {
        self.native6.iter().any(|&(network, mask)| addr & mask == network)
    }

    /// Whether a port is one of those that NodePort services use.
    pub fn is_nodeport(&self, port: u16) -> bool {
        (self.nodeport_min..=self.nodeport_max).contains(&port)
    }

    /// First port of source address translation; the last is 65535 (specification of the datapath, section 2.4).
    pub fn snat_min(&self) -> u16 {
        self.nodeport_max.saturating_add(1)
    }
}

/// Whether a node has addresses of both families.
pub(crate) fn dual_stack(node: &Node) -> bool {
    node.addresses.iter().any(IpAddr::is_ipv4) && node.addresses.iter().any(IpAddr::is_ipv6)
}

fn first4(addresses: &[IpAddr]) -> Option<Ipv4Addr> {
    addresses.iter().find_map(|addr| match addr {
        IpAddr::V4(addr) => Some(*addr),
        IpAddr::V6(_) => None,
    })
}

fn first6(addresses: &[IpAddr]) -> Option<Ipv6Addr> {
    addresses.iter().find_map(|addr| match addr {
        IpAddr::V6(addr) => Some(*addr),
        IpAddr::V4(_) => None,
    })
}

fn mask4(prefix: Prefix) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.len())).unwrap_or(0)
}

fn mask6(prefix: Prefix) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix.len())).unwrap_or(0)
}
