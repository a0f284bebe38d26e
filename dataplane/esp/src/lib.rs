//! ESP (RFC 4303): security associations and policies, sequence numbers and replay windows, and the trait behind which
//! somebody does the cryptography.

#![forbid(unsafe_code)]

mod accept;
pub mod algorithm;
pub mod atomic;
pub mod cause;
pub mod cilium;
pub mod db;
mod decapsulate;
pub mod ecn;
mod encapsulate;
pub mod esn;
mod examine;
mod groups;
mod inbound;
mod ip;
pub mod key;
mod outbound;
pub mod provider;
pub mod replay;
pub mod sa;
pub mod sequence;
pub mod session;
pub mod software;
pub mod store;
pub mod view;

pub use algorithm::{Aead, AesKey, Algorithm, Hmac, IcvLen};
pub use cause::{Cause, CauseCounters};
pub use inbound::{Inbound, ToDecrypt};
pub use key::{Fingerprint, KeyMaterial};
pub use outbound::{Outbound, Processed, ToEncrypt};
pub use provider::{Job, JobStatus, Operation, Provider, SessionLookup, Span};
pub use sa::{Direction, Mode, Sa, SaConfig, SaId};
pub use session::{Session, SessionError, SessionId};
pub use view::{Reader, Sad, Snapshot};
