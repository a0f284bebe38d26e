//! The state file: everything that is programmed, as YAML or JSON. `octoctl apply` and `octosim` read it, `octoctl export`
//! writes it.

#![forbid(unsafe_code)]

#[allow(
    missing_docs,
    reason = "fields are those of the messages, which the protos describe"
)]
mod file;
mod observe;
mod position;
#[allow(
    missing_docs,
    reason = "fields are those of the messages, which the protos describe"
)]
mod schema;

pub use file::{
    Endpoint, FileError, Mistake, Neighbour, Port, Route, Source, State, Target, objects, parse, read,
};
pub use observe::{drop_value, explanation_value, packet_event_value, verdict_value};
pub use position::line;
pub use schema::{
    Authentication, Backend, Dsr, EgressGateway, Frontend, Ipcache, Node, Policy, PolicyEntry, Service,
    Tunnel,
};
