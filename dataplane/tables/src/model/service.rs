//! Services: addresses behind which other addresses stand.

use std::net::IpAddr;

use octoplane_packet::Prefix;

/// Highest number of frontends of one service.
pub const MAX_FRONTENDS: usize = 256;

/// Highest number of backends of one service.
pub const MAX_BACKENDS: usize = 16_384;

/// Highest number of source ranges of one service.
pub const MAX_SOURCE_RANGES: usize = 4096;

/// Longest session affinity in seconds: what 24 bits hold.
pub const MAX_AFFINITY_SECONDS: u32 = 0x00ff_ffff;

/// What a service's ports are ports of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The protocol's number in IP headers.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol's name in capitals.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

/// Why an address belongs to a service (specification of the datapath, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrontendType {
    /// The service's address inside the cluster.
    ClusterIp,
    /// A port of every node.
    NodePort,
    /// A port of the node its pod runs on.
    HostPort,
    /// An address that the network brings here.
    ExternalIp,
    /// An address of a load balancer.
    LoadBalancer,
}

/// An address and port where a service answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServiceFrontend {
    /// The address; the unspecified one (`0.0.0.0`, `::`) stands for all NodePort addresses of the node.
    pub addr: IpAddr,
    /// The port, not 0.
    pub port: u16,
    /// Why it is the service's.
    pub kind: FrontendType,
}

/// What may be sent to a backend (specification of the datapath, sections 2.8 and 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum BackendState {
    /// New and old flows.
    #[default]
    Active,
    /// Old flows, and new ones where no backend is active.
    Terminating,
    /// Old flows: it is not healthy.
    Quarantined,
    /// Old flows: it is not listed.
    Maintenance,
}

/// One address that a service stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServiceBackend {
    /// Its address.
    pub addr: IpAddr,
    /// Its port, not 0.
    pub port: u16,
    /// Its share of the flows, 1 or more, where the algorithm is Maglev.
    pub weight: u16,
    /// What may be sent to it.
    pub state: BackendState,
    /// Whether it lives on this node.
    pub local: bool,
}

/// How a backend is chosen (specification of the datapath, sections 3.3 and 3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Algorithm {
    /// Any of them.
    #[default]
    Random,
    /// By a hash of the flow that all nodes agree on.
    Maglev,
}

/// Which backends are eligible (specification of the datapath, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TrafficPolicy {
    /// All of them.
    #[default]
    Cluster,
    /// Those on this node.
    Local,
}

/// How packets reach a backend on another node (specification of the datapath, section 3.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Forwarding {
    /// With this node's source address, so that answers come back here.
    #[default]
    Snat,
    /// With the client's, so that answers go straight to it.
    Dsr,
    /// TCP as [`Forwarding::Dsr`], everything else as [`Forwarding::Snat`].
    Hybrid,
}

impl Forwarding {
    /// Whether answers go straight to the clients of this protocol.
    pub fn is_direct(self, protocol: Protocol) -> bool {
        match self {
            Self::Snat => false,
            Self::Dsr => true,
            Self::Hybrid => protocol == Protocol::Tcp,
        }
    }
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Unique name; usually `namespace/name:port`. 1 to 253 bytes.
    pub name: String,
    /// What the ports are ports of.
    pub protocol: Protocol,
    /// Where it answers: at least one, each of no other service of this protocol.
    pub frontends: Vec<ServiceFrontend>,
    /// What it stands for, each in the family of a frontend.
    pub backends: Vec<ServiceBackend>,
    /// How a backend is chosen for a flow from outside of the cluster.
    pub algorithm: Algorithm,
    /// How long a client stays with its backend; 0: for one flow.
    pub affinity_seconds: u32,
    /// Clients from outside of the cluster that may use it; empty: all.
    pub source_ranges: Vec<Prefix>,
    /// Whether `source_ranges` are those that may not.
    pub source_ranges_deny: bool,
    /// Backends for clients inside of the cluster.
    pub internal_policy: TrafficPolicy,
    /// Backends for clients outside of the cluster.
    pub external_policy: TrafficPolicy,
    /// How packets reach a backend on another node; `None`: as [`crate::model::Node::forwarding`] says.
    pub forwarding: Option<Forwarding>,
    /// Port of the proxy on this node that takes the flows; 0: none.
    pub proxy_port: u16,
}

impl Service {
    /// A service without frontends and backends, and all settings at their defaults.
    pub fn new(name: impl Into<String>, protocol: Protocol) -> Self {
        Self {
            name: name.into(),
            protocol,
            frontends: Vec::new(),
            backends: Vec::new(),
            algorithm: Algorithm::default(),
            affinity_seconds: 0,
            source_ranges: Vec::new(),
            source_ranges_deny: false,
            internal_policy: TrafficPolicy::default(),
            external_policy: TrafficPolicy::default(),
            forwarding: None,
            proxy_port: 0,
        }
    }
}
