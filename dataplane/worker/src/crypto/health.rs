//! Whether a device is fit for work.

use std::fmt;

/// Why a device is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It did not give anything back for too long.
    Silent,
    /// It failed too often in a row.
    Errors,
    /// It did what it was asked to, and the result was wrong.
    WrongResult,
    /// It was taken away.
    Removed,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Silent, Self::Errors, Self::WrongResult, Self::Removed];

    /// Name in statistics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Errors => "errors",
            Self::WrongResult => "wrong_result",
            Self::Removed => "removed",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// When to give up a device, and when to try it again. Times are in cycles of the clock the provider was given.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Packets in the device and none back for so long: it is silent.
    pub timeout: u64,
    /// So many failures with no success between them are too many.
    pub errors: u32,
    /// First wait before a device is tried again; doubles with each failure.
    pub backoff: u64,
    /// Longest wait.
    pub max_backoff: u64,
}

/// What a device is good for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It works.
    Up,
    /// It gets nothing until then.
    Down { cause: Cause, until: u64 },
    /// It has one packet that shows whether it works again.
    Probing { cause: Cause },
}

/// The state of a device and what leads to the next.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) state: State,
    limits: Limits,
    backoff: u64,
    errors: u32,
    progress: u64,
}

impl Health {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            state: State::Up,
            limits,
            backoff: limits.backoff,
            errors: 0,
            progress: 0,
        }
    }

    #[inline(always)]
    pub(crate) fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Why the device is not used, unless it is.
    pub(crate) fn cause(&self) -> Option<Cause> {
        match self.state {
            State::Up => None,
            State::Down { cause, .. } | State::Probing { cause } => Some(cause),
        }
    }

    /// The device has got something to do, or has given something back.
    #[inline(always)]
    pub(crate) fn progress(&mut self, now: u64) {
        self.progress = now;
    }

    /// Whether a device with work to do has been silent for too long.
    #[inline(always)]
    pub(crate) fn is_silent(&self, now: u64) -> bool {
        now.wrapping_sub(self.progress) > self.limits.timeout && self.progress <= now
    }

    #[inline(always)]
    pub(crate) fn success(&mut self) {
        self.errors = 0;
    }

    /// A failure. Returns whether it was one too many.
    pub(crate) fn failure(&mut self) -> bool {
        self.errors = self.errors.saturating_add(1);
        self.errors >= self.limits.errors
    }

    /// The device gets nothing until then.
    pub(crate) fn down_until(&mut self, cause: Cause, until: u64) {
        self.state = State::Down { cause, until };
    }

    /// The device gets nothing for a while.
    pub(crate) fn down(&mut self, cause: Cause, now: u64) {
        self.state = State::Down {
            cause,
            until: now.saturating_add(self.backoff),
        };
        self.backoff = self.backoff.saturating_mul(2).min(self.limits.max_backoff);
        self.errors = 0;
    }

    /// Whether it is time to try again.
    pub(crate) fn is_due(&self, now: u64) -> bool {
        matches!(self.state, State::Down { until, .. } if now >= until)
    }

    /// The device has a packet that shows whether it works.
    pub(crate) fn probing(&mut self, now: u64) {
        if let Some(cause) = self.cause() {
            self.state = State::Probing { cause };
        }
        self.progress = now;
    }

    /// The device works.
    pub(crate) fn up(&mut self) {
        self.state = State::Up;
        self.backoff = self.limits.backoff;
        self.errors = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        timeout: 100,
        errors: 3,
        backoff: 1000,
        max_backoff: 3000,
    };

    #[test]
    fn waits_longer_each_time_and_starts_over_after_a_recovery() {
        let mut health = Health::new(LIMITS);
        let mut now = 0;
        for wait in [1000, 2000, 3000, 3000] {
            health.down(Cause::Silent, now);
            assert!(!health.is_due(now + wait - 1) && health.is_due(now + wait));
            assert_eq!(health.cause(), Some(Cause::Silent));
            now += wait;
            health.probing(now);
            assert!(!health.is_due(u64::MAX) && !health.is_up());
        }
        health.up();
        assert_eq!(health.cause(), None);
        health.down(Cause::Errors, now);
        assert!(health.is_due(now + 1000));
    }

    #[test]
    fn failures_count_in_a_row_only() {
        let mut health = Health::new(LIMITS);
        for _ in 0..5 {
            assert!(!health.failure() && !health.failure());
            health.success();
        }
        assert!(!health.failure() && !health.failure() && health.failure());
    }

    #[test]
    fn silence_is_counted_from_the_last_progress() {
        let mut health = Health::new(LIMITS);
        health.progress(50);
        assert!(!health.is_silent(150) && health.is_silent(151));
        health.progress(151);
        assert!(!health.is_silent(151) && !health.is_silent(200));
    }
}
