//! Numbered things whose copies share what did not change.

use std::sync::Arc;

const CHUNK: usize = 64;

/// A vector with holes, of what is cheap to copy. A change copies 64 of them and the pointers to the chunks.
#[derive(Debug, Clone)]
pub(crate) struct Slab<T> {
    chunks: Vec<Arc<[Option<T>; CHUNK]>>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            len: 0,
        }
    }
}

impl<T: Clone> Slab<T> {
    #[inline(always)]
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        let index = index as usize;
        self.chunks.get(index / CHUNK)?[index % CHUNK].as_ref()
    }

    pub(crate) fn set(&mut self, index: u32, value: Option<T>) {
        let index = index as usize;
        while self.chunks.len() <= index / CHUNK {
            self.chunks.push(Arc::new([const { None }; CHUNK]));
        }
        if let Some(chunk) = self.chunks.get_mut(index / CHUNK) {
            let slot = &mut Arc::make_mut(chunk)[index % CHUNK];
            self.len = self.len + usize::from(value.is_some()) - usize::from(slot.is_some());
            *slot = value;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_do_not_see_later_changes() {
        let mut slab = Slab::default();
        slab.set(5, Some(1));
        slab.set(200, Some(2));
        let copy = slab.clone();
        slab.set(5, None);
        slab.set(200, Some(3));
        assert_eq!((copy.len(), slab.len()), (2, 1));
        assert_eq!(copy.get(5), Some(&1));
        assert_eq!(copy.get(200), Some(&2));
        assert_eq!(slab.get(5), None);
        assert_eq!(slab.iter().copied().collect::<Vec<_>>(), [3]);
        assert_eq!(slab.get(100_000), None);
    }
}
