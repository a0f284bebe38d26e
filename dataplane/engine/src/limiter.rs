//! Token bucket.

/// Lets `rate` packets a second pass, and `burst` at once after a pause.
#[derive(Debug, Clone)]
pub(crate) struct Limiter {
    /// Nanoseconds that one packet costs.
    cost: u64,
    /// Most that can be saved, in nanoseconds.
    most: u64,
    saved: u64,
    last: u64,
}

impl Limiter {
    /// `rate` packets a second; 0 lets nothing pass.
    pub(crate) fn new(rate: u32, burst: u32) -> Self {
        let cost = 1_000_000_000u64.checked_div(rate.into()).unwrap_or(u64::MAX);
        let most = cost.saturating_mul(burst.max(1).into());
        Self {
            cost,
            most,
            saved: most,
            last: 0,
        }
    }

    /// Whether a packet may pass now (`now` in nanoseconds).
    pub(crate) fn allow(&mut self, now: u64) -> bool {
        self.saved = self
            .saved
            .saturating_add(now.saturating_sub(self.last))
            .min(self.most);
        self.last = now;
        if self.cost == u64::MAX || self.saved < self.cost {
            return false;
        }
        self.saved -= self.cost;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_burst_hold() {
        let mut limiter = Limiter::new(100, 10);
        assert_eq!((0..20).filter(|_| limiter.allow(0)).count(), 10);
        let passed = (0..1000).filter(|step| limiter.allow(step * 1_000_000)).count();
        assert!((99..=100).contains(&passed), "{passed} in one second");
        assert!(!Limiter::new(0, 10).allow(1 << 60));
    }
}
