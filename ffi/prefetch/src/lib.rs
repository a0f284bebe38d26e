//! Asking the CPU for memory ahead of its use. The standard library's way (`hint_prefetch`) is not stable yet.

#![allow(unsafe_code, reason = "the instructions are intrinsics or assembly")]

/// Has the cache line in which `place` begins fetched into all levels. A hint: nothing waits for it, and nothing comes of it
/// but speed.
#[inline(always)]
pub fn read<T: ?Sized>(place: &T) {
    let address = std::ptr::from_ref(place).cast::<u8>();
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction never faults, whatever the address.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the instruction never faults and changes nothing the compiler knows of.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(readonly, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_changes() {
        let words = [7_u64; 64];
        super::read(&words[63]);
        super::read(&words[..]);
        super::read("");
        assert_eq!(words, [7; 64]);
    }
}
