//! `octosim`: the engine as a tool.

#![forbid(unsafe_code)]

mod cli;

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use octosim::line::{Answer, Flow, Out};
use octosim::{Setup, Sim, pcap, run};

use crate::cli::{Arguments, Capture, Node, Verb};

/// Why it ends early.
enum Failure {
    /// The command line or a file is wrong.
    Usage(String),
    /// Something was refused, or nobody reads.
    Refused(String),
}

fn usage(error: impl Display) -> Failure {
    Failure::Usage(error.to_string())
}

fn refused(error: impl Display) -> Failure {
    Failure::Refused(error.to_string())
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Run { node, requests } => run_requests(&node, &requests),
        Verb::Pcap { node, input, out } => run_captures(&node, &input, &out),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(Failure::Refused(text)) => {
            eprintln!("octosim: {text}");
            ExitCode::from(1)
        }
        Err(Failure::Usage(text)) => {
            eprintln!("octosim: {text}");
            ExitCode::from(2)
        }
    }
}

fn run_requests(node: &Node, requests: &Path) -> Result<bool, Failure> {
    let mut sim = start(node)?;
    let output = io::stdout().lock();
    if requests.as_os_str() == "-" {
        return run::run(&mut sim, io::stdin().lock(), output).map_err(refused);
    }
    let file = File::open(requests).map_err(|error| usage(format!("{}: {error}", requests.display())))?;
    run::run(&mut sim, BufReader::new(file), output).map_err(refused)
}

fn run_captures(node: &Node, input: &[Capture], out: &Path) -> Result<bool, Failure> {
    let mut sim = start(node)?;
    let files = input
        .iter()
        .map(|it| Ok((sim.port(&it.port).map_err(usage)?, it.file.clone())))
        .collect::<Result<Vec<_>, _>>()?;
    let arrivals = pcap::read(&files).map_err(usage)?;
    let (sent, outcome) = pcap::replay(&mut sim, &arrivals);
    let names: Vec<&str> = sim.setup().ports.iter().map(|port| port.name.as_str()).collect();
    pcap::write(out, &names, &sent).map_err(refused)?;
    let mut output = io::stdout().lock();
    let flows = sim.flows().iter().map(Flow::from).collect();
    for answer in [Answer::Out(Out::of(&sim, outcome)), Answer::Flows(flows)] {
        serde_json::to_writer(&mut output, &answer).map_err(refused)?;
        output.write_all(b"\n").map_err(refused)?;
    }
    Ok(true)
}

/// The node as the command line wants it.
fn start(node: &Node) -> Result<Sim, Failure> {
    let state = match &node.file {
        Some(file) => Some(octoplane_state::read(file).map_err(usage)?),
        None => None,
    };
    let setup = match (&node.config, &state) {
        (Some(config), _) => Setup::of_config(config).map_err(usage)?,
        (None, Some(source)) => {
            Setup::of_state(&source.state).map_err(|error| usage(format!("{}: {error}", source.name)))?
        }
        (None, None) => return Err(usage("--file or --config is needed to know the ports")),
    };
    let mut sim = Sim::new(Setup {
        seed: node.seed,
        learn: !node.no_learning,
        ..setup
    })
    .map_err(refused)?;
    if let Some(source) = state {
        sim.apply(source.state)
            .map_err(|error| refused(format!("{}: {error}", source.name)))?;
    }
    Ok(sim)
}
