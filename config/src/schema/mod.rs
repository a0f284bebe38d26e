//! The configuration as the daemon sees it. Each section is one file here; how it is read from text is in
//! `read/`, so that these types stay plain data.

mod access;
mod cni;
mod control;
mod crypto;
mod device;
mod eal;
mod ipsec;
mod limits;
mod memory;
mod port;
mod state;
mod workers;

pub use access::{CertificateName, Class, ClientLimits, ControlTcp, Guard, TlsClient};
pub use cni::{Cni, CniTls, IdentityRule, Pool};
pub use control::{Control, Gateway};
pub use crypto::{Crypto, CryptoLibrary, CryptoProvider};
pub use device::DeviceSpec;
pub use eal::{Eal, IovaMode};
pub use ipsec::{Ipsec, IpsecFraming, IpsecTooBig};
pub use limits::{Capacity, Exception, Icmp, Neighbours, Timeouts};
pub use memory::Memory;
pub use port::{InterfaceAddr, Port, Queues, Role};
pub use state::State;
pub use workers::{PollMode, Workers};

/// Most ports a configuration may have.
pub const MAX_PORTS: usize = 256;

/// Most workers a configuration may have.
pub const MAX_WORKERS: usize = 64;

/// A valid configuration with every default resolved for this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, `off`, or comma-separated `target=level`
    /// directives. Default `info`.
    pub log_level: String,
    /// How DPDK's environment is started.
    pub eal: Eal,
    /// Packet memory.
    pub memory: Memory,
    /// Worker threads and the CPUs they own.
    pub workers: Workers,
    /// The control socket.
    pub control: Control,
    /// What outlives the daemon.
    pub state: State,
    /// Addresses that pods use as their default gateway.
    pub gateway: Gateway,
    /// Pods that come and go by way of CNI plugins.
    pub cni: Cni,
    /// 1 to [`MAX_PORTS`] ports in the order of the file. Names and devices are unique.
    pub ports: Vec<Port>,
    /// Who encrypts.
    pub crypto: Crypto,
    /// Encryption between nodes.
    pub ipsec: Ipsec,
    /// Limits of the exception path to the kernel.
    pub exception: Exception,
    /// Limits of the ICMP errors we send.
    pub icmp: Icmp,
    /// Neighbour resolution.
    pub neighbours: Neighbours,
    /// How long connections are remembered.
    pub timeouts: Timeouts,
    /// Sizes of the configuration tables.
    pub capacity: Capacity,
}
