//! The gRPC services over the configuration tables.
//!
//! The daemon implements [`Dataplane`] and hands it to a [`Server`]. Nothing here runs on a worker, and nothing here can
//! make one wait: tables are published to workers, counters are read from them.

#![forbid(unsafe_code)]

mod access;
mod config;
mod dataplane;
mod flows;
mod history;
mod ipsec;
mod list;
mod listen;
mod observe;
mod ports;
mod refusal;
mod resync;
mod saved;
mod server;
mod stats;
mod transact;
mod watch;

pub(crate) use octoplane_convert as convert;

pub use access::{Access, Kind, METHODS, Method};
pub use dataplane::{Dataplane, PortRefusal};
pub use flows::flow_tuple;
pub use ipsec::{IpsecControl, IpsecRefusal};
pub use listen::TlsError;
pub use observe::{EventHub, Observer, Wanted};
/// What a port is asked to be: checked, and with every default filled in.
pub use octoplane_config::Port as PortSettings;
pub use saved::{FILE as STATE_FILE, Restored, SCHEMA, Saved, StateError, StateFile, StateJournal};
pub use server::{Bound, GRACE, ServeError, Server};
