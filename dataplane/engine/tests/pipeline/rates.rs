//! How much endpoints may send and receive (specification, 2.14).

use octoplane_engine::Direction;
use octoplane_packet::HeapPool;
use octoplane_tables::model::{Change, Endpoint};

use crate::common::bytes::ip;
use crate::common::flows::packet;
use crate::common::*;

const MILLISECOND: u64 = 1_000_000;
const RATE: u64 = 1_000_000;

/// Endpoint 1 may receive and send so many bytes a second.
fn limited(ingress_rate: u64, egress_rate: u64) -> Lab<HeapPool> {
    let mut lab = lab();
    let Change::PutEndpoint(endpoint) = endpoint(1, POD0, EP1, &["10.0.0.1", "fd00::1"]) else {
        unreachable!();
    };
    lab.apply(vec![Change::PutEndpoint(Endpoint {
        ingress_rate,
        egress_rate,
        ..endpoint
    })]);
    lab
}

/// Sends twice as much as allowed for two seconds. Returns how many bytes passed, and what was dropped.
fn flood(lab: &mut Lab<HeapPool>, port: u16, frame: &[u8]) -> (u64, Vec<(u16, Direction)>) {
    let (mut passed, mut drops) = (0, Vec::new());
    let gap = 1_000_000_000 * frame.len() as u64 / (2 * RATE);
    let end = lab.now + 2_000 * MILLISECOND;
    while lab.now < end {
        lab.now += gap;
        let outcome = lab.one(port, frame);
        passed += outcome.sent.len() as u64 * frame.len() as u64;
        drops.extend(
            outcome
                .drops
                .iter()
                .map(|&(code, direction, _)| (code, direction)),
        );
    }
    drops.sort_unstable_by_key(|&(code, _)| code);
    drops.dedup();
    (passed, drops)
}

#[track_caller]
fn is_about_the_rate(passed: u64) {
    assert!((2 * RATE..=2 * RATE + RATE / 5).contains(&passed), "{passed}");
}

#[test]
fn what_an_endpoint_sends_out_of_the_node() {
    for (client, server) in [("10.0.0.1", "198.51.100.7"), ("fd00::1", "2001:db8:ffff::7")] {
        let mut lab = limited(0, RATE);
        let frame = packet(17, (client, 4000), (server, 80), 0, (OURS[0], EP1));
        let (passed, drops) = flood(&mut lab, POD0, &frame);
        is_about_the_rate(passed);
        assert_eq!(drops, vec![(162, Direction::Egress)]);
    }
}

/// 1.6: the limit is applied where packets leave the node.
#[test]
fn what_stays_here_is_not_limited_by_the_senders_rate() {
    let mut lab = limited(0, RATE);
    let frame = packet(17, ("10.0.0.1", 4000), ("10.0.0.2", 80), 0, (OURS[0], EP1));
    assert_eq!(flood(&mut lab, POD0, &frame).1, vec![]);
}

/// 1.4: the limit is applied on local delivery, whoever sends.
#[test]
fn what_an_endpoint_receives() {
    let mut lab = limited(RATE, 0);
    let frame = packet(17, ("10.0.0.2", 4000), ("10.0.0.1", 80), 0, (OURS[1], EP2));
    let (passed, drops) = flood(&mut lab, POD1, &frame);
    is_about_the_rate(passed);
    assert_eq!(drops, vec![(198, Direction::Egress)]);
    let mut lab = limited(RATE, 0);
    let frame = packet(17, ("198.51.100.7", 4000), ("10.0.0.1", 80), 0, (OURS[2], ROUTER));
    let (passed, drops) = flood(&mut lab, UPLINK, &frame);
    is_about_the_rate(passed);
    assert_eq!(drops, vec![(198, Direction::Ingress)]);
}

#[test]
fn connections_are_limited_as_soon_as_the_endpoint_is() {
    let mut lab = lab();
    let frame = packet(17, ("10.0.0.1", 4000), ("198.51.100.7", 80), 0, (OURS[0], EP1));
    assert_eq!(flood(&mut lab, POD0, &frame).1, vec![]);
    let Change::PutEndpoint(endpoint) = endpoint(1, POD0, EP1, &["10.0.0.1"]) else {
        unreachable!();
    };
    assert_eq!(endpoint.addresses, vec![ip("10.0.0.1")]);
    lab.apply(vec![Change::PutEndpoint(Endpoint {
        egress_rate: RATE,
        ..endpoint
    })]);
    let (passed, drops) = flood(&mut lab, POD0, &frame);
    is_about_the_rate(passed);
    assert_eq!(drops, vec![(162, Direction::Egress)]);
}
