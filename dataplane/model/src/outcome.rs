//! What becomes of a frame.

use std::net::IpAddr;

use crate::config::{Direction, Subject};

/// Drop codes (specification, 6.1); those from 1000 are the data plane's own.
#[allow(missing_docs, reason = "the texts stand in the specification")]
pub mod code {
    pub const INVALID_SOURCE: u16 = 132;
    pub const POLICY: u16 = 133;
    pub const INVALID: u16 = 134;
    pub const CT_HEADER: u16 = 135;
    pub const FRAG_NEEDED: u16 = 136;
    pub const UNSUPPORTED_L3: u16 = 139;
    pub const NO_TUNNEL_KEY: u16 = 147;
    pub const UNKNOWN_L3_TARGET: u16 = 150;
    pub const UNROUTABLE: u16 = 151;
    pub const L3_CHECKSUM: u16 = 153;
    pub const L4_CHECKSUM: u16 = 154;
    pub const CT_FULL: u16 = 155;
    pub const EXTENSION: u16 = 156;
    pub const FRAGMENT: u16 = 157;
    pub const NO_SERVICE: u16 = 158;
    pub const NO_TUNNEL_ENDPOINT: u16 = 160;
    pub const EDT_HORIZON: u16 = 162;
    pub const LOCAL_HOST: u16 = 164;
    pub const UNSUPPORTED_L2: u16 = 166;
    pub const NAT_NO_MAPPING: u16 = 167;
    pub const NAT_PROTOCOL: u16 = 168;
    pub const NO_FIB: u16 = 169;
    pub const ENCAP_PROHIBITED: u16 = 170;
    pub const INVALID_IDENTITY: u16 = 171;
    pub const CLUSTER_IP: u16 = 174;
    pub const FRAG_NOT_FOUND: u16 = 175;
    pub const SOURCE_RANGE: u16 = 177;
    pub const POLICY_DENY: u16 = 181;
    pub const VLAN: u16 = 182;
    pub const AUTH: u16 = 189;
    pub const NO_EGRESS_GATEWAY: u16 = 194;
    pub const TTL: u16 = 196;
    pub const RATE_LIMITED: u16 = 198;
    pub const NO_EGRESS_IP: u16 = 204;
    pub const NO_DEVICE: u16 = 206;
    pub const OTHER_STATION: u16 = 1001;
}

/// Who a punted packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PuntTo {
    /// This machine's kernel, through the host port; the frame is in [`Outcome::sent`], too.
    Host,
    /// The proxy that listens on this port (specification, 1.8).
    Proxy(u16),
}

/// A packet that is handed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Punt {
    /// Who it is for.
    pub to: PuntTo,
    /// The identity of who sent it.
    pub identity: u32,
    /// The frame.
    pub frame: Vec<u8>,
}

/// A policy decision (specification, section 4: verdict event).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whose policy.
    pub subject: Subject,
    /// Which way the packet went.
    pub direction: Direction,
    /// The other side's identity.
    pub remote: u32,
    /// 0: allowed; positive: redirected to this proxy port; negative: dropped with this code.
    pub verdict: i32,
    /// Destination port.
    pub dport: u16,
    /// Protocol.
    pub protocol: u8,
    /// 1 L3 only, 2 L3 and L4, 3 L4 only, 4 all, 5 L3 and protocol, 6 protocol only, 0 none.
    pub match_type: u8,
    /// Whether it would have been dropped if denials were not only reported.
    pub audited: bool,
    /// Authentication required.
    pub auth_type: u8,
    /// The entry's cookie.
    pub cookie: u32,
}

/// A packet that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The port that received it.
    pub port: String,
    /// The frame, out of its tunnel if it came in one.
    pub frame: Vec<u8>,
    /// The node that it came from in a tunnel, and the VNI.
    pub tunnel: Option<(IpAddr, u32)>,
}

/// What becomes of a frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Frames sent, by name of the port.
    pub sent: Vec<(String, Vec<u8>)>,
    /// What was dropped: code, and which way it was going.
    pub drops: Vec<(u16, Direction)>,
    /// What was handed up.
    pub punts: Vec<Punt>,
    /// Policy decisions: of everything refused or redirected, and of new flows allowed.
    pub verdicts: Vec<Verdict>,
    /// Packets that wait for the Ethernet address of this neighbour on this port; the model forgets them.
    pub waits: Vec<(String, IpAddr)>,
    /// The same packets.
    pub waiting: Vec<Waiting>,
    /// Frames that ended here as they should.
    pub consumed: usize,
    /// Fragments that now wait for their first one.
    pub held: usize,
}

/// What a sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    TimeExceeded,
    TooBig(u16),
    /// 3/1 or 1/3: the last hop does not find the station.
    HostUnreachable,
    /// 3/13 or 1/1 (specification, 1.2 step 12).
    Prohibited,
    /// 3/3 or 1/4 (specification, 3.7).
    PortUnreachable,
}

/// Why a packet goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Dropped.
    Drop(u16, Direction),
    /// Dropped, and the sender is told.
    Refuse(u16, Direction, Told),
    /// It ended here, or is on its way already.
    Done,
}

/// The rest of the way, or why there is none.
pub(crate) type Flow<T = ()> = Result<T, Stop>;
