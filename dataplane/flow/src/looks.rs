//! When to look at each connection next: one word a record.
//!
//! The lower half is the time, in the engine's unit and never 0; 0 if there is no connection. The upper half tells whether the
//! record's tuples are those that it was made with.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::memory;
use crate::table::FlowError;

/// In place of a time: expiry ends the connection without asking.
const END: u32 = u32::MAX;
/// The upper half.
const CHECK: u64 = 0xffff_ffff << 32;

/// A word as it was when its time had come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due(u64);

impl Due {
    /// Whether somebody asked for the connection's end.
    #[inline(always)]
    pub(crate) fn is_the_end(self) -> bool {
        self.0 as u32 == END
    }
}

/// The words of all records.
pub(crate) struct Looks(&'static [AtomicU64]);

impl Looks {
    /// No connection.
    pub(crate) fn new(records: usize) -> Result<Self, FlowError> {
        memory::words(records).map(Self)
    }

    /// Words that are there already.
    pub(crate) fn over(words: &'static [AtomicU64]) -> Self {
        Self(words)
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn at(&self, record: u32) -> Option<&AtomicU64> {
        self.0.get(record as usize)
    }

    /// A record has become a connection. Release: who sees the time sees the record written, in another process, too.
    pub(crate) fn begin(&self, record: u32, look: u32, check: u32) {
        if let Some(at) = self.at(record) {
            let look = look.clamp(1, END - 1);
            at.store(u64::from(check) << 32 | u64::from(look), Ordering::Release);
        }
    }

    /// A connection is over. `false` if it was already.
    pub(crate) fn end(&self, record: u32) -> bool {
        let old = self.at(record).map_or(0, |at| at.swap(0, Ordering::AcqRel));
        old as u32 != 0
    }

    /// The check of a connection that is there.
    pub(crate) fn check(&self, record: u32) -> Option<u32> {
        let word = self.at(record)?.load(Ordering::Acquire);
        (word as u32 != 0).then_some((word >> 32) as u32)
    }

    /// Whether the time of a connection has come at `now`.
    #[inline(always)]
    pub(crate) fn due(&self, record: u32, now: u32) -> Option<Due> {
        let word = self.at(record)?.load(Ordering::Acquire);
        let look = word as u32;
        (look != 0 && (look <= now || look == END)).then_some(Due(word))
    }

    /// Puts a connection off, unless somebody asked for a look or the end meanwhile.
    #[inline(always)]
    pub(crate) fn put_off(&self, record: u32, due: Due, next: u32) {
        if let Some(at) = self.at(record) {
            let next = due.0 & CHECK | u64::from(next.clamp(1, END - 1));
            let _ = at.compare_exchange(due.0, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Has a connection looked at next. One that is gone stays gone, and one that is to end ends.
    pub(crate) fn soon(&self, record: u32) {
        if let Some(at) = self.at(record) {
            let _ = at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
                let look = old as u32;
                (look != 0 && look != END).then_some(old & CHECK | 1)
            });
        }
    }

    /// Has a connection ended next, if it is the one that is meant. Returns whether there was something to end.
    pub(crate) fn end_soon(&self, record: u32, is_meant: impl Fn() -> bool) -> bool {
        let Some(at) = self.at(record) else { return false };
        let mut word = at.load(Ordering::Acquire);
        loop {
            let look = word as u32;
            if look == 0 || look == END || !is_meant() {
                return false;
            }
            let end = word & CHECK | u64::from(END);
            match at.compare_exchange(word, end, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
    }

    /// Whether a connection is there, and nobody has asked for its end.
    pub(crate) fn is_live(&self, record: u32) -> bool {
        let look = self.at(record).map_or(0, |at| at.load(Ordering::Acquire)) as u32;
        look != 0 && look != END
    }
}
