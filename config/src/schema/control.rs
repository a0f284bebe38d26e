//! `[control]` and `[gateway]`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use super::{Class, ClientLimits, ControlTcp};

/// The control services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Absolute path of the Unix socket, at most 107 bytes. Default `/run/octoplane/octoplane.sock`.
    pub socket: PathBuf,
    /// Group that may use the socket beside root, for everything. Default none: the daemon's own group.
    pub socket_group: Option<String>,
    /// Group that may use the socket for what is in [`Control::read_group_may`]. Default none.
    pub read_group: Option<String>,
    /// What that group may do; never [`Class::Program`]. Default [`Class::Read`].
    pub read_group_may: Vec<Class>,
    /// Largest message accepted, in MiB, 1 to 1024. Default 16.
    pub max_message_mb: u32,
    /// How much each client may ask for.
    pub limits: ClientLimits,
    /// Where the services are offered over TCP. Default nowhere.
    pub tcp: Option<ControlTcp>,
}

impl Control {
    /// [`Control::max_message_mb`] in bytes.
    pub const fn max_message_bytes(&self) -> usize {
        (self.max_message_mb as usize) << 20
    }
}

impl Default for Control {
    fn default() -> Self {
        Self {
            socket: "/run/octoplane/octoplane.sock".into(),
            socket_group: None,
            read_group: None,
            read_group_may: vec![Class::Read],
            max_message_mb: 16,
            limits: ClientLimits::default(),
            tcp: None,
        }
    }
}

/// Addresses that pods use as their default gateway. We answer ARP, neighbour discovery and ping for them on every
/// pod port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateway {
    /// Default 169.254.1.1.
    pub ipv4: Ipv4Addr,
    /// Default fe80::1.
    pub ipv6: Ipv6Addr,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            ipv4: Ipv4Addr::new(169, 254, 1, 1),
            ipv6: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
        }
    }
}
