//! Who has proved who they are.

use std::net::IpAddr;

/// Names an authentication: whose, towards whom, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AuthKey {
    /// Identity of the endpoint here whose policy asks for it.
    pub local_identity: u32,
    /// Identity of the other side.
    pub remote_identity: u32,
    /// The node of the other side, its tunnel endpoint; `None`: it is on this node.
    pub remote_node: Option<IpAddr>,
    /// How they authenticated, as policies ask for it (1 to 127).
    pub auth_type: u8,
}

/// Two sides that have authenticated (specification of the datapath, section 4: what the agent enters when it was asked for
/// with drop reason 189). Whoever holds the tables removes it when its time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authentication {
    /// What it is about.
    pub key: AuthKey,
    /// When it ends: seconds since 1970-01-01 UTC.
    pub expires: u64,
}
