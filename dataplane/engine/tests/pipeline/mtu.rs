//! Packets that are too large: RFC 1191, RFC 1812 section 4.3.2.3, RFC 4443 section 3.2.

use crate::common::bytes::{be16, icmp6_checksum, internet_checksum, ip4, ip6, v4, v6};
use crate::common::*;

/// Takes an ICMP error over IPv4 apart: type, code, rest of header, quoted packet.
#[track_caller]
pub(crate) fn error4<'a>(
    frame: &'a [u8],
    to: [u8; 6],
    from: [u8; 6],
    src: &str,
    dst: &str,
) -> (u8, u8, u32, &'a [u8]) {
    assert_eq!(
        (&frame[..6], &frame[6..12], be16(frame, 12)),
        (&to[..], &from[..], 0x0800)
    );
    let packet = &frame[14..];
    assert_eq!(packet[0], 0x45);
    assert!(packet[1] >> 5 >= 6, "precedence of control (RFC 1812, 4.3.2.5)");
    assert_eq!(usize::from(be16(packet, 2)), packet.len());
    assert_eq!(be16(packet, 6) & 0x3fff, 0, "not a fragment");
    assert!(packet[8] >= 32, "a TTL that gets it there");
    assert_eq!(packet[9], 1);
    assert_eq!(internet_checksum(&packet[..20]), 0);
    assert_eq!(
        (&packet[12..16], &packet[16..20]),
        (&v4(src).octets()[..], &v4(dst).octets()[..])
    );
    assert!(packet.len() <= 576);
    let message = &packet[20..];
    assert_eq!(internet_checksum(message), 0);
    (
        message[0],
        message[1],
        u32::from(be16(message, 4)) << 16 | u32::from(be16(message, 6)),
        &message[8..],
    )
}

/// The same over IPv6.
#[track_caller]
pub(crate) fn error6<'a>(
    frame: &'a [u8],
    to: [u8; 6],
    from: [u8; 6],
    src: &str,
    dst: &str,
) -> (u8, u8, u32, &'a [u8]) {
    assert_eq!(
        (&frame[..6], &frame[6..12], be16(frame, 12)),
        (&to[..], &from[..], 0x86dd)
    );
    let packet = &frame[14..];
    assert_eq!(packet[0] >> 4, 6);
    assert_eq!(usize::from(be16(packet, 4)) + 40, packet.len());
    assert_eq!(packet[6], 58);
    assert!(packet[7] >= 32, "a hop limit that gets it there");
    assert_eq!(
        (&packet[8..24], &packet[24..40]),
        (&v6(src).octets()[..], &v6(dst).octets()[..])
    );
    assert!(packet.len() <= 1280);
    let message = &packet[40..];
    assert_eq!(icmp6_checksum(v6(src), v6(dst), message), 0);
    (
        message[0],
        message[1],
        u32::from(be16(message, 4)) << 16 | u32::from(be16(message, 6)),
        &message[8..],
    )
}

fn jumbo() -> Lab<octoplane_packet::HeapPool> {
    Plan {
        mtu: [9000, 1500, 9000, 1500],
        ..Plan::default()
    }
    .lab()
}

#[test]
fn what_just_fits_is_forwarded() {
    let mut lab = jumbo();
    for (dst4, dst6, size) in [
        ("10.0.0.2", "fd00::2", 1500),
        ("198.51.100.7", "2001:db8:7::7", 9000),
    ] {
        let frame = ip4("10.0.0.1", dst4).size(size).frame(OURS[0], EP1);
        assert_eq!(lab.one(POD0, &frame).only().1.len(), size + 14);
        let frame = ip6("fd00::1", dst6).size(size).frame(OURS[0], EP1);
        assert_eq!(lab.one(POD0, &frame).only().1.len(), size + 14);
    }
}

#[test]
fn fragmentation_needed_names_the_next_hop_mtu() {
    let mut lab = jumbo();
    for size in [1501, 4000, 9000] {
        let frame = ip4("10.0.0.1", "10.0.0.2").size(size).frame(OURS[0], EP1);
        let outcome = lab.one(POD0, &frame);
        let (code, sent) = outcome.dropped_and_sent();
        assert_eq!((code, sent.len(), sent[0].0), (136, 1, POD0));
        let error = error4(&sent[0].1, EP1, OURS[0], GATEWAY4, "10.0.0.1");
        assert_eq!((error.0, error.1, error.2), (3, 4, 1500));
        // As much of the packet as there is room for in 576 bytes, unchanged.
        assert_eq!(error.3, &frame[14..14 + 576 - 28]);
        assert_eq!(outcome.icmp_errors, 1);
    }
}

/// RFC 791, section 3.2: pieces of multiples of eight bytes, each with a header of its own, that are the packet together.
#[test]
fn who_allows_fragments_gets_them() {
    let mut lab = jumbo();
    // Nothing, more fragments to come, a later fragment.
    for (flags, size) in [(0, 1501), (0, 4000), (0x2000, 1508), (0x0010, 1501), (0, 8999)] {
        let frame = ip4("10.0.0.1", "10.0.0.2")
            .flags(flags)
            .size(size)
            .frame(OURS[0], EP1);
        let whole = forwarded(&frame, EP2, OURS[1]);
        let outcome = lab.one(POD0, &frame);
        assert_eq!((outcome.drop_count(), outcome.freed), (0, 1));
        let (mut payload, mut offset) = (Vec::new(), usize::from(flags & 0x1fff) * 8);
        for (at, (port, piece)) in outcome.sent.iter().enumerate() {
            let word = |at: usize| u16::from_be_bytes([piece[at], piece[at + 1]]);
            let last = at + 1 == outcome.sent.len();
            assert_eq!((*port, &piece[..14]), (POD1, &whole[..14]));
            assert!(piece.len() <= 1514);
            assert_eq!(usize::from(word(16)) + 14, piece.len());
            assert_eq!(
                (&piece[14..16], &piece[18..20], &piece[22..24], &piece[26..34]),
                (&whole[14..16], &whole[18..20], &whole[22..24], &whole[26..34])
            );
            let more = !last || flags & 0x2000 != 0;
            assert_eq!(word(20), if more { 0x2000 } else { 0 } | (offset / 8) as u16);
            let sum: u32 = piece[14..34]
                .chunks(2)
                .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
                .sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
            assert!(last || (piece.len() - 34) % 8 == 0);
            offset += piece.len() - 34;
            payload.extend_from_slice(&piece[34..]);
        }
        assert!(outcome.sent.len() > 1);
        assert_eq!(payload, whole[34..]);
    }
    // A later fragment with DF is not told (RFC 1122, section 3.2.2).
    let frame = ip4("10.0.0.1", "10.0.0.2")
        .flags(0x4010)
        .size(1501)
        .frame(OURS[0], EP1);
    assert_eq!(lab.one(POD0, &frame).dropped(), 136);
}

/// RFC 791, section 3.1: of the options, only those with the copy bit are in all pieces.
#[test]
fn pieces_have_the_options_that_are_to_be_copied() {
    let mut lab = jumbo();
    // No operation; one of three bytes that is copied; one of four that is not; end.
    let options = [1, 0x82, 3, 9, 0x44, 4, 5, 0];
    let frame = ip4("10.0.0.1", "10.0.0.2")
        .flags(0)
        .options(&options)
        .size(3000)
        .frame(OURS[0], EP1);
    let outcome = lab.one(POD0, &frame);
    assert_eq!(outcome.sent.len(), 3);
    assert_eq!(
        (outcome.sent[0].1[14], &outcome.sent[0].1[34..42]),
        (0x47, &options[..])
    );
    for (_, piece) in &outcome.sent[1..] {
        assert_eq!((piece[14], &piece[34..38]), (0x46, &[0x82, 3, 9, 0][..]));
    }
}

#[test]
fn packet_too_big_names_the_next_hop_mtu() {
    let mut lab = jumbo();
    for size in [1501, 9000] {
        let frame = ip6("fd00::1", "fd00::2").size(size).frame(OURS[0], EP1);
        let outcome = lab.one(POD0, &frame);
        let (code, sent) = outcome.dropped_and_sent();
        assert_eq!((code, sent.len(), sent[0].0), (136, 1, POD0));
        let error = error6(&sent[0].1, EP1, OURS[0], GATEWAY6, "fd00::1");
        assert_eq!((error.0, error.1, error.2), (2, 0, 1500));
        assert_eq!(error.3, &frame[14..14 + 1280 - 48]);
    }
}

#[test]
fn from_the_network_it_is_told_from_the_uplinks_address() {
    let mut lab = Plan {
        mtu: [1280, 1500, 9000, 1500],
        // The link-local address comes first, but is no use to a sender behind a router.
        uplink: vec![("fe80::ff02", 64), (OWN4, 24), (OWN6, 64)],
        ..Plan::default()
    }
    .lab();
    let frame = ip4("198.51.100.7", "10.0.0.1").size(1281).frame(OURS[2], ROUTER);
    let outcome = lab.one(UPLINK, &frame);
    let sent = outcome.dropped_and_sent().1;
    assert_eq!(sent[0].0, UPLINK);
    let error = error4(&sent[0].1, ROUTER, OURS[2], OWN4, "198.51.100.7");
    assert_eq!((error.0, error.1, error.2), (3, 4, 1280));
    let frame = ip6("2001:db8:7::7", "fd00::1").size(1281).frame(OURS[2], ROUTER);
    let outcome = lab.one(UPLINK, &frame);
    let sent = outcome.dropped_and_sent().1;
    let error = error6(&sent[0].1, ROUTER, OURS[2], OWN6, "2001:db8:7::7");
    assert_eq!((error.0, error.1, error.2), (2, 0, 1280));
}

#[test]
fn a_routes_own_mtu_counts() {
    let mut lab = jumbo();
    lab.apply(vec![
        route("198.51.100.0/24", via("192.0.2.254"), Some(1400)),
        route("2001:db8:7::/48", via("2001:db8::fe"), Some(1400)),
    ]);
    let at = |size| {
        [
            ip4("10.0.0.1", "198.51.100.7").size(size).frame(OURS[0], EP1),
            ip6("fd00::1", "2001:db8:7::7").size(size).frame(OURS[0], EP1),
        ]
    };
    for frame in at(1400) {
        lab.one(POD0, &frame).only();
    }
    for frame in at(1401) {
        let outcome = lab.one(POD0, &frame);
        let (code, sent) = outcome.dropped_and_sent();
        assert_eq!((code, sent[0].0), (136, POD0));
        // The MTU is the last two bytes of the word behind the checksum, over IPv4 as over IPv6.
        let word = if frame[12] == 8 { 14 + 20 + 4 } else { 14 + 40 + 4 };
        assert_eq!(sent[0].1[word..word + 4], [0, 0, 0x05, 0x78]);
    }
}

/// The MTU limits what stands in the frame, whatever the IP header says its length is.
#[test]
fn trailing_bytes_do_not_smuggle_a_frame_past_the_mtu() {
    let mut lab = jumbo();
    for mut frame in [
        ip4("10.0.0.1", "10.0.0.2").frame(OURS[0], EP1),
        ip6("fd00::1", "fd00::2").frame(OURS[0], EP1),
    ] {
        let want = forwarded(&frame, EP2, OURS[1]);
        frame.resize(8000, 0xaa);
        let outcome = lab.one(POD0, &frame);
        let (port, got) = outcome.only();
        assert_eq!(port, POD1);
        assert!(got.len() <= 1514, "{} bytes", got.len());
        assert_eq!(got[..want.len()], want);
    }
}
