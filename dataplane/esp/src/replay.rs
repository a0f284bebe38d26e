//! The inbound replay window, shared by all workers and exact (RFC 4303, section 3.4.3; RFC 6479 for the idea of blocks
//! that are reused instead of shifted).
//!
//! Each word holds a block of 16 sequence numbers: a bit for each, and above them the block's number. A packet is
//! accepted by the one compare-and-exchange that sets its bit, or that takes the word over from an older block. Nothing is
//! cleared ahead of time, so there is no moment at which another worker could see a half-moved window:
//!
//! * *never twice*: a number has one word; its bit stays until a later block takes the word, after which the number is
//!   refused for ever, because blocks in a word only go up;
//! * *never wrongly refused*: a word is taken over only by a packet at least a window ahead of all numbers of its old
//!   block, for there are more words than the window has blocks.
//!
//! A block's number is kept to 48 bits: a word would have to sleep through 2^51 sequence numbers for an old block to look
//! like a new one.

use std::sync::atomic::AtomicU64;

use crate::atomic::Word;

/// Largest window, in packets.
pub const MAX_WINDOW: u32 = 4096;

const BLOCK_BITS: u32 = 16;
const BITS: u64 = (1 << BLOCK_BITS) - 1;

/// Why a packet was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// It was accepted before.
    Duplicate,
    /// It is behind the window, or has number 0, which is never sent.
    TooOld,
}

/// Which sequence numbers were accepted, of the last `size`.
#[derive(Debug)]
pub struct ReplayWindow<W = AtomicU64> {
    size: u32,
    /// The highest number accepted; 0 for none.
    top: W,
    /// A power of two of them; none for size 0.
    words: Box<[W]>,
}

#[inline(always)]
fn place(sequence: u64) -> (u64, u64) {
    (
        sequence / u64::from(BLOCK_BITS),
        1 << (sequence % u64::from(BLOCK_BITS)),
    )
}

/// How a word stands to a block.
enum Age {
    Same,
    /// The word is of an older block: it can be taken over.
    Older,
    Newer,
}

#[inline(always)]
fn age(word: u64, block: u64) -> Age {
    // Both shifted up by 16: what is compared are 48 bits, modulo 2^48.
    let ahead = (block << BLOCK_BITS).wrapping_sub(word & !BITS);
    if ahead == 0 {
        Age::Same
    } else if ahead >> 63 == 0 {
        Age::Older
    } else {
        Age::Newer
    }
}

impl<W: Word> ReplayWindow<W> {
    /// A window of `size` packets, 0 for no protection; what is above [`MAX_WINDOW`] is cut to it. Numbers up to `top` count
    /// as accepted already: 0 for a new security association.
    pub fn new(size: u32, top: u64) -> Self {
        let size = size.min(MAX_WINDOW);
        let words = if size == 0 {
            0
        } else {
            (size + BLOCK_BITS - 1).div_ceil(BLOCK_BITS).next_power_of_two()
        };
        // After a start at `top` all words are full and as new as they can be.
        let (top_block, top_bit) = place(top);
        let word = |index: u64| {
            let behind = top_block.wrapping_sub(index) % u64::from(words.max(1));
            match (top, top_block.checked_sub(behind)) {
                (0, _) | (_, None) => W::new(0),
                (_, Some(block)) if behind == 0 => W::new(block << BLOCK_BITS | top_bit | (top_bit - 1)),
                (_, Some(block)) => W::new(block << BLOCK_BITS | BITS),
            }
        };
        Self {
            size,
            top: W::new(top),
            words: (0..u64::from(words)).map(word).collect(),
        }
    }

    /// Packets it remembers.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The highest number accepted; 0 for none.
    #[inline]
    pub fn top(&self) -> u64 {
        self.top.load()
    }

    /// The whole sequence number of a packet that carries its lower half, with ESN.
    #[inline]
    pub fn infer(&self, low: u32) -> Option<u64> {
        crate::esn::infer(self.top(), self.size, low)
    }

    #[inline(always)]
    fn behind(&self, sequence: u64, top: u64) -> bool {
        sequence == 0 || (sequence <= top && top - sequence >= u64::from(self.size))
    }

    #[inline(always)]
    fn word(&self, block: u64) -> Option<&W> {
        self.words.get(block as usize & self.words.len().wrapping_sub(1))
    }

    /// Reads where a packet with this lower half is remembered, for its being read.
    #[inline(always)]
    pub(crate) fn touch(&self, low: u32) -> u64 {
        // The upper half makes no difference to the place: there are fewer than 2^32 numbers in all words together.
        self.word(place(low.into()).0).map_or(0, W::load)
    }

    /// Before the packet is verified: whether it is worth it. Changes nothing, and a yes may be a no later.
    #[inline]
    pub fn check(&self, sequence: u64) -> Result<(), Replay> {
        let (block, bit) = place(sequence);
        let Some(word) = self.word(block) else {
            return Ok(());
        };
        if self.behind(sequence, self.top.load()) {
            return Err(Replay::TooOld);
        }
        let word = word.load();
        match age(word, block) {
            Age::Same if word & bit != 0 => Err(Replay::Duplicate),
            Age::Newer => Err(Replay::TooOld),
            _ => Ok(()),
        }
    }

    /// After the packet was verified: accepts it, unless it was accepted before or the window moved past it meanwhile.
    pub fn accept(&self, sequence: u64) -> Result<(), Replay> {
        let mut verdict = [Ok(())];
        self.accept_all(&[sequence], &mut verdict);
        verdict[0]
    }

    /// [`ReplayWindow::accept`] for many, in their order. Neighbours in the same block cost one atomic operation together.
    /// `verdicts` has to be as long as `sequences`.
    pub fn accept_all(&self, sequences: &[u64], verdicts: &mut [Result<(), Replay>]) {
        let top_before = self.top.load();
        let mut top = top_before;
        if self.words.is_empty() {
            verdicts.fill(Ok(()));
            top = sequences.iter().copied().fold(top, u64::max);
        }
        let count = if self.words.is_empty() {
            0
        } else {
            sequences.len().min(verdicts.len())
        };
        let mut from = 0;
        while from < count {
            let (block, _) = place(sequences[from]);
            // As many as one word decides about.
            let mut wanted = 0;
            let mut to = from;
            while to < count {
                let (its_block, bit) = place(sequences[to]);
                if its_block != block || wanted & bit != 0 || self.behind(sequences[to], top) {
                    break;
                }
                wanted |= bit;
                to += 1;
            }
            if to == from {
                verdicts[from] = Err(Replay::TooOld);
                from += 1;
                continue;
            }
            let fresh = self.mark(block, wanted);
            for index in from..to {
                let (_, bit) = place(sequences[index]);
                verdicts[index] = match fresh {
                    Ok(bits) if bits & bit != 0 => {
                        top = top.max(sequences[index]);
                        Ok(())
                    }
                    Ok(_) => Err(Replay::Duplicate),
                    Err(replay) => Err(replay),
                };
            }
            from = to;
        }
        if top > top_before {
            self.top.fetch_max(top);
        }
    }

    /// Sets bits of a block; returns those that were not set before.
    #[inline]
    fn mark(&self, block: u64, wanted: u64) -> Result<u64, Replay> {
        let Some(slot) = self.word(block) else {
            return Ok(wanted);
        };
        let mut word = slot.load();
        loop {
            let (new, fresh) = match age(word, block) {
                Age::Same => (word | wanted, wanted & !word),
                Age::Older => (block << BLOCK_BITS | wanted, wanted),
                Age::Newer => return Err(Replay::TooOld),
            };
            if fresh == 0 {
                return Ok(0);
            }
            match slot.compare_exchange(word, new) {
                Ok(_) => return Ok(fresh),
                Err(now) => word = now,
            }
        }
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
