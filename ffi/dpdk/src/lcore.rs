//! Making a thread known to DPDK.
//!
//! A thread without an lcore id bypasses the mempool caches, and [`crate::TxQueue::burst`] sends nothing from it, because
//! some drivers compute the address they write to from that id.

use std::fmt;
use std::marker::PhantomData;

use crate::eal::Eal;
use crate::errno::Errno;

/// A number below `RTE_MAX_LCORE` that one running thread has. It is not a CPU number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LcoreId(u32);

impl LcoreId {
    /// How many ids there are.
    pub const LIMIT: usize = dpdk_sys::OCT_MAX_LCORE as usize;

    /// The number, for indexing.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for LcoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a thread could not be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LcoreError {
    /// The thread has an id already: it initialised the EAL, or is registered.
    #[error("this thread is lcore {0} already")]
    Already(LcoreId),
    /// DPDK refused; `ENOMEM` when all ids are taken.
    #[error("the thread cannot be registered as an lcore: {0}")]
    Refused(#[source] Errno),
}

/// The calling thread's registration. Dropping it gives the id back, so it stays on this thread.
#[derive(Debug)]
pub struct Lcore {
    id: LcoreId,
    _eal: Eal,
    // The id is in thread-local storage: dropping this elsewhere would unregister another thread.
    _this_thread: PhantomData<*mut ()>,
}

impl Lcore {
    /// The thread's id.
    #[must_use]
    pub fn id(&self) -> LcoreId {
        self.id
    }
}

impl Drop for Lcore {
    fn drop(&mut self) {
        // SAFETY: this thread registered itself and, as the type is not Send, is the one that drops.
        unsafe { dpdk_sys::rte_thread_unregister() };
    }
}

/// Registers the calling thread with the EAL until the returned guard is dropped.
///
/// # Errors
/// [`LcoreError`]
pub fn register_thread(eal: &Eal) -> Result<Lcore, LcoreError> {
    if let Some(id) = current() {
        // A second registration would leak the first id.
        return Err(LcoreError::Already(id));
    }
    // SAFETY: the EAL is initialised, as `eal` shows.
    if unsafe { dpdk_sys::rte_thread_register() } != 0 {
        return Err(LcoreError::Refused(Errno::last()));
    }
    let id = current().ok_or(LcoreError::Refused(Errno(libc::EINVAL)))?;
    Ok(Lcore {
        id,
        _eal: eal.clone(),
        _this_thread: PhantomData,
    })
}

/// The calling thread's id, if it is an lcore.
#[must_use]
pub fn current() -> Option<LcoreId> {
    // SAFETY: reads a thread-local integer.
    match unsafe { dpdk_sys::oct_lcore_id() } {
        dpdk_sys::OCT_LCORE_NONE => None,
        id => Some(LcoreId(id)),
    }
}
