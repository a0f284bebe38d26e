//! Connections: what belongs to one, and how long it is remembered (specification, 2.3).

use octoplane_packet::HeapPool;

use crate::common::bytes::{ip4, ip6};
use crate::common::*;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A TCP header without data, from 4000 to 80 or back.
fn tcp(forward: bool, flags: u8) -> Vec<u8> {
    let (from, to) = if forward { (4000_u16, 80_u16) } else { (80, 4000) };
    let mut header = vec![0; 20];
    header[..2].copy_from_slice(&from.to_be_bytes());
    header[2..4].copy_from_slice(&to.to_be_bytes());
    (header[12], header[13]) = (0x50, flags);
    header
}

/// A segment from endpoint 1 to endpoint 2, or back; the connection must carry it.
fn segment(lab: &mut Lab<HeapPool>, v6: bool, forward: bool, flags: u8) {
    let (port, ours, mac) = if forward {
        (POD0, OURS[0], EP1)
    } else {
        (POD1, OURS[1], EP2)
    };
    let frame = match (v6, forward) {
        (false, true) => ip4("10.0.0.1", "10.0.0.2")
            .payload(6, tcp(true, flags))
            .frame(ours, mac),
        (false, false) => ip4("10.0.0.2", "10.0.0.1")
            .payload(6, tcp(false, flags))
            .frame(ours, mac),
        (true, true) => ip6("fd00::1", "fd00::2")
            .payload(6, tcp(true, flags))
            .frame(ours, mac),
        (true, false) => ip6("fd00::2", "fd00::1")
            .payload(6, tcp(false, flags))
            .frame(ours, mac),
    };
    let outcome = lab.one(port, &frame);
    assert_eq!((outcome.sent.len(), outcome.drop_count()), (1, 0));
}

/// Connections left `seconds` later, after a look at all of them.
fn left(lab: &mut Lab<HeapPool>, seconds: u64) -> u32 {
    lab.now += seconds * SECOND;
    let now = lab.now;
    lab.engine.expire(now, 1024);
    lab.flows.len()
}

#[test]
fn both_directions_are_one_connection() {
    for v6 in [false, true] {
        let mut lab = lab();
        for (forward, flags) in [(true, SYN), (false, SYN | ACK), (true, ACK), (false, ACK)] {
            segment(&mut lab, v6, forward, flags);
            assert_eq!(lab.flows.len(), 1);
        }
    }
}

#[test]
fn an_echo_reply_belongs_to_its_request() {
    let mut lab = lab();
    let echo = |kind, id: u8| vec![kind, 0, 0, 0, 0, id, 0, 1];
    let there = |id| {
        ip4("10.0.0.1", "10.0.0.2")
            .payload(1, echo(8, id))
            .frame(OURS[0], EP1)
    };
    let back = |id| {
        ip4("10.0.0.2", "10.0.0.1")
            .payload(1, echo(0, id))
            .frame(OURS[1], EP2)
    };
    lab.one(POD0, &there(7));
    lab.one(POD1, &back(7));
    assert_eq!(lab.flows.len(), 1);
    lab.one(POD0, &there(8));
    assert_eq!(lab.flows.len(), 2);
    // The same in the other family.
    let echo = |kind, id: u8| vec![kind, 0, 0, 0, 0, id, 0, 1];
    lab.one(
        POD0,
        &ip6("fd00::1", "fd00::2")
            .payload(58, echo(128, 7))
            .frame(OURS[0], EP1),
    );
    lab.one(
        POD1,
        &ip6("fd00::2", "fd00::1")
            .payload(58, echo(129, 7))
            .frame(OURS[1], EP2),
    );
    assert_eq!(lab.flows.len(), 3);
}

#[test]
fn tcp_without_an_answer_is_forgotten_after_a_minute() {
    let mut lab = lab();
    segment(&mut lab, false, true, SYN);
    assert_eq!((left(&mut lab, 59), left(&mut lab, 2)), (1, 0));
}

#[test]
fn the_first_packet_counts_as_a_syn_whatever_it_is() {
    for flags in [ACK, FIN | ACK, RST, SYN | ACK] {
        let mut lab = lab();
        segment(&mut lab, false, true, flags);
        assert_eq!((left(&mut lab, 59), left(&mut lab, 2)), (1, 0), "{flags}");
    }
    // The second does not.
    let mut lab = lab();
    segment(&mut lab, false, true, ACK);
    segment(&mut lab, false, true, ACK);
    assert_eq!(left(&mut lab, 7999), 1);
}

#[test]
fn established_tcp_is_remembered_for_8000_seconds_after_its_last_packet() {
    for v6 in [false, true] {
        let mut lab = lab();
        segment(&mut lab, v6, true, SYN);
        segment(&mut lab, v6, false, SYN | ACK);
        segment(&mut lab, v6, true, ACK);
        assert_eq!(left(&mut lab, 7990), 1);
        // Either direction keeps it.
        segment(&mut lab, v6, false, ACK);
        assert_eq!((left(&mut lab, 7999), left(&mut lab, 2)), (1, 0));
    }
}

#[test]
fn closed_tcp_is_forgotten_after_ten_seconds() {
    let mut lab = lab();
    for (forward, flags) in [(true, SYN), (false, SYN | ACK), (true, ACK), (true, FIN | ACK)] {
        segment(&mut lab, false, forward, flags);
    }
    // Half closed is established.
    assert_eq!(left(&mut lab, 100), 1);
    segment(&mut lab, false, false, FIN | ACK);
    assert_eq!(left(&mut lab, 5), 1);
    // Nothing prolongs it now.
    segment(&mut lab, false, true, ACK);
    assert_eq!(left(&mut lab, 6), 0);
}

#[test]
fn a_reset_before_an_answer_closes_at_once() {
    let mut lab = lab();
    segment(&mut lab, false, true, SYN);
    segment(&mut lab, false, false, RST | ACK);
    assert_eq!((left(&mut lab, 9), left(&mut lab, 2)), (1, 0));
}

#[test]
fn a_syn_on_a_closing_connection_begins_a_new_one() {
    let mut lab = lab();
    for (forward, flags) in [
        (true, SYN),
        (false, SYN | ACK),
        (true, FIN | ACK),
        (false, FIN | ACK),
    ] {
        segment(&mut lab, false, forward, flags);
    }
    segment(&mut lab, false, true, SYN);
    assert_eq!(
        (left(&mut lab, 30), lab.engine.stats().flows_created.get()),
        (1, 2)
    );
    assert_eq!(left(&mut lab, 31), 0);
}

#[test]
fn other_protocols_are_remembered_for_a_minute() {
    for protocol in [17, 132, 253] {
        let mut lab = lab();
        let frame = ip4("10.0.0.1", "10.0.0.2")
            .payload(protocol, vec![0; 20])
            .frame(OURS[0], EP1);
        lab.one(POD0, &frame);
        assert_eq!(left(&mut lab, 59), 1);
        lab.one(POD0, &frame);
        assert_eq!((left(&mut lab, 59), left(&mut lab, 2)), (1, 0));
    }
}

/// Nothing is forgotten to make room.
#[test]
fn a_full_table_refuses_new_connections_and_keeps_the_old() {
    let mut lab = lab();
    let ports = |sport: u16| [&sport.to_be_bytes()[..], &[0, 80, 0, 8, 0, 0]].concat();
    let frame = |sport| {
        ip4("10.0.0.1", "10.0.0.2")
            .payload(17, ports(sport))
            .frame(OURS[0], EP1)
    };
    for sport in 0..1024 {
        assert_eq!(lab.one(POD0, &frame(sport)).sent.len(), 1);
    }
    assert_eq!(lab.one(POD0, &frame(2000)).dropped(), 155);
    assert!((0..1024).all(|sport| lab.one(POD0, &frame(sport)).fast == 1));
    assert_eq!(left(&mut lab, 61), 0);
    assert_eq!(lab.one(POD0, &frame(2000)).sent.len(), 1);
}

#[test]
fn headers_that_are_cut_off_are_dropped() {
    let mut lab = lab();
    for (protocol, least) in [(6, 20), (17, 8), (132, 12), (1, 8)] {
        let frame = |size| {
            ip4("10.0.0.1", "10.0.0.2")
                .payload(protocol, vec![0; size])
                .frame(OURS[0], EP1)
        };
        assert_eq!(lab.one(POD0, &frame(least - 1)).dropped(), 135, "{protocol}");
        assert_eq!(lab.one(POD0, &frame(least)).sent.len(), 1, "{protocol}");
    }
    // A chain of extension headers that leads out of the packet, and one too long to follow.
    let frame = ip6("fd00::1", "fd00::2")
        .payload(60, vec![6, 200, 0, 0, 0, 0, 0, 0])
        .frame(OURS[0], EP1);
    assert_eq!(lab.one(POD0, &frame).dropped(), 156);
    let frame = ip6("fd00::1", "fd00::2")
        .payload(60, [60, 0, 0, 0, 0, 0, 0, 0].repeat(20))
        .frame(OURS[0], EP1);
    assert_eq!(lab.one(POD0, &frame).dropped(), 156);
}

/// What was decided by tables that are gone is decided again.
#[test]
fn a_connection_follows_the_tables() {
    let mut lab = lab();
    segment(&mut lab, false, true, SYN);
    segment(&mut lab, false, false, SYN | ACK);
    lab.store
        .apply(vec![octoplane_tables::model::Change::RemoveEndpoint { id: 2 }])
        .unwrap();
    let frame = ip4("10.0.0.1", "10.0.0.2")
        .payload(6, tcp(true, ACK))
        .frame(OURS[0], EP1);
    let outcome = lab.one(POD0, &frame);
    assert!(outcome.sent.iter().all(|(port, _)| *port != POD1));
}
