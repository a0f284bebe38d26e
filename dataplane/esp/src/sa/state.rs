//! What changes while packets flow.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::replay::ReplayWindow;
use crate::sequence::SequenceCounter;

/// What all workers write, in cache lines of its own. Goes with the keys: when the configuration of a security association
/// is changed and the keys stay, so does this, and no number is given or accepted twice.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct SaState {
    /// Outbound: the numbers to give.
    pub(crate) sequence: SequenceCounter,
    bytes: AtomicU64,
    /// Inbound. Outbound, the numbers that were given tell.
    packets: AtomicU64,
    /// Inbound.
    pub(crate) replay: ReplayWindow,
    /// Outbound: the first number that was to be given.
    first: u64,
}

/// How much of its lifetime is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// Bytes encrypted or decrypted.
    pub bytes: u64,
    /// Packets. Outbound, those are counted that got a number.
    pub packets: u64,
}

impl SaState {
    /// Outbound numbers start at `first`; inbound ones up to `top` count as accepted.
    pub(crate) fn new(esn: bool, first: u64, window: u32, top: u64) -> Self {
        Self {
            sequence: SequenceCounter::new(first, esn),
            bytes: AtomicU64::new(0),
            packets: AtomicU64::new(0),
            replay: ReplayWindow::new(window, top),
            first,
        }
    }

    /// Reads its cache lines, for their being read.
    #[inline(always)]
    pub(crate) fn read(&self) -> u8 {
        (self.sequence.next() ^ u64::from(self.replay.size())) as u8
    }

    pub(crate) fn used(&self, outbound: bool) -> Used {
        let packets = match outbound {
            true => self.given(self.sequence.next()),
            false => self.packets.load(Ordering::Relaxed),
        };
        Used {
            bytes: self.bytes.load(Ordering::Relaxed),
            packets,
        }
    }

    /// Outbound: packets that had numbers before this one.
    #[inline]
    pub(crate) fn given(&self, number: u64) -> u64 {
        number.saturating_sub(self.first)
    }

    /// Counts a burst's bytes; returns what was counted before.
    #[inline]
    pub(crate) fn spend_bytes(&self, bytes: u64) -> u64 {
        self.bytes.fetch_add(bytes, Ordering::Relaxed)
    }

    /// Inbound: counts a burst's packets and bytes; returns what was counted before.
    #[inline]
    pub(crate) fn spend(&self, packets: u64, bytes: u64) -> Used {
        Used {
            bytes: self.spend_bytes(bytes),
            packets: self.packets.fetch_add(packets, Ordering::Relaxed),
        }
    }
}
