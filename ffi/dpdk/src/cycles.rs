//! The time-stamp counter: the cheapest clock, read once per burst.

/// The counter now. Unit: ticks of [`hz`] per second. Does not wait for earlier instructions.
#[inline(always)]
#[must_use]
pub fn now() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: every x86_64 CPU has the instruction.
        unsafe { core::arch::x86_64::_rdtsc() }
    }
    #[cfg(target_arch = "aarch64")]
    {
        let ticks: u64;
        // SAFETY: reading the virtual counter is allowed to user space on Linux and has no side effect.
        unsafe {
            core::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack, preserves_flags))
        };
        ticks
    }
}

/// Ticks per second, as the EAL measured them. 0 before [`crate::Eal::init`].
#[must_use]
pub fn hz() -> u64 {
    // SAFETY: reads an integer that is set once, by EAL initialisation.
    unsafe { dpdk_sys::rte_get_tsc_hz() }
}

/// Tells the CPU that this is a busy-waiting loop.
#[inline(always)]
pub fn pause() {
    core::hint::spin_loop();
}
