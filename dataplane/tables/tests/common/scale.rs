//! Large tables: what they need, and what one change of them costs. Figures are printed (`--nocapture`); the limits
//! asserted are wide ones, for builds without optimisation on busy machines. Each table is measured in a process of its
//! own: a test file each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use octoplane_packet::Prefix;
use octoplane_tables::model::{Change, IpcacheEntry};
use octoplane_tables::{Capacity, Store};

use super::{snapshot, store_with};

/// Memory of this process, in bytes.
pub(crate) fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// How long one of many transactions takes, in the middle and at worst.
pub(crate) fn time(store: &mut Store, count: u32, make: impl Fn(u32) -> Vec<Change>) -> (Duration, Duration) {
    let mut times: Vec<Duration> = (0..count)
        .map(|n| {
            let changes = make(n);
            let start = Instant::now();
            store.apply(changes).unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    (times[times.len() / 2], times[times.len() - 1])
}

/// A pod of one of 4,000 nodes, 250 on each.
fn pod(n: u32, ipv6: bool, generation: u32) -> Change {
    let (host, index) = (n / 250, n % 250);
    let addr: IpAddr = if ipv6 {
        Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(host) << 64 | u128::from(index + 1)).into()
    } else {
        Ipv4Addr::from_bits(0x0a00_0000 | host << 8 | (index + 1)).into()
    };
    Change::PutIpcache(IpcacheEntry {
        prefix: Prefix::host(addr),
        identity: 256 + (n * 7 + generation) % 5000,
        tunnel: Some(Ipv4Addr::from_bits(0xac10_0000 | host).into()),
        key: 0,
        skip_tunnel: false,
    })
}

/// A million pods, each different from all others in what is known of it: nothing can be shared.
pub(crate) fn a_million(ipv6: bool) {
    let before = resident();
    let mut store = store_with(Capacity::default());
    let start = Instant::now();
    for batch in 0..100 {
        let changes = (0..10_000).map(|n| pod(batch * 10_000 + n, ipv6, 0)).collect();
        store.apply(changes).unwrap();
    }
    let loaded = start.elapsed();
    let held = snapshot(&store);
    let (middle, worst) = time(&mut store, 2000, |n| vec![pod(n * 499, ipv6, 1)]);
    let memory = resident().saturating_sub(before) >> 20;
    eprintln!(
        "ipcache, 1 M IPv{} entries: loaded in {loaded:.1?}, {memory} MiB with two published copies, \
         one change {middle:.1?} (at worst {worst:.1?})",
        if ipv6 { 6 } else { 4 }
    );
    assert_eq!(store.state().ipcache_count(), 1_000_000);
    let (old, new) = if ipv6 {
        let addr = 0xfd00 << 112 | 1;
        (
            held.remote6(addr).identity,
            snapshot(&store).remote6(addr).identity,
        )
    } else {
        let addr = 0x0a00_0001;
        (
            held.remote4(addr).identity,
            snapshot(&store).remote4(addr).identity,
        )
    };
    assert_eq!((old, new), (256, 257));
    assert!(memory < 200, "{memory} MiB");
    assert!(middle < Duration::from_millis(1), "{middle:?}");
}
