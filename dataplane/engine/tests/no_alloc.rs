//! The engine takes no memory from the heap once it runs.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![allow(unsafe_code, reason = "a global allocator cannot be written without")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use arrayvec::ArrayVec;
use octoplane_engine::{BURST, EngineConfig, Interest};
use octoplane_packet::{BufPool, HeapBuf, PacketBuf};
use octoplane_tables::model::PortId;

use common::bytes::{BROADCAST, arp, ethernet, icmp4, ip4, ip6, lla, solicitation, solicited_node, tagged};
use common::*;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread on its way out has no counter any more.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

struct Counting;

// SAFETY: all requests are handed to the system's allocator as they are.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

/// Buffers made beforehand, as a mempool has them.
struct Recycler(Vec<HeapBuf>);

impl BufPool for Recycler {
    type Buf = HeapBuf;

    fn alloc(&mut self) -> Option<HeapBuf> {
        let mut buf = self.0.pop()?;
        buf.fill(&[]);
        Some(buf)
    }
}

fn traffic() -> Vec<(PortId, Vec<Vec<u8>>)> {
    let ping = icmp4(8, 0, [0; 4], &[1; 56]);
    let pods = vec![
        ip4("10.0.0.1", "10.0.0.2").frame(OURS[0], EP1),
        ip6("fd00::1", "fd00::2").frame(OURS[0], EP1),
        ip4("10.0.0.1", "10.0.0.2").options(&[1; 4]).frame(OURS[0], EP1),
        ip4("10.0.0.1", "198.51.100.7").frame(OURS[0], EP1),
        ip6("fd00::1", "2001:db8:7::7").frame(OURS[0], EP1),
        // Dropped.
        ip4("10.0.0.9", "10.0.0.2").frame(OURS[0], EP1),
        ip6("fd00::9", "fd00::2").frame(OURS[0], EP1),
        ip4("10.0.0.1", "10.9.0.2").frame(OURS[0], EP1),
        ethernet(OURS[0], EP1, 0x1234, &[0; 46]),
        vec![0; 20],
        // Answered, with errors.
        ip4("10.0.0.1", "10.0.0.2").ttl(1).frame(OURS[0], EP1),
        ip6("fd00::1", "fd00::2").ttl(1).frame(OURS[0], EP1),
        ip4("10.0.0.1", "198.51.100.7").size(1501).frame(OURS[0], EP1),
        ip4("10.0.0.1", GATEWAY4).payload(1, ping).frame(OURS[0], EP1),
        ip6("fd00::1", GATEWAY6)
            .icmp(128, 0, [0; 4], &[1; 56])
            .frame(OURS[0], EP1),
        ethernet(
            BROADCAST,
            EP1,
            0x0806,
            &arp(1, (EP1, "10.0.0.1"), ([0; 6], GATEWAY4)),
        ),
        solicitation("fd00::1", GATEWAY6, &lla(1, EP1)).frame(solicited_node(GATEWAY6).1, EP1),
        // Waits, and is given up later.
        ip4("10.0.0.1", "192.0.2.9").frame(OURS[0], EP1),
        ip6("fd00::1", "2001:db8::9").frame(OURS[0], EP1),
        // For the kernel.
        ip4("10.0.0.1", "224.0.0.1").frame(OURS[0], EP1),
    ];
    let plain = ip4("198.51.100.7", "10.0.0.1").frame(OURS[2], ROUTER);
    let uplink = vec![
        tagged(&plain, 0x8100, 0),
        plain,
        ip6("2001:db8:7::7", "fd00::3").frame(OURS[2], ROUTER),
        ip4("198.51.100.7", OWN4).frame(OURS[2], ROUTER),
        ethernet(
            BROADCAST,
            ROUTER,
            0x0806,
            &arp(1, (ROUTER, "192.0.2.254"), ([0; 6], OWN4)),
        ),
        solicitation("2001:db8::fe", OWN6, &lla(1, ROUTER)).frame(solicited_node(OWN6).1, ROUTER),
        ip4("198.51.100.7", "10.0.0.1").frame(EP1, ROUTER),
    ];
    let host = vec![ip4(OWN4, "10.0.0.1").frame(OURS[3], KERNEL)];
    vec![(POD0, pods), (UPLINK, uplink), (HOST, host)]
}

#[test]
fn ten_thousand_packets_without_allocating() {
    let buffers = 1024;
    let mut lab = Plan {
        host: true,
        config: EngineConfig {
            icmp_errors: (1_000_000, 1_000_000),
            ..EngineConfig::default()
        },
        ..Plan::default()
    }
    .lab_with(Recycler((0..buffers).map(|_| HeapBuf::new(&[])).collect()));
    // With somebody who wants to know everything.
    let monitor = std::sync::Arc::clone(lab.engine.monitor());
    monitor.set(Interest {
        kinds: Interest::VERDICTS | Interest::DROPS,
        endpoint: None,
    });
    let mut told = 0;
    let traffic = traffic();
    let mut burst = ArrayVec::<HeapBuf, BURST>::new();
    let (mut given, mut sent) = (0, 0);
    let mut round = |lab: &mut Lab<Recycler>, given: &mut u64, sent: &mut u64| {
        for (port, frames) in &traffic {
            for frame in frames.iter().cycle().take(BURST) {
                let mut buf = lab.engine.pool().0.pop().unwrap();
                buf.fill(frame);
                burst.push(buf);
            }
            *given += burst.len() as u64;
            lab.engine.process(lab.now, *port, &mut burst, &mut lab.out);
            lab.now += 10_000_000;
            lab.engine.tick(lab.now, &mut lab.out);
            lab.engine.events().for_each(drop);
            while monitor.pop().is_some() {
                told += 1;
            }
            for port in lab.out.take_touched() {
                let queue = lab.out.queue(port).unwrap();
                *sent += queue.len() as u64;
                lab.engine.pool().0.extend(queue.drain(..));
            }
            lab.engine.pool().0.extend(lab.out.free.drain(..));
        }
    };
    round(&mut lab, &mut 0, &mut 0);
    let before = ALLOCATIONS.get();
    while given < 10_000 {
        round(&mut lab, &mut given, &mut sent);
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert!(told > 1000, "{told} events");
    assert!(sent > given / 2, "{sent} of {given} sent");
    let stats = lab.engine.stats();
    assert!(stats.fast.packets.get() > 0 && stats.icmp_errors.get() > 0 && stats.punted.get() > 0);
    let waiting = stats.parked.get() as usize;
    assert_eq!(lab.engine.pool().0.len() + waiting, buffers, "no buffer is lost");
    // The counter counts.
    drop(std::hint::black_box(vec![HeapBuf::new(&[]).len()]));
    assert!(ALLOCATIONS.get() > before);
}
