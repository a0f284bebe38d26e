//! Outbound sequence numbers: shared by all workers, reserved by the burst, never given twice.

use std::ops::Range;
use std::sync::atomic::AtomicU64;

use crate::atomic::Word;

/// Why no more numbers are to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoNumbers {
    /// All that the reservation on disk allows are in use; it will be extended.
    NotReserved,
    /// All there are (2^32 - 1, with ESN 2^64 - 2) are in use: the security association is at its end (RFC 4303, section
    /// 3.3.3).
    Exhausted,
}

/// Gives out 1, 2, 3 ... , each once.
///
/// Numbers come from a reservation: [`SequenceCounter::allow`] raises it after it was written to disk, so that numbers
/// given before a restart are never given after it.
#[derive(Debug)]
pub struct SequenceCounter<W = AtomicU64> {
    /// The next one to give.
    next: W,
    /// Those below may be given.
    reserved: W,
    /// Never given, nor anything above.
    end: u64,
}

impl<W: Word> SequenceCounter<W> {
    /// A counter whose first number is `first` (1 for a new key), of 32 bits or, with `esn`, 64. Nothing is reserved yet.
    pub fn new(first: u64, esn: bool) -> Self {
        let end = if esn { u64::MAX } else { 1 << 32 };
        let first = first.clamp(1, end);
        Self {
            next: W::new(first),
            reserved: W::new(first),
            end,
        }
    }

    /// Allows numbers below `end` to be given out. Lowering has no effect.
    pub fn allow(&self, end: u64) {
        self.reserved.fetch_max(end.min(self.end));
    }

    /// Takes up to `count` numbers, fewer if there are no more.
    #[inline]
    pub fn take(&self, count: u64) -> Range<u64> {
        let mut next = self.next.load();
        loop {
            let end = next.saturating_add(count).min(self.reserved.load());
            if end <= next {
                return next..next;
            }
            match self.next.compare_exchange(next, end) {
                Ok(_) => return next..end,
                Err(now) => next = now,
            }
        }
    }

    /// Why [`SequenceCounter::take`] gave fewer than asked for.
    pub fn why_none(&self) -> NoNumbers {
        if self.next.load() >= self.end {
            NoNumbers::Exhausted
        } else {
            NoNumbers::NotReserved
        }
    }

    /// The next number to be given.
    pub fn next(&self) -> u64 {
        self.next.load()
    }

    /// Those below may be given.
    pub fn reserved(&self) -> u64 {
        self.reserved.load()
    }

    /// The first number that never can be given.
    pub fn end(&self) -> u64 {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_what_is_reserved_and_no_more() {
        let counter: SequenceCounter = SequenceCounter::new(1, false);
        assert_eq!(counter.take(4), 1..1);
        assert_eq!(counter.why_none(), NoNumbers::NotReserved);
        counter.allow(6);
        counter.allow(3);
        assert_eq!(counter.take(4), 1..5);
        assert_eq!(counter.take(4), 5..6);
        assert_eq!(counter.take(1), 6..6);
    }

    #[test]
    fn thirty_two_bits_do_not_cycle() {
        let counter: SequenceCounter = SequenceCounter::new(0xffff_fffe, false);
        counter.allow(u64::MAX);
        assert_eq!(counter.take(10), 0xffff_fffe..0x1_0000_0000);
        assert_eq!(counter.take(1).count(), 0);
        assert_eq!(counter.why_none(), NoNumbers::Exhausted);
    }

    #[test]
    fn with_esn_it_goes_on() {
        let counter: SequenceCounter = SequenceCounter::new(0xffff_ffff, true);
        counter.allow(u64::MAX);
        assert_eq!(counter.take(2), 0xffff_ffff..0x1_0000_0001);
        let counter: SequenceCounter = SequenceCounter::new(u64::MAX - 1, true);
        counter.allow(u64::MAX);
        assert_eq!(counter.take(64), u64::MAX - 1..u64::MAX);
        assert_eq!(counter.take(64).count(), 0);
        assert_eq!(counter.why_none(), NoNumbers::Exhausted);
    }
}
