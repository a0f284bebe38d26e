//! Functions of OCTEON DPUs (specification octeon-systems, sections 1.8 and 2.3).

use octoplane_config::{DeviceSpec, Port, Role};

use super::{driver_of, functions, id};
use crate::doctor::Finding;
use crate::doctor::machine::Machine;

/// The DPU's end of the functions that the host sees.
const SDP: &str = "177d:a0f7";
const RPM: &str = "177d:a063";
const RPM_VF: &str = "177d:a064";
const LOOPBACK: &str = "177d:a0f8";
const CPT: &str = "177d:a0f2";
const CPT_VF: &str = "177d:a0f3";
const ADMIN: &str = "177d:a065";

/// What a function is.
pub(super) fn name(id: &str) -> Option<&'static str> {
    Some(match id {
        SDP => "SDP, the host's functions",
        RPM => "RPM Ethernet",
        RPM_VF => "RPM Ethernet, virtual function",
        LOOPBACK => "loopback pair",
        CPT => "CPT crypto, physical function",
        CPT_VF => "CPT crypto",
        ADMIN => "RVU admin function",
        _ => return None,
    })
}

/// What role a port of it usually has.
pub(super) fn role(id: &str) -> Option<Role> {
    match id {
        SDP => Some(Role::Pod),
        RPM | RPM_VF => Some(Role::Uplink),
        _ => None,
    }
}

pub(super) fn check(machine: &Machine, ports: &[Port]) -> Vec<Finding> {
    let of = |wanted: &str| -> Vec<String> {
        functions(machine)
            .into_iter()
            .filter(|address| id(machine, address).as_deref() == Some(wanted))
            .collect()
    };
    let sdp = of(SDP);
    if sdp.is_empty() && of(ADMIN).is_empty() {
        return Vec::new();
    }
    let mut findings = vec![management(machine, &sdp, ports)];
    findings.push(crypto(machine, &of(CPT), &of(CPT_VF)));
    findings
}

/// The first SDP function in order of addresses is the other end of the host's physical function.
fn management(machine: &Machine, sdp: &[String], ports: &[Port]) -> Finding {
    const CHECK: &str = "SDP functions";
    let Some((wire, pods)) = sdp.split_first() else {
        return Finding::failure(
            CHECK,
            "none (PCI id 177d:a0f7): there is nothing for pods",
            "set the number of SDP functions in the firmware's menu (EBF): one more than the host has virtual functions",
        );
    };
    let used = |address: &str| {
        ports
            .iter()
            .find(|port| matches!(&port.device, DeviceSpec::Pci(port) if port == address))
    };
    if let Some(port) = used(wire) {
        return Finding::failure(
            CHECK,
            format!(
                "port {} is {wire}, the wire over which the DPU is managed",
                port.name
            ),
            "leave it to the kernel: the host's virtual function n is the function n + 1 here, in order of addresses",
        );
    }
    if driver_of(machine, wire).as_deref() == Some("vfio-pci") {
        return Finding::failure(
            CHECK,
            format!("{wire}, the wire over which the DPU is managed, is bound to vfio-pci"),
            format!("give it back to the kernel: scripts/vfio unbind {wire}"),
        );
    }
    let taken = pods.iter().filter(|address| used(address).is_some()).count();
    Finding::ok(
        CHECK,
        format!(
            "{wire} for management, {} for pods, of these {taken} are ports",
            pods.len()
        ),
    )
}

fn crypto(machine: &Machine, physical: &[String], functions: &[String]) -> Finding {
    const CHECK: &str = "CPT functions";
    let ready = functions
        .iter()
        .filter(|address| driver_of(machine, address).as_deref() == Some("vfio-pci"))
        .count();
    let found = format!(
        "{} (PCI id 177d:a0f3), of these {ready} on vfio-pci",
        functions.len()
    );
    if ready > 0 {
        return Finding::ok(CHECK, found);
    }
    let advice = match (functions.first(), physical.first()) {
        (Some(function), _) => format!("scripts/vfio bind {function}"),
        (None, Some(physical)) => {
            format!(
                "echo 1 >/sys/bus/pci/devices/{physical}/sriov_numvfs, then scripts/vfio bind what appears"
            )
        }
        (None, None) => "look for PCI id 177d:a0f2 in lspci -D -d 177d:".to_owned(),
    };
    Finding::warning(CHECK, format!("{found}: encryption is done in software"), advice)
}
