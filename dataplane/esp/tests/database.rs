//! The database: transactions, rekeying, restarts, nodes, lifetimes.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::lab::{GCM128, Node, config, ipv4, keys};
use octoplane_esp::cilium::KeyIndex;
use octoplane_esp::db::{
    Change, ChangeError, Database, Event, Limit, NodeConfig, Options, PolicyConfig, PortRange,
};
use octoplane_esp::sa::{Lifetime, Mark, SaConfig};
use octoplane_esp::store::{FileStore, MemoryStore, RecordKey, SequenceStore, StoreError};
use octoplane_esp::view::{Action, NodeDecision, PolicyQuery};
use octoplane_esp::{Cause, Direction};

fn out(spi: u32, seed: u8) -> SaConfig {
    let mut config = config(Direction::Outbound, GCM128);
    config.spi = spi;
    config.keys = keys(GCM128, seed);
    config
}

fn inbound(spi: u32, seed: u8) -> SaConfig {
    SaConfig {
        direction: Direction::Inbound,
        ..out(spi, seed)
    }
}

fn put(config: &SaConfig) -> Change {
    Change::PutSa(Box::new(config.clone()))
}

fn new() -> Database {
    Database::new(Box::new(MemoryStore::default()), Options::default())
}

fn error(db: &mut Database, changes: Vec<Change>) -> String {
    let before = db.snapshot().revision;
    let error = db.apply(0, changes).unwrap_err().to_string();
    assert_eq!(db.snapshot().revision, before, "nothing was published");
    error
}

fn policy(id: u32, destination: &str, action: Action) -> PolicyConfig {
    let destination: octoplane_packet::Prefix = destination.parse().unwrap();
    PolicyConfig {
        id,
        direction: Direction::Outbound,
        priority: 10,
        source: if destination.addr().is_ipv4() {
            "0.0.0.0/0"
        } else {
            "::/0"
        }
        .parse()
        .unwrap(),
        destination,
        protocol: None,
        source_ports: PortRange::ANY,
        destination_ports: PortRange::ANY,
        mark: Mark::default(),
        action,
    }
}

#[test]
fn mistakes_are_named_and_nothing_of_the_transaction_stays() {
    let mut db = new();
    db.apply(0, vec![put(&out(1, 1)), Change::PutTunnel(0, out(1, 1).key())])
        .unwrap();
    let bad = |change: &dyn Fn(&mut SaConfig)| {
        let mut config = inbound(2, 2);
        change(&mut config);
        vec![put(&out(3, 3)), put(&config)]
    };
    for (changes, expected) in [
        (
            bad(&|c| c.spi = 0),
            "changes[1]: inbound sa spi 0x0 192.0.2.1 -> 192.0.2.2: spi: 0 is reserved",
        ),
        (
            bad(&|c| c.replay_window = 4097),
            "replay_window: 4097 packets, expected 0 to 4096",
        ),
        (
            bad(&|c| c.destination = "::1".parse().unwrap()),
            "are of different families",
        ),
        (
            bad(&|c| c.destination = "224.0.0.1".parse().unwrap()),
            "destination: 224.0.0.1 cannot be an end",
        ),
        (
            bad(&|c| c.mark.value = 1),
            "mark: value 0x1 has bits outside of the mask 0x0",
        ),
        (
            bad(&|c| c.outer.hop_limit = 0),
            "outer.hop_limit: 0, expected 1 to 255",
        ),
        (
            bad(&|c| c.lifetime.hard_bytes = Some(0)),
            "lifetime.hard_bytes: 0",
        ),
        (
            bad(&|c| {
                c.lifetime.hard_packets = Some(5);
                c.lifetime.soft_packets = Some(6);
            }),
            "lifetime.soft_packets is above hard_packets",
        ),
        (
            bad(&|c| c.keys = octoplane_esp::KeyMaterial::aead(&[0; 21])),
            "key: 17 bytes (without salt), expected 16",
        ),
        (
            bad(&|c| c.keys = keys(GCM128, 1)),
            "the same as those of outbound sa spi 0x1",
        ),
        (bad(&|c| c.keys = keys(GCM128, 3)), "nonces would be used twice"),
        (vec![put(&out(9, 1))], "the same as those of outbound sa spi 0x1"),
        (
            vec![Change::DeleteSa(out(1, 1).key())],
            "in use by 1 tunnels and nodes",
        ),
        (
            vec![Change::DeleteSa(out(8, 1).key())],
            "outbound sa spi 0x8 192.0.2.1 -> 192.0.2.2: not found",
        ),
        (vec![Change::PutTunnel(1, out(8, 1).key())], "not found"),
        (
            vec![put(&inbound(2, 2)), Change::PutTunnel(1, inbound(2, 2).key())],
            "changes[1]: inbound sa spi 0x2",
        ),
        (
            vec![Change::PutTunnel(1 << 20, out(1, 1).key())],
            "tunnel 1048576: expected 0 to 262143",
        ),
        (vec![Change::DeleteTunnel(7)], "tunnel 7: not found"),
        (
            vec![Change::PutPolicy(policy(1, "10.0.0.0/8", Action::Protect(5)))],
            "tunnel 5: not found",
        ),
        (vec![Change::DeletePolicy(1)], "policy 1: not found"),
        (
            vec![Change::PutPolicy(PolicyConfig {
                source: "::/0".parse().unwrap(),
                ..policy(1, "10.0.0.0/8", Action::Bypass)
            })],
            "policy 1: source ::/0 and destination 10.0.0.0/8 are of different families",
        ),
        (
            vec![Change::PutPolicy(PolicyConfig {
                destination_ports: PortRange { first: 80, last: 80 },
                ..policy(1, "10.0.0.0/8", Action::Bypass)
            })],
            "policy 1: destination_ports: ports without a protocol",
        ),
        (
            vec![
                Change::PutPolicy(policy(1, "10.0.0.0/8", Action::Protect(0))),
                Change::DeleteTunnel(0),
            ],
            "changes[1]: tunnel 0: in use by 1 policies",
        ),
        (
            vec![Change::DeleteNode("10.0.0.1".parse().unwrap())],
            "node 10.0.0.1: not found",
        ),
    ] {
        let text = error(&mut db, changes);
        assert!(text.contains(expected), "{text}\nexpected: {expected}");
    }
    assert_eq!(db.snapshot().sad.len(), 1);
    // Inbound ones may share keys, and keys that are not used any more may be used by another.
    db.apply(0, vec![put(&inbound(5, 5)), put(&inbound(6, 5))])
        .unwrap();
    assert!(error(&mut db, vec![put(&out(5, 5))]).contains("the same as those"));
    db.apply(0, vec![Change::DeleteSa(inbound(5, 5).key())]).unwrap();
    assert!(error(&mut db, vec![put(&out(5, 5))]).contains("the same as those of inbound sa spi 0x6"));
    db.apply(0, vec![Change::DeleteSa(inbound(6, 5).key()), put(&out(5, 5))])
        .unwrap();
}

#[test]
fn capacities() {
    let mut db = Database::new(
        Box::new(MemoryStore::default()),
        Options {
            max_sas: 2,
            max_policies: 1,
            max_nodes: 1,
            ..Options::default()
        },
    );
    db.apply(0, vec![put(&out(1, 1)), put(&out(2, 2))]).unwrap();
    assert!(error(&mut db, vec![put(&out(3, 3))]).contains("security association table is full: 2 entries"));
    // What is there may be replaced.
    db.apply(0, vec![put(&out(2, 4))]).unwrap();
    db.apply(
        0,
        vec![Change::PutPolicy(policy(1, "10.0.0.0/8", Action::Discard))],
    )
    .unwrap();
    let second = Change::PutPolicy(policy(2, "10.0.0.0/8", Action::Discard));
    assert!(error(&mut db, vec![second]).contains("policy table is full"));
    let mut marks = Vec::new();
    for value in 0..5 {
        let mut config = inbound(9, 9);
        config.mark = Mark { value, mask: 7 };
        marks.push(put(&config));
    }
    let mut db = new();
    assert!(error(&mut db, marks).contains("there are 4 that differ by mark alone"));
}

/// Make before break: at no moment is there a packet that cannot be sent or received.
#[test]
fn rekeying_loses_nothing() {
    let (mut a, mut b) = (Node::new(), Node::new());
    a.db.apply(0, vec![put(&out(1, 1)), Change::PutTunnel(7, out(1, 1).key())])
        .unwrap();
    b.db.apply(0, vec![put(&inbound(1, 1))]).unwrap();
    let inner = ipv4(17, &[1; 40]);
    let mut late = Vec::new();
    let mut send = |a: &mut Node, b: &mut Node, spi: u32| {
        let sa = a.reader.load().tunnel(7).unwrap();
        let sent = a.encrypt(&inner, sa).unwrap();
        assert_eq!(sent[20..24], spi.to_be_bytes());
        assert_eq!(b.decrypt(&sent), Ok(inner.clone()));
        late.push(a.encrypt(&inner, sa).unwrap());
    };
    send(&mut a, &mut b, 1);
    b.db.apply(0, vec![put(&inbound(2, 2))]).unwrap();
    send(&mut a, &mut b, 1);
    a.db.apply(0, vec![put(&out(2, 2))]).unwrap();
    send(&mut a, &mut b, 1);
    a.db.apply(0, vec![Change::PutTunnel(7, out(2, 2).key())])
        .unwrap();
    send(&mut a, &mut b, 2);
    a.db.apply(0, vec![Change::DeleteSa(out(1, 1).key())]).unwrap();
    send(&mut a, &mut b, 2);
    // What was under way all the time still arrives.
    for packet in late {
        assert_eq!(b.decrypt(&packet), Ok(inner.clone()));
    }
    b.db.apply(0, vec![Change::DeleteSa(inbound(1, 1).key())])
        .unwrap();
    assert_eq!(a.db.snapshot().sad.len(), 1);
    assert_eq!(b.db.snapshot().sad.len(), 1);
}

#[test]
fn put_again_with_the_same_keys_changes_no_number() {
    let (mut a, mut b) = (Node::new(), Node::new());
    let first = a.add(out(1, 1));
    let first_in = b.add(inbound(1, 1));
    a.db.apply(0, vec![Change::PutTunnel(0, out(1, 1).key())])
        .unwrap();
    let inner = ipv4(17, &[]);
    let sent: Vec<_> = (0..3).map(|_| a.encrypt(&inner, first).unwrap()).collect();
    assert!(b.decrypt(&sent[0]).is_ok());
    // The same once more: nothing happens.
    assert_eq!(a.add(out(1, 1)), first);
    // With another lifetime: numbers and window go on.
    let lifetime = Lifetime {
        hard_packets: Some(5),
        ..Lifetime::default()
    };
    let second = a.add(SaConfig {
        lifetime,
        ..out(1, 1)
    });
    let second_in = b.add(SaConfig {
        lifetime: Lifetime {
            soft_packets: Some(100),
            ..Lifetime::default()
        },
        ..inbound(1, 1)
    });
    assert!(second != first && second_in != first_in);
    assert_eq!(a.reader.load().tunnel(0), Some(second));
    assert_eq!(b.decrypt(&sent[0]), Err(Cause::ReplayDuplicate));
    assert!(b.decrypt(&sent[1]).is_ok());
    let next = a.encrypt(&inner, second).unwrap();
    assert_eq!(next[27], 4);
    // Three were sent before: the limit counts them.
    assert_eq!(
        a.encrypt_all(vec![(inner, second); 3])
            .iter()
            .filter(|r| r.is_ok())
            .count(),
        1
    );
    // What numbers hang on cannot change.
    let text = error(
        &mut a.db,
        vec![put(&SaConfig {
            esn: false,
            ..out(1, 1)
        })],
    );
    assert!(text.contains("cannot change while the keys stay"), "{text}");
    // With other keys everything starts anew, in the place of the old one (a peer that started again).
    let third = a.add(out(1, 9));
    assert_eq!(a.reader.load().tunnel(0), Some(third));
    assert_eq!(a.encrypt(&ipv4(17, &[]), third).unwrap()[27], 1);
    assert_eq!(a.encrypt(&ipv4(17, &[]), second), Err(Cause::NoSa));
}

/// Nonces are not used again after the process was killed, in any number of starts.
#[test]
fn numbers_survive_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sequence");
    let mut ivs = HashSet::new();
    let inner = ipv4(17, &[]);
    for start in 0..5 {
        let mut node = Node::new();
        let options = Options {
            block_esn: 10,
            ..Options::default()
        };
        node.db = Database::new(Box::new(FileStore::open(&path).unwrap()), options);
        node.reader = node.db.reader();
        let sa = node.add(out(1, 1));
        for _ in 0..7 {
            // Seven bursts of 3 need more than one block.
            for sent in node.encrypt_all(vec![(inner.clone(), sa); 3]) {
                assert!(ivs.insert(sent.unwrap()[28..36].to_vec()), "start {start}");
            }
            assert_eq!(node.db.tick(0), []);
        }
        // Killed here: nothing is written at the end. Also removing and adding goes on, not back.
        if start == 3 {
            node.db.apply(0, vec![Change::DeleteSa(out(1, 1).key())]).unwrap();
            let sa = node.add(out(1, 1));
            let sent = node.encrypt(&inner, sa).unwrap();
            assert!(ivs.insert(sent[28..36].to_vec()));
        }
    }
    assert_eq!(ivs.len(), 5 * 21 + 1);
}

#[test]
fn what_was_accepted_before_an_orderly_end_is_not_accepted_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sequence");
    let mut sender = Node::new();
    let sa = sender.add(out(1, 1));
    let inner = ipv4(17, &[]);
    let sent: Vec<_> = (0..20).map(|_| sender.encrypt(&inner, sa).unwrap()).collect();
    let start = |node: &mut Node| {
        node.db = new();
        node.db = Database::new(Box::new(FileStore::open(&path).unwrap()), Options::default());
        node.reader = node.db.reader();
        node.add(inbound(1, 1));
    };
    let mut receiver = Node::new();
    start(&mut receiver);
    for packet in &sent[..10] {
        assert!(receiver.decrypt(packet).is_ok());
    }
    receiver.db.checkpoint().unwrap();
    start(&mut receiver);
    for packet in &sent[..10] {
        assert!(receiver.decrypt(packet).is_err());
    }
    for packet in &sent[10..] {
        assert!(receiver.decrypt(packet).is_ok());
    }
}

/// Packets that the sender of `spi` at `source` makes with the keys of `seed`, as many as there are `numbers`.
fn sent_by(source: &str, spi: u32, seed: u8, numbers: usize) -> Vec<Vec<u8>> {
    let mut sender = Node::new();
    let sa = sender.add(SaConfig {
        source: Some(source.parse().unwrap()),
        ..out(spi, seed)
    });
    let inner = ipv4(17, &[]);
    let mut sent = Vec::new();
    while sent.len() < numbers {
        let burst = (numbers - sent.len()).min(256);
        let packets = sender.encrypt_all(vec![(inner.clone(), sa); burst]);
        sent.extend(packets.into_iter().map(Result::unwrap));
        sender.db.tick(0);
    }
    sent
}

fn accepted(node: &mut Node, packets: &[Vec<u8>]) -> usize {
    let results = packets
        .chunks(256)
        .flat_map(|some| node.decrypt_all(some.to_vec()));
    results.filter(Result::is_ok).count()
}

/// RFC 4303, section 3.4.3: a window belongs to one security association. Senders that share keys do not share numbers, and the
/// slower one of two is heard after a restart as before it, but nobody who repeats what they said.
#[test]
fn senders_with_the_same_keys_go_on_each_at_its_own_number() {
    const MANY: usize = 100_000;
    // By the sender, as where all nodes have one key, or by the SPI.
    for (fast, slow) in [
        (("192.0.2.1", 1), ("192.0.2.3", 1)),
        (("192.0.2.1", 1), ("192.0.2.1", 2)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sequence");
        let start = |node: &mut Node| {
            node.db = new();
            node.db = Database::new(Box::new(FileStore::open(&path).unwrap()), Options::default());
            node.reader = node.db.reader();
            for (source, spi) in [fast, slow] {
                node.add(SaConfig {
                    source: Some(source.parse().unwrap()),
                    ..inbound(spi, 1)
                });
            }
        };
        let from_fast = sent_by(fast.0, fast.1, 1, MANY + 1);
        let from_slow = sent_by(slow.0, slow.1, 1, 11);
        let mut receiver = Node::new();
        start(&mut receiver);
        assert_eq!(accepted(&mut receiver, &from_fast[..MANY]), MANY);
        assert_eq!(accepted(&mut receiver, &from_slow[..10]), 10);
        receiver.db.checkpoint().unwrap();
        start(&mut receiver);
        assert_eq!(accepted(&mut receiver, &from_slow[..10]), 0);
        assert_eq!(accepted(&mut receiver, &from_fast[..MANY]), 0);
        assert_eq!(accepted(&mut receiver, &from_slow[10..]), 1);
        assert_eq!(accepted(&mut receiver, &from_fast[MANY..]), 1);
        // Also those that go and come back without a restart.
        let key = SaConfig {
            source: Some(slow.0.parse().unwrap()),
            ..inbound(slow.1, 1)
        };
        let changes = vec![Change::DeleteSa(key.key())];
        receiver.db.apply(0, changes).unwrap();
        receiver.add(key);
        assert_eq!(accepted(&mut receiver, &from_slow), 0);
    }
}

/// Where there is one record for all that share keys, as there was once, none of them begins below it.
#[test]
fn a_record_of_all_senders_together_holds_for_each() {
    let mut store = MemoryStore::default();
    let shared = RecordKey::of_all_inbound(inbound(1, 1).keys.fingerprint());
    store.put(&[(shared, 20)]).unwrap();
    let disk = Flaky(Arc::new(Mutex::new((store, false))));
    let mut receiver = Node::new();
    let start = |node: &mut Node| {
        node.db = Database::new(Box::new(disk.clone()), Options::default());
        node.reader = node.db.reader();
        for source in ["192.0.2.1", "192.0.2.3"] {
            node.add(SaConfig {
                source: Some(source.parse().unwrap()),
                ..inbound(1, 1)
            });
        }
    };
    let packets = ["192.0.2.1", "192.0.2.3"].map(|source| sent_by(source, 1, 1, 60));
    start(&mut receiver);
    for sent in &packets {
        assert_eq!(accepted(&mut receiver, &sent[..20]), 0);
    }
    // From then on each has its own.
    assert_eq!(accepted(&mut receiver, &packets[0][20..]), 40);
    assert_eq!(accepted(&mut receiver, &packets[1][20..30]), 10);
    receiver.db.checkpoint().unwrap();
    start(&mut receiver);
    assert_eq!(accepted(&mut receiver, &packets[0]), 0);
    assert_eq!(accepted(&mut receiver, &packets[1]), 30);
}

/// A disk that fails when told to.
#[derive(Clone, Default)]
struct Flaky(Arc<Mutex<(MemoryStore, bool)>>);

impl SequenceStore for Flaky {
    fn get(&self, key: RecordKey) -> Option<u64> {
        self.0.lock().unwrap().0.get(key)
    }

    fn put(&mut self, records: &[(RecordKey, u64)]) -> Result<(), StoreError> {
        let mut inner = self.0.lock().unwrap();
        if inner.1 {
            return Err(StoreError::Full(0));
        }
        inner.0.put(records)
    }
}

#[test]
fn without_a_reservation_nothing_is_encrypted() {
    let disk = Flaky::default();
    let mut node = Node::new();
    let options = Options {
        block_esn: 4,
        ..Options::default()
    };
    node.db = Database::new(Box::new(disk.clone()), options);
    node.reader = node.db.reader();
    let fail = |fails| disk.0.lock().unwrap().1 = fails;

    fail(true);
    let refused = node
        .db
        .apply(0, vec![put(&inbound(2, 2)), put(&out(1, 1))])
        .unwrap_err();
    assert_eq!(refused.index, 1);
    assert!(
        matches!(refused.error, ChangeError::NotReserved { .. }),
        "{refused}"
    );
    assert!(node.db.snapshot().sad.is_empty());

    fail(false);
    let sa = node.add(out(1, 1));
    fail(true);
    let inner = ipv4(17, &[]);
    let results = node.encrypt_all(vec![(inner.clone(), sa); 6]);
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 4);
    assert_eq!(results[5], Err(Cause::SequenceNotReserved));
    // Told once, until it went well.
    assert!(matches!(&node.db.tick(0)[..], [Event::NotReserved { .. }]));
    assert_eq!(node.db.tick(0), []);
    assert_eq!(node.encrypt(&inner, sa), Err(Cause::SequenceNotReserved));
    fail(false);
    assert_eq!(node.db.tick(0), []);
    assert!(node.encrypt(&inner, sa).is_ok());
    fail(true);
    node.encrypt_all(vec![(inner, sa); 3]);
    assert!(matches!(&node.db.tick(0)[..], [Event::NotReserved { .. }]));
}

#[test]
fn events_of_lifetimes_come_once() {
    let mut node = Node::new();
    let sa = node.add(SaConfig {
        lifetime: Lifetime {
            soft_bytes: Some(100),
            hard_bytes: Some(10_000),
            soft_packets: Some(3),
            hard_packets: Some(6),
            soft_time: Some(Duration::from_secs(1)),
            hard_time: Some(Duration::from_secs(2)),
        },
        ..out(1, 1)
    });
    let key = out(1, 1).key();
    let soft = |limit| Event::Soft { id: sa, key, limit };
    let hard = |limit| Event::Hard { id: sa, key, limit };
    let inner = ipv4(17, &[0; 42]); // 64 bytes encrypted
    assert_eq!(node.db.tick(1_000), []);
    node.encrypt_all(vec![(inner.clone(), sa); 2]);
    assert_eq!(node.db.tick(1_000), [soft(Limit::Bytes)]);
    node.encrypt_all(vec![(inner.clone(), sa); 1]);
    assert_eq!(node.db.tick(1_000), [soft(Limit::Packets)]);
    node.encrypt_all(vec![(inner, sa); 9]);
    assert_eq!(node.db.tick(1_000), [hard(Limit::Packets)]);
    assert_eq!(node.db.tick(1_000_001_000), [soft(Limit::Time)]);
    assert_eq!(node.db.tick(2_000_001_000), [hard(Limit::Time)]);
    assert_eq!(node.db.tick(3_000_001_000), []);
    assert_eq!(
        soft(Limit::Bytes).to_string(),
        "outbound sa spi 0x1 192.0.2.1 -> 192.0.2.2: soft limit of bytes was passed"
    );
}

#[test]
fn the_end_of_numbers_is_told() {
    let mut store = MemoryStore::default();
    let mut config = out(1, 1);
    config.esn = false;
    let record = RecordKey {
        fingerprint: config.keys.fingerprint(),
        kind: octoplane_esp::store::RecordKind::Outbound,
    };
    store.put(&[(record, (1 << 32) / 8 * 7 - 1)]).unwrap();
    let mut node = Node::new();
    node.db = Database::new(Box::new(store.clone()), Options::default());
    node.reader = node.db.reader();
    let sa = node.add(config.clone());
    assert_eq!(node.db.tick(0), []);
    node.encrypt(&ipv4(17, &[]), sa).unwrap();
    assert!(matches!(
        node.db.tick(0)[..],
        [Event::Soft {
            limit: Limit::Sequence,
            ..
        }]
    ));
    // Keys that are through are refused.
    store.put(&[(record, 1 << 32)]).unwrap();
    let mut db = Database::new(Box::new(store), Options::default());
    assert!(error(&mut db, vec![put(&config)]).contains("all sequence numbers of its keys were used"));
}

#[test]
fn policies_lead_to_tunnels() {
    let mut db = new();
    db.apply(
        0,
        vec![
            put(&out(1, 1)),
            Change::PutTunnel(3, out(1, 1).key()),
            Change::PutPolicy(policy(1, "10.1.0.0/16", Action::Protect(3))),
            Change::PutPolicy(PolicyConfig {
                priority: 5,
                protocol: Some(6),
                destination_ports: PortRange { first: 22, last: 22 },
                ..policy(2, "10.1.2.0/24", Action::Bypass)
            }),
            // Cilium's last resort: what is marked for encryption and finds no state is dropped.
            Change::PutPolicy(PolicyConfig {
                priority: 100,
                mark: Mark {
                    value: 0x0e00,
                    mask: 0x0f00,
                },
                ..policy(9, "0.0.0.0/0", Action::Discard)
            }),
        ],
    )
    .unwrap();
    let query = |destination: &str, protocol, port, mark| {
        let found = db.snapshot().spd.lookup(&PolicyQuery {
            source: "10.0.0.1".parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol,
            ports: Some((1000, port)),
            mark,
        });
        found.map(|found| found.policy)
    };
    assert_eq!(query("10.1.2.3", 6, 80, 0), Some(1));
    assert_eq!(query("10.1.2.3", 6, 22, 0), Some(2));
    assert_eq!(query("10.1.2.3", 17, 22, 0), Some(1));
    assert_eq!(query("10.2.0.1", 6, 22, 0), None);
    assert_eq!(query("10.2.0.1", 6, 22, 0x1234_0e00), Some(9));
    let action = db.snapshot().spd.lookup(&PolicyQuery {
        source: "10.0.0.1".parse().unwrap(),
        destination: "10.1.0.9".parse().unwrap(),
        protocol: 1,
        ports: None,
        mark: 0,
    });
    assert_eq!(action.unwrap().action, Action::Protect(3));
    assert_eq!(
        db.snapshot().tunnel(3),
        db.snapshot().sad.find(&out(1, 1).key()).map(|sa| sa.id())
    );
    assert_eq!(db.snapshot().tunnel(4), None);
}

/// Rotation as Cilium does it, seen from one node: specification of the datapath, section 1.9.
#[test]
fn nodes_and_keys() {
    let mut db = new();
    let (local, peer): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    let index = |number| KeyIndex::new(number).unwrap();
    let node = |announced, indices: &[u32]| {
        Change::PutNode(NodeConfig {
            addr: peer,
            id: 17,
            announced,
            outbound: indices
                .iter()
                .map(|number| (index(*number), out(*number, *number as u8).key()))
                .collect(),
        })
    };
    assert_eq!(db.snapshot().node(peer), NodeDecision::NoNodeId);
    db.apply(0, vec![put(&out(15, 15)), node(Some(index(15)), &[15])])
        .unwrap();
    let id = |db: &Database, spi: u32| db.snapshot().sad.find(&out(spi, 0).key()).unwrap().id();
    // This node does not encrypt yet.
    assert_eq!(db.snapshot().node(peer), NodeDecision::Plain);
    db.apply(0, vec![Change::SetLocalKey(Some(index(15)))]).unwrap();
    assert_eq!(db.snapshot().node(peer), NodeDecision::Encrypt(id(&db, 15)));
    assert_eq!(db.snapshot().node(local), NodeDecision::NoNodeId);
    // The new key, which has number 1 again, is installed here; then announced; then the peer follows.
    db.apply(0, vec![put(&out(1, 1)), node(Some(index(15)), &[15, 1])])
        .unwrap();
    assert_eq!(db.snapshot().node(peer), NodeDecision::Encrypt(id(&db, 15)));
    db.apply(0, vec![Change::SetLocalKey(Some(index(1)))]).unwrap();
    assert_eq!(db.snapshot().node(peer), NodeDecision::Encrypt(id(&db, 15)));
    db.apply(0, vec![node(Some(index(1)), &[15, 1])]).unwrap();
    assert_eq!(db.snapshot().node(peer), NodeDecision::Encrypt(id(&db, 1)));
    // The old one cannot go before the node lets go of it.
    assert!(error(&mut db, vec![Change::DeleteSa(out(15, 15).key())]).contains("in use by 1"));
    db.apply(
        0,
        vec![node(Some(index(1)), &[1]), Change::DeleteSa(out(15, 15).key())],
    )
    .unwrap();
    // A peer that announces a key there is none for: fail closed.
    db.apply(
        0,
        vec![node(Some(index(2)), &[]), Change::SetLocalKey(Some(index(2)))],
    )
    .unwrap();
    assert_eq!(db.snapshot().node(peer), NodeDecision::NoSa);
    db.apply(0, vec![node(None, &[])]).unwrap();
    assert_eq!(db.snapshot().node(peer), NodeDecision::Plain);
    db.apply(0, vec![Change::DeleteNode(peer)]).unwrap();
    assert_eq!(db.snapshot().node(peer), NodeDecision::NoNodeId);
}

#[test]
fn a_peer_that_started_again_gets_new_keys_in_one_step() {
    let mut db = new();
    let peer: IpAddr = "192.0.2.2".parse().unwrap();
    let index = KeyIndex::new(3).unwrap();
    let committed = db
        .apply(
            0,
            vec![
                put(&out(3, 1)),
                Change::SetLocalKey(Some(index)),
                Change::PutNode(NodeConfig {
                    addr: peer,
                    id: 1,
                    announced: Some(index),
                    outbound: vec![(index, out(3, 1).key())],
                }),
            ],
        )
        .unwrap();
    let old = committed.sas[0];
    let committed = db.apply(0, vec![put(&out(3, 2))]).unwrap();
    assert_eq!(committed.removed, [old]);
    assert_eq!(db.snapshot().node(peer), NodeDecision::Encrypt(committed.sas[0]));
}

#[test]
fn keys_are_never_shown() {
    let config = out(1, 0x5a);
    let key = config.keys.cipher.expose().to_vec();
    let mut node = Node::new();
    let sa = node.add(config.clone());
    let sa = node.db.snapshot().sa(sa).unwrap().clone();
    assert!(sa.config().keys.cipher.is_empty(), "the listing has no keys");
    let text = format!("{sa:?} {config:?} {:?} {:?}", sa.session(), node.db);
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let decimal: String = key.iter().map(|byte| format!("{byte}, ")).collect();
    assert!(
        !text.contains(&hex[..8]) && !text.contains(&decimal[..12]),
        "{text}"
    );
    assert_eq!(sa.fingerprint(), config.keys.fingerprint());
    assert_eq!(sa.fingerprint().to_string().len(), 32);
    // One bit of salt, of key, or of the integrity key is another fingerprint.
    let mut prints = HashSet::from([config.keys.fingerprint()]);
    for byte in [0, 15, 16, 19] {
        let mut other = [&key[..], &config.keys.salt()].concat();
        other[byte] ^= 1;
        assert!(prints.insert(octoplane_esp::KeyMaterial::aead(&other).fingerprint()));
    }
}

/// A lookup among 10,000 costs what it costs among 1, and a change does not copy them all: what is measured is work, not
/// time, as far as it can be seen from outside.
#[test]
fn ten_thousand() {
    let mut db = new();
    let node_addr = |number: u32| IpAddr::from([10, 200, (number >> 8) as u8, number as u8]);
    let sa = |number: u32| {
        let mut config = inbound(3, 0);
        config.source = Some(node_addr(number));
        let mut material = [0x77; 20];
        material[..4].copy_from_slice(&number.to_be_bytes());
        config.keys = octoplane_esp::KeyMaterial::aead(&material);
        config
    };
    let mut changes = Vec::new();
    for number in 0..10_000 {
        changes.push(put(&sa(number)));
        let mut towards = sa(number);
        towards.direction = Direction::Outbound;
        (towards.source, towards.destination) = (Some(towards.destination), node_addr(number));
        let mut material = [0x78; 20];
        material[..4].copy_from_slice(&number.to_be_bytes());
        towards.keys = octoplane_esp::KeyMaterial::aead(&material);
        changes.push(put(&towards));
        changes.push(Change::PutTunnel(number, towards.key()));
        let pods = format!("10.{}.{}.0/24", number >> 8, number & 255);
        changes.push(Change::PutPolicy(policy(number, &pods, Action::Protect(number))));
    }
    let committed = db.apply(0, changes).unwrap();
    assert_eq!(committed.sas.len(), 20_000);
    assert_eq!(committed.sas.iter().collect::<HashSet<_>>().len(), 20_000);
    assert_eq!(db.snapshot().spd.shapes(), 1, "what a policy lookup asks");
    let destination: IpAddr = "192.0.2.2".parse().unwrap();
    for number in 0..10_000 {
        let found = db
            .snapshot()
            .sad
            .find_inbound(3, destination, node_addr(number), 0)
            .unwrap();
        assert_eq!(found.config().source, Some(node_addr(number)));
        let found = db.snapshot().spd.lookup(&PolicyQuery {
            source: destination,
            destination: IpAddr::from([10, (number >> 8) as u8, number as u8, 9]),
            protocol: 6,
            ports: Some((1, 2)),
            mark: 0,
        });
        assert_eq!(found.unwrap().action, Action::Protect(number));
    }
    assert!(
        db.snapshot()
            .sad
            .find_inbound(3, destination, node_addr(10_000), 0)
            .is_none()
    );
    let before = std::time::Instant::now();
    for number in 0..1_000 {
        db.apply(
            0,
            vec![
                Change::DeletePolicy(number),
                Change::DeleteTunnel(number),
                Change::DeleteSa(sa(number).key()),
            ],
        )
        .unwrap();
    }
    assert_eq!(db.snapshot().sad.len(), 19_000);
    // Generous: copying everything each time would take minutes without optimisation.
    assert!(
        before.elapsed() < Duration::from_mins(1),
        "{:?}",
        before.elapsed()
    );
}
