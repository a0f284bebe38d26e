//! The environment abstraction layer: DPDK's per-process state.

mod init;
mod options;

pub use init::{Eal, EalError, version};
pub use options::{EalOptions, IovaMode, LogLevel, Memory, OptionsError};
