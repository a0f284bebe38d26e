//! What ports are made of: PCI functions and network interfaces.

mod octeon;

use std::collections::BTreeSet;

use octoplane_config::{Config, DeviceSpec, Port, Role};

use super::Finding;
use super::machine::Machine;

pub(super) const DEVICES: &str = "/sys/bus/pci/devices";

pub(super) fn check(machine: &Machine, config: Option<&Config>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let ports = config.map_or(&[][..], |config| &config.ports);
    let functions: Vec<(&Port, &str)> = ports
        .iter()
        .filter_map(|port| match &port.device {
            DeviceSpec::Pci(address) => Some((port, address.as_str())),
            DeviceSpec::Vdev { .. } => None,
        })
        .collect();
    if !functions.is_empty() {
        findings.push(iommu(machine));
        findings.push(driver(machine));
    }
    for &(port, address) in &functions {
        findings.extend(function(machine, port, address, &functions));
    }
    findings.extend(octeon::check(machine, ports));
    findings.extend(ports.iter().filter_map(|port| interface(machine, port)));
    findings
}

/// Vendor and device as in "177d:a063".
pub(super) fn id(machine: &Machine, address: &str) -> Option<String> {
    let part = |file: &str| {
        let text = machine.read(format!("{DEVICES}/{address}/{file}"))?;
        Some(text.strip_prefix("0x")?.to_owned())
    };
    Some(format!("{}:{}", part("vendor")?, part("device")?))
}

pub(super) fn driver_of(machine: &Machine, address: &str) -> Option<String> {
    machine.link(format!("{DEVICES}/{address}/driver"))
}

fn iommu(machine: &Machine) -> Finding {
    const CHECK: &str = "IOMMU";
    let units = machine.list("/sys/class/iommu").len();
    if units > 0 {
        return Finding::ok(CHECK, format!("{units} in use"));
    }
    if machine
        .read("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode")
        .as_deref()
        == Some("Y")
    {
        return Finding::warning(
            CHECK,
            "none, and VFIO is told to do without: devices can read and write all memory",
            "switch the IOMMU on, see below for how, and enable_unsafe_noiommu_mode off\n\
             x86: intel_iommu=on or amd_iommu=on on the kernel's command line; Arm: the SMMU in the firmware",
        );
    }
    Finding::failure(
        CHECK,
        "none in use: VFIO does not hand out devices",
        "x86: switch VT-d or AMD-Vi on in the firmware, and intel_iommu=on or amd_iommu=on on the kernel's command line\n\
         Arm: switch the SMMU on in the firmware\n\
         without IOMMU, at the price of protection: scripts/vfio --no-iommu bind ADDRESS",
    )
}

fn driver(machine: &Machine) -> Finding {
    const CHECK: &str = "vfio-pci";
    if machine.exists("/sys/bus/pci/drivers/vfio-pci") {
        Finding::ok(CHECK, "the driver is there")
    } else {
        Finding::failure(
            CHECK,
            "the driver is not there",
            "modprobe vfio-pci; at every start: echo vfio-pci >/etc/modules-load.d/vfio-pci.conf",
        )
    }
}

/// One PCI function that is a port.
fn function(machine: &Machine, port: &Port, address: &str, all: &[(&Port, &str)]) -> Vec<Finding> {
    const CHECK: &str = "device";
    let name = &port.name;
    let Some(id) = id(machine, address) else {
        return vec![Finding::failure(
            CHECK,
            format!("port {name}: there is no PCI function {address}"),
            "lspci -D shows what there is; functions of the DPU's host side (SDP) exist once their number is set in the firmware",
        )];
    };
    let what = octeon::name(&id).map_or_else(|| id.clone(), |what| format!("{id} {what}"));
    let driver = driver_of(machine, address);
    let found = format!(
        "port {name}: {address} ({what}), driver {}",
        driver.as_deref().unwrap_or("none")
    );
    let mut findings = Vec::new();
    match driver.as_deref() {
        Some("vfio-pci") => {
            findings.push(group(machine, name, address, found, all));
        }
        // Their drivers share the device with DPDK.
        Some("mlx5_core" | "mlx4_core") => findings.push(Finding::ok(CHECK, found)),
        _ => findings.push(Finding::failure(
            CHECK,
            found,
            format!("scripts/vfio bind {address}"),
        )),
    }
    if let Some(expected) = octeon::role(&id)
        && expected != port.role
        && port.role != Role::Host
    {
        findings.push(Finding::warning(
            CHECK,
            format!(
                "port {name}: {address} ({what}) has the role {}",
                port.role.as_str()
            ),
            format!("such functions are usually of role {}", expected.as_str()),
        ));
    }
    findings
}

/// The IOMMU group of a function on vfio-pci: it goes to one process as a whole.
fn group(machine: &Machine, name: &str, address: &str, found: String, all: &[(&Port, &str)]) -> Finding {
    const CHECK: &str = "device";
    let Some(group) = machine.link(format!("{DEVICES}/{address}/iommu_group")) else {
        return Finding::ok(CHECK, found);
    };
    let others: Vec<String> = machine
        .list(format!("{DEVICES}/{address}/iommu_group/devices"))
        .into_iter()
        .filter(|other| other != address && all.iter().all(|(_, port)| port != other))
        .filter(|other| {
            !matches!(
                driver_of(machine, other).as_deref(),
                None | Some("vfio-pci" | "pcieport")
            )
        })
        .collect();
    if !others.is_empty() {
        return Finding::failure(
            CHECK,
            format!(
                "port {name}: {address} shares IOMMU group {group} with {}, which other drivers have",
                others.join(", ")
            ),
            format!("scripts/vfio bind {}, or use another slot", others.join(" ")),
        );
    }
    if !machine.exists(format!("/dev/vfio/{group}")) {
        return Finding::failure(
            CHECK,
            format!("port {name}: {address}: there is no /dev/vfio/{group}"),
            "in a container: hand /dev/vfio in",
        );
    }
    Finding::ok(CHECK, format!("{found}, IOMMU group {group}"))
}

/// The network interface that a virtual device sits on.
fn interface(machine: &Machine, port: &Port) -> Option<Finding> {
    const CHECK: &str = "interface";
    let DeviceSpec::Vdev { name, args } = &port.device else {
        return None;
    };
    // A tap device is made by its driver.
    if !(name.starts_with("net_af_packet") || name.starts_with("net_af_xdp")) {
        return None;
    }
    let interface = args
        .split(',')
        .find_map(|argument| argument.strip_prefix("iface="))?;
    let place = format!("/sys/class/net/{interface}");
    if !machine.exists(&place) {
        return Some(Finding::failure(
            CHECK,
            format!("port {}: there is no interface {interface} here", port.name),
            format!("ip link show; make it, or move it here: ip link set {interface} netns ..."),
        ));
    }
    // IFF_UP.
    let up = machine
        .read(format!("{place}/flags"))
        .and_then(|flags| u32::from_str_radix(flags.strip_prefix("0x")?, 16).ok())
        .is_some_and(|flags| flags & 1 != 0);
    let found = format!(
        "port {}: {interface} is {}",
        port.name,
        if up { "up" } else { "down" }
    );
    let mtu = machine
        .number(format!("{place}/mtu"))
        .unwrap_or_else(|| u64::from(port.mtu));
    Some(if !up {
        Finding::warning(CHECK, found, format!("ip link set {interface} up"))
    } else if mtu < u64::from(port.mtu) {
        Finding::warning(
            CHECK,
            format!("{found}, its MTU is {mtu}, {} is configured", port.mtu),
            format!("ip link set {interface} mtu {}, at both ends", port.mtu),
        )
    } else {
        Finding::ok(CHECK, found)
    })
}

/// Addresses of all functions in order.
pub(super) fn functions(machine: &Machine) -> BTreeSet<String> {
    machine.list(DEVICES).into_iter().collect()
}
