//! `[[ports]]`.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use octoplane_packet::{MacAddr, Prefix};

use super::DeviceSpec;

/// One port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Unique name, 1 to 15 characters of `[a-z0-9_.-]`.
    pub name: String,
    /// What is at the other end.
    pub role: Role,
    /// What it is made of; unique.
    pub device: DeviceSpec,
    /// Receive queues. Default [`Queues::PerWorker`], written 0.
    pub rx_queues: Queues,
    /// Transmit queues. Default [`Queues::PerWorker`], written 0.
    pub tx_queues: Queues,
    /// Descriptors of each receive queue, 64 to 32,768. Default 1024.
    pub rx_descriptors: u16,
    /// Descriptors of each transmit queue, 64 to 32,768. Default 1024.
    pub tx_descriptors: u16,
    /// Largest IP packet in bytes, 1280 (which IPv6 demands) to 9600. Default 1500.
    pub mtu: u16,
    /// The unicast MAC address we answer with. Default `None`: the device's.
    pub mac: Option<MacAddr>,
    /// Our addresses on this link; always empty on a pod port. Default none.
    pub addresses: Vec<InterfaceAddr>,
    /// Whether the device passes on frames for other MAC addresses. Default false.
    pub promiscuous: bool,
}

impl Port {
    /// Default of [`Port::rx_descriptors`] and [`Port::tx_descriptors`].
    pub const DEFAULT_DESCRIPTORS: u16 = 1024;
    /// Default of [`Port::mtu`].
    pub const DEFAULT_MTU: u16 = 1500;
    /// Least MTU of a link that carries IPv6 (RFC 8200, section 5).
    pub const MIN_MTU: u16 = 1280;
    /// Greatest MTU.
    pub const MAX_MTU: u16 = 9600;
}

/// What is at the other end of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A pod.
    Pod,
    /// The physical network.
    Uplink,
    /// The kernel of the machine we run on; at most one such port.
    Host,
}

impl Role {
    /// Spelling in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Uplink => "uplink",
            Self::Host => "host",
        }
    }
}

/// How many queues of one direction a port has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Queues {
    /// One per worker, or as many as the device has if these are fewer.
    #[default]
    PerWorker,
    /// This many, 1 to 64: a device that has fewer is an error.
    Fixed(NonZeroU16),
}

impl Queues {
    /// The number for this many workers.
    pub fn resolve(self, workers: usize) -> u16 {
        match self {
            Self::PerWorker => u16::try_from(workers).unwrap_or(u16::MAX),
            Self::Fixed(n) => n.get(),
        }
    }
}

/// An address of ours together with the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InterfaceAddr {
    /// Our address; unicast.
    pub addr: IpAddr,
    /// Length of the prefix of the link's network, in bits.
    pub prefix_len: u8,
}

impl InterfaceAddr {
    /// The network that is reached directly over this link.
    pub fn network(self) -> Prefix {
        Prefix::containing(self.addr, self.prefix_len)
    }
}

impl fmt::Display for InterfaceAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix_len)
    }
}
