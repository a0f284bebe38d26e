//! What can go wrong, and the exit status it has.

use std::io;
use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The data plane said no.
    #[error("{}", .0.message())]
    Refused(#[from] tonic::Status),
    /// The data plane said no to an entry of a file; the text says where that is.
    #[error("{0}")]
    Entry(String),
    /// The command line or a file is wrong.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers.
    #[error(
        "cannot connect to {place}: {}; is octoplaned running, and may you use its socket?",
        root(error)
    )]
    Connect {
        /// The socket, or the server.
        place: String,
        /// What failed.
        error: tonic::transport::Error,
    },
    /// This machine is in the way.
    #[error("{0}")]
    Local(io::Error),
}

impl From<octoplane_state::FileError> for Failure {
    fn from(error: octoplane_state::FileError) -> Self {
        Self::Usage(error.0)
    }
}

impl Failure {
    /// 1: refused, 2: usage or file, 3: no connection.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Refused(status) if status.code() == tonic::Code::Unavailable => 3,
            Self::Refused(_) | Self::Entry(_) | Self::Local(_) => 1,
            Self::Usage(_) => 2,
            Self::Connect { .. } => 3,
        })
    }
}

/// The innermost reason: the outer ones only say "transport error".
fn root(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
