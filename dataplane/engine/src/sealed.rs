//! Packets of known connections that are encrypted, or of which there is more to know than the fast path's second half asks.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use octoplane_esp::view::NodeDecision;
use octoplane_esp::{Sa, SaId};
use octoplane_flow::{FlowRef, FlowTable, Half};
use octoplane_packet::headers::ETHERNET_LEN;
use octoplane_packet::{BufPool, PacketBuf};
use octoplane_tables::{Target, TunnelEnd};

use crate::connection::{self, Progress, flag, progress};
use crate::engine::{BURST, Core, Rx};
use crate::fast::{PENDING, SEAL, SLOW, V4, V6, be16, fits};
use crate::ipsec::{Ipsec, is_protected};
use crate::known::{Pending, rewrite, without_padding};
use crate::overlay;
use crate::rate;
use crate::verdict::Seal;

/// How those of a burst are encrypted that have [`SEAL`] in place of a port, in their order, and by which ports they leave.
#[derive(Default)]
pub(crate) struct Sealing<'a> {
    pub(crate) them: ArrayVec<Seal, BURST>,
    /// What was decided for the last one: neighbours mostly have that in common.
    last: Option<Towards<'a>>,
}

/// How packets go to another node.
#[derive(Clone, Copy)]
struct Towards<'a> {
    /// Which packets: the node's number, whether there is a tunnel to it, and whether the sender's are always encrypted.
    whose: (u32, bool, bool),
    /// The target that leads to it.
    target: &'a Target,
    /// The tunnel, if there is one.
    tunnel: Option<&'a TunnelEnd>,
    /// Bytes that a frame may have as it is.
    room: usize,
    /// With what they are encrypted, and how many bytes in front are not.
    sa: Option<(SaId, u16)>,
}

impl<'a> Sealing<'a> {
    /// How packets of a connection go to the node that it leads to. `None`: they do not.
    #[inline(always)]
    fn towards(&mut self, rx: &Rx<'a>, action: connection::Action) -> Option<Towards<'a>> {
        let tunnel = action.flags & flag::ENCAPSULATE != 0;
        let whose = (action.target, tunnel, is_protected(action.identity));
        match self.last {
            Some(last) if last.whose == whose => Some(last),
            _ => {
                self.last = Some(decide(rx, whose, action.identity)?);
                self.last
            }
        }
    }

    /// Has a frame that is ready encrypted and sent, or sent as it is. Returns what stands in place of its port.
    #[inline(always)]
    fn send(&mut self, to: &Towards<'_>) -> u16 {
        let Some((sa, front)) = to.sa else {
            return to.target.port;
        };
        // There is room: a burst has no more packets than that.
        let _ = self.them.try_push(Seal {
            sa,
            port: to.target.port,
            front,
        });
        SEAL
    }
}

#[inline(never)]
fn decide<'a>(rx: &Rx<'a>, whose: (u32, bool, bool), sender: u32) -> Option<Towards<'a>> {
    let (number, tunnel, _) = whose;
    let node = rx.snapshot.tunnel_end(number);
    let target = rx.snapshot.target(node.target);
    if tunnel && node.len == 0 {
        return None;
    }
    let overhead = if tunnel { node.len } else { 0 };
    let sa: Option<(Ipsec<'a>, &'a Sa)> = connection::sealing(rx, Some(node), tunnel, sender).ok()?;
    let room = match sa {
        None => target.limit.checked_sub(overhead)?,
        Some((ipsec, sa)) => ipsec.room(sa, target.limit, overhead),
    };
    Some(Towards {
        whose,
        target,
        tunnel: Some(node).filter(|_| tunnel),
        room: usize::from(room) + ETHERNET_LEN,
        sa: sa.map(|(ipsec, sa)| (sa.id(), ipsec.front(overhead))),
    })
}

impl<P: BufPool> Core<P> {
    /// Has what is known of other nodes, and with what packets for them are encrypted, fetched side by side where the packets of
    /// a burst are for many of them. Each loop does so little that the processor is in several rounds of it at once.
    #[inline(never)]
    pub(crate) fn fetch_nodes<'b>(
        &self,
        rx: &Rx<'_>,
        ipsec: Ipsec<'_>,
        burst: impl Iterator<Item = (&'b Pending, &'b u16)>,
    ) {
        let table = self.flows.table();
        let mut targets = ArrayVec::<u32, BURST>::new();
        for (pending, _) in burst.filter(|(_, way)| **way == PENDING) {
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

    /// What goes to another node encrypted, in a tunnel or not.
    #[inline(never)]
    pub(crate) fn follow_sealed<'a, const IPV6: bool>(
        &self,
        table: &FlowTable,
        rx: &Rx<'a>,
        buf: &mut P::Buf,
        pending: &Pending,
        (flow, half, action): (FlowRef, Half<'_>, connection::Action),
        sealing: &mut Sealing<'a>,
    ) -> u16 {
        if connection::begins(pending.upper) && flow.is_forward() {
            // Its backend may take no new connections.
            return SLOW;
        }
        if action.revision != rx.snapshot.revision() && !self.holds(rx, pending, flow, &half, action) {
            return SLOW;
        }
        let Some(to) = sealing.towards(rx, action) else {
            return SLOW;
        };
        let more = to.tunnel.map_or(0, |end| usize::from(end.len));
        if buf.len() > to.room || more > buf.headroom() {
            return SLOW;
        }
        if progress(table, flow, &half, pending.upper, rx.second) != Progress::Known {
            return SLOW;
        }
        if to.tunnel.is_some() && !without_padding::<IPV6, _>(buf) {
            return SLOW;
        }
        let onwards = match to.tunnel {
            None => Some(&to.target.macs),
            Some(_) => None,
        };
        let translated = action.flags & flag::TRANSLATE != 0;
        let hop = onwards.is_some() || action.flags & flag::HOP != 0;
        let frame = buf.data_mut();
        let how = (translated, hop, onwards);
        let Some(class) = rewrite::<IPV6>(table, frame, (flow, half), pending.upper, how) else {
            return SLOW;
        };
        if let Some(end) = to.tunnel
            && overlay::encapsulate(buf, end, action.identity, pending.hash, class & 3).is_err()
        {
            return SLOW;
        }
        sealing.send(&to)
    }

    /// The same for connections of which there is more to know.
    #[inline(never)]
    #[allow(clippy::too_many_arguments, reason = "all of it is known in one place only")]
    pub(crate) fn follow_changed<'a>(
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
        let to = match action.flags & (flag::ENCAPSULATE | flag::ENCRYPT) != 0 {
            true => match sealing.towards(rx, action) {
                Some(to) => Some(to),
                None => return SLOW,
            },
            false => None,
        };
        let tunnel = to.and_then(|to| to.tunnel);
        let target = to.map_or_else(|| rx.snapshot.target(action.target), |to| to.target);
        let fits = match to {
            None => fits(target, buf.len()),
            Some(to) => buf.len() <= to.room,
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
        let trimmed = tunnel.is_none()
            || match v6 {
                true => without_padding::<true, _>(buf),
                false => without_padding::<false, _>(buf),
            };
        if !trimmed {
            return SLOW;
        }
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
                if overlay::encapsulate(buf, end, action.identity, pending.hash, ecn).is_err() {
                    return SLOW;
                }
            }
        }
        match to {
            None => target.port,
            Some(to) => sealing.send(&to),
        }
    }
}
