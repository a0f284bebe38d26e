//! Policies, seen from a worker's side.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeMap;

use common::{node, put_node, refusal, snapshot, store, store_with};
use octoplane_tables::model::{
    Change, Direction, HOST_ENDPOINT, Node, Policy, PolicyEntry, PolicyKey, PolicyMode, PolicyValue,
};
use octoplane_tables::{Capacity, Decision, MatchType, Store, Verdict};
use proptest::prelude::*;

const TCP: u8 = 6;

/// The precedence of the specification, section 2.7.
fn precedence(priority: u32, low: u32) -> u32 {
    (0x00ff_ffff - priority) << 8 | low
}

fn key(identity: u32, protocol: u8, port: u16, port_prefix_len: u8) -> PolicyKey {
    PolicyKey {
        direction: Direction::Ingress,
        identity,
        protocol,
        port,
        port_prefix_len,
    }
}

fn allow(key: PolicyKey, cookie: u32) -> PolicyEntry {
    PolicyEntry {
        key,
        value: PolicyValue {
            precedence: precedence(0, 1),
            cookie,
            ..PolicyValue::default()
        },
    }
}

fn deny(key: PolicyKey, cookie: u32) -> PolicyEntry {
    let mut entry = allow(key, cookie);
    entry.value.deny = true;
    entry.value.precedence = precedence(0, 255);
    entry
}

fn redirect(key: PolicyKey, cookie: u32, proxy_port: u16) -> PolicyEntry {
    let mut entry = allow(key, cookie);
    entry.value.proxy_port = proxy_port;
    entry.value.precedence = precedence(0, 2);
    entry
}

fn policy(endpoint: u32, entries: Vec<PolicyEntry>) -> Policy {
    Policy {
        endpoint,
        enforce_ingress: true,
        enforce_egress: false,
        audit: false,
        entries,
    }
}

fn with(entries: Vec<PolicyEntry>) -> Store {
    let mut store = store();
    store.apply(vec![Change::PutPolicy(policy(7, entries))]).unwrap();
    store
}

fn ask(store: &Store, identity: u32, protocol: u8, port: u16) -> Verdict {
    let now = snapshot(store);
    now.policy(7).unwrap().lookup(false, identity, protocol, port)
}

#[test]
fn without_policy_everything_is_allowed() {
    let mut store = store();
    assert!(snapshot(&store).policy(7).is_none());
    store.apply(vec![Change::PutPolicy(policy(7, vec![]))]).unwrap();
    assert_eq!(ask(&store, 300, TCP, 80).decision, Decision::NoMatch);
    let now = snapshot(&store);
    assert_eq!(
        now.policy(7).unwrap().lookup(true, 300, TCP, 80),
        Verdict::UNENFORCED
    );
    assert!(now.policy(8).is_none());
    store.apply(vec![Change::RemovePolicy { endpoint: 7 }]).unwrap();
    assert!(snapshot(&store).policy(7).is_none());
}

#[test]
fn every_way_to_match_has_its_type() {
    for (entry, expected) in [
        (key(300, 0, 0, 0), MatchType::L3Only),
        (key(300, TCP, 80, 16), MatchType::L3L4),
        (key(300, TCP, 80, 12), MatchType::L3L4),
        (key(0, TCP, 80, 16), MatchType::L4Only),
        (key(0, 0, 0, 0), MatchType::All),
        (key(300, TCP, 0, 0), MatchType::L3Proto),
        (key(0, TCP, 0, 0), MatchType::ProtoOnly),
    ] {
        let verdict = ask(&with(vec![allow(entry, 5)]), 300, TCP, 80);
        assert_eq!(
            (verdict.decision, verdict.match_type),
            (Decision::Allow, expected)
        );
        assert_eq!(verdict.cookie, 5);
    }
    let none = ask(&with(vec![allow(key(300, TCP, 80, 16), 5)]), 301, TCP, 80);
    assert_eq!(
        (none.decision, none.match_type),
        (Decision::NoMatch, MatchType::None)
    );
    assert_eq!(none.decision.drop_reason(), Some(133));
}

#[test]
fn the_longest_prefix_of_ports_wins_among_entries_of_one_identity() {
    let store = with(vec![
        allow(key(300, 0, 0, 0), 1),
        allow(key(300, TCP, 0, 0), 2),
        allow(key(300, TCP, 0x1f80, 9), 3),
        allow(key(300, TCP, 0x1f90, 16), 4),
    ]);
    for (protocol, port, cookie) in [
        (17, 8080, 1),
        (TCP, 80, 2),
        (TCP, 8081, 3),
        (TCP, 8079, 2 + 1),
        (TCP, 8080, 4),
        (TCP, 8191, 3),
        (TCP, 8192, 2),
    ] {
        assert_eq!(
            ask(&store, 300, protocol, port).cookie,
            cookie,
            "{protocol} {port}"
        );
    }
}

/// Section 2.7: deny before redirect before allow on one level, and a more important level before all of them.
#[test]
fn precedence_decides_between_identity_and_wildcard() {
    let exact = key(300, TCP, 80, 16);
    let any = key(0, TCP, 0, 0);
    let decide = |one, other| ask(&with(vec![one, other]), 300, TCP, 80);
    assert_eq!(decide(allow(exact, 1), deny(any, 2)).decision, Decision::Deny);
    assert_eq!(decide(deny(exact, 1), allow(any, 2)).decision, Decision::Deny);
    let verdict = decide(allow(exact, 1), redirect(any, 2, 9000));
    assert_eq!((verdict.decision, verdict.proxy_port), (Decision::Allow, 9000));
    assert_eq!(
        decide(redirect(exact, 1, 9000), deny(any, 2)).decision,
        Decision::Deny
    );
    // Equal precedence: the longer prefix, then the identity.
    assert_eq!(decide(allow(exact, 1), allow(any, 2)).cookie, 1);
    assert_eq!(
        decide(allow(key(300, 0, 0, 0), 1), allow(key(0, TCP, 80, 16), 2)).cookie,
        2
    );
    assert_eq!(decide(allow(exact, 1), allow(key(0, TCP, 80, 16), 2)).cookie, 1);
    // A denial of low priority loses against an allow of a high one.
    let mut late = deny(any, 2);
    late.value.precedence = precedence(10, 255);
    assert_eq!(decide(allow(exact, 1), late).decision, Decision::Allow);
    assert_eq!(
        decide(deny(exact, 1), allow(any, 2)).decision.drop_reason(),
        Some(181)
    );
}

#[test]
fn authentication_is_that_of_the_winner_or_the_stronger_one() {
    let auth = |mut entry: PolicyEntry, auth_type, explicit| {
        entry.value.auth_type = auth_type;
        entry.value.auth_explicit = explicit;
        entry
    };
    let (exact, any) = (key(300, TCP, 80, 16), key(0, TCP, 0, 0));
    let verdict = ask(&with(vec![auth(allow(exact, 1), 1, true)]), 300, TCP, 80);
    assert_eq!((verdict.decision, verdict.auth_type), (Decision::AuthRequired, 1));
    assert_eq!(verdict.decision.drop_reason(), Some(189));
    let both = |winner, loser| ask(&with(vec![winner, loser]), 300, TCP, 80).auth_type;
    assert_eq!(both(allow(exact, 1), auth(allow(any, 2), 2, true)), 2);
    assert_eq!(
        both(auth(allow(exact, 1), 0, true), auth(allow(any, 2), 2, true)),
        0
    );
    assert_eq!(
        both(auth(allow(exact, 1), 3, false), auth(allow(any, 2), 2, true)),
        3
    );
    // Another precedence: the loser does not count.
    assert_eq!(both(redirect(exact, 1, 9000), auth(allow(any, 2), 2, true)), 0);
}

#[test]
fn audit_allows_and_says_so() {
    let mut store = store();
    let mut it = policy(7, vec![deny(key(301, 0, 0, 0), 1), allow(key(302, 0, 0, 0), 2)]);
    it.entries[1].value.auth_type = 1;
    it.audit = true;
    store.apply(vec![Change::PutPolicy(it.clone())]).unwrap();
    for identity in [300, 301] {
        let verdict = ask(&store, identity, TCP, 80);
        assert!(verdict.allowed() && verdict.audited, "{identity}");
    }
    assert_eq!(
        ask(&store, 302, TCP, 80).decision,
        Decision::AuthRequired,
        "not audited"
    );
    it.audit = false;
    let global = Node {
        audit: true,
        ..node(&[])
    };
    store
        .apply(vec![Change::PutPolicy(it), put_node(global)])
        .unwrap();
    assert!(ask(&store, 300, TCP, 80).audited);
    store.apply(vec![Change::RemoveNode]).unwrap();
    assert!(!ask(&store, 300, TCP, 80).allowed());
}

#[test]
fn the_mode_of_the_node_counts_for_all() {
    let mut store = with(vec![allow(key(300, 0, 0, 0), 1)]);
    let mode = |policy_mode| {
        put_node(Node {
            policy_mode,
            ..node(&[])
        })
    };
    let revision = |store: &Store, id| snapshot(store).policy(id).map_or(0, |it| it.revision);
    let first = revision(&store, 7);
    store.apply(vec![mode(PolicyMode::Always)]).unwrap();
    let now = snapshot(&store);
    assert!(now.policy(7).unwrap().lookup(false, 300, TCP, 80).allowed());
    assert!(!now.policy(7).unwrap().lookup(true, 300, TCP, 80).allowed());
    assert!(!now.policy(8).unwrap().lookup(false, 300, TCP, 80).allowed());
    assert!(now.policy(HOST_ENDPOINT).is_none());
    assert_ne!(revision(&store, 7), first);
    assert_ne!(revision(&store, 8), 0);
    store.apply(vec![mode(PolicyMode::Never)]).unwrap();
    assert!(snapshot(&store).policy(7).is_none() && snapshot(&store).policy(8).is_none());
    // A policy that comes now counts later.
    store
        .apply(vec![Change::PutPolicy(policy(HOST_ENDPOINT, vec![]))])
        .unwrap();
    assert!(snapshot(&store).policy(HOST_ENDPOINT).is_none());
    store.apply(vec![Change::RemoveNode]).unwrap();
    assert_eq!(ask(&store, 301, TCP, 80).decision, Decision::NoMatch);
    assert!(snapshot(&store).policy(HOST_ENDPOINT).is_some());
    assert!(snapshot(&store).policy(8).is_none());
}

#[test]
fn the_revision_changes_with_the_content_and_only_then() {
    let mut store = with(vec![allow(key(300, TCP, 80, 16), 1)]);
    let revision = |store: &Store| snapshot(store).policy(7).unwrap().revision;
    let first = revision(&store);
    let same = store
        .apply(vec![Change::PutPolicy(policy(
            7,
            vec![allow(key(300, TCP, 80, 16), 1)],
        ))])
        .unwrap();
    assert!(same.events.is_empty());
    let entries = |entries| Change::PutPolicyEntries { endpoint: 7, entries };
    let same = store
        .apply(vec![entries(vec![allow(key(300, TCP, 80, 16), 1)])])
        .unwrap();
    assert!(same.events.is_empty());
    // Another endpoint, other tables.
    store
        .apply(vec![
            Change::PutPolicy(policy(8, vec![])),
            put_node(node(&["198.51.100.1"])),
        ])
        .unwrap();
    assert_eq!(revision(&store), first);
    store
        .apply(vec![entries(vec![allow(key(301, TCP, 80, 16), 1)])])
        .unwrap();
    let second = revision(&store);
    assert!(second > first && ask(&store, 301, TCP, 80).allowed());
    let keys = vec![key(301, TCP, 80, 16)];
    store
        .apply(vec![Change::RemovePolicyEntries { endpoint: 7, keys }])
        .unwrap();
    assert!(revision(&store) > second && !ask(&store, 301, TCP, 80).allowed());
    let stored = store.state().policy(7).unwrap().to_model();
    assert_eq!(stored, policy(7, vec![allow(key(300, TCP, 80, 16), 1)]));
}

#[test]
fn bad_policies_are_refused_whole() {
    let mut store = store_with(Capacity {
        policies: 2,
        policy_entries: 2,
        ..Capacity::default()
    });
    let one = |entry| Change::PutPolicy(policy(7, vec![allow(key(299, 0, 0, 0), 1), entry]));
    let mut bad_auth = allow(key(300, 0, 0, 0), 1);
    bad_auth.value.auth_type = 128;
    let mut bad_deny = deny(key(300, 0, 0, 0), 1);
    bad_deny.value.proxy_port = 1;
    let keys = vec![key(1, 0, 0, 0)];
    for (change, expected) in [
        (
            one(allow(key(1 << 26, 0, 0, 0), 1)),
            "policy of endpoint 7: entries[1] identity 67108864 is out of range, expected 0 to 50331647",
        ),
        (
            one(allow(key(300, TCP, 0, 17), 1)),
            "entries[1] port_prefix_len 17 is out of range, expected 0 to 16",
        ),
        (
            one(allow(key(300, 0, 80, 16), 1)),
            "entries[1] port_prefix_len 16 without protocol, expected 0",
        ),
        (
            one(allow(key(300, TCP, 81, 15), 1)),
            "entries[1] port 81 has bits behind port_prefix_len 15, expected 80",
        ),
        (
            one(bad_auth),
            "entries[1] auth_type 128 is out of range, expected 0 to 127",
        ),
        (
            one(bad_deny),
            "entries[1] proxy_port 1 of an entry that denies, expected 0",
        ),
        (
            one(allow(key(299, 0, 0, 0), 2)),
            "entries[1] ingress identity 299 protocol 0 port 0/0 is given twice",
        ),
        (
            Change::RemovePolicy { endpoint: 9 },
            "policy of endpoint 9: not found",
        ),
        (
            Change::RemovePolicy { endpoint: 0 },
            "policy of the host: not found",
        ),
        (
            Change::PutPolicyEntries {
                endpoint: 9,
                entries: vec![],
            },
            "policy of endpoint 9: not found",
        ),
        (
            Change::RemovePolicyEntries { endpoint: 8, keys },
            "policy of endpoint 8: entry ingress identity 1 protocol 0 port 0/0: not found",
        ),
        (
            Change::PutPolicyEntries {
                endpoint: 8,
                entries: (1..=3).map(|id| allow(key(id, 0, 0, 0), 1)).collect(),
            },
            "table policy_entries is full: 2 entries",
        ),
    ] {
        let first = Change::PutPolicy(policy(8, vec![]));
        let error = refusal(&mut store, vec![first, change]);
        assert!(error.contains(expected), "{error}");
        assert!(snapshot(&store).policy(8).is_none());
    }
    let three = (7..=9).map(|id| Change::PutPolicy(policy(id, vec![]))).collect();
    assert!(refusal(&mut store, three).contains("table policies is full: 2 entries"));
}

fn a_key() -> impl Strategy<Value = PolicyKey> {
    (
        any::<bool>(),
        0..3u32,
        prop_oneof![Just(0u8), Just(TCP), Just(17)],
        0..8u16,
        0..=16u8,
    )
        .prop_map(|(egress, identity, protocol, port, len)| {
            let len = if protocol == 0 { 0 } else { len };
            let mask = u16::MAX.checked_shl(16 - u32::from(len)).unwrap_or(0);
            PolicyKey {
                direction: if egress {
                    Direction::Egress
                } else {
                    Direction::Ingress
                },
                ..key(identity, protocol, port & mask, len)
            }
        })
}

fn a_value() -> impl Strategy<Value = PolicyValue> {
    let precedence = prop_oneof![0..4u32, Just(u32::MAX)];
    (
        any::<bool>(),
        0..2u16,
        0..3u8,
        any::<bool>(),
        precedence,
        any::<u32>(),
    )
        .prop_map(
            |(deny, proxy_port, auth_type, auth_explicit, precedence, cookie)| PolicyValue {
                deny: deny || precedence == u32::MAX,
                proxy_port: if deny || precedence == u32::MAX {
                    0
                } else {
                    proxy_port
                },
                auth_type,
                auth_explicit,
                precedence,
                cookie,
            },
        )
}

/// Section 2.6, word by word, over a list.
fn slow(
    entries: &BTreeMap<PolicyKey, PolicyValue>,
    direction: Direction,
    identity: u32,
    protocol: u8,
    port: u16,
) -> (Decision, u16, u8, u32, MatchType) {
    let lookup = |label: u32| {
        entries
            .iter()
            .filter(|(key, _)| key.direction == direction && key.identity == label)
            .filter(|(key, _)| key.protocol == 0 || key.protocol == protocol)
            .filter(|(key, _)| (0..key.port_prefix_len).all(|bit| (key.port ^ port) >> (15 - bit) & 1 == 0))
            .map(|(key, value)| {
                let len = if key.protocol == 0 {
                    0
                } else {
                    8 + key.port_prefix_len
                };
                (len, value)
            })
            .max_by_key(|&(len, _)| len)
    };
    let l = lookup(identity);
    let w = match l {
        Some((_, value)) if value.precedence == u32::MAX => None,
        _ => lookup(0),
    };
    let (wildcard, winner, loser) = match (l, w) {
        (None, None) => return (Decision::NoMatch, 0, 0, 0, MatchType::None),
        (None, Some(w)) => (true, w, None),
        (Some(l), None) => (false, l, None),
        (Some(l), Some(w)) => {
            let (lp, wp) = (l.1.precedence, w.1.precedence);
            if wp > lp || wp == lp && w.0 > l.0 {
                (true, w, Some(l))
            } else {
                (false, l, Some(w))
            }
        }
    };
    let match_type = match (wildcard || identity == 0, winner.0) {
        (false, 0) => MatchType::L3Only,
        (false, 8) => MatchType::L3Proto,
        (false, _) => MatchType::L3L4,
        (true, 0) => MatchType::All,
        (true, 8) => MatchType::ProtoOnly,
        (true, _) => MatchType::L4Only,
    };
    let value = winner.1;
    if value.deny {
        return (Decision::Deny, 0, 0, value.cookie, match_type);
    }
    let mut auth = value.auth_type;
    if let Some((_, loser)) = loser
        && !value.auth_explicit
        && loser.precedence == value.precedence
    {
        auth = auth.max(loser.auth_type);
    }
    let decision = if auth == 0 {
        Decision::Allow
    } else {
        Decision::AuthRequired
    };
    (decision, value.proxy_port, auth, value.cookie, match_type)
}

proptest! {
    #[test]
    fn lookup_is_as_specified(
        steps in proptest::collection::vec((a_key(), proptest::option::weighted(0.7, a_value())), 1..40),
        probes in proptest::collection::vec((any::<bool>(), 0..4u32, 0..3usize, 0..9u16), 1..40),
    ) {
        let mut store = with(vec![]);
        let both = Policy { enforce_egress: true, ..policy(7, vec![]) };
        store.apply(vec![Change::PutPolicy(both)]).unwrap();
        let mut entries = BTreeMap::new();
        for (key, value) in steps {
            match value {
                Some(value) => {
                    let put = vec![PolicyEntry { key, value }];
                    store.apply(vec![Change::PutPolicyEntries { endpoint: 7, entries: put }]).unwrap();
                    entries.insert(key, value);
                }
                None => {
                    let there = entries.remove(&key).is_some();
                    let gone = Change::RemovePolicyEntries { endpoint: 7, keys: vec![key] };
                    prop_assert_eq!(store.apply(vec![gone]).is_ok(), there);
                }
            }
        }
        let now = snapshot(&store);
        let now = now.policy(7).unwrap();
        for (egress, identity, protocol, port) in probes {
            let protocol = [TCP, 17, 1][protocol];
            let direction = if egress { Direction::Egress } else { Direction::Ingress };
            let got = now.lookup(egress, identity, protocol, port);
            prop_assert_eq!(
                (got.decision, got.proxy_port, got.auth_type, got.cookie, got.match_type),
                slow(&entries, direction, identity, protocol, port)
            );
        }
        let listed: BTreeMap<_, _> = store.state().policy(7).unwrap().entries().into_iter()
            .map(|entry| (entry.key, entry.value)).collect();
        prop_assert_eq!(listed, entries);
    }
}
