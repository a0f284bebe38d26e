//! The pipeline from burst to bursts, held against the RFCs and the specification of the datapath.
//!
//! Packets are built and answers taken apart byte by byte (`common/bytes.rs`), without the headers and checksums of the
//! crates under test.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "../common/mod.rs"]
mod common;

mod affinity;
mod arp;
mod checks;
mod connections;
mod conserve;
mod device;
mod direct;
mod egress_gateway;
mod forward;
mod fragments;
mod host;
mod icmp;
mod ipsec;
mod limits;
mod masquerade;
mod model;
mod mtu;
mod ndp;
mod node;
mod observe;
mod overlay;
mod parking;
mod policy;
mod probe;
mod rates;
mod related;
mod restart;
mod revisions;
mod services;
