//! The libraries that the software provider chooses among.

use std::fmt;
use std::str::FromStr;

/// A library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Library {
    /// `aes-gcm` of RustCrypto: no code in C or assembler, and the only one that verifies ICVs of 8 and 12 bytes.
    RustCrypto,
    /// `ring`.
    Ring,
    /// `aws-lc-rs`.
    AwsLc,
}

impl Library {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::RustCrypto, Self::Ring, Self::AwsLc];

    /// Its crate's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RustCrypto => "aes-gcm",
            Self::Ring => "ring",
            Self::AwsLc => "aws-lc-rs",
        }
    }
}

impl fmt::Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not the name of a library.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a cryptographic library: expected aes-gcm, ring or aws-lc-rs")]
pub struct UnknownLibrary(String);

impl FromStr for Library {
    type Err = UnknownLibrary;

    fn from_str(name: &str) -> Result<Self, UnknownLibrary> {
        Self::ALL
            .into_iter()
            .find(|library| library.name() == name)
            .ok_or_else(|| UnknownLibrary(name.chars().take(64).collect()))
    }
}
