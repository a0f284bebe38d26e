//! Crypto on huge pages, where the machine has some free. Elsewhere this says that it was skipped.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, in its helpers too, and says what it did not do"
)]

mod common;

use common::{HEADER, drivers, gcm, job, packet, run};
use dpdk::crypto::{CryptoConfig, CryptoDevice, Direction, Status, attach};
use dpdk::eal::Memory;
use dpdk::{Eal, EalOptions, Mempool, PacketBuf};

/// Huge pages of 2 MB needed: for the EAL, buffers, operations and sessions.
const PAGES: usize = 32;

fn free_pages() -> usize {
    std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

#[test]
fn there_and_back() {
    if free_pages() < PAGES {
        eprintln!(
            "SKIPPED: {PAGES} huge pages are needed, {} are free",
            free_pages()
        );
        return;
    }
    let options = EalOptions {
        memory: Memory::Hugepages {
            mb_per_socket: Vec::new(),
        },
        no_pci: true,
        ..EalOptions::default()
    };
    let eal = Eal::init(&options).unwrap();
    let pool = Mempool::new(&eal, "packets", 255, 0, 2176, None).unwrap();
    for &name in drivers() {
        let mut device = CryptoDevice::open(&eal, attach(&eal, name).unwrap()).unwrap();
        let mut queue = device.start(&CryptoConfig::default()).unwrap().remove(0);
        let sessions = device.session_maker();
        let mut sealed = packet(&pool, &[5; 1400], &[0; 16]);
        for direction in [Direction::Encrypt, Direction::Decrypt] {
            let session = sessions.make(&gcm(direction, 16, 16, 12), &[1; 16], &[]).unwrap();
            let slot = queue.adopt(session).unwrap();
            let (status, back, _) = run(&mut queue, job(sealed, slot, 0, 1400, &[2; 12], &[3; 12]));
            assert_eq!(status, Status::Success, "{name}");
            let plain = back.data()[HEADER..][..1400] == [5; 1400];
            assert_eq!(plain, direction == Direction::Decrypt, "{name}");
            sealed = back;
        }
    }
    drop(pool);
}
