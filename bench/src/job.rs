//! One measurement, as it is handed to a process of its own.

use std::path::PathBuf;
use std::time::Duration;

use dpdk::eal::{LogLevel, Memory};
use dpdk::{Eal, EalOptions};
use octoplane_tables::SharedStore;
use serde::{Deserialize, Serialize};

use crate::cli::{MemoryKind, Order, Source};
use crate::frames::Frame;
use crate::scenario::{Scale, Scenario};

/// Changes of one transaction.
const PORTION: usize = 10_000;

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Subject {
    /// The data plane.
    Octoplane,
    /// The bare loop.
    Macswap,
}

/// What all candidates of an invocation have in common.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) scenario: Scenario,
    pub(crate) ipv6: bool,
    pub(crate) flows: u32,
    pub(crate) scale: Scale,
    /// Table transactions a second.
    pub(crate) churn: u32,
    /// Transactions that concern all connections.
    pub(crate) invalidate: u32,
    /// Connections that are kept when each packet begins a new one; `None`: each continues one.
    pub(crate) hold: Option<u32>,
    pub(crate) sizes: Vec<u16>,
    pub(crate) order: Order,
    pub(crate) source: Source,
    pub(crate) burst: u16,
    pub(crate) workers: Vec<usize>,
    pub(crate) control: usize,
    pub(crate) memory: MemoryKind,
    pub(crate) mbufs: u32,
    pub(crate) mbuf_cache: u32,
    pub(crate) warmup: f64,
    pub(crate) duration: f64,
    pub(crate) stats_period: f64,
    /// Folder of the capture files.
    pub(crate) dir: PathBuf,
}

/// One measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) subject: Subject,
    pub(crate) setup: Setup,
}

impl Setup {
    /// The frames that a port receives.
    pub(crate) fn frames(&self, port: usize) -> Vec<Frame> {
        let random = self.order == Order::Random;
        self.scenario
            .frames(port, self.ipv6, self.flows, &self.sizes, random, &self.scale)
    }

    /// What has to have been sent before, and by which port.
    pub(crate) fn questions(&self) -> (usize, Vec<Frame>) {
        self.scenario.questions(self.ipv6, self.flows, &self.scale)
    }

    /// What the tables hold, in transactions of bearable size.
    pub(crate) fn program(&self, store: &SharedStore) -> anyhow::Result<()> {
        let mut changes = self.scenario.changes(self.flows, &self.scale);
        while !changes.is_empty() {
            let rest = changes.split_off(changes.len().min(PORTION));
            store.apply(changes)?;
            changes = rest;
        }
        Ok(())
    }

    /// The capture file of a port.
    pub(crate) fn capture(&self, port: usize) -> PathBuf {
        self.dir.join(format!("port{port}.pcap"))
    }

    /// Name of a port's virtual device.
    pub(crate) fn device(&self, port: usize) -> String {
        if port < self.scenario.sources() {
            format!("net_pcap{port}")
        } else {
            format!("net_null{port}")
        }
    }

    /// The virtual devices: sources that repeat a file and drop what they send, and sinks that receive nothing.
    pub(crate) fn vdevs(&self) -> Vec<String> {
        if self.source == Source::Generator {
            return Vec::new();
        }
        (0..2)
            .map(|port| {
                let device = self.device(port);
                if port < self.scenario.sources() {
                    let file = format!(",rx_pcap={}", self.capture(port).display());
                    format!("{device}{},infinite_rx=1", file.repeat(self.workers.len()))
                } else {
                    format!("{device},no-rx=1")
                }
            })
            .collect()
    }

    /// Megabytes for DPDK.
    pub(crate) fn megabytes(&self) -> u32 {
        // A buffer is 2,176 bytes of room, its header and its pool's.
        128 + self.mbufs / 1024 * 5 / 2
    }

    /// Starts the EAL as all candidates have it.
    pub(crate) fn eal(&self) -> anyhow::Result<Eal> {
        let memory = match self.memory {
            MemoryKind::Hugepages => Memory::Hugepages {
                mb_per_socket: Vec::new(),
            },
            MemoryKind::None => Memory::NoHuge { mb: self.megabytes() },
        };
        Ok(Eal::init(&EalOptions {
            program: "octobench".to_owned(),
            memory,
            no_pci: true,
            vdevs: self.vdevs(),
            main_cpus: Some(vec![self.control]),
            log_level: LogLevel::Error,
            ..EalOptions::default()
        })?)
    }

    pub(crate) fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup)
    }

    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.duration)
    }

    /// Time between figures while measuring.
    pub(crate) fn period(&self) -> Option<Duration> {
        (self.stats_period > 0.0).then(|| Duration::from_secs_f64(self.stats_period))
    }
}
