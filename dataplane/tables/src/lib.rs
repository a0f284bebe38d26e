//! Configuration tables: what the control plane writes and the workers read.
//!
//! [`Store`] is the one writer; [`Reader`] gives each worker the current [`Snapshot`]; [`State`] is the control plane's
//! own view of what it programmed.

#![forbid(unsafe_code)]

mod bucket;
mod egress_gateway;
mod error;
mod event;
mod fast_map;
mod ipcache;
mod journal;
mod last_changed;
mod lpm;
pub mod model;
mod node;
mod numbered;
mod policy;
mod port_change;
mod ports;
pub mod services;
mod shared;
mod snapshot;
mod state;
mod store;
mod target;
mod target_index;
mod touched;
mod tunnel_end;
mod validate;
mod views;

pub use bucket::{Buckets, Rates};
pub use egress_gateway::EgressRule;
pub use error::{ApplyError, ChangeError, ErrorKind};
pub use event::{Committed, Event, Object};
pub use ipcache::{Remote, identity};
pub use journal::{Journal, NotSaved};
pub use last_changed::LastChanged;
pub use lpm::{Block, Key, Lpm, LpmWriter};
pub use node::NodeView;
pub use policy::{Decision, EndpointPolicy, MatchType, StoredPolicy, Verdict};
pub use ports::Ports;
pub use services::{Backend, BackendSet, Frontend, SourceRanges};
pub use shared::{SharedStore, Subscriber};
pub use snapshot::{PortView, Reader, Snapshot};
pub use state::{Gateways, State};
pub use store::{Capacity, Store, StoreError, Usage};
pub use target::{Action, Target, TargetTable};
pub use tunnel_end::{TUNNEL_HEADERS_V4, TUNNEL_HEADERS_V6, TunnelEnd};
pub use validate::MIN_MTU;
