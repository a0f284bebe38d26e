//! The CPUs the calling thread may run on, kept over `rte_eal_init`.

use std::io;
use std::mem;

/// A thread's CPU mask.
pub(crate) struct Affinity(libc::cpu_set_t);

impl Affinity {
    /// The calling thread's mask.
    pub(crate) fn save() -> io::Result<Self> {
        // SAFETY: cpu_set_t is a plain bit array, for which zero is a value; the call writes at most its size.
        unsafe {
            let mut set: libc::cpu_set_t = mem::zeroed();
            match libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) {
                0 => Ok(Self(set)),
                _ => Err(io::Error::last_os_error()),
            }
        }
    }

    /// Gives the calling thread this mask.
    pub(crate) fn restore(&self) -> io::Result<()> {
        // SAFETY: the pointer is to a whole cpu_set_t, and the call only reads it.
        match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const self.0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The CPU numbers in the mask, ascending.
    pub(crate) fn cpus(&self) -> Vec<usize> {
        let limit = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
        // SAFETY: `cpu` is below the number of bits in the set.
        (0..limit)
            .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &self.0) })
            .collect()
    }
}
