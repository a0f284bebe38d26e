//! `[ipsec]`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use octoplane_packet::Prefix;

/// Encryption: between nodes, as Cilium does it, and by policies of one's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipsec {
    /// Absolute path of the key file, in the format of Cilium's secret `cilium-ipsec-keys`. Default `None`: nothing is
    /// encrypted.
    pub key_file: Option<PathBuf>,
    /// Whether security associations and policies of one's own can be programmed over the API. Default false.
    pub policies: bool,
    /// What becomes of packets that are too large for what policies do with them. Default [`IpsecTooBig::Icmp`].
    pub too_big: IpsecTooBig,
    /// What leaves by an uplink in the clear, from one of these prefixes for the same, is dropped (Cilium's strict mode). Default
    /// none.
    pub strict_cidrs: Vec<Prefix>,
    /// Whether other nodes have addresses in these prefixes: what is for them may go. Default false.
    pub strict_remote_nodes: bool,
    /// Whether what should come encrypted is refused when it does not. Default false.
    pub strict: bool,
    /// What is in what where packets between nodes are in a tunnel, too. Default [`IpsecFraming::TunnelInEsp`].
    pub framing: IpsecFraming,
    /// Our ends of security associations, at most one of each family. Default: those of the node's tunnels, else the node's
    /// first addresses.
    pub addresses: Vec<IpAddr>,
    /// How long a key is kept after another one took its place, 0 to 86,400 seconds. Default 300.
    pub rotation: Duration,
    /// Absolute path of the directory where sequence numbers, nodes, security associations and policies outlive the daemon. Default `/var/lib/octoplane/ipsec`.
    pub directory: PathBuf,
    /// This node's boot id as other nodes know it. Default `None`: the kernel's.
    pub boot_id: Option<String>,
}

/// What becomes of IPv4 packets that are too large once they are encrypted, and whose senders allow to cut them. The senders of
/// all others are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IpsecTooBig {
    /// They are dropped, and their senders told.
    #[default]
    Icmp,
    /// They are cut first.
    Fragment,
}

impl IpsecTooBig {
    /// As in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Icmp => "icmp",
            Self::Fragment => "fragment",
        }
    }
}

/// What is in what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IpsecFraming {
    /// The whole tunnel packet in ESP (Cilium from 1.18 on).
    #[default]
    TunnelInEsp,
    /// What endpoints send in ESP, and that in the tunnel packet (Cilium up to 1.17).
    EspInTunnel,
}

impl IpsecFraming {
    /// As in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TunnelInEsp => "tunnel-in-esp",
            Self::EspInTunnel => "esp-in-tunnel",
        }
    }
}

impl Ipsec {
    /// Length of a boot id.
    pub const BOOT_ID_LEN: usize = 36;
}

impl Default for Ipsec {
    fn default() -> Self {
        Self {
            key_file: None,
            policies: false,
            too_big: IpsecTooBig::default(),
            strict: false,
            strict_cidrs: Vec::new(),
            strict_remote_nodes: false,
            framing: IpsecFraming::default(),
            addresses: Vec::new(),
            rotation: Duration::from_secs(300),
            directory: "/var/lib/octoplane/ipsec".into(),
            boot_id: None,
        }
    }
}
