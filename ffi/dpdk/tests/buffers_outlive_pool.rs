//! A buffer stays good after every handle of its pool and of the EAL is gone.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use dpdk::eal::EalError;
use dpdk::{Eal, EalOptions, Mempool, PacketBuf};

#[test]
fn buffer_outlives_pool_and_eal() {
    let eal = Eal::init(&EalOptions::without_hardware(64)).unwrap();
    let pool = Mempool::new(&eal, "packets", 63, 0, 2176, None).unwrap();
    let mut packet = pool.alloc().unwrap();
    drop(pool);
    assert!(matches!(eal.clone().cleanup(), Err(EalError::InUse)));
    drop(eal);
    packet.append(100).unwrap().fill(7);
    assert_eq!(packet.data(), [7; 100]);
    drop(packet);
}
