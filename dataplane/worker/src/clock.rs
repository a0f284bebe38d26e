//! Time from the cycle counter.

/// Turns cycle counts into nanoseconds since it was made, or since the clock was that it goes on with.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: u64,
    /// Nanoseconds per cycle, times 2^32.
    scale: u64,
    /// Nanoseconds when it was made.
    base: u64,
}

impl Clock {
    /// A clock that starts now. The EAL must be up: it knows the counter's rate.
    pub fn start() -> Self {
        Self::starting_at(0)
    }

    /// A clock that stands at so many nanoseconds now.
    pub fn starting_at(base: u64) -> Self {
        let hz = u128::from(dpdk::cycles::hz().max(1));
        Self {
            start: dpdk::cycles::now(),
            scale: ((1_000_000_000_u128 << 32) / hz) as u64,
            base,
        }
    }

    /// Nanoseconds at a cycle count.
    #[inline(always)]
    pub fn ns(&self, cycles: u64) -> u64 {
        let since = u128::from(cycles.wrapping_sub(self.start)) * u128::from(self.scale);
        self.base.wrapping_add((since >> 32) as u64)
    }

    /// Nanoseconds now.
    pub fn now(&self) -> u64 {
        self.ns(dpdk::cycles::now())
    }
}
