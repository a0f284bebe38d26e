//! Echo (RFC 792, RFC 4443) and time exceeded (RFC 1812, RFC 4443).

use octoplane_engine::EngineConfig;

use crate::common::bytes::{Ip4, Ip6, be16, icmp4, icmp6_checksum, internet_checksum, ip4, ip6, put16, v6};
use crate::common::*;
use crate::mtu::{error4, error6};

fn ping4(src: &str, dst: &str, body: &[u8]) -> Ip4 {
    ip4(src, dst).payload(1, icmp4(8, 0, [0x12, 0x34, 0, 7], body))
}

fn ping6(src: &str, dst: &str, body: &[u8]) -> Ip6 {
    ip6(src, dst).icmp(128, 0, [0x12, 0x34, 0, 7], body)
}

fn body(len: usize) -> Vec<u8> {
    (0..len).map(|at| at as u8 ^ 0x5a).collect()
}

#[track_caller]
fn assert_reply4(frame: &[u8], to: [u8; 6], from: [u8; 6], request: &Ip4, body: &[u8]) {
    assert_eq!(
        (&frame[..6], &frame[6..12], be16(frame, 12)),
        (&to[..], &from[..], 0x0800)
    );
    let packet = &frame[14..];
    let header = 20 + request.options.len();
    assert_eq!(packet[0], 0x40 + header as u8 / 4);
    assert_eq!(usize::from(be16(packet, 2)), header + 8 + body.len());
    assert!(packet[8] >= 32);
    assert_eq!(packet[9], 1);
    assert_eq!(internet_checksum(&packet[..header]), 0);
    assert_eq!(packet[12..16], request.dst.octets());
    assert_eq!(packet[16..20], request.src.octets());
    let message = &packet[header..header + 8 + body.len()];
    assert_eq!(internet_checksum(message), 0);
    assert_eq!(
        (message[0], message[1], &message[4..8]),
        (0, 0, &[0x12, 0x34, 0, 7][..])
    );
    assert_eq!(&message[8..], body);
}

#[test]
fn the_gateway_answers_pings_of_any_length() {
    let mut lab = lab();
    for len in (0..100).chain([1471, 1472]) {
        let body = body(len);
        let request = ping4("10.0.0.1", GATEWAY4, &body);
        let outcome = lab.one(POD0, &request.frame(OURS[0], EP1));
        let (port, frame) = outcome.only();
        assert_eq!(port, POD0);
        assert_reply4(frame, EP1, OURS[0], &request, &body);
        assert_eq!(outcome.answered, 1);
    }
    for len in (0..100).chain([1451, 1452]) {
        let body = body(len);
        let outcome = lab.one(POD0, &ping6("fd00::1", GATEWAY6, &body).frame(OURS[0], EP1));
        let (port, frame) = outcome.only();
        assert_eq!((port, &frame[..6], &frame[6..12]), (POD0, &EP1[..], &OURS[0][..]));
        let packet = &frame[14..];
        assert_eq!((usize::from(be16(packet, 4)), packet[6]), (8 + len, 58));
        assert!(packet[7] >= 32);
        assert_eq!(packet[8..24], v6(GATEWAY6).octets());
        assert_eq!(packet[24..40], v6("fd00::1").octets());
        let message = &packet[40..];
        assert_eq!(icmp6_checksum(v6(GATEWAY6), v6("fd00::1"), message), 0);
        assert_eq!(
            (message[0], message[1], &message[4..8]),
            (129, 0, &[0x12, 0x34, 0, 7][..])
        );
        assert_eq!(&message[8..], body);
    }
}

/// RFC 6724, rule 2: a pod that pings a link-local address does so from its own, which is in no table.
#[test]
fn a_link_local_gateway_answers_link_local_pings_and_nothing_else() {
    let mut lab = lab();
    let request = ping6("fe80::11", GATEWAY6, &body(8));
    let outcome = lab.one(POD0, &request.frame(OURS[0], EP1));
    let (port, frame) = outcome.only();
    assert_eq!((port, &frame[..12]), (POD0, &[EP1, OURS[0]].concat()[..]));
    let packet = &frame[14..];
    assert_eq!(packet[8..24], v6(GATEWAY6).octets());
    assert_eq!(packet[24..40], v6("fe80::11").octets());
    assert_eq!(packet[40], 129);
    assert_eq!(icmp6_checksum(v6(GATEWAY6), v6("fe80::11"), &packet[40..]), 0);
    for packet in [
        ip6("fe80::11", GATEWAY6),
        ping6("fe80::11", "fe80::12", &body(8)),
        ping6("fe80::11", "fd00::2", &body(8)),
        ping6("fe80::11", OWN6, &body(8)),
        ping6("fd00::9", GATEWAY6, &body(8)),
    ] {
        assert_eq!(lab.one(POD0, &packet.frame(OURS[0], EP1)).dropped(), 132);
    }
}

#[test]
fn pings_with_ttl_1_reach_the_gateway() {
    let mut lab = lab();
    lab.one(
        POD0,
        &ping4("10.0.0.1", GATEWAY4, &body(8)).ttl(1).frame(OURS[0], EP1),
    )
    .only();
    lab.one(
        POD0,
        &ping6("fd00::1", GATEWAY6, &body(8)).ttl(1).frame(OURS[0], EP1),
    )
    .only();
}

#[test]
fn pings_in_padded_frames_and_with_options() {
    let mut lab = lab();
    let request = ping4("10.0.0.1", GATEWAY4, &body(3)).options(&[1, 1, 1, 0]);
    let mut frame = request.frame(OURS[0], EP1);
    frame.extend([0xee; 17]);
    let outcome = lab.one(POD0, &frame);
    assert_reply4(outcome.only().1, EP1, OURS[0], &request, &body(3));
    let mut frame = ping6("fd00::1", GATEWAY6, &body(3)).frame(OURS[0], EP1);
    frame.extend([0xee; 17]);
    let outcome = lab.one(POD0, &frame);
    let packet = &outcome.only().1[14..];
    assert_eq!(icmp6_checksum(v6(GATEWAY6), v6("fd00::1"), &packet[40..51]), 0);
}

#[test]
fn wrong_checksums() {
    let mut lab = lab();
    for at in [2, 4, 9] {
        let mut packet = ping4("10.0.0.1", GATEWAY4, &body(9));
        packet.payload[at] ^= 4;
        assert_eq!(lab.one(POD0, &packet.frame(OURS[0], EP1)).dropped(), 154);
        let mut packet = ping6("fd00::1", GATEWAY6, &body(9));
        packet.payload[at] ^= 4;
        assert_eq!(lab.one(POD0, &packet.frame(OURS[0], EP1)).dropped(), 154);
    }
    // ICMPv6 without its pseudo-header is wrong.
    let message = icmp4(128, 0, [0x12, 0x34, 0, 7], &body(9));
    let packet = ip6("fd00::1", GATEWAY6).payload(58, message);
    assert_eq!(lab.one(POD0, &packet.frame(OURS[0], EP1)).dropped(), 154);
}

#[test]
fn pings_too_short_for_their_header() {
    // Policy has to know their type (drop code 135 of the specification, 6.1).
    let mut lab = lab();
    for len in 1..8 {
        let message = icmp4(8, 0, [0; 4], &[])[..len].to_vec();
        let packet = ip4("10.0.0.1", GATEWAY4).payload(1, message.clone());
        assert_eq!(lab.one(POD0, &packet.frame(OURS[0], EP1)).dropped(), 135);
        let packet = ip6("fd00::1", GATEWAY6).payload(58, [&[128][..], &message[1..]].concat());
        assert_eq!(lab.one(POD0, &packet.frame(OURS[0], EP1)).dropped(), 135);
    }
}

/// Fragments of a ping would have to be put together here: all of them are refused, whatever bytes they carry.
#[test]
fn fragments_of_pings() {
    for host in [false, true] {
        let mut lab = Plan {
            host,
            ..Plan::default()
        }
        .lab();
        for (flags, first) in [(0x2000, 8), (0x2001, 8), (0x0001, 8), (0x0001, 0), (0x1fff, 77)] {
            let mut packet = ping4("10.0.0.1", GATEWAY4, &body(8)).flags(flags);
            packet.payload[0] = first;
            assert_eq!(
                lab.one(POD0, &packet.frame(OURS[0], EP1)).dropped(),
                157,
                "{flags:#x}"
            );
        }
        for offset in [1u16, 8, 9] {
            let message = ping6("fd00::1", GATEWAY6, &body(8)).payload;
            let mut payload = vec![58, 0];
            payload.extend(offset.to_be_bytes());
            payload.extend([0, 0, 0, 1]);
            payload.extend(message);
            let packet = ip6("fd00::1", GATEWAY6).payload(44, payload);
            assert_eq!(
                lab.one(POD0, &packet.frame(OURS[0], EP1)).dropped(),
                157,
                "{offset}"
            );
        }
    }
}

#[test]
fn without_a_host_port_our_uplink_addresses_answer_pings() {
    let mut lab = lab();
    let request = ping4("198.51.100.7", OWN4, &body(5));
    let outcome = lab.one(UPLINK, &request.frame(OURS[2], ROUTER));
    let (port, frame) = outcome.only();
    assert_eq!(port, UPLINK);
    assert_reply4(frame, ROUTER, OURS[2], &request, &body(5));
    let outcome = lab.one(
        UPLINK,
        &ping6("2001:db8:7::7", OWN6, &body(5)).frame(OURS[2], ROUTER),
    );
    assert_eq!(outcome.only().1[14 + 40], 129);
}

/// RFC 1122, section 3.2.2.6: not those to many.
#[test]
fn pings_to_many_are_not_answered() {
    let mut lab = lab();
    for dst in ["224.0.0.1", "255.255.255.255"] {
        assert!(
            lab.one(POD0, &ping4("10.0.0.1", dst, &body(8)).frame([0xff; 6], EP1))
                .sent
                .is_empty()
        );
    }
    let frame = ping4("198.51.100.7", OWN4, &body(8)).frame([0xff; 6], ROUTER);
    assert!(lab.one(UPLINK, &frame).sent.is_empty());
}

#[test]
fn an_expired_ttl_is_told_over_ipv4() {
    let mut lab = lab();
    for ttl in [0, 1] {
        for (dst, size) in [("10.0.0.2", 100), ("198.51.100.7", 28), ("198.51.100.7", 1500)] {
            let frame = ip4("10.0.0.1", dst).ttl(ttl).size(size).frame(OURS[0], EP1);
            let outcome = lab.one(POD0, &frame);
            let (code, sent) = outcome.dropped_and_sent();
            assert_eq!((code, sent.len(), sent[0].0), (196, 1, POD0));
            let error = error4(&sent[0].1, EP1, OURS[0], GATEWAY4, "10.0.0.1");
            assert_eq!((error.0, error.1, error.2), (11, 0, 0));
            assert_eq!(
                error.3,
                &frame[14..14 + size.min(576 - 28)],
                "the packet as it came"
            );
        }
    }
    let frame = ip4("198.51.100.7", "10.0.0.1").ttl(1).frame(OURS[2], ROUTER);
    let outcome = lab.one(UPLINK, &frame);
    let sent = outcome.dropped_and_sent().1;
    assert_eq!(sent[0].0, UPLINK);
    error4(&sent[0].1, ROUTER, OURS[2], OWN4, "198.51.100.7");
}

#[test]
fn an_expired_hop_limit_is_told_over_ipv6() {
    let mut lab = lab();
    for hop_limit in [0, 1] {
        for (dst, size) in [("fd00::2", 100), ("2001:db8:7::7", 48), ("2001:db8:7::7", 1500)] {
            let frame = ip6("fd00::1", dst).ttl(hop_limit).size(size).frame(OURS[0], EP1);
            let outcome = lab.one(POD0, &frame);
            let (code, sent) = outcome.dropped_and_sent();
            assert_eq!((code, sent.len(), sent[0].0), (196, 1, POD0));
            let error = error6(&sent[0].1, EP1, OURS[0], GATEWAY6, "fd00::1");
            assert_eq!((error.0, error.1, error.2), (3, 0, 0));
            assert_eq!(error.3, &frame[14..14 + size.min(1280 - 48)]);
        }
    }
    let frame = ip6("2001:db8:7::7", "fd00::1").ttl(1).frame(OURS[2], ROUTER);
    let outcome = lab.one(UPLINK, &frame);
    let sent = outcome.dropped_and_sent().1;
    error6(&sent[0].1, ROUTER, OURS[2], OWN6, "2001:db8:7::7");
}

/// Padding is not part of the packet and not quoted.
#[test]
fn padding_is_not_quoted() {
    let mut lab = lab();
    let mut frame = ip4("10.0.0.1", "10.0.0.2").ttl(1).size(28).frame(OURS[0], EP1);
    let packet = frame[14..].to_vec();
    frame.resize(60, 0);
    let outcome = lab.one(POD0, &frame);
    let sent = outcome.dropped_and_sent().1;
    assert_eq!(error4(&sent[0].1, EP1, OURS[0], GATEWAY4, "10.0.0.1").3, packet);
    let mut frame = ip6("fd00::1", "fd00::2").ttl(1).size(48).frame(OURS[0], EP1);
    let packet = frame[14..].to_vec();
    frame.resize(80, 0);
    let outcome = lab.one(POD0, &frame);
    let sent = outcome.dropped_and_sent().1;
    assert_eq!(error6(&sent[0].1, EP1, OURS[0], GATEWAY6, "fd00::1").3, packet);
}

/// RFC 1122, section 3.2.2.
#[test]
fn no_errors_over_ipv4_about() {
    let mut lab = lab();
    let expired = |packet: Ip4| packet.ttl(1).frame(OURS[0], EP1);
    // Errors: unreachable, quench, redirect, time exceeded, parameter problem.
    for kind in [3, 4, 5, 11, 12] {
        for options in [&[][..], &[1; 4]] {
            let packet = ip4("10.0.0.1", "10.0.0.2")
                .payload(1, icmp4(kind, 0, [0; 4], &[0; 28]))
                .options(options);
            assert_eq!(lab.one(POD0, &expired(packet)).dropped(), 196, "type {kind}");
        }
    }
    // Later fragments, whose first one has come.
    lab.one(
        POD0,
        &ip4("10.0.0.1", "10.0.0.2").flags(0x2000).frame(OURS[0], EP1),
    );
    for flags in [1, 0x2001, 0x1fff] {
        let packet = ip4("10.0.0.1", "10.0.0.2").flags(flags);
        assert_eq!(lab.one(POD0, &expired(packet)).dropped(), 196);
    }
    // Frames to many.
    let frame = ip4("10.0.0.1", "10.0.0.2").ttl(1).frame([0xff; 6], EP1);
    assert!(lab.one(POD0, &frame).sent.is_empty());
    // Packets to many.
    for dst in ["224.0.0.251", "239.1.1.1", "255.255.255.255"] {
        assert_eq!(lab.one(POD0, &expired(ip4("10.0.0.1", dst))).dropped(), 151);
    }
    // But about first fragments and other ICMP: traceroute works with pings.
    for packet in [
        ip4("10.0.0.1", "10.0.0.2").flags(0x2000),
        ping4("10.0.0.1", "10.0.0.2", &[]),
        ip4("10.0.0.1", "10.0.0.2").payload(1, icmp4(0, 0, [0; 4], &[])),
    ] {
        assert_eq!(lab.one(POD0, &expired(packet)).dropped_and_sent().1.len(), 1);
    }
}

/// RFC 4443, section 2.4 e.
#[test]
fn no_errors_over_ipv6_about() {
    let mut lab = lab();
    let expired = |packet: Ip6| packet.ttl(1).frame(OURS[0], EP1);
    let base = || ip6("fd00::1", "fd00::2");
    // Errors, known or not, and redirects.
    for kind in [1, 2, 3, 4, 100, 127, 137] {
        let packet = base().icmp(kind, 0, [0; 4], &[0; 48]);
        assert_eq!(
            lab.one(POD0, &expired(packet.clone())).dropped(),
            196,
            "type {kind}"
        );
        // Behind extension headers: hop-by-hop, destination options, routing, first fragment.
        for (first, header) in [
            (0, [58, 0, 1, 4, 0, 0, 0, 0]),
            (60, [58, 0, 1, 4, 0, 0, 0, 0]),
            (43, [58, 0, 0, 0, 0, 0, 0, 0]),
            (44, [58, 0, 0, 1, 0, 0, 0, 9]),
        ] {
            let packet = base().payload(first, [&header[..], &packet.payload].concat());
            assert_eq!(
                lab.one(POD0, &expired(packet)).dropped(),
                196,
                "type {kind} behind {first}"
            );
        }
    }
    // Packets to many.
    for dst in ["ff02::fb", "ff05::2"] {
        assert_eq!(lab.one(POD0, &expired(ip6("fd00::1", dst))).dropped(), 151);
    }
    // But about pings, with and without extension headers.
    let ping = ping6("fd00::1", "fd00::2", &[]);
    let behind = base().payload(60, [&[58, 0, 1, 4, 0, 0, 0, 0][..], &ping.payload].concat());
    for packet in [ping, behind, base()] {
        assert_eq!(lab.one(POD0, &expired(packet)).dropped_and_sent().1.len(), 1);
    }
}

/// Both families have their own rate (RFC 1812, section 4.3.2.8; RFC 4443, section 2.4 f).
#[test]
fn errors_are_rate_limited() {
    let mut lab = Plan {
        config: EngineConfig {
            icmp_errors: (10, 5),
            ..EngineConfig::default()
        },
        ..Plan::default()
    }
    .lab();
    let v4 = ip4("10.0.0.1", "10.0.0.2").ttl(1).frame(OURS[0], EP1);
    let v6 = ip6("fd00::1", "fd00::2").ttl(1).frame(OURS[0], EP1);
    let outcome = lab.burst(POD0, &[&v4; 20]);
    assert_eq!(
        (outcome.sent.len(), outcome.icmp_errors, outcome.icmp_suppressed),
        (5, 5, 15)
    );
    assert_eq!((outcome.drop_count(), outcome.freed), (20, 20));
    let outcome = lab.burst(POD0, &[&v6; 20]);
    assert_eq!(outcome.sent.len(), 5);
    lab.now += SECOND / 5;
    assert_eq!(lab.burst(POD0, &[&v4; 20]).sent.len(), 2);
    lab.now += 60 * SECOND;
    assert_eq!(lab.burst(POD0, &[&v4; 20]).sent.len(), 5);
}

#[test]
fn without_buffers_the_packet_is_dropped_all_the_same() {
    let mut lab = Plan::default().lab_with(octoplane_packet::HeapPool { left: Some(1) });
    let mut frame = ip4("10.0.0.1", "10.0.0.2").ttl(1).frame(OURS[0], EP1);
    assert_eq!(lab.one(POD0, &frame).sent.len(), 1);
    let outcome = lab.one(POD0, &frame);
    assert_eq!((outcome.dropped(), outcome.icmp_suppressed), (196, 1));
    // Pings need no new buffer.
    frame = ping4("10.0.0.1", GATEWAY4, &[]).frame(OURS[0], EP1);
    lab.one(POD0, &frame).only();
    put16(&mut frame, 24, 0);
    assert_eq!(lab.one(POD0, &frame).dropped(), 153);
}

/// What stands behind an IP packet without any ICMP in it does not make it a ping.
#[test]
fn padding_is_no_ping() {
    let mut lab = lab();
    for (mut frame, kind) in [
        (
            ip4("198.51.100.7", OWN4)
                .payload(1, Vec::new())
                .frame(OURS[2], ROUTER),
            8,
        ),
        (
            ip6("2001:db8:7::7", OWN6)
                .payload(58, Vec::new())
                .frame(OURS[2], ROUTER),
            128,
        ),
    ] {
        frame.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(lab.one(UPLINK, &frame).dropped(), 164);
    }
}
