//! Without hugepages, too, buffers lie side by side: the AF_XDP driver reckons with it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use dpdk::{ArrayVec, Eal, EalOptions, Mbuf, Mempool, PacketBuf};

/// Bytes of a buffer beside its data room: the headers of mempool and mbuf, and what spreads buffers over memory channels.
const AROUND: std::ops::RangeInclusive<usize> = 192..=320;
const BUFFERS: usize = 1023;
const DATA_ROOM: u16 = 2176;

#[test]
fn buffers_lie_side_by_side() {
    let eal = Eal::init(&EalOptions::without_hardware(64)).unwrap();
    let pool = Mempool::new(&eal, "packets", BUFFERS as u32, 32, DATA_ROOM, None).unwrap();
    assert_eq!(pool.size(), BUFFERS as u32);
    let mut all = ArrayVec::<Mbuf, BUFFERS>::new();
    assert_eq!(pool.alloc_bulk(&mut all, BUFFERS), BUFFERS);
    assert!(pool.alloc().is_none());
    for buffer in &mut all {
        buffer.append(usize::from(DATA_ROOM) - 128).unwrap().fill(0xa5);
    }
    let mut places: Vec<usize> = all.iter().map(|it| it.data().as_ptr().addr()).collect();
    places.sort_unstable();
    let size = places[1] - places[0];
    assert!(AROUND.contains(&(size - usize::from(DATA_ROOM))), "{size}");
    assert!(places.windows(2).all(|pair| pair[1] - pair[0] == size));
    drop(all);
    assert_eq!(pool.in_use(), 0);
    // Its memory goes with it, and can be had again.
    for _ in 0..20 {
        drop(Mempool::new(&eal, "more", 8191, 32, DATA_ROOM, None).unwrap());
    }
    drop(pool);
    eal.cleanup().unwrap();
}
