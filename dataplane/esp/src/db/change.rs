//! What can be programmed.

use std::net::IpAddr;

use octoplane_packet::Prefix;

use crate::cilium::KeyIndex;
use crate::sa::{Direction, Mark, SaConfig, SaId, SaKey};
use crate::store::StoreError;
use crate::view::{Action, TunnelId};

/// One step of a transaction.
#[derive(Debug, Clone)]
pub enum Change {
    /// Adds a security association, or replaces the one of the same [`SaKey`]; tunnels and nodes that use it go over to the
    /// new one. With the same keys, sequence numbers and replay window go on.
    PutSa(Box<SaConfig>),
    /// The same for one that was there before a restart: if all of its sequence numbers are used it is there again, and encrypts
    /// nothing.
    RestoreSa(Box<SaConfig>),
    /// Removes one that no tunnel and no node uses.
    DeleteSa(SaKey),
    /// Makes a tunnel use this outbound security association from now on. To change keys: put the new inbound and outbound
    /// security associations, tell the peer, put the tunnel, and later delete the old ones.
    PutTunnel(TunnelId, SaKey),
    /// Removes a tunnel that no policy uses.
    DeleteTunnel(TunnelId),
    /// Adds or replaces a policy, of either direction.
    PutPolicy(PolicyConfig),
    /// Removes a policy by its number.
    DeletePolicy(u32),
    /// Adds or replaces what is known of a node by one of its addresses.
    PutNode(NodeConfig),
    /// Removes an address of a node.
    DeleteNode(IpAddr),
    /// Which key this node announces; `None` for no encryption.
    SetLocalKey(Option<KeyIndex>),
}

/// Ports from the first to the last, both included; host byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl PortRange {
    /// All ports, and packets without ports.
    pub const ANY: Self = Self {
        first: 0,
        last: u16::MAX,
    };
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyConfig {
    /// Number of the policy.
    pub id: u32,
    /// Of packets that leave, or of those that come in. What is inbound and protects names the [`SaConfig::reqid`] that packets
    /// have to come by, instead of a tunnel.
    pub direction: Direction,
    /// Policies with lower numbers come first.
    pub priority: u32,
    /// Source addresses.
    pub source: Prefix,
    /// Destination addresses, of the same family.
    pub destination: Prefix,
    /// Protocol number; `None` for any.
    pub protocol: Option<u8>,
    /// Source ports.
    pub source_ports: PortRange,
    /// Destination ports.
    pub destination_ports: PortRange,
    /// Marks.
    pub mark: Mark,
    /// What happens.
    pub action: Action,
}

/// What is known of a node by one of its addresses (specification of the datapath, section 2.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// The address that packets to it are recognised by: outer destination, or tunnel endpoint of the destination.
    pub addr: IpAddr,
    /// Number of the node, 1 to 65535.
    pub id: u16,
    /// The key it announces; `None` for no encryption.
    pub announced: Option<KeyIndex>,
    /// Outbound security associations to it, by key; at most [`crate::view::MAX_KEYS`].
    pub outbound: Vec<(KeyIndex, SaKey)>,
}

/// A transaction was refused as a whole because of one of its changes.
#[derive(Debug, thiserror::Error)]
#[error("changes[{index}]: {error}")]
pub struct ApplyError {
    /// Position of the change in the transaction, from 0.
    pub index: usize,
    /// What is wrong with it.
    pub error: ChangeError,
}

/// What is wrong with a change. Each text names the field and the limit.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum ChangeError {
    #[error("{key}: {error}")]
    Sa {
        key: SaKey,
        error: crate::sa::SaConfigError,
    },
    #[error("{key}: keys: the same as those of {other}; nonces would be used twice")]
    KeysInUse { key: SaKey, other: SaKey },
    #[error("{key}: there are {max} that differ by mark alone, more cannot be")]
    TooManyMarks { key: SaKey, max: usize },
    #[error("{key}: no sequence numbers could be reserved: {error}")]
    NotReserved { key: SaKey, error: StoreError },
    #[error("{key}: all sequence numbers of its keys were used")]
    Exhausted { key: SaKey },
    #[error("{key}: not found")]
    NoSuchSa { key: SaKey },
    #[error("{key}: in use by {users} tunnels and nodes")]
    SaInUse { key: SaKey, users: usize },
    #[error("{key}: inbound, expected one that encrypts")]
    NotOutbound { key: SaKey },
    #[error("{table} table is full: {max} entries")]
    Full { table: &'static str, max: usize },
    #[error("tunnel {0}: expected 0 to {max}", max = crate::view::MAX_TUNNELS - 1)]
    TunnelNumber(TunnelId),
    #[error("tunnel {0}: not found")]
    NoSuchTunnel(TunnelId),
    #[error("tunnel {id}: in use by {users} policies")]
    TunnelInUse { id: TunnelId, users: usize },
    #[error("policy {0}: not found")]
    NoSuchPolicy(u32),
    #[error("policy {id}: source {source_prefix} and destination {destination} are of different families")]
    PolicyFamilies {
        id: u32,
        source_prefix: Prefix,
        destination: Prefix,
    },
    #[error("policy {id}: {field}: first port {first} is above the last, {last}")]
    PortOrder {
        id: u32,
        field: &'static str,
        first: u16,
        last: u16,
    },
    #[error("policy {id}: {field}: ports without a protocol; expected protocol TCP, UDP, SCTP or DCCP")]
    PortsWithoutProtocol { id: u32, field: &'static str },
    #[error("policy {id}: mark: value {value:#x} has bits outside of the mask {mask:#x}")]
    PolicyMark { id: u32, value: u32, mask: u32 },
    #[error(
        "policy {id}: its combination of prefix lengths, ports and mark would be number {count}, at most {max} can be"
    )]
    TooManyShapes { id: u32, count: usize, max: usize },
    #[error("node {addr}: number 0, expected 1 to 65535")]
    NodeZero { addr: IpAddr },
    #[error("node {addr}: {count} keys, expected at most {max}")]
    NodeKeys { addr: IpAddr, count: usize, max: usize },
    #[error("node {addr}: key {index} is given twice")]
    NodeKeyTwice { addr: IpAddr, index: KeyIndex },
    #[error("node {0}: not found")]
    NoSuchNode(IpAddr),
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Committed {
    /// Of the snapshot that workers see now.
    pub revision: u64,
    /// The security associations that were put, in the order of the transaction: their names. One that was there already in
    /// the same form keeps its own.
    pub sas: Vec<SaId>,
    /// Security associations that are gone, also those that were replaced: devices may forget them.
    pub removed: Vec<SaId>,
}
