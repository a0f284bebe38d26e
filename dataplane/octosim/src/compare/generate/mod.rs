//! Random tables and packets. Addresses and ports come from small pools, so that packets meet what is programmed, and each
//! other.

mod packet;
mod pools;
mod steps;
mod tables;

pub(crate) use packet::{Answer, Tunnel};
pub(crate) use steps::{Plan, StepPlan, plan};
pub(crate) use tables::setup;
