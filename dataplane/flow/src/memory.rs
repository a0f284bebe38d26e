//! Words on cache-line boundaries.

use std::sync::atomic::AtomicU64;

use memmap2::{Advice, MmapMut};
use zerocopy::{FromBytes, FromZeros};

use crate::table::FlowError;

/// Words of a cache line.
pub(crate) const LINE: usize = 8;

/// Memory from which on huge pages are asked for: one of them.
const HUGE: usize = 2 << 20;

/// Lines of eight words each, all 0, none of which the system provides before it is used. They are never given back: a
/// table of connections lives as long as its process.
pub(crate) struct Lines(&'static [[AtomicU64; LINE]]);

impl Lines {
    /// Words that are there already, the first of which begins a line.
    pub(crate) fn over(words: &'static [AtomicU64]) -> Self {
        Self(words.as_chunks().0)
    }

    pub(crate) fn new(lines: usize) -> Result<Self, FlowError> {
        let words = words((lines + 1) * LINE)?;
        // Words before the first boundary. An aligned type would do without, but its memory would be zeroed by hand.
        let skip = (words.as_ptr().addr() / 8).wrapping_neg() % LINE;
        Ok(Self(words[skip..].as_chunks().0))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Line number `index`; numbers beyond the last yield none.
    #[inline(always)]
    pub(crate) fn get(&self, index: usize) -> Option<&[AtomicU64; LINE]> {
        self.0.get(index)
    }
}

/// So many words, all 0, that are never given back.
pub(crate) fn words(words: usize) -> Result<&'static [AtomicU64], FlowError> {
    let bytes = words * 8;
    let failed = FlowError::Memory {
        lines: words.div_ceil(LINE),
    };
    if bytes < HUGE {
        let words = <[AtomicU64]>::new_box_zeroed_with_elems(words).map_err(|_| failed)?;
        return Ok(Box::leak(words));
    }
    // Flows are all over the table: with small pages each lookup would miss the TLB, twice.
    let memory = MmapMut::map_anon(bytes).map_err(|_| failed)?;
    #[cfg(target_os = "linux")]
    let _ = memory.advise(Advice::HugePage);
    let memory: &'static mut MmapMut = Box::leak(Box::new(memory));
    Ok(<[AtomicU64]>::mut_from_bytes(&mut memory[..]).map_err(|_| failed)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_begin_where_cache_lines_do() {
        for lines in [1, 7, 4096] {
            let memory = Lines::new(lines).unwrap();
            for index in 0..lines {
                let line = memory.get(index).map(|line| line.as_ptr().addr() % 64);
                assert_eq!(line, Some(0));
            }
            assert!(memory.get(lines + 1).is_none());
        }
    }
}
