//! The yardstick for software: a library's AEAD, and nothing around it.

use std::hint::black_box;
use std::time::{Duration, Instant};

use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{Aes128Gcm, KeyInit, Nonce};
use anyhow::{Context, anyhow, bail};
use dpdk::cycles;
use octoplane_esp::software::Library;

use super::setup::{ICV, Operation, ROUND, Setup};
use crate::cpus;
use crate::sample::{Sample, tenth};

const KEY: [u8; 16] = [0x5a; 16];
/// SPI and sequence number with ESN.
const AAD: [u8; 12] = [0x33; 12];

/// AES-128-GCM in place; the tag is behind the text.
trait Cipher {
    fn seal(&self, nonce: [u8; 12], text: &mut [u8], tag: &mut [u8]) -> Option<()>;
    fn open(&self, nonce: [u8; 12], packet: &mut [u8]) -> Option<()>;
}

struct Rust(Aes128Gcm);

impl Cipher for Rust {
    #[inline(always)]
    fn seal(&self, nonce: [u8; 12], text: &mut [u8], tag: &mut [u8]) -> Option<()> {
        let made = self
            .0
            .encrypt_inout_detached(&Nonce::from(nonce), &AAD, InOutBuf::from(text))
            .ok()?;
        tag.copy_from_slice(&made);
        Some(())
    }

    #[inline(always)]
    fn open(&self, nonce: [u8; 12], packet: &mut [u8]) -> Option<()> {
        let (text, tag) = packet.split_last_chunk_mut::<ICV>()?;
        self.0
            .decrypt_inout_detached(&Nonce::from(nonce), &AAD, InOutBuf::from(text), (&*tag).into())
            .ok()
    }
}

struct Ring(ring::aead::LessSafeKey);

impl Cipher for Ring {
    #[inline(always)]
    fn seal(&self, nonce: [u8; 12], text: &mut [u8], tag: &mut [u8]) -> Option<()> {
        let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
        let aad = ring::aead::Aad::from(&AAD);
        let made = self.0.seal_in_place_separate_tag(nonce, aad, text).ok()?;
        tag.copy_from_slice(made.as_ref());
        Some(())
    }

    #[inline(always)]
    fn open(&self, nonce: [u8; 12], packet: &mut [u8]) -> Option<()> {
        let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
        let aad = ring::aead::Aad::from(&AAD);
        self.0.open_in_place(nonce, aad, packet).ok().map(|_| ())
    }
}

struct AwsLc(aws_lc_rs::aead::LessSafeKey);

impl Cipher for AwsLc {
    #[inline(always)]
    fn seal(&self, nonce: [u8; 12], text: &mut [u8], tag: &mut [u8]) -> Option<()> {
        let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(nonce);
        let aad = aws_lc_rs::aead::Aad::from(&AAD);
        let made = self.0.seal_in_place_separate_tag(nonce, aad, text).ok()?;
        tag.copy_from_slice(made.as_ref());
        Some(())
    }

    #[inline(always)]
    fn open(&self, nonce: [u8; 12], packet: &mut [u8]) -> Option<()> {
        let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(nonce);
        let aad = aws_lc_rs::aead::Aad::from(&AAD);
        self.0.open_in_place(nonce, aad, packet).ok().map(|_| ())
    }
}

/// Measures one library.
pub(super) fn run(setup: &Setup, library: &str) -> anyhow::Result<Sample> {
    // For the clock's frequency.
    let _eal = setup.eal()?;
    let cpu = *setup.workers.first().context("no worker")?;
    cpus::pin(cpu)?;
    let refused = |_| anyhow!("{library} refuses the key");
    match library.parse()? {
        Library::RustCrypto => measure(setup, &Rust(Aes128Gcm::new(&KEY.into()))),
        Library::Ring => {
            let key = ring::aead::UnboundKey::new(&ring::aead::AES_128_GCM, &KEY).map_err(refused)?;
            measure(setup, &Ring(ring::aead::LessSafeKey::new(key)))
        }
        Library::AwsLc => {
            let key = aws_lc_rs::aead::UnboundKey::new(&aws_lc_rs::aead::AES_128_GCM, &KEY)
                .map_err(|_| anyhow!("{library} refuses the key"))?;
            measure(setup, &AwsLc(aws_lc_rs::aead::LessSafeKey::new(key)))
        }
    }
}

fn nonce(n: u64) -> [u8; 12] {
    let mut nonce = [0x77; 12];
    nonce[4..].copy_from_slice(&n.to_be_bytes());
    nonce
}

/// As many packets at a time as the data plane has, and the clock stopped in the same way while they are made.
fn measure(setup: &Setup, cipher: &impl Cipher) -> anyhow::Result<Sample> {
    let size = usize::from(setup.size);
    let mut packets = vec![vec![0x44; size + ICV]; ROUND];
    let mut sealed = packets.clone();
    for (n, packet) in sealed.iter_mut().enumerate() {
        let (text, tag) = packet.split_at_mut(size);
        cipher
            .seal(nonce(n as u64), text, tag)
            .context("encryption failed")?;
    }
    let mut counter = ROUND as u64;
    let mut round = || -> anyhow::Result<u64> {
        if setup.operation == Operation::Decrypt {
            for (packet, sealed) in packets.iter_mut().zip(&sealed) {
                packet.copy_from_slice(sealed);
            }
        }
        let start = cycles::now();
        for (n, packet) in packets.iter_mut().enumerate() {
            let done = match setup.operation {
                Operation::Encrypt => {
                    let (text, tag) = packet.split_at_mut(size);
                    cipher.seal(nonce(counter + n as u64), black_box(text), tag)
                }
                Operation::Decrypt => cipher.open(nonce(n as u64), black_box(packet)),
            };
            if done.is_none() {
                bail!("the library refuses a packet");
            }
        }
        counter += ROUND as u64;
        Ok(cycles::now().wrapping_sub(start))
    };
    let mut rounds = Vec::new();
    let mut run = |time: Duration| -> anyhow::Result<(u64, u64, f64)> {
        let (mut packets, mut spent) = (0, 0);
        let start = Instant::now();
        while start.elapsed() < time {
            let cycles = round()?;
            rounds.push(cycles as f64);
            spent += cycles;
            packets += ROUND as u64;
        }
        Ok((packets, spent, start.elapsed().as_secs_f64()))
    };
    run(setup.warmup())?;
    let (packets, spent, seconds) = run(setup.duration())?;
    Ok(Sample {
        mpps: packets as f64 * cycles::hz() as f64 / spent as f64 / 1e6,
        packets,
        seconds,
        cycles_per_packet: Some(spent as f64 / packets as f64),
        quiet: Some(cycles::hz() as f64 * ROUND as f64 / tenth(rounds).max(1.0) / 1e6),
        ..Sample::default()
    })
}
