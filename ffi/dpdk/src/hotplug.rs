//! Adding and removing devices while the program runs.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::cstr::{self, NulByte};
use crate::eal::Eal;
use crate::errno::Errno;
use crate::port::{self, OpenPort, Port, PortError, PortId, ports};

/// Why a device could not be added or removed.
#[derive(Debug, thiserror::Error)]
pub enum HotplugError {
    /// The device arguments have a NUL byte in them.
    #[error("device arguments {0}")]
    NulByte(#[from] NulByte),
    /// The device is there already.
    #[error("device {0:?} is there already")]
    Exists(String),
    /// No driver takes the device.
    #[error("device {devargs:?} cannot be added: {errno}")]
    Attach {
        /// What was asked for.
        devargs: String,
        /// Why not.
        #[source]
        errno: Errno,
    },
    /// The device is there now, but is not a network device.
    #[error("device {0:?} has no port")]
    NoPort(String),
    /// A port of the device is open or does not exist.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The bus or driver does not give the device up.
    #[error("device {device:?} cannot be removed: {errno}")]
    Detach {
        /// Name on its bus.
        device: String,
        /// Why not.
        #[source]
        errno: Errno,
    },
}

/// One change at a time: which ports are new is found by comparing before and after.
pub(crate) static CHANGING: Mutex<()> = Mutex::new(());

/// Adds the device `devargs` names (`0002:02:00.0`, `net_af_packet0,iface=eth0`) and returns its port, the first if it has
/// several.
///
/// # Errors
/// [`HotplugError`]
pub fn attach(eal: &Eal, devargs: &str) -> Result<PortId, HotplugError> {
    attach_all(eal, devargs)?
        .first()
        .copied()
        .ok_or_else(|| HotplugError::NoPort(devargs.to_owned()))
}

/// Adds the device `devargs` names and returns all its ports; none if it is not a network device.
///
/// # Errors
/// [`HotplugError`]
pub fn attach_all(eal: &Eal, devargs: &str) -> Result<Vec<PortId>, HotplugError> {
    let c_devargs = cstr::to_c(devargs)?;
    let _one = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    // DPDK reports success for a device it has.
    if let Some(name) = device_name(devargs).filter(|name| port::port_by_name(eal, name).is_some()) {
        return Err(HotplugError::Exists(name.to_owned()));
    }
    let before: BTreeSet<PortId> = ports(eal).collect();
    // SAFETY: the EAL runs and the argument is a C string that DPDK copies.
    Errno::check(unsafe { dpdk_sys::rte_dev_probe(c_devargs.as_ptr()) }).map_err(|errno| {
        HotplugError::Attach {
            devargs: devargs.to_owned(),
            errno,
        }
    })?;
    Ok(ports(eal).filter(|id| !before.contains(id)).collect())
}

/// The device's name in `[bus:]name[,arguments]`. PCI addresses have colons of their own.
pub(crate) fn device_name(devargs: &str) -> Option<&str> {
    let name = devargs.split(',').next()?;
    Some(
        name.strip_prefix("vdev:")
            .or_else(|| name.strip_prefix("pci:"))
            .unwrap_or(name),
    )
}

/// Removes the device that port `id` belongs to, with all its ports. None of them may be open.
///
/// # Errors
/// [`PortError::Open`] if a port of the device is open, and the rest of [`HotplugError`].
pub fn detach(eal: &Eal, id: PortId) -> Result<(), HotplugError> {
    let port = Port::open(eal, id)?;
    detach_port(port).map_err(|failed| {
        if let Some(port) = failed.port {
            port.release();
        }
        failed.error
    })
}

/// A device was not removed.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct DetachFailed {
    /// Why not.
    #[source]
    pub error: HotplugError,
    /// The port, as it was, unless it was closed by then.
    pub port: Option<Box<Port>>,
}

/// Stops and closes `port` and removes its device, with all the device's ports. The others may not be open, and no queue
/// handle of this one may exist.
///
/// # Errors
/// [`DetachFailed`], with the port if it is still good.
pub fn detach_port(mut port: Port) -> Result<(), DetachFailed> {
    let eal = port.eal().clone();
    let found = port.stop().and_then(|()| port.info()).and_then(|info| {
        let others = siblings(&eal, port.id(), &info)?;
        Ok((info, others))
    });
    let (info, others) = match found {
        Ok(found) => found,
        Err(error) => {
            return Err(DetachFailed {
                error: error.into(),
                port: Some(Box::new(port)),
            });
        }
    };
    let _one = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    // Closing returns the buffers in the queues to their pools, which are freed after that.
    drop(port);
    let removed = remove(&info);
    // Held until now, so that nobody opens them meanwhile.
    drop(others);
    removed.map_err(|error| DetachFailed { error, port: None })
}

/// Claims the other ports of a device, so that nobody uses them while it goes. Its driver closes them.
fn siblings(eal: &Eal, id: PortId, info: &port::PortInfo) -> Result<Vec<OpenPort>, PortError> {
    let mut opened = Vec::new();
    for other in ports(eal).filter(|&other| other != id) {
        let of = port::info_of(eal, other)?;
        if of.bus == info.bus && of.device == info.device {
            let mut claim = OpenPort::claim(eal, other)?;
            claim.close_on_drop = false;
            opened.push(claim);
        }
    }
    Ok(opened)
}

fn remove(info: &port::PortInfo) -> Result<(), HotplugError> {
    let bus = cstr::to_c(&info.bus)?;
    let device = cstr::to_c(&info.device)?;
    // SAFETY: both are C strings, and no port of the device is open.
    Errno::check(unsafe { dpdk_sys::rte_eal_hotplug_remove(bus.as_ptr(), device.as_ptr()) }).map_err(
        |errno| HotplugError::Detach {
            device: info.device.clone(),
            errno,
        },
    )
}
