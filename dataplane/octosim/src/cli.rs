//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};

/// The Octoplane data plane without devices: tables and packets in, packets out.
///
/// The same input and seed give the same output. Exit status: 0 done, 1 not as expected or refused, 2 the command line or
/// a file is wrong.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Read requests, one JSON object a line, and print an answer to each.
    Run {
        #[command(flatten)]
        node: Node,
        /// The requests; - for standard input.
        #[arg(default_value = "-")]
        requests: PathBuf,
    },
    /// Tell the engine and the reference model the same, at random, and compare what they do. A scenario on which they
    /// differ is made as small as possible and printed.
    Compare {
        /// Where the random scenarios begin from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many scenarios.
        #[arg(long, default_value_t = 1000)]
        cases: u32,
        /// Most steps of each.
        #[arg(long, default_value_t = 40)]
        steps: usize,
        /// Where to put the scenario, too.
        #[arg(long)]
        save: Option<PathBuf>,
    },
    /// Run scenarios on the engine and the reference model and compare.
    Replay {
        /// As compare prints them.
        #[arg(required = true)]
        scenarios: Vec<PathBuf>,
    },
    /// Have ports receive what was captured, and capture what they send.
    Pcap {
        #[command(flatten)]
        node: Node,
        /// What a port receives; give it again for more.
        #[arg(short, long = "in", value_name = "PORT=FILE", required = true)]
        input: Vec<Capture>,
        /// Where to put a capture file for each port.
        #[arg(short, long)]
        out: PathBuf,
    },
}

/// The node that is simulated.
#[derive(Debug, Args)]
pub(crate) struct Node {
    /// What is programmed, YAML or JSON as `octoctl apply` reads it. Its ports may have role, mac, mtu and addresses.
    #[arg(short, long)]
    pub(crate) file: Option<PathBuf>,
    /// The daemon's configuration, for ports, gateways and rates. Without it the state's ports are taken.
    #[arg(short, long)]
    pub(crate) config: Option<PathBuf>,
    /// What hashes and choices begin from.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Neither ask for neighbours nor learn them.
    #[arg(long)]
    pub(crate) no_learning: bool,
}

/// A port and a capture file.
#[derive(Debug, Clone)]
pub(crate) struct Capture {
    pub(crate) port: String,
    pub(crate) file: PathBuf,
}

impl FromStr for Capture {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (port, file) = text
            .split_once('=')
            .ok_or("expected PORT=FILE as in pod1=in.pcap")?;
        Ok(Self {
            port: port.into(),
            file: file.into(),
        })
    }
}
