//! A policy of 65,536 entries.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that measures")]

mod common;

use std::time::{Duration, Instant};

use common::scale::{resident, time};
use common::{snapshot, store_with};
use octoplane_tables::Capacity;
use octoplane_tables::model::{Change, Direction, Policy, PolicyEntry, PolicyKey, PolicyValue};

fn policy_entry(n: u32) -> PolicyEntry {
    PolicyEntry {
        key: PolicyKey {
            direction: Direction::Ingress,
            identity: 256 + n / 4,
            protocol: 6,
            port: [80, 443, 8080, 9090][n as usize % 4],
            port_prefix_len: 16,
        },
        value: PolicyValue {
            precedence: 0xffff_ff01,
            cookie: n,
            ..PolicyValue::default()
        },
    }
}

#[test]
fn a_large_policy() {
    let before = resident();
    let mut store = store_with(Capacity::default());
    let start = Instant::now();
    store
        .apply(vec![Change::PutPolicy(Policy {
            endpoint: 1,
            enforce_ingress: true,
            enforce_egress: true,
            audit: false,
            entries: (0..65_536).map(policy_entry).collect(),
        })])
        .unwrap();
    let loaded = start.elapsed();
    let memory = resident().saturating_sub(before) >> 10;
    let (middle, worst) = time(&mut store, 2000, |n| {
        let mut entry = policy_entry(n * 31);
        entry.value.cookie = 1 << 20 | n;
        vec![Change::PutPolicyEntries {
            endpoint: 1,
            entries: vec![entry],
        }]
    });
    let now = snapshot(&store);
    let policy = now.policy(1).unwrap();
    let start = Instant::now();
    let allowed = (0..100_000u32)
        .filter(|n| policy.lookup(false, 256 + n % 16_384, 6, 443).allowed())
        .count();
    let each = start.elapsed() / 100_000;
    eprintln!(
        "policy of 65,536 entries: loaded in {loaded:.1?}, {memory} KiB, one change {middle:.1?} (at worst \
         {worst:.1?}), one lookup {each:.1?}"
    );
    assert_eq!(allowed, 100_000);
    assert!(middle < Duration::from_millis(1), "{middle:?}");
}
