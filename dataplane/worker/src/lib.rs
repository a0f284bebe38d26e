//! The pinned threads that poll device queues and run the engine.
//!
//! [`Dataplane::start`] makes ports, tables and workers of a [`Plan`]: [`assign`] decides which worker has which queue,
//! [`Worker::start`] makes a thread of one, [`Handle`] is what the rest of the daemon holds of it (counters, and a queue
//! of [`Command`]s). [`Dataplane::add_port`] and [`Dataplane::remove_port`] do the same for one port under traffic.

#![forbid(unsafe_code)]

mod assign;
mod backoff;
mod bind;
mod bringup;
mod clock;
mod command;
pub mod crypto;
mod handle;
mod handoff;
mod hotplug;
mod ipsec;
mod poll;
mod ports;
mod resume;
mod spd;
mod stats;

pub use assign::{Assignment, assign};
pub use backoff::Poll;
pub use bind::{BoundPort, PortPlan};
pub use bringup::{BringupError, Dataplane, IpsecPlan, Plan};
pub use clock::Clock;
pub use command::Command;
pub use handle::{Handle, StartError, Worker};
pub use handoff::Handoff;
pub use hotplug::PortChangeError;
pub use ipsec::{IpsecCounts, IpsecStage, IpsecStats};
pub use ports::{PortQueues, Transmit};
pub use resume::{Connections, Missing, Restore, Resume, ResumeError};
pub use stats::{BURST_BUCKETS, LoopStats};
