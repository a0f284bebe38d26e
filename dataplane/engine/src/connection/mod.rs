//! Connections: what the first packet of one decides, and how others follow it.
//!
//! The first packet goes through all checks ([`create`](Core::create)) and leaves a connection in the flow table, which
//! has for either direction where its packets go. Later packets need that one lookup, until the tables change: then the
//! next packet of each direction decides again ([`compile`](Core::compile)), policy included, but keeps the translation.

mod masquerade;
mod packet;
mod policy;
mod related;
mod service;
mod state;
mod translate;
mod view;

use std::net::IpAddr;

use octoplane_flow::{FlowError, FlowRef, Tuple};
use octoplane_packet::headers::ETHERNET_LEN;
use octoplane_packet::{BufPool, PacketBuf};
use octoplane_tables::model::Routing;
use octoplane_tables::{Action as Way, Remote, Snapshot, Target};

pub(crate) use packet::{Packet, Part, Upper};
pub(crate) use service::is_served;
pub use state::Timeouts;
pub(crate) use state::{Action, FROM_TUNNEL, Progress, flag, progress};
pub(crate) use translate::translate;
pub use view::{Decided, DirectionView, FlowState, FlowView, describe};

use crate::drop_reason::DropReason;
use crate::engine::{Core, Rx};
use crate::overlay;
use crate::slow::{Verdict, send};

/// Who sent a packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender {
    /// Security identity.
    pub(crate) identity: u32,
    /// The endpoint, if it is one of ours, or 0.
    pub(crate) endpoint: u32,
    /// The port it came in by, or [`FROM_TUNNEL`].
    pub(crate) port: u16,
}

/// Where packets go.
#[derive(Clone, Copy)]
struct Way4 {
    /// Number of the target.
    target: u32,
    /// Whether it is the way to another node, in a tunnel.
    tunnel: bool,
}

impl<P: BufPool> Core<P> {
    /// Takes a packet that belongs to a connection, or begins one, through the checks and on its way.
    pub(crate) fn connection(
        &mut self,
        rx: &Rx<'_>,
        buf: &mut P::Buf,
        packet: &Packet,
        sender: Sender,
    ) -> Verdict {
        if let Some((flow, quoted)) = self.related(buf.data(), packet) {
            return self.pass_on(rx, buf, packet, flow, &quoted, sender);
        }
        match self.follow(rx, packet, sender) {
            Ok((flow, action)) => self.carry_out(rx, buf, packet, flow, action),
            Err(verdict) => verdict,
        }
    }

    /// Whether a packet belongs to a connection that is known, or tells of one.
    pub(crate) fn knows(&self, frame: &[u8], packet: &Packet) -> bool {
        let table = self.flows.table();
        table.find(table.hash(&packet.tuple), &packet.tuple).is_some()
            || self.related(frame, packet).is_some()
    }

    /// The direction that a packet belongs to and what is to be done with it, by the tables as they are now.
    fn follow(&mut self, rx: &Rx<'_>, packet: &Packet, sender: Sender) -> Result<(FlowRef, Action), Verdict> {
        let hash = self.flows.table().hash(&packet.tuple);
        let flow = match self.flows.table().find(hash, &packet.tuple) {
            Some(flow) => flow,
            None => self.create(rx, packet, sender)?,
        };
        let now = rx.second;
        let table = self.flows.table();
        let half = table.half(flow).ok_or(Verdict::Drop(DropReason::CtInsertion))?;
        let flow = match progress(table, flow, &half, packet.upper, now) {
            Progress::Known => flow,
            Progress::Again => {
                // Only once it is allowed does the new one take the old one's place.
                if flow.is_forward() {
                    self.allowed(rx, packet, &self.outgoing(flow), sender)?;
                }
                self.flows.remove(flow);
                self.create(rx, packet, sender)?
            }
        };
        let action = self.compile(rx, packet, flow, sender)?;
        Ok((flow, action))
    }

    /// Decides about the first packet of a connection, and stores it.
    fn create(&mut self, rx: &Rx<'_>, packet: &Packet, sender: Sender) -> Result<FlowRef, Verdict> {
        let there = packet.tuple;
        let (out, away) = self.serve(rx, packet, sender)?;
        self.allowed(rx, packet, &out, sender)?;
        let own = match away {
            // Without an address for it nothing can come back.
            true => {
                Some(masquerade::own(rx.snapshot, out.is_v6()).ok_or(Verdict::Drop(DropReason::NoNatPort))?)
            }
            false => masquerade::address(rx.snapshot, &out, sender, way(rx.snapshot, &out)),
        };
        if let Some(addr) = own {
            return self.masquerade(rx, packet, sender, &out, addr);
        }
        match self.store(rx, packet, sender, &out.reverse()) {
            // Another worker was faster, or the reply came first.
            Ok(flow) | Err(FlowError::Taken(flow)) if self.is_between(flow, &there, &out) => Ok(flow),
            Ok(_) | Err(_) => Err(Verdict::Drop(DropReason::CtInsertion)),
        }
    }

    /// Whether a direction has this tuple on the one side and that one on the other.
    fn is_between(&self, flow: FlowRef, there: &Tuple, out: &Tuple) -> bool {
        let table = self.flows.table();
        table.half(flow).is_some_and(|half| half.tuple() == *there) && self.outgoing(flow) == *out
    }

    /// Stores a connection whose replies arrive with the tuple `back`.
    fn store(
        &mut self,
        rx: &Rx<'_>,
        packet: &Packet,
        sender: Sender,
        back: &Tuple,
    ) -> Result<FlowRef, FlowError> {
        let payload = |forward| {
            let [first, second] = Action {
                port: if forward { sender.port } else { 0 },
                ..Action::default()
            }
            .words();
            [first, second, state::first_word(packet.upper, rx.second, forward)]
        };
        let payloads = [payload(true), payload(false)];
        let look = rx
            .second
            .saturating_add(self.timeouts.syn.min(self.timeouts.other));
        let flow = self.flows.insert([&packet.tuple, back], payloads, look)?;
        self.stats.flows_created.add(1);
        Ok(flow)
    }

    /// Ends connections that nothing was heard of for as long as their state allows.
    pub(crate) fn expire(&mut self, now: u64, records: usize) {
        let (now, timeouts) = (second(now), self.timeouts);
        let ended = self.flows.sweep(now, records, |table, flow| {
            let ends = state::ends(table, flow, &timeouts);
            (ends > now).then_some(ends)
        });
        self.flows.quiesce();
        self.stats.flows_expired.add(ended as u64);
    }

    /// What packets of a direction look like when they leave.
    pub(crate) fn outgoing(&self, flow: FlowRef) -> Tuple {
        let table = self.flows.table();
        let back = table.half(flow.other()).map(|half| half.tuple());
        back.map_or_else(|| Tuple::v4(0, 0, 0, 0, 0, 0), |back| back.reverse())
    }

    /// Decides where packets of a direction go by the tables as they are, and stores it.
    fn compile(
        &self,
        rx: &Rx<'_>,
        packet: &Packet,
        flow: FlowRef,
        sender: Sender,
    ) -> Result<Action, Verdict> {
        let out = self.outgoing(flow);
        if flow.is_forward() {
            self.allowed(rx, packet, &out, sender)?;
        }
        let way = way(rx.snapshot, &out);
        let mut flags = flag::COMPILED;
        if out != packet.tuple {
            flags |= flag::TRANSLATE;
        }
        if way.tunnel {
            flags |= flag::ENCAPSULATE;
        }
        let action = Action {
            target: way.target,
            port: sender.port,
            flags,
            revision: rx.snapshot.revision() as u32,
            identity: sender.identity,
        };
        if let Some(half) = self.flows.table().half(flow) {
            action.store(&half);
        }
        Ok(action)
    }

    /// Does with a packet what its connection says.
    fn carry_out(
        &self,
        rx: &Rx<'_>,
        buf: &mut P::Buf,
        packet: &Packet,
        flow: FlowRef,
        action: Action,
    ) -> Verdict {
        let out = if action.flags & flag::TRANSLATE != 0 {
            self.outgoing(flow)
        } else {
            packet.tuple
        };
        let way = Way4 {
            target: action.target,
            tunnel: action.flags & flag::ENCAPSULATE != 0,
        };
        self.leave(rx, buf, packet, &out, way, action.identity, |frame| {
            translate(frame, packet, &out)
        })
    }

    /// Sends a packet that `change` makes ready, with addresses and ports `out`, on its way.
    #[allow(clippy::too_many_arguments, reason = "all of it is known in two places only")]
    fn leave(
        &self,
        rx: &Rx<'_>,
        buf: &mut P::Buf,
        packet: &Packet,
        out: &Tuple,
        way: Way4,
        identity: u32,
        change: impl FnOnce(&mut [u8]) -> Result<(), DropReason>,
    ) -> Verdict {
        let mut target: Target = *rx.snapshot.target(way.target);
        let size = packet.end - ETHERNET_LEN;
        // A tunnel is no hop.
        let ttl = if way.tunnel {
            u8::MAX
        } else {
            ttl(buf.data(), out.is_v6())
        };
        let other_end = way
            .tunnel
            .then(|| remote(rx.snapshot, out.dst()).tunnel)
            .flatten();
        if let Some(other_end) = other_end {
            target.mtu = target.mtu.saturating_sub(overlay::overhead(other_end));
        }
        // Who allows fragments is not told, but cut (RFC 1191).
        let df = buf
            .data()
            .get(ETHERNET_LEN + 6)
            .is_none_or(|flags| flags & 0x40 != 0);
        let may_cut = !out.is_v6() && !df && !way.tunnel;
        // On a link, it is the tunnel's end whose Ethernet address is wanted.
        let hop = other_end.unwrap_or(out.dst());
        if let Err(verdict) = self.route(rx, &target, hop, size, ttl, may_cut) {
            return verdict;
        }
        if !matches!(target.action, Way::Forward | Way::Deliver) {
            return Verdict::Punt(DropReason::LocalHostUnreachable);
        }
        // What stands behind the IP packet need not fit.
        let padding = buf.len() - packet.end;
        if buf.len() - ETHERNET_LEN > usize::from(target.mtu) && buf.trim_back(padding).is_err() {
            return Verdict::Drop(DropReason::InvalidPacket);
        }
        let frame = buf.data_mut();
        if let Err(reason) = change(frame) {
            return Verdict::Drop(reason);
        }
        if let Some(other_end) = other_end {
            let hash = self.flows.table().hash(out);
            return match overlay::encapsulate(buf, rx.snapshot, &target, other_end, identity, hash) {
                Ok(()) => Verdict::Send(target.port),
                Err(reason) => Verdict::Drop(reason),
            };
        }
        one_hop_further(frame, out.is_v6());
        frame[..12].copy_from_slice(&target.macs);
        send(&target, size)
    }
}

/// What is known of an address.
pub(crate) fn remote(snapshot: &Snapshot, addr: IpAddr) -> &Remote {
    match addr {
        IpAddr::V4(addr) => snapshot.remote4(addr.to_bits()),
        IpAddr::V6(addr) => snapshot.remote6(addr.to_bits()),
    }
}

/// Where packets with these addresses go: to an endpoint here, through the tunnel to its node, or as routed
/// (specification, 1.2 step 14).
fn way(snapshot: &Snapshot, out: &Tuple) -> Way4 {
    let dst = out.dst();
    let target = match dst {
        IpAddr::V4(dst) => snapshot.find4(dst.to_bits()),
        IpAddr::V6(dst) => snapshot.find6(dst.to_bits()),
    };
    let local = !matches!(
        snapshot.target(target).action,
        Way::None | Way::Forward | Way::Resolve | Way::Glean
    );
    if snapshot.node().routing == Routing::Tunnel && !local {
        let remote = remote(snapshot, dst);
        if remote.tunnel.is_some() && !remote.skip_tunnel {
            return Way4 {
                target: remote.tunnel_target,
                tunnel: true,
            };
        }
    }
    Way4 {
        target,
        tunnel: false,
    }
}

fn ttl(frame: &[u8], v6: bool) -> u8 {
    let at = ETHERNET_LEN + if v6 { 7 } else { 8 };
    frame.get(at).copied().unwrap_or(0)
}

/// One less TTL or hop limit.
pub(crate) fn one_hop_further(frame: &mut [u8], v6: bool) {
    let Some(ip) = frame.get_mut(ETHERNET_LEN..) else {
        return;
    };
    if v6 {
        if let Some(hops) = ip.get_mut(7) {
            *hops = hops.wrapping_sub(1);
        }
    } else if let Some([ttl, _, high, low]) = ip.get_mut(8..12) {
        // TTL is the upper byte of its word.
        *ttl = ttl.wrapping_sub(1);
        let sum = octoplane_packet::checksum::update(u16::from_be_bytes([*high, *low]), 0x0100, 0);
        [*high, *low] = sum.to_be_bytes();
    }
}

/// Nanoseconds in seconds, the unit in which connections age; never 0.
pub(crate) fn second(now: u64) -> u32 {
    (now / 1_000_000_000) as u32 + 1
}
