//! The table of policies (RFC 4301, section 4.4.1), looked up without going through them one by one.
//!
//! Policies that look at the same bits (prefix lengths, which of protocol and ports, mask of the mark) are of one *shape* and
//! share a hash map. A lookup asks each shape once, the one with the best priority first, and stops as soon as no other
//! could do better: its cost follows the number of shapes, not that of policies.
//!
//! A fragment that does not say its ports matches no policy for some ports. If one that protects or discards might be meant, and
//! none comes before it, the fragment is discarded (RFC 4301, section 7.1, leaves that choice).

use std::net::IpAddr;
use std::sync::Arc;

use super::cow_map::CowMap;
use crate::ip::{Addr, map};

/// Names a tunnel: what policies and nodes send packets through. Below [`super::MAX_TUNNELS`].
pub type TunnelId = u32;

/// What happens to a packet (RFC 4301, section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is encrypted, with the security association that the tunnel uses at the time.
    Protect(TunnelId),
    /// It goes as it is.
    Bypass,
    /// It is dropped.
    Discard,
}

/// What policies look at in a packet. Ports in host byte order; `None` for protocols that have none, and fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyQuery {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// Protocol number.
    pub protocol: u8,
    /// Source and destination port.
    pub ports: Option<(u16, u16)>,
    /// Mark.
    pub mark: u32,
}

/// Which bits a policy looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    pub(crate) source: Addr,
    pub(crate) destination: Addr,
    pub(crate) protocol: bool,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) mark: u32,
    /// For fragments that do not say their ports, which may be of what a policy for some ports protects or discards.
    pub(crate) later: bool,
}

/// What those bits have to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Bits {
    pub(crate) ipv4: bool,
    pub(crate) source: Addr,
    pub(crate) destination: Addr,
    pub(crate) protocol: u8,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) mark: u32,
}

/// How policies are preferred: the lower priority number, then the lower policy number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) priority: u32,
    pub(crate) policy: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct ShapeTable {
    pub(crate) shape: Shape,
    /// Of the best policy in it.
    pub(crate) best: Rank,
    pub(crate) entries: CowMap<Bits, (Rank, Action)>,
}

/// The policies of one direction. Immutable where it is read.
#[derive(Debug, Clone, Default)]
pub struct Spd {
    /// The best rank first.
    pub(crate) shapes: Vec<Arc<ShapeTable>>,
}

/// What a lookup found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyMatch {
    /// Which policy.
    pub policy: u32,
    /// What it says.
    pub action: Action,
}

impl Shape {
    /// The bits of a packet that this shape looks at; `None` if it has no such bits.
    #[inline]
    fn bits(&self, query: &PolicyQuery) -> Option<Bits> {
        let (source_port, destination_port) = match query.ports {
            Some(_) if self.later => return None,
            Some(ports) => ports,
            None if self.source_port | self.destination_port != 0 => return None,
            None => (0, 0),
        };
        Some(Bits {
            ipv4: query.destination.is_ipv4(),
            source: map(query.source) & self.source,
            destination: map(query.destination) & self.destination,
            protocol: if self.protocol { query.protocol } else { 0 },
            source_port: source_port & self.source_port,
            destination_port: destination_port & self.destination_port,
            mark: query.mark & self.mark,
        })
    }
}

impl Spd {
    /// The first policy for a packet, in the order of priorities (lower numbers first) and, among equals, of policy numbers.
    pub fn lookup(&self, query: &PolicyQuery) -> Option<PolicyMatch> {
        let mut best: Option<(Rank, Action)> = None;
        for table in &self.shapes {
            if best.is_some_and(|(rank, _)| rank < table.best) {
                break;
            }
            let found = table.shape.bits(query).and_then(|bits| table.entries.get(&bits));
            if let Some(found) = found
                && best.is_none_or(|(rank, _)| found.0 < rank)
            {
                best = Some(*found);
            }
        }
        best.map(|(rank, action)| PolicyMatch {
            policy: rank.policy,
            action,
        })
    }

    /// Whether there are no policies.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.shapes.is_empty()
    }

    /// How many shapes there are: what a lookup costs at most.
    pub fn shapes(&self) -> usize {
        self.shapes.len()
    }
}
