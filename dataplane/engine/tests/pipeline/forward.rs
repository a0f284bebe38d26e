//! Delivery to endpoints and forwarding to neighbours.

use octoplane_tables::model::RouteTarget;

use crate::common::bytes::{BROADCAST, Ip4, ip4, ip6, tagged};
use crate::common::*;

/// No operation, end of options: four bytes that change nothing.
const OPTIONS: &[u8] = &[1, 1, 1, 0];

#[test]
fn pod_to_pod_is_delivered_by_the_fast_path() {
    let mut lab = lab();
    for frame in [
        ip4("10.0.0.1", "10.0.0.2").frame(OURS[0], EP1),
        ip6("fd00::1", "fd00::2").frame(OURS[0], EP1),
    ] {
        // The first packet decides about its connection, the next ones follow.
        for fast in [0, 1, 1] {
            let outcome = lab.one(POD0, &frame);
            assert_eq!(outcome.only(), (POD1, &*forwarded(&frame, EP2, OURS[1])));
            assert_eq!(outcome.fast, fast);
        }
    }
}

#[test]
fn ipv4_options_take_the_slow_path_to_the_same_result() {
    let mut lab = lab();
    for options in [OPTIONS, &[1; 40]] {
        let frame = ip4("10.0.0.1", "10.0.0.2").options(options).frame(OURS[0], EP1);
        let outcome = lab.one(POD0, &frame);
        assert_eq!(outcome.only(), (POD1, &*forwarded(&frame, EP2, OURS[1])));
        assert_eq!(outcome.fast, 0);
    }
}

#[test]
fn a_priority_tag_on_the_uplink_is_taken_off() {
    let mut lab = lab();
    for plain in [
        ip4("198.51.100.7", "10.0.0.1").frame(OURS[2], ROUTER),
        ip6("2001:db8:7::7", "fd00::1").frame(OURS[2], ROUTER),
    ] {
        let want = forwarded(&plain, EP1, OURS[0]);
        for fast in [0, 1] {
            let outcome = lab.one(UPLINK, &plain);
            assert_eq!(outcome.only(), (POD0, &*want));
            assert_eq!(outcome.fast, fast);
        }
        for (tpid, tci) in [(0x8100, 0), (0x8100, 0xe000), (0x88a8, 0x1000)] {
            let outcome = lab.one(UPLINK, &tagged(&plain, tpid, tci));
            assert_eq!(outcome.only(), (POD0, &*want));
            assert_eq!(outcome.fast, 0);
        }
    }
}

#[test]
fn pod_to_network_goes_to_the_next_hop() {
    let mut lab = lab();
    for frame in [
        ip4("10.0.0.1", "198.51.100.7").frame(OURS[0], EP1),
        ip6("fd00::1", "2001:db8:7::7").frame(OURS[0], EP1),
    ] {
        assert_eq!(
            lab.one(POD0, &frame).only(),
            (UPLINK, &*forwarded(&frame, ROUTER, OURS[2]))
        );
    }
}

#[test]
fn every_ttl_and_checksum_comes_out_right() {
    let mut lab = lab();
    for ttl in 2..=255 {
        for id in [0, 0x00ff, 0x8000, 0xfffe, 0xffff, u16::from(ttl) * 257] {
            let packet = Ip4 {
                id,
                ..ip4("10.0.0.1", "10.0.0.2").ttl(ttl)
            };
            for packet in [packet.clone(), packet.options(OPTIONS)] {
                let frame = packet.frame(OURS[0], EP1);
                assert_eq!(lab.one(POD0, &frame).only().1, forwarded(&frame, EP2, OURS[1]));
            }
        }
        let frame = ip6("fd00::1", "fd00::2").ttl(ttl).frame(OURS[0], EP1);
        assert_eq!(lab.one(POD0, &frame).only().1, forwarded(&frame, EP2, OURS[1]));
    }
}

#[test]
fn two_endpoints_on_one_port() {
    let mut lab = lab();
    // To each of them, and from one to the other: out where it came in.
    for (from, src, dst, mac) in [
        (POD0, "10.0.0.1", "10.0.0.2", EP2),
        (POD0, "10.0.0.1", "10.0.0.3", EP3),
        (POD1, "10.0.0.2", "10.0.0.3", EP3),
        (POD1, "10.0.0.3", "10.0.0.2", EP2),
    ] {
        let frame = ip4(src, dst).frame(OURS[usize::from(from)], EP1);
        assert_eq!(
            lab.one(from, &frame).only(),
            (POD1, &*forwarded(&frame, mac, OURS[1]))
        );
    }
    let frame = ip6("fd00::2", "fd00::3").frame(OURS[1], EP2);
    assert_eq!(
        lab.one(POD1, &frame).only(),
        (POD1, &*forwarded(&frame, EP3, OURS[1]))
    );
}

#[test]
fn an_endpoint_that_moves_is_followed_between_bursts() {
    let mut lab = lab();
    let frame = ip4("10.0.0.1", "10.0.0.2").frame(OURS[0], EP1);
    assert_eq!(lab.one(POD0, &frame).only().0, POD1);
    let mac = [2, 0, 0, 0, 0, 99];
    lab.apply(vec![endpoint(2, POD0, mac, &["10.0.0.2", "fd00::2"])]);
    assert_eq!(
        lab.one(POD0, &frame).only(),
        (POD0, &*forwarded(&frame, mac, OURS[0]))
    );
    // What it sends is taken from its new port only.
    let back = ip4("10.0.0.2", "10.0.0.1").frame(OURS[1], EP2);
    assert_eq!(lab.one(POD1, &back).dropped(), 132);
    assert_eq!(lab.one(POD0, &back).only().0, POD0);
    lab.apply(vec![octoplane_tables::model::Change::RemoveEndpoint { id: 2 }]);
    assert_eq!(lab.one(POD0, &back).dropped(), 132);
    assert_eq!(lab.one(POD0, &frame).only().0, UPLINK, "the default route");
}

#[test]
fn ports_that_are_down() {
    let mut lab = lab();
    let to_pod1 = ip4("10.0.0.1", "10.0.0.2").frame(OURS[0], EP1);
    let to_pod1_v6 = ip6("fd00::1", "fd00::2").frame(OURS[0], EP1);
    let out = ip4("10.0.0.1", "198.51.100.7").frame(OURS[0], EP1);
    lab.apply(vec![admin(POD1, false), admin(UPLINK, false)]);
    for frame in [&to_pod1, &to_pod1_v6, &out] {
        assert_eq!(lab.one(POD0, frame).dropped(), 206);
    }
    let back = ip4("10.0.0.2", "10.0.0.1").frame(OURS[1], EP2);
    assert_eq!(lab.one(POD1, &back).dropped(), 206);
    lab.apply(vec![admin(POD1, true), admin(UPLINK, true)]);
    for (port, frame) in [(POD0, &to_pod1), (POD0, &to_pod1_v6), (POD0, &out), (POD1, &back)] {
        lab.one(port, frame).only();
    }
    assert_eq!(lab.one(200, &to_pod1).dropped(), 206, "a port that is not there");
}

#[test]
fn blackhole_routes_drop() {
    let mut lab = Plan {
        host: true,
        ..Plan::default()
    }
    .lab();
    for frame in [
        ip4("10.0.0.1", "10.9.1.1").frame(OURS[0], EP1),
        ip6("fd00::1", "fd09::1").frame(OURS[0], EP1),
    ] {
        assert_eq!(lab.one(POD0, &frame).dropped(), 151);
    }
}

/// RFC 1812, sections 4.2.2.11 and 5.3.7; RFC 4291, sections 2.5.2, 2.5.3, 2.5.6, 2.7: a default route does not lead
/// to these.
#[test]
fn special_destinations_are_not_forwarded() {
    for host in [false, true] {
        let mut lab = Plan {
            host,
            ..Plan::default()
        }
        .lab();
        let v4 = [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.255.254",
            "224.0.0.1",
            "224.0.0.251",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
        ];
        let v6 = [
            "::",
            "::1",
            "fe80::1234",
            "febf::1",
            "ff02::1",
            "ff05::2",
            "ff0e::1",
        ];
        let frames = v4
            .iter()
            .flat_map(|dst| {
                let packet = ip4("10.0.0.1", dst);
                [packet.clone(), packet.options(OPTIONS)].map(|packet| packet.frame(OURS[0], EP1))
            })
            .chain(v6.iter().map(|dst| ip6("fd00::1", dst).frame(OURS[0], EP1)));
        for frame in frames {
            let outcome = lab.one(POD0, &frame);
            assert!(
                outcome.sent.iter().all(|(port, _)| *port == HOST),
                "forwarded: {outcome:?}"
            );
            assert_eq!(outcome.sent.len() as u64 + outcome.freed, 1);
        }
    }
}

/// The same sections: packets from these are not forwarded either.
#[test]
fn special_sources_are_not_forwarded() {
    for host in [false, true] {
        let mut lab = Plan {
            host,
            ..Plan::default()
        }
        .lab();
        let v4 = [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "224.0.0.1",
            "239.1.2.3",
            "240.0.0.1",
            "255.255.255.255",
        ];
        let v6 = ["::", "::1", "fe80::1234", "ff02::1", "ff0e::1"];
        let frames = v4
            .iter()
            .flat_map(|src| {
                let packet = ip4(src, "10.0.0.1");
                [packet.clone(), packet.options(OPTIONS)].map(|packet| packet.frame(OURS[2], ROUTER))
            })
            .chain(v6.iter().flat_map(|src| {
                let frame = ip6(src, "fd00::1").frame(OURS[2], ROUTER);
                [tagged(&frame, 0x8100, 0), frame]
            }));
        for frame in frames {
            let outcome = lab.one(UPLINK, &frame);
            assert!(
                outcome.sent.iter().all(|(port, _)| *port == HOST),
                "forwarded: {outcome:?}"
            );
            assert_eq!(outcome.sent.len() as u64 + outcome.freed, 1);
        }
    }
}

/// What claims to come from this very machine, or from many, is not even the kernel's.
#[test]
fn impossible_sources_are_dropped() {
    let mut lab = Plan {
        host: true,
        ..Plan::default()
    }
    .lab();
    for src in ["127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"] {
        for dst in ["10.0.0.1", OWN4, "224.0.0.1"] {
            let frame = ip4(src, dst).frame(OURS[2], ROUTER);
            assert_eq!(lab.one(UPLINK, &frame).dropped(), 134, "{src}");
        }
    }
    for src in ["::1", "ff02::1", "ff0e::1"] {
        for dst in ["fd00::1", OWN6] {
            let frame = ip6(src, dst).frame(OURS[2], ROUTER);
            assert_eq!(lab.one(UPLINK, &frame).dropped(), 134, "{src}");
        }
    }
}

/// RFC 1812, section 5.3.4.
#[test]
fn link_layer_broadcasts_are_not_forwarded() {
    let mut lab = lab();
    for mac in [BROADCAST, [0x33, 0x33, 0, 0, 0, 1], [1, 0, 0x5e, 0, 0, 1]] {
        for frame in [
            ip4("198.51.100.7", "10.0.0.1").frame(mac, ROUTER),
            ip6("2001:db8:7::7", "fd00::1").frame(mac, ROUTER),
        ] {
            assert_eq!(lab.one(UPLINK, &frame).dropped(), 151);
        }
    }
}

#[test]
fn routes_through_links_and_gateways_choose_the_longest_prefix() {
    let mut lab = lab();
    let (other, near) = ([2, 0, 0, 0, 1, 7], [2, 0, 0, 0, 1, 8]);
    lab.apply(vec![
        route("198.51.100.0/24", via("192.0.2.7"), None),
        route("203.0.113.0/24", RouteTarget::Link { port: UPLINK }, None),
        neighbour("192.0.2.7", Some(other)),
        neighbour("203.0.113.5", Some(near)),
    ]);
    for (dst, mac) in [
        ("198.51.100.9", other),
        ("198.51.101.9", ROUTER),
        ("203.0.113.5", near),
        ("192.0.2.7", other),
    ] {
        let frame = ip4("10.0.0.1", dst).frame(OURS[0], EP1);
        assert_eq!(
            lab.one(POD0, &frame).only(),
            (UPLINK, &*forwarded(&frame, mac, OURS[2])),
            "{dst}"
        );
    }
}

#[test]
fn a_mixed_burst_of_64_keeps_the_order_on_each_port() {
    let mut lab = lab();
    let frames: Vec<Vec<u8>> = (0..64u16)
        .map(|at| {
            let packet = |dst| Ip4 {
                id: at,
                ..ip4("10.0.0.1", dst)
            };
            let marked = |dst| ip6("fd00::1", dst).payload(253, at.to_be_bytes().to_vec());
            match at % 7 {
                0 | 1 => packet("10.0.0.2").frame(OURS[0], EP1),
                // Slow, to the same place.
                2 => packet("10.0.0.2").options(OPTIONS).frame(OURS[0], EP1),
                3 => marked("fd00::2").frame(OURS[0], EP1),
                4 => packet("198.51.100.7").frame(OURS[0], EP1),
                5 => packet("10.9.0.1").frame(OURS[0], EP1),
                _ => marked("2001:db8:7::7").frame(OURS[0], EP1),
            }
        })
        .collect();
    let outcome = lab.burst(POD0, &frames);
    let to = |port, mac, kinds: &[usize]| -> Vec<Vec<u8>> {
        frames
            .iter()
            .enumerate()
            .filter(|(at, _)| kinds.contains(&(at % 7)))
            .map(|(_, frame)| forwarded(frame, mac, OURS[usize::from(port)]))
            .collect()
    };
    let got = |port| -> Vec<Vec<u8>> {
        outcome
            .sent
            .iter()
            .filter(|sent| sent.0 == port)
            .map(|sent| sent.1.clone())
            .collect()
    };
    assert_eq!(got(POD1), to(POD1, EP2, &[0, 1, 2, 3]));
    assert_eq!(got(UPLINK), to(UPLINK, ROUTER, &[4, 6]));
    assert_eq!(outcome.drops, [(151, octoplane_engine::Direction::Egress, 9)]);
}

/// When a queue is full the rest is dropped and counted.
#[test]
fn a_full_queue_drops() {
    let mut lab = lab();
    let frame = ip4("10.0.0.1", "10.0.0.2").frame(OURS[0], EP1);
    let room = octoplane_engine::PORT_QUEUE;
    for _ in 0..room - 1 {
        assert!(lab.out.send(POD1, octoplane_packet::HeapBuf::new(&[])).is_ok());
    }
    let outcome = lab.burst(POD0, &[&frame, &frame, &frame]);
    assert_eq!(outcome.sent.len(), room);
    assert_eq!(outcome.drops, [(1000, octoplane_engine::Direction::Egress, 2)]);
    assert_eq!(outcome.drop_bytes, 2 * frame.len() as u64);
}
