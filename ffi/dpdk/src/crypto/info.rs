//! What a crypto device is, and what it has counted.

use crate::crypto::{CryptoError, CryptoId};
use crate::cstr;
use crate::eal::Eal;

/// A crypto device's properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CryptoInfo {
    /// Number.
    pub id: CryptoId,
    /// Name, which [`crate::crypto::device_by_name`] finds it by.
    pub name: String,
    /// Name of the device on its bus. Empty if the driver does not tell.
    pub device: String,
    /// The bus: `pci`, `vdev`.
    pub bus: String,
    /// Driver, as in `crypto_openssl`.
    pub driver: String,
    /// NUMA node, if the device is near one.
    pub socket: Option<u32>,
    /// Most queue pairs.
    pub max_queue_pairs: u32,
    /// Most sessions, if there is a limit.
    pub max_sessions: Option<u32>,
    /// Bytes it needs in front of the data of a buffer.
    pub min_headroom: u16,
    /// Bytes it needs behind the data of a buffer.
    pub min_tailroom: u16,
    /// `RTE_CRYPTODEV_FF_*` bits.
    pub features: u64,
}

impl CryptoInfo {
    /// Whether it does symmetric cryptography at all.
    #[must_use]
    pub fn is_symmetric(&self) -> bool {
        self.features & u64::from(dpdk_sys::OCT_CRYPTO_FF_SYMMETRIC) != 0
    }

    /// Whether it is hardware of its own, rather than a library on the CPU.
    #[must_use]
    pub fn is_hardware(&self) -> bool {
        self.features & u64::from(dpdk_sys::OCT_CRYPTO_FF_HW_ACCELERATED) != 0
    }

    /// Whether it can leave the packet alone and write the result to another buffer.
    #[must_use]
    pub fn is_out_of_place(&self) -> bool {
        self.features & u64::from(dpdk_sys::OCT_CRYPTO_FF_OUT_OF_PLACE) != 0
    }
}

/// What a device has counted since it was started, or since they were reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CryptoStats {
    /// Operations taken.
    pub enqueued: u64,
    /// Operations given back.
    pub dequeued: u64,
    /// Operations refused.
    pub enqueue_errors: u64,
    /// Operations given back with an error.
    pub dequeue_errors: u64,
}

/// The properties of any crypto device, open or not.
///
/// # Errors
/// [`CryptoError::Missing`]
pub fn info_of(_eal: &Eal, id: CryptoId) -> Result<CryptoInfo, CryptoError> {
    // SAFETY: all fields are numbers or arrays of them, for which zero is a value.
    let mut raw: dpdk_sys::oct_crypto_info = unsafe { std::mem::zeroed() };
    // SAFETY: the EAL runs and `raw` is a place for the result.
    CryptoError::check(id, "device information", unsafe {
        dpdk_sys::oct_crypto_info(id.0, &raw mut raw)
    })?;
    Ok(CryptoInfo {
        id,
        name: cstr::from_array(&raw.name),
        device: cstr::from_array(&raw.device),
        bus: cstr::from_array(&raw.bus),
        driver: cstr::from_array(&raw.driver),
        socket: u32::try_from(raw.socket).ok(),
        max_queue_pairs: raw.max_queue_pairs,
        max_sessions: (raw.max_sessions != 0).then_some(raw.max_sessions),
        min_headroom: raw.min_headroom,
        min_tailroom: raw.min_tailroom,
        features: raw.feature_flags,
    })
}

/// Reads the counters.
///
/// # Errors
/// The driver's.
pub(crate) fn stats_of(id: CryptoId) -> Result<CryptoStats, CryptoError> {
    let mut raw = dpdk_sys::oct_crypto_stats {
        enqueued: 0,
        dequeued: 0,
        enqueue_errors: 0,
        dequeue_errors: 0,
    };
    // SAFETY: the EAL runs and `raw` is a place for the result.
    CryptoError::check(id, "statistics", unsafe {
        dpdk_sys::oct_crypto_stats(id.0, &raw mut raw)
    })?;
    Ok(CryptoStats {
        enqueued: raw.enqueued,
        dequeued: raw.dequeued,
        enqueue_errors: raw.enqueue_errors,
        dequeue_errors: raw.dequeue_errors,
    })
}
