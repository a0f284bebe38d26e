//! Fragments of packets that belong to connections (specification, 1.2 step 9 a, 2.10), in any order.

use octoplane_engine::Direction;
use octoplane_packet::HeapPool;
use octoplane_tables::model::{
    self, BackendState, Change, FrontendType, Policy, PolicyEntry, PolicyKey, PolicyValue, Protocol, Service,
    ServiceBackend, ServiceFrontend,
};

use crate::common::bytes::{be16, internet_checksum, ip, put16};
use crate::common::flows::{end, ends, packet};
use crate::common::*;

const SECOND_PART: usize = 16;

/// Cuts a frame in two: the first has [`SECOND_PART`] bytes of the upper layer.
fn cut(frame: &[u8], id: u16) -> [Vec<u8>; 2] {
    let v6 = frame[12..14] == [0x86, 0xdd];
    let header = if v6 { 54 } else { 34 };
    let mut parts = [
        [&frame[..header], &frame[header..header + SECOND_PART]].concat(),
        [&frame[..header], &frame[header + SECOND_PART..]].concat(),
    ];
    for (index, part) in parts.iter_mut().enumerate() {
        let offset = (index * SECOND_PART / 8) as u16;
        let more = index == 0;
        if v6 {
            let mut extension = vec![frame[20], 0, 0, 0, 0xab, 0xcd];
            put16(&mut extension, 2, offset << 3 | u16::from(more));
            extension.extend(id.to_be_bytes());
            part.splice(54..54, extension);
            part[20] = 44;
            let len = part.len() as u16 - 54;
            put16(part, 18, len);
        } else {
            let len = part.len() as u16 - 14;
            put16(part, 16, len);
            put16(part, 18, id);
            put16(part, 20, offset | u16::from(more) << 13);
            put16(part, 24, 0);
            let sum = internet_checksum(&part[14..34]);
            put16(part, 24, sum);
        }
    }
    parts
}

/// Puts two fragments together; their addresses must be the same.
fn join(first: &[u8], second: &[u8]) -> Vec<u8> {
    let v6 = first[12..14] == [0x86, 0xdd];
    if v6 {
        assert_eq!(first[22..54], second[22..54], "addresses");
        let mut whole = [&first[..54], &first[62..], &second[62..]].concat();
        whole[20] = first[54];
        let len = whole.len() as u16 - 54;
        put16(&mut whole, 18, len);
        whole
    } else {
        assert_eq!(internet_checksum(&second[14..34]), 0);
        assert_eq!(first[26..34], second[26..34], "addresses");
        let mut whole = [first, &second[34..]].concat();
        let len = whole.len() as u16 - 14;
        put16(&mut whole, 16, len);
        put16(&mut whole, 20, 0);
        put16(&mut whole, 24, 0);
        let sum = internet_checksum(&whole[14..34]);
        put16(&mut whole, 24, sum);
        whole
    }
}

fn service() -> Change {
    let mut service = Service::new("ns/svc:p", Protocol::Udp);
    for (vip, backend) in [("10.96.0.10", "10.0.0.2"), ("fd96::10", "fd00::2")] {
        service.frontends.push(ServiceFrontend {
            addr: ip(vip),
            port: 53,
            kind: FrontendType::ClusterIp,
        });
        service.backends.push(ServiceBackend {
            addr: ip(backend),
            port: 5353,
            weight: 1,
            state: BackendState::Active,
            local: true,
        });
    }
    Change::PutService(Box::new(service))
}

fn with_service() -> Lab<HeapPool> {
    let mut lab = lab();
    lab.apply(vec![service()]);
    lab
}

const PAIRS: [(&str, &str, &str); 2] = [
    ("10.0.0.1", "10.96.0.10", "10.0.0.2"),
    ("fd00::1", "fd96::10", "fd00::2"),
];

fn there(client: &str, vip: &str) -> Vec<u8> {
    packet(17, (client, 4000), (vip, 53), 0, (OURS[0], EP1))
}

#[test]
fn fragments_of_a_packet_to_a_service_go_to_one_backend() {
    for (client, vip, backend) in PAIRS {
        let mut lab = with_service();
        let [first, second] = cut(&there(client, vip), 7);
        let (first, second) = (lab.one(POD0, &first), lab.one(POD0, &second));
        assert_eq!((first.only().0, second.only().0), (POD1, POD1));
        let whole = join(first.only().1, second.only().1);
        assert_eq!(ends(&whole), (end(client, 4000), end(backend, 5353)));
        assert_eq!(lab.flows.len(), 1);
    }
}

#[test]
fn they_do_so_without_a_route_to_the_service() {
    let mut lab = Plan {
        default_routes: false,
        ..Plan::default()
    }
    .lab();
    lab.apply(vec![service()]);
    for (client, vip, backend) in PAIRS {
        let [first, second] = cut(&there(client, vip), 7);
        let (first, second) = (lab.one(POD0, &first), lab.one(POD0, &second));
        let whole = join(first.only().1, second.only().1);
        assert_eq!(ends(&whole), (end(client, 4000), end(backend, 5353)));
    }
}

#[test]
fn one_that_comes_before_the_first_waits_for_it() {
    for (client, vip, backend) in PAIRS {
        let mut lab = with_service();
        let [first, second] = cut(&there(client, vip), 7);
        assert!(lab.one(POD0, &second).sent.is_empty());
        let outcome = lab.one(POD0, &first);
        let mut sent: Vec<_> = outcome.sent.clone();
        sent.extend(lab.tick(2_000_000).sent);
        assert_eq!(sent.len(), 2);
        let whole = join(&sent[0].1, &sent[1].1);
        assert_eq!(ends(&whole), (end(client, 4000), end(backend, 5353)));
    }
}

/// 2.10: 175 if the first one does not come.
#[test]
fn one_without_a_first_is_dropped_in_the_end() {
    let mut lab = with_service();
    let [_, second] = cut(&there("10.0.0.1", "10.96.0.10"), 7);
    assert!(lab.one(POD0, &second).sent.is_empty());
    let outcome = lab.tick(10 * SECOND);
    assert!(outcome.sent.is_empty());
    assert_eq!(outcome.drops, vec![(175, Direction::Egress, 1)]);
}

/// Not more than a few wait: who floods us with them does not take the room of others.
#[test]
fn only_so_many_wait() {
    let mut lab = with_service();
    let mut dropped = 0;
    for id in 0..100 {
        let [_, second] = cut(&there("10.0.0.1", "10.96.0.10"), id);
        dropped += lab.one(POD0, &second).drops.len();
    }
    assert_eq!(dropped, 100 - 64);
}

/// 2.10: there is room for 8,192 packets. Who sends more of them does not shut out others: what was seen first goes first.
#[test]
fn who_sends_many_does_not_shut_out_others() {
    const ROOM: u16 = 8192;
    let mut lab = with_service();
    let flood = |lab: &mut Lab<HeapPool>, ids: std::ops::Range<u16>| {
        for id in ids {
            let whole = packet(17, ("10.0.0.1", 4000), ("10.0.0.2", 53), 0, (OURS[0], EP1));
            let [first, _] = cut(&whole, id);
            lab.one(POD0, &first).only();
            if id % 32 == 0 {
                lab.tick(0);
            }
        }
    };
    let second_is_sent = |lab: &mut Lab<HeapPool>, id| {
        let [_, second] = cut(&there("10.0.0.1", "10.96.0.10"), id);
        assert_eq!(lab.one(POD0, &second).only().0, POD1);
    };
    let first_comes = |lab: &mut Lab<HeapPool>, id| {
        let [first, _] = cut(&there("10.0.0.1", "10.96.0.10"), id);
        lab.one(POD0, &first).only();
    };
    // All at one time.
    flood(&mut lab, 0..2 * ROOM);
    first_comes(&mut lab, 7);
    second_is_sent(&mut lab, 7);
    // And when others come between the fragments.
    for (id, more) in (100..120).zip(2 * ROOM / 500..) {
        lab.tick(1_000_000);
        first_comes(&mut lab, id);
        lab.tick(1_000_000);
        flood(&mut lab, more * 500..(more + 1) * 500);
        second_is_sent(&mut lab, id);
    }
}

/// Another packet's fragments, with an identification or addresses of their own, are not mixed up with it.
#[test]
fn packets_are_told_apart() {
    let mut lab = with_service();
    let [first, _] = cut(&there("10.0.0.1", "10.96.0.10"), 7);
    let [_, other] = cut(&there("10.0.0.1", "10.96.0.10"), 8);
    lab.one(POD0, &first).only();
    assert!(lab.one(POD0, &other).sent.is_empty());
}

/// Policy is asked about the packet's port, for each of its fragments.
#[test]
fn policy_sees_the_port_of_every_fragment() {
    let mut lab = lab();
    let entry = PolicyEntry {
        key: PolicyKey {
            direction: model::Direction::Egress,
            identity: 0,
            protocol: 17,
            port: 53,
            port_prefix_len: 16,
        },
        value: PolicyValue {
            precedence: 0xffff_ff01,
            ..PolicyValue::default()
        },
    };
    lab.apply(vec![Change::PutPolicy(Policy {
        endpoint: 1,
        enforce_ingress: false,
        enforce_egress: true,
        audit: false,
        entries: vec![entry],
    })]);
    for (port, passes) in [(53, true), (54, false)] {
        let whole = packet(17, ("10.0.0.1", 4000), ("10.0.0.2", port), 0, (OURS[0], EP1));
        let [first, second] = cut(&whole, port);
        for part in [&first, &second] {
            let outcome = lab.one(POD0, part);
            match passes {
                true => {
                    assert_eq!(outcome.only().0, POD1);
                    assert_eq!(be16(outcome.only().1, 18), port);
                }
                false => assert_eq!(outcome.drops, vec![(133, Direction::Egress, 1)]),
            }
        }
    }
}

/// A fragment that overtook the first one stays behind it when both wait for a neighbour: who comes next may have no patience
/// (2.10).
#[test]
fn what_waited_for_the_first_one_leaves_behind_it() {
    let mut lab = lab();
    let whole = packet(17, ("10.0.0.1", 4000), ("192.0.2.9", 53), 0, (OURS[0], EP1));
    let [first, second] = cut(&whole, 7);
    assert!(lab.one(POD0, &second).sent.is_empty());
    assert!(lab.one(POD0, &first).sent.is_empty());
    assert!(lab.tick(2_000_000).sent.is_empty());
    lab.apply(vec![neighbour("192.0.2.9", Some([2, 0, 0, 0, 1, 9]))]);
    let sent = lab.tick(2_000_000).sent;
    assert_eq!(sent.len(), 2);
    assert_eq!(
        ends(&join(&sent[0].1, &sent[1].1)),
        (end("10.0.0.1", 4000), end("192.0.2.9", 53))
    );
}

/// The same when its port has gone down meanwhile: it waited in vain before.
#[test]
fn one_without_a_first_is_dropped_in_the_end_whatever_its_port_does() {
    let mut lab = with_service();
    let [_, second] = cut(&there("10.0.0.1", "10.96.0.10"), 7);
    assert!(lab.one(POD0, &second).sent.is_empty());
    lab.apply(vec![admin(POD0, false)]);
    let outcome = lab.tick(10 * SECOND);
    assert_eq!(outcome.drops, vec![(175, Direction::Egress, 1)]);
}

/// RFC 8200, section 4.5: a fragment header has eight bytes; what stands behind the packet is not its identification.
#[test]
fn a_fragment_header_that_is_cut_off() {
    for kept in 1..8 {
        let mut lab = with_service();
        let [_, mut second] = cut(&there("fd00::1", "fd00::2"), 7);
        put16(&mut second, 18, kept);
        assert_eq!(lab.one(POD0, &second).drops, vec![(156, Direction::Egress, 1)]);
    }
}
