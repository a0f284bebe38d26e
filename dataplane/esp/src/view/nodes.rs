//! The nodes of the cluster, as Cilium's transparent encryption sees them (specification of the datapath, sections 1.9 and
//! 2.9).

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::cow_map::CowMap;
use crate::cilium::{KeyIndex, effective};
use crate::ip::Addr;
use crate::sa::SaId;

/// Key indices of one node that are in use at a time: during a rotation, two.
pub const MAX_KEYS: usize = 4;

/// A remote node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Number of the node, local to this one: 1 to 65535.
    pub id: u16,
    /// Which key the node announces, `None` for no encryption.
    pub announced: Option<KeyIndex>,
    /// The security associations towards it, by key.
    pub outbound: ArrayVec<(KeyIndex, SaId), MAX_KEYS>,
}

/// What is to be done with a packet for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeDecision {
    /// Encrypt with this one.
    Encrypt(SaId),
    /// One of the two nodes does not encrypt: send as it is.
    Plain,
    /// The node is unknown, or has number 0: drop, with Cilium's code 197.
    NoNodeId,
    /// The nodes agree on a key that there is no security association for: drop.
    NoSa,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Nodes {
    /// By each of a node's addresses.
    pub(crate) by_addr: CowMap<Addr, Arc<NodeView>>,
    /// The key that this node announces.
    pub(crate) local: Option<KeyIndex>,
}

impl Nodes {
    #[inline]
    pub(crate) fn get(&self, addr: Addr) -> Option<&Arc<NodeView>> {
        self.by_addr.get(&addr)
    }

    #[inline]
    pub(crate) fn decide(&self, addr: Addr) -> NodeDecision {
        let Some(node) = self.get(addr).filter(|node| node.id != 0) else {
            return NodeDecision::NoNodeId;
        };
        let (Some(local), Some(announced)) = (self.local, node.announced) else {
            return NodeDecision::Plain;
        };
        let key = effective(local, announced);
        node.outbound
            .iter()
            .find(|(index, _)| *index == key)
            .map_or(NodeDecision::NoSa, |(_, sa)| NodeDecision::Encrypt(*sa))
    }
}
