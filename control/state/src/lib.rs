//! The state file: everything that is programmed, as YAML or JSON. `octoctl apply` and `octosim` read it, `octoctl export`
//! writes it.

#![forbid(unsafe_code)]

#[allow(
    missing_docs,
    reason = "fields are those of the messages, which the protos describe"
)]
mod file;
mod position;
#[allow(
    missing_docs,
    reason = "fields are those of the messages, which the protos describe"
)]
mod schema;

pub use file::{
    Endpoint, FileError, Mistake, Neighbour, Port, Route, Source, State, Target, objects, parse, read,
};
pub use position::line;
pub use schema::{
    Authentication, Backend, EgressGateway, Frontend, Ipcache, Node, Policy, PolicyEntry, Service, Tunnel,
};
