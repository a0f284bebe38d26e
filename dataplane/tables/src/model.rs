//! What the control plane programs: endpoints, routes, neighbours, ports; a file each for the rest.

mod authentication;
mod egress_gateway;
mod ipcache;
mod node;
mod policy;
mod service;

use std::net::IpAddr;

use octoplane_packet::{MacAddr, Prefix};

pub use authentication::{AuthKey, Authentication};
pub use egress_gateway::{EgressGateway, EgressGatewayRule, EgressKey};
pub use ipcache::IpcacheEntry;
pub use node::{
    Dsr, DsrDispatch, MAX_NATIVE_CIDRS, MAX_NODE_ADDRESSES, NoBackend, Node, PolicyMode, Routing, Tunnel,
    TunnelProtocol,
};
pub use policy::{Direction, HOST_ENDPOINT, Policy, PolicyEntry, PolicyKey, PolicyValue};
pub use service::{
    Algorithm, BackendState, Forwarding, FrontendType, MAX_AFFINITY_SECONDS, MAX_BACKENDS, MAX_FRONTENDS,
    MAX_SOURCE_RANGES, Protocol, Service, ServiceBackend, ServiceFrontend, TrafficPolicy,
};

/// Number of a port, given by the daemon: the lowest that is free, which makes it the order of its configuration at the
/// start. The number of a port that was removed is given again, once no worker knows it any more.
pub type PortId = u16;

/// Highest number of ports.
pub const MAX_PORTS: usize = 256;

/// Highest number of addresses of one endpoint, both families together.
pub const MAX_ENDPOINT_ADDRESSES: usize = 16;

/// Highest endpoint id. Ids travel in 32 bits; 0 means "none".
pub const MAX_ENDPOINT_ID: u32 = u32::MAX;

/// Highest security identity: what a VXLAN VNI can carry, with the local scopes above it
/// (specification of the datapath, section 4).
pub const MAX_IDENTITY: u32 = 0x02ff_ffff;

/// What stands at the other end of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// One or more endpoints (pods).
    Pod,
    /// The network between nodes.
    Uplink,
    /// This machine's kernel: the exception path.
    Host,
}

impl Role {
    /// The role's name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Uplink => "uplink",
            Self::Host => "host",
        }
    }
}

/// A port as the tables see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Number of the port.
    pub id: PortId,
    /// Unique name.
    pub name: String,
    /// What stands at its other end.
    pub role: Role,
    /// Our address on this port: the gateway's towards pods.
    pub mac: MacAddr,
    /// Largest IP packet, in bytes, that leaves by this port.
    pub mtu: u16,
    /// Whether packets are taken from and given to the port.
    pub admin_up: bool,
    /// Our addresses on this link with the length of the link's prefix; empty on pod ports.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// A workload's attachment: where packets to its addresses are delivered, and what it may send from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Numeric id, unique on the node, not 0.
    pub id: u32,
    /// For people; usually `namespace/pod`. At most 253 bytes.
    pub name: String,
    /// The port behind which it lives, of role [`Role::Pod`].
    pub port: PortId,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its security identity.
    pub identity: u32,
    /// Its addresses, at least one, each owned by no other endpoint.
    pub addresses: Vec<IpAddr>,
    /// How much it may receive, in bytes a second; 0: no limit (specification of the datapath, section 2.14).
    pub ingress_rate: u64,
    /// How much it may send, in bytes a second; 0: no limit.
    pub egress_rate: u64,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteTarget {
    /// Out of `port` to the neighbour `gateway`.
    Gateway {
        /// Port of role uplink.
        port: PortId,
        /// The next hop, in the family of the prefix.
        gateway: IpAddr,
    },
    /// Out of `port`, the destination itself being the neighbour.
    Link {
        /// Port of role uplink.
        port: PortId,
    },
    /// To this machine's kernel through the host port.
    Host,
    /// Nowhere: the packet is dropped as unroutable.
    Blackhole,
}

/// One route. The longest prefix wins; endpoints win over routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Destinations.
    pub prefix: Prefix,
    /// Where they go.
    pub target: RouteTarget,
    /// Largest IP packet on this path, in bytes, where it is less than the port's.
    pub mtu: Option<u16>,
}

/// Who said that a neighbour has an Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The control plane; never overwritten or aged.
    Static,
    /// ARP or neighbour discovery.
    Learned,
}

/// A station on an uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The uplink.
    pub port: PortId,
    /// Its address.
    pub addr: IpAddr,
    /// Its Ethernet address; `None` while it is being asked for.
    pub mac: Option<MacAddr>,
    /// Who said so.
    pub origin: Origin,
}

/// One step of a transaction. `Put…` creates or replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the named object's key")]
pub enum Change {
    /// Creates or replaces the endpoint with this id.
    PutEndpoint(Endpoint),
    /// Removes an endpoint; one that is not there is an error.
    RemoveEndpoint { id: u32 },
    /// Creates or replaces the route with this prefix.
    PutRoute(Route),
    /// Removes a route; one that is not there is an error.
    RemoveRoute { prefix: Prefix },
    /// Creates or replaces the neighbour with this port and address.
    PutNeighbour(Neighbour),
    /// Removes a neighbour; one that is not there is an error.
    RemoveNeighbour { port: PortId, addr: IpAddr },
    /// Adds a port with a free number. Its MTU is the most it can be set to.
    AddPort(Port),
    /// Removes a port, and what was learned on it; one that endpoints, routes or static neighbours name is an error.
    RemovePort { id: PortId },
    /// Changes a port; `None` leaves a field as it is.
    SetPort {
        id: PortId,
        mtu: Option<u16>,
        admin_up: Option<bool>,
    },
    /// Sets the settings of this node.
    PutNode(Box<Node>),
    /// Takes the node's settings back to the defaults; an error if they were never set.
    RemoveNode,
    /// Creates or replaces what is known of this prefix.
    PutIpcache(IpcacheEntry),
    /// Removes what is known of a prefix; one that is not there is an error.
    RemoveIpcache { prefix: Prefix },
    /// Creates or replaces the service with this name.
    PutService(Box<Service>),
    /// Removes a service; one that is not there is an error.
    RemoveService { name: String },
    /// Creates or replaces the policy of this endpoint, all its entries.
    PutPolicy(Policy),
    /// Creates or replaces single entries of a policy that is there.
    PutPolicyEntries {
        endpoint: u32,
        entries: Vec<PolicyEntry>,
    },
    /// Removes single entries of a policy; an entry that is not there is an error.
    RemovePolicyEntries { endpoint: u32, keys: Vec<PolicyKey> },
    /// Removes a policy; one that is not there is an error.
    RemovePolicy { endpoint: u32 },
    /// Creates or replaces the egress-gateway rule with this key.
    PutEgressGateway(EgressGatewayRule),
    /// Removes an egress-gateway rule; one that is not there is an error.
    RemoveEgressGateway { key: EgressKey },
    /// Creates or replaces an authentication.
    PutAuthentication(Authentication),
    /// Removes an authentication; one that is not there is an error.
    RemoveAuthentication { key: AuthKey },
}
