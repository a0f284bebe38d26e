//! Crypto devices that come and go while the program runs.

use std::sync::PoisonError;

use crate::crypto::{CryptoDevice, CryptoError, CryptoId, device_by_name, devices, info_of};
use crate::cstr;
use crate::eal::Eal;
use crate::errno::Errno;
use crate::hotplug::{CHANGING, device_name};

/// Adds the device `devargs` names (`0002:20:00.1`, `crypto_openssl0,max_nb_queue_pairs=4`).
///
/// # Errors
/// [`CryptoError::Exists`], [`CryptoError::Attach`], [`CryptoError::NotCrypto`]
pub fn attach(eal: &Eal, devargs: &str) -> Result<CryptoId, CryptoError> {
    let c_devargs = cstr::to_c(devargs)?;
    let _one = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    let name = device_name(devargs).unwrap_or(devargs);
    // DPDK reports success for a device it has.
    if device_by_name(eal, name).is_some() {
        return Err(CryptoError::Exists(name.to_owned()));
    }
    let before: Vec<CryptoId> = devices(eal).collect();
    // SAFETY: the EAL runs and the argument is a C string that DPDK copies.
    Errno::check(unsafe { dpdk_sys::rte_dev_probe(c_devargs.as_ptr()) }).map_err(|errno| {
        CryptoError::Attach {
            devargs: devargs.to_owned(),
            errno,
        }
    })?;
    device_by_name(eal, name)
        .or_else(|| devices(eal).find(|id| !before.contains(id)))
        .ok_or_else(|| CryptoError::NotCrypto(devargs.to_owned()))
}

/// Removes the device. It may not be open; see [`CryptoDevice::close`].
///
/// # Errors
/// [`CryptoError::Open`], [`CryptoError::Missing`], and the bus's or driver's.
pub fn detach(eal: &Eal, id: CryptoId) -> Result<(), CryptoError> {
    let info = info_of(eal, id)?;
    let claim = CryptoDevice::open(eal, id)?;
    let _one = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    let bus = cstr::to_c(&info.bus)?;
    let device = cstr::to_c(&info.device)?;
    // SAFETY: both are C strings, and nobody uses the device: it is ours.
    let ret = unsafe { dpdk_sys::rte_eal_hotplug_remove(bus.as_ptr(), device.as_ptr()) };
    // The number is another device's by now, if any's.
    claim.release();
    CryptoError::check(id, "removal", ret)
}
