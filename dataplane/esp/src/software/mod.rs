//! The provider that works in this process: done when `submit` returns.

mod aws_aead;
mod cbc_hmac;
mod keys;
mod library;
mod plan;
mod provider;
mod ring_aead;
mod rust_gcm;

pub use keys::SoftwareKeys;
pub use library::{Library, UnknownLibrary};
pub use plan::{CLASSES, Choice, Plan};
pub use provider::Software;

/// Keys that do not fit, a packet that is not what its job says, or an ICV that is wrong. Which of them, the libraries
/// do not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library refused")]
pub(crate) struct Failed;
