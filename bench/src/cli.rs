//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::esp::{Operation, PathKind, Provider};
use crate::scenario::Scenario;

/// Measures the Octoplane data plane.
#[derive(Debug, Parser)]
#[command(name = "octobench", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Packets per second through the worker loop, with yardsticks on request.
    Forward(ForwardArgs),
    /// What the sizes of tables, and transactions on entries that the traffic does not use, do to the rate of established
    /// packets and of new connections.
    Curves(CurvesArgs),
    /// ESP in tunnel mode, with yardsticks on request.
    Esp(EspArgs),
    /// What a lookup of an IPsec policy costs.
    Policies(PoliciesArgs),
    /// The engine alone on heap buffers, for an instruction counter to watch.
    Instructions(InstructionArgs),
    /// One measurement in a process of its own; prints its result as one line of JSON.
    #[command(hide = true)]
    Job {
        /// The job, in JSON.
        spec: String,
    },
    /// The same for `esp`.
    #[command(hide = true)]
    EspJob {
        /// The job, in JSON.
        spec: String,
    },
}

/// Where packets come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    /// A net_pcap device that repeats a file.
    Pcap,
    /// The harness itself: for more flows than net_pcap can hold.
    Generator,
}

/// In which order flows follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    /// One after the other, as they were made.
    Sequential,
    /// Shuffled, the same way each time.
    Random,
}

/// Where DPDK takes its memory from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MemoryKind {
    /// Huge pages.
    Hugepages,
    /// Ordinary pages.
    None,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Options of `octobench forward`. Names are those of dpdk-testpmd where it has the same option.
#[derive(Debug, Clone, Args)]
pub(crate) struct ForwardArgs {
    /// What the packets are and where they go.
    #[arg(long, value_enum, default_value_t = Scenario::Uplink)]
    pub(crate) scenario: Scenario,
    /// IPv6 instead of IPv4.
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// Flows from each source.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub(crate) flows: u32,
    /// Services; all are used.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) services: u32,
    /// Entries of each endpoint's policy.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) policy_entries: u32,
    /// What is known of addresses besides those that are used, in each family.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) ipcache: u32,
    /// Table transactions a second that have nothing to do with the traffic.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub(crate) churn: u32,
    /// Transactions, one after the other, each of which concerns all connections at once: how far throughput falls, and for
    /// how long. With the generator only.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) invalidate: u32,
    /// Have each packet begin a new connection; the flows are from where to where. With the generator only.
    #[arg(long)]
    pub(crate) new_connections: bool,
    /// Connections that the table holds meanwhile: time passes as fast as that takes.
    #[arg(long, default_value_t = 1_000_000, requires = "new_connections",
        value_parser = clap::value_parser!(u32).range(1000..=1_500_000))]
    pub(crate) hold: u32,
    /// Order of the flows.
    #[arg(long, value_enum, default_value_t = Order::Sequential)]
    pub(crate) order: Order,
    /// Where packets come from; by default pcap up to 65,536 packets a source, and the generator beyond.
    #[arg(long, value_enum)]
    pub(crate) source: Option<Source>,
    /// Frame sizes with FCS, in bytes, which the packets take by turns.
    #[arg(long, value_name = "SIZE,...", value_delimiter = ',', default_value = "64",
        value_parser = clap::value_parser!(u16).range(64..=1518))]
    pub(crate) txpkts: Vec<u16>,
    /// Internet mix: frames of 64, 570 and 1518 bytes in a ratio of 7 to 4 to 1.
    #[arg(long, conflicts_with = "txpkts")]
    pub(crate) imix: bool,
    /// Most packets taken at a time. With --yardstick the default is what suits dpdk-testpmd better of 32 and 64,
    /// otherwise 64.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) burst: Option<u16>,
    /// Workers, each on a core of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) nb_cores: u16,
    /// CPUs of the workers; by default the highest ones this process may use.
    #[arg(long, value_delimiter = ',')]
    pub(crate) core: Vec<usize>,
    /// Memory of DPDK; by default huge pages if there are enough.
    #[arg(long, value_enum)]
    pub(crate) memory: Option<MemoryKind>,
    /// Packet buffers; by default as many as the sources hold, and some thousands.
    #[arg(long)]
    pub(crate) total_num_mbufs: Option<u32>,
    /// Free buffers each core keeps to itself.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=512))]
    pub(crate) mbcache: u32,
    /// Seconds measured in each run.
    #[arg(long, default_value_t = 3.0)]
    pub(crate) duration: f64,
    /// Seconds before that, not measured.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warmup: f64,
    /// Runs of each candidate; medians are compared.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,
    /// Seconds between figures on stderr while measuring; 0 for none.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) stats_period: f64,
    /// Also measure a bare macswap loop and dpdk-testpmd, run by run in turns with ours.
    #[arg(long)]
    pub(crate) yardstick: bool,
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// Options of `octobench curves`.
#[derive(Debug, Args)]
pub(crate) struct CurvesArgs {
    /// IPv6 instead of IPv4.
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// Seconds measured in each run.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) duration: f64,
    /// Runs of each point; medians count.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// Options of `octobench policies`. With several values of an option, every combination is a case.
#[derive(Debug, Args)]
pub(crate) struct PoliciesArgs {
    /// Policies.
    #[arg(long, value_delimiter = ',', default_value = "1,100,10000", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) entries: Vec<u32>,
    /// Combinations of what they look at. Cases with fewer policies than that are left out.
    #[arg(long, value_delimiter = ',', default_value = "1,8", value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(crate) shapes: Vec<u32>,
    /// Rounds of 1,024 lookups.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..=10_000_000))]
    pub(crate) rounds: u32,
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// Options of `octobench esp`. With several values of an option, every combination is a case.
#[derive(Debug, Args)]
pub(crate) struct EspArgs {
    /// What is done.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "encrypt,decrypt")]
    pub(crate) operation: Vec<Operation>,
    /// What is around the provider.
    #[arg(long, value_enum, default_value_t = PathKind::Engine)]
    pub(crate) path: PathKind,
    /// Flows through the engine; at least 64, and one for each security association.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) flows: u32,
    /// Bytes that are encrypted: the packet inside the tunnel and two bytes of trailer. Multiples of 4.
    #[arg(long, value_delimiter = ',', default_value = "64,1424", value_parser = clap::value_parser!(u16).range(32..=1800))]
    pub(crate) size: Vec<u16>,
    /// Security associations, which packets take by turns.
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) sas: Vec<u32>,
    /// Who encrypts: software, or cryptodev:DEVICE with a PCI address or a virtual device (cryptodev:crypto_aesni_gcm).
    #[arg(long, default_value = "software")]
    pub(crate) provider: Provider,
    /// Library of the software provider: aes-gcm, ring or aws-lc-rs; by default whichever is fastest for a size.
    #[arg(long)]
    pub(crate) library: Option<String>,
    /// Packets at a time. With --yardstick the default is what suits dpdk-test-crypto-perf better of 32 and 64,
    /// otherwise 64.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) burst: Option<u16>,
    /// Workers, all on the same security associations.
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) nb_cores: Vec<u16>,
    /// CPUs of the workers; by default the highest ones this process may use.
    #[arg(long, value_delimiter = ',')]
    pub(crate) core: Vec<usize>,
    /// Memory of DPDK; by default huge pages if there are enough.
    #[arg(long, value_enum)]
    pub(crate) memory: Option<MemoryKind>,
    /// Seconds measured in each run.
    #[arg(long, default_value_t = 2.0)]
    pub(crate) duration: f64,
    /// Seconds before that, not measured.
    #[arg(long, default_value_t = 0.5)]
    pub(crate) warmup: f64,
    /// Runs of each candidate; medians are compared.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,
    /// Also measure dpdk-test-crypto-perf on the same device, or the bare AEAD of the fastest library, in turns with ours.
    #[arg(long)]
    pub(crate) yardstick: bool,
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// What the engine is given by `octobench instructions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// IPv4 between pods.
    PodToPod4,
    /// IPv4 between uplinks.
    Uplink4,
    /// IPv6 between uplinks.
    Uplink6,
    /// IPv4 from pods to services on another node.
    PodToService4,
    /// The same in IPv6.
    PodToService6,
    /// The answers, IPv4.
    FromTunnel4,
    /// The same in IPv6.
    FromTunnel6,
    /// First packets of IPv4 connections from pods to services on another node.
    NewConnection4,
    /// Nothing: the harness's own loop, to be subtracted.
    Bare,
}

/// Options of `octobench instructions`.
#[derive(Debug, Args)]
pub(crate) struct InstructionArgs {
    /// What to run.
    #[arg(long, value_enum)]
    pub(crate) case: Case,
    /// How many packets, rounded down to whole bursts.
    #[arg(long)]
    pub(crate) packets: u64,
    /// Packets at a time.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) burst: u16,
}
