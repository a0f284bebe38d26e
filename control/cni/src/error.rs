//! Why an attachment was not made, found or removed.

use std::net::IpAddr;

use octoplane_tables::{ChangeError, ErrorKind};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::record::Key;
use crate::storage::StorageError;

/// Why an attachment was not made, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// A field of the request is not what it should be.
    #[error("{field}: {why}")]
    Field {
        /// Its name.
        field: String,
        /// What is wrong with it, and what is expected.
        why: String,
    },
    /// What the request asks for does not exist here.
    #[error("{field}: {why}")]
    Unsupported {
        /// The field that asks for it.
        field: &'static str,
        /// What is not there.
        why: &'static str,
    },
    /// No port belongs to the host's function.
    #[error("{0}")]
    NoFunction(String),
    /// There is no attachment of this container.
    #[error("container {0}: nothing is attached")]
    NotFound(Key),
    /// An attachment is not as it should be.
    #[error("container {key}: {why}")]
    Broken {
        /// Which one.
        key: Key,
        /// What is wrong with it.
        why: String,
    },
    /// There is an attachment already, of another form.
    #[error("container {key}: is attached already, {why}")]
    Different {
        /// Which one.
        key: Key,
        /// In what it differs.
        why: String,
    },
    /// No pool of the family is configured.
    #[error("there is no pool of IPv{0} addresses: cni.pools in the daemon's configuration has none")]
    NoPool(u8),
    /// All pools of the family are full.
    #[error("no IPv{family} address is free: {used} are in use and {resting} rest, in the pools {pools}")]
    Exhausted {
        /// 4 or 6.
        family: u8,
        /// The pools.
        pools: String,
        /// Addresses that pods have.
        used: u64,
        /// Addresses that were given back a moment ago.
        resting: u64,
    },
    /// An address belongs to another attachment.
    #[error("address {address} belongs to container {owner}")]
    Taken {
        /// The address.
        address: IpAddr,
        /// Whose it is.
        owner: Key,
    },
    /// Another call for the same container takes too long.
    #[error("container {0}: another call for it does not come to its end")]
    Contended(Key),
    /// The tables refuse the endpoint.
    #[error(transparent)]
    Tables(#[from] ChangeError),
    /// There is no port of this name.
    #[error("there is no port \"{0}\"")]
    NoPort(String),
    /// It could not be remembered.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl AttachError {
    /// A field that must be there is not.
    pub(crate) fn missing(field: &str) -> Self {
        Self::Field {
            field: field.into(),
            why: "is missing".into(),
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Field { .. } => Code::InvalidArgument,
            Self::Unsupported { .. } => Code::Unimplemented,
            Self::NoFunction(_) => Code::OutOfRange,
            Self::NotFound(_) | Self::NoPort(_) => Code::NotFound,
            Self::Broken { .. } | Self::NoPool(_) => Code::FailedPrecondition,
            Self::Different { .. } | Self::Taken { .. } => Code::AlreadyExists,
            Self::Exhausted { .. } => Code::ResourceExhausted,
            Self::Contended(_) => Code::Aborted,
            Self::Tables(error) => match error.kind() {
                ErrorKind::Invalid => Code::InvalidArgument,
                ErrorKind::NotFound => Code::NotFound,
                ErrorKind::Conflict => Code::AlreadyExists,
                ErrorKind::Full => Code::ResourceExhausted,
                ErrorKind::InUse => Code::FailedPrecondition,
                ErrorKind::NotSaved => Code::Unavailable,
            },
            Self::Storage(_) => Code::Internal,
        }
    }
}

impl From<AttachError> for Status {
    fn from(error: AttachError) -> Self {
        let (code, text) = (error.code(), error.to_string());
        let field = match &error {
            AttachError::Field { field, .. } => field.as_str(),
            AttachError::Unsupported { field, .. } => field,
            _ => return Self::new(code, text),
        };
        let details = ErrorDetails::with_bad_request_violation(field, &text);
        Self::with_error_details(code, text, details)
    }
}
