//! What workers tell the control plane.

use std::net::IpAddr;

use octoplane_packet::MacAddr;
use octoplane_tables::model::PortId;

/// Neighbours on uplinks: the workers hear them, the control plane keeps the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeighbourEvent {
    /// A station said what its Ethernet address is.
    Heard {
        /// Where it was heard.
        port: PortId,
        /// Its address.
        addr: IpAddr,
        /// Its Ethernet address.
        mac: MacAddr,
        /// Whether it spoke to us (an answer or a question), so that it may get a new entry; else only one that is
        /// there may change.
        addressed: bool,
    },
    /// A packet waits for this station's Ethernet address.
    Wanted {
        /// Where it should be.
        port: PortId,
        /// Its address.
        addr: IpAddr,
    },
}
