//! What the engine keeps of each direction of a connection, in the three words that the flow table has for it.

use octoplane_flow::{FlowRef, FlowTable, Half, Tuple};
use octoplane_tables::LastChanged;
use octoplane_tables::model::MAX_IDENTITY;

use super::packet::{Upper, tcp};
use super::translation::Translation;

/// In place of a port: packets of this direction come out of a tunnel.
pub(crate) const FROM_TUNNEL: u16 = u16::MAX;

/// Flags of a direction, fixed when it was compiled.
pub(crate) mod flag {
    /// Addresses or ports change: the other direction's tuple turned round is the new one.
    pub(crate) const TRANSLATE: u16 = 1;
    /// Sent to another node in a tunnel.
    pub(crate) const ENCAPSULATE: u16 = 2;
    /// The words say where packets go. Without it only the slow path knows.
    pub(crate) const COMPILED: u16 = 4;
    /// To a service whose clients stay with their backends: each packet prolongs the stay.
    pub(crate) const AFFINE: u16 = 8;
    /// From or to an endpoint that may send or receive only so much.
    pub(crate) const LIMITED: u16 = 16;
    /// Depends on addresses that packets of this direction do not have: any change of the tables has it decided again.
    pub(crate) const ANY_CHANGE: u16 = 32;
    /// Sent to another node encrypted, without a tunnel around it.
    pub(crate) const ENCRYPT: u16 = 64;
    /// To a service's backend on another node that answers by itself: that one is told of some packets what their client used.
    pub(crate) const DIRECT: u16 = 128;
    /// Its answers are in the name of what a load balancer on another node said: a SYN may say something else.
    pub(crate) const ANSWERED_AS: u16 = 256;
    /// One hop further in front of the tunnel: what this node sends on in its own name, or to an egress gateway.
    pub(crate) const HOP: u16 = 512;
}

/// The first two words: what to do with packets of a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Action {
    /// Number of the target in the forwarding tables, or of the other node with [`flag::ENCAPSULATE`] or
    /// [`flag::ENCRYPT`].
    pub(crate) target: u32,
    /// The port they come in by, or [`FROM_TUNNEL`].
    pub(crate) port: u16,
    pub(crate) flags: u16,
    /// Revision of the tables that this was decided by, or that are known to say the same; [`REVISION_BITS`] of it.
    pub(crate) revision: u64,
    /// Identity of the sender: the tunnel's VNI, one way or the other.
    pub(crate) identity: u32,
}

/// Bits of a revision that are kept. With more revisions than these tell apart, 1,000 a second for eight years, everything
/// is decided again for each packet.
const REVISION_BITS: u32 = 38;
const _: () = assert!(MAX_IDENTITY < 1 << (64 - REVISION_BITS));

impl Action {
    #[inline(always)]
    pub(crate) fn words(self) -> [u64; 2] {
        [
            u64::from(self.target) | u64::from(self.port) << 32 | u64::from(self.flags) << 48,
            self.revision & ((1 << REVISION_BITS) - 1) | u64::from(self.identity) << REVISION_BITS,
        ]
    }

    #[inline(always)]
    pub(crate) fn of(half: &Half<'_>) -> Self {
        let (first, second) = (half.word::<0>(), half.word::<1>());
        Self {
            target: first as u32,
            port: (first >> 32) as u16,
            flags: (first >> 48) as u16,
            revision: second & ((1 << REVISION_BITS) - 1),
            identity: (second >> REVISION_BITS) as u32,
        }
    }

    pub(crate) fn store(self, half: &Half<'_>) {
        let [first, second] = self.words();
        half.set_word::<0>(first);
        half.set_word::<1>(second);
    }

    /// Whether nothing that this depends on is different in the tables of revision `now`, for packets that arrive as `tuple` and
    /// leave as `out`.
    #[inline(always)]
    pub(crate) fn still_holds(&self, changed: &LastChanged, now: u64, tuple: &Tuple, out: &Tuple) -> bool {
        let since = self.revision;
        if since == now {
            return true;
        }
        let unchanged = match tuple.is_v6() {
            false => {
                changed.unchanged4(since, tuple.src4())
                    & changed.unchanged4(since, tuple.dst4())
                    & changed.unchanged4(since, out.dst4())
            }
            true => {
                changed.unchanged6(since, tuple.src6())
                    & changed.unchanged6(since, tuple.dst6())
                    & changed.unchanged6(since, out.dst6())
            }
        };
        // Another worker may have decided by tables that this one has not seen yet.
        let before = since < now;
        unchanged & before & changed.nothing_since(since) & (self.flags & flag::ANY_CHANGE == 0)
    }

    /// Takes note that what was decided still holds with the tables of this revision, which spares the next packet the
    /// question. Connections that see few packets while there are many changes would have their lines written for every
    /// packet and gain nothing: theirs are written once a second, with the time.
    #[inline(always)]
    pub(crate) fn refresh(self, half: &Half<'_>, revision: u64, now: u32) {
        const NEAR: u64 = 16;
        if self.revision != revision && (revision - self.revision < NEAR || !seen_in(half, now)) {
            let [_, second] = Self { revision, ..self }.words();
            half.set_word::<1>(second);
        }
    }
}

/// The third word: the second in which the last packet came, and what TCP did in this direction.
const SEEN: u64 = 0xffff_ffff;
/// A packet other than SYN was seen.
const ESTABLISHED: u64 = 1 << 32;
/// FIN or RST was seen.
const CLOSING: u64 = 1 << 33;
/// Whether the connection is TCP's.
const TCP: u64 = 1 << 34;
/// A SYN was seen.
const SYN: u64 = 1 << 35;

/// It goes to a proxy on this node instead of where it was meant to.
const PROXIED: u64 = 1 << 36;

/// Where the change of the upper layer's checksum by translation is.
const UPPER_CHANGE: u32 = 48;

/// What the complement of the upper layer's checksum grows by when a packet is translated, of a third word.
#[inline(always)]
pub(crate) fn upper_change(word: u64) -> u16 {
    (word >> UPPER_CHANGE) as u16
}

/// Takes note that a connection goes to a proxy.
pub(crate) fn set_proxied(half: &Half<'_>) {
    half.set_word::<2>(half.word::<2>() | PROXIED);
}

/// A backend on another node answers its client by itself: what comes back does not come by here.
const DIRECT: u64 = 1 << 37;

/// Takes note that nothing comes back by here.
pub(crate) fn set_direct(half: &Half<'_>) {
    half.set_word::<2>(half.word::<2>() | DIRECT);
}

/// Whether nothing comes back by here, by the first packet's direction.
pub(crate) fn is_direct(half: &Half<'_>) -> bool {
    half.word::<2>() & DIRECT != 0
}

/// Whether a connection goes to a proxy, by its first packet's direction.
pub(crate) fn is_proxied(half: &Half<'_>) -> bool {
    half.word::<2>() & PROXIED != 0
}

/// Makes a connection that another process left behind one of ours, in second `now`. Numbers of targets and ports were that
/// process's: the next packet of each direction has it decided again, by the tables as they are. Where it stands and what it
/// is translated to stay.
///
/// Whether its clock was ahead of ours: then the time to look at it is wrong, too.
pub(crate) fn resume(there: &Half<'_>, back: &Half<'_>, now: u32) -> bool {
    let mut ahead = false;
    for (half, other) in [(there, back), (back, there)] {
        Action::default().store(half);
        let (from, other) = (half.tuple(), other.tuple());
        half.set_spare(Translation::between(&from.arriving(&other), &other.reverse()).words());
        let state = half.word::<2>();
        if state & SEEN > u64::from(now) {
            half.set_word::<2>(state & !SEEN | u64::from(now));
            ahead = true;
        }
    }
    ahead
}

/// How far a connection got, to be carried over to the one that takes its place.
pub(crate) struct Carried {
    there: u64,
    back: u64,
}

impl Carried {
    /// What does not follow from translation.
    const KEPT: u64 = (1 << UPPER_CHANGE) - 1;

    /// How far the connection of this direction got.
    pub(crate) fn of(table: &FlowTable, flow: FlowRef) -> Self {
        let word = |flow| table.half(flow).map_or(0, |half| half.word::<2>() & Self::KEPT);
        Self {
            there: word(flow),
            back: word(flow.other()),
        }
    }

    /// Has another one be as far.
    pub(crate) fn store(self, table: &FlowTable, flow: FlowRef) {
        for (flow, word) in [(flow, self.there), (flow.other(), self.back)] {
            if let Some(half) = table.half(flow) {
                half.set_word::<2>(half.word::<2>() & !Self::KEPT | word);
            }
        }
    }
}

/// How long connections are kept, in seconds (specification, 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP after the first packet that is not a SYN.
    pub tcp: u32,
    /// TCP before it.
    pub syn: u32,
    /// TCP after both sides have closed, or one has reset.
    pub closing: u32,
    /// Everything else.
    pub other: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp: 8000,
            syn: 60,
            closing: 10,
            other: 60,
        }
    }
}

impl Timeouts {
    fn of(&self, state: u64) -> u32 {
        match state {
            state if state & TCP == 0 => self.other,
            state if state & CLOSING != 0 => self.closing,
            state if state & ESTABLISHED != 0 => self.tcp,
            _ => self.syn,
        }
    }
}

/// The third word of a direction whose first packet comes now, in second `now`, and is translated with this `change` of the
/// upper layer's checksum.
pub(crate) fn first_word(upper: Upper, now: u32, forward: bool, change: u16) -> u64 {
    let tcp = match upper {
        Upper::Tcp(_) => TCP,
        _ => 0,
    };
    // A new entry counts as one that saw its SYN, whatever made it.
    let change = u64::from(change) << UPPER_CHANGE;
    tcp | change
        | if forward {
            u64::from(now) | if tcp != 0 { SYN } else { 0 }
        } else {
            0
        }
}

/// What a packet means to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It goes on.
    Known,
    /// A SYN on a connection that was closing: it counts as new.
    Again,
}

/// Whether a packet of this direction was seen in this second.
#[inline(always)]
pub(crate) fn seen_in(half: &Half<'_>, second: u32) -> bool {
    half.word::<2>() & SEEN == u64::from(second)
}

/// Takes note of a packet of `flow`'s direction in second `now`.
#[inline(always)]
pub(crate) fn progress(
    table: &FlowTable,
    flow: FlowRef,
    half: &Half<'_>,
    upper: Upper,
    now: u32,
) -> Progress {
    let old = half.word::<2>();
    if let Upper::Tcp(flags) = upper
        && (flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0 || old & ESTABLISHED == 0 || old & CLOSING != 0)
    {
        return tcp_progress(table, flow, half, flags, now);
    }
    // At most once a second: a line that is only read stays in every cache.
    if old & SEEN != u64::from(now) {
        half.set_word::<2>(old & !SEEN | u64::from(now));
    }
    Progress::Known
}

#[inline(never)]
fn tcp_progress(table: &FlowTable, flow: FlowRef, half: &Half<'_>, flags: u8, now: u32) -> Progress {
    let Some(back) = table.half(flow.other()) else {
        return Progress::Known;
    };
    let (mut state, other) = (half.word::<2>(), back.word::<2>());
    if flags & (tcp::SYN | tcp::ACK) == tcp::SYN && (state | other) & CLOSING != 0 {
        return Progress::Again;
    }
    let closed = state & other & CLOSING != 0;
    if flags & tcp::SYN != 0 {
        state |= SYN;
    } else {
        state |= ESTABLISHED;
    }
    if flags & (tcp::FIN | tcp::RST) != 0 {
        state |= CLOSING;
        // A reset before both SYNs were seen closes both directions (specification, 2.3).
        if flags & tcp::RST != 0 && state & other & SYN == 0 {
            back.set_word::<2>(other | CLOSING);
        }
    }
    // Once both sides have closed, nothing prolongs its life.
    if !closed {
        state = state & !SEEN | u64::from(now);
    }
    half.set_word::<2>(state);
    if state & CLOSING != 0 {
        // It may end sooner than was planned.
        table.look_soon(flow);
    }
    Progress::Known
}

/// The second in which a connection ends if nothing more comes.
pub(crate) fn ends(table: &FlowTable, flow: FlowRef, timeouts: &Timeouts) -> u32 {
    let word = |flow| table.half(flow).map_or(0, |half| half.word::<2>());
    let (there, back) = (word(flow), word(flow.other()));
    let last = (there & SEEN).max(back & SEEN) as u32;
    // Where only one side is heard, it closes for both.
    let closing = match there & DIRECT {
        0 => there & back & CLOSING,
        _ => (there | back) & CLOSING,
    };
    let state = (there | back) & !CLOSING | closing;
    last.saturating_add(timeouts.of(state))
}
