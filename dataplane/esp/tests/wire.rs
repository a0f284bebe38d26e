//! What packets look like on the wire, and what comes out again: RFC 4301, 4303, 3948 and 6040.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::lab::{GCM128, algorithms, config, header_ok, ipv4, ipv4_with, ipv6, keys, pair};
use octoplane_esp::sa::{DontFragment, Dscp, NatTraversal};
use octoplane_esp::{Algorithm, Cause, Direction, Mode};

const PORTS: NatTraversal = NatTraversal {
    source_port: 4500,
    destination_port: 4501,
};

#[test]
fn a_tunnel_packet_byte_by_byte() {
    let (mut sender, out, mut receiver, _) = pair(|_| {});
    let inner = ipv4(17, &[0xaa; 5]);
    let sent = sender.encrypt(&inner, out).unwrap();
    // 25 bytes, padding 1 and trailer 2 make 28; IP 20, ESP 8, IV 8, ICV 16.
    assert_eq!(sent.len(), 20 + 8 + 8 + 28 + 16);
    assert_eq!(sent[..2], [0x45, 0]);
    assert_eq!(sent[2..4], (sent.len() as u16).to_be_bytes());
    assert_eq!(
        sent[6..8],
        [0, 0],
        "\"don't fragment\" is that of the packet inside"
    );
    assert_eq!(sent[8..10], [64, 50]);
    assert_eq!(sent[12..20], [192, 0, 2, 1, 192, 0, 2, 2]);
    assert!(header_ok(&sent));
    assert_eq!(
        sent[20..28],
        [0x12, 0x34, 0x56, 0x78, 0, 0, 0, 1],
        "the first number is 1"
    );
    // The nonce must not repeat, and nothing else is asked of the IV: the whole sequence number.
    assert_eq!(sent[28..36], [0, 0, 0, 0, 0, 0, 0, 1]);
    // The other side of the cryptography, by hand.
    let key = keys(GCM128, 1);
    let aead = ring::aead::LessSafeKey::new(
        ring::aead::UnboundKey::new(&ring::aead::AES_128_GCM, key.cipher.expose()).unwrap(),
    );
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&key.salt());
    nonce[4..].copy_from_slice(&sent[28..36]);
    // With ESN the upper half of the number is authenticated.
    let aad = [&sent[20..24], &[0; 4], &sent[24..28]].concat();
    let mut text = sent[36..].to_vec();
    let plain = aead
        .open_in_place(
            ring::aead::Nonce::assume_unique_for_key(nonce),
            ring::aead::Aad::from(aad),
            &mut text,
        )
        .unwrap();
    assert_eq!(plain[..25], inner);
    assert_eq!(plain[25..], [1, 1, 4], "padding 1, its length, IPv4");
    assert_eq!(receiver.decrypt(&sent).unwrap(), inner);
}

#[test]
fn every_length_of_padding() {
    for algorithm in algorithms() {
        let (mut sender, out, mut receiver, _) = pair(|config| {
            config.algorithm = algorithm;
            config.keys = keys(algorithm, 1);
        });
        let sa = sender.db.snapshot().sa(out).unwrap().clone();
        for len in 0..40 {
            let inner = ipv4(17, &vec![7; len]);
            let sent = sender.encrypt(&inner, out).unwrap();
            let text = (inner.len() + 2).next_multiple_of(if algorithm.is_aead() { 4 } else { 16 });
            assert_eq!(
                sent.len(),
                20 + 8 + algorithm.iv_len() + text + algorithm.icv_len(),
                "{algorithm}"
            );
            assert_eq!(sent.len(), inner.len() + sa.overhead(inner.len()));
            assert_eq!(receiver.decrypt(&sent).unwrap(), inner, "{algorithm}");
        }
        // The longest packet for an MTU makes none above it, and one byte more does.
        for mtu in [1280, 1400, 1500, 1501, 9000] {
            let len = sa.max_len(mtu);
            assert!(
                len + sa.overhead(len) <= mtu && len + 1 + sa.overhead(len + 1) > mtu,
                "{algorithm} {mtu}"
            );
        }
    }
}

#[test]
fn families_inside_and_outside() {
    for (source, destination) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
        for nat_traversal in [None, Some(PORTS)] {
            for algorithm in algorithms() {
                let (mut sender, out, mut receiver, _) = pair(|config| {
                    config.source = Some(source.parse().unwrap());
                    config.destination = destination.parse().unwrap();
                    config.nat_traversal = nat_traversal;
                    config.algorithm = algorithm;
                    config.keys = keys(algorithm, 1);
                });
                for inner in [
                    ipv4(6, &[1; 100]),
                    ipv6(6, &[1; 99], 0),
                    ipv6(59, &[], 0),
                    ipv4(1, &[]),
                ] {
                    let sent = sender.encrypt(&inner, out).unwrap();
                    let (ip_len, next) = if source.contains('.') {
                        (20, sent[9])
                    } else {
                        (40, sent[6])
                    };
                    match nat_traversal {
                        None => assert_eq!(next, 50),
                        Some(_) => {
                            assert_eq!(next, 17);
                            assert_eq!(sent[ip_len..ip_len + 4], [0x11, 0x94, 0x11, 0x95]);
                            let udp_len = (sent.len() - ip_len) as u16;
                            assert_eq!(sent[ip_len + 4..ip_len + 6], udp_len.to_be_bytes());
                            if ip_len == 20 {
                                assert_eq!(sent[ip_len + 6..ip_len + 8], [0, 0]);
                            } else {
                                // RFC 8200, section 8.1: UDP over IPv6 has a checksum.
                                let pseudo = octoplane_packet::checksum::pseudo_header(
                                    &sent[8..24],
                                    &sent[24..40],
                                    17,
                                    sent.len() - ip_len,
                                );
                                let sum = octoplane_packet::checksum::sum(&sent[40..]);
                                assert_eq!(octoplane_packet::checksum::fold(pseudo + sum), 0xffff);
                            }
                        }
                    }
                    // What Ethernet adds to short frames does not matter.
                    let padded = [&sent[..], &[0; 9]].concat();
                    assert_eq!(receiver.decrypt(&padded).unwrap(), inner, "{algorithm}");
                }
            }
        }
    }
}

#[test]
fn transport_mode_keeps_the_header() {
    for nat_traversal in [None, Some(PORTS)] {
        for algorithm in algorithms() {
            let (mut sender, out, mut receiver, _) = pair(|config| {
                config.mode = Mode::Transport;
                config.nat_traversal = nat_traversal;
                config.algorithm = algorithm;
                config.keys = keys(algorithm, 1);
                config.source = Some("10.0.0.1".parse().unwrap());
                config.destination = "10.0.0.2".parse().unwrap();
            });
            // With header options (a router alert).
            let mut options = ipv4_with(47, &[&[0x94, 4, 0, 0][..], &[9; 33]].concat(), 0xb8, 0x4000);
            options[0] = 0x46;
            options[10..12].fill(0);
            let sum = octoplane_packet::checksum::checksum(&options[..24]);
            options[10..12].copy_from_slice(&sum.to_be_bytes());
            for (inner, header_len) in [(ipv4_with(47, &[3; 61], 0x0a, 0), 20), (options, 24)] {
                let sent = sender.encrypt(&inner, out).unwrap();
                assert!(header_ok(&sent));
                assert_eq!(sent[1], inner[1]);
                assert_eq!(sent[4..9], inner[4..9]);
                assert_eq!(sent[9], if nat_traversal.is_some() { 17 } else { 50 });
                assert_eq!(sent[12..header_len], inner[12..header_len]);
                assert_eq!(sent[2..4], (sent.len() as u16).to_be_bytes());
                assert_eq!(receiver.decrypt(&sent).unwrap(), inner, "{algorithm}");
            }
            assert_eq!(
                sender.encrypt(&ipv4_with(17, &[0; 8], 0, 0x2000), out),
                Err(Cause::Fragment)
            );
        }
    }
}

#[test]
fn transport_mode_and_extension_headers() {
    let (mut sender, out, mut receiver, _) = pair(|config| {
        config.mode = Mode::Transport;
        config.source = Some("fd00::1".parse().unwrap());
        config.destination = "fd00::2".parse().unwrap();
    });
    // Hop-by-hop options stay in front of ESP, destination options go into it (RFC 4303, section 3.1.1).
    let payload = [
        &[60, 0, 1, 4, 0, 0, 0, 0][..],
        &[17, 0, 1, 4, 0, 0, 0, 0],
        &[0; 24],
    ]
    .concat();
    let inner = ipv6(0, &payload, 0x2e);
    let sent = sender.encrypt(&inner, out).unwrap();
    assert_eq!((sent[6], sent[40]), (0, 50));
    assert_eq!(sent[48..52], [0x12, 0x34, 0x56, 0x78]);
    assert_eq!(sent[..2], inner[..2]);
    assert_eq!(receiver.decrypt(&sent).unwrap(), inner);
    let fragment = ipv6(44, &[17, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], 0);
    assert_eq!(sender.encrypt(&fragment, out), Err(Cause::Fragment));
}

/// RFC 3948, section 3.1.2: what a translator did to the addresses must not make TCP and UDP checksums wrong.
#[test]
fn transport_mode_through_a_translator() {
    let (mut sender, out, mut receiver, _) = pair(|config| {
        config.mode = Mode::Transport;
        config.nat_traversal = Some(PORTS);
        config.source = None.or(config.source);
        if config.direction == Direction::Inbound {
            config.source = None;
        }
        config.destination = "10.0.0.2".parse().unwrap();
    });
    for (protocol, at, len) in [(6, 16, 20), (17, 6, 8)] {
        let mut segment = vec![0x11; len];
        segment[4..6].copy_from_slice(&(len as u16).to_be_bytes());
        segment[at..at + 2].fill(0);
        let sum = |src: [u8; 4], segment: &[u8]| {
            let pseudo =
                octoplane_packet::checksum::pseudo_header(&src, &[10, 0, 0, 2], protocol, segment.len());
            octoplane_packet::checksum::fold(pseudo + octoplane_packet::checksum::sum(segment))
        };
        let checksum = !sum([10, 0, 0, 1], &segment);
        segment[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        let mut sent = sender.encrypt(&ipv4(protocol, &segment), out).unwrap();
        // The translator puts another source address.
        sent[12..16].copy_from_slice(&[198, 51, 100, 7]);
        sent[10..12].fill(0);
        let header = octoplane_packet::checksum::checksum(&sent[..20]);
        sent[10..12].copy_from_slice(&header.to_be_bytes());
        let got = receiver.decrypt(&sent).unwrap();
        assert_eq!(got[12..16], [198, 51, 100, 7]);
        assert_eq!(sum([198, 51, 100, 7], &got[20..]), 0xffff, "protocol {protocol}");
    }
}

#[test]
fn dscp_ecn_and_fragmentation_outwards() {
    for (dscp, ecn, inner_class, expected) in [
        (Dscp::Copy, true, 0xba, 0xba),
        (Dscp::Copy, false, 0xba, 0xb8),
        (Dscp::Set(10), true, 0xbb, 0x2b),
        (Dscp::Set(10), false, 0xbb, 0x28),
    ] {
        for destination in ["192.0.2.2", "2001:db8::2"] {
            let (mut sender, out, ..) = pair(|config| {
                config.outer.dscp = dscp;
                config.outer.ecn = ecn;
                config.outer.hop_limit = 7;
                if destination.contains(':') {
                    config.source = Some("2001:db8::1".parse().unwrap());
                }
                config.destination = destination.parse().unwrap();
            });
            for inner in [
                ipv4_with(17, &[0; 9], inner_class, 0),
                ipv6(17, &[0; 9], inner_class),
            ] {
                let sent = sender.encrypt(&inner, out).unwrap();
                let (class, hop_limit) = match sent[0] >> 4 {
                    4 => (sent[1], sent[8]),
                    _ => (sent[0] << 4 | sent[1] >> 4, sent[7]),
                };
                assert_eq!((class, hop_limit), (expected, 7));
            }
        }
    }
    for (dont_fragment, inner, expected) in [
        (DontFragment::Copy, ipv4_with(17, &[], 0, 0x4000), 0x40),
        (DontFragment::Copy, ipv4_with(17, &[], 0, 0), 0),
        (DontFragment::Copy, ipv6(59, &[], 0), 0x40),
        (DontFragment::Set, ipv4_with(17, &[], 0, 0), 0x40),
        (DontFragment::Clear, ipv4_with(17, &[], 0, 0x4000), 0),
        // A fragment inside says nothing of the packet outside.
        (DontFragment::Copy, ipv4_with(17, &[0; 8], 0, 0x2000), 0),
    ] {
        let (mut sender, out, mut receiver, _) = pair(|config| config.outer.dont_fragment = dont_fragment);
        let sent = sender.encrypt(&inner, out).unwrap();
        assert_eq!(sent[6..8], [expected, 0], "{dont_fragment:?}");
        assert_eq!(receiver.decrypt(&sent).unwrap(), inner);
    }
}

/// RFC 6040, figure 4, through the whole of it, with the inner header's checksum.
#[test]
fn ecn_inwards() {
    for inner_ecn in 0..4u8 {
        for outer_ecn in 0..4u8 {
            for ipv4_inside in [true, false] {
                for enabled in [true, false] {
                    let (mut sender, out, mut receiver, _) = pair(|config| config.outer.ecn = enabled);
                    let class = 0x28 | inner_ecn;
                    let inner = if ipv4_inside {
                        ipv4_with(17, &[1; 30], class, 0)
                    } else {
                        ipv6(17, &[1; 30], class)
                    };
                    let mut sent = sender.encrypt(&inner, out).unwrap();
                    sent[1] = sent[1] & !3 | outer_ecn;
                    let expected = match (enabled, inner_ecn, outer_ecn) {
                        (false, ..) => Some(inner_ecn),
                        (_, 0, 3) => None,
                        (_, 0, _) => Some(0),
                        (_, 3, _) | (_, _, 3) => Some(3),
                        (_, _, 1) => Some(1),
                        _ => Some(inner_ecn),
                    };
                    let got = receiver.decrypt(&sent);
                    let Some(expected) = expected else {
                        assert_eq!(got, Err(Cause::Ecn));
                        continue;
                    };
                    let expected = if ipv4_inside {
                        ipv4_with(17, &[1; 30], 0x28 | expected, 0)
                    } else {
                        ipv6(17, &[1; 30], 0x28 | expected)
                    };
                    assert_eq!(got.unwrap(), expected);
                }
            }
        }
    }
}

/// Sequence numbers across 2^32: the packet carries the lower half, the ICV covers all of it.
#[test]
fn numbers_of_64_bits_go_on_behind_32() {
    for algorithm in algorithms() {
        let (mut sender, mut receiver) = (common::lab::Node::new(), common::lab::Node::new());
        let with = |direction| {
            let mut config = config(direction, algorithm);
            config.keys = keys(algorithm, 9);
            config
        };
        // Both ends start shortly before the turn, as after some years.
        let start = (1 << 32) - 5;
        let key = |kind| octoplane_esp::store::RecordKey {
            fingerprint: keys(algorithm, 9).fingerprint(),
            kind,
        };
        let mut store = octoplane_esp::store::MemoryStore::default();
        use octoplane_esp::store::{RecordKind, SequenceStore};
        store
            .put(&[
                (key(RecordKind::Outbound), start),
                (key(RecordKind::Inbound), start - 1),
            ])
            .unwrap();
        for node in [&mut sender, &mut receiver] {
            node.db = octoplane_esp::db::Database::new(Box::new(store.clone()), Default::default());
            node.reader = node.db.reader();
        }
        let out = sender.add(with(Direction::Outbound));
        receiver.add(with(Direction::Inbound));
        let inner = ipv4(17, &[5; 40]);
        let sent: Vec<_> = (0..10).map(|_| sender.encrypt(&inner, out).unwrap()).collect();
        assert_eq!(sent[4][24..28], [0xff; 4]);
        assert_eq!(sent[5][24..28], [0; 4]);
        // Late ones of both sides of the turn are found right.
        for index in [6, 3, 0, 9, 1, 2, 4, 5, 7, 8] {
            assert_eq!(
                receiver.decrypt(&sent[index]),
                Ok(inner.clone()),
                "{algorithm} {index}"
            );
        }
        for packet in &sent {
            assert_eq!(
                receiver.decrypt(packet),
                Err(Cause::ReplayDuplicate),
                "{algorithm}"
            );
        }
        let sa = receiver.db.snapshot().sad.iter().next().unwrap().clone();
        assert_eq!(sa.highest_accepted(), start + 9);
    }
}

#[test]
fn ivs_of_cbc_cannot_be_foretold_and_differ() {
    let algorithm = Algorithm::CbcHmac(octoplane_esp::AesKey::Aes128, octoplane_esp::Hmac::Sha256);
    let mut ivs = std::collections::HashSet::new();
    for _ in 0..3 {
        let (mut sender, out, ..) = pair(|config| {
            config.algorithm = algorithm;
            config.keys = keys(algorithm, 1);
        });
        for _ in 0..100 {
            let sent = sender.encrypt(&ipv4(17, &[0; 30]), out).unwrap();
            // Also the same number with the same key differs from one start to the next.
            assert!(ivs.insert(sent[28..44].to_vec()));
            assert!(sent[28..44].iter().any(|byte| *byte != 0));
        }
    }
}
