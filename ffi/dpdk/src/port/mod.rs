//! Ethernet ports: finding, configuring, starting, stopping, counting.

mod config;
mod control;
mod info;
mod open;
mod stats;

use std::fmt;

pub use config::{Applied, PortConfig};
pub use control::Port;
pub use info::{Capabilities, LinkStatus, PortInfo, info_of};
pub(crate) use open::OpenPort;
pub use stats::{PortStats, Xstat};

use crate::cstr;
use crate::eal::Eal;
use crate::errno::Errno;

/// A port's number. Numbers are given in the order devices are found; configuration names devices instead
/// ([`port_by_name`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u16);

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why something could not be done to a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// There is no such port.
    #[error("port {0} does not exist")]
    Missing(PortId),
    /// The port is open already; a port has one owner.
    #[error("port {0} is open already")]
    Open(PortId),
    /// Queue handles of the port are still out.
    #[error("port {0} has queue handles in use")]
    QueuesInUse(PortId),
    /// Not now: the port has to be configured first, or stopped first.
    #[error("port {port} is {state}")]
    State {
        /// The port.
        port: PortId,
        /// What it is, in words.
        state: &'static str,
    },
    /// More queues than the device has, or a port with no queue at all.
    #[error("port {port} cannot have {rx} receive and {tx} send queues (it has up to {max_rx} and {max_tx})")]
    Queues {
        /// The port.
        port: PortId,
        /// Receive queues asked for.
        rx: u16,
        /// Send queues asked for.
        tx: u16,
        /// Receive queues there are.
        max_rx: u16,
        /// Send queues there are.
        max_tx: u16,
    },
    /// Receive queues need a pool to take buffers from.
    #[error("port {0} has receive queues and no packet pool")]
    NoPool(PortId),
    /// The device or driver lacks the operation. Often it may be ignored.
    #[error("port {port} does not support: {operation}")]
    Unsupported {
        /// The port.
        port: PortId,
        /// What was tried.
        operation: &'static str,
    },
    /// The driver failed.
    #[error("port {port}: {operation}: {errno}")]
    Failed {
        /// The port.
        port: PortId,
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        errno: Errno,
    },
}

impl PortError {
    /// From a driver's return value.
    pub(crate) fn check(port: PortId, operation: &'static str, ret: i32) -> Result<(), Self> {
        Errno::check(ret).map_err(|errno| match errno {
            errno if errno.is_unsupported() => Self::Unsupported { port, operation },
            Errno(libc::ENODEV) => Self::Missing(port),
            errno => Self::Failed {
                port,
                operation,
                errno,
            },
        })
    }

    /// Whether the device merely lacks the operation.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported { .. })
    }
}

/// The ports that exist now and that no other DPDK library has taken (as a bond takes its members).
pub fn ports(eal: &Eal) -> impl Iterator<Item = PortId> + use<> {
    let eal = eal.clone();
    let mut next = 0u16;
    std::iter::from_fn(move || {
        let _ = &eal;
        // SAFETY: the EAL runs. Owner 0 is RTE_ETH_DEV_NO_OWNER.
        let found = unsafe { dpdk_sys::rte_eth_find_next_owned_by(next, 0) };
        let id = u16::try_from(found)
            .ok()
            .filter(|&id| u32::from(id) < dpdk_sys::OCT_MAX_ETHPORTS)?;
        next = id + 1;
        Some(PortId(id))
    })
}

/// The port of the device called `name`: a PCI address, or the name a virtual device was made with.
#[must_use]
pub fn port_by_name(_eal: &Eal, name: &str) -> Option<PortId> {
    let name = cstr::to_c(name).ok()?;
    let mut id = 0;
    // SAFETY: the EAL runs, the name is a C string and `id` a place for the result.
    let ret = unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &raw mut id) };
    (ret == 0).then_some(PortId(id))
}
