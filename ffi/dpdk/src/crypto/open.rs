//! The one claim on a crypto device that its owner, its queues and its sessions share.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dpdk_sys::rte_mempool;

use crate::crypto::ops::Ops;
use crate::crypto::session::CryptoSession;
use crate::crypto::{CryptoError, CryptoId};
use crate::cstr;
use crate::eal::Eal;
use crate::errno::Errno;

/// Which devices are open. A device must have one owner, or queues could exist twice.
static OPEN: [AtomicBool; dpdk_sys::OCT_CRYPTO_MAX_DEVS as usize] =
    [const { AtomicBool::new(false) }; dpdk_sys::OCT_CRYPTO_MAX_DEVS as usize];

/// Numbers the pools, whose names have to differ.
static POOLS: AtomicU32 = AtomicU32::new(0);

/// Sessions in one pool. There are more pools when there are more sessions.
const SESSIONS: u32 = 512;

/// A name no pool of this process has.
pub(crate) fn pool_name(what: &str) -> String {
    format!("octoplane_{what}{}", POOLS.fetch_add(1, Ordering::Relaxed))
}

/// What a device kept when its queue was dropped: given back when the device is closed.
#[derive(Debug)]
pub(crate) struct Stuck {
    pub(crate) ops: Ops,
    /// Sessions the operations point to. Without their claim on the device: it would never be closed.
    pub(crate) sessions: Vec<NonNull<std::ffi::c_void>>,
}

// SAFETY: neither operations nor sessions belong to a thread.
unsafe impl Send for Stuck {}

/// A pool of sessions.
#[derive(Debug)]
struct SessionPool(NonNull<rte_mempool>);

// SAFETY: pools are for any thread.
unsafe impl Send for SessionPool {}

/// An open device. The last to hold it stops and closes the device, so that queues and sessions never outlive it.
#[derive(Debug)]
pub(crate) struct OpenDevice {
    id: CryptoId,
    pub(crate) socket: i32,
    started: AtomicBool,
    /// Whether dropping this closes the device, or merely lets go of it.
    pub(crate) close_on_drop: bool,
    stuck: Mutex<Vec<Stuck>>,
    pools: Mutex<Vec<SessionPool>>,
    pub(crate) eal: Eal,
}

impl OpenDevice {
    /// Opens the device.
    pub(crate) fn claim(eal: &Eal, id: CryptoId) -> Result<Self, CryptoError> {
        let flag = OPEN.get(usize::from(id.0)).ok_or(CryptoError::Missing(id))?;
        if flag.swap(true, Ordering::AcqRel) {
            return Err(CryptoError::Open(id));
        }
        // From here on dropping `open` releases the claim. What does not exist must not be closed.
        let mut open = Self {
            id,
            socket: -1,
            started: AtomicBool::new(false),
            close_on_drop: false,
            stuck: Mutex::default(),
            pools: Mutex::default(),
            eal: eal.clone(),
        };
        let info = super::info_of(eal, id)?;
        open.socket = info
            .socket
            .and_then(|socket| i32::try_from(socket).ok())
            .unwrap_or(-1);
        open.close_on_drop = true;
        Ok(open)
    }

    pub(crate) fn id(&self) -> CryptoId {
        self.id
    }

    pub(crate) fn is_started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    pub(crate) fn set_started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// Keeps what the device may still use.
    pub(crate) fn bury(&self, stuck: Stuck) {
        self.stuck
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(stuck);
    }

    /// Makes a session, in a new pool if the others are full.
    pub(crate) fn make_session(
        self: &Arc<Self>,
        transform: &dpdk_sys::oct_crypto_transform,
    ) -> Result<NonNull<std::ffi::c_void>, CryptoError> {
        let failed = |operation, errno| CryptoError::Failed {
            device: self.id,
            operation,
            errno,
        };
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the pools are live.
        let room = |pool: &&SessionPool| unsafe { dpdk_sys::rte_mempool_avail_count(pool.0.as_ptr()) } > 0;
        let pool = match pools.iter().rev().find(room) {
            Some(pool) => pool.0,
            None => {
                let name = cstr::to_c(&pool_name("sessions"))?;
                // SAFETY: the device is open and the name a C string that DPDK copies.
                let pool = unsafe {
                    dpdk_sys::oct_crypto_session_pool(self.id.0, name.as_ptr(), SESSIONS, self.socket)
                };
                let pool = NonNull::new(pool).ok_or_else(|| failed("pool of sessions", Errno::last()))?;
                pools.push(SessionPool(pool));
                pool
            }
        };
        // SAFETY: the device is open, the transform has keys of the lengths it says, and the pool is for this device.
        let raw = unsafe { dpdk_sys::oct_crypto_session_create(self.id.0, transform, pool.as_ptr()) };
        NonNull::new(raw).ok_or_else(|| failed("session", Errno::last()))
    }
}

impl Drop for OpenDevice {
    fn drop(&mut self) {
        let stuck = std::mem::take(self.stuck.get_mut().unwrap_or_else(PoisonError::into_inner));
        // SAFETY: the EAL runs and neither queue nor session is left. There is nobody to tell of a failure; for a device
        // that has vanished the calls do nothing.
        unsafe {
            if *self.started.get_mut() {
                dpdk_sys::rte_cryptodev_stop(self.id.0);
            }
            // What is stuck is no longer the device's once it is stopped.
            for session in stuck.iter().flat_map(|stuck| &stuck.sessions) {
                let _ = dpdk_sys::rte_cryptodev_sym_session_free(self.id.0, session.as_ptr());
            }
            if self.close_on_drop {
                let _ = dpdk_sys::rte_cryptodev_close(self.id.0);
            }
        }
        // Frees the buffers, too.
        stuck.into_iter().for_each(|stuck| drop(stuck.ops));
        for pool in std::mem::take(self.pools.get_mut().unwrap_or_else(PoisonError::into_inner)) {
            // SAFETY: no session is left.
            unsafe { dpdk_sys::rte_mempool_free(pool.0.as_ptr()) };
        }
        if let Some(flag) = OPEN.get(usize::from(self.id.0)) {
            flag.store(false, Ordering::Release);
        }
    }
}

/// Gives up the session without giving it back, for the device to be closed although operations point to it. If others
/// have it, too, it is theirs to free; its memory is not given back before the device is closed in any case.
pub(crate) fn leave_behind(session: Arc<CryptoSession>) -> Option<NonNull<std::ffi::c_void>> {
    Arc::into_inner(session).map(CryptoSession::into_raw)
}
