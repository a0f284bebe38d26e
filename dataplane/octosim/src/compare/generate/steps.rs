//! What happens one after the other.

use octoplane_state::State;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::packet::{Answer, PacketPlan, answer, packet_plan};
use super::tables::{Part, part, state};

/// One thing that happens.
#[derive(Debug, Clone)]
pub(crate) enum StepPlan {
    /// A part of the tables is another.
    Change(Box<Part>),
    /// Seconds pass.
    Advance(u64),
    /// A packet comes.
    Packet(Box<PacketPlan>),
    /// The two fragments of one come: which of them, in which order.
    Fragments(Box<PacketPlan>, &'static [bool]),
    /// A packet that came before comes again.
    Again(Index),
    /// One of the last frames that left is answered.
    Answer(Index, Answer),
    /// A question for an Ethernet address.
    Question(super::super::question::Question),
}

/// All of it.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Whether there is a way to the kernel.
    pub(crate) kernel: bool,
    pub(crate) seed: u64,
    pub(crate) state: State,
    pub(crate) steps: Vec<StepPlan>,
}

/// What is to be compared.
pub(crate) fn plan(steps: usize) -> impl Strategy<Value = Plan> {
    (any::<bool>(), 0u64..4).prop_flat_map(move |(kernel, seed)| {
        (state(), vec(step(kernel), 1..=steps)).prop_map(move |(state, steps)| Plan {
            kernel,
            seed,
            state,
            steps,
        })
    })
}

fn step(kernel: bool) -> impl Strategy<Value = StepPlan> {
    let orders: Vec<&'static [bool]> = vec![
        &[true, false],
        &[false, true],
        &[false],
        &[true],
        &[false, false, true],
    ];
    prop_oneof![
        2 => part().prop_map(Box::new).prop_map(StepPlan::Change),
        1 => select(vec![1u64, 5, 9, 10, 11, 59, 60, 61, 7999, 8000, 8001]).prop_map(StepPlan::Advance),
        12 => packet_plan(kernel).prop_map(Box::new).prop_map(StepPlan::Packet),
        1 => (packet_plan(kernel), select(orders)).prop_map(|(mut packet, order)| {
            packet.len = packet.len.max(40);
            StepPlan::Fragments(Box::new(packet), order)
        }),
        3 => any::<Index>().prop_map(StepPlan::Again),
        7 => (any::<Index>(), answer()).prop_map(|(which, answer)| StepPlan::Answer(which, answer)),
        1 => super::super::question::question(kernel).prop_map(StepPlan::Question),
    ]
}
