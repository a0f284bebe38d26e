//! What the control plane asks of a worker.

use octoplane_tables::model::PortId;

use crate::ports::PortQueues;

/// A request to a worker, carried out between bursts.
pub enum Command {
    /// Send this frame as it is: a question to a neighbour.
    Send {
        /// Port to send from.
        port: PortId,
        /// The frame from its Ethernet header on.
        frame: Vec<u8>,
    },
    /// Poll another port from now on.
    Attach(PortQueues),
    /// Give the queues of a port back to nobody: afterwards it can be stopped.
    Detach(PortId),
}
