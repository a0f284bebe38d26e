//! The second half of the fast path: packets whose connections are known, by what was decided for these.
//!
//! A packet is changed only when nothing can come in between any more, so that the slow path can start over with it.

use octoplane_flow::{FlowRef, FlowTable, Half, Tuple};
use octoplane_packet::headers::ETHERNET_LEN;
use octoplane_packet::{BufPool, PacketBuf};
use octoplane_tables::{TUNNEL_HEADERS_V4, Target, TunnelEnd};

use crate::connection::{self, FROM_TUNNEL, Progress, Translation, Upper, flag, progress};
use crate::engine::{BURST, Core, Rx};
use crate::fast::{PENDING, SLOW, V4, V6, be16, fits, le64, older};
use crate::overlay;
use crate::sealed::Sealing;

/// Flags of directions that are followed without a closer look.
const PLAIN: u16 = flag::COMPILED | flag::TRANSLATE | flag::ENCAPSULATE | flag::ANY_CHANGE | flag::HOP;
/// The same where packets are encrypted.
const SEALED: u16 = PLAIN | flag::ENCRYPT;

/// What makes a difference to how a packet is changed.
const KINDS: u16 = flag::TRANSLATE | flag::ENCAPSULATE | flag::HOP;
/// Kinds that have code of their own: as they came, into a tunnel, and translated and into a tunnel.
const SAME: u16 = 0;
const INTO: u16 = flag::ENCAPSULATE;
const BOTH: u16 = flag::TRANSLATE | flag::ENCAPSULATE;
/// All kinds.
const ANY: u16 = u16::MAX;

/// Where packets of a connection go.
#[derive(Clone, Copy)]
enum Way<'a> {
    /// To a neighbour or an endpoint.
    Link(&'a Target),
    /// Into a tunnel.
    Tunnel(&'a TunnelEnd),
}

/// How a packet came here.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    /// The sender's identity, of packets from a tunnel.
    pub(crate) identity: u32,
    /// The port that it came in by, or [`FROM_TUNNEL`].
    pub(crate) port: u16,
    /// Whether something may stand behind the IP packet.
    pub(crate) padded: bool,
}

impl Arrival {
    /// Not in a tunnel.
    #[inline(always)]
    pub(crate) fn by(port: u16, padded: bool) -> Self {
        Self {
            identity: 0,
            port,
            padded,
        }
    }
}

/// A packet whose connection is being looked up.
pub(crate) struct Pending {
    pub(crate) tuple: Tuple,
    pub(crate) hash: u64,
    pub(crate) candidate: Option<FlowRef>,
    arrival: Arrival,
    pub(crate) upper: Upper,
}

impl Default for Pending {
    fn default() -> Self {
        Self {
            tuple: Tuple::v4(0, 0, 0, 0, 0, 0),
            hash: 0,
            candidate: None,
            arrival: Arrival::by(0, false),
            upper: Upper::Other,
        }
    }
}

impl<P: BufPool> Core<P> {
    /// Begins to look up the connection of a packet, which waits for it from now on: returns [`PENDING`].
    #[inline(always)]
    pub(crate) fn look_up(&self, pending: &mut Pending, tuple: Tuple, upper: Upper, arrival: Arrival) -> u16 {
        let table = self.flows.table();
        let hash = table.hash(&tuple);
        table.prefetch(hash);
        *pending = Pending {
            tuple,
            hash,
            candidate: None,
            arrival,
            upper,
        };
        PENDING
    }

    /// Sends on packets of connections that are known and were decided by the tables as they are: those of a burst that have
    /// [`PENDING`] in place of a port. What a pass reads of the table, the one before has fetched, for many packets at once.
    #[inline(never)]
    pub(crate) fn established<'a, const POD: bool>(
        &self,
        rx: &Rx<'a>,
        burst: &mut [P::Buf],
        ports: &mut [u16; BURST],
        pending: &mut [Pending],
        sealing: &mut Sealing<'a>,
    ) {
        let table = self.flows.table();
        for (pending, _) in pending
            .iter_mut()
            .zip(ports.iter())
            .take(burst.len())
            .filter(|(_, way)| **way == PENDING)
        {
            pending.candidate = table.candidate(pending.hash);
            if let Some(flow) = pending.candidate {
                table.prefetch_half(flow);
                if pending.tuple.is_v6() {
                    // Where a translation is to be looked up.
                    table.prefetch_half(flow.other());
                }
            } else {
                table.prefetch_rest(pending.hash);
            }
        }
        if let Some(ipsec) = rx.ipsec {
            self.fetch_nodes(rx, ipsec, pending.iter().zip(ports.iter()).take(burst.len()));
        }
        let unusual = flag::COMPILED
            | match rx.ipsec {
                None => !PLAIN,
                Some(_) => !PLAIN | flag::ENCAPSULATE,
            };
        for ((buf, way), pending) in burst.iter_mut().zip(ports).zip(pending) {
            if *way == PENDING {
                *way = self.follow_known::<POD>(table, rx, buf, pending, (unusual, sealing));
            }
        }
    }

    #[inline(always)]
    fn follow_known<'a, const POD: bool>(
        &self,
        table: &FlowTable,
        rx: &Rx<'a>,
        buf: &mut P::Buf,
        pending: &Pending,
        (unusual, sealing): (u16, &mut Sealing<'a>),
    ) -> u16 {
        let Some((flow, half)) = table.confirm(pending.candidate, pending.hash, &pending.tuple) else {
            return SLOW;
        };
        let action = connection::Action::of(&half);
        let found = (flow, half, action);
        // One branch for everything that is unusual.
        if (action.flags ^ flag::COMPILED) & unusual | action.port ^ pending.arrival.port != 0 {
            return self.follow_unusual(table, rx, buf, pending, found, sealing);
        }
        // One branch that is guessed right for most of a burst, instead of one wherever they differ.
        match (
            pending.tuple.is_v6(),
            !POD && pending.arrival.port == FROM_TUNNEL,
            action.flags & KINDS,
        ) {
            (false, false, SAME) => self.follow_plain::<false, false, SAME>(table, rx, buf, pending, found),
            (false, false, INTO) => self.follow_plain::<false, false, INTO>(table, rx, buf, pending, found),
            (false, false, BOTH) => self.follow_plain::<false, false, BOTH>(table, rx, buf, pending, found),
            (false, false, _) => self.follow_plain::<false, false, ANY>(table, rx, buf, pending, found),
            (false, true, _) => self.follow_plain::<false, true, ANY>(table, rx, buf, pending, found),
            (true, false, SAME) => self.follow_plain::<true, false, SAME>(table, rx, buf, pending, found),
            (true, false, _) => self.follow_plain::<true, false, ANY>(table, rx, buf, pending, found),
            (true, true, _) => self.follow_plain::<true, true, ANY>(table, rx, buf, pending, found),
        }
    }

    /// What was not compiled, comes by another port than it was compiled for, is encrypted, or of which there is more to know.
    #[inline(never)]
    fn follow_unusual<'a>(
        &self,
        table: &FlowTable,
        rx: &Rx<'a>,
        buf: &mut P::Buf,
        pending: &Pending,
        found: (FlowRef, Half<'_>, connection::Action),
        sealing: &mut Sealing<'a>,
    ) -> u16 {
        let (flow, _, action) = found;
        if action.flags & flag::COMPILED == 0
            || action.port != pending.arrival.port
            || action.port == FROM_TUNNEL
        {
            return SLOW;
        }
        match (action.flags & !SEALED == 0, pending.tuple.is_v6()) {
            (true, false) => self.follow_sealed::<false>(table, rx, buf, pending, found, sealing),
            (true, true) => self.follow_sealed::<true>(table, rx, buf, pending, found, sealing),
            (false, _) => self.follow_changed(rx, buf, pending, flow, action, sealing),
        }
    }

    /// What goes to an endpoint or on: out of a tunnel or not, and of this `KIND`.
    #[inline(always)]
    fn follow_plain<const IPV6: bool, const FROM: bool, const KIND: u16>(
        &self,
        table: &FlowTable,
        rx: &Rx<'_>,
        buf: &mut P::Buf,
        pending: &Pending,
        (flow, half, action): (FlowRef, Half<'_>, connection::Action),
    ) -> u16 {
        let flags = if KIND == ANY { action.flags } else { KIND };
        if flags & (flag::TRANSLATE | flag::ENCAPSULATE) != 0
            && connection::begins(pending.upper)
            && flow.is_forward()
        {
            // Its backend may take no new connections.
            return SLOW;
        }
        if FROM && pending.arrival.identity != action.identity {
            return SLOW;
        }
        if action.revision != rx.snapshot.revision() && !self.holds(rx, pending, flow, &half, action) {
            return SLOW;
        }
        let around = if FROM { TUNNEL_HEADERS_V4 } else { 0 };
        // Such a packet was seen to have as many bytes in front.
        let len = buf.len().wrapping_sub(around);
        let way = match flags & flag::ENCAPSULATE != 0 {
            true => Way::Tunnel(rx.snapshot.tunnel_end(action.target)),
            false => Way::Link(rx.snapshot.target(action.target)),
        };
        let (fits, port) = match way {
            Way::Tunnel(end) => {
                let room = usize::from(end.len) <= buf.headroom() + around;
                (room && len <= usize::from(end.room), end.port)
            }
            Way::Link(target) => (fits(target, len), target.port),
        };
        if !fits {
            return SLOW;
        }
        if progress(table, flow, &half, pending.upper, rx.second) != Progress::Known {
            return SLOW;
        }
        if FROM && buf.trim_front(around).is_err() {
            return SLOW;
        }
        if let Way::Tunnel(_) = way
            && pending.arrival.padded
            && !without_padding::<IPV6, _>(buf)
        {
            return SLOW;
        }
        let translated = flags & flag::TRANSLATE != 0;
        let onwards = match way {
            Way::Link(target) => Some(&target.macs),
            Way::Tunnel(_) => None,
        };
        let hop = onwards.is_some() || flags & flag::HOP != 0;
        let frame = buf.data_mut();
        let how = (translated, hop, onwards);
        let Some(class) = rewrite::<IPV6>(table, frame, (flow, half), pending.upper, how) else {
            return SLOW;
        };
        if let Way::Tunnel(end) = way
            && overlay::encapsulate(buf, end, action.identity, pending.hash, class & 3).is_err()
        {
            return SLOW;
        }
        port
    }

    /// Whether a decision of other tables than these still holds.
    #[inline(never)]
    pub(crate) fn holds(
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
}

/// Cuts off what stands behind the IP packet in a frame: it is not taken to another node. `false`: it could not be done.
#[inline(always)]
pub(crate) fn without_padding<const IPV6: bool, B: PacketBuf>(buf: &mut B) -> bool {
    let Some(header) = buf.data().first_chunk::<V4>() else {
        return false;
    };
    let end = match IPV6 {
        true => usize::from(be16(header, 18)) + V6,
        false => usize::from(be16(header, 16)) + ETHERNET_LEN,
    };
    match buf.len().checked_sub(end) {
        Some(0) => true,
        Some(padding) => cut(buf, padding),
        None => false,
    }
}

/// Apart, so that it costs nothing where there is no padding: only Ethernet's shortest frames have some.
#[cold]
#[inline(never)]
fn cut<B: PacketBuf>(buf: &mut B, padding: usize) -> bool {
    buf.trim_back(padding).is_ok()
}

/// Translates a packet if that is to be done, takes it a hop further, and sends it `onwards` to these Ethernet addresses unless it
/// goes into a tunnel. Returns its traffic class.
#[inline(always)]
pub(crate) fn rewrite<const IPV6: bool>(
    table: &FlowTable,
    frame: &mut [u8],
    (flow, half): (FlowRef, Half<'_>),
    upper: Upper,
    (translated, hop, onwards): (bool, bool, Option<&[u8; 12]>),
) -> Option<u8> {
    if IPV6 {
        let (header, data) = frame.split_first_chunk_mut::<V6>()?;
        if translated {
            let back = table.half(flow.other())?;
            Translation::of6(&half, &back).apply_upper(data, upper);
            connection::set_addresses6(header, &back);
        }
        if hop {
            header[21] -= 1;
        }
        if let Some(macs) = onwards {
            header[..12].copy_from_slice(macs);
        }
        return Some(header[15] >> 4);
    }
    let (header, data) = frame.split_first_chunk_mut::<V4>()?;
    if translated {
        let to = Translation::of(&half);
        to.apply_upper(data, upper);
        to.apply4(header, hop);
    } else if hop {
        let second = older(le64(header, 22));
        header[22..30].copy_from_slice(&second.to_le_bytes());
    }
    if let Some(macs) = onwards {
        header[..12].copy_from_slice(macs);
    }
    Some(header[15])
}
