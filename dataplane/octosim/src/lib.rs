//! The engine as a tool: tables and packets in, packets out, no devices, no clock but the one that is set.

#![forbid(unsafe_code)]

pub mod compare;
pub mod line;
mod neighbours;
pub mod pcap;
pub mod run;
mod setup;
mod sim;

pub use setup::{Setup, SetupError};
pub use sim::{BEGIN, Outcome, Sim, SimError};
