//! No packet is lost or doubled, whatever comes in; and nothing panics.

use octoplane_packet::HeapPool;
use octoplane_tables::model::PortId;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::common::bytes::{
    BROADCAST, advertisement, arp, ethernet, icmp4, ip4, ip6, lla, solicitation, solicited_node, tagged,
};
use crate::common::*;

/// One good frame of each kind.
fn seeds() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for (ours, mac, v4, v6) in [
        (OURS[0], EP1, "10.0.0.1", "fd00::1"),
        (OURS[1], EP2, "10.0.0.2", "fd00::2"),
        (OURS[2], ROUTER, "198.51.100.7", "2001:db8:7::7"),
        (OURS[3], KERNEL, OWN4, OWN6),
    ] {
        for dst in [
            "10.0.0.1",
            "10.0.0.3",
            "10.9.0.1",
            GATEWAY4,
            OWN4,
            "192.0.2.9",
            "8.8.8.8",
            "224.0.0.1",
        ] {
            frames.push(ip4(v4, dst).frame(ours, mac));
            frames.push(ip4(v4, dst).ttl(1).frame(ours, mac));
            frames.push(ip4(v4, dst).options(&[1; 8]).frame(ours, mac));
            frames.push(ip4(v4, dst).size(2000).frame(ours, mac));
            frames.push(
                ip4(v4, dst)
                    .payload(1, icmp4(8, 0, [1; 4], &[7; 9]))
                    .frame(ours, mac),
            );
            let request = arp(1, (mac, v4), ([0; 6], dst));
            frames.push(ethernet(BROADCAST, mac, 0x0806, &request));
        }
        for dst in [
            "fd00::1",
            "fd00::3",
            "fd09::1",
            GATEWAY6,
            OWN6,
            "2001:db8::9",
            "2001:db8:8::8",
            "ff02::1",
        ] {
            frames.push(ip6(v6, dst).frame(ours, mac));
            frames.push(ip6(v6, dst).ttl(1).frame(ours, mac));
            frames.push(ip6(v6, dst).size(2000).frame(ours, mac));
            frames.push(ip6(v6, dst).icmp(128, 0, [1; 4], &[7; 9]).frame(ours, mac));
            frames.push(ip6(v6, dst).payload(44, vec![0; 24]).ttl(1).frame(ours, mac));
            frames.push(solicitation(v6, dst, &lla(1, mac)).frame(solicited_node(dst).1, mac));
            frames.push(solicitation("::", dst, &[]).frame(solicited_node(dst).1, mac));
            frames.push(advertisement(v6, dst, 0x60, v6, &lla(2, mac)).frame(ours, mac));
        }
    }
    let tags: Vec<_> = frames
        .iter()
        .step_by(5)
        .map(|frame| tagged(frame, 0x8100, 0))
        .collect();
    frames.extend(tags);
    frames
}

#[derive(Clone, Debug)]
enum Mutation {
    Set(Index, u8),
    Flip(Index, u8),
    Cut(Index),
    Grow(Vec<u8>),
    Tag(u16, u16),
}

fn mutations() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        3 => (any::<Index>(), any::<u8>()).prop_map(|(at, value)| Mutation::Set(at, value)),
        3 => (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        1 => any::<Index>().prop_map(Mutation::Cut),
        1 => prop::collection::vec(any::<u8>(), 0..100).prop_map(Mutation::Grow),
        1 => (select(vec![0x8100, 0x88a8]), select(vec![0, 0x2000, 5])).prop_map(|(a, b)| Mutation::Tag(a, b)),
    ]
}

fn mutate(mut frame: Vec<u8>, mutation: &Mutation) -> Vec<u8> {
    match mutation {
        Mutation::Tag(tpid, tci) if frame.len() >= 12 => return tagged(&frame, *tpid, *tci),
        Mutation::Grow(more) => frame.extend(more),
        _ if frame.is_empty() => {}
        // Headers are where it matters: half of all changes are to the first 64 bytes.
        Mutation::Set(at, value) => {
            let len = frame.len().min(if value % 2 == 0 { 64 } else { 4096 });
            frame[at.index(len)] = *value;
        }
        Mutation::Flip(at, bit) => {
            let len = frame.len().min(if bit % 2 == 0 { 64 } else { 4096 });
            frame[at.index(len)] ^= 1 << bit;
        }
        Mutation::Cut(at) => frame.truncate(at.index(frame.len())),
        Mutation::Tag(..) => {}
    }
    frame
}

/// Frames made of a good one, and some that are nothing but noise.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let good = seeds();
    let mutated = (select(good), prop::collection::vec(mutations(), 0..4))
        .prop_map(|(frame, mutations)| mutations.iter().fold(frame, mutate));
    let noise = prop::collection::vec(any::<u8>(), 0..120);
    let typed = (
        select(vec![0x0800u16, 0x0806, 0x86dd, 0x8100]),
        prop::collection::vec(any::<u8>(), 0..120),
        0..4usize,
    )
        .prop_map(|(ethertype, body, port)| ethernet(OURS[port], EP1, ethertype, &body));
    prop_oneof![8 => mutated, 1 => noise, 2 => typed]
}

/// One step: a burst from a port (5 does not exist), time that passes, tables that change.
#[derive(Clone, Debug)]
enum Step {
    Burst(PortId, Vec<Vec<u8>>),
    Pass(u64),
    Learn(bool),
    Admin(PortId, bool),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (select(vec![0, 0, 1, 2, 2, 3, 5]), prop::collection::vec(frames(), 0..=64))
            .prop_map(|(port, frames)| Step::Burst(port, frames)),
        2 => (0..2 * SECOND).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Learn),
        1 => (0..4u16, any::<bool>()).prop_map(|(port, up)| Step::Admin(port, up)),
    ]
}

fn run(lab: &mut Lab<HeapPool>, step: &Step, parked: u64) -> Result<u64, TestCaseError> {
    let (given, bytes, outcome) = match step {
        Step::Burst(port, frames) => {
            let bytes = frames.iter().map(|frame| frame.len() as u64).sum();
            (frames.len() as u64, bytes, lab.burst(*port, frames))
        }
        Step::Pass(time) => (0, u64::MAX, lab.tick(*time)),
        Step::Learn(known) => {
            let mac = known.then_some(ROUTER);
            lab.apply(vec![neighbour("192.0.2.9", mac), neighbour("2001:db8::9", mac)]);
            (0, u64::MAX, lab.tick(0))
        }
        Step::Admin(port, up) => {
            lab.apply(vec![admin(*port, *up)]);
            (0, u64::MAX, lab.tick(0))
        }
    };
    let sent = outcome.sent.len() as u64;
    // What came in, waited, or was made here is sent, freed, or waits: each exactly once.
    prop_assert_eq!(
        given + parked + outcome.icmp_errors,
        sent + outcome.freed + outcome.parked,
        "{:?}",
        outcome
    );
    // And what was freed was either dropped for a reason, or meant to end here.
    prop_assert_eq!(outcome.freed, outcome.drop_count() + outcome.consumed);
    prop_assert!(parked > 0 || outcome.drop_bytes <= bytes);
    prop_assert!(outcome.fast + outcome.answered + outcome.punted + outcome.icmp_errors <= sent);
    Ok(outcome.parked)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn every_packet_is_accounted_for(
        host: bool,
        default_routes: bool,
        steps in prop::collection::vec(steps(), 1..8),
    ) {
        let mut lab = Plan { host, default_routes, ..Plan::default() }.lab();
        let mut parked = 0;
        for step in &steps {
            if !host && matches!(step, Step::Admin(HOST, _)) {
                continue;
            }
            parked = run(&mut lab, step, parked)?;
        }
        run(&mut lab, &Step::Pass(60 * SECOND), parked)?;
        prop_assert_eq!(lab.engine.stats().parked.get(), 0);
    }
}

/// All seeds, each as it is, on each port.
#[test]
fn good_frames_are_accounted_for() {
    let mut lab = Plan {
        host: true,
        ..Plan::default()
    }
    .lab();
    let mut parked = 0;
    for port in 0..5 {
        for frame in seeds() {
            parked = run(&mut lab, &Step::Burst(port, vec![frame]), parked).unwrap();
        }
    }
}
