//! What the workers read.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use octoplane_packet::MacAddr;

use crate::lpm::{Block, Lpm};
use crate::model::{Port, PortId, Role};
use crate::state::Gateways;
use crate::target::{Target, TargetTable};

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
        }
    }

    /// The revision these tables have.
    pub fn revision(&self) -> u64 {
        self.revision
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

    /// The port to this machine's kernel.
    pub fn host_port(&self) -> Option<PortId> {
        self.host_port
    }
}

/// A worker's way to the current snapshot: one atomic load per burst while nothing changes.
pub struct Reader(Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>);

impl Reader {
    pub(crate) fn new(published: Arc<ArcSwap<Snapshot>>) -> Self {
        Self(Cache::new(published))
    }

    /// The current snapshot. Holding on to an old one keeps its memory from being reused.
    #[inline(always)]
    pub fn load(&mut self) -> &Arc<Snapshot> {
        self.0.load()
    }
}
