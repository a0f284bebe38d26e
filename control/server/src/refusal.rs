//! How a client is told why a transaction was refused.

pub(crate) use octoplane_convert::clip;
use octoplane_convert::{Kind, Located, Mistake};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

fn code(kind: Kind) -> Code {
    match kind {
        Kind::Invalid => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::Conflict => Code::AlreadyExists,
        Kind::Full => Code::ResourceExhausted,
        Kind::InUse => Code::FailedPrecondition,
        Kind::NotSaved => Code::Unavailable,
    }
}

/// The answer to a client that asked for one object, named by the request itself.
pub(crate) fn alone(mistake: &Mistake, field: &str) -> Status {
    let details = ErrorDetails::with_bad_request_violation(field, &mistake.text);
    Status::with_error_details(code(mistake.kind), &mistake.text, details)
}

/// The answer to the client: what is wrong, and with which entry of its request.
pub(crate) fn refused(it: &Located) -> Status {
    match it.mistake.kind {
        // No entry is to blame.
        Kind::NotSaved => Status::new(code(Kind::NotSaved), &it.mistake.text),
        _ => located(it),
    }
}

/// The answer to the client: the position goes into the message, and for programs into the details.
pub(crate) fn located(it: &Located) -> Status {
    let field = format!("{}[{}]", it.list, it.index);
    let details = ErrorDetails::with_bad_request_violation(field, &it.mistake.text);
    Status::with_error_details(code(it.mistake.kind), it.to_string(), details)
}
