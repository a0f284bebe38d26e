//! DPDK's error numbers.

use std::ffi::c_int;
use std::fmt;

/// A positive `errno` value, as DPDK returns (negated) or leaves in `rte_errno`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// What `rte_errno` of this thread holds.
    pub(crate) fn last() -> Self {
        // SAFETY: reads a thread-local integer.
        Self(unsafe { dpdk_sys::oct_errno() })
    }

    /// From a negative return value; drivers that answer a bare -1 are taken as `EIO`,
    /// since -1 would read as `EPERM` and send the operator looking for permissions.
    pub(crate) fn from_return(value: c_int) -> Self {
        if value == -1 {
            Self(libc::EIO)
        } else {
            Self(value.saturating_abs())
        }
    }

    /// `Ok` for zero and above.
    pub(crate) fn check(value: c_int) -> Result<(), Self> {
        if value < 0 {
            Err(Self::from_return(value))
        } else {
            Ok(())
        }
    }

    /// Whether the device or driver lacks the operation.
    #[must_use]
    pub fn is_unsupported(self) -> bool {
        // ENOSYS too: some drivers answer with it.
        matches!(self.0, libc::ENOTSUP | libc::ENOSYS)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl std::error::Error for Errno {}
