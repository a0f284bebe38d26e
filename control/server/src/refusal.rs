//! How a client is told why a transaction was refused.

use octoplane_tables::{ChangeError, ErrorKind};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What is wrong with one part of a request: not yet where it stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    code: Code,
    text: String,
}

impl Mistake {
    /// A field is not what it should be.
    pub(crate) fn invalid(text: String) -> Self {
        Self {
            code: Code::InvalidArgument,
            text,
        }
    }

    /// What is named is not there.
    pub(crate) fn not_found(text: String) -> Self {
        Self {
            code: Code::NotFound,
            text,
        }
    }

    /// The answer to a client that asked for one object, named by the request itself.
    pub(crate) fn alone(&self, field: &str) -> Status {
        let details = ErrorDetails::with_bad_request_violation(field, &self.text);
        Status::with_error_details(self.code, &self.text, details)
    }

    /// The answer to the client about the request as a whole.
    pub(crate) fn whole(self) -> Status {
        Status::new(self.code, self.text)
    }

    /// The answer to the client: the position goes into the message, and for programs into the details.
    pub(crate) fn at(&self, list: &str, index: usize) -> Status {
        let field = format!("{list}[{index}]");
        let message = format!("{field}: {}", self.text);
        let details = ErrorDetails::with_bad_request_violation(field, &self.text);
        Status::with_error_details(self.code, message, details)
    }
}

impl From<&ChangeError> for Mistake {
    fn from(error: &ChangeError) -> Self {
        Self {
            code: match error.kind() {
                ErrorKind::Invalid => Code::InvalidArgument,
                ErrorKind::NotFound => Code::NotFound,
                ErrorKind::Conflict => Code::AlreadyExists,
                ErrorKind::Full => Code::ResourceExhausted,
                ErrorKind::InUse => Code::FailedPrecondition,
                ErrorKind::NotSaved => Code::Unavailable,
            },
            text: error.to_string(),
        }
    }
}

/// Texts from outside are not repeated at any length.
pub(crate) fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}
