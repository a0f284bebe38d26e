//! What policies and security associations make of a packet as it is on the wire.

use std::net::{IpAddr, Ipv6Addr};

use octoplane_packet::headers::{Ipv4, icmp6, protocol};

use super::Snapshot;
use super::spd::PolicyQuery;
use crate::examine;
use crate::ip::{self, Addr};
use crate::sa::Sa;

const DCCP: u8 = 33;
const ESP: u8 = 50;
/// Router solicitation, the first kind of ICMPv6 message that neighbours find each other by; redirect is the last.
const ROUTER_SOLICITATION: u8 = 133;

/// What policies look at in a packet, and what else there is to know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selected {
    /// For [`super::Spd::lookup`]; the mark is 0.
    pub query: PolicyQuery,
    /// Bytes of the IP packet.
    pub len: usize,
    /// Whether routers may cut it: IPv4 without "don't fragment".
    pub may_cut: bool,
    /// Whether it is how neighbours find each other (RFC 4861), which no policy touches.
    pub is_neighbour_discovery: bool,
}

fn unmap(addr: Addr, version: u8) -> IpAddr {
    match version {
        4 => IpAddr::from((addr as u32).to_be_bytes()),
        _ => Ipv6Addr::from_bits(addr).into(),
    }
}

impl Selected {
    /// Whether it may be ESP, by itself or in UDP.
    #[inline]
    pub fn may_be_esp(&self) -> bool {
        matches!(self.query.protocol, ESP | protocol::UDP)
    }

    /// Reads the IP packet that starts here; `None` if its headers make no sense.
    #[inline]
    pub fn of(packet: &[u8]) -> Option<Self> {
        let header = ip::parse(packet).ok()?;
        // Destination options may stand where they like: they are not what the packet is.
        let (protocol, at) = match ip::upper(packet, &header, true) {
            Ok(upper) => (upper.protocol, Some(upper.offset)),
            Err(_) => fragment(packet, &header)?,
        };
        let upper = at.and_then(|at| packet.get(at..header.len));
        let ports = match (protocol, upper.and_then(|upper| upper.first_chunk::<4>())) {
            (protocol::TCP | protocol::UDP | protocol::SCTP | DCCP, Some([a, b, c, d])) => {
                Some((u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])))
            }
            _ => None,
        };
        let is_neighbour_discovery = header.version == 6
            && protocol == protocol::ICMPV6
            && upper
                .and_then(|upper| upper.first())
                .is_some_and(|kind| (ROUTER_SOLICITATION..=icmp6::REDIRECT).contains(kind));
        Some(Self {
            query: PolicyQuery {
                source: unmap(header.src, header.version),
                destination: unmap(header.dst, header.version),
                protocol,
                ports,
                mark: 0,
            },
            len: header.len,
            may_cut: header.version == 4 && header.flags_fragment & Ipv4::DF == 0,
            is_neighbour_discovery,
        })
    }
}

/// Protocol of a fragment, and where its upper layer begins if it is the first one.
fn fragment(packet: &[u8], header: &ip::Packet) -> Option<(u8, Option<usize>)> {
    if header.version == 4 {
        let first = header.flags_fragment & Ipv4::OFFSET == 0;
        return Some((header.protocol, first.then_some(header.header_len)));
    }
    let (mut at, mut next) = (header.header_len, header.protocol);
    // Extension headers in front of the fragment header; each is eight bytes at least.
    while at < header.len {
        let extension = packet.get(at..header.len)?.first_chunk::<8>()?;
        if next == protocol::FRAGMENT {
            let first = u16::from_be_bytes([extension[2], extension[3]]) & 0xfff8 == 0;
            return Some((extension[0], first.then_some(at + 8)));
        }
        next = extension[0];
        at += 8 + usize::from(extension[1]) * 8;
    }
    None
}

impl Snapshot {
    /// The inbound security association for an ESP packet, in UDP or not, if it is one that policies name.
    #[inline]
    pub fn arrives_by(&self, packet: &[u8]) -> Option<&Sa> {
        let (spi, dst, src, mark) = examine::outer(packet, 0).ok()?.key;
        let sa = self.sad.inbound(spi, dst, src, mark)?;
        (sa.reqid() != 0).then_some(&**sa)
    }

    /// Whether this is an ESP packet, in UDP or not, that an outbound security association made.
    #[inline]
    pub fn is_own_esp(&self, packet: &[u8]) -> bool {
        examine::outer(packet, 0).is_ok_and(|outer| {
            let (spi, dst, src, _) = outer.key;
            self.sad.has_outbound(spi, dst, src)
        })
    }
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
