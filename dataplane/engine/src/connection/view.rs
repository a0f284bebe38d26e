//! What a connection in the flow table means, for those who only look.

use octoplane_flow::{FlowRef, FlowTable, Tuple};
use octoplane_tables::LastChanged;

use super::state::{self, Action, Timeouts, flag};

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowState {
    /// TCP before the first packet that is not a SYN.
    Syn,
    /// TCP after it.
    Established,
    /// TCP after both sides have closed, or one has reset.
    Closing,
    /// Anything but TCP.
    Open,
}

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectionView {
    /// What its packets arrive with. In zone [`Tuple::ANSWERS_ONLY`]: what the sender used where another node balanced the
    /// load; packets arrive as answers turned round.
    pub tuple: Tuple,
    /// Where its packets go, if that was decided since the connection began.
    pub decided: Option<Decided>,
}

/// What the engine does with packets of a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided {
    /// Number of the port they come in by.
    pub in_port: u16,
    /// Number of the target in the forwarding tables, or of the tunnel's other end.
    pub target: u32,
    /// Whether nothing has changed since that it depends on; if not, the next packet has it decided again.
    pub current: bool,
    /// Identity of the sender.
    pub identity: u32,
    /// Whether they leave with other addresses or ports: the other direction's tuple turned round.
    pub translated: bool,
}

/// A connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowView {
    /// The direction of the first packet.
    pub forward: DirectionView,
    /// The answers'.
    pub reply: DirectionView,
    /// How far it is.
    pub state: FlowState,
    /// Seconds since its last packet.
    pub idle: u32,
    /// Seconds until it ends if nothing more comes.
    pub expires: u32,
}

/// What the table holds of a connection at `now`, in nanoseconds of the engines' clock, when the tables are those of `changed`.
/// May be asked by anybody while workers go on: `None` if the connection is gone, or goes meanwhile.
#[must_use]
pub fn describe(
    table: &FlowTable,
    flow: FlowRef,
    changed: &LastChanged,
    now: u64,
    timeouts: &Timeouts,
) -> Option<FlowView> {
    let flow = if flow.is_forward() { flow } else { flow.other() };
    let (forward, reply) = (
        direction(table, flow, changed)?,
        direction(table, flow.other(), changed)?,
    );
    let last = state::ends(table, flow, &NOTHING);
    let state = progress(table, flow, last);
    let ends = state::ends(table, flow, timeouts);
    let view = FlowView {
        forward,
        reply,
        state,
        idle: super::second(now).saturating_sub(last),
        expires: ends.saturating_sub(super::second(now)),
    };
    // A record may become another connection's while it is read: what was read is true if its tuple still leads to it.
    let arrival = table.arrival(flow)?;
    let there = table.find(table.hash(&arrival), &arrival) == Some(flow);
    (there && table.is_live(flow)).then_some(view)
}

fn direction(table: &FlowTable, flow: FlowRef, changed: &LastChanged) -> Option<DirectionView> {
    let half = table.half(flow)?;
    let (tuple, out) = (half.tuple(), table.half(flow.other())?.tuple().reverse());
    let action = Action::of(&half);
    let decided = action.flags & flag::COMPILED != 0;
    Some(DirectionView {
        tuple,
        decided: decided.then_some(Decided {
            in_port: action.port,
            target: action.target,
            current: action.still_holds(changed, changed.latest(), &table.arrival(flow)?, &out),
            identity: action.identity,
            translated: action.flags & flag::TRANSLATE != 0,
        }),
    })
}

/// With these a connection ends with its last packet.
const NOTHING: Timeouts = Timeouts {
    tcp: 0,
    syn: 0,
    closing: 0,
    other: 0,
};

/// How far a connection is whose last packet came in second `last`: which timeout holds for it. What that is stays in one
/// place so.
fn progress(table: &FlowTable, flow: FlowRef, last: u32) -> FlowState {
    // Far enough apart for packets that come while this looks.
    const APART: u32 = 1000;
    const MARKS: Timeouts = Timeouts {
        other: 0,
        syn: APART,
        tcp: 2 * APART,
        closing: 3 * APART,
    };
    match state::ends(table, flow, &MARKS).saturating_sub(last) / APART {
        0 => FlowState::Open,
        1 => FlowState::Syn,
        2 => FlowState::Established,
        _ => FlowState::Closing,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use octoplane_flow::FlowHandle;

    use super::super::packet::{Upper, tcp};
    use super::super::state::first_word;
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn insert(handle: &mut FlowHandle, tuples: [&Tuple; 2], upper: Upper, now: u32) -> FlowRef {
        let action = Action {
            target: 9,
            port: 3,
            flags: flag::COMPILED | flag::TRANSLATE,
            revision: 0,
            identity: 1001,
        };
        let [first, second] = action.words();
        let payloads = [
            [first, second, first_word(upper, now, true, 0)],
            [0, 0, first_word(upper, now, false, 0)],
        ];
        handle.insert(tuples, payloads, now + 60).unwrap()
    }

    #[test]
    fn a_connection_from_its_first_packet_to_its_end() {
        let mut handle = FlowHandle::new(Arc::new(FlowTable::new(64).unwrap()), 0, 1).unwrap();
        let there = Tuple::v4(1, 100, 4000, 80, 6, 0);
        let back = Tuple::v4(7, 1, 8080, 4000, 6, 0);
        let flow = insert(&mut handle, [&there, &back], Upper::Tcp(tcp::SYN), 11);
        let table = handle.shared();
        let changed = LastChanged::default();
        let look = |now: u64| describe(&table, flow.other(), &changed, now * SECOND, &Timeouts::default());
        // Second 12 in the engine's count.
        let view = look(11).unwrap();
        assert_eq!((view.forward.tuple, view.reply.tuple), (there, back));
        let decided = view.forward.decided.unwrap();
        assert_eq!((decided.in_port, decided.target, decided.current), (3, 9, true));
        assert_eq!((decided.identity, decided.translated), (1001, true));
        assert_eq!(view.reply.decided, None);
        assert_eq!((view.state, view.idle, view.expires), (FlowState::Syn, 1, 59));
        let seen = |flow, flags, now| {
            let half = table.half(flow).unwrap();
            let _ = state::progress(&table, flow, &half, Upper::Tcp(flags), now);
        };
        seen(flow.other(), tcp::SYN | tcp::ACK, 13);
        seen(flow, tcp::ACK, 13);
        let view = look(11).unwrap();
        assert_eq!(
            (view.state, view.idle, view.expires),
            (FlowState::Established, 0, 8001)
        );
        seen(flow, tcp::FIN | tcp::ACK, 20);
        assert_eq!(look(19).unwrap().state, FlowState::Established);
        seen(flow.other(), tcp::FIN | tcp::ACK, 20);
        let view = look(23).unwrap();
        assert_eq!((view.state, view.idle, view.expires), (FlowState::Closing, 4, 6));
        assert!(table.end_soon(flow, &there));
        assert_eq!(look(23), None);
    }

    #[test]
    fn what_is_not_tcp_has_no_states() {
        let mut handle = FlowHandle::new(Arc::new(FlowTable::new(64).unwrap()), 0, 1).unwrap();
        let there = Tuple::v4(1, 2, 7, 0, 1, 0);
        let flow = insert(&mut handle, [&there, &there.reverse()], Upper::Echo, 5);
        let changed = LastChanged::default();
        let view =
            |handle: &FlowHandle| describe(handle.table(), flow, &changed, 9 * SECOND, &Timeouts::default());
        let seen = view(&handle).unwrap();
        assert_eq!((seen.state, seen.idle, seen.expires), (FlowState::Open, 5, 55));
        handle.remove(flow);
        assert_eq!(view(&handle), None);
    }
}
