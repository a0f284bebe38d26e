//! `octobench policies`: what a lookup of an IPsec policy costs, by their number and that of their shapes.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use anyhow::ensure;
use octoplane_esp::Direction;
use octoplane_esp::db::{Change, Database, Options, PolicyConfig, PortRange};
use octoplane_esp::sa::Mark;
use octoplane_esp::store::MemoryStore;
use octoplane_esp::view::{Action, PolicyQuery, Snapshot};
use serde::Serialize;

use crate::cli::{Format, PoliciesArgs};

/// Lookups between two looks at the clock.
const ROUND: usize = 1024;
/// Packets that policies are looked up for, by turns: as many as the largest number of policies.
const QUERIES: u32 = 10_240;

/// One case.
#[derive(Serialize)]
struct Row {
    policies: u32,
    /// Combinations of what policies look at: each is asked once a lookup.
    shapes: usize,
    /// Nanoseconds for a lookup: the median of all rounds, and what the fastest tenth of them took.
    nanoseconds: f64,
    quiet: f64,
    /// The latter to that of the first row with as many shapes.
    to_first: f64,
}

/// Measures and prints.
pub(crate) fn run(args: &PoliciesArgs) -> anyhow::Result<()> {
    let mut rows: Vec<Row> = Vec::new();
    for &shapes in &args.shapes {
        let mut first = None;
        for &policies in args.entries.iter().filter(|entries| **entries >= shapes) {
            let mut row = measure(policies, shapes, args.rounds)?;
            row.to_first = row.quiet / *first.get_or_insert(row.quiet);
            rows.push(row);
        }
    }
    if args.output == Format::Json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    println!(
        "{:>9} {:>7} {:>9} {:>9} {:>9}",
        "policies", "shapes", "ns", "quiet ns", "to first"
    );
    for row in rows {
        println!(
            "{:>9} {:>7} {:>9.1} {:>9.1} {:>9.2}",
            row.policies, row.shapes, row.nanoseconds, row.quiet, row.to_first
        );
    }
    Ok(())
}

fn measure(policies: u32, shapes: u32, rounds: u32) -> anyhow::Result<Row> {
    let mut database = Database::new(Box::new(MemoryStore::default()), Options::default());
    let changes = (0..policies).map(|number| Ok(Change::PutPolicy(policy(number, shapes)?)));
    database.apply(0, changes.collect::<anyhow::Result<_>>()?)?;
    let snapshot = database.snapshot();
    let queries: Vec<PolicyQuery> = (0..QUERIES)
        .map(|index| query(shuffled(index) % policies))
        .collect();
    ensure!(
        queries.iter().all(|query| snapshot.spd.lookup(query).is_some()),
        "each packet has a policy"
    );
    let mut taken: Vec<f64> = queries
        .chunks_exact(ROUND)
        .cycle()
        .take(rounds as usize)
        .map(|some| round(snapshot, some))
        .collect();
    taken.sort_by(f64::total_cmp);
    let at = |tenths: usize| taken.get(taken.len() * tenths / 10).copied().unwrap_or_default();
    Ok(Row {
        policies,
        shapes: snapshot.spd.shapes(),
        nanoseconds: at(5),
        quiet: at(1),
        to_first: 1.0,
    })
}

/// Nanoseconds for each of some lookups.
fn round(snapshot: &Snapshot, queries: &[PolicyQuery]) -> f64 {
    let start = Instant::now();
    for query in queries {
        black_box(snapshot.spd.lookup(black_box(query)));
    }
    start.elapsed().as_nanos() as f64 / queries.len() as f64
}

/// Each number once, in no order.
fn shuffled(index: u32) -> u32 {
    // A prime number that is no factor of the number of queries.
    index.wrapping_mul(7919) % QUERIES
}

/// A policy for 256 addresses, and for UDP and some ports unless it is of the first shape.
fn policy(number: u32, shapes: u32) -> anyhow::Result<PolicyConfig> {
    let shape = number % shapes;
    let ports = match shape {
        0 => PortRange::ANY,
        // Ranges of different lengths.
        _ => PortRange {
            first: 0,
            last: u16::MAX >> shape,
        },
    };
    Ok(PolicyConfig {
        id: number,
        direction: Direction::Outbound,
        priority: number,
        source: "0.0.0.0/0".parse()?,
        destination: format!("{}/24", network(number)).parse()?,
        protocol: (shape != 0).then_some(17),
        source_ports: PortRange::ANY,
        destination_ports: ports,
        mark: Mark::default(),
        action: Action::Bypass,
    })
}

fn network(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(10 << 24 | number << 8)
}

/// A packet that this policy is for.
fn query(number: u32) -> PolicyQuery {
    PolicyQuery {
        source: IpAddr::from([192, 0, 2, 2]),
        destination: Ipv4Addr::from_bits(network(number).to_bits() | 9).into(),
        protocol: 17,
        ports: Some((4000, 0)),
        mark: 0,
    }
}
