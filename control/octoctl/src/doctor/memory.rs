//! Hugepages and locked memory.

use octoplane_config::Config;

use super::Finding;
use super::machine::Machine;

const POOLS: &str = "/sys/kernel/mm/hugepages";

/// Pages of one size.
struct Pool {
    kib: u64,
    all: u64,
    free: u64,
}

/// `running`: the daemon has taken its pages already.
pub(super) fn check(machine: &Machine, config: Option<&Config>, running: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(config) = config {
        findings.push(hugepages(machine, config, running));
        if config.memory.hugepages || config.ports.iter().any(|port| port.device.is_pci()) {
            findings.extend(locked(machine));
        }
    }
    findings
}

fn pools(machine: &Machine) -> Vec<Pool> {
    let pool = |name: String| {
        let kib = name
            .strip_prefix("hugepages-")?
            .strip_suffix("kB")?
            .parse()
            .ok()?;
        let file = |which: &str| machine.number(format!("{POOLS}/{name}/{which}"));
        Some(Pool {
            kib,
            all: file("nr_hugepages")?,
            free: file("free_hugepages")?,
        })
    };
    machine.list(POOLS).into_iter().filter_map(pool).collect()
}

/// The size that the kernel gives to whoever does not name one, in KiB.
fn usual_size(machine: &Machine) -> Option<u64> {
    let text = machine.read("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Hugepagesize:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// As on the kernel's command line.
fn size(kib: u64) -> String {
    match kib {
        kib if kib.is_multiple_of(1 << 20) => format!("{}G", kib >> 20),
        kib if kib.is_multiple_of(1 << 10) => format!("{}M", kib >> 10),
        kib => format!("{kib}K"),
    }
}

fn hugepages(machine: &Machine, config: &Config, running: bool) -> Finding {
    const CHECK: &str = "hugepages";
    let needed = u64::from(config.memory.size_mb);
    if !config.memory.hugepages {
        return Finding::ok(CHECK, "none needed (memory.hugepages)");
    }
    let pools = pools(machine);
    // Those that are there already, or the kernel's usual size.
    let usual = usual_size(machine);
    let Some(best) = pools
        .iter()
        .max_by_key(|pool| (pool.all > 0, Some(pool.kib) == usual))
    else {
        return Finding::failure(
            CHECK,
            format!("{needed} MiB are needed, the kernel has no hugepages"),
            "use a kernel with CONFIG_HUGETLBFS",
        );
    };
    let mib = |count: fn(&Pool) -> u64| -> u64 {
        pools.iter().map(|pool| count(pool) * pool.kib).sum::<u64>() >> 10
    };
    let (all, free) = (mib(|pool| pool.all), mib(|pool| pool.free));
    let there: Vec<String> = pools
        .iter()
        .filter(|pool| pool.all > 0)
        .map(|pool| format!("{} of {}", pool.all, size(pool.kib)))
        .collect();
    let there = if there.is_empty() {
        "none".to_owned()
    } else {
        there.join(", ")
    };
    let found = format!("{needed} MiB needed (memory.size_mb), {free} of {all} MiB free: {there}");
    if (if running { all } else { free }) >= needed {
        return Finding::ok(CHECK, found);
    }
    let count = best.all
        + (needed - free.min(needed))
            .saturating_mul(1 << 10)
            .div_ceil(best.kib);
    let size = size(best.kib);
    Finding::failure(
        CHECK,
        found,
        format!(
            "scripts/hugepages set {size}:{count}\nor on the kernel's command line: hugepagesz={size} hugepages={count}"
        ),
    )
}

fn locked(machine: &Machine) -> Option<Finding> {
    const CHECK: &str = "locked memory";
    let limits = machine.read("/proc/self/limits")?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))?;
    let soft = line.split_whitespace().next()?;
    if soft == "unlimited" {
        return Some(Finding::ok(CHECK, "no limit"));
    }
    Some(Finding::warning(
        CHECK,
        format!("at most {soft} bytes for this shell; devices (VFIO) lock all packet memory"),
        "ulimit -l unlimited, for a daemon that is started from here; octoplaned.service has LimitMEMLOCK=infinity",
    ))
}
