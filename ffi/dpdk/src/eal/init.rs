//! Starting and ending the EAL.

use std::ffi::{CString, c_char, c_int};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::affinity::Affinity;
use crate::cstr::{self, NulByte};
use crate::eal::options::{EalOptions, OptionsError};
use crate::errno::Errno;

/// Why the EAL did not start or end.
#[derive(Debug, thiserror::Error)]
pub enum EalError {
    /// The options make no sense; DPDK was not called and a second attempt is possible.
    #[error("EAL options: {0}")]
    Options(#[from] OptionsError),
    /// An option has a NUL byte in it; DPDK was not called and a second attempt is possible.
    #[error("EAL options: {0}")]
    NulByte(#[from] NulByte),
    /// DPDK keeps global state it cannot build up twice: one attempt per process.
    #[error("the EAL was initialised in this process before")]
    AlreadyInitialised,
    /// DPDK refused. Its log on stderr says more.
    #[error("the EAL does not start: {0} (arguments: {args})", args = .1.join(" "))]
    Init(#[source] Errno, Vec<String>),
    /// The thread's CPU mask could not be read, or not be given back after the start.
    #[error("CPU affinity of the calling thread: {0}")]
    Affinity(#[source] io::Error),
    /// Ports, pools, queues or registered threads still need the EAL.
    #[error("the EAL is still in use")]
    InUse,
    /// DPDK reports a failure while ending.
    #[error("the EAL does not end cleanly: {0}")]
    Cleanup(#[source] Errno),
}

/// Whether `rte_eal_init` was called in this process.
static STARTED: AtomicBool = AtomicBool::new(false);

/// Proof that the EAL runs, and what keeps it running: cheap to clone, cleaned up with the last clone.
#[derive(Debug, Clone)]
pub struct Eal {
    running: Arc<Running>,
}

#[derive(Debug)]
struct Running {
    cleaned_up: bool,
}

impl Eal {
    /// Starts the EAL. The calling thread becomes lcore 0 and keeps the CPU mask it has.
    ///
    /// # Errors
    /// [`EalError`]. After [`EalError::Init`] the process has to end before the EAL can be tried again.
    pub fn init(options: &EalOptions) -> Result<Self, EalError> {
        let affinity = Affinity::save().map_err(EalError::Affinity)?;
        let args = options.to_args(&affinity.cpus())?;
        let owned = args
            .iter()
            .map(|arg| cstr::to_c(arg))
            .collect::<Result<Vec<CString>, NulByte>>()?;
        let count =
            c_int::try_from(owned.len()).map_err(|_| EalError::Init(Errno(libc::E2BIG), args.clone()))?;
        if STARTED.swap(true, Ordering::AcqRel) {
            return Err(EalError::AlreadyInitialised);
        }
        // Leaked: DPDK keeps pointers into the arguments, and this happens once.
        let mut pointers: Vec<*mut c_char> = owned.into_iter().map(CString::into_raw).collect();
        pointers.push(std::ptr::null_mut());
        let argv = Box::leak(pointers.into_boxed_slice());
        // SAFETY: argv holds `count` writable C strings and a null behind them, all of static life; the flag above
        // makes this the only call in the process.
        let ret = unsafe { dpdk_sys::rte_eal_init(count, argv.as_mut_ptr()) };
        // The EAL has pinned this thread, and every thread started from it would inherit that.
        let restored = affinity.restore();
        if ret < 0 {
            return Err(EalError::Init(Errno::last(), args));
        }
        let eal = Self {
            running: Arc::new(Running { cleaned_up: false }),
        };
        restored.map_err(EalError::Affinity)?;
        Ok(eal)
    }

    /// Ends the EAL and says how that went. Dropping the last clone ends it silently.
    ///
    /// # Errors
    /// [`EalError::InUse`] while a port, pool, queue, registered thread or other clone exists, or a pool was dropped with
    /// buffers still out; the EAL then goes on. [`EalError::Cleanup`] if DPDK fails.
    pub fn cleanup(self) -> Result<(), EalError> {
        let mut running = Arc::try_unwrap(self.running).map_err(|_| EalError::InUse)?;
        running.cleaned_up = true;
        // SAFETY: nothing that needs the EAL is left: it would hold a clone of the Arc.
        Errno::check(unsafe { dpdk_sys::rte_eal_cleanup() }).map_err(EalError::Cleanup)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.cleaned_up {
            // SAFETY: as in `Eal::cleanup`. There is nobody to tell of a failure.
            let _ = unsafe { dpdk_sys::rte_eal_cleanup() };
        }
    }
}

/// The version of the DPDK libraries loaded, such as `DPDK 22.11.11`.
#[must_use]
pub fn version() -> &'static str {
    // SAFETY: the function builds the string once in static memory. Two first calls at once write the same bytes.
    unsafe { cstr::from_static(dpdk_sys::rte_version()) }
}
