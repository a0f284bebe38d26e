//! DPDK, the kernel's version and features, groups and permissions.

use octoplane_api::v1;
use octoplane_config::{Config, DeviceSpec};

use super::Finding;
use super::machine::Machine;

/// The DPDK that we are tested with, and its ABI (DPDK's ABI policy: 22.11 is 23).
const TESTED: (&str, &str) = ("22.11", "23");
/// Where distributions and DPDK's own build put libraries.
const LIBRARIES: [&str; 4] = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64"];

pub(super) fn check(
    machine: &Machine,
    config: Option<&Config>,
    running: Option<&v1::Status>,
) -> Vec<Finding> {
    let mut findings = vec![dpdk(machine, running)];
    let Some(config) = config else { return findings };
    let uses = |driver: &str| {
        config
            .ports
            .iter()
            .any(|port| matches!(&port.device, DeviceSpec::Vdev { name, .. } if name.starts_with(driver)))
    };
    if uses("net_af_xdp") {
        findings.push(af_xdp(machine));
    }
    if uses("net_tap") && !machine.exists("/dev/net/tun") {
        findings.push(Finding::failure(
            "tap",
            "there is no /dev/net/tun, which net_tap needs",
            "modprobe tun",
        ));
    }
    findings.extend(groups(machine, config));
    findings.extend(root(machine));
    findings
}

/// Directories with libraries: those above, and what stands for an architecture in them.
fn libraries(machine: &Machine) -> Vec<String> {
    let mut all = Vec::new();
    for directory in LIBRARIES {
        all.push(directory.to_owned());
        all.extend(
            machine
                .list(directory)
                .into_iter()
                .filter(|name| name.contains("-linux-"))
                .map(|name| format!("{directory}/{name}")),
        );
    }
    all
}

fn dpdk(machine: &Machine, running: Option<&v1::Status>) -> Finding {
    const CHECK: &str = "DPDK";
    let (version, abi) = TESTED;
    let untested =
        "nobody has tried this version; build against libdpdk-dev of the same version, and run scripts/test";
    if let Some(status) = running {
        let found = format!("{}, as the daemon says", status.dpdk);
        return if status.dpdk.contains(version) {
            Finding::ok(CHECK, found)
        } else {
            Finding::warning(CHECK, format!("{found}; tested is {version}"), untested)
        };
    }
    let prefix = "librte_eal.so.";
    let found: Vec<(String, String)> = libraries(machine)
        .into_iter()
        .flat_map(|directory| {
            let names = machine.list(&directory);
            names
                .into_iter()
                .filter_map(|name| {
                    let number = name.strip_prefix(prefix)?.split('.').next()?.to_owned();
                    Some((number, format!("{directory}/{name}")))
                })
                .collect::<Vec<_>>()
        })
        .collect();
    match found
        .iter()
        .find(|(number, _)| number == abi)
        .or_else(|| found.first())
    {
        None => Finding::failure(
            CHECK,
            format!("no {prefix}* in {}", LIBRARIES.join(", ")),
            "apt-get install dpdk libdpdk-dev, or build DPDK; then ldconfig",
        ),
        Some((number, path)) if number == abi => Finding::ok(CHECK, format!("{version}: {path}")),
        Some((number, path)) => Finding::warning(
            CHECK,
            format!("ABI {number}: {path}; tested is {version} (ABI {abi})"),
            untested,
        ),
    }
}

fn af_xdp(machine: &Machine) -> Finding {
    const CHECK: &str = "AF_XDP";
    let driver = libraries(machine).into_iter().any(|directory| {
        machine.list(format!("{directory}/dpdk")).into_iter().any(|pmds| {
            machine
                .list(format!("{directory}/dpdk/{pmds}"))
                .iter()
                .any(|name| name.starts_with("librte_net_af_xdp.so"))
        })
    });
    if !driver {
        return Finding::failure(
            CHECK,
            "DPDK here has no driver net_af_xdp",
            "install one that has (Debian's has), or use net_af_packet",
        );
    }
    let release = machine.read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    // The need-wakeup flag, without which a worker and the kernel's side cannot share a CPU.
    if version < (5, 4) {
        return Finding::failure(
            CHECK,
            format!("kernel {release} is too old"),
            "use 5.4 or newer, or net_af_packet",
        );
    }
    Finding::ok(CHECK, format!("driver net_af_xdp, kernel {release}"))
}

/// The groups that may use the socket.
fn groups(machine: &Machine, config: &Config) -> Vec<Finding> {
    const CHECK: &str = "groups";
    // Where groups come from somewhere else, this file is not all; then there is nothing to say.
    let Some(known) = machine.read("/etc/group") else {
        return Vec::new();
    };
    let is_known = |name: &str| known.lines().any(|line| line.split(':').next() == Some(name));
    let control = &config.control;
    [
        ("control.socket_group", &control.socket_group),
        ("control.read_group", &control.read_group),
    ]
    .into_iter()
    .filter_map(|(key, group)| Some((key, group.as_ref()?)))
    .map(|(key, group)| {
        if is_known(group) {
            Finding::ok(CHECK, format!("{key}: {group}"))
        } else {
            Finding::failure(
                CHECK,
                format!("{key}: there is no group {group}"),
                format!("groupadd --system {group}"),
            )
        }
    })
    .collect()
}

/// What is asked here may be hidden from others than root.
fn root(machine: &Machine) -> Option<Finding> {
    const CHECK: &str = "permissions";
    let status = machine.read("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let effective = line.split_whitespace().nth(1)?;
    Some(if effective == "0" {
        Finding::ok(CHECK, "root")
    } else {
        Finding::warning(
            CHECK,
            format!("user {effective}: the daemon needs root for devices, and this look is not as deep"),
            "sudo octoctl doctor",
        )
    })
}
