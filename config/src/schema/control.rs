//! `[control]` and `[gateway]`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// The control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Absolute path of the Unix socket, at most 107 bytes. Default `/run/octoplane/octoplane.sock`.
    pub socket: PathBuf,
    /// Group that may use the socket beside its owner. Default none: the daemon's own group.
    pub socket_group: Option<String>,
    /// Largest message accepted, in MiB, 1 to 1024. Default 16.
    pub max_message_mb: u32,
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
            max_message_mb: 16,
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
