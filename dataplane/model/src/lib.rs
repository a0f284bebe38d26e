//! The reference model: what the data plane has to do, as slowly and obviously as possible.
//!
//! It is written from the behavioural specification and the RFCs, shares no code with the engine, and is compared with
//! it by property tests. See the README for what it leaves out.

mod bandwidth;
mod choices;
pub mod config;
mod conntrack;
mod direct;
mod egress;
mod fib;
mod fragments;
mod icmp;
mod lb;
pub mod maglev;
mod model;
mod nat;
mod neighbour;
mod netdev;
mod outcome;
mod overlay;
mod pod;
mod policy;
mod related;
mod wire;

pub use choices::{Choices, First};
pub use conntrack::{Entry, Kind, timeout};
pub use lb::{BackendId, FrontendId};
pub use model::{Flow, Model, Options};
pub use nat::Mapping;
pub use outcome::{Outcome, Punt, PuntTo, Verdict, Waiting, code};
pub use related::Connection;
pub use wire::Tuple;
