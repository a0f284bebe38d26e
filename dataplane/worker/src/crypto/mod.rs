//! Cryptography with a device, and with software when the device does not or cannot.
//!
//! [`Failover`] is the provider: it gives jobs to a [`Device`], keeps their order, and has the software do what the device
//! does not. [`Cryptodev`] is the device that DPDK has.

mod complete;
mod device;
mod failover;
mod health;
mod known;
mod mailbox;
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

pub use device::{DEVICE_BURST, Device, Finished, Outcome, SessionKey, Ticket, close_gap, open_gap};
pub use failover::{Attached, DeviceMailbox, Failover, FailoverParts};
pub use health::{Cause, Limits};
pub use known::SessionClient;
pub use mailbox::Mailbox;
pub use probe::{Probe, Vector};
pub use stats::{ProviderStats, Why};
