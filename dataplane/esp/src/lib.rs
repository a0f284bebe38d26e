//! ESP (RFC 4303): security associations and policies, sequence numbers and replay windows, and the trait behind which
//! somebody does the cryptography.

#![forbid(unsafe_code)]

pub mod algorithm;
pub mod atomic;
pub mod esn;
pub mod key;
pub mod provider;
pub mod replay;
pub mod sequence;
pub mod session;
pub mod software;

pub use algorithm::{Aead, AesKey, Algorithm, Hmac, IcvLen};
pub use key::KeyMaterial;
pub use provider::{Job, JobStatus, Operation, Provider, SessionLookup, Span};
pub use session::{Session, SessionError, SessionId};
