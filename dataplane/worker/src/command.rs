//! What the control plane asks of a worker.

use std::sync::mpsc::Sender;

use octoplane_tables::model::PortId;

use crate::ports::PortQueues;

/// A request to a worker, carried out between bursts, in order. Nobody has to wait for the answers.
pub enum Command {
    /// Send this frame as it is: a question to a neighbour.
    Send {
        /// Port to send from.
        port: PortId,
        /// The frame from its Ethernet header on.
        frame: Vec<u8>,
    },
    /// Poll another port from now on, and count for it from 0.
    Attach(PortQueues),
    /// Send what others handed over for a port, then give its queues back, if it has any: once all workers have, the port
    /// can be stopped.
    Detach {
        /// The port.
        port: PortId,
        /// Where its queues go.
        back: Sender<Option<PortQueues>>,
    },
    /// Answer once nothing is held that older tables led to: all commands before this one are carried out, and
    /// everything they and earlier bursts wanted sent is with a device or another worker.
    Fence(Sender<()>),
}
