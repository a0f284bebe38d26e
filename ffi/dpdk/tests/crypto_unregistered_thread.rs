//! A thread that is not an lcore gives a device no work: some drivers would write to a wild address.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod common;

use common::{gcm, job, packet};
use dpdk::crypto::{CryptoConfig, CryptoDevice, CryptoJob, Direction, Refusal, attach};
use dpdk::{ArrayVec, Eal, EalOptions, Mempool};

#[test]
fn enqueues_nothing() {
    let eal = Eal::init(&EalOptions::without_hardware(64)).unwrap();
    let pool = Mempool::new(&eal, "packets", 255, 0, 2176, None).unwrap();
    let mut device = CryptoDevice::open(&eal, attach(&eal, "crypto_openssl").unwrap()).unwrap();
    let mut queue = device.start(&CryptoConfig::default()).unwrap().remove(0);
    let sessions = device.session_maker();
    let session = sessions
        .make(&gcm(Direction::Encrypt, 16, 16, 8), &[1; 16], &[])
        .unwrap();
    let slot = queue.adopt(session).unwrap();
    let one = job(packet(&pool, &[0; 64], &[0; 16]), slot, 0, 64, &[0; 12], &[0; 8]);
    let worker = std::thread::spawn(move || {
        let mut jobs = ArrayVec::<CryptoJob, 4>::new();
        jobs.push(one);
        (queue.enqueue(&mut jobs), jobs.len(), queue.in_flight())
    });
    // Debug builds say so loudly.
    match worker.join() {
        Ok((enqueued, left, in_flight)) => {
            assert_eq!((enqueued.taken, enqueued.refused), (0, Some(Refusal::Full)));
            assert_eq!((left, in_flight), (1, 0));
        }
        Err(_) if cfg!(debug_assertions) => {}
        Err(panic) => std::panic::resume_unwind(panic),
    }
    assert_eq!(pool.in_use(), 0, "the packet stayed ours and was freed");
}
