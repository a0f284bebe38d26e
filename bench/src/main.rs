//! Measures the data plane: packets per second against yardsticks, and instructions per packet.

#![forbid(unsafe_code)]

mod child;
mod churn;
mod cli;
mod cpus;
mod curves;
mod dip;
mod esp;
mod forward;
mod frames;
mod generator;
mod instructions;
mod job;
mod macswap;
mod measure;
mod pcap;
mod ports;
mod prime;
mod report;
mod sample;
mod scenario;
mod testpmd;
mod worker;

use clap::Parser;

use crate::cli::{Cli, Command};

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Forward(args) => forward::run(&args),
        Command::Curves(args) => curves::run(&args),
        Command::Esp(args) => esp::run(&args),
        Command::Policies(args) => esp::policies::run(&args),
        Command::Instructions(args) => instructions::run(&args),
        Command::Job { spec } => child::serve(&spec),
        Command::EspJob { spec } => esp::serve(&spec),
    }
}
