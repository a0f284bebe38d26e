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
pub(crate) struct Lines {
    words: &'static [AtomicU64],
    /// Words before the first boundary. An aligned type would do without, but its memory would be zeroed by hand.
    skip: usize,
}

impl Lines {
    pub(crate) fn new(lines: usize) -> Result<Self, FlowError> {
        let bytes = (lines + 1) * LINE * 8;
        let failed = FlowError::Memory { lines };
        let words: &'static [AtomicU64] = if bytes >= HUGE {
            // Flows are all over the table: with small pages each lookup would miss the TLB, twice.
            let memory = MmapMut::map_anon(bytes).map_err(|_| failed)?;
            #[cfg(target_os = "linux")]
            let _ = memory.advise(Advice::HugePage);
            let memory: &'static mut MmapMut = Box::leak(Box::new(memory));
            <[AtomicU64]>::mut_from_bytes(&mut memory[..]).map_err(|_| failed)?
        } else {
            Box::leak(<[AtomicU64]>::new_box_zeroed_with_elems(bytes / 8).map_err(|_| failed)?)
        };
        let skip = (words.as_ptr().addr() / 8).wrapping_neg() % LINE;
        Ok(Self { words, skip })
    }

    /// Line number `index`; numbers beyond the last yield none.
    #[inline(always)]
    pub(crate) fn get(&self, index: usize) -> Option<&[AtomicU64; LINE]> {
        self.words.get(self.skip + index * LINE..)?.first_chunk()
    }
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
            assert!(memory.get(lines).is_none() || memory.skip == 0);
        }
    }
}
