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
use octosim::{Setup, Sim, compare, pcap, run};

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
        Verb::Compare {
            seed,
            cases,
            steps,
            save,
        } => search(seed, cases, steps, save.as_deref()),
        Verb::Replay { scenarios } => replay(&scenarios),
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
    let given = node.file.is_some() || node.config.is_some();
    let sim = given.then(|| start(node)).transpose()?;
    let output = io::stdout().lock();
    if requests.as_os_str() == "-" {
        return run::run(sim, io::stdin().lock(), output).map_err(refused);
    }
    let file = File::open(requests).map_err(|error| usage(format!("{}: {error}", requests.display())))?;
    run::run(sim, BufReader::new(file), output).map_err(refused)
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

/// Looks for differences from the model.
fn search(seed: u64, cases: u32, steps: usize, save: Option<&Path>) -> Result<bool, Failure> {
    let Some(failure) = compare::search(seed, cases, steps).map_err(refused)? else {
        println!("{cases} scenarios from seed {seed}: no difference");
        return Ok(true);
    };
    let mut lines = Vec::new();
    for text in failure.difference.lines() {
        lines.push(format!("# {text}"));
    }
    for request in &failure.requests {
        lines.push(serde_json::to_string(request).map_err(refused)?);
    }
    let text = lines.join("\n") + "\n";
    print!("{text}");
    if let Some(path) = save {
        std::fs::write(path, text).map_err(|error| refused(format!("{}: {error}", path.display())))?;
    }
    Ok(false)
}

/// Runs scenarios that were written down, on the engine and the model.
fn replay(scenarios: &[std::path::PathBuf]) -> Result<bool, Failure> {
    let mut same = true;
    for path in scenarios {
        let text =
            std::fs::read_to_string(path).map_err(|error| usage(format!("{}: {error}", path.display())))?;
        let requests = run::read(&text).map_err(|error| usage(format!("{}: {error}", path.display())))?;
        match compare::replay(&requests) {
            Ok(()) => println!("{}: no difference", path.display()),
            Err((index, error)) => {
                same = false;
                println!("{}: request {index}: {error}", path.display());
            }
        }
    }
    Ok(same)
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
