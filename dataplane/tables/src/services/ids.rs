//! Numbers that are given out, taken back, and not soon given out again.

use imbl::Vector;

/// Gives out numbers from 1 to `max`. Cheap to copy.
#[derive(Clone)]
pub(crate) struct Ids {
    next: u32,
    max: u32,
    /// How many numbers rest before the one that has rested longest is used again.
    rest: usize,
    free: Vector<u32>,
}

impl Ids {
    pub(crate) fn new(max: u32, rest: usize) -> Self {
        Self {
            next: 1,
            max,
            rest,
            free: Vector::new(),
        }
    }

    /// A number that nobody has; `None` if there is none.
    pub(crate) fn take(&mut self) -> Option<u32> {
        if self.free.len() > self.rest || self.next > self.max {
            return self.free.pop_front();
        }
        self.next += 1;
        Some(self.next - 1)
    }

    /// Takes a number back.
    pub(crate) fn put(&mut self, id: u32) {
        self.free.push_back(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rest_before_they_are_used_again() {
        let mut ids = Ids::new(5, 2);
        assert_eq!((ids.take(), ids.take(), ids.take()), (Some(1), Some(2), Some(3)));
        ids.put(1);
        ids.put(2);
        assert_eq!(ids.take(), Some(4));
        ids.put(3);
        assert_eq!((ids.take(), ids.take(), ids.take()), (Some(1), Some(5), Some(2)));
        assert_eq!((ids.take(), ids.take()), (Some(3), None));
    }
}
