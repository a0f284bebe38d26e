//! Everything that has to be refused, each for its own cause, and each counted.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::time::Duration;

use common::lab::{GCM128, Node, config, ipv4, ipv6, pair};
use octoplane_esp::db::{Change, ChangeError, Options};
use octoplane_esp::sa::{InnerSelector, Lifetime, Mark, NatTraversal, SaConfig};
use octoplane_esp::{Algorithm, Cause, Direction, Hmac, Mode, SaId};
use octoplane_packet::{HeapBuf, PacketBuf};

const PORTS: NatTraversal = NatTraversal {
    source_port: 4500,
    destination_port: 4500,
};

/// Checks that a packet is refused for this cause, and that worker and security association count it once.
fn refused(node: &mut Node, sa: Option<SaId>, packet: &[u8], cause: Cause) {
    let snapshot = node.db.snapshot().clone();
    let counts = |node: &Node| {
        let sa = sa.map_or(0, |sa| snapshot.sa(sa).unwrap().errors(cause));
        (node.inbound.counters().get(cause), sa)
    };
    let before = counts(node);
    assert_eq!(node.decrypt(packet), Err(cause));
    let after = counts(node);
    assert_eq!(
        after,
        (before.0 + 1, before.1 + u64::from(sa.is_some())),
        "{cause:?}"
    );
}

fn reseal_header(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = octoplane_packet::checksum::checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn spis_and_addresses() {
    let (mut sender, out, mut receiver, _) = pair(|_| {});
    let sent = sender.encrypt(&ipv4(17, &[0; 64]), out).unwrap();
    for at in [12, 16, 20, 23] {
        let mut wrong = sent.clone();
        wrong[at] ^= 1;
        refused(&mut receiver, None, &wrong, Cause::UnknownSpi);
    }
    assert!(receiver.decrypt(&sent).is_ok());
}

#[test]
fn integrity() {
    let algorithms = common::lab::algorithms();
    for algorithm in algorithms {
        let (mut sender, out, mut receiver, inbound) = pair(|config| {
            config.algorithm = algorithm;
            config.keys = common::lab::keys(algorithm, 1);
        });
        let inner = ipv4(17, &[0; 64]);
        let sent = sender.encrypt(&inner, out).unwrap();
        // Sequence number, IV, ciphertext, ICV.
        for at in [27, 28, 36, 60, sent.len() - 1] {
            let mut wrong = sent.clone();
            wrong[at] ^= 0x40;
            refused(&mut receiver, Some(inbound), &wrong, Cause::Auth);
        }
        // None of them moved the window.
        assert_eq!(receiver.decrypt(&sent), Ok(inner), "{algorithm}");
    }
}

#[test]
fn replay() {
    for esn in [false, true] {
        let (mut sender, out, mut receiver, inbound) = pair(|config| config.esn = esn);
        let sent: Vec<_> = (0..100)
            .map(|_| sender.encrypt(&ipv4(17, &[0; 64]), out).unwrap())
            .collect();
        assert!(receiver.decrypt(&sent[99]).is_ok());
        refused(&mut receiver, Some(inbound), &sent[99], Cause::ReplayDuplicate);
        // Window 64: numbers 37 to 100. With ESN, what is older looks like a number yet to come, and its ICV tells (RFC
        // 4303, appendix A2.2).
        let old = if esn { Cause::Auth } else { Cause::ReplayOld };
        refused(&mut receiver, Some(inbound), &sent[35], old);
        assert!(receiver.decrypt(&sent[36]).is_ok());
        refused(&mut receiver, Some(inbound), &sent[36], Cause::ReplayDuplicate);
    }
}

#[test]
fn replay_within_a_burst() {
    let (mut sender, out, mut receiver, _) = pair(|_| {});
    let sent = sender.encrypt(&ipv4(17, &[0; 64]), out).unwrap();
    let results = receiver.decrypt_all(vec![sent.clone(), sent.clone(), sent]);
    assert!(results[0].is_ok());
    assert_eq!(
        results[1..],
        [Err(Cause::ReplayDuplicate), Err(Cause::ReplayDuplicate)]
    );
    assert_eq!(receiver.inbound.counters().get(Cause::ReplayDuplicate), 2);
}

#[test]
fn without_a_window_everything_passes_again() {
    let (mut sender, out, mut receiver, _) = pair(|config| {
        config.replay_window = 0;
        config.esn = false;
    });
    let sent = sender.encrypt(&ipv4(17, &[0; 64]), out).unwrap();
    for _ in 0..3 {
        assert!(receiver.decrypt(&sent).is_ok());
    }
}

#[test]
fn truncated_at_every_length() {
    for algorithm in [
        GCM128,
        Algorithm::CbcHmac(octoplane_esp::AesKey::Aes256, Hmac::Sha512),
    ] {
        let (mut sender, out, mut receiver, _) = pair(|config| {
            config.algorithm = algorithm;
            config.keys = common::lab::keys(algorithm, 1);
        });
        let sent = sender.encrypt(&ipv4(17, &[0; 64]), out).unwrap();
        for len in 0..sent.len() {
            // As the network would have it: lengths of IP and packet differ.
            let cause = receiver.decrypt(&sent[..len]).unwrap_err();
            assert_eq!(
                cause,
                if len < 20 {
                    Cause::TooShort
                } else {
                    Cause::Malformed
                }
            );
            if len < 20 {
                continue;
            }
            // As somebody on the way would: the header agrees.
            let mut cut = sent[..len].to_vec();
            cut[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            reseal_header(&mut cut);
            let cause = receiver.decrypt(&cut).unwrap_err();
            let least = 20 + 8 + algorithm.iv_len() + 2 + algorithm.icv_len();
            if len < least {
                assert_eq!(cause, Cause::TooShort, "{len}");
            } else if (len - least + 2) % algorithm.alignment() != 0 {
                assert_eq!(cause, Cause::Malformed, "{len}");
            } else {
                assert_eq!(cause, Cause::Auth, "{len}");
            }
        }
        assert!(receiver.decrypt(&sent).is_ok());
    }
}

#[test]
fn what_is_inside() {
    let (mut sender, out, mut receiver, inbound) = pair(|_| {});
    let inner = ipv4(17, &[0; 40]);
    let with = |inner: &[u8], trailer: &[u8]| [inner, trailer].concat();
    for (text, cause) in [
        // Padding that is not 1, 2, ... (RFC 4303, section 2.4), and more of it than there are bytes.
        (with(&inner[..58], &[1, 3, 0, 0, 2, 4]), Cause::Padding),
        (with(&inner, &[2, 1, 2, 4]), Cause::Padding),
        (with(&inner, &[0, 0, 255, 4]), Cause::Padding),
        // Dummy packets (section 2.6).
        (with(&[0; 60], &[1, 2, 2, 59]), Cause::Dummy),
        // No IP packet, in tunnel mode.
        (with(&inner, &[1, 2, 2, 17]), Cause::WrongMode),
        // IPv4 that says it is IPv6, and the other way round.
        (with(&inner, &[1, 2, 2, 41]), Cause::WrongMode),
        (with(&ipv6(17, &[0; 20], 0), &[1, 2, 2, 4]), Cause::WrongMode),
        // A length beyond the payload.
        (with(&ipv4(17, &[0; 44])[..60], &[1, 2, 2, 4]), Cause::Malformed),
        (with(&[0x15; 60], &[1, 2, 2, 4]), Cause::Malformed),
    ] {
        let sent = sender.seal_raw(out, &text);
        refused(&mut receiver, Some(inbound), &sent, cause);
    }
    // Padding against traffic analysis, behind the packet inside, is cut off (section 2.7).
    let sent = sender.seal_raw(out, &with(&inner, &[7, 7, 7, 7, 1, 2, 2, 4]));
    assert_eq!(receiver.decrypt(&sent), Ok(inner));
}

#[test]
fn inner_selectors() {
    let selector = |source: &str, destination: &str| InnerSelector {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    };
    for (selectors, ipv4_ok, ipv6_ok) in [
        (vec![selector("10.0.0.0/24", "10.0.0.2/32")], true, false),
        (vec![selector("10.0.1.0/24", "10.0.0.2/32")], false, false),
        (vec![selector("10.0.0.0/24", "10.0.0.3/32")], false, false),
        (vec![selector("::/0", "::/0")], false, true),
        (vec![selector("0.0.0.0/0", "0.0.0.0/0")], true, false),
        (
            vec![
                selector("10.9.0.0/16", "0.0.0.0/0"),
                selector("fd00::/64", "fd00::2/128"),
            ],
            false,
            true,
        ),
    ] {
        let (mut sender, out, mut receiver, inbound) = pair(|config| config.inner.clone_from(&selectors));
        for (inner, ok) in [(ipv4(17, &[0; 9]), ipv4_ok), (ipv6(17, &[0; 9], 0), ipv6_ok)] {
            let sent = sender.encrypt(&inner, out).unwrap();
            match ok {
                true => assert_eq!(receiver.decrypt(&sent), Ok(inner)),
                false => refused(&mut receiver, Some(inbound), &sent, Cause::Selector),
            }
        }
    }
}

#[test]
fn fragments_and_other_protocols() {
    let (mut sender, out, mut receiver, _) = pair(|_| {});
    let sent = sender.encrypt(&ipv4(17, &[0; 64]), out).unwrap();
    for flags in [0x2000u16, 0x0001, 0x2001] {
        let mut fragment = sent.clone();
        fragment[6..8].copy_from_slice(&flags.to_be_bytes());
        reseal_header(&mut fragment);
        refused(&mut receiver, None, &fragment, Cause::Fragment);
    }
    refused(&mut receiver, None, &ipv4(6, &[0; 40]), Cause::NotEsp);
    refused(&mut receiver, None, &[], Cause::TooShort);
    refused(&mut receiver, None, &[0x20; 60], Cause::Malformed);
}

#[test]
fn udp_encapsulation() {
    let udp = |payload: &[u8]| {
        let mut datagram = vec![0x11, 0x94, 0x11, 0x94, 0, (8 + payload.len()) as u8, 0, 0];
        datagram.extend(payload);
        ipv4(17, &datagram)
    };
    let (mut sender, out, mut receiver, inbound) = pair(|config| config.nat_traversal = Some(PORTS));
    refused(&mut receiver, None, &udp(&[0xff]), Cause::Keepalive);
    refused(
        &mut receiver,
        None,
        &udp(&[0, 0, 0, 0, 1, 2, 3, 4]),
        Cause::NotEsp,
    );
    refused(&mut receiver, None, &udp(&[1, 2]), Cause::TooShort);
    refused(&mut receiver, None, &ipv4(17, &[0; 7]), Cause::TooShort);
    let mut long = udp(&[1; 8]);
    long[25] += 1;
    refused(&mut receiver, None, &long, Cause::Malformed);
    // Without UDP what should be in it, and the other way round.
    let sent = sender.encrypt(&ipv4(17, &[0; 64]), out).unwrap();
    let (mut plain_sender, plain_out, mut plain_receiver, plain_inbound) = pair(|_| {});
    let plain = plain_sender.encrypt(&ipv4(17, &[0; 64]), plain_out).unwrap();
    refused(&mut receiver, Some(inbound), &plain, Cause::Encapsulation);
    refused(
        &mut plain_receiver,
        Some(plain_inbound),
        &sent,
        Cause::Encapsulation,
    );
    // A datagram that ends before the packet does.
    let padded = {
        let mut padded = [&sent[..], &[0; 8]].concat();
        let len = padded.len() as u16;
        padded[2..4].copy_from_slice(&len.to_be_bytes());
        reseal_header(&mut padded);
        padded
    };
    assert_eq!(receiver.decrypt(&padded), Ok(ipv4(17, &[0; 64])));
}

#[test]
fn outbound_refusals() {
    let (mut sender, out, mut receiver, inbound) = pair(|_| {});
    for (packet, cause) in [
        (vec![], Cause::TooShort),
        (vec![0x45; 12], Cause::TooShort),
        (vec![0x75; 40], Cause::Malformed),
        (ipv4(17, &[0; 40])[..50].to_vec(), Cause::Malformed),
    ] {
        let before = sender.outbound.counters().get(cause);
        assert_eq!(sender.encrypt(&packet, out), Err(cause));
        assert_eq!(sender.outbound.counters().get(cause), before + 1);
    }
    // One that does not encrypt, and one that is not there (any more).
    assert_eq!(receiver.encrypt(&ipv4(17, &[]), inbound), Err(Cause::NoSa));
    let gone = SaId {
        generation: out.generation + 1,
        ..out
    };
    assert_eq!(sender.encrypt(&ipv4(17, &[]), gone), Err(Cause::NoSa));
    // What is behind the packet is cut off, what does not fit into the buffer refused.
    let inner = ipv4(17, &[0; 40]);
    let sent = sender.encrypt(&[&inner[..], &[9; 20]].concat(), out).unwrap();
    assert_eq!(receiver.decrypt(&sent), Ok(inner.clone()));
    let mut no_headroom = HeapBuf::new(&inner);
    let room = no_headroom.headroom();
    no_headroom.prepend(room).unwrap()[..inner.len()].copy_from_slice(&inner);
    let mut no_tailroom = HeapBuf::new(&inner);
    let room = no_tailroom.tailroom();
    let data = no_tailroom.append(room).unwrap();
    let len = data.len() as u16;
    data[2..4].copy_from_slice(&len.to_be_bytes());
    for buf in [no_headroom, no_tailroom] {
        let mut packets = vec![octoplane_esp::ToEncrypt {
            buf,
            sa: out,
            cookie: [0; 3],
        }];
        let (mut jobs, mut refused) = (Vec::new(), Vec::new());
        let snapshot = sender.reader.load();
        sender
            .outbound
            .prepare(&snapshot.sad, 0, &mut packets, &mut jobs, &mut refused);
        assert!(jobs.is_empty());
        assert_eq!(refused[0].outcome, Err(Cause::NoRoom));
    }
}

#[test]
fn an_association_removed_while_packets_are_under_way() {
    let (mut sender, out, mut receiver, inbound) = pair(|_| {});
    let inner = ipv4(17, &[0; 64]);
    let sent = sender.encrypt(&inner, out).unwrap();
    // Before the cryptography.
    let (jobs, _) = sender.prepare(vec![(inner, out)]);
    let key = config(Direction::Outbound, GCM128).key();
    sender.db.apply(0, vec![Change::DeleteSa(key)]).unwrap();
    let mut jobs = sender.run(jobs);
    let mut done = Vec::new();
    let snapshot = sender.reader.load();
    sender.outbound.finish(&snapshot.sad, &mut jobs, &mut done);
    assert_eq!(done[0].outcome, Err(Cause::NoSa));
    // After it, and its place taken by another.
    let mut packets = vec![octoplane_esp::ToDecrypt {
        buf: HeapBuf::new(&sent),
        mark: 0,
        cookie: [0; 3],
    }];
    let (mut jobs, mut done) = (Vec::new(), Vec::new());
    let snapshot = receiver.reader.load().clone();
    receiver
        .inbound
        .prepare(&snapshot.sad, 0, &mut packets, &mut jobs, &mut done);
    let mut jobs = receiver.run(jobs);
    let key = config(Direction::Inbound, GCM128).key();
    receiver.db.apply(0, vec![Change::DeleteSa(key)]).unwrap();
    let mut other = config(Direction::Inbound, GCM128);
    other.spi = 9;
    let other = receiver.add(other);
    assert_eq!(other.index, inbound.index);
    let snapshot = receiver.reader.load();
    receiver.inbound.finish(&snapshot.sad, &mut jobs, &mut done);
    assert_eq!(done[0].outcome, Err(Cause::NoSa));
}

#[test]
fn hard_limits_are_exact() {
    let inner = ipv4(17, &[0; 42]); // 62 bytes, encrypted 64.
    for (lifetime, passes) in [
        (
            Lifetime {
                hard_packets: Some(70),
                ..Lifetime::default()
            },
            70,
        ),
        // 640 bytes are full after ten packets.
        (
            Lifetime {
                hard_bytes: Some(640),
                ..Lifetime::default()
            },
            10,
        ),
        (
            Lifetime {
                hard_bytes: Some(641),
                ..Lifetime::default()
            },
            11,
        ),
    ] {
        // Outbound, in bursts beyond the limit.
        let (mut sender, out, ..) = pair(|config| config.lifetime = lifetime);
        let results: Vec<_> = (0..3)
            .flat_map(|_| sender.encrypt_all(vec![(inner.clone(), out); 50]))
            .collect();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), passes);
        assert!(
            results
                .iter()
                .all(|result| !matches!(result, Err(cause) if *cause != Cause::Expired))
        );
        assert_eq!(
            sender.outbound.counters().get(Cause::Expired),
            150 - passes as u64
        );
        // Inbound.
        let (mut sender, out, mut receiver, _) = pair(|config| {
            config.replay_window = 4096;
            if config.direction == Direction::Inbound {
                config.lifetime = lifetime;
            }
        });
        let sent: Vec<_> = (0..150).map(|_| sender.encrypt(&inner, out).unwrap()).collect();
        let results: Vec<_> = sent
            .chunks(50)
            .flat_map(|burst| receiver.decrypt_all(burst.to_vec()))
            .collect();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), passes);
        assert_eq!(
            receiver.inbound.counters().get(Cause::Expired),
            150 - passes as u64
        );
    }
}

#[test]
fn time_runs_out() {
    let (mut sender, out, mut receiver, inbound) = pair(|config| {
        config.lifetime.hard_time = Some(Duration::from_nanos(500));
    });
    let inner = ipv4(17, &[]);
    // Added at 1,000.
    sender.now = 1_499;
    let sent = sender.encrypt(&inner, out).unwrap();
    let late = sender.encrypt(&inner, out).unwrap();
    sender.now = 1_500;
    assert_eq!(sender.encrypt(&inner, out), Err(Cause::Expired));
    receiver.now = 1_499;
    assert!(receiver.decrypt(&sent).is_ok());
    receiver.now = 1_500;
    refused(&mut receiver, Some(inbound), &late, Cause::Expired);
}

#[test]
fn numbers_run_out() {
    // Two numbers are reserved at a time.
    let mut sender = Node::with(Options {
        block_32: 2,
        ..Options::default()
    });
    let mut without_esn = config(Direction::Outbound, GCM128);
    without_esn.esn = false;
    let out = sender.add(without_esn);
    let inner = ipv4(17, &[]);
    let burst = |sender: &mut Node| -> Vec<bool> {
        let results = sender.encrypt_all(vec![(inner.clone(), out); 3]);
        assert!(
            results
                .iter()
                .all(|result| !matches!(result, Err(cause) if *cause != Cause::SequenceNotReserved))
        );
        results.iter().map(Result::is_ok).collect()
    };
    assert_eq!(burst(&mut sender), [true, true, false]);
    assert_eq!(burst(&mut sender), [false; 3]);
    assert_eq!(sender.db.tick(0), []);
    assert_eq!(burst(&mut sender), [true, true, false]);

    // At the end of 32 bits there are no more (RFC 4303, section 3.3.3).
    use octoplane_esp::store::{MemoryStore, RecordKey, RecordKind, SequenceStore};
    let mut store = MemoryStore::default();
    let record = RecordKey {
        fingerprint: config(Direction::Outbound, GCM128).keys.fingerprint(),
        kind: RecordKind::Outbound,
    };
    store.put(&[(record, 0xffff_fffe)]).unwrap();
    sender.db = octoplane_esp::db::Database::new(Box::new(store), Options::default());
    sender.reader = sender.db.reader();
    let mut without_esn = config(Direction::Outbound, GCM128);
    without_esn.esn = false;
    let out = sender.add(without_esn);
    let results = sender.encrypt_all(vec![(inner, out); 3]);
    assert_eq!(results[2], Err(Cause::SequenceExhausted));
    let numbers: Vec<_> = results[..2]
        .iter()
        .map(|packet| packet.as_ref().unwrap()[24..28].to_vec())
        .collect();
    assert_eq!(numbers, [[0xff, 0xff, 0xff, 0xfe], [0xff; 4]]);

    // Nor after a restart: it is there, and encrypts nothing. Nobody may add it as a new one.
    let mut store = MemoryStore::default();
    store.put(&[(record, 1 << 32)]).unwrap();
    sender.db = octoplane_esp::db::Database::new(Box::new(store), Options::default());
    sender.reader = sender.db.reader();
    let config = Box::new(SaConfig {
        esn: false,
        ..config(Direction::Outbound, GCM128)
    });
    let refused = sender
        .db
        .apply(0, vec![Change::PutSa(config.clone())])
        .unwrap_err();
    assert!(
        matches!(refused.error, ChangeError::Exhausted { .. }),
        "{refused}"
    );
    let key = config.key();
    sender.db.apply(0, vec![Change::RestoreSa(config)]).unwrap();
    let out = sender.db.snapshot().sad.find(&key).unwrap().id();
    let results = sender.encrypt_all(vec![(ipv4(17, &[]), out); 2]);
    assert_eq!(
        results,
        [Err(Cause::SequenceExhausted), Err(Cause::SequenceExhausted)]
    );
}

#[test]
fn marks() {
    let mut sender = Node::new();
    let mut receiver = Node::new();
    let mut inner = Vec::new();
    let mut sent = Vec::new();
    for (number, (value, mask)) in [(0, 0), (0x0a00, 0xff00), (0x0a07, 0xffff)]
        .into_iter()
        .enumerate()
    {
        let mut config = config(Direction::Inbound, GCM128);
        config.mark = Mark { value, mask };
        config.keys = common::lab::keys(GCM128, number as u8 + 1);
        receiver.add(config.clone());
        config.direction = Direction::Outbound;
        let out = sender.add(config);
        inner.push(ipv4(17, &[number as u8; 9]));
        sent.push(sender.encrypt(&inner[number], out).unwrap());
    }
    // The most particular mask decides.
    for (mark, number) in [(0x0b00, 0), (0x0a01, 1), (0x0a07, 2)] {
        let other = (number + 1) % 3;
        assert_eq!(
            receiver.decrypt_marked(vec![sent[other].clone()], mark),
            [Err(Cause::Auth)]
        );
        assert_eq!(
            receiver.decrypt_marked(vec![sent[number].clone()], mark),
            [Ok(inner[number].clone())]
        );
    }
}

#[test]
fn any_source_and_a_particular_one() {
    let (mut a, mut b) = (Node::new(), Node::new());
    let mut receiver = Node::new();
    let mut any = config(Direction::Inbound, GCM128);
    any.source = None;
    receiver.add(any);
    let mut particular = config(Direction::Inbound, GCM128);
    particular.keys = common::lab::keys(GCM128, 2);
    particular.source = Some("192.0.2.7".parse().unwrap());
    receiver.add(particular.clone());
    particular.direction = Direction::Outbound;
    let out_b = b.add(particular);
    let out_a = a.add(config(Direction::Outbound, GCM128));
    let inner = ipv4(17, &[]);
    for sent in [
        a.encrypt(&inner, out_a).unwrap(),
        b.encrypt(&inner, out_b).unwrap(),
    ] {
        assert_eq!(receiver.decrypt(&sent), Ok(inner.clone()));
    }
}

#[test]
fn transport_mode_carries_no_dummies() {
    let (mut sender, out, mut receiver, _) = pair(|config| {
        config.mode = Mode::Transport;
        config.destination = "10.0.0.2".parse().unwrap();
        config.source = Some("10.0.0.1".parse().unwrap());
    });
    let sent = sender.encrypt(&ipv4(59, &[0; 20]), out).unwrap();
    assert_eq!(receiver.decrypt(&sent), Err(Cause::Dummy));
}
