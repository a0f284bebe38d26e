//! What a worker does when there is nothing to do.

use std::time::Duration;

/// How a worker waits for packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poll {
    /// It never stops asking.
    Busy,
    /// After a while without packets it pauses, then sleeps for ever longer, at most this long at a time: the most that
    /// a packet waits because of it, give or take the kernel's timer.
    Adaptive {
        /// Longest sleep.
        max_sleep: Duration,
    },
}

/// Rounds without packets before a worker pauses between rounds.
const SPIN: u32 = 256;
/// Rounds without packets before it sleeps.
const PAUSE: u32 = 2048;
/// First sleep.
const FIRST: Duration = Duration::from_micros(2);

/// Idle rounds in a row, and what follows from them.
#[derive(Debug)]
pub(crate) struct Backoff {
    poll: Poll,
    idle: u32,
    sleep: Duration,
}

impl Backoff {
    pub(crate) fn new(poll: Poll) -> Self {
        Self {
            poll,
            idle: 0,
            sleep: FIRST,
        }
    }

    /// There were packets.
    #[inline(always)]
    pub(crate) fn busy(&mut self) {
        self.idle = 0;
    }

    /// There were none: waits as long as it should, and says whether it slept.
    pub(crate) fn idle(&mut self) -> bool {
        let Poll::Adaptive { max_sleep } = self.poll else {
            return false;
        };
        self.idle = self.idle.saturating_add(1);
        if self.idle < SPIN {
            return false;
        }
        if self.idle < PAUSE {
            dpdk::cycles::pause();
            return false;
        }
        if self.idle == PAUSE {
            self.sleep = FIRST;
        }
        std::thread::sleep(self.sleep.min(max_sleep));
        self.sleep = (self.sleep * 2).min(max_sleep);
        true
    }
}
