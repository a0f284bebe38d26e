//! The state the control plane programmed: immutable versions, cheap to keep, edited by copying what changes.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use imbl::{HashMap, OrdMap, OrdSet};
use octoplane_packet::Prefix;

use crate::ipcache::{Remote, Remotes, identity};
use crate::last_changed::LastChanged;
use crate::model::{
    AuthKey, Authentication, EgressGateway, EgressGatewayRule, EgressKey, Endpoint, IpcacheEntry, Neighbour,
    Node, Port, PortId, Role, Route, RouteTarget, Service,
};
use crate::policy::StoredPolicy;
use crate::ports::Ports;
use crate::services::Names;
use crate::target::TargetKey;

/// Addresses that pods use as their default gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateways {
    /// IPv4 gateway.
    pub ipv4: std::net::Ipv4Addr,
    /// IPv6 gateway, usually link-local.
    pub ipv6: std::net::Ipv6Addr,
}

impl Gateways {
    /// Whether `addr` is one of them.
    pub fn contains(&self, addr: IpAddr) -> bool {
        addr == self.ipv4 || addr == self.ipv6
    }
}

/// One consistent version of everything programmed.
#[derive(Clone)]
pub struct State {
    pub(crate) revision: u64,
    pub(crate) gateways: Gateways,
    pub(crate) endpoints: OrdMap<u32, Arc<Endpoint>>,
    pub(crate) owners: HashMap<IpAddr, u32>,
    pub(crate) routes: OrdMap<Prefix, Route>,
    pub(crate) neighbours: OrdMap<(PortId, IpAddr), Neighbour>,
    pub(crate) ports: Ports,
    /// Largest MTU of each port: what its device was configured for.
    pub(crate) mtu_limits: OrdMap<PortId, u16>,
    /// `None`: the defaults.
    pub(crate) node: Option<Arc<Node>>,
    /// Number of the remote of each prefix.
    pub(crate) ipcache: OrdMap<Prefix, u32>,
    pub(crate) remotes: Remotes,
    pub(crate) services: OrdMap<Arc<str>, Arc<Service>>,
    /// Services with a frontend that stands for all NodePort addresses.
    pub(crate) surrogates: OrdSet<Arc<str>>,
    pub(crate) names: Names,
    pub(crate) policies: OrdMap<u32, Arc<StoredPolicy>>,
    pub(crate) egress_gateways: OrdMap<EgressKey, EgressGatewayRule>,
    pub(crate) authentications: OrdMap<AuthKey, Authentication>,
    pub(crate) changed: Arc<LastChanged>,
}

/// The settings of a node that was given none.
static DEFAULTS: LazyLock<Node> = LazyLock::new(Node::default);

impl State {
    pub(crate) fn new(ports: Vec<Port>, gateways: Gateways) -> Self {
        Self {
            revision: 0,
            gateways,
            endpoints: OrdMap::new(),
            owners: HashMap::new(),
            routes: OrdMap::new(),
            neighbours: OrdMap::new(),
            mtu_limits: ports.iter().map(|port| (port.id, port.mtu)).collect(),
            ports: ports.into_iter().collect(),
            node: None,
            ipcache: OrdMap::new(),
            remotes: Remotes::default(),
            services: OrdMap::new(),
            surrogates: OrdSet::new(),
            names: Names::default(),
            policies: OrdMap::new(),
            egress_gateways: OrdMap::new(),
            authentications: OrdMap::new(),
            changed: Arc::default(),
        }
    }

    /// Number of committed transactions that changed something.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// When what holds for an address changed last, later transactions included.
    pub fn last_changed(&self) -> &LastChanged {
        &self.changed
    }

    /// The gateway addresses.
    pub fn gateways(&self) -> Gateways {
        self.gateways
    }

    /// The endpoint with this id.
    pub fn endpoint(&self, id: u32) -> Option<&Endpoint> {
        self.endpoints.get(&id).map(Arc::as_ref)
    }

    /// All endpoints by id.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values().map(Arc::as_ref)
    }

    /// Number of endpoints.
    pub fn endpoint_count(&self) -> usize {
        self.endpoints.len()
    }

    /// The endpoint that owns an address.
    pub fn owner(&self, addr: IpAddr) -> Option<&Endpoint> {
        self.owners.get(&addr).and_then(|id| self.endpoint(*id))
    }

    /// The route with exactly this prefix.
    pub fn route(&self, prefix: &Prefix) -> Option<&Route> {
        self.routes.get(prefix)
    }

    /// All routes by prefix.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.values()
    }

    /// Number of routes.
    pub fn route_count(&self) -> usize {
        self.routes.len()
    }

    /// The neighbour with this address on this port.
    pub fn neighbour(&self, port: PortId, addr: IpAddr) -> Option<&Neighbour> {
        self.neighbours.get(&(port, addr))
    }

    /// All neighbours by port and address.
    pub fn neighbours(&self) -> impl Iterator<Item = &Neighbour> {
        self.neighbours.values()
    }

    /// Number of neighbours.
    pub fn neighbour_count(&self) -> usize {
        self.neighbours.len()
    }

    /// The port with this number.
    pub fn port(&self, id: PortId) -> Option<&Port> {
        self.ports.get(id)
    }

    /// The port with this name.
    pub fn port_by_name(&self, name: &str) -> Option<&Port> {
        self.ports.by_name(name)
    }

    /// Largest MTU that a port can be given: what its device was configured for.
    pub fn mtu_limit(&self, id: PortId) -> Option<u16> {
        self.mtu_limits.get(&id).copied()
    }

    /// The set of ports.
    pub fn port_set(&self) -> &Ports {
        &self.ports
    }

    /// All ports by number.
    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.ports.iter()
    }

    /// The host port, if there is one.
    pub fn host_port(&self) -> Option<&Port> {
        self.ports().find(|port| port.role == Role::Host)
    }

    /// The settings of this node; the defaults if it was given none.
    pub fn node(&self) -> &Node {
        self.node.as_deref().unwrap_or(&DEFAULTS)
    }

    /// Whether the node was given settings.
    pub fn has_node(&self) -> bool {
        self.node.is_some()
    }

    /// What is known of exactly this prefix.
    pub fn ipcache_entry(&self, prefix: &Prefix) -> Option<IpcacheEntry> {
        let number = self.ipcache.get(prefix)?;
        self.entry(*prefix, *number)
    }

    /// What is known of remote addresses, by prefix.
    pub fn ipcache(&self) -> impl Iterator<Item = IpcacheEntry> {
        self.ipcache
            .iter()
            .filter_map(|(prefix, number)| self.entry(*prefix, *number))
    }

    /// Number of prefixes of which something is known.
    pub fn ipcache_count(&self) -> usize {
        self.ipcache.len()
    }

    fn entry(&self, prefix: Prefix, number: u32) -> Option<IpcacheEntry> {
        self.remotes.get(number).map(|remote| IpcacheEntry {
            prefix,
            identity: remote.identity,
            tunnel: remote.tunnel,
            key: remote.key,
            skip_tunnel: remote.skip_tunnel,
        })
    }

    /// The service with this name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.get(name).map(Arc::as_ref)
    }

    /// All services by name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values().map(Arc::as_ref)
    }

    /// Number of services.
    pub fn service_count(&self) -> usize {
        self.services.len()
    }

    /// All policies, to be kept: a copy shares its entries.
    pub fn shared_policies(&self) -> impl Iterator<Item = &Arc<StoredPolicy>> {
        self.policies.values()
    }

    /// The policy of this endpoint; 0 is the node.
    pub fn policy(&self, endpoint: u32) -> Option<&StoredPolicy> {
        self.policies.get(&endpoint).map(Arc::as_ref)
    }

    /// All policies by endpoint.
    pub fn policies(&self) -> impl Iterator<Item = &StoredPolicy> {
        self.policies.values().map(Arc::as_ref)
    }

    /// Number of policies.
    pub fn policy_count(&self) -> usize {
        self.policies.len()
    }

    /// The authentication with this key.
    pub fn authentication(&self, key: &AuthKey) -> Option<&Authentication> {
        self.authentications.get(key)
    }

    /// All authentications by key.
    pub fn authentications(&self) -> impl Iterator<Item = &Authentication> {
        self.authentications.values()
    }

    /// Number of authentications.
    pub fn authentication_count(&self) -> usize {
        self.authentications.len()
    }

    /// The egress-gateway rule with this key.
    pub fn egress_gateway(&self, key: &EgressKey) -> Option<&EgressGatewayRule> {
        self.egress_gateways.get(key)
    }

    /// All egress-gateway rules by key.
    pub fn egress_gateways(&self) -> impl Iterator<Item = &EgressGatewayRule> {
        self.egress_gateways.values()
    }

    /// Number of egress-gateway rules.
    pub fn egress_gateway_count(&self) -> usize {
        self.egress_gateways.len()
    }

    /// Where the most specific route to `addr` leads, links of our own ports included, endpoints left out.
    pub fn route_to(&self, addr: IpAddr) -> Option<(Prefix, RouteTarget)> {
        (0..=Prefix::host(addr).len()).rev().find_map(|len| {
            let prefix = Prefix::containing(addr, len);
            self.routes
                .get(&prefix)
                .map(|route| (prefix, route.target))
                .or_else(|| {
                    self.connected(prefix)
                        .map(|port| (prefix, RouteTarget::Link { port }))
                })
        })
    }

    /// The uplink whose own link has this prefix.
    fn connected(&self, prefix: Prefix) -> Option<PortId> {
        self.ports
            .iter()
            .filter(|port| port.role == Role::Uplink)
            .find(|port| {
                port.addresses
                    .iter()
                    .any(|&(addr, len)| Prefix::containing(addr, len) == prefix)
            })
            .map(|port| port.id)
    }

    /// The port that owns `addr` as one of our own addresses.
    pub fn own_address(&self, addr: IpAddr) -> Option<&Port> {
        self.ports
            .iter()
            .find(|port| port.addresses.iter().any(|&(own, _)| own == addr))
    }

    /// Whether `addr` is the node's or the data plane's own.
    pub(crate) fn is_own(&self, addr: IpAddr) -> bool {
        self.gateways.contains(addr)
            || self.own_address(addr).is_some()
            || self.node().addresses.contains(&addr)
    }

    /// What is known of exactly this prefix, with one more user, in the order of precedence: our own addresses,
    /// endpoints, entries.
    pub(crate) fn resolve_remote(&mut self, prefix: Prefix) -> Option<u32> {
        if prefix == Prefix::host(prefix.addr()) {
            let addr = prefix.addr();
            if self.is_own(addr) {
                return Some(self.remotes.acquire(Remote::plain(identity::HOST)));
            }
            if let Some(identity) = self.owner(addr).map(|endpoint| endpoint.identity) {
                return Some(self.remotes.acquire(Remote::plain(identity)));
            }
        }
        let number = *self.ipcache.get(&prefix)?;
        self.remotes.share(number);
        Some(number)
    }

    /// Makes one more user of the tunnel to the gateway of a rule.
    pub(crate) fn acquire_gateway(&mut self, key: &EgressKey) {
        if let Some(&EgressGatewayRule {
            gateway: EgressGateway::Node(addr),
            ..
        }) = self.egress_gateway(key)
        {
            self.remotes.acquire_peer(addr);
        }
    }

    /// Makes one user less of the tunnel to the gateway of what was a rule.
    pub(crate) fn release_gateway(&mut self, rule: Option<&EgressGatewayRule>) {
        if let Some(&EgressGatewayRule {
            gateway: EgressGateway::Node(addr),
            ..
        }) = rule
        {
            self.remotes.release_peer(addr);
        }
    }

    /// What the forwarding table holds for exactly this prefix, in the order of precedence: our own addresses,
    /// endpoints, routes, links, neighbours on a link.
    pub(crate) fn resolve(&self, prefix: Prefix) -> Option<TargetKey> {
        let host = (prefix == Prefix::host(prefix.addr())).then_some(prefix.addr());
        if let Some(addr) = host {
            if self.gateways.contains(addr) {
                return Some(TargetKey::Gateway);
            }
            if let Some(port) = self.own_address(addr) {
                return Some(TargetKey::Local { port: port.id });
            }
            if self.node().addresses.contains(&addr) {
                return Some(match self.host_port() {
                    Some(_) => TargetKey::Host,
                    None => TargetKey::Local { port: 0 },
                });
            }
            if let Some(&id) = self.owners.get(&addr) {
                return Some(TargetKey::Endpoint(id));
            }
        }
        if let Some(route) = self.routes.get(&prefix) {
            return Some(match route.target {
                RouteTarget::Gateway { port, gateway } => TargetKey::NextHop {
                    port,
                    addr: gateway,
                    mtu: route.mtu,
                },
                RouteTarget::Link { port } => match host {
                    // The route's one destination is the neighbour.
                    Some(addr) => TargetKey::NextHop {
                        port,
                        addr,
                        mtu: route.mtu,
                    },
                    None => TargetKey::Glean { port, mtu: route.mtu },
                },
                RouteTarget::Host => TargetKey::Host,
                RouteTarget::Blackhole => TargetKey::Blackhole,
            });
        }
        if let Some(port) = self.connected(prefix) {
            return Some(TargetKey::Glean { port, mtu: None });
        }
        // A neighbour gets an entry of its own where the best route says that it is on the link.
        let addr = host?;
        let (link, RouteTarget::Link { port }) = self.route_to(addr)? else {
            return None;
        };
        self.neighbours.get(&(port, addr))?;
        let mtu = self.routes.get(&link).and_then(|route| route.mtu);
        Some(TargetKey::NextHop { port, addr, mtu })
    }
}
