//! What time it is.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970: what is remembered across restarts.
pub(crate) fn seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

/// A clock, which tests set.
pub type Clock = Box<dyn Fn() -> u64 + Send + Sync>;
