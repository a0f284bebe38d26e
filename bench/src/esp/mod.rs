//! `octobench esp`: encapsulation and decapsulation with a provider, against the provider alone.

mod bare;
mod engine;
mod path;
mod perf;
pub(crate) mod policies;
mod report;
mod sas;
mod setup;
mod worker;

use anyhow::ensure;
use octoplane_esp::software::Library;

use setup::{Job, Setup, Subject};
pub(crate) use setup::{Operation, PathKind, Provider};

use crate::cli::{EspArgs, Format, MemoryKind};
use crate::forward::memory_for;
use crate::sample::Sample;
use crate::{child, cpus};
use report::Case;

/// Burst sizes the yardstick is tried with.
const BURSTS: [u16; 2] = [32, 64];

/// Measures and prints.
pub(crate) fn run(args: &EspArgs) -> anyhow::Result<()> {
    ensure!(
        args.duration > 0.0 && args.duration < 3600.0,
        "--duration: seconds, more than 0"
    );
    ensure!(
        args.warmup >= 0.0 && args.warmup < 3600.0,
        "--warmup: seconds, 0 or more"
    );
    let mut cases = Vec::new();
    for &operation in &args.operation {
        for &size in &args.size {
            for &sas in &args.sas {
                for &workers in &args.nb_cores {
                    cases.push(Case::new(setup(args, operation, size, sas, workers)?));
                }
            }
        }
    }
    let mut operations = vec![0; cases.len()];
    if args.yardstick {
        for (case, operations) in cases.iter_mut().zip(&mut operations) {
            *operations = choose_yardstick(args, case)?;
        }
    }
    for run in 1..=args.repeat {
        for (case, &operations) in cases.iter_mut().zip(&operations) {
            case.octoplane.push(measure(Subject::Octoplane, &case.setup)?);
            let yardstick = case.yardstick.as_ref().map(|(name, what)| (*name, what.clone()));
            match yardstick {
                Some((PERF, device)) => {
                    for _ in 0..PIECES {
                        case.yardsticks.push(perf::run(&case.setup, &device, operations)?);
                    }
                }
                Some((_, library)) => case
                    .yardsticks
                    .push(measure(Subject::Bare(library), &case.setup)?),
                None => {}
            }
            if args.output == Format::Table {
                eprintln!("run {run} of {}: {}", args.repeat, case.last());
            }
        }
    }
    match args.output {
        Format::Table => {
            print!("{}", report::head());
            for case in &cases {
                print!("{}", case.table(&cases));
            }
        }
        Format::Json => {
            let all: Vec<_> = cases
                .iter()
                .map(|case| case.json(&cases))
                .collect::<Result<_, _>>()?;
            println!("{}", serde_json::to_string_pretty(&all)?);
        }
    }
    Ok(())
}

/// Runs of dpdk-test-crypto-perf for one of ours.
const PIECES: usize = 4;
const PERF: &str = "crypto_perf";
const BARE: &str = "bare";

fn setup(args: &EspArgs, operation: Operation, size: u16, sas: u32, workers: u16) -> anyhow::Result<Setup> {
    let cpus = cpus::pick(&args.core, workers.into())?;
    let mut setup = Setup {
        operation,
        path: args.path,
        flows: args.flows,
        size,
        sas,
        provider: args.provider.clone(),
        library: args.library.clone(),
        burst: args.burst.unwrap_or(64),
        workers: cpus.workers,
        control: cpus.control,
        memory: MemoryKind::None,
        warmup: args.warmup,
        duration: args.duration,
    };
    setup.memory = args.memory.unwrap_or_else(|| memory_for(setup.megabytes()));
    Ok(setup)
}

/// Finds the best form of the yardstick, and how many operations of `dpdk-test-crypto-perf` take the time of a run.
fn choose_yardstick(args: &EspArgs, case: &mut Case) -> anyhow::Result<u64> {
    if case.setup.workers.len() > 1 {
        // It is one core's.
        return Ok(0);
    }
    match case.setup.provider.clone() {
        Provider::Software => {
            let mut best = (0.0, Library::ALL[0]);
            for library in Library::ALL {
                let setup = Setup {
                    warmup: case.setup.warmup.min(0.2),
                    duration: case.setup.duration.min(0.5),
                    ..case.setup.clone()
                };
                let sample = measure(Subject::Bare(library.to_string()), &setup)?;
                eprintln!(
                    "{}: bare {library}: {:.3} million a second",
                    case.title(),
                    sample.mpps
                );
                if sample.mpps > best.0 {
                    best = (sample.mpps, library);
                }
            }
            case.yardstick = Some((BARE, best.1.to_string()));
            Ok(0)
        }
        Provider::Cryptodev(device) => {
            if !perf::installed() {
                eprintln!("octobench: SKIPPED dpdk-test-crypto-perf: it is not installed");
                return Ok(0);
            }
            let mut best = (0.0, case.setup.burst);
            let bursts = args.burst.map_or_else(|| BURSTS.to_vec(), |burst| vec![burst]);
            for burst in bursts {
                case.setup.burst = burst;
                let sample = perf::run(&case.setup, &device, perf::TRIAL)?;
                eprintln!(
                    "{}: dpdk-test-crypto-perf with bursts of {burst}: {:.3} million a second",
                    case.title(),
                    sample.mpps
                );
                if sample.mpps > best.0 {
                    best = (sample.mpps, burst);
                }
            }
            case.setup.burst = best.1;
            case.yardstick = Some((PERF, device));
            // Short ones: the fastest of several was not disturbed.
            Ok((best.0 * 1e6 * case.setup.duration / PIECES as f64) as u64 + 1)
        }
    }
}

fn measure(subject: Subject, setup: &Setup) -> anyhow::Result<Sample> {
    let what = format!("{subject:?}");
    let job = Job {
        subject,
        setup: setup.clone(),
    };
    child::spawn("esp-job", &serde_json::to_string(&job)?, &what)
}

/// The other side: does the job.
pub(crate) fn serve(spec: &str) -> anyhow::Result<()> {
    let Job { subject, setup } = serde_json::from_str(spec)?;
    cpus::pin(setup.control)?;
    let sample = match subject {
        Subject::Octoplane => worker::run(&setup),
        Subject::Bare(library) => bare::run(&setup, &library),
    }?;
    println!("{}", serde_json::to_string(&sample)?);
    Ok(())
}
