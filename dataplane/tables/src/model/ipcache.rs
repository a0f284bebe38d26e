//! What is known of remote addresses.

use std::net::IpAddr;

use octoplane_packet::Prefix;

/// Who lives behind a prefix, and how to get there (specification of the datapath, section 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpcacheEntry {
    /// The addresses. The longest prefix wins; endpoints and the node's own addresses win over prefixes of one address.
    pub prefix: Prefix,
    /// Their security identity.
    pub identity: u32,
    /// The node they live on, if a tunnel leads to it.
    pub tunnel: Option<IpAddr>,
    /// Number of the encryption key of that node; 0: none.
    pub key: u8,
    /// Whether they are reached without tunnel all the same.
    pub skip_tunnel: bool,
}
