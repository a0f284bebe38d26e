//! `octobench forward`: all candidates by turns.

use std::fs;

use anyhow::{Context, ensure};

use crate::cli::{Format, ForwardArgs, MemoryKind, Source};
use crate::frames::IMIX;
use crate::job::{Setup, Subject};
use crate::report::Report;
use crate::scenario::{ENDPOINTS, MAX_HEADER, Scale, Scenario};
use crate::{child, cpus, pcap, testpmd};

/// Packets that one capture file may have: net_pcap keeps each in a buffer.
const MAX_CAPTURED: u32 = 65_536;
/// Buffers beyond those that the sources hold.
const SPARE: u32 = 8192;
/// Burst sizes dpdk-testpmd is tried with.
const BURSTS: [u16; 2] = [32, 64];

/// Measures and prints.
pub(crate) fn run(args: &ForwardArgs) -> anyhow::Result<()> {
    let dir = tempfile::Builder::new().prefix("octobench-").tempdir()?;
    let mut setup = setup(args, dir.path().to_path_buf())?;
    if setup.source == Source::Pcap {
        for port in 0..setup.scenario.sources() {
            let path = setup.capture(port);
            pcap::write(&path, &setup.frames(port))
                .with_context(|| format!("{} cannot be written", path.display()))?;
        }
    }
    let with_testpmd = args.yardstick && testpmd_usable(&setup);
    if with_testpmd && args.burst.is_none() {
        setup.burst = better_burst(&setup)?;
    }
    let mut report = Report::new(&setup);
    for run in 1..=args.repeat {
        report.octoplane.push(child::run(Subject::Octoplane, &setup)?);
        if args.yardstick {
            report.macswap.push(child::run(Subject::Macswap, &setup)?);
        }
        if with_testpmd {
            report.testpmd.push(testpmd::run(&setup)?);
        }
        if args.output == Format::Table && args.repeat > 1 {
            eprintln!("run {run} of {}: {}", args.repeat, report.last());
        }
    }
    match args.output {
        Format::Table => print!("{}", report.table()),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report.json()?)?),
    }
    dir.close().context("temporary files cannot be removed")
}

pub(crate) fn setup(args: &ForwardArgs, dir: std::path::PathBuf) -> anyhow::Result<Setup> {
    ensure!(
        args.duration > 0.0 && args.duration < 86_400.0,
        "--duration: seconds, more than 0"
    );
    ensure!(
        args.warmup >= 0.0 && args.warmup < 86_400.0,
        "--warmup: seconds, 0 or more"
    );
    ensure!(args.stats_period >= 0.0, "--stats-period: seconds, 0 or more");
    let cpus = cpus::pick(&args.core, args.nb_cores.into())?;
    let least = match args.ipv6 && args.scenario.has_connections() {
        true => MAX_HEADER,
        false => 0,
    };
    let sizes = if args.imix { &IMIX[..] } else { &args.txpkts };
    let sizes: Vec<u16> = sizes.iter().map(|&size| size.max(least)).collect();
    let frames = args.flows.next_multiple_of(u32::try_from(sizes.len().max(1))?);
    let source = args
        .source
        .unwrap_or(if frames <= MAX_CAPTURED && !args.new_connections {
            Source::Pcap
        } else {
            Source::Generator
        });
    ensure!(
        !args.new_connections || source == Source::Generator && args.scenario == Scenario::PodToService,
        "--new-connections: with --source generator and --scenario pod-to-service"
    );
    let ways = u32::from(u16::MAX).min(ENDPOINTS * args.services);
    ensure!(
        !args.new_connections || args.flows <= ways,
        "--flows {}: new connections are from {ENDPOINTS} endpoints to each service, so {ways} at most",
        args.flows
    );
    ensure!(
        args.invalidate == 0 || source == Source::Generator && args.scenario.has_cluster(),
        "--invalidate: with --source generator and a scenario with services"
    );
    let held = match source {
        Source::Pcap => frames * u32::from(args.nb_cores) * args.scenario.sources() as u32,
        Source::Generator => 0,
    };
    let mbufs = args
        .total_num_mbufs
        .unwrap_or_else(|| (held + SPARE * u32::from(args.nb_cores)).next_power_of_two() - 1);
    let mut setup = Setup {
        scenario: args.scenario,
        ipv6: args.ipv6,
        flows: args.flows,
        scale: Scale {
            services: args.services,
            policy: args.policy_entries,
            ipcache: args.ipcache,
        },
        churn: args.churn,
        invalidate: args.invalidate,
        hold: args.new_connections.then_some(args.hold),
        sizes,
        order: args.order,
        source,
        burst: args.burst.unwrap_or(64),
        workers: cpus.workers,
        control: cpus.control,
        memory: MemoryKind::None,
        mbufs,
        mbuf_cache: args.mbcache,
        warmup: args.warmup,
        duration: args.duration,
        stats_period: args.stats_period,
        dir,
    };
    setup.memory = args.memory.unwrap_or_else(|| memory_for(setup.megabytes()));
    Ok(setup)
}

/// Huge pages if enough of them are free.
pub(crate) fn memory_for(megabytes: u32) -> MemoryKind {
    let free: u64 = [(2048, 2), (1_048_576, 1024)]
        .into_iter()
        .filter_map(|(kilobytes, megabytes)| {
            let path = format!("/sys/kernel/mm/hugepages/hugepages-{kilobytes}kB/free_hugepages");
            let pages: u64 = fs::read_to_string(path).ok()?.trim().parse().ok()?;
            Some(pages * megabytes)
        })
        .sum();
    if free >= megabytes.into() {
        MemoryKind::Hugepages
    } else {
        MemoryKind::None
    }
}

fn testpmd_usable(setup: &Setup) -> bool {
    if setup.source == Source::Generator {
        eprintln!("octobench: SKIPPED dpdk-testpmd: it cannot use the generator");
        return false;
    }
    if !testpmd::installed() {
        eprintln!("octobench: SKIPPED dpdk-testpmd: it is not installed");
        return false;
    }
    true
}

/// The burst size that suits dpdk-testpmd better.
fn better_burst(setup: &Setup) -> anyhow::Result<u16> {
    let mut best = (0.0, BURSTS[0]);
    for burst in BURSTS {
        let sample = testpmd::run(&Setup {
            burst,
            ..setup.clone()
        })?;
        eprintln!("dpdk-testpmd with bursts of {burst}: {:.2} Mpps", sample.mpps);
        if sample.mpps > best.0 {
            best = (sample.mpps, burst);
        }
    }
    Ok(best.1)
}
