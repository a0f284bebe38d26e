//! The services, as clients see them: through a socket.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "../common/mod.rs"]
mod common;

mod access;
mod apply;
mod discovery;
mod flows;
mod lists;
mod objects;
mod ports;
mod python;
mod replace;
mod resync;
mod saved;
mod saved_file;
mod scale;
mod socket;
mod stats;
mod watch;
