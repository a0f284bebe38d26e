//! Configuration tables: what the control plane writes and the workers read.
//!
//! [`Store`] is the one writer; [`Reader`] gives each worker the current [`Snapshot`]; [`State`] is the control plane's
//! own view of what it programmed.

#![forbid(unsafe_code)]

mod error;
mod event;
mod lpm;
pub mod model;
mod port_change;
mod ports;
mod shared;
mod snapshot;
mod state;
mod store;
mod target;
mod target_index;
mod validate;

pub use error::{ApplyError, ChangeError, ErrorKind};
pub use event::{Committed, Event, Object};
pub use lpm::{Block, Key, Lpm, LpmWriter};
pub use ports::Ports;
pub use shared::{SharedStore, Subscriber};
pub use snapshot::{PortView, Reader, Snapshot};
pub use state::{Gateways, State};
pub use store::{Capacity, Store, StoreError, Usage};
pub use target::{Action, Target, TargetTable};
pub use validate::MIN_MTU;
