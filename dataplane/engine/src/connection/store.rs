//! Connections come into the table and go out of it.

use octoplane_flow::{FlowError, FlowHandle, FlowRef, FlowTable, Half, Tuple};
use octoplane_packet::BufPool;

use super::state::{self, Action};
use super::{Packet, Sender, Translation, affinity, second};
use crate::drop_reason::DropReason;
use crate::engine::{Core, Rx};
use crate::fragment_ports;
use crate::verdict::Verdict;

/// Connections that can be in the way of one: one with each of its tuples, and one that another worker has made meanwhile.
pub(super) const MOST_IN_THE_WAY: usize = 4;

impl<P: BufPool> Core<P> {
    /// Stores a connection whose packets leave as `out`. One between the same ends that its answers could be taken for, without a
    /// service or by another one, gives way to it (specification, 1.2 step 13, "recreate").
    pub(super) fn store_between(
        &mut self,
        rx: &Rx<'_>,
        packet: &Packet,
        sender: Sender,
        out: &Tuple,
    ) -> Result<FlowRef, Verdict> {
        for _ in 0..MOST_IN_THE_WAY {
            match self.store(rx, packet, sender, [&packet.tuple, &out.reverse()]) {
                Ok(flow) => return Ok(flow),
                // Another worker was faster, or the reply came first.
                Err(FlowError::Taken(flow)) if self.is_between(flow, &packet.tuple, out) => return Ok(flow),
                Err(FlowError::Taken(flow)) if self.gives_way(flow) => {
                    self.flows.remove(flow);
                }
                Err(_) => break,
            }
        }
        Err(Verdict::Drop(DropReason::CtInsertion))
    }

    /// Whether a connection may be ended for another one between the same ends: its packets leave under their sender's address,
    /// and go where they say or to a backend here or elsewhere that answers through this node.
    fn gives_way(&self, flow: FlowRef) -> bool {
        let forward = if flow.is_forward() { flow } else { flow.other() };
        let there = self.flows.table().half(forward).map(|half| half.tuple());
        let plain = there.is_some_and(|there| {
            there.zone() != Tuple::ANSWERS_ONLY && there.src() == self.outgoing(forward).src()
        });
        plain && !self.is_direct(forward) && self.proxy_of(forward) == 0
    }

    /// Whether a direction has this tuple on the one side and that one on the other.
    fn is_between(&self, flow: FlowRef, there: &Tuple, out: &Tuple) -> bool {
        let table = self.flows.table();
        table.half(flow).is_some_and(|half| half.tuple() == *there) && self.outgoing(flow) == *out
    }

    /// Stores a connection between two tuples, that of its first packet's direction and that of its replies.
    pub(super) fn store(
        &mut self,
        rx: &Rx<'_>,
        packet: &Packet,
        sender: Sender,
        between: [&Tuple; 2],
    ) -> Result<FlowRef, FlowError> {
        let [there, back] = between;
        let translations = [(there, back), (back, there)]
            .map(|(from, other)| Translation::between(&from.arriving(other), &other.reverse()));
        let payload = |forward, translation: Translation| {
            let [first, second] = Action {
                port: if forward { sender.port } else { 0 },
                ..Action::default()
            }
            .words();
            [
                first,
                second,
                state::first_word(packet.upper, rx.second, forward, translation.upper_change()),
            ]
        };
        let payloads = [payload(true, translations[0]), payload(false, translations[1])];
        let look = rx
            .second
            .saturating_add(self.timeouts.syn.min(self.timeouts.other));
        let flow = self
            .flows
            .insert_with(between, payloads, translations.map(Translation::words), look)?;
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
        affinity::expire(&mut self.affinities, now, records);
        fragment_ports::expire(&mut self.fragments, now, records);
        self.flows.quiesce();
        self.affinities.quiesce();
        self.fragments.quiesce();
        self.stats.flows_expired.add(ended as u64);
    }
}

/// Copies the connection that packets with this tuple belong to from workers that go on meanwhile. Whether there is one.
pub(crate) fn copy(to: &mut FlowHandle, live: &FlowTable, tuple: &Tuple) -> bool {
    let Some(flow) = live.find(live.hash(tuple), tuple) else {
        return false;
    };
    let forward = if flow.is_forward() { flow } else { flow.other() };
    let (Some(there), Some(back)) = (live.half(forward), live.half(forward.other())) else {
        return false;
    };
    let words = |half: &Half<'_>| [half.word::<0>(), half.word::<1>(), half.word::<2>()];
    let (tuples, payloads) = ([there.tuple(), back.tuple()], [words(&there), words(&back)]);
    let spare = |half: &Half<'_>| [half.spare::<0>(), half.spare::<1>(), half.spare::<2>()];
    let spares = [spare(&there), spare(&back)];
    // A record may become another connection's while it is read.
    live.find(live.hash(tuple), tuple) == Some(flow)
        && tuples.contains(tuple)
        && !matches!(
            to.insert_with([&tuples[0], &tuples[1]], payloads, spares, u32::MAX),
            Err(FlowError::Full)
        )
}
