//! From TOML to [`Config`]: one file for each section, and what they share.
//!
//! A reader never stops at a mistake: it notes it and goes on with the default, so that one pass finds them all.

mod access;
mod cni;
mod control;
mod crypto;
mod device;
mod eal;
mod ipsec;
mod item;
mod limits;
mod memory;
mod mistakes;
mod ports;
mod section;
mod state;
mod suggest;
mod text;
mod workers;

pub(crate) use mistakes::{Mistakes, Place};
pub(crate) use ports::read_one_port;
pub(crate) use section::Section;

use crate::{Config, CpuSet, DeviceSpec, Port};

/// Reads the whole document. `None` only where a mistake has been noted.
pub(crate) fn read_config(mut root: Section<'_>, cpus: &CpuSet) -> Option<Config> {
    let log_level = text::log_directives(&mut root, "log_level", "info");
    // The order is that of dependence: defaults of memory follow from ports and workers, those of eal from ports.
    let gateway = control::gateway(root.table("gateway"));
    let ports = ports::read(&mut root, gateway);
    let crypto = crypto::read(root.table("crypto"), &ports);
    let devices = ports.iter().map(|p: &Port| &p.device).chain(&crypto.devices);
    let some_pci = devices.into_iter().any(DeviceSpec::is_pci);
    let eal = eal::read(root.table("eal"), some_pci);
    let workers = workers::read(root.table("workers"), cpus);
    let capacity = limits::capacity(root.table("capacity"));
    let neighbours = limits::neighbours(root.table("neighbours"), &capacity);
    let memory = memory::read(
        root.table("memory"),
        &ports,
        &crypto,
        workers.as_ref(),
        &neighbours,
    );
    let control = control::control(root.table("control"));
    let state = state::read(root.table("state"));
    let cni = cni::read(root.table("cni"), &ports);
    let ipsec = ipsec::read(root.table("ipsec"));
    let exception = limits::exception(root.table("exception"));
    let icmp = limits::icmp(root.table("icmp"));
    let timeouts = limits::timeouts(root.table("timeouts"));
    root.finish();
    Some(Config {
        log_level,
        eal,
        memory: memory?,
        workers: workers?,
        control,
        state,
        gateway,
        cni,
        ports,
        crypto,
        ipsec,
        exception,
        icmp,
        neighbours,
        timeouts,
        capacity,
    })
}
