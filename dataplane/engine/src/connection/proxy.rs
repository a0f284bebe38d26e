//! Connections that policy sends through a proxy on this node (specification, 1.8).
//!
//! The proxy listens on the first address of the node. Packets for it are translated to that address and the port that the
//! policy names, and go to the kernel; answers are translated back. What the connection was meant for, and the
//! sender's identity, is in the table of connections, where whoever runs the proxy can ask for it.

use std::net::IpAddr;

use octoplane_flow::{FlowRef, Tuple};
use octoplane_packet::BufPool;
use octoplane_tables::Snapshot;

use super::{Packet, Sender, service, state};
use crate::drop_reason::DropReason;
use crate::engine::{Core, Rx};

/// A packet for the proxy at this port in place of `out`.
///
/// # Errors
/// Reason to drop it: there is no way to a proxy.
pub(super) fn to_proxy(snapshot: &Snapshot, out: &Tuple, port: u16) -> Result<Tuple, DropReason> {
    let node = snapshot.node();
    let addr = match out.is_v6() {
        false => node.first4.map(IpAddr::V4),
        true => node.first6.map(IpAddr::V6),
    };
    let addr = addr
        .filter(|_| snapshot.host_port().is_some() && matches!(out.protocol(), 6 | 17))
        .ok_or(DropReason::ProxyMissing)?;
    Ok(Tuple::new(
        out.src(),
        addr,
        out.sport(),
        port,
        out.protocol(),
        out.zone(),
    ))
}

impl<P: BufPool> Core<P> {
    /// The port of the proxy that a connection goes through, or 0.
    pub(super) fn proxy_of(&self, flow: FlowRef) -> u16 {
        let forward = if flow.is_forward() { flow } else { flow.other() };
        let table = self.flows.table();
        match table.half(forward).is_some_and(|half| state::is_proxied(&half)) {
            true => self.outgoing(forward).dport(),
            false => 0,
        }
    }

    /// Where a connection's packets would go without a proxy, as far as policy is concerned.
    ///
    /// Which of a service's backends was chosen is not remembered: any of them stands for all.
    pub(super) fn meant_for(&self, rx: &Rx<'_>, packet: &Packet, flow: FlowRef, sender: Sender) -> Tuple {
        match self.proxy_of(flow) {
            0 => self.outgoing(flow),
            _ => service::any_backend(rx.snapshot, &packet.tuple, sender).unwrap_or(packet.tuple),
        }
    }
}
