//! Why a transaction was refused.

use std::net::IpAddr;

use octoplane_packet::{MacAddr, Prefix};

use crate::model::PortId;

/// A transaction was refused as a whole because of one of its changes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("changes[{index}]: {error}")]
pub struct ApplyError {
    /// Position of the change in the transaction, from 0.
    pub index: usize,
    /// What is wrong with it.
    pub error: ChangeError,
}

/// What kind of mistake it was, for callers that translate errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A field is out of its range.
    Invalid,
    /// The object named is not there.
    NotFound,
    /// The change contradicts something that is there.
    Conflict,
    /// A table has no room.
    Full,
    /// Others need what is to be removed.
    InUse,
    /// It cannot be kept beyond the life of the process.
    NotSaved,
}

/// What is wrong with a change. Each text names the field and the limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum ChangeError {
    #[error("endpoint id: 0 is reserved, expected 1 to 4294967295")]
    EndpointIdZero,
    #[error("endpoint {id}: name is {len} bytes long, expected at most 253")]
    NameTooLong { id: u32, len: usize },
    #[error("endpoint {id}: mac {mac} is not the address of a station (a group address or all zeros)")]
    EndpointMac { id: u32, mac: MacAddr },
    #[error("endpoint {id}: identity {identity} is out of range, expected 1 to {max}")]
    Identity { id: u32, identity: u32, max: u32 },
    #[error("endpoint {id}: {count} addresses, expected 1 to {max}")]
    AddressCount { id: u32, count: usize, max: usize },
    #[error("endpoint {id}: address {addr} cannot be a pod's: {why}")]
    EndpointAddress {
        id: u32,
        addr: IpAddr,
        why: &'static str,
    },
    #[error("endpoint {id}: address {addr} is given twice")]
    AddressTwice { id: u32, addr: IpAddr },
    #[error("endpoint {id}: address {addr} belongs to endpoint {owner}")]
    AddressTaken { id: u32, addr: IpAddr, owner: u32 },
    #[error("{object}: there is no port number {port}")]
    NoSuchPort { object: String, port: PortId },
    #[error("{object}: port {port} has role {role}, expected {expected}")]
    PortRole {
        object: String,
        port: String,
        role: &'static str,
        expected: &'static str,
    },
    #[error("endpoint {id}: not found")]
    NoSuchEndpoint { id: u32 },
    #[error("route {prefix}: not found")]
    NoSuchRoute { prefix: Prefix },
    #[error("neighbour {addr} on port {port}: not found")]
    NoSuchNeighbour { port: String, addr: IpAddr },
    #[error("route {prefix}: gateway {gateway} {why}")]
    Gateway {
        prefix: Prefix,
        gateway: IpAddr,
        why: &'static str,
    },
    #[error("route {prefix}: {why}")]
    RoutePrefix { prefix: Prefix, why: &'static str },
    #[error("route {prefix}: mtu {mtu} is out of range, expected {min} to 65535")]
    RouteMtu { prefix: Prefix, mtu: u16, min: u16 },
    #[error("route {prefix}: target host, but no port has role host")]
    NoHostPort { prefix: Prefix },
    #[error("neighbour {addr} on port {port}: {why}")]
    NeighbourAddress {
        port: String,
        addr: IpAddr,
        why: &'static str,
    },
    #[error(
        "neighbour {addr} on port {port}: mac {mac} is not the address of a station (a group address or all zeros)"
    )]
    NeighbourMac {
        port: String,
        addr: IpAddr,
        mac: MacAddr,
    },
    #[error("neighbour {addr} on port {port}: mac is missing")]
    NeighbourMacMissing { port: String, addr: IpAddr },
    #[error(
        "port {port}: mtu {mtu} is out of range, expected 1280 to {max} (what the device was configured for)"
    )]
    PortMtu { port: String, mtu: u16, max: u16 },
    #[error("port {port}: name: there is a port of this name already")]
    PortExists { port: String },
    #[error("port {port}: number {id} is that of another port")]
    PortNumberTaken { port: String, id: PortId },
    #[error("port {port}: there are {max} ports already, more cannot be")]
    TooManyPorts { max: usize, port: String },
    #[error("port {port}: role: port {host} is the host port already, expected at most one")]
    SecondHostPort { port: String, host: String },
    #[error("port {port}: addresses: {addr} is that of {owner} already")]
    PortAddress {
        port: String,
        addr: IpAddr,
        owner: String,
    },
    #[error("port {port} is in use by {users}: remove these first")]
    PortInUse { port: String, users: String },
    #[error("{object}: {field} {why}")]
    Field {
        object: String,
        field: String,
        why: String,
    },
    #[error("{object}: not found")]
    NotFound { object: String },
    #[error("node: addresses: {addr} belongs to endpoint {owner}")]
    NodeAddressTaken { addr: IpAddr, owner: u32 },
    #[error("service \"{service}\": frontend {frontend} belongs to service \"{owner}\"")]
    FrontendTaken {
        service: String,
        frontend: String,
        owner: String,
    },
    #[error("table {table} is full: {size} entries (capacity.{table} in the configuration)")]
    TableFull { table: &'static str, size: usize },
    #[error("nothing was changed, because it could not be saved: {why}")]
    CannotSave { why: String },
    #[error("it is in effect, but was not saved: {why}")]
    NotSaved { why: String },
}

impl ChangeError {
    /// What kind of mistake it was.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchEndpoint { .. }
            | Self::NoSuchRoute { .. }
            | Self::NoSuchNeighbour { .. }
            | Self::NotFound { .. }
            | Self::NoSuchPort { .. } => ErrorKind::NotFound,
            Self::AddressTaken { .. }
            | Self::NodeAddressTaken { .. }
            | Self::FrontendTaken { .. }
            | Self::PortExists { .. }
            | Self::PortNumberTaken { .. }
            | Self::SecondHostPort { .. }
            | Self::PortAddress { .. } => ErrorKind::Conflict,
            Self::TableFull { .. } | Self::TooManyPorts { .. } => ErrorKind::Full,
            Self::PortInUse { .. } => ErrorKind::InUse,
            Self::CannotSave { .. } | Self::NotSaved { .. } => ErrorKind::NotSaved,
            _ => ErrorKind::Invalid,
        }
    }
}
