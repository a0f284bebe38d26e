//! Configuration tables: what the control plane writes and the workers read.

#![forbid(unsafe_code)]

pub mod lpm;
pub mod model;
