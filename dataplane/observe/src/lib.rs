//! What would happen to a packet ([`explain`]), and what happens to packets ([`event`]), in the words of the API.
//!
//! Both come from the engine itself: a packet to explain goes through the slow path of an engine of its own, on tables that
//! stand still and a copy of the connection it belongs to.

#![forbid(unsafe_code)]

mod event;
mod explain;
mod flow;

pub use event::{drop_message, event_message, verdict_message};
pub use explain::{ExplainError, Live, Policies, Scratch, explain};
pub use flow::{flow_message, tuple_message};
