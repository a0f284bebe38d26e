//! What the tests of crypto devices share.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too, and none uses all of them"
)]

use std::time::{Duration, Instant};

use dpdk::crypto::{
    CRYPTO_BURST, CryptoAlgorithm, CryptoJob, CryptoQueue, Direction, Done, SessionSlot, Status, Transform,
};
use dpdk::{ArrayVec, Mbuf, Mempool, PacketBuf};

/// Bytes in front of what is encrypted, as an ESP header and an IV would be.
pub const HEADER: usize = 24;

/// Drivers that encrypt on the CPU: Debian's `librte-crypto-openssl23`, and `librte-crypto-ipsec-mb23` where there is one.
pub fn drivers() -> &'static [&'static str] {
    const ALL: [&str; 3] = ["crypto_openssl", "crypto_aesni_gcm", "crypto_aesni_mb"];
    if cfg!(target_arch = "x86_64") {
        &ALL
    } else {
        &ALL[..1]
    }
}

/// Bytes from hexadecimal digits.
pub fn hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "{text}");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

pub fn padded(bytes: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    out[..bytes.len()].copy_from_slice(bytes);
    out
}

/// A transform for AES-GCM with nonces of 12 bytes.
pub fn gcm(direction: Direction, key_len: u16, digest_len: u16, aad_len: u16) -> Transform {
    Transform {
        algorithm: CryptoAlgorithm::AesGcm,
        direction,
        key_len,
        auth_key_len: 0,
        iv_len: 12,
        digest_len,
        aad_len,
    }
}

/// A packet of a header, `text` and `tag`.
pub fn packet(pool: &Mempool, text: &[u8], tag: &[u8]) -> Mbuf {
    let mut packet = pool.alloc().unwrap();
    let data = packet.append(HEADER + text.len() + tag.len()).unwrap();
    data[..HEADER].fill(0xee);
    data[HEADER..][..text.len()].copy_from_slice(text);
    data[HEADER + text.len()..].copy_from_slice(tag);
    packet
}

/// The job of encrypting or decrypting `packet`'s bytes behind the header.
pub fn job(packet: Mbuf, slot: SessionSlot, user: u32, text_len: usize, iv: &[u8], aad: &[u8]) -> CryptoJob {
    let mut job = CryptoJob::new(packet, slot, user);
    job.cipher(HEADER as u16, text_len as u16)
        .auth(0, (HEADER + text_len) as u16)
        .digest((HEADER + text_len) as u16)
        .iv(padded(iv))
        .aad(padded(aad));
    job
}

/// Waits for `n` packets.
pub fn collect(queue: &mut CryptoQueue, n: usize) -> Vec<Done> {
    let mut all = Vec::new();
    let mut burst = ArrayVec::<Done, CRYPTO_BURST>::new();
    let start = Instant::now();
    while all.len() < n {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{} of {n} came back",
            all.len()
        );
        queue.dequeue(&mut burst);
        all.extend(burst.drain(..));
    }
    all
}

/// One packet there and back.
pub fn run(queue: &mut CryptoQueue, one: CryptoJob) -> (Status, Mbuf, Option<Mbuf>) {
    let mut jobs = ArrayVec::<CryptoJob, 1>::new();
    jobs.push(one);
    let enqueued = queue.enqueue(&mut jobs);
    assert_eq!((enqueued.taken, enqueued.refused), (1, None));
    let done = collect(queue, 1).pop().unwrap();
    let status = done.status();
    let (src, dst) = done.into_packets();
    (status, src, dst)
}
