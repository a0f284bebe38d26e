//! Pods that come and go by way of CNI plugins: attachments, their addresses and identities, and the services by which plugins
//! ask for them: `CNIAction` ([`wire`], [`listen`]) and `octoplane.v1.Attachments` ([`AttachmentService`]).

#![forbid(unsafe_code)]

mod api;
mod attachments;
mod clock;
mod error;
mod identity;
mod ipam;
pub mod listen;
mod record;
pub mod sdp;
mod storage;
pub mod wire;

pub use api::AttachmentService;
pub use attachments::{Attachments, Function, Place, Reservation, Wanted};
pub use clock::Clock;
pub use error::AttachError;
pub use identity::{Agent, INIT, Identity, IdentitySource, Rules};
pub use ipam::{Family, Usage};
pub use record::{Attached, Key, Pod, Record};
pub use storage::{AllocationStore, Directory, StorageError};
