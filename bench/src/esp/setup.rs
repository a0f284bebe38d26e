//! One measurement of ESP, as it is handed to a process of its own.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use dpdk::eal::{LogLevel, Memory};
use dpdk::{Eal, EalOptions, Mempool};
use serde::{Deserialize, Serialize};

use crate::cli::MemoryKind;

/// Packets that are made before, and then go through in one go with the clock running: about as many buffers as
/// dpdk-test-crypto-perf goes through before it comes back to the first one, so that caches help both of us the same.
pub(super) const ROUND: usize = 128;
/// The replay window.
pub(super) const WINDOW: u32 = 1024;
/// Bytes of the ESP trailer without padding: its length and the next header.
pub(super) const TRAILER: u16 = 2;
/// Bytes of the ICV.
pub(super) const ICV: usize = 16;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Operation {
    /// Encapsulation and encryption.
    Encrypt,
    /// Decryption, replay protection and decapsulation.
    Decrypt,
}

impl Operation {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
        }
    }
}

/// What is around the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PathKind {
    /// The engine, with connections, and ESP.
    Engine,
    /// ESP alone.
    Esp,
}

/// Who encrypts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Provider {
    /// In process.
    Software,
    /// A device, by PCI address or as a virtual device with its arguments.
    Cryptodev(String),
}

impl FromStr for Provider {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "software" => Ok(Self::Software),
            Some(("cryptodev", device)) if !device.is_empty() => Ok(Self::Cryptodev(device.to_owned())),
            _ => Err("expected software, or cryptodev:DEVICE as in cryptodev:crypto_aesni_gcm".to_owned()),
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Software => f.write_str("software"),
            Self::Cryptodev(device) => write!(f, "cryptodev:{device}"),
        }
    }
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Subject {
    /// ESP with a provider.
    Octoplane,
    /// Nothing but the AEAD of a library.
    Bare(String),
}

/// One case: AES-128-GCM with an ICV of 16 bytes, tunnel mode over IPv4, ESN.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) operation: Operation,
    pub(crate) path: PathKind,
    /// Flows through the engine; at least 64, and one for each security association.
    pub(crate) flows: u32,
    /// Bytes that are encrypted.
    pub(crate) size: u16,
    /// Security associations, which packets take by turns.
    pub(crate) sas: u32,
    pub(crate) provider: Provider,
    pub(crate) library: Option<String>,
    pub(crate) burst: u16,
    pub(crate) workers: Vec<usize>,
    pub(crate) control: usize,
    pub(crate) memory: MemoryKind,
    pub(crate) warmup: f64,
    pub(crate) duration: f64,
}

/// A case for a process of its own.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) subject: Subject,
    pub(crate) setup: Setup,
}

impl Setup {
    /// Packet buffers: some rounds for each worker.
    pub(super) fn mbufs(&self) -> u32 {
        let each = ROUND * 8;
        u32::try_from((each * self.workers.len()).next_power_of_two() - 1).unwrap_or(u32::MAX)
    }

    /// Megabytes for DPDK: buffers, operations, and sessions of up to 4 KiB.
    pub(crate) fn megabytes(&self) -> u32 {
        160 + self.mbufs() / 1024 * 5 / 2 + self.sas / 256
    }

    pub(super) fn eal(&self) -> anyhow::Result<Eal> {
        let memory = match self.memory {
            MemoryKind::Hugepages => Memory::Hugepages {
                mb_per_socket: Vec::new(),
            },
            MemoryKind::None => Memory::NoHuge { mb: self.megabytes() },
        };
        let pci = matches!(&self.provider, Provider::Cryptodev(device) if device.contains(':'));
        Ok(Eal::init(&EalOptions {
            program: "octobench".to_owned(),
            memory,
            no_pci: !pci,
            main_cpus: Some(vec![self.control]),
            log_level: LogLevel::Error,
            ..EalOptions::default()
        })?)
    }

    pub(super) fn pool(&self, eal: &Eal) -> anyhow::Result<Mempool> {
        Ok(Mempool::new(
            eal,
            "packets",
            self.mbufs(),
            256,
            dpdk::mempool::DEFAULT_DATA_ROOM,
            None,
        )?)
    }

    pub(super) fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup)
    }

    pub(super) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.duration)
    }
}
