//! The packets of a burst, grouped by security association: what all workers share is written once for each group.

use arrayvec::ArrayVec;

use crate::sa::SaId;

/// Packets that are grouped at a time.
pub(crate) const CHUNK: usize = 64;

const SLOTS: usize = 2 * CHUNK;
const EMPTY: u8 = u8::MAX;

/// Finds the groups of up to [`CHUNK`] packets, in time that does not depend on how many groups there are.
pub(crate) struct Groups<T> {
    slots: [u8; SLOTS],
    groups: ArrayVec<(SaId, T), CHUNK>,
}

impl<T> Groups<T> {
    #[inline]
    pub(crate) fn new() -> Self {
        Self {
            slots: [EMPTY; SLOTS],
            groups: ArrayVec::new_const(),
        }
    }

    /// The number of the group of this security association; makes it if there is none. `None` if there are too many,
    /// which is when more than [`CHUNK`] were asked for.
    #[inline]
    pub(crate) fn of(&mut self, id: SaId, new: impl FnOnce() -> T) -> Option<usize> {
        // Neighbours mostly belong together.
        if let Some((last, _)) = self.groups.last()
            && *last == id
        {
            return Some(self.groups.len() - 1);
        }
        let mut at = (id.index.wrapping_mul(0x9e37_79b1) >> 25) as usize;
        loop {
            let slot = self.slots.get_mut(at)?;
            match self.groups.get(usize::from(*slot)) {
                None => {
                    let number = self.groups.len();
                    self.groups.try_push((id, new())).ok()?;
                    *slot = number as u8;
                    return Some(number);
                }
                Some((other, _)) if *other == id => return Some(usize::from(*slot)),
                Some(_) => at = (at + 1) % SLOTS,
            }
        }
    }

    #[inline(always)]
    pub(crate) fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.groups.get_mut(number).map(|(_, group)| group)
    }

    #[inline(always)]
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.groups.iter_mut().map(|(_, group)| group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_four_groups_of_one() {
        let id = |index| SaId { index, generation: 1 };
        // All in one slot, and then some generations of one index.
        for step in [0, 1, 128 * 3, 1 << 25] {
            let mut groups = Groups::new();
            for round in 0..2 {
                for member in 0..CHUNK as u32 {
                    let id = SaId {
                        generation: if step == 0 { member } else { 1 },
                        ..id(member * step)
                    };
                    let number = groups.of(id, || 0).unwrap();
                    assert_eq!(number, member as usize, "round {round}");
                    *groups.get_mut(number).unwrap() += 1;
                }
            }
            assert!(groups.iter_mut().all(|count| *count == 2));
            assert_eq!(groups.of(id(1_000_000), || 0), None);
        }
    }
}
