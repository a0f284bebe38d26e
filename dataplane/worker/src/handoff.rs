//! Packets between workers: a worker without a send queue on a port gives them to the one that has it.

use crossbeam::queue::ArrayQueue;
use dpdk::Mbuf;
use octoplane_tables::model::PortId;

/// A worker's inbox of packets that others want sent.
#[derive(Debug)]
pub struct Handoff(ArrayQueue<(PortId, Mbuf)>);

impl Handoff {
    /// An inbox for at most `capacity` packets.
    pub fn new(capacity: usize) -> Self {
        Self(ArrayQueue::new(capacity.max(1)))
    }

    /// Leaves a packet; gives it back when the inbox is full.
    pub(crate) fn push(&self, port: PortId, packet: Mbuf) -> Result<(), Mbuf> {
        self.0.push((port, packet)).map_err(|(_, packet)| packet)
    }

    pub(crate) fn pop(&self) -> Option<(PortId, Mbuf)> {
        self.0.pop()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
