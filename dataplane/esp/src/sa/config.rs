//! What makes a security association.

use std::net::IpAddr;
use std::time::Duration;

use octoplane_packet::Prefix;

use super::key::SaKey;
use crate::algorithm::Algorithm;
use crate::key::KeyMaterial;
use crate::replay::MAX_WINDOW;
use crate::session::SessionError;

/// Which way packets go, seen from this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Packets are encrypted.
    Outbound,
    /// Packets are decrypted.
    Inbound,
}

/// What is protected (RFC 4301, section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Whole packets, in packets between the two ends.
    Tunnel,
    /// What is behind the packet's own header.
    Transport,
}

/// Marks of packets: those with `mark & mask == value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Mark {
    /// What the bits under the mask have to be.
    pub value: u32,
    /// Which bits count: 0 for any mark.
    pub mask: u32,
}

impl Mark {
    /// Whether a packet's mark is one of these.
    #[inline(always)]
    pub fn matches(self, mark: u32) -> bool {
        mark & self.mask == self.value
    }
}

/// ESP in UDP, to pass address translators (RFC 3948). Ports in host byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NatTraversal {
    /// Source port, usually 4500. Inbound: not looked at.
    pub source_port: u16,
    /// Destination port, usually 4500. Inbound: not looked at.
    pub destination_port: u16,
}

/// The DSCP of the outer header (RFC 4301, section 5.1.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Dscp {
    /// That of the packet inside.
    #[default]
    Copy,
    /// This one, 0 to 63.
    Set(u8),
}

/// "Don't fragment" in the outer IPv4 header (RFC 4301, section 8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DontFragment {
    /// As in the packet inside; set for IPv6 inside, which routers do not fragment.
    #[default]
    Copy,
    /// Set.
    Set,
    /// Not set.
    Clear,
}

/// The outer header, for what is not determined by the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OuterHeader {
    /// DSCP.
    pub dscp: Dscp,
    /// Copies the ECN bits outwards, and takes congestion marks inwards (normal mode of RFC 6040); if not, they are 0 and
    /// not looked at (compatibility mode).
    pub ecn: bool,
    /// "Don't fragment".
    pub dont_fragment: DontFragment,
    /// TTL or hop limit.
    pub hop_limit: u8,
}

impl Default for OuterHeader {
    fn default() -> Self {
        Self {
            dscp: Dscp::Copy,
            ecn: true,
            dont_fragment: DontFragment::Copy,
            hop_limit: 64,
        }
    }
}

/// When to tell that a successor is needed (soft), and when to stop (hard). Bytes are those encrypted: payload, padding
/// and trailer (RFC 4301, section 4.4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lifetime {
    /// Bytes after which an event tells.
    pub soft_bytes: Option<u64>,
    /// Bytes after which packets are refused.
    pub hard_bytes: Option<u64>,
    /// Packets after which an event tells.
    pub soft_packets: Option<u64>,
    /// Packets after which packets are refused.
    pub hard_packets: Option<u64>,
    /// Time since it was added after which an event tells.
    pub soft_time: Option<Duration>,
    /// Time since it was added after which packets are refused.
    pub hard_time: Option<Duration>,
}

/// What an inbound security association may carry (RFC 4301, section 5.2, step 4): the packet that comes out has to be
/// within one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InnerSelector {
    /// Source addresses.
    pub source: Prefix,
    /// Destination addresses.
    pub destination: Prefix,
}

/// A security association as it is programmed.
#[derive(Debug, Clone)]
pub struct SaConfig {
    /// Which way.
    pub direction: Direction,
    /// Security parameters index; 0 is reserved. What is below 256 is reserved by IANA, and used by Cilium.
    pub spi: u32,
    /// The sending end. Outbound in tunnel mode: source of the outer header. Inbound: `None` accepts any source.
    pub source: Option<IpAddr>,
    /// The receiving end.
    pub destination: IpAddr,
    /// Marks of packets that this is for. Several security associations may differ by it alone.
    pub mark: Mark,
    /// Tunnel or transport.
    pub mode: Mode,
    /// Cryptography.
    pub algorithm: Algorithm,
    /// Keys.
    pub keys: KeyMaterial,
    /// Sequence numbers of 64 bits.
    pub esn: bool,
    /// Inbound: packets in the replay window, 0 to 4096; 0 for no protection against replay.
    pub replay_window: u32,
    /// In UDP.
    pub nat_traversal: Option<NatTraversal>,
    /// Tunnel mode: the outer header.
    pub outer: OuterHeader,
    /// Limits.
    pub lifetime: Lifetime,
    /// Inbound: what may come out; empty for anything.
    pub inner: Vec<InnerSelector>,
    /// What policies name it by, as those of its peer and of other keys for the same; 0: it is no policy's.
    pub reqid: u32,
}

/// Why a security association was refused. Each text names the field and the limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum SaConfigError {
    #[error("spi: 0 is reserved, expected 1 to 4294967295")]
    SpiZero,
    #[error("source: missing; only an inbound security association may go without")]
    NoSource,
    #[error("source: {0} and destination {1} are of different families")]
    Families(IpAddr, IpAddr),
    #[error("{0}: {1} cannot be an end of a security association")]
    Address(&'static str, IpAddr),
    #[error("mark: value {value:#x} has bits outside of the mask {mask:#x}")]
    Mark { value: u32, mask: u32 },
    #[error("replay_window: {0} packets, expected 0 to {MAX_WINDOW}")]
    ReplayWindow(u32),
    #[error("outer.dscp: {0}, expected 0 to 63")]
    Dscp(u8),
    #[error("outer.hop_limit: 0, expected 1 to 255")]
    HopLimit,
    #[error("nat_traversal: port 0, expected 1 to 65535")]
    Port,
    #[error("lifetime.hard_{0}: 0, expected at least 1")]
    LifetimeZero(&'static str),
    #[error("lifetime.soft_{0} is above hard_{0}")]
    LifetimeOrder(&'static str),
    #[error("inner: source {0} and destination {1} are of different families")]
    SelectorFamilies(Prefix, Prefix),
    #[error("inner: {0} selectors, expected at most {1}")]
    TooManySelectors(usize, usize),
    #[error("esn, replay_window and algorithm cannot change while the keys stay")]
    SameKeys,
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("no random numbers were to be had from the system")]
    NoRandom,
}

/// Most selectors of one inbound security association.
pub const MAX_INNER_SELECTORS: usize = 64;

impl SaConfig {
    /// Checks everything but the keys' lengths.
    pub(crate) fn validate(&self) -> Result<(), SaConfigError> {
        if self.spi == 0 {
            return Err(SaConfigError::SpiZero);
        }
        match self.source {
            None if self.direction == Direction::Outbound => return Err(SaConfigError::NoSource),
            Some(source) if source.is_ipv4() != self.destination.is_ipv4() => {
                return Err(SaConfigError::Families(source, self.destination));
            }
            _ => {}
        }
        for (field, addr) in [("source", self.source), ("destination", Some(self.destination))] {
            if let Some(addr) = addr.filter(|addr| addr.is_unspecified() || addr.is_multicast()) {
                return Err(SaConfigError::Address(field, addr));
            }
        }
        if self.mark.value & !self.mark.mask != 0 {
            return Err(SaConfigError::Mark {
                value: self.mark.value,
                mask: self.mark.mask,
            });
        }
        if self.replay_window > MAX_WINDOW {
            return Err(SaConfigError::ReplayWindow(self.replay_window));
        }
        if let Dscp::Set(dscp @ 64..) = self.outer.dscp {
            return Err(SaConfigError::Dscp(dscp));
        }
        if self.outer.hop_limit == 0 {
            return Err(SaConfigError::HopLimit);
        }
        if let Some(ports) = self.nat_traversal
            && (ports.source_port == 0 || ports.destination_port == 0)
        {
            return Err(SaConfigError::Port);
        }
        if self.inner.len() > MAX_INNER_SELECTORS {
            return Err(SaConfigError::TooManySelectors(
                self.inner.len(),
                MAX_INNER_SELECTORS,
            ));
        }
        for InnerSelector { source, destination } in &self.inner {
            if source.addr().is_ipv4() != destination.addr().is_ipv4() {
                return Err(SaConfigError::SelectorFamilies(*source, *destination));
            }
        }
        self.lifetime.validate()
    }

    /// Whether everything but the keys is the same.
    pub(crate) fn same_but_keys(&self, other: &Self) -> bool {
        // Taken apart, so that a field to come cannot be forgotten.
        let Self {
            direction,
            spi,
            source,
            destination,
            mark,
            mode,
            algorithm,
            keys: _,
            esn,
            replay_window,
            nat_traversal,
            outer,
            lifetime,
            inner,
            reqid,
        } = self;
        (direction, spi, source, destination)
            == (&other.direction, &other.spi, &other.source, &other.destination)
            && (mark, mode, algorithm, esn) == (&other.mark, &other.mode, &other.algorithm, &other.esn)
            && (replay_window, nat_traversal) == (&other.replay_window, &other.nat_traversal)
            && (outer, lifetime, inner, reqid) == (&other.outer, &other.lifetime, &other.inner, &other.reqid)
    }

    /// What it is known by.
    pub fn key(&self) -> SaKey {
        SaKey {
            direction: self.direction,
            spi: self.spi,
            destination: self.destination,
            source: self.source,
            mark: self.mark,
        }
    }
}

impl Lifetime {
    fn validate(&self) -> Result<(), SaConfigError> {
        let nanoseconds =
            |time: Option<Duration>| time.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        for (name, soft, hard) in [
            ("bytes", self.soft_bytes, self.hard_bytes),
            ("packets", self.soft_packets, self.hard_packets),
            ("time", nanoseconds(self.soft_time), nanoseconds(self.hard_time)),
        ] {
            match (soft, hard) {
                (_, Some(0)) => return Err(SaConfigError::LifetimeZero(name)),
                (Some(soft), Some(hard)) if soft > hard => return Err(SaConfigError::LifetimeOrder(name)),
                _ => {}
            }
        }
        Ok(())
    }
}
