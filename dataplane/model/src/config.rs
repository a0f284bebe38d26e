//! The objects that the model is configured with. All of them deserialise from the text form the API uses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether it belongs to one station.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: Vec<String> = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        f.write_str(&text.join(":"))
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes: Vec<u8> = text
            .split(':')
            .map(|part| u8::from_str_radix(part, 16))
            .collect::<Result<_, _>>()
            .map_err(|error| format!("{text}: {error}"))?;
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| format!("{text}: six bytes expected"))
    }
}

/// An address prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// Its first address.
    pub addr: IpAddr,
    /// Its length in bits.
    pub len: u8,
}

/// An address as bits from the left, so that both families compare alike.
fn left(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => u128::from(addr.to_bits()) << 96,
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

/// Number of bits in an address of this family.
pub fn bits(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

impl Prefix {
    /// The prefix of one address only.
    pub fn host(addr: IpAddr) -> Self {
        Self {
            addr,
            len: bits(addr),
        }
    }

    /// Whether `addr` lies in it.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.addr.is_ipv4() == addr.is_ipv4()
            && (self.len == 0 || (left(self.addr) ^ left(addr)) >> (128 - u32::from(self.len)) == 0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (addr, len) = text
            .split_once('/')
            .map_or((text, None), |(addr, len)| (addr, Some(len)));
        let addr: IpAddr = addr.parse().map_err(|error| format!("{text}: {error}"))?;
        let len = match len {
            Some(len) => len.parse().map_err(|error| format!("{text}: {error}"))?,
            None => bits(addr),
        };
        if len > bits(addr) {
            return Err(format!("{text}: prefix too long"));
        }
        Ok(Self { addr, len })
    }
}

macro_rules! as_text {
    ($($kind:ty),*) => {$(
        impl Serialize for $kind {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

as_text!(Mac, Prefix);

/// An address or the empty text for none.
mod maybe {
    use super::{Deserialize, Deserializer, Serializer, de};
    use std::fmt::Display;
    use std::str::FromStr;

    pub(super) fn serialize<T: Display, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.collect_str(value),
            None => to.serialize_str(""),
        }
    }

    pub(super) fn deserialize<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr,
        T::Err: Display,
        D: Deserializer<'de>,
    {
        match Option::<String>::deserialize(from)?.as_deref() {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(de::Error::custom),
        }
    }
}

/// What stands at the other end of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Endpoints.
    Pod,
    /// The network between nodes.
    Uplink,
    /// This machine's kernel.
    Host,
}

fn yes() -> bool {
    true
}

/// A port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Unique name.
    pub name: String,
    /// What stands at its other end.
    pub role: Role,
    /// Our Ethernet address on it.
    pub mac: Mac,
    /// Largest IP packet that leaves by it.
    pub mtu: u16,
    /// Whether it is administratively up.
    #[serde(default = "yes")]
    pub admin_up: bool,
    /// Our addresses on its link (uplinks only), with the link's prefix length.
    #[serde(default)]
    pub addresses: Vec<Prefix>,
}

/// All ports.
pub type Ports = Vec<Port>;

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Number on this node, 1 to 65535.
    pub id: u32,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Name of the port it is behind.
    pub port: String,
    /// Its security identity.
    pub identity: u32,
    /// Bytes a second into it; 0 is unlimited.
    #[serde(default)]
    pub ingress_rate: u64,
    /// Bytes a second out of it; 0 is unlimited.
    #[serde(default)]
    pub egress_rate: u64,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum RouteTarget {
    /// Out of an uplink, to a gateway or to the destination itself.
    Via {
        /// Name of the uplink.
        port: String,
        /// The next hop; none: the destination is on the link.
        #[serde(default, with = "maybe")]
        gateway: Option<IpAddr>,
    },
    /// To this machine's kernel.
    Host,
    /// Nowhere.
    Blackhole,
}

/// A route; the longest prefix wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Destinations.
    pub prefix: Prefix,
    /// Where they go.
    pub target: RouteTarget,
    /// Path MTU where it is less than the port's; 0 for none.
    #[serde(default)]
    pub mtu: u16,
}

/// A station on an uplink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neighbour {
    /// Name of the uplink.
    pub port: String,
    /// Its address.
    pub address: IpAddr,
    /// Its Ethernet address.
    pub mac: Mac,
}

/// How pods on other nodes are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Routing {
    /// In a tunnel to the node.
    Tunnel,
    /// By the network's own routes.
    #[default]
    Native,
}

/// Encapsulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TunnelProtocol {
    /// RFC 7348.
    #[default]
    Vxlan,
    /// RFC 8926.
    Geneve,
}

/// The tunnel (specification, section 5).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tunnel {
    /// Encapsulation.
    pub protocol: TunnelProtocol,
    /// UDP port; 0 stands for the protocol's default here.
    pub port: u16,
    /// Our address on an IPv4 underlay.
    #[serde(with = "maybe")]
    pub local4: Option<Ipv4Addr>,
    /// Our address on an IPv6 underlay.
    #[serde(with = "maybe")]
    pub local6: Option<Ipv6Addr>,
}

impl Tunnel {
    /// The UDP port: the configured one, or 8472 and 6081 (specification, section 5).
    pub fn udp_port(&self) -> u16 {
        match (self.port, self.protocol) {
            (0, TunnelProtocol::Vxlan) => 8472,
            (0, TunnelProtocol::Geneve) => 6081,
            (port, _) => port,
        }
    }
}

/// When policy is enforced (specification, section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyMode {
    /// In the directions the endpoint's policy says.
    #[default]
    Default,
    /// For all endpoints in both directions.
    Always,
    /// For none.
    Never,
}

/// What a client of a service without backends is told (specification, 3.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoBackend {
    /// Port unreachable.
    #[default]
    Reject,
    /// Nothing.
    Drop,
}

/// This node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// Its own addresses, delivered to the host port.
    pub addresses: Vec<IpAddr>,
    /// Source address of masqueraded IPv4 packets; none: no masquerading.
    #[serde(with = "maybe")]
    pub masquerade4: Option<Ipv4Addr>,
    /// The same for IPv6.
    #[serde(with = "maybe")]
    pub masquerade6: Option<Ipv6Addr>,
    /// Destinations that are never masqueraded and are reached without a tunnel when routing is native.
    pub native_cidrs: Vec<Prefix>,
    /// Addresses on which NodePort services answer; empty: all of `addresses`.
    pub nodeport_addresses: Vec<IpAddr>,
    /// First NodePort.
    pub nodeport_min: u16,
    /// Last NodePort; SNAT ports come after it.
    pub nodeport_max: u16,
    /// How pods on other nodes are reached.
    pub routing: Routing,
    /// The tunnel.
    pub tunnel: Tunnel,
    /// IPv4 gateway that pods see.
    #[serde(with = "maybe")]
    pub router4: Option<Ipv4Addr>,
    /// IPv6 gateway that pods see.
    #[serde(with = "maybe")]
    pub router6: Option<Ipv6Addr>,
    /// When policy is enforced.
    pub policy_mode: PolicyMode,
    /// Whether denials are only reported.
    pub audit: bool,
    /// Whether a pod is told that policy denied its packet.
    pub policy_deny_response: bool,
    /// What clients of services without backends are told.
    pub no_backend: NoBackend,
    /// How requests go to other nodes, unless the service says.
    pub forwarding: Forwarding,
    /// Direct server return.
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
            nodeport_min: 30000,
            nodeport_max: 32767,
            routing: Routing::Native,
            tunnel: Tunnel::default(),
            router4: None,
            router6: None,
            policy_mode: PolicyMode::Default,
            audit: false,
            policy_deny_response: false,
            no_backend: NoBackend::Reject,
            forwarding: Forwarding::Snat,
            dsr: Dsr::default(),
        }
    }
}

/// Identity of a prefix (specification, 2.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpcacheEntry {
    /// The addresses.
    pub prefix: Prefix,
    /// Their identity.
    pub identity: u32,
    /// The node they are behind.
    #[serde(default, with = "maybe")]
    pub tunnel_endpoint: Option<IpAddr>,
    /// Index of the encryption key.
    #[serde(default)]
    pub key: u8,
    /// Whether they are reached without the tunnel.
    #[serde(default)]
    pub skip_tunnel: bool,
}

/// Transport protocol of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Number 6.
    Tcp,
    /// Number 17.
    Udp,
    /// Number 132.
    Sctp,
}

impl Protocol {
    /// The number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The name in a backend's hash string.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

/// Kind of a frontend (specification, 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are Kubernetes'")]
pub enum FrontendType {
    ClusterIp,
    NodePort,
    HostPort,
    ExternalIp,
    LoadBalancer,
}

/// An address on which a service answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frontend {
    /// Its address; unspecified for all NodePort addresses of the node.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: FrontendType,
}

/// State of a backend (specification, 2.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendState {
    /// Takes new connections.
    #[default]
    Active,
    /// Drains: keeps its connections, and takes new ones if no backend is active.
    Terminating,
    /// Unhealthy.
    Quarantined,
    /// Taken out.
    Maintenance,
}

fn one() -> u32 {
    1
}

/// A server of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its weight for Maglev.
    #[serde(default = "one")]
    pub weight: u32,
    /// Its state.
    #[serde(default)]
    pub state: BackendState,
    /// Whether it runs on this node.
    #[serde(default)]
    pub local: bool,
}

/// How backends are chosen for clients outside of pods (specification, 3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// At random.
    #[default]
    Random,
    /// By consistent hashing.
    Maglev,
}

/// A traffic policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrafficPolicy {
    /// Backends anywhere.
    #[default]
    Cluster,
    /// Backends on this node only.
    Local,
}

/// How requests go to backends on other nodes (specification, 3.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forwarding {
    /// With our source address.
    #[default]
    Snat,
    /// With the client's, replies return directly.
    Dsr,
    /// TCP with the client's, everything else with ours.
    Hybrid,
}

/// How a backend's node learns what the client used (specification, 3.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dispatch {
    /// An option of the IP header.
    #[default]
    Opt,
    /// An option of Geneve.
    Geneve,
    /// The client's packet comes in an IP packet.
    Ipip,
}

/// Direct server return (specification, 3.6).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dsr {
    /// How the backend's node learns what the client used.
    pub dispatch: Dispatch,
    /// Where outer IPv4 sources of IPIP are from; none: the first own address.
    pub source4: Option<Prefix>,
    /// The same for IPv6.
    pub source6: Option<Prefix>,
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// `namespace/service:port`.
    pub name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Where it answers.
    #[serde(default)]
    pub frontends: Vec<Frontend>,
    /// Who serves it.
    #[serde(default)]
    pub backends: Vec<Backend>,
    /// How backends are chosen.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// How long a client keeps its backend; 0 is no affinity.
    #[serde(default)]
    pub affinity_seconds: u32,
    /// Clients that may (or may not) use a load balancer address; empty: all.
    #[serde(default)]
    pub source_ranges: Vec<Prefix>,
    /// Whether `source_ranges` are those that may not.
    #[serde(default)]
    pub source_ranges_deny: bool,
    /// For clients in the cluster.
    #[serde(default)]
    pub internal_policy: TrafficPolicy,
    /// For clients outside.
    #[serde(default)]
    pub external_policy: TrafficPolicy,
    /// How requests go to other nodes.
    #[serde(default)]
    pub forwarding: Option<Forwarding>,
    /// Port of the proxy that serves it instead; 0 for none.
    #[serde(default)]
    pub proxy_port: u16,
}

/// Whose policy it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// The node's.
    Host,
    /// An endpoint's.
    Endpoint(u32),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Endpoint(id) => write!(f, "{id}"),
        }
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Host => to.serialize_str("host"),
            Self::Endpoint(id) => to.serialize_u32(*id),
        }
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Number(u32),
            Text(String),
        }
        match Raw::deserialize(from)? {
            Raw::Number(id) => Ok(Self::Endpoint(id)),
            Raw::Text(text) if text == "host" => Ok(Self::Host),
            Raw::Text(text) => text.parse().map(Self::Endpoint).map_err(de::Error::custom),
        }
    }
}

/// Which way a packet goes, seen from the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Into it.
    Ingress,
    /// Out of it.
    Egress,
}

/// One entry of a policy map (specification, 2.5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyEntry {
    /// Which way.
    pub direction: Direction,
    /// The other side's identity; 0 is any.
    #[serde(default)]
    pub identity: u32,
    /// IP protocol; 0 is any.
    #[serde(default)]
    pub protocol: u8,
    /// Destination port, or ICMP type.
    #[serde(default)]
    pub port: u16,
    /// How many bits of the port count; 0 is any port.
    #[serde(default)]
    pub port_prefix_len: u8,
    /// Whether it denies.
    #[serde(default)]
    pub deny: bool,
    /// Proxy to redirect to; 0 for none.
    #[serde(default)]
    pub proxy_port: u16,
    /// Authentication required; 0 for none.
    #[serde(default)]
    pub auth_type: u8,
    /// Whether this is what the policy says, as opposed to what follows from others: another entry adds nothing then.
    #[serde(default)]
    pub auth_explicit: bool,
    /// The larger wins.
    #[serde(default)]
    pub precedence: u32,
    /// Reported with the verdict.
    #[serde(default)]
    pub cookie: u32,
}

/// An endpoint's policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Whose.
    pub endpoint: Subject,
    /// Whether ingress is enforced.
    #[serde(default)]
    pub enforce_ingress: bool,
    /// Whether egress is enforced.
    #[serde(default)]
    pub enforce_egress: bool,
    /// Whether denials are only reported.
    #[serde(default)]
    pub audit: bool,
    /// The map.
    #[serde(default)]
    pub entries: Vec<PolicyEntry>,
}

/// The gateway of an egress rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EgressVia {
    /// There is none: packets are dropped.
    None,
    /// These destinations are excluded from the rule.
    Excluded,
    /// The node with this address.
    Node(IpAddr),
}

impl fmt::Display for EgressVia {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Excluded => f.write_str("excluded"),
            Self::Node(addr) => write!(f, "{addr}"),
        }
    }
}

impl FromStr for EgressVia {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Ok(Self::None),
            "excluded" => Ok(Self::Excluded),
            addr => addr.parse().map(Self::Node),
        }
    }
}

as_text!(EgressVia);

/// An egress gateway rule (specification, 2.12).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressRule {
    /// One pod's address, usually.
    pub source: Prefix,
    /// Destinations outside the cluster.
    pub destination: Prefix,
    /// Where the packets leave the cluster.
    pub gateway: EgressVia,
    /// The source address they get there.
    #[serde(default, with = "maybe")]
    pub egress_ip: Option<IpAddr>,
}

/// Two sides that have authenticated (specification, 2.11 and 4). Nothing here looks at the time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authentication {
    /// Identity of the side whose policy asks for it.
    pub local_identity: u32,
    /// Identity of the other side.
    pub remote_identity: u32,
    /// The node of the other side, unless it is this one.
    #[serde(default, with = "maybe")]
    pub remote_node: Option<IpAddr>,
    /// How.
    pub auth_type: u8,
    /// When it ends.
    pub expires: u64,
}

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// This node.
    pub node: Node,
    /// Its pods.
    pub endpoints: Vec<Endpoint>,
    /// Its routes.
    pub routes: Vec<Route>,
    /// Its neighbours.
    pub neighbours: Vec<Neighbour>,
    /// Identities of addresses.
    pub ipcache: Vec<IpcacheEntry>,
    /// Services.
    pub services: Vec<Service>,
    /// Policies.
    pub policies: Vec<Policy>,
    /// Egress gateway rules.
    pub egress_gateways: Vec<EgressRule>,
    /// Who has authenticated.
    pub authentications: Vec<Authentication>,
}
