//! The few atomic operations that sequence numbers and replay windows need, behind a trait, so that a test can put a
//! model checker's atomics in the place of the processor's.

use std::sync::atomic::{AtomicU64, Ordering};

/// A shared 64-bit word. Every algorithm here is right with relaxed ordering: each decision is one read-modify-write of
/// one word, whose modifications all threads see in one order, and no word guards other memory.
pub trait Word: Send + Sync {
    /// A word of this value.
    fn new(value: u64) -> Self;
    /// Its value.
    fn load(&self) -> u64;
    /// Sets it to `new` if it is `current`; else fails with what it is.
    fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64>;
    /// Sets it to the greater of itself and `value`; returns what it was.
    fn fetch_max(&self, value: u64) -> u64;
}

impl Word for AtomicU64 {
    fn new(value: u64) -> Self {
        Self::new(value)
    }

    #[inline(always)]
    fn load(&self) -> u64 {
        self.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
        self.compare_exchange(current, new, Ordering::Relaxed, Ordering::Relaxed)
    }

    #[inline(always)]
    fn fetch_max(&self, value: u64) -> u64 {
        self.fetch_max(value, Ordering::Relaxed)
    }
}
