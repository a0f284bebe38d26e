//! Crypto devices: finding, configuring, sessions, queues.
//!
//! A queue owns the packets it works on. They come back finished, or are freed when queue and device are gone:
//!
//! ```compile_fail,E0382
//! use dpdk::crypto::{CryptoJob, CryptoQueue};
//! use dpdk::{ArrayVec, Mbuf, PacketBuf};
//! fn peek(queue: &mut CryptoQueue, packet: Mbuf, mut job: impl FnMut(Mbuf) -> CryptoJob) -> usize {
//!     let mut jobs = ArrayVec::<CryptoJob, 1>::new();
//!     jobs.push(job(packet));
//!     queue.enqueue(&mut jobs);
//!     packet.data().len() // the device may be writing to it
//! }
//! ```
//!
//! Two threads cannot use one queue:
//!
//! ```compile_fail,E0277
//! fn shared<T: Sync>() {}
//! shared::<dpdk::crypto::CryptoQueue>();
//! ```

mod algorithm;
mod device;
mod hotplug;
mod info;
mod job;
mod open;
mod ops;
mod queue;
mod session;

use std::fmt;

pub use algorithm::{
    AAD_MAX, Capability, CryptoAlgorithm, Direction, IV_MAX, SizeRange, Transform, capability, supports,
};
pub use device::{CryptoConfig, CryptoDevice, SessionMaker};
pub use hotplug::{attach, detach};
pub use info::{CryptoInfo, CryptoStats, info_of};
pub use job::{BadJob, CryptoJob, Done, Status};
pub use queue::{CRYPTO_BURST, CryptoQueue, Enqueued, Refusal, SessionInUse, SessionSlot};
pub use session::CryptoSession;

use crate::cstr::{self, NulByte};
use crate::eal::Eal;
use crate::errno::Errno;

/// A crypto device's number. Numbers are given in the order devices are found; configuration names devices instead
/// ([`device_by_name`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CryptoId(pub u8);

impl fmt::Display for CryptoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why something could not be done to a crypto device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// There is no such device.
    #[error("crypto device {0} does not exist")]
    Missing(CryptoId),
    /// The device is open already; a device has one owner.
    #[error("crypto device {0} is open already")]
    Open(CryptoId),
    /// Queues or sessions of the device are still out.
    #[error("crypto device {0} has queues or sessions in use")]
    InUse(CryptoId),
    /// A device has at least one queue pair, and no more than it can.
    #[error("crypto device {device} cannot have {asked} queue pairs (it has up to {most})")]
    QueuePairs {
        /// The device.
        device: CryptoId,
        /// Queue pairs asked for.
        asked: u16,
        /// Queue pairs there are.
        most: u32,
    },
    /// A key is not as long as the transform says.
    #[error("crypto device {device}: a key of {got} bytes where {expected} are expected")]
    KeyLength {
        /// The device.
        device: CryptoId,
        /// Bytes there are.
        got: usize,
        /// Bytes there should be.
        expected: u16,
    },
    /// The device does not have the algorithm, or not with these sizes.
    #[error("crypto device {device} does not support {transform:?}")]
    Unsupported {
        /// The device.
        device: CryptoId,
        /// What was asked for.
        transform: Transform,
    },
    /// Devices are made by name; the name has a NUL byte in it.
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
    /// The device is there now, but is not a crypto device.
    #[error("device {0:?} is not a crypto device")]
    NotCrypto(String),
    /// The driver failed.
    #[error("crypto device {device}: {operation}: {errno}")]
    Failed {
        /// The device.
        device: CryptoId,
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        errno: Errno,
    },
}

impl CryptoError {
    /// From a driver's return value.
    pub(crate) fn check(device: CryptoId, operation: &'static str, ret: i32) -> Result<(), Self> {
        Errno::check(ret).map_err(|errno| match errno {
            Errno(libc::ENODEV) => Self::Missing(device),
            errno => Self::Failed {
                device,
                operation,
                errno,
            },
        })
    }
}

/// The crypto devices that exist now.
pub fn devices(eal: &Eal) -> impl Iterator<Item = CryptoId> + use<> {
    let eal = eal.clone();
    let mut next = 0u32;
    std::iter::from_fn(move || {
        let _ = &eal;
        // SAFETY: the EAL runs.
        let found = unsafe { dpdk_sys::oct_crypto_next(next) };
        let id = u8::try_from(found).ok()?;
        next = u32::from(id) + 1;
        Some(CryptoId(id))
    })
}

/// The device called `name`: a PCI address, or the name a virtual device was made with.
#[must_use]
pub fn device_by_name(_eal: &Eal, name: &str) -> Option<CryptoId> {
    let name = cstr::to_c(name).ok()?;
    // SAFETY: the EAL runs and the name is a C string.
    let found = unsafe { dpdk_sys::rte_cryptodev_get_dev_id(name.as_ptr()) };
    u8::try_from(found).ok().map(CryptoId)
}
