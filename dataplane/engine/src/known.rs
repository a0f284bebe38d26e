//! The second half of the fast path: packets whose connections are known, by what was decided for these.
//!
//! A packet is changed only when nothing can come in between any more, so that the slow path can start over with it.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use octoplane_esp::view::NodeDecision;
use octoplane_esp::{Sa, SaId};
use octoplane_flow::{FlowRef, FlowTable, Half, Tuple};
use octoplane_packet::headers::ETHERNET_LEN;
use octoplane_packet::{BufPool, PacketBuf};
use octoplane_tables::TUNNEL_HEADERS_V4;

use crate::connection::{self, FROM_TUNNEL, Progress, Translation, Upper, flag, progress};
use crate::engine::{BURST, Core, Rx};
use crate::fast::{PENDING, SEAL, SLOW, V4, V6, be16, fits, le64, older};
use crate::ipsec::Ipsec;
use crate::overlay;
use crate::rate;
use crate::slow::Seal;

/// How those of a burst are encrypted that have [`SEAL`] in place of a port, in their order, and by which ports they leave.
#[derive(Default)]
pub(crate) struct Sealing<'a> {
    pub(crate) them: ArrayVec<Seal, BURST>,
    /// What was decided for the last one, by its other node, whether there is a tunnel to it, and its sender: neighbours mostly
    /// have that in common.
    last: Option<Decided<'a>>,
}

/// With what packets are encrypted that have something in common.
#[derive(Clone, Copy)]
struct Decided<'a> {
    whose: (u32, bool, u32),
    sa: Option<(Ipsec<'a>, &'a Sa)>,
}

/// Flags of directions that are followed without a closer look.
const PLAIN: u16 = flag::COMPILED | flag::TRANSLATE | flag::ENCAPSULATE | flag::ANY_CHANGE | flag::HOP;

/// A packet whose connection is being looked up.
pub(crate) struct Pending {
    tuple: Tuple,
    hash: u64,
    candidate: Option<FlowRef>,
    /// The sender's identity, of packets from a tunnel.
    identity: u32,
    /// The port that it came in by, or [`FROM_TUNNEL`].
    port: u16,
    upper: Upper,
    /// Its place in the burst.
    index: u8,
}

impl<P: BufPool> Core<P> {
    /// Begins to look up the connection of the packet in this place of the burst, which came in by `port`.
    #[inline(always)]
    pub(crate) fn look_up(
        &mut self,
        index: usize,
        tuple: Tuple,
        upper: Upper,
        (port, identity): (u16, u32),
    ) -> u16 {
        let table = self.flows.table();
        let hash = table.hash(&tuple);
        table.prefetch(hash);
        let pending = Pending {
            tuple,
            hash,
            candidate: None,
            identity,
            port,
            upper,
            index: index as u8,
        };
        // As many as a burst has.
        match self.pending.try_push(pending) {
            Ok(()) => PENDING,
            Err(_) => SLOW,
        }
    }

    /// Sends on packets of connections that are known and were decided by the tables as they are. What a pass reads of the
    /// table, the one before has fetched, for many packets at once.
    #[inline(always)]
    pub(crate) fn established<'a, const POD: bool>(
        &mut self,
        rx: &Rx<'a>,
        burst: &mut ArrayVec<P::Buf, BURST>,
        ports: &mut [u16; BURST],
        sealing: &mut Sealing<'a>,
    ) {
        let table = self.flows.table();
        for pending in &mut self.pending {
            pending.candidate = table.candidate(pending.hash);
            if let Some(flow) = pending.candidate {
                table.prefetch_half(flow);
                if pending.tuple.is_v6() {
                    // Where a translation is to be looked up.
                    table.prefetch_half(flow.other());
                }
            }
        }
        if let Some(ipsec) = rx.ipsec {
            self.fetch_nodes(rx, ipsec);
        }
        for pending in &self.pending {
            let index = usize::from(pending.index);
            if let (Some(buf), Some(way)) = (burst.get_mut(index), ports.get_mut(index)) {
                *way = self.follow_known::<POD>(table, rx, buf, pending, sealing);
            }
        }
        self.pending.clear();
    }

    /// Has what is known of other nodes, and with what packets for them are encrypted, fetched side by side where the packets of
    /// a burst are for many of them. Each loop does so little that the processor is in several rounds of it at once.
    #[inline(never)]
    fn fetch_nodes(&self, rx: &Rx<'_>, ipsec: Ipsec<'_>) {
        let table = self.flows.table();
        let mut targets = ArrayVec::<u32, BURST>::new();
        for pending in &self.pending {
            let Some(half) = pending.candidate.and_then(|flow| table.half(flow)) else {
                continue;
            };
            let action = connection::Action::of(&half);
            if action.flags & (flag::ENCAPSULATE | flag::ENCRYPT) != 0 {
                let _ = targets.try_push(action.target);
            }
        }
        if targets.array_windows().all(|[one, other]| one == other) {
            return;
        }
        let nodes = targets
            .iter()
            .filter_map(|target| rx.snapshot.tunnel_end(*target).addr);
        let nodes: ArrayVec<IpAddr, BURST> = nodes.collect();
        let touched = nodes.iter().filter(|node| ipsec.snapshot.touch_node(**node));
        std::hint::black_box(touched.count());
        let sas: ArrayVec<SaId, BURST> = nodes
            .iter()
            .filter_map(|node| match ipsec.snapshot.node(*node) {
                NodeDecision::Encrypt(sa) => Some(sa),
                _ => None,
            })
            .collect();
        let sas: ArrayVec<&Sa, BURST> = sas
            .iter()
            .filter_map(|sa| ipsec.snapshot.sa(*sa).map(|sa| &**sa))
            .collect();
        let touched = sas.iter().fold(0, |touched, sa| touched ^ sa.max_len(0));
        std::hint::black_box(touched);
    }

    #[inline(always)]
    fn follow_known<'a, const POD: bool>(
        &self,
        table: &FlowTable,
        rx: &Rx<'a>,
        buf: &mut P::Buf,
        pending: &Pending,
        sealing: &mut Sealing<'a>,
    ) -> u16 {
        let Some((flow, half)) = table.confirm(pending.candidate, pending.hash, &pending.tuple) else {
            return SLOW;
        };
        let action = connection::Action::of(&half);
        if action.flags & flag::COMPILED == 0 || action.port != pending.port {
            return SLOW;
        }
        let special =
            action.flags & !PLAIN != 0 || action.flags & flag::ENCAPSULATE != 0 && rx.ipsec.is_some();
        if special {
            if pending.port == FROM_TUNNEL {
                return SLOW;
            }
            return self.follow_changed(rx, buf, pending, flow, action, sealing);
        }
        let found = (flow, half, action);
        let same = action.flags & (flag::TRANSLATE | flag::ENCAPSULATE) == 0;
        // One branch that is guessed right for most of a burst, instead of one wherever they differ.
        match (pending.tuple.is_v6(), !POD && pending.port == FROM_TUNNEL, same) {
            (false, false, true) => self.follow_plain::<false, false, true>(table, rx, buf, pending, found),
            (false, false, false) => self.follow_plain::<false, false, false>(table, rx, buf, pending, found),
            (false, true, _) => self.follow_plain::<false, true, false>(table, rx, buf, pending, found),
            (true, false, true) => self.follow_plain::<true, false, true>(table, rx, buf, pending, found),
            (true, false, false) => self.follow_plain::<true, false, false>(table, rx, buf, pending, found),
            (true, true, _) => self.follow_plain::<true, true, false>(table, rx, buf, pending, found),
        }
    }

    /// What goes to an endpoint or on: out of a tunnel or not, and if not, translated or into a tunnel, or the `SAME` as it came.
    #[inline(always)]
    fn follow_plain<const IPV6: bool, const FROM: bool, const SAME: bool>(
        &self,
        table: &FlowTable,
        rx: &Rx<'_>,
        buf: &mut P::Buf,
        pending: &Pending,
        (flow, half, action): (FlowRef, Half<'_>, connection::Action),
    ) -> u16 {
        let changed = action.flags & (flag::TRANSLATE | flag::ENCAPSULATE) != 0;
        if !SAME && changed && connection::begins(pending.upper) && flow.is_forward() {
            // Its backend may take no new connections.
            return SLOW;
        }
        if FROM && pending.identity != action.identity {
            return SLOW;
        }
        if action.revision != rx.snapshot.revision() && !self.holds(rx, pending, flow, &half, action) {
            return SLOW;
        }
        let (end, number) = match !SAME && action.flags & flag::ENCAPSULATE != 0 {
            true => {
                let end = rx.snapshot.tunnel_end(action.target);
                (Some(end), end.target)
            }
            false => (None, action.target),
        };
        let target = rx.snapshot.target(number);
        let around = if FROM { TUNNEL_HEADERS_V4 } else { 0 };
        // Such a packet was seen to have as many bytes in front.
        let len = buf.len().wrapping_sub(around);
        if let Some(end) = end {
            let more = usize::from(end.len);
            if more == 0 || more > buf.headroom() + around || !fits(target, len + more) {
                return SLOW;
            }
        } else if !fits(target, len) {
            return SLOW;
        }
        if progress(table, flow, &half, pending.upper, rx.second) != Progress::Known {
            return SLOW;
        }
        if FROM && buf.trim_front(around).is_err() {
            return SLOW;
        }
        let frame = buf.data_mut();
        let translated = !SAME && action.flags & flag::TRANSLATE != 0;
        let hop = SAME || end.is_none() || action.flags & flag::HOP != 0;
        let class;
        if IPV6 {
            let Some((header, upper)) = frame.split_first_chunk_mut::<V6>() else {
                return SLOW;
            };
            class = header[15] >> 4;
            if translated {
                let Some(back) = table.half(flow.other()) else {
                    return SLOW;
                };
                Translation::of6(&half, &back).apply_upper(upper, pending.upper);
                connection::set_addresses6(header, &back);
            }
            if hop {
                header[21] -= 1;
            }
            if end.is_none() {
                header[..12].copy_from_slice(&target.macs);
            }
        } else {
            let Some((header, upper)) = frame.split_first_chunk_mut::<V4>() else {
                return SLOW;
            };
            class = header[15];
            if translated {
                let to = Translation::of(&half);
                to.apply_upper(upper, pending.upper);
                to.apply4(header, hop);
            } else if hop {
                let second = older(le64(header, 22));
                header[22..30].copy_from_slice(&second.to_le_bytes());
            }
            if end.is_none() {
                header[..12].copy_from_slice(&target.macs);
            }
        }
        if let Some(end) = end
            && overlay::encapsulate(buf, end, target, action.identity, pending.hash, class & 3).is_err()
        {
            return SLOW;
        }
        target.port
    }

    /// Whether a decision of other tables than these still holds.
    #[inline(never)]
    fn holds(
        &self,
        rx: &Rx<'_>,
        pending: &Pending,
        flow: FlowRef,
        half: &Half<'_>,
        action: connection::Action,
    ) -> bool {
        let tuple = &pending.tuple;
        let out = match tuple.is_v6() {
            false => Translation::of(half).outgoing(tuple),
            true => self.outgoing(flow),
        };
        let revision = rx.snapshot.revision();
        let holds = action.still_holds(rx.snapshot.last_changed(), revision, tuple, &out);
        if holds {
            action.refresh(half, revision, rx.second);
        }
        holds
    }

    /// The same for connections that are encrypted, or of which there is more to know.
    #[inline(never)]
    #[allow(clippy::too_many_arguments, reason = "all of it is known in one place only")]
    fn follow_changed<'a>(
        &self,
        rx: &Rx<'a>,
        buf: &mut P::Buf,
        pending: &Pending,
        flow: FlowRef,
        action: connection::Action,
        sealing: &mut Sealing<'a>,
    ) -> u16 {
        let Pending { ref tuple, upper, .. } = *pending;
        if connection::begins(upper) && flow.is_forward() {
            // Its backend may take no new connections.
            return SLOW;
        }
        if action.flags & flag::DIRECT != 0 && connection::speaks(rx.snapshot, upper) {
            // The backend's node is told something with it.
            return SLOW;
        }
        let v6 = tuple.is_v6();
        let out = self.outgoing(flow);
        let revision = rx.snapshot.revision();
        if !action.still_holds(rx.snapshot.last_changed(), revision, tuple, &out) {
            return SLOW;
        }
        // The node at the other end, of a tunnel or without one.
        let node = match action.flags & (flag::ENCAPSULATE | flag::ENCRYPT) != 0 {
            true => Some(rx.snapshot.tunnel_end(action.target)),
            false => None,
        };
        let tunnel = node.filter(|_| action.flags & flag::ENCAPSULATE != 0);
        let target = rx.snapshot.target(node.map_or(action.target, |end| end.target));
        let overhead = tunnel.map_or(0, |end| end.len);
        let whose = (action.target, tunnel.is_some(), action.identity);
        let sa = match sealing.last {
            _ if node.is_none() => None,
            Some(last) if last.whose == whose => last.sa,
            _ => {
                let Ok(sa) = connection::sealing(rx, node, tunnel.is_some(), action.identity) else {
                    return SLOW;
                };
                sealing.last = Some(Decided { whose, sa });
                sa
            }
        };
        let fits = match sa {
            None => fits(target, buf.len() + usize::from(overhead)),
            Some((ipsec, sa)) => {
                let room = ipsec.room(sa, target.limit, overhead);
                buf.len() <= usize::from(room) + ETHERNET_LEN
            }
        };
        let table = self.flows.table();
        let (Some(half), true) = (table.half(flow), fits) else {
            return SLOW;
        };
        if action.flags & flag::LIMITED != 0 && rate::admit(rx, tuple, target, buf.len()).is_err() {
            // It will be told apart from what is dropped for other reasons there.
            return SLOW;
        }
        action.refresh(&half, revision, rx.second);
        let frame = buf.data_mut();
        let (l4, end) = match (v6, frame.first_chunk::<V4>()) {
            (true, Some(header)) => (V6, V6 + usize::from(be16(header, 18))),
            (false, Some(header)) => (V4, ETHERNET_LEN + usize::from(be16(header, 16))),
            (_, None) => return SLOW,
        };
        let packet = connection::Packet {
            tuple: *tuple,
            fragment: None,
            upper,
            part: connection::Part::Whole,
            l4,
            end,
            port: tuple.dport(),
        };
        if action.flags & flag::AFFINE != 0 && !connection::seen_in(&half, rx.second) {
            connection::refresh(&self.affinities, tuple, rx.second);
        }
        if progress(table, flow, &half, upper, rx.second) != Progress::Known {
            return SLOW;
        }
        // What the fast path has looked at so far leaves nothing that could fail here.
        if connection::translate(frame, &packet, &out).is_err() {
            return SLOW;
        }
        match tunnel {
            None => {
                connection::one_hop_further(frame, v6);
                frame[..12].copy_from_slice(&target.macs);
            }
            Some(end) => {
                if action.flags & flag::HOP != 0 {
                    connection::one_hop_further(frame, v6);
                }
                let ecn = overlay::traffic_class(buf.data()) & 3;
                if overlay::encapsulate(buf, end, target, action.identity, pending.hash, ecn).is_err() {
                    return SLOW;
                }
            }
        }
        match sa {
            None => target.port,
            Some((ipsec, sa)) => {
                // There is room: a burst has no more packets than that.
                let _ = sealing.them.try_push(Seal {
                    sa: sa.id(),
                    port: target.port,
                    front: ipsec.front(overhead),
                });
                SEAL
            }
        }
    }
}
