//! Direct server return (specification, 3.6): what a load balancer says about a connection, and what it is told.
//!
//! On the load balancer's node a connection is remembered between the client's address of the service and the backend, as if
//! its answers came by. On the backend's node packets arrive as they are for the backend, and only answers are translated:
//! [`Tuple::ANSWERS_ONLY`].

use std::net::IpAddr;

use octoplane_flow::{FlowError, FlowRef, Tuple};
use octoplane_packet::BufPool;
use octoplane_packet::headers::ETHERNET_LEN;
use octoplane_tables::model::{DsrDispatch, Role};
use octoplane_tables::{Snapshot, identity};

use super::gateway::is_world;
use super::store::MOST_IN_THE_WAY;
use super::{Packet, Part, Path, Sender, Upper, begins, remote, service};
use crate::address::{routable4, routable6};
use crate::drop_reason::DropReason;
use crate::dsr::{Front, Note, Told, ipip, option};
use crate::engine::{Core, Rx};
use crate::verdict::Verdict;

/// Identity of what comes by a load balancer, in tunnels (specification, 3.6).
pub(super) const WORLD: u32 = 2;

impl<P: BufPool> Core<P> {
    /// Whether packets of this direction go to a backend on another node that answers by itself.
    pub(super) fn is_direct(&self, flow: FlowRef) -> bool {
        let half = self.flows.table().half(flow);
        flow.is_forward() && half.is_some_and(|half| super::state::is_direct(&half))
    }

    /// In the name of what packets of the other direction leave if a load balancer on another node has said so.
    pub(super) fn answered_as(&self, flow: FlowRef) -> Option<Front> {
        let there = self.flows.table().half(flow).map(|half| half.tuple())?;
        (there.zone() == Tuple::ANSWERS_ONLY).then(|| Front {
            addr: there.dst(),
            port: there.dport(),
        })
    }

    /// Whether what a load balancer says of a packet is not what is remembered of its connection.
    pub(super) fn is_told_otherwise(&self, packet: &Packet, flow: FlowRef, told: Told) -> bool {
        let remembered = self.answered_as(flow);
        match told {
            Told::Used(front) => remembered != Some(front),
            Told::For(backend) => self.outgoing(flow).dst() != backend,
            // A SYN without information begins a connection without it.
            Told::Nothing => remembered.is_some() && begins(packet.upper),
        }
    }

    /// Stores a connection of which only the answers are translated, to be in the name of `front`.
    pub(super) fn store_answered_as(
        &mut self,
        rx: &Rx<'_>,
        packet: &Packet,
        sender: Sender,
        front: Front,
    ) -> Result<FlowRef, Verdict> {
        let tuple = &packet.tuple;
        let (sport, protocol) = (tuple.sport(), tuple.protocol());
        let there = Tuple::new(
            tuple.src(),
            front.addr,
            sport,
            front.port,
            protocol,
            Tuple::ANSWERS_ONLY,
        );
        self.store_over(rx, packet, sender, [&there, &tuple.reverse()])
    }

    /// Stores a connection that a load balancer has told of, between two tuples, in place of any that is in its way: the same
    /// client has reached the same backend by another way before, and what is said last holds.
    pub(super) fn store_over(
        &mut self,
        rx: &Rx<'_>,
        packet: &Packet,
        sender: Sender,
        between: [&Tuple; 2],
    ) -> Result<FlowRef, Verdict> {
        for _ in 0..MOST_IN_THE_WAY {
            match self.store(rx, packet, sender, between) {
                Ok(flow) => return Ok(flow),
                Err(FlowError::Taken(flow)) => {
                    let table = self.flows.table();
                    let stored = |flow| table.half(flow).map(|half| half.tuple());
                    let [there, back] = between;
                    // Another worker was faster.
                    if stored(flow) == Some(*there) && stored(flow.other()) == Some(*back) {
                        return Ok(flow);
                    }
                    self.flows.remove(flow);
                }
                Err(_) => break,
            }
        }
        Err(Verdict::Drop(DropReason::CtInsertion))
    }
}

/// Whether a load balancer says something with this packet: with the first one of TCP, with all others.
fn tells(packet: &Packet) -> bool {
    packet.part != Part::Later && (begins(packet.upper) || matches!(packet.upper, Upper::Udp | Upper::Sctp))
}

/// Whether packets of such a connection cannot do without saying something; of TCP, those behind its first one.
pub(crate) fn speaks(snapshot: &Snapshot, upper: Upper) -> bool {
    snapshot.node().dsr.dispatch == DsrDispatch::Ipip || !matches!(upper, Upper::Tcp(_))
}

/// What is said with a packet that leaves as `out`.
pub(super) fn note(snapshot: &Snapshot, packet: &Packet, out: &Tuple) -> Note {
    let front = Front {
        addr: packet.tuple.dst(),
        port: packet.tuple.dport(),
    };
    match snapshot.node().dsr.dispatch {
        DsrDispatch::Ipip => Note::Ipip(out.dst()),
        DsrDispatch::Opt if tells(packet) => Note::Option(front),
        DsrDispatch::Geneve if tells(packet) => Note::Geneve(front),
        DsrDispatch::Opt | DsrDispatch::Geneve => Note::None,
    }
}

/// The tunnel to a backend's node if that is how it is told.
///
/// # Errors
/// Reason to drop packets: there has to be one, and there is none.
pub(super) fn tunnel(snapshot: &Snapshot, backend: IpAddr) -> Result<Option<Path>, DropReason> {
    if snapshot.node().dsr.dispatch != DsrDispatch::Geneve {
        return Ok(None);
    }
    let remote = remote(snapshot, backend);
    match remote.tunnel {
        Some(_) => Ok(Some(Path {
            number: remote.tunnel_end,
            tunnel: true,
            encrypt: false,
            hop: false,
        })),
        None => Err(DropReason::NoTunnelEndpoint),
    }
}

/// What a load balancer says with a packet, of which the tunnel that it came in said `told`: nothing unless it is for an
/// endpoint of ours and no service's.
///
/// # Errors
/// Reason to drop it: it says something that makes no sense.
pub(super) fn told(
    rx: &Rx<'_>,
    frame: &[u8],
    packet: &Packet,
    sender: Sender,
    told: Told,
) -> Result<Told, DropReason> {
    let snapshot = rx.snapshot;
    if matches!(told, Told::For(_)) {
        return Ok(told);
    }
    let outside = rx.view.role == Role::Uplink && sender.endpoint == 0 && sender.identity != identity::HOST;
    let hears = outside
        && tells(packet)
        && snapshot.returns_directly()
        && service::is_local(snapshot, packet.tuple.dst())
        && !service::is_served(snapshot, &packet.tuple);
    match (hears, snapshot.node().dsr.dispatch) {
        (false, _) => Ok(Told::Nothing),
        (true, DsrDispatch::Opt) => {
            let front = option::read(frame, packet.tuple.is_v6(), packet.l4)?;
            Ok(front.map_or(Told::Nothing, Told::Used))
        }
        (true, DsrDispatch::Geneve) => Ok(told),
        (true, DsrDispatch::Ipip) => Ok(Told::Nothing),
    }
}

/// Whether a packet to an endpoint is one around another that a load balancer has sent.
pub(crate) fn hears_ipip(rx: &Rx<'_>, packet: &Packet) -> bool {
    let protocol = match packet.tuple.is_v6() {
        false => ipip::IPV4,
        true => ipip::IPV6,
    };
    packet.tuple.protocol() == protocol
        && packet.part == Part::Whole
        && rx.view.role == Role::Uplink
        && rx.snapshot.node().dsr.dispatch == DsrDispatch::Ipip
        && rx.snapshot.returns_directly()
}

/// The identity of a packet's sender that its tunnel says is another node, or the world behind a load balancer, by what is known
/// of its address (specification, 1.7 step 5).
pub(crate) fn refined(snapshot: &Snapshot, identity: u32, src: IpAddr) -> u32 {
    let node = matches!(identity, 6 | 7) || identity >> 24 == 2;
    if !(node || is_world(identity) && snapshot.returns_directly()) {
        return identity;
    }
    match remote(snapshot, src).identity {
        // Nobody out there speaks for this node.
        identity::HOST => identity,
        known => known,
    }
}

/// Whether an address may be a sender's or a receiver's.
pub(crate) fn is_station(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => routable4(addr.to_bits()),
        IpAddr::V6(addr) => routable6(addr.to_bits()),
    }
}

/// Where the IP packet in a frame is for.
pub(crate) fn destination(frame: &[u8]) -> Option<IpAddr> {
    let ip = frame.get(ETHERNET_LEN..)?;
    match ip.first()? >> 4 {
        4 => ip.get(16..)?.first_chunk::<4>().map(|addr| IpAddr::from(*addr)),
        6 => ip.get(24..)?.first_chunk::<16>().map(|addr| IpAddr::from(*addr)),
        _ => None,
    }
}
