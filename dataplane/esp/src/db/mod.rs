//! The one writer: takes transactions, reserves sequence numbers, publishes snapshots to the workers, and tells what becomes
//! of lifetimes.

mod change;
mod draft;
mod event;
mod policies;
mod writer;

pub use change::{ApplyError, Change, ChangeError, Committed, NodeConfig, PolicyConfig, PortRange};
pub use event::{Event, Limit};
pub use writer::{Database, Options};
