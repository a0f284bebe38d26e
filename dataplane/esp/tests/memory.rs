//! What happens to memory: nothing is taken from the heap for a packet, and keys are gone from what is given back.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(unsafe_code, reason = "a global allocator cannot be written without")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use common::lab::{Node, algorithms, config, ipv4, keys};
use octoplane_esp::software::{Library, Plan, Software};
use octoplane_esp::{Direction, Job, KeyMaterial, Processed, Provider, ToDecrypt, ToEncrypt};
use octoplane_packet::{HeapBuf, PacketBuf};

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    /// What must not be in memory that is given back.
    static SECRET: Cell<Option<[u8; 16]>> = const { Cell::new(None) };
    static FOUND: Cell<u64> = const { Cell::new(0) };
}

struct Watching;

fn add(counter: &'static std::thread::LocalKey<Cell<u64>>) {
    // A thread on its way out has no counter any more.
    let _ = counter.try_with(|count| count.set(count.get() + 1));
}

/// Looks for the secret in a block.
///
/// # Safety
/// The block is readable; all of it was written, or is at least some memory.
unsafe fn inspect(ptr: *mut u8, size: usize) {
    let Ok(Some(secret)) = SECRET.try_with(Cell::get) else {
        return;
    };
    for offset in 0..(size + 1).saturating_sub(secret.len()) {
        // SAFETY: within the block; volatile, so that what was not written is merely some bytes.
        let same = (0..secret.len()).all(|i| unsafe { ptr.add(offset + i).read_volatile() } == secret[i]);
        if same {
            add(&FOUND);
        }
    }
}

// SAFETY: all requests are handed to the system's allocator as they are.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(&CALLS);
        // SAFETY: the caller keeps the contract of `alloc`. Zeroed, so that all of a block may be read.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        add(&CALLS);
        // SAFETY: a live block of this size.
        unsafe { inspect(ptr, layout.size()) };
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static GLOBAL: Watching = Watching;

#[test]
fn no_allocation_for_a_packet() {
    const BURST: usize = 64;
    for algorithm in algorithms() {
        let (mut sender, mut receiver) = (Node::new(), Node::new());
        let with = |direction, spi: u32| {
            let mut config = config(direction, algorithm);
            config.spi = spi;
            config.keys = keys(algorithm, spi as u8);
            config.replay_window = 4096;
            config
        };
        let out: Vec<_> = (1..=8)
            .map(|spi| sender.add(with(Direction::Outbound, spi)))
            .collect();
        for spi in 1..=8 {
            receiver.add(with(Direction::Inbound, spi));
        }
        let inner = ipv4(17, &[0; 100]);
        let mut bufs: Vec<HeapBuf> = (0..BURST).map(|_| HeapBuf::new(&inner)).collect();
        let mut to_encrypt: Vec<ToEncrypt<HeapBuf>> = Vec::with_capacity(BURST);
        let mut to_decrypt: Vec<ToDecrypt<HeapBuf>> = Vec::with_capacity(BURST);
        let mut jobs: Vec<Job<HeapBuf>> = Vec::with_capacity(BURST);
        let mut done: Vec<Job<HeapBuf>> = Vec::with_capacity(BURST);
        let mut processed: Vec<Processed<HeapBuf>> = Vec::with_capacity(BURST);
        let mut provider: Software<HeapBuf> = Software::new(Arc::new(Plan::only(Library::AwsLc)), BURST);
        let mut calls = 0;
        for round in 0..20 {
            // The first round expands the keys.
            if round == 1 {
                calls = CALLS.get();
            }
            for (index, mut buf) in bufs.drain(..).enumerate() {
                buf.fill(&inner);
                if index == 5 {
                    // Refusals cost nothing either.
                    buf.fill(&[0]);
                }
                let sa = out[index % if round % 2 == 0 { 8 } else { 1 }];
                to_encrypt.push(ToEncrypt {
                    buf,
                    sa,
                    cookie: [0; 3],
                });
            }
            let snapshot = sender.reader.load();
            let sad = &snapshot.sad;
            sender
                .outbound
                .prepare(sad, 0, &mut to_encrypt, &mut jobs, &mut processed);
            assert_eq!((jobs.len(), processed.len()), (BURST - 1, 1));
            assert_eq!(provider.submit(sad, &mut jobs), BURST - 1);
            assert_eq!(provider.poll(&mut done, usize::MAX), BURST - 1);
            sender.outbound.finish(sad, &mut done, &mut processed);
            assert_eq!(processed.len(), BURST);
            for packet in processed.drain(..) {
                let buf = packet.buf;
                to_decrypt.push(ToDecrypt {
                    buf,
                    mark: 0,
                    cookie: [0; 3],
                });
            }
            let snapshot = receiver.reader.load();
            let sad = &snapshot.sad;
            receiver
                .inbound
                .prepare(sad, 0, &mut to_decrypt, &mut jobs, &mut processed);
            provider.submit(sad, &mut jobs);
            provider.poll(&mut done, usize::MAX);
            receiver.inbound.finish(sad, &mut done, &mut processed);
            let ok = processed
                .iter()
                .filter(|packet| packet.outcome.is_ok() && packet.buf.data() == inner)
                .count();
            assert_eq!(ok, BURST - 1);
            bufs.extend(processed.drain(..).map(|packet| packet.buf));
        }
        assert_eq!(CALLS.get() - calls, 0, "{algorithm}");
    }
}

/// Looks like a packet of the inbound security association.
fn nonsense(algorithm: octoplane_esp::Algorithm) -> Vec<u8> {
    let mut packet = vec![
        0x45, 0, 0, 0, 0, 0, 0, 0, 64, 50, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2,
    ];
    packet.extend(0x1234_5678u32.to_be_bytes());
    packet.extend([0, 0, 0, 1]);
    packet.resize(28 + algorithm.iv_len() + 96 + algorithm.icv_len(), 0);
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet
}

/// The start of an expanded AES key is the key itself, so a look for the key finds expanded ones, too.
#[test]
fn keys_are_gone_from_memory_that_is_given_back() {
    let secret: [u8; 16] = std::array::from_fn(|i| 0xa7 ^ (i as u8).wrapping_mul(29));
    // The test can fail: memory that is given back with the secret in it is found.
    SECRET.set(Some(secret));
    let leaked = secret.to_vec();
    drop(leaked);
    SECRET.set(None);
    assert_eq!(FOUND.replace(0), 1);

    for algorithm in algorithms() {
        for library in Library::ALL {
            for direction in [Direction::Outbound, Direction::Inbound] {
                let mut node = Node::new();
                node.provider = Software::new(Arc::new(Plan::only(library)), 256);
                let long = |len: usize| -> Vec<u8> { secret.iter().copied().cycle().take(len).collect() };
                let mut material = match algorithm {
                    octoplane_esp::Algorithm::Aead(_) => long(algorithm.cipher_key_len() + 4),
                    octoplane_esp::Algorithm::CbcHmac(..) => long(64),
                };
                let keys = match algorithm {
                    octoplane_esp::Algorithm::Aead(_) => KeyMaterial::aead(&material),
                    octoplane_esp::Algorithm::CbcHmac(..) => KeyMaterial::cbc_hmac(
                        &material[..algorithm.cipher_key_len()],
                        &material[..algorithm.auth_key_len()],
                    ),
                };
                let mut configured = config(direction, algorithm);
                configured.keys = keys;
                SECRET.set(Some(secret));
                let sa = node.add(configured);
                // Has the keys expanded: by a worker, as always. What its stack keeps of round keys is its own, for workers
                // take nothing from the heap.
                let (mut node, found) = std::thread::spawn(move || {
                    SECRET.set(Some(secret));
                    match direction {
                        Direction::Outbound => drop(node.encrypt(&ipv4(17, &[0; 64]), sa)),
                        Direction::Inbound => {
                            let outcome = node.decrypt(&nonsense(algorithm));
                            assert_eq!(outcome, Err(octoplane_esp::Cause::Auth));
                        }
                    }
                    SECRET.set(None);
                    (node, FOUND.get())
                })
                .join()
                .unwrap();
                assert_eq!(found, 0, "{algorithm} {library} {direction:?}");
                let key = config(direction, algorithm).key();
                node.db
                    .apply(0, vec![octoplane_esp::db::Change::DeleteSa(key)])
                    .unwrap();
                drop(node);
                SECRET.set(None);
                assert_eq!(FOUND.replace(0), 0, "{algorithm} {library} {direction:?}");
                material.fill(0);
            }
        }
    }
}
