//! A vector of which a version can be kept while the next is written: chunks are shared until changed.

use std::sync::Arc;

const CHUNK: usize = 64;

/// Items by number. Numbers without one yield the default.
#[derive(Clone)]
pub(crate) struct Numbered<T> {
    chunks: Vec<Arc<[T; CHUNK]>>,
    none: T,
}

impl<T: Copy + Default> Default for Numbered<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            none: T::default(),
        }
    }
}

impl<T: Copy + Default> Numbered<T> {
    #[inline(always)]
    pub(crate) fn get(&self, number: u32) -> &T {
        match self.chunks.get(number as usize / CHUNK) {
            Some(chunk) => &chunk[number as usize % CHUNK],
            None => &self.none,
        }
    }

    pub(crate) fn set(&mut self, number: u32, item: T) {
        let chunk = number as usize / CHUNK;
        if chunk >= self.chunks.len() {
            self.chunks
                .resize_with(chunk + 1, || Arc::new([T::default(); CHUNK]));
        }
        Arc::make_mut(&mut self.chunks[chunk])[number as usize % CHUNK] = item;
    }
}
