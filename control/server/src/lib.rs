//! The gRPC services over the configuration tables.
//!
//! The daemon implements [`Dataplane`] and hands it to a [`Server`]. Nothing here runs on a worker, and nothing here can
//! make one wait: tables are published to workers, counters are read from them.

#![forbid(unsafe_code)]

mod config;
mod convert;
mod dataplane;
mod history;
mod list;
mod refusal;
mod replace;
mod server;
mod stats;
mod transact;
mod watch;

pub use dataplane::Dataplane;
pub use server::{Bound, GRACE, ServeError, Server};
