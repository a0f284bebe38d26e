//! CPUs: whether the workers have theirs to themselves.

use std::collections::BTreeSet;

use octoplane_config::{Config, DeviceSpec, PollMode};

use super::Finding;
use super::devices::DEVICES;
use super::machine::{Machine, cpu_list};

const CPUS: &str = "/sys/devices/system/cpu";

pub(super) fn check(machine: &Machine, config: Option<&Config>) -> Vec<Finding> {
    let Some(config) = config else { return Vec::new() };
    let workers: BTreeSet<usize> = config.workers.cores.iter().copied().collect();
    let busy = config.workers.poll == PollMode::Busy;
    let mut findings = vec![there(machine, &workers)];
    findings.extend(siblings(machine, &workers));
    findings.extend(isolation(machine, &workers, busy));
    findings.extend(ticks(machine, &workers, busy));
    findings.extend(governor(machine, &workers));
    findings.extend(numa(machine, config, &workers));
    findings
}

fn there(machine: &Machine, workers: &BTreeSet<usize>) -> Finding {
    const CHECK: &str = "worker CPUs";
    let Some(online) = machine.online_cpus() else {
        return Finding::warning(CHECK, "the kernel does not say which CPUs there are", "");
    };
    let missing: Vec<usize> = workers
        .iter()
        .copied()
        .filter(|cpu| !online.contains(*cpu))
        .collect();
    let found = format!("{} of {online}", cpu_list(workers.iter().copied()));
    if !missing.is_empty() {
        return Finding::failure(
            CHECK,
            format!("{found}: {} are not online", cpu_list(missing)),
            "change workers.cores, or: echo 1 >/sys/devices/system/cpu/cpuN/online",
        );
    }
    if workers.contains(&0) && online.len() > 1 {
        return Finding::warning(
            CHECK,
            format!("{found}: CPU 0 is among them, which the kernel uses most"),
            "leave CPU 0 to control threads: workers.cores, workers.control_cores",
        );
    }
    Finding::ok(CHECK, found)
}

/// Two workers on one core take each other's time.
fn siblings(machine: &Machine, workers: &BTreeSet<usize>) -> Option<Finding> {
    const CHECK: &str = "hardware threads";
    let shared: BTreeSet<String> = workers
        .iter()
        .filter_map(|cpu| {
            let siblings = machine.cpus(format!("{CPUS}/cpu{cpu}/topology/thread_siblings_list"))?;
            let both = siblings.iter().filter(|other| workers.contains(other)).count() > 1;
            both.then(|| siblings.to_string())
        })
        .collect();
    if shared.is_empty() {
        return None;
    }
    let shared: Vec<String> = shared.into_iter().collect();
    Some(Finding::warning(
        CHECK,
        format!("workers share cores: CPUs {}", shared.join(" and ")),
        "one worker for each core is faster: workers.cores",
    ))
}

fn missing(workers: &BTreeSet<usize>, listed: Option<&str>) -> Vec<usize> {
    let listed = listed.and_then(|text| text.parse::<octoplane_config::CpuSet>().ok());
    workers
        .iter()
        .copied()
        .filter(|cpu| listed.as_ref().is_none_or(|listed| !listed.contains(*cpu)))
        .collect()
}

fn isolation(machine: &Machine, workers: &BTreeSet<usize>, busy: bool) -> Option<Finding> {
    const CHECK: &str = "isolation";
    let isolated = machine.read(format!("{CPUS}/isolated")).unwrap_or_default();
    let missing = missing(
        workers,
        Some(&isolated)
            .filter(|text| !text.is_empty())
            .map(String::as_str),
    );
    if missing.is_empty() {
        return Some(Finding::ok(
            CHECK,
            format!("CPUs {isolated} are kept free of other tasks"),
        ));
    }
    if !busy {
        // Workers that sleep share their CPUs as others do.
        return None;
    }
    let list = cpu_list(workers.iter().copied());
    Some(Finding::warning(
        CHECK,
        format!(
            "other tasks run on workers' CPUs {}: packets wait, or are lost",
            cpu_list(missing)
        ),
        format!(
            "on the kernel's command line: isolcpus={list}, or a cpuset for everything else (systemd: AllowedCPUs=)"
        ),
    ))
}

/// The timer's interrupts, a thousand a second where nothing is said.
fn ticks(machine: &Machine, workers: &BTreeSet<usize>, busy: bool) -> Option<Finding> {
    const CHECK: &str = "kernel flags";
    if !busy {
        return None;
    }
    let list = cpu_list(workers.iter().copied());
    let lacking: Vec<String> = ["nohz_full", "rcu_nocbs"]
        .into_iter()
        .filter(|key| {
            let value = machine.boot_option(key);
            value.as_deref() != Some("all") && !missing(workers, value.as_deref()).is_empty()
        })
        .map(|key| format!("{key}={list}"))
        .collect();
    if lacking.is_empty() {
        return Some(Finding::ok(
            CHECK,
            "no timer ticks on workers' CPUs (nohz_full, rcu_nocbs)",
        ));
    }
    Some(Finding::warning(
        CHECK,
        "the kernel interrupts workers: timer ticks, RCU callbacks",
        format!("on its command line: {}", lacking.join(" ")),
    ))
}

fn governor(machine: &Machine, workers: &BTreeSet<usize>) -> Option<Finding> {
    const CHECK: &str = "frequency";
    let slow: Vec<usize> = workers
        .iter()
        .copied()
        .filter(|cpu| {
            machine
                .read(format!("{CPUS}/cpu{cpu}/cpufreq/scaling_governor"))
                .is_some_and(|governor| governor != "performance")
        })
        .collect();
    (!slow.is_empty()).then(|| {
        Finding::warning(
            CHECK,
            format!("CPUs {} change their frequency with the load", cpu_list(slow)),
            "cpupower frequency-set --governor performance",
        )
    })
}

/// Devices on another node's memory controller are slower.
fn numa(machine: &Machine, config: &Config, workers: &BTreeSet<usize>) -> Option<Finding> {
    const CHECK: &str = "NUMA";
    let mut far = Vec::new();
    for port in &config.ports {
        let DeviceSpec::Pci(address) = &port.device else {
            continue;
        };
        let Some(node) = machine.number(format!("{DEVICES}/{address}/numa_node")) else {
            // -1: the machine has one node.
            continue;
        };
        let near = machine.cpus(format!("/sys/devices/system/node/node{node}/cpulist"))?;
        if !workers.iter().any(|cpu| near.contains(*cpu)) {
            far.push(format!("{} (node {node}: CPUs {near})", port.name));
        }
    }
    (!far.is_empty()).then(|| {
        Finding::warning(
            CHECK,
            format!("no worker is near port {}", far.join(", ")),
            "choose workers.cores of the devices' nodes",
        )
    })
}
