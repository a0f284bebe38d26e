//! Neighbour discovery: RFC 4861, RFC 4862, and the specification's 5.3.

use octoplane_engine::NeighbourEvent;
use octoplane_packet::MacAddr;

use crate::common::bytes::{
    Ip6, Mac, advertisement, be16, icmp6_checksum, internet_checksum, ip, ip6, lla, put16, solicitation,
    solicited_node, tagged, v6,
};
use crate::common::*;

const ROUTER_FLAG: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

const LINK_LOCAL: &str = "fe80::11";
const STATION: Mac = [2, 0, 0, 0, 1, 9];

fn frame(packet: &Ip6, target: &str, src: Mac) -> Vec<u8> {
    packet.frame(solicited_node(target).1, src)
}

fn ask(src: &str, target: &str, mac: Mac) -> Vec<u8> {
    frame(&solicitation(src, target, &lla(1, mac)), target, mac)
}

/// Takes an advertisement apart and returns its flags and its destination's Ethernet address.
#[track_caller]
fn flags(sent: &[u8], port: u16, to: &str, target: &str) -> (u8, Mac) {
    let ours = OURS[usize::from(port)];
    assert_eq!(sent.len(), 14 + 40 + 32);
    assert_eq!((&sent[6..12], be16(sent, 12)), (&ours[..], 0x86dd));
    let packet = &sent[14..];
    assert_eq!(packet[0] >> 4, 6);
    assert_eq!((be16(packet, 4), packet[6], packet[7]), (32, 58, 255));
    // RFC 4861, section 4.4: an address of the sending interface, or the target by proxy.
    assert_eq!(packet[8..24], v6(target).octets());
    assert_eq!(packet[24..40], v6(to).octets());
    let message = &packet[40..];
    assert_eq!(icmp6_checksum(v6(target), v6(to), message), 0);
    assert_eq!((message[0], message[1]), (136, 0));
    assert_eq!((message[4] & 0x1f, &message[5..8]), (0, &[0; 3][..]), "reserved");
    assert_eq!(message[8..24], v6(target).octets());
    assert_eq!(message[24..], lla(2, ours));
    (message[4], sent[..6].try_into().unwrap())
}

#[test]
fn the_gateway_answers_as_a_router() {
    let mut lab = lab();
    for src in ["fd00::1", LINK_LOCAL] {
        let outcome = lab.one(POD0, &ask(src, GATEWAY6, EP1));
        let (port, sent) = outcome.only();
        assert_eq!(port, POD0);
        assert_eq!(flags(sent, POD0, src, GATEWAY6), (ROUTER_FLAG | SOLICITED, EP1));
        assert_eq!((outcome.answered, outcome.events.len()), (1, 0));
    }
    // To the gateway itself, as when reachability is checked; without an option; with one more that is unknown.
    for options in [
        lla(1, EP1),
        Vec::new(),
        [vec![14, 1, 1, 2, 3, 4, 5, 6], lla(1, EP1)].concat(),
    ] {
        let body = [&v6(GATEWAY6).octets()[..], &options].concat();
        let packet = ip6("fd00::1", GATEWAY6).ttl(255).icmp(135, 0, [0; 4], &body);
        let outcome = lab.one(POD0, &packet.frame(OURS[0], EP1));
        assert_eq!(
            flags(outcome.only().1, POD0, "fd00::1", GATEWAY6),
            (ROUTER_FLAG | SOLICITED, EP1)
        );
    }
}

#[test]
fn other_endpoints_are_answered_for() {
    let mut lab = lab();
    for target in ["fd00::2", "fd00::3"] {
        let outcome = lab.one(POD0, &ask("fd00::1", target, EP1));
        assert_eq!(
            flags(outcome.only().1, POD0, "fd00::1", target),
            (SOLICITED | OVERRIDE, EP1)
        );
        // To the target's own address: the pod checks whether it is still there (RFC 4861, section 7.3).
        let body = [&v6(target).octets()[..], &lla(1, EP1)].concat();
        let packet = ip6("fd00::1", target).ttl(255).icmp(135, 0, [0; 4], &body);
        let outcome = lab.one(POD0, &packet.frame(OURS[0], EP1));
        let (port, sent) = outcome.only();
        assert_eq!(port, POD0, "answered, not passed on");
        assert_eq!(flags(sent, POD0, "fd00::1", target), (SOLICITED | OVERRIDE, EP1));
    }
}

#[test]
fn duplicate_address_detection() {
    let mut lab = lab();
    let probe = |target| frame(&solicitation("::", target, &[]), target, EP1);
    for own in ["fd00::1", LINK_LOCAL] {
        lab.one(POD0, &probe(own)).silent();
    }
    // Somebody has these: all nodes are told (RFC 4861, section 7.2.4), without the solicited flag.
    for (target, want) in [(GATEWAY6, ROUTER_FLAG), ("fd00::2", OVERRIDE)] {
        let outcome = lab.one(POD0, &probe(target));
        assert_eq!(
            flags(outcome.only().1, POD0, "ff02::1", target),
            (want, [0x33, 0x33, 0, 0, 0, 1])
        );
    }
}

#[test]
fn unknown_targets_are_dropped() {
    let mut lab = lab();
    for target in ["fd00::77", "2001:db8:7::7", OWN6] {
        assert_eq!(
            lab.one(POD0, &ask("fd00::1", target, EP1)).dropped(),
            150,
            "{target}"
        );
    }
}

/// RFC 4861, section 7.1.1 for solicitations and 7.1.2 for advertisements.
#[test]
fn invalid_messages() {
    let mut lab = lab();
    let mut code = |port, packet: &Ip6| {
        let mac = if port == POD0 { EP1 } else { STATION };
        let outcome = lab.one(port, &packet.frame(OURS[usize::from(port)], mac));
        assert!(outcome.events.is_empty());
        outcome.dropped()
    };
    let with = |kind: u8, rest: u8, src: &str, dst: &str, target: &str, options: &[u8]| {
        let body = [&v6(target).octets()[..], options].concat();
        ip6(src, dst).ttl(255).icmp(kind, 0, [rest, 0, 0, 0], &body)
    };
    for (port, kind, src, dst, target) in [
        (POD0, 135, "fd00::1", GATEWAY6, GATEWAY6),
        (UPLINK, 135, "2001:db8::9", OWN6, OWN6),
        (UPLINK, 136, "2001:db8::9", OWN6, "2001:db8::9"),
    ] {
        let option = lla(kind - 134, STATION);
        let good = with(kind, SOLICITED, src, dst, target, &option);
        for hop_limit in [0, 1, 64, 254] {
            assert_eq!(
                code(port, &good.clone().ttl(hop_limit)),
                134,
                "hop limit {hop_limit}"
            );
        }
        for byte in [2, 4, 20, 31] {
            let mut bad = good.clone();
            bad.payload[byte] ^= 0x10;
            assert_eq!(code(port, &bad), 154, "byte {byte} flipped");
        }
        let body = [&v6(target).octets()[..], &option].concat();
        assert_eq!(
            code(port, &ip6(src, dst).ttl(255).icmp(kind, 1, [0; 4], &body)),
            134,
            "code"
        );
        for len in 0..20 {
            let body = &v6(target).octets()[..len.min(15)];
            assert_eq!(
                code(port, &ip6(src, dst).ttl(255).icmp(kind, 0, [0; 4], body)),
                134,
                "short"
            );
        }
        for options in [
            vec![1, 0, 0, 0, 0, 0, 0, 0],
            vec![1, 2, 0, 0, 0, 0, 0, 0],
            vec![14, 1],
            vec![14],
            [&option[..], &[5, 0, 0, 0, 0, 0, 0, 0]].concat(),
        ] {
            assert_eq!(
                code(port, &with(kind, 0, src, dst, target, &options)),
                134,
                "{options:?}"
            );
        }
        assert_eq!(
            code(port, &with(kind, 0, src, dst, "ff02::1", &option)),
            134,
            "multicast target"
        );
    }
    // From nowhere: no source option, and to the solicited-node group only.
    let (group, _) = solicited_node("fd00::2");
    assert_eq!(
        code(
            POD0,
            &with(135, 0, "::", &group.to_string(), "fd00::2", &lla(1, EP1))
        ),
        134
    );
    assert_eq!(code(POD0, &with(135, 0, "::", "fd00::2", "fd00::2", &[])), 134);
    assert_eq!(code(POD0, &with(135, 0, "::", "ff02::1", "fd00::2", &[])), 134);
    // An advertisement to many answers nobody: the solicited flag must not be set.
    assert_eq!(
        code(
            UPLINK,
            &with(
                136,
                SOLICITED,
                "2001:db8::9",
                "ff02::1",
                "2001:db8::9",
                &lla(2, STATION)
            )
        ),
        134
    );
}

/// Truncated by the header's own word, with the rest as padding.
#[test]
fn shorter_than_the_message() {
    let mut lab = lab();
    let good = ask("fd00::1", GATEWAY6, EP1);
    for payload in 0..24 {
        let mut frame = good.clone();
        put16(&mut frame, 18, payload);
        if payload == 0 {
            // No ICMPv6 at all: then it is a packet to a group, or invalid; no answer in any case.
            let outcome = lab.one(POD0, &frame);
            assert!(outcome.sent.is_empty());
            continue;
        }
        assert_eq!(lab.one(POD0, &frame).dropped(), 134, "payload {payload}");
    }
}

#[test]
fn padding_does_not_matter() {
    let mut lab = lab();
    for options in [
        Vec::new(),
        lla(1, EP1),
        [lla(1, EP1), vec![14, 2], vec![7; 14]].concat(),
    ] {
        let mut frame = frame(&solicitation("fd00::1", GATEWAY6, &options), GATEWAY6, EP1);
        frame.extend([0x5a; 30]);
        let outcome = lab.one(POD0, &frame);
        assert_eq!(
            flags(outcome.only().1, POD0, "fd00::1", GATEWAY6),
            (ROUTER_FLAG | SOLICITED, EP1)
        );
    }
}

#[test]
fn uplinks_answer_for_their_own_addresses_and_learn_who_asked() {
    let mut lab = lab();
    let plain = ask("2001:db8::9", OWN6, STATION);
    for frame in [tagged(&plain, 0x8100, 0), plain] {
        let outcome = lab.one(UPLINK, &frame);
        let (port, sent) = outcome.only();
        assert_eq!(port, UPLINK);
        let (flags, to) = flags(sent, UPLINK, "2001:db8::9", OWN6);
        assert_eq!((flags & SOLICITED, to), (SOLICITED, STATION));
        assert_eq!(
            outcome.events,
            [NeighbourEvent::Heard {
                port: UPLINK,
                addr: ip("2001:db8::9"),
                mac: MacAddr(STATION),
                addressed: true
            }]
        );
    }
    // Nobody else is answered for here, and only those who ask for us are learned (RFC 4861, section 7.2.3).
    for target in ["fd00::1", GATEWAY6, "2001:db8::77"] {
        let outcome = lab.one(UPLINK, &ask("2001:db8::9", target, STATION));
        assert!(
            outcome.sent.is_empty() && outcome.events.is_empty(),
            "{target}: {outcome:?}"
        );
    }
    // Somebody tries to take our address: all nodes are told.
    let outcome = lab.one(UPLINK, &frame(&solicitation("::", OWN6, &[]), OWN6, STATION));
    let (flags, to) = flags(outcome.only().1, UPLINK, "ff02::1", OWN6);
    assert_eq!((flags & SOLICITED, to), (0, [0x33, 0x33, 0, 0, 0, 1]));
    assert!(outcome.events.is_empty());
}

#[test]
fn uplinks_learn_from_advertisements() {
    let mut lab = lab();
    for (flag, dst, mac, addressed) in [
        (SOLICITED | OVERRIDE, OWN6, OURS[2], true),
        (OVERRIDE, "ff02::1", [0x33, 0x33, 0, 0, 0, 1], false),
    ] {
        let packet = advertisement("2001:db8::9", dst, flag, "2001:db8::9", &lla(2, STATION));
        let outcome = lab.one(UPLINK, &packet.frame(mac, STATION));
        outcome.silent();
        assert_eq!(
            outcome.events,
            [NeighbourEvent::Heard {
                port: UPLINK,
                addr: ip("2001:db8::9"),
                mac: MacAddr(STATION),
                addressed
            }]
        );
    }
    // Nothing to learn: no option, a source's option, a group's address; and never from a pod.
    for options in [Vec::new(), lla(1, STATION), lla(2, [0x33, 0x33, 0, 0, 0, 1])] {
        let packet = advertisement("2001:db8::9", OWN6, SOLICITED, "2001:db8::9", &options);
        let outcome = lab.one(UPLINK, &packet.frame(OURS[2], STATION));
        assert!(outcome.events.is_empty() && outcome.sent.is_empty());
    }
    let packet = advertisement("fd00::1", GATEWAY6, SOLICITED, "fd00::1", &lla(2, EP1));
    let outcome = lab.one(POD0, &packet.frame(OURS[0], EP1));
    outcome.silent();
    assert!(outcome.events.is_empty());
}

#[test]
fn the_kernel_is_answered_but_may_have_its_own_addresses() {
    let mut lab = lab_with_host();
    for target in ["fd00::1", GATEWAY6, "2001:db8::fe"] {
        let outcome = lab.one(HOST, &ask(OWN6, target, KERNEL));
        let (port, sent) = outcome.only();
        assert_eq!(port, HOST);
        let (flags, to) = flags(sent, HOST, OWN6, target);
        assert_eq!((flags & SOLICITED, to), (SOLICITED, KERNEL));
    }
    // RFC 4862, section 5.4.4: an answer would keep the kernel from using the address.
    for target in ["fe80::2ff:1", OWN6, "2001:db8::77"] {
        lab.one(HOST, &frame(&solicitation("::", target, &[]), target, KERNEL))
            .silent();
    }
    for taken in ["fd00::1", GATEWAY6] {
        let outcome = lab.one(HOST, &frame(&solicitation("::", taken, &[]), taken, KERNEL));
        let (flags, to) = flags(outcome.only().1, HOST, "ff02::1", taken);
        assert_eq!((flags & SOLICITED, to), (0, [0x33, 0x33, 0, 0, 0, 1]));
    }
}

/// The helper itself, against the example of RFC 1071.
#[test]
fn the_tests_own_checksum() {
    assert_eq!(
        internet_checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
        !0xddf2
    );
}

/// Specification of the datapath, 5.3: an endpoint is one whether its port is up or down.
#[test]
fn an_endpoint_whose_port_is_down_is_answered_for() {
    let mut lab = lab();
    lab.apply(vec![admin(POD1, false)]);
    let outcome = lab.one(POD0, &ask("fd00::1", "fd00::2", EP1));
    assert_eq!(
        flags(outcome.only().1, POD0, "fd00::1", "fd00::2"),
        (SOLICITED | OVERRIDE, EP1)
    );
}
