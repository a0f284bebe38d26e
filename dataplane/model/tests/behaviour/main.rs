//! The model against the specification, section by section.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod bytes;
mod conntrack;
mod egress;
mod forward;
mod fragments;
mod garbage;
mod lab;
mod nat;
mod overlay;
mod policy;
mod service;
