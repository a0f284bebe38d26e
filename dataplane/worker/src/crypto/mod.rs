//! Cryptography with a device, and with software when the device does not or cannot.
//!
//! [`Failover`] is the provider: it gives jobs to a [`Device`], keeps their order, and has the software do what the device
//! does not. [`Cryptodev`] is the device that DPDK has.

mod bound;
mod capabilities;
mod complete;
mod control;
mod cryptodev;
mod device;
mod failover;
mod health;
mod known;
mod mailbox;
mod maker;
mod options;
mod pending;
mod probe;
mod stats;
mod submit;
#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]
mod tests;

pub use capabilities::{Capabilities, transform_of};
pub use control::{Crypto, CryptoProvider, DeviceReport};
pub use cryptodev::{Cryptodev, CryptodevSessions};
pub use device::{DEVICE_BURST, Device, Finished, Outcome, SessionKey, Ticket, close_gap, open_gap};
pub use failover::{Attached, DeviceMailbox, Failover, FailoverParts};
pub use health::{Cause, Limits};
pub use known::SessionClient;
pub use mailbox::Mailbox;
pub use maker::{Maker, MakerClient, SessionFactory};
pub use options::{CryptoOptions, CryptoSetupError};
pub use probe::{Probe, Vector};
pub use stats::{ProviderStats, Why};
