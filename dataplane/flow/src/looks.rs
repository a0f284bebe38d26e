//! When to look at each connection next: one word a record.
//!
//! The lower half is the time, in the engine's unit and never 0; 0 if there is no connection. The upper half tells whether the
//! record's tuples are those that it was made with.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::memory;
use crate::table::FlowError;

/// In place of a time: expiry ends the connection without asking.
const END: u32 = u32::MAX;
/// Times up to this stand for any time that has come: so many, that those who ask for a look while one is under way, an end of
/// the connection or two, do not come back to the word that it began with.
const SOON: u32 = 4;
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
    ///
    /// The word always changes: who looks at the connection at the moment finds it another one, and does not put it off.
    pub(crate) fn soon(&self, record: u32) {
        if let Some(at) = self.at(record) {
            let _ = at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
                let look = old as u32;
                let soon = if look < SOON { look + 1 } else { 1 };
                (look != 0 && look != END).then_some(old & CHECK | u64::from(soon))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever asks for a look while one is under way gets another one, as often as a connection may be closed.
    #[test]
    fn a_look_that_was_asked_for_is_not_put_off() {
        for look in [1, 2, 3, 10, 100] {
            for asked in 1..=3 {
                let looks = Looks::new(64).unwrap();
                looks.begin(7, look, 0xabcd);
                let due = looks.due(7, 100).unwrap();
                for _ in 0..asked {
                    looks.soon(7);
                }
                looks.put_off(7, due, 8000);
                assert!(
                    looks.due(7, 100).is_some(),
                    "asked {asked} times about one of {look}"
                );
                assert_eq!(looks.check(7), Some(0xabcd));
            }
        }
        // Without that it is put off; and what is not there, or is to end, stays so.
        let looks = Looks::new(64).unwrap();
        looks.begin(7, 1, 0);
        let due = looks.due(7, 100).unwrap();
        looks.put_off(7, due, 8000);
        assert!(looks.due(7, 7999).is_none());
        looks.soon(7);
        assert!(looks.due(7, 1).is_some());
        assert!(looks.end_soon(7, || true));
        looks.soon(7);
        assert!(looks.due(7, 1).is_some_and(Due::is_the_end));
        assert!(looks.end(7));
        looks.soon(7);
        assert!(looks.due(7, 100).is_none());
    }
}
