//! What the workers read.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use imbl::Vector;
use octoplane_packet::MacAddr;

use crate::bucket::{Buckets, Rates};
use crate::egress_gateway::EgressRule;
use crate::ipcache::{Remote, identity};
use crate::last_changed::LastChanged;
use crate::lpm::{Block, Lpm};
use crate::model::{AuthKey, Forwarding, HOST_ENDPOINT, Port, PortId, Role};
use crate::node::NodeView;
use crate::numbered::Numbered;
use crate::policy::EndpointPolicy;
use crate::services::Frontend;
use crate::state::Gateways;
use crate::target::{Target, TargetTable};
use crate::tunnel_end::TunnelEnd;
use crate::views::Views;

/// What a worker has to know of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortView {
    /// What stands at its other end.
    pub role: Role,
    /// Our address on it.
    pub mac: MacAddr,
    /// Largest IP packet, in bytes, that leaves by it.
    pub mtu: u16,
    /// Whether packets are taken from it and given to it.
    pub admin_up: bool,
    /// Our addresses on the link.
    pub addresses: Vec<IpAddr>,
}

impl From<&Port> for PortView {
    fn from(port: &Port) -> Self {
        Self {
            role: port.role,
            mac: port.mac,
            mtu: port.mtu,
            admin_up: port.admin_up,
            addresses: port.addresses.iter().map(|&(addr, _)| addr).collect(),
        }
    }
}

/// One consistent version of all tables.
pub struct Snapshot {
    pub(crate) revision: u64,
    pub(crate) fib4: Lpm<u32>,
    pub(crate) fib6: Lpm<u128>,
    pub(crate) targets: TargetTable,
    /// By number; numbers without a port are empty.
    pub(crate) ports: Vec<Option<PortView>>,
    pub(crate) gateways: Gateways,
    pub(crate) host_port: Option<PortId>,
    pub(crate) ipcache4: Lpm<u32>,
    pub(crate) ipcache6: Lpm<u128>,
    pub(crate) remotes: Vector<Remote>,
    pub(crate) tunnel_ends: Numbered<TunnelEnd>,
    /// What is known of addresses that no entry holds, per family.
    pub(crate) world: [Remote; 2],
    pub(crate) views: Views,
    pub(crate) changed: Arc<LastChanged>,
    /// The revision that changed the forwarding tables last.
    pub(crate) forwarding: u64,
}

/// What is known of addresses that no entry holds (specification of the datapath, section 4).
pub(crate) fn world(dual_stack: bool) -> [Remote; 2] {
    if dual_stack {
        [identity::WORLD_IPV4, identity::WORLD_IPV6].map(Remote::plain)
    } else {
        [identity::WORLD; 2].map(Remote::plain)
    }
}

impl Snapshot {
    pub(crate) fn empty(gateways: Gateways) -> Self {
        Self {
            revision: 0,
            fib4: Lpm::empty(),
            fib6: Lpm::empty(),
            targets: TargetTable::default(),
            ports: Vec::new(),
            gateways,
            host_port: None,
            ipcache4: Lpm::empty(),
            ipcache6: Lpm::empty(),
            remotes: Vector::new(),
            tunnel_ends: Numbered::default(),
            world: world(false),
            views: Views::default(),
            changed: Arc::default(),
            forwarding: 0,
        }
    }

    /// The revision these tables have.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The revision that changed the forwarding tables last: blocks of a snapshot are good for all that have the same.
    pub fn forwarding_revision(&self) -> u64 {
        self.forwarding
    }

    /// When what holds for an address changed last.
    #[inline(always)]
    pub fn last_changed(&self) -> &LastChanged {
        &self.changed
    }

    /// Where packets to this IPv4 address (most significant byte first) go.
    #[inline(always)]
    pub fn route4(&self, dst: u32) -> &Target {
        self.targets.get(self.fib4.lookup(dst))
    }

    /// Where packets to this IPv6 address (most significant byte first) go.
    #[inline(always)]
    pub fn route6(&self, dst: u128) -> &Target {
        self.targets.get(self.fib6.lookup(dst))
    }

    /// Number of the target of an IPv4 address, for [`Snapshot::target`]; 0 if there is none.
    #[inline(always)]
    pub fn find4(&self, dst: u32) -> u32 {
        self.fib4.lookup(dst)
    }

    /// Number of the target of an IPv6 address, for [`Snapshot::target`]; 0 if there is none.
    #[inline(always)]
    pub fn find6(&self, dst: u128) -> u32 {
        self.fib6.lookup(dst)
    }

    /// What lookups of the 256 addresses that share all but the last byte with this one have in common.
    pub fn block4(&self, dst: u32) -> Block {
        self.fib4.block(dst)
    }

    /// The same for IPv6.
    pub fn block6(&self, dst: u128) -> Block {
        self.fib6.block(dst)
    }

    /// [`Snapshot::find4`] of an address of a block of this snapshot.
    #[inline(always)]
    pub fn find4_in(&self, block: Block, last: u8) -> u32 {
        self.fib4.lookup_in(block, last)
    }

    /// [`Snapshot::find6`] of an address of a block of this snapshot.
    #[inline(always)]
    pub fn find6_in(&self, block: Block, last: u8) -> u32 {
        self.fib6.lookup_in(block, last)
    }

    /// The target with this number.
    #[inline(always)]
    pub fn target(&self, number: u32) -> &Target {
        self.targets.get(number)
    }

    /// The port with this number.
    #[inline(always)]
    pub fn port(&self, id: PortId) -> Option<&PortView> {
        self.ports.get(usize::from(id))?.as_ref()
    }

    /// The gateway addresses that pods see.
    pub fn gateways(&self) -> &Gateways {
        &self.gateways
    }

    /// What is known of an IPv4 address (most significant byte first): the entry of the longest prefix, or the world.
    pub fn remote4(&self, addr: u32) -> &Remote {
        self.remote(self.ipcache4.lookup(addr), &self.world[0])
    }

    /// What is known of an IPv6 address (most significant byte first): the entry of the longest prefix, or the world.
    pub fn remote6(&self, addr: u128) -> &Remote {
        self.remote(self.ipcache6.lookup(addr), &self.world[1])
    }

    fn remote<'a>(&'a self, number: u32, world: &'a Remote) -> &'a Remote {
        match (number as usize).checked_sub(1) {
            Some(index) => self.remotes.get(index).unwrap_or(world),
            None => world,
        }
    }

    /// The other end of a tunnel with this number.
    #[inline(always)]
    pub fn tunnel_end(&self, number: u32) -> &TunnelEnd {
        self.tunnel_ends.get(number)
    }

    /// The settings of this node.
    pub fn node(&self) -> &NodeView {
        &self.views.node
    }

    /// Whether services on this node answer their clients directly, and those of other nodes may have clients answered from
    /// here: whether the node's settings or a service say so (specification of the datapath, section 3.6).
    pub fn returns_directly(&self) -> bool {
        self.views.node.forwarding != Forwarding::Snat || self.views.services.asks_for_direct_return()
    }

    /// Addresses and ports of services, of both families.
    pub fn frontends(&self) -> usize {
        self.views.services.len()
    }

    /// The service at this IPv4 address (most significant byte first), port and protocol.
    pub fn frontend4(&self, addr: u32, port: u16, protocol: u8) -> Option<&Frontend> {
        self.views.services.frontend4(addr, port, protocol)
    }

    /// The service at this IPv6 address (most significant byte first), port and protocol.
    pub fn frontend6(&self, addr: u128, port: u16, protocol: u8) -> Option<&Frontend> {
        self.views.services.frontend6(addr, port, protocol)
    }

    /// Whether all ports of this IPv4 address are services': packets to one that is not are dropped with reason 158
    /// (specification of the datapath, section 3.2). Ask after [`Snapshot::frontend4`].
    pub fn wildcard4(&self, addr: u32) -> bool {
        self.views.services.wildcard4(addr)
    }

    /// The same for IPv6.
    pub fn wildcard6(&self, addr: u128) -> bool {
        self.views.services.wildcard6(addr)
    }

    /// Whether a service answers at this address, at whatever port and by whatever protocol.
    pub fn serves(&self, addr: IpAddr) -> bool {
        self.views.services.at(addr)
    }

    /// Whether a service may answer at one of the 256 addresses that differ from this one in the last byte only, other than
    /// at addresses of the node: packets to them are looked at more closely.
    pub fn serves_block(&self, addr: IpAddr) -> bool {
        self.views.services.in_block(addr)
    }

    /// What an endpoint may talk to; `None`: everything. Endpoint 0 is the node itself.
    ///
    /// Where the node's settings say that policy is always enforced, endpoints without policy may talk to nobody; the
    /// node itself has no policy unless it was given one (specification of the datapath, section 4).
    pub fn policy(&self, endpoint: u32) -> Option<&EndpointPolicy> {
        let policy = self.views.policies.get(&endpoint);
        let default = || {
            let default = self.views.default_policy.as_ref();
            default.filter(|_| endpoint != HOST_ENDPOINT)
        };
        policy.or_else(default).map(Arc::as_ref)
    }

    /// Whether two sides have authenticated.
    pub fn has_authenticated(&self, key: &AuthKey) -> bool {
        self.views.authentications.contains_key(key)
    }

    /// The egress-gateway rule for IPv4 packets between these addresses (most significant byte first).
    pub fn egress_gateway4(&self, src: u32, dst: u32) -> Option<&EgressRule> {
        self.views.egress.find4(src, dst)
    }

    /// The egress-gateway rule for IPv6 packets between these addresses (most significant byte first).
    pub fn egress_gateway6(&self, src: u128, dst: u128) -> Option<&EgressRule> {
        self.views.egress.find6(src, dst)
    }

    /// How much an endpoint may send and receive.
    pub fn rates(&self, endpoint: u32) -> Rates {
        self.buckets(endpoint)
            .map_or_else(Rates::default, |buckets| buckets.rates)
    }

    /// Whether any endpoint has limits.
    #[inline]
    pub fn limits_any(&self) -> bool {
        !self.views.buckets.is_empty()
    }

    /// What an endpoint has used of its rates; `None`: it has no limits.
    pub fn buckets(&self, endpoint: u32) -> Option<&Buckets> {
        self.views.buckets.get(&endpoint).map(Arc::as_ref)
    }

    /// The port to this machine's kernel.
    pub fn host_port(&self) -> Option<PortId> {
        self.host_port
    }
}

/// A worker's way to the current snapshot: one atomic load per burst while nothing changes.
#[derive(Clone)]
pub struct Reader(Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>);

impl Reader {
    pub(crate) fn new(published: Arc<ArcSwap<Snapshot>>) -> Self {
        Self(Cache::new(published))
    }

    /// A view that stays at one snapshot, whatever is published. Not for long: see [`Reader::load`].
    pub(crate) fn frozen(snapshot: Arc<Snapshot>) -> Self {
        Self::new(Arc::new(ArcSwap::new(snapshot)))
    }

    /// The current snapshot. Holding on to an old one keeps its memory from being reused.
    #[inline(always)]
    pub fn load(&mut self) -> &Arc<Snapshot> {
        self.0.load()
    }
}
