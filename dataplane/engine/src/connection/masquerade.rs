//! Connections that leave under the node's address (specification, 2.4).

use std::net::IpAddr;

use octoplane_flow::{FlowError, FlowRef, Tuple};
use octoplane_packet::BufPool;
use octoplane_packet::headers::protocol;
use octoplane_tables::model::Routing;
use octoplane_tables::{Action as Way, Snapshot, identity};

use super::gateway::Exit;
use super::place::Place;
use super::service::is_loopback_address;
use super::{Packet, Part, Path, Sender, Upper, remote, state, way};
use crate::drop_reason::DropReason;
use crate::engine::{Core, Rx};
use crate::verdict::Verdict;

/// Identity of other nodes.
pub(super) const REMOTE_NODE: u32 = 6;

/// Whether this machine's kernel uses a port, or an identifier of pings, of the address and the range that connections of
/// endpoints take on: it has to be kept for it (specification, 2.4, who is SNATed).
pub(crate) fn reserves(snapshot: &Snapshot, packet: &Packet) -> bool {
    let tuple = &packet.tuple;
    let number = match packet.upper {
        Upper::Tcp(_) | Upper::Udp | Upper::Sctp => tuple.sport() >= snapshot.node().snat_min(),
        Upper::Echo => packet.part == Part::Whole && packet.is_echo_request(),
        Upper::IcmpError | Upper::TooBig | Upper::Other => false,
    };
    number && towards_backends(snapshot, tuple.is_v6()) == Some(tuple.src())
}

/// The address that a new connection has to take on its way out, if any: one from an endpoint of ours to somewhere
/// outside that does not know it, or one of the kernel's from that address.
pub(super) fn address(
    snapshot: &Snapshot,
    packet: &Packet,
    out: &Tuple,
    sender: Sender,
    way: Path,
) -> Option<IpAddr> {
    let leaves = matches!(
        snapshot.target(way.number).action,
        Way::Forward | Way::Resolve | Way::Glean
    );
    // What is encrypted for another node skips it (specification, 1.9).
    if way.tunnel || way.encrypt || !leaves {
        return None;
    }
    if sender.endpoint == 0 {
        let kernel = sender.identity == identity::HOST && reserves(snapshot, packet);
        return kernel.then(|| packet.tuple.src());
    }
    let node = snapshot.node();
    let native = match out.dst() {
        IpAddr::V4(dst) => node.native4(dst.to_bits()),
        IpAddr::V6(dst) => node.native6(dst.to_bits()),
    };
    let remote = remote(snapshot, out.dst());
    let knows = remote.identity == REMOTE_NODE && (node.routing != Routing::Tunnel || remote.skip_tunnel);
    own(snapshot, out.is_v6()).filter(|_| !native && !knows)
}

/// The address that requests to services take on towards backends on other nodes, whether there is masquerading or not
/// (specification, 3.6 step 4): the one that connections are masqueraded with, or else the node's first.
pub(super) fn towards_backends(snapshot: &Snapshot, v6: bool) -> Option<IpAddr> {
    let node = snapshot.node();
    let first = match v6 {
        true => node.first6.map(IpAddr::V6),
        false => node.first4.map(IpAddr::V4),
    };
    own(snapshot, v6).or(first)
}

/// The address that connections of a family take on, if there is one.
fn own(snapshot: &Snapshot, v6: bool) -> Option<IpAddr> {
    let node = snapshot.node();
    match v6 {
        true => node.masquerade6.map(IpAddr::V6),
        false => node.masquerade4.map(IpAddr::V4),
    }
}

/// Whether what is changed in a packet that is masqueraded is the identifier of a ping, as opposed to a port.
///
/// # Errors
/// It has neither (specification, 2.4).
fn number_is_identifier(packet: &Packet) -> Result<bool, Verdict> {
    let icmp = match packet.tuple.is_v6() {
        true => protocol::ICMPV6,
        false => protocol::ICMP,
    };
    if packet.tuple.protocol() == icmp && packet.part != Part::Whole {
        // What could be changed is in one of its fragments only.
        return Err(Verdict::Drop(DropReason::InvalidPacket));
    }
    match packet.upper {
        Upper::Tcp(_) | Upper::Udp | Upper::Sctp => Ok(false),
        Upper::Echo => Ok(true),
        Upper::IcmpError | Upper::TooBig | Upper::Other => Err(Verdict::Drop(DropReason::NatProtocol)),
    }
}

impl<P: BufPool> Core<P> {
    /// The connection, under the address that it has to leave under by the tables as they are: with a new port if that is not the
    /// one it has (specification, 2.4). Where it goes and how far it got stays.
    pub(super) fn under_address(
        &mut self,
        rx: &Rx<'_>,
        packet: &Packet,
        flow: FlowRef,
        sender: Sender,
    ) -> Result<FlowRef, Verdict> {
        let (there, out) = (packet.tuple, self.outgoing(flow));
        let itself = is_loopback_address(out.src()) && out.src() != there.src();
        if itself || self.proxy_of(flow) != 0 || self.is_direct(flow) || self.answered_as(flow).is_some() {
            return Ok(flow);
        }
        let dport = match packet.upper {
            Upper::Echo => there.dport(),
            _ => out.dport(),
        };
        let meant = Tuple::new(
            there.src(),
            out.dst(),
            there.sport(),
            dport,
            there.protocol(),
            there.zone(),
        );
        let place = Place::of(rx.snapshot, meant.dst());
        let (path, exit) = way(rx, &meant, &place, true, sender.identity).map_err(Verdict::Drop)?;
        let served = out.dst() != there.dst() && !sender.is_inside();
        let wanted = match exit {
            _ if served && !place.is_endpoint() => {
                let own = towards_backends(rx.snapshot, out.is_v6());
                Some(own.ok_or(Verdict::Drop(DropReason::NoNatPort))?)
            }
            Exit::Here(addr) => Some(addr),
            _ => address(rx.snapshot, packet, &meant, sender, path),
        };
        if wanted.unwrap_or_else(|| there.src()) == out.src() {
            // Other messages without an identifier are not the ping's whose identifier is 0.
            return match out.src() == there.src() {
                true => Ok(flow),
                false => number_is_identifier(packet).map(|_| flow),
            };
        }
        let progress = state::Carried::of(self.flows.table(), flow);
        self.flows.remove(flow);
        let moved = match wanted {
            Some(addr) => self.masquerade(rx, packet, sender, &meant, addr, None),
            None => self.store_between(rx, packet, sender, &meant),
        };
        // What is refused leaves the connection as it was.
        let stored = match &moved {
            Ok(flow) => Some(*flow),
            Err(_) => self.store(rx, packet, sender, [&there, &out.reverse()]).ok(),
        };
        if let Some(flow) = stored {
            progress.store(self.flows.table(), flow);
        }
        moved
    }

    /// Stores a new connection under the node's address `own`, with a port that no other one to the same place has.
    ///
    /// A port is taken only with respect to one remote address and port. All of them are tried before the connection is
    /// refused. One that left as `before` keeps its port if that is for the same place (2.4, "existing mapping").
    pub(super) fn masquerade(
        &mut self,
        rx: &Rx<'_>,
        packet: &Packet,
        sender: Sender,
        out: &Tuple,
        own: IpAddr,
        before: Option<Tuple>,
    ) -> Result<FlowRef, Verdict> {
        let echo = number_is_identifier(packet)?;
        // An identifier has all 16 bits. A reply to a ping that was not seen has its own in the place of the source port.
        let least = if echo { 0 } else { rx.snapshot.node().snat_min() };
        let original = match before {
            _ if echo => out.sport() | out.dport(),
            Some(before)
                if before.src() == own && (before.dst(), before.dport()) == (out.dst(), out.dport()) =>
            {
                before.sport()
            }
            _ => out.sport(),
        };
        let range = u32::from(u16::MAX - least) + 1;
        let first = if original >= least {
            u32::from(original - least)
        } else {
            // Scaled rather than divided: as even, and cheaper.
            ((u64::from(self.random()) * u64::from(range)) >> 32) as u32
        };
        for step in 0..range {
            let port = least + ((first + step) % range) as u16;
            let (sport, dport) = match echo {
                true if out.dport() != 0 || out.sport() == 0 => (0, port),
                true => (port, 0),
                false => (port, out.dport()),
            };
            let back = Tuple::new(out.dst(), own, dport, sport, out.protocol(), out.zone());
            let table = self.flows.table();
            if table.find(table.hash(&back), &back).is_some() {
                continue;
            }
            match self.store(rx, packet, sender, [&packet.tuple, &back]) {
                Ok(flow) => return Ok(flow),
                // Its own tuple: another worker was faster.
                Err(FlowError::Taken(flow))
                    if self
                        .flows
                        .table()
                        .half(flow)
                        .is_some_and(|half| half.tuple() == packet.tuple) =>
                {
                    return Ok(flow);
                }
                Err(FlowError::Taken(_)) => {}
                Err(_) => return Err(Verdict::Drop(DropReason::CtInsertion)),
            }
        }
        Err(Verdict::Drop(DropReason::NoNatPort))
    }
}
