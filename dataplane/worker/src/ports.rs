//! The queues a worker has.

use std::sync::Arc;

use dpdk::{RxQueue, TxQueue};
use octoplane_tables::model::PortId;

use crate::handoff::Handoff;

/// How a worker sends on a port.
#[derive(Debug)]
pub enum Transmit {
    /// By a queue of its own.
    Queue(TxQueue),
    /// By another worker's.
    Handoff(Arc<Handoff>),
    /// Not at all.
    None,
}

/// One worker's part of a port.
#[derive(Debug)]
pub struct PortQueues {
    /// The port's number in the tables.
    pub port: PortId,
    /// Queues to poll.
    pub rx: Vec<RxQueue>,
    /// How to send.
    pub tx: Transmit,
    /// Whether the kernel is at its other end: such a port gets a smaller share of each round.
    pub exception: bool,
}
