//! Settings of this node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use octoplane_packet::Prefix;

use crate::model::Forwarding;

/// Highest number of addresses in each list of the settings.
pub const MAX_NODE_ADDRESSES: usize = 64;

/// Highest number of prefixes that are not masqueraded.
pub const MAX_NATIVE_CIDRS: usize = 64;

/// How endpoints of other nodes are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Routing {
    /// By the routes of the underlying network.
    #[default]
    Native,
    /// In a tunnel to their node.
    Tunnel,
}

/// How packets in a tunnel are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TunnelProtocol {
    /// RFC 7348.
    #[default]
    Vxlan,
    /// RFC 8926.
    Geneve,
}

/// Our end of all tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// The encapsulation.
    pub protocol: TunnelProtocol,
    /// UDP port, the same at all nodes.
    pub port: u16,
    /// Our IPv4 address in outer headers.
    pub local4: Option<Ipv4Addr>,
    /// Our IPv6 address in outer headers.
    pub local6: Option<Ipv6Addr>,
}

impl Default for Tunnel {
    fn default() -> Self {
        Self {
            protocol: TunnelProtocol::Vxlan,
            port: 8472,
            local4: None,
            local6: None,
        }
    }
}

/// How a backend's node is told what clients used in its place (specification of the datapath, section 3.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DsrDispatch {
    /// In an option of the IPv4 header, or a destination option of IPv6.
    #[default]
    Opt,
    /// In an option of a Geneve tunnel.
    Geneve,
    /// By sending the client's packet as it is, in an IP packet to the backend.
    Ipip,
}

/// Direct server return (specification of the datapath, section 3.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Dsr {
    /// How the backend's node is told, the same at all nodes.
    pub dispatch: DsrDispatch,
    /// Where outer source addresses of [`DsrDispatch::Ipip`] are from, over IPv4; `None`: the node's first address.
    pub source4: Option<Prefix>,
    /// The same over IPv6.
    pub source6: Option<Prefix>,
}

/// When policy is enforced (specification of the datapath, section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PolicyMode {
    /// In the directions that an endpoint's policy names.
    #[default]
    Default,
    /// In both directions of every endpoint.
    Always,
    /// Nowhere.
    Never,
}

/// What becomes of packets to a service without backends (specification of the datapath, section 3.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NoBackend {
    /// They are answered with "port unreachable".
    #[default]
    Reject,
    /// They are dropped.
    Drop,
}

/// The settings of this node: one object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    /// The node's own addresses: delivered to the host port, and of identity host.
    pub addresses: Vec<IpAddr>,
    /// Source address for masquerading IPv4; `None`: none is.
    pub masquerade4: Option<Ipv4Addr>,
    /// Source address for masquerading IPv6; `None`: none is.
    pub masquerade6: Option<Ipv6Addr>,
    /// Destinations that are never masqueraded, and that native routing reaches without tunnel.
    pub native_cidrs: Vec<Prefix>,
    /// Addresses on which NodePort services answer; empty: [`Node::addresses`].
    pub nodeport_addresses: Vec<IpAddr>,
    /// First NodePort.
    pub nodeport_min: u16,
    /// Last NodePort. The ports above it are for source address translation.
    pub nodeport_max: u16,
    /// How endpoints of other nodes are reached.
    pub routing: Routing,
    /// Our end of all tunnels.
    pub tunnel: Tunnel,
    /// When policy is enforced.
    pub policy_mode: PolicyMode,
    /// Whether what policy refuses is allowed and reported only.
    pub audit: bool,
    /// Whether endpoints are told what policy refuses.
    pub policy_deny_response: bool,
    /// What becomes of packets to a service without backends.
    pub no_backend: NoBackend,
    /// How packets reach a service's backend on another node, unless the service says.
    pub forwarding: Forwarding,
    /// Direct server return, where that is how.
    pub dsr: Dsr,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            masquerade4: None,
            masquerade6: None,
            native_cidrs: Vec::new(),
            nodeport_addresses: Vec::new(),
            nodeport_min: 30_000,
            nodeport_max: 32_767,
            routing: Routing::default(),
            tunnel: Tunnel::default(),
            policy_mode: PolicyMode::default(),
            audit: false,
            policy_deny_response: false,
            no_backend: NoBackend::default(),
            forwarding: Forwarding::default(),
            dsr: Dsr::default(),
        }
    }
}

impl Node {
    /// The addresses on which NodePort services answer.
    pub fn nodeport_addresses(&self) -> &[IpAddr] {
        if self.nodeport_addresses.is_empty() {
            &self.addresses
        } else {
            &self.nodeport_addresses
        }
    }
}
