//! Words on cache-line boundaries.

use std::sync::atomic::AtomicU64;

use zerocopy::FromZeros;

use crate::table::FlowError;

/// Words of a cache line.
pub(crate) const LINE: usize = 8;

/// Lines of eight words each, all 0, none of which the system provides before it is used.
pub(crate) struct Lines {
    words: Box<[AtomicU64]>,
    /// Words before the first boundary. An aligned type would do without, but its memory would be zeroed by hand.
    skip: usize,
}

impl Lines {
    pub(crate) fn new(lines: usize) -> Result<Self, FlowError> {
        let words = <[AtomicU64]>::new_box_zeroed_with_elems((lines + 1) * LINE)
            .map_err(|_| FlowError::Memory { lines })?;
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
