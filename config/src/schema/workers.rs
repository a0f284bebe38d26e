//! `[workers]`.

use std::time::Duration;

/// Worker threads, each of which owns one CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workers {
    /// CPU of each worker, in the order of the workers; 1 to [`super::MAX_WORKERS`], no two the same.
    /// Default (`count = "auto"`): all CPUs this process may use but the lowest.
    pub cores: Vec<usize>,
    /// CPUs of the control threads; never empty. Default: the CPUs this process may use that no worker owns, or
    /// the only one there is. They may be workers' where these sleep ([`PollMode::Adaptive`]).
    pub control_cores: Vec<usize>,
    /// What a worker does when there is nothing to do. Default [`PollMode::Adaptive`].
    pub poll: PollMode,
    /// How late a sleeping worker may see a packet, for [`PollMode::Adaptive`]. Microseconds in the file, 10 to
    /// 10,000, default 100.
    pub max_wakeup_delay: Duration,
    /// Most packets taken from a queue at once, 1 to 64. Default 64.
    pub burst: u16,
}

impl Workers {
    /// Default of [`Workers::max_wakeup_delay`].
    pub const DEFAULT_MAX_WAKEUP_DELAY: Duration = Duration::from_micros(100);
    /// Default of [`Workers::burst`], and the most it may be.
    pub const DEFAULT_BURST: u16 = 64;
}

/// What a worker does when its queues are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PollMode {
    /// Polls on: the shortest delay, a whole CPU.
    Busy,
    /// Sleeps a little, for at most [`Workers::max_wakeup_delay`].
    #[default]
    Adaptive,
}

impl PollMode {
    /// Spelling in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Adaptive => "adaptive",
        }
    }
}
