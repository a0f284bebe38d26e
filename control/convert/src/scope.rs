//! How much of the tables a wanted state is about.

use octoplane_api::v1;
use octoplane_tables::State;

/// Sorts of objects: a bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinds(u32);

impl Kinds {
    /// All there are.
    pub const ALL: Self = Self(u32::MAX);

    /// Those that a request names; all if it names none.
    ///
    /// # Errors
    /// What is wrong with a number that stands for none.
    pub fn read(kinds: &[i32]) -> Result<Self, String> {
        if kinds.is_empty() {
            return Ok(Self::ALL);
        }
        let mut wanted = 0;
        for &number in kinds {
            match v1::Kind::try_from(number) {
                Ok(v1::Kind::Unspecified) | Err(_) => {
                    let last = v1::Kind::Authentication as i32;
                    return Err(format!("kinds: {number} is none, expected 1 to {last}"));
                }
                Ok(kind) => wanted |= 1 << kind as u32,
            }
        }
        Ok(Self(wanted))
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn has(self, kind: v1::Kind) -> bool {
        self.0 & 1 << kind as u32 != 0
    }

    /// Whether some are among both.
    #[must_use]
    pub fn overlap(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What of the tables is to go if it is not wanted.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// Only objects of these kinds.
    pub kinds: Kinds,
    /// Only what was there then, as it is now: what others have programmed since is none of it.
    pub begin: Option<&'a State>,
}

impl Scope<'_> {
    /// Everything.
    pub const ALL: Self = Self {
        kinds: Kinds::ALL,
        begin: None,
    };

    /// Whether an object may go, of which `is_same` tells whether an earlier state has it as it is now.
    pub(crate) fn may_go(&self, kind: v1::Kind, is_same: impl FnOnce(&State) -> bool) -> bool {
        self.kinds.has(kind) && self.begin.is_none_or(is_same)
    }
}
