//! Asking the CPU for memory ahead of its use, and the system for large pages. The standard library's way (`hint_prefetch`) is not stable yet.

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

/// Bytes of a huge page where it matters.
const HUGE: usize = 2 << 20;

/// Asks the system to back a large table that is read all over with huge pages: with small ones, each lookup would miss the TLB
/// as well as the caches. Call it before the memory is first written. A hint; small tables are left alone.
pub fn huge_pages<T>(table: &[T]) {
    let (start, len) = (table.as_ptr().addr(), size_of_val(table));
    let first = start.next_multiple_of(HUGE);
    let end = (start + len) / HUGE * HUGE;
    if end <= first {
        return;
    }
    let address = table.as_ptr().wrapping_byte_add(first - start);
    #[cfg(target_os = "linux")]
    // SAFETY: the range lies within the slice, and this advice changes neither what is in it nor what may be done with it.
    unsafe {
        libc::madvise(address.cast_mut().cast(), end - first, libc::MADV_HUGEPAGE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    #[test]
    fn tables_keep_what_they_hold() {
        let mut table = vec![0_u64; 1 << 20];
        super::huge_pages(&table);
        assert!(table.iter().all(|word| *word == 0));
        table[777_777] = 7;
        super::huge_pages(&table);
        super::huge_pages(&table[..100]);
        super::huge_pages::<u64>(&[]);
        assert_eq!(table.iter().sum::<u64>(), 7);
    }

    #[test]
    fn nothing_changes() {
        let words = [7_u64; 64];
        super::read(&words[63]);
        super::read(&words[..]);
        super::read("");
        assert_eq!(words, [7; 64]);
    }
}
