//! The daemon's configuration file: its schema, defaults and validation.
//!
//! [`load`] and [`parse`] look at the whole file and report every mistake in it with file, line, key and what was
//! expected. What they return is complete: every "auto" has been resolved for this machine, so nobody else needs to
//! know a default.

#![forbid(unsafe_code)]

mod cpus;
mod effective;
mod error;
mod fields;
mod load;
mod read;
pub mod schema;

pub use cpus::{CpuListError, CpuSet};
pub use error::{ConfigErrors, Mistake};
pub use fields::PortFields;
pub use load::{load, load_for, parse, parse_for};
pub use octoplane_packet::MacAddr;
pub use schema::{
    Capacity, CertificateName, Class, ClientLimits, Cni, Config, Control, ControlTcp, Crypto, CryptoLibrary,
    CryptoProvider, DeviceSpec, Eal, Exception, Gateway, Guard, Icmp, InterfaceAddr, IovaMode, Ipsec,
    IpsecFraming, IpsecTooBig, Memory, Neighbours, PollMode, Port, Queues, Role, State, Timeouts, TlsClient,
    Workers,
};
