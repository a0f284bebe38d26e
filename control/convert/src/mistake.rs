//! What is wrong with a request, for whoever answers it.

use octoplane_tables::{ChangeError, ErrorKind};

/// What sort of mistake it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A field is not what it should be.
    Invalid,
    /// What is named is not there.
    NotFound,
    /// It is in the way of something that is there.
    Conflict,
    /// There is no room for it.
    Full,
    /// Something else needs what is to go.
    InUse,
    /// It cannot be kept: nothing in the request is wrong.
    NotSaved,
}

/// What is wrong with one part of a request: not yet where it stands in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Mistake {
    /// What sort of mistake it is.
    pub kind: Kind,
    /// For people: the object, the field, the limit.
    pub text: String,
}

/// The same with its place in the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{list}[{index}]: {mistake}")]
pub struct Located {
    /// The list.
    pub list: &'static str,
    /// The position in it, from 0.
    pub index: usize,
    /// What is wrong.
    pub mistake: Mistake,
}

impl Mistake {
    /// A field is not what it should be.
    pub fn invalid(text: String) -> Self {
        Self {
            kind: Kind::Invalid,
            text,
        }
    }

    /// What is named is not there.
    pub fn not_found(text: String) -> Self {
        Self {
            kind: Kind::NotFound,
            text,
        }
    }

    /// Says where it stands.
    pub fn at(self, list: &'static str, index: usize) -> Located {
        Located {
            list,
            index,
            mistake: self,
        }
    }
}

impl From<&ChangeError> for Mistake {
    fn from(error: &ChangeError) -> Self {
        Self {
            kind: match error.kind() {
                ErrorKind::Invalid => Kind::Invalid,
                ErrorKind::NotFound => Kind::NotFound,
                ErrorKind::Conflict => Kind::Conflict,
                ErrorKind::Full => Kind::Full,
                ErrorKind::InUse => Kind::InUse,
                ErrorKind::NotSaved => Kind::NotSaved,
            },
            text: error.to_string(),
        }
    }
}

/// Texts from outside are not repeated at any length.
pub fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}
