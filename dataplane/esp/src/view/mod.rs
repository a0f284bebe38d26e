//! What workers read: immutable, published as a whole.

pub(crate) mod cow_map;
mod nodes;
mod sad;
mod select;
mod slab;
pub(crate) mod spd;

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

pub(crate) use nodes::Nodes;
pub use nodes::{MAX_KEYS, NodeDecision, NodeView};
pub use sad::{MAX_SAME_ADDRESSES, Sad};
pub use select::Selected;
use slab::Slab;
pub use spd::{Action, PolicyMatch, PolicyQuery, Spd, TunnelId};

use crate::ip::map;
use crate::sa::{Sa, SaId};

/// Tunnels are numbered from 0 to one less than this.
pub const MAX_TUNNELS: u32 = 262_144;

/// One consistent version of everything.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Grows with each transaction.
    pub revision: u64,
    /// Security associations.
    pub sad: Sad,
    /// Outbound policies.
    pub spd: Spd,
    /// Inbound policies.
    pub spd_inbound: Spd,
    /// Which security association each tunnel uses.
    pub(crate) tunnels: Slab<SaId>,
    pub(crate) nodes: Nodes,
}

impl Snapshot {
    /// The security association that a tunnel encrypts with now; `None` if there is none, which is no reason to send
    /// packets in the clear.
    #[inline]
    pub fn tunnel(&self, tunnel: TunnelId) -> Option<SaId> {
        self.tunnels.get(tunnel).copied()
    }

    /// The security association of this name.
    #[inline]
    pub fn sa(&self, id: SaId) -> Option<&Arc<Sa>> {
        self.sad.get(id)
    }

    /// How packets to the node with this address are encrypted.
    #[inline]
    pub fn node(&self, addr: std::net::IpAddr) -> NodeDecision {
        self.nodes.decide(map(addr))
    }

    /// Reads where [`Snapshot::node`] will look first, for its being read.
    #[inline]
    pub fn touch_node(&self, addr: std::net::IpAddr) -> bool {
        self.nodes.by_addr.touch(&map(addr))
    }

    /// What is known of the node with this address.
    pub fn node_view(&self, addr: std::net::IpAddr) -> Option<&Arc<NodeView>> {
        self.nodes.get(map(addr))
    }
}

/// A worker's access to the snapshots.
#[derive(Debug, Clone)]
pub struct Reader(Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>);

impl Reader {
    pub(crate) fn new(published: Arc<ArcSwap<Snapshot>>) -> Self {
        Self(Cache::new(published))
    }

    /// The current snapshot: to be loaded once a burst. Holding on to an old one keeps its memory.
    #[inline(always)]
    pub fn load(&mut self) -> &Arc<Snapshot> {
        self.0.load()
    }
}
