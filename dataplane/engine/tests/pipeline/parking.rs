//! Packets that wait for a neighbour's Ethernet address.

use octoplane_engine::{EngineConfig, NeighbourEvent};
use octoplane_tables::model::Change;

use crate::common::bytes::{Ip4, Mac, ip, ip4, ip6};
use crate::common::*;
use crate::mtu::{error4, error6};

const STATION: Mac = [2, 0, 0, 0, 1, 9];

fn wanted(addr: &str) -> NeighbourEvent {
    NeighbourEvent::Wanted {
        port: UPLINK,
        addr: ip(addr),
    }
}

fn numbered(id: u16, dst: &str) -> Vec<u8> {
    Ip4 {
        id,
        ..ip4("10.0.0.1", dst)
    }
    .frame(OURS[0], EP1)
}

/// However many waited, no output queue overflows: the rest goes when it was emptied.
#[test]
fn many_that_waited_leave_in_portions() {
    let mut lab = Plan {
        default_routes: false,
        ..Plan::default()
    }
    .lab();
    // Four neighbours on the link, as many packets for each as may wait.
    let frames: Vec<Vec<u8>> = (0..256_u16)
        .map(|at| {
            Ip4 {
                id: at,
                ..ip4(
                    "10.0.0.1",
                    ["192.0.2.20", "192.0.2.21", "192.0.2.22", "192.0.2.23"][usize::from(at) % 4],
                )
            }
            .frame(OURS[0], EP1)
        })
        .collect();
    let mut waiting = 0;
    for burst in frames.chunks(64) {
        waiting += lab.burst(POD0, burst).parked;
    }
    let parked = lab.engine.stats().parked.get();
    assert!(waiting > 0 && parked > 0);
    lab.apply(
        ["192.0.2.20", "192.0.2.21", "192.0.2.22", "192.0.2.23"]
            .map(|addr| neighbour(addr, Some(ROUTER)))
            .to_vec(),
    );
    let mut sent = Vec::new();
    for _ in 0..8 {
        let outcome = lab.tick(1);
        assert_eq!(outcome.drop_count(), 0);
        assert!(outcome.sent.len() <= 256);
        sent.extend(
            outcome
                .sent
                .into_iter()
                .map(|(_, frame)| (frame[33], u16::from_be_bytes([frame[18], frame[19]]))),
        );
    }
    assert_eq!((sent.len() as u64, lab.engine.stats().parked.get()), (parked, 0));
    for last in 20..24 {
        let ids: Vec<u16> = sent
            .iter()
            .filter(|sent| sent.0 == last)
            .map(|sent| sent.1)
            .collect();
        assert!(ids.is_sorted(), "{ids:?}");
    }
}

#[test]
fn packets_wait_and_leave_in_order() {
    let mut lab = lab();
    let frames: Vec<_> = (0..5).map(|id| numbered(id, "192.0.2.9")).collect();
    let outcome = lab.one(POD0, &frames[0]);
    assert_eq!((outcome.parked, outcome.sent.len(), outcome.freed), (1, 0, 0));
    assert_eq!(outcome.events, [wanted("192.0.2.9")]);
    lab.apply(vec![neighbour("192.0.2.10", Some(STATION))]);
    lab.tick(1);
    assert_eq!(lab.tick(1).events, [], "no change, no question");
    let outcome = lab.burst(POD0, &frames[1..]);
    assert_eq!((outcome.parked, outcome.drop_count()), (5, 0));
    assert_eq!(outcome.events, [], "one question is enough");
    // Asked for, not yet answered.
    lab.apply(vec![neighbour("192.0.2.9", None)]);
    let outcome = lab.tick(SECOND / 10);
    assert_eq!((outcome.parked, outcome.sent.len()), (5, 0));
    lab.apply(vec![neighbour("192.0.2.9", Some(STATION))]);
    let outcome = lab.tick(SECOND / 10);
    let want: Vec<_> = frames
        .iter()
        .map(|frame| (UPLINK, forwarded(frame, STATION, OURS[2])))
        .collect();
    assert_eq!(outcome.sent, want);
    assert_eq!((outcome.parked, outcome.freed), (0, 0));
    // And from now on nothing waits.
    lab.one(POD0, &frames[0]).only();
}

/// What comes after the neighbour is known does not overtake what waited for it.
#[test]
fn those_who_wait_go_first() {
    let mut lab = lab();
    let frames: Vec<_> = (0..4).map(|id| numbered(id, "192.0.2.9")).collect();
    lab.burst(POD0, &frames[..2]);
    lab.apply(vec![neighbour("192.0.2.9", Some(STATION))]);
    let mut sent = lab.burst(POD0, &frames[2..]).sent;
    sent.extend(lab.tick(1).sent);
    let want: Vec<_> = frames
        .iter()
        .map(|frame| (UPLINK, forwarded(frame, STATION, OURS[2])))
        .collect();
    assert_eq!(sent, want);
}

#[test]
fn ipv6_too_and_through_gateways() {
    let mut lab = lab();
    lab.apply(vec![
        route("2001:db8:9::/48", via("fe80::9"), None),
        route("198.51.100.0/24", via("192.0.2.9"), None),
    ]);
    let on_link = ip6("fd00::1", "2001:db8::77").frame(OURS[0], EP1);
    let behind = ip6("fd00::1", "2001:db8:9::1").frame(OURS[0], EP1);
    let behind4 = numbered(1, "198.51.100.7");
    assert_eq!(lab.one(POD0, &on_link).events, [wanted("2001:db8::77")]);
    assert_eq!(lab.one(POD0, &behind).events, [wanted("fe80::9")]);
    assert_eq!(lab.one(POD0, &behind4).events, [wanted("192.0.2.9")]);
    // Each leaves when its own neighbour is there.
    for (addr, frame, left) in [
        ("fe80::9", behind, 2),
        ("192.0.2.9", behind4, 1),
        ("2001:db8::77", on_link, 0),
    ] {
        lab.apply(vec![neighbour(addr, Some(STATION))]);
        let outcome = lab.tick(1);
        assert_eq!(outcome.sent, [(UPLINK, forwarded(&frame, STATION, OURS[2]))]);
        assert_eq!(outcome.parked, left);
    }
}

#[test]
fn who_waits_too_long_is_told() {
    let mut lab = lab();
    let v4 = numbered(1, "192.0.2.9");
    let v6 = ip6("fd00::1", "2001:db8::77").frame(OURS[0], EP1);
    lab.burst(POD0, &[&v4, &v6]);
    let outcome = lab.tick(3 * SECOND - 1);
    assert_eq!((outcome.parked, outcome.sent.len()), (2, 0));
    let outcome = lab.tick(1);
    assert_eq!((outcome.parked, outcome.freed, outcome.sent.len()), (0, 2, 2));
    assert_eq!(outcome.drops, [(169, octoplane_engine::Direction::Egress, 2)]);
    // RFC 1812, section 5.2.7.1: host unreachable. RFC 4443, section 3.1: address unreachable.
    let error = error4(&outcome.sent[0].1, EP1, OURS[0], GATEWAY4, "10.0.0.1");
    assert_eq!((error.0, error.1, error.2, error.3), (3, 1, 0, &v4[14..]));
    let error = error6(&outcome.sent[1].1, EP1, OURS[0], GATEWAY6, "fd00::1");
    assert_eq!((error.0, error.1, error.2, error.3), (1, 3, 0, &v6[14..]));
}

#[test]
fn each_packet_has_its_own_time() {
    let mut lab = lab();
    for id in 0..3 {
        lab.one(POD0, &numbered(id, "192.0.2.9"));
        lab.now += SECOND;
    }
    // Tables that change do not make them younger.
    lab.apply(vec![neighbour("192.0.2.9", None)]);
    for left in [2, 1, 0] {
        assert_eq!(lab.tick(0).parked, left);
        lab.now += SECOND;
    }
}

#[test]
fn one_neighbour_cannot_take_all_the_room() {
    let mut lab = lab();
    let frames: Vec<_> = (0..40).map(|id| numbered(id, "192.0.2.9")).collect();
    let outcome = lab.burst(POD0, &frames);
    let kept = outcome.parked;
    assert!((1..40).contains(&kept), "{kept}");
    assert_eq!(
        outcome.drops,
        [(1003, octoplane_engine::Direction::Egress, 40 - kept)]
    );
    assert_eq!(outcome.freed, 40 - kept);
    let outcome = lab.one(POD0, &numbered(99, "192.0.2.10"));
    assert_eq!((outcome.parked, outcome.drop_count()), (kept + 1, 0));
    // Changes elsewhere neither lose nor reorder them.
    lab.apply(vec![neighbour("192.0.2.11", Some(STATION))]);
    assert_eq!(lab.tick(1).parked, kept + 1);
    lab.apply(vec![neighbour("192.0.2.9", Some(STATION))]);
    let sent = lab.tick(1).sent;
    assert_eq!(sent.len() as u64, kept);
    for (at, (_, frame)) in sent.iter().enumerate() {
        assert_eq!(*frame, forwarded(&frames[at], STATION, OURS[2]));
    }
}

#[test]
fn the_room_is_limited() {
    let mut lab = Plan {
        config: EngineConfig {
            max_parked: 10,
            ..EngineConfig::default()
        },
        ..Plan::default()
    }
    .lab();
    let frames: Vec<_> = (0..20)
        .map(|id| numbered(id, &format!("192.0.2.{}", id + 10)))
        .collect();
    let outcome = lab.burst(POD0, &frames);
    assert_eq!((outcome.parked, outcome.freed), (10, 10));
    assert_eq!(outcome.drops, [(1003, octoplane_engine::Direction::Egress, 10)]);
    let outcome = lab.tick(3 * SECOND);
    assert_eq!((outcome.parked, outcome.freed), (0, 10));
    assert_eq!(lab.one(POD0, &frames[0]).parked, 1);
}

#[test]
fn routes_may_change_while_packets_wait() {
    let mut lab = lab();
    lab.apply(vec![route("198.51.100.0/24", via("192.0.2.9"), None)]);
    let frame = numbered(1, "198.51.100.7");
    assert_eq!(lab.one(POD0, &frame).parked, 1);
    // To another gateway, unknown as well: it is asked for.
    lab.apply(vec![route("198.51.100.0/24", via("192.0.2.10"), None)]);
    let outcome = lab.tick(1);
    assert_eq!((outcome.parked, outcome.events), (1, vec![wanted("192.0.2.10")]));
    lab.apply(vec![Change::RemoveRoute {
        prefix: "198.51.100.0/24".parse().unwrap(),
    }]);
    let outcome = lab.tick(1);
    assert_eq!(outcome.sent, [(UPLINK, forwarded(&frame, ROUTER, OURS[2]))]);
}

#[test]
fn endpoints_may_go_while_packets_wait() {
    let mut lab = lab();
    lab.one(POD0, &numbered(1, "192.0.2.9"));
    lab.apply(vec![Change::RemoveEndpoint { id: 1 }]);
    let outcome = lab.tick(1);
    assert_eq!((outcome.parked, outcome.dropped()), (0, 132));
}

/// Nothing is sent to a port that is down, errors neither.
#[test]
fn ports_may_go_down_while_packets_wait() {
    let mut lab = lab();
    lab.one(POD0, &numbered(1, "192.0.2.9"));
    lab.apply(vec![admin(UPLINK, false)]);
    assert_eq!(lab.tick(1).dropped(), 206);
    lab.apply(vec![admin(UPLINK, true)]);
    lab.one(POD0, &numbered(1, "192.0.2.9"));
    lab.apply(vec![admin(POD0, false)]);
    lab.tick(1);
    let outcome = lab.tick(3 * SECOND);
    assert!(outcome.sent.is_empty(), "{outcome:?}");
    assert_eq!(outcome.parked, 0);
}

#[test]
fn too_large_or_too_old_does_not_wait() {
    let mut lab = Plan {
        mtu: [9000, 1500, 1500, 1500],
        ..Plan::default()
    }
    .lab();
    for (packet, code) in [
        (ip4("10.0.0.1", "192.0.2.9").ttl(1), 196),
        (ip4("10.0.0.1", "192.0.2.9").size(1501), 136),
    ] {
        let outcome = lab.one(POD0, &packet.frame(OURS[0], EP1));
        assert_eq!((outcome.parked, outcome.dropped_and_sent().0), (0, code));
        assert_eq!(outcome.events, []);
    }
}

#[test]
fn clearing_frees_what_waits() {
    let mut lab = lab();
    lab.one(POD0, &numbered(1, "192.0.2.9"));
    lab.engine.clear();
    let outcome = lab.tick(10 * SECOND);
    assert_eq!((outcome.parked, outcome.sent.len(), outcome.freed), (0, 0, 0));
}
