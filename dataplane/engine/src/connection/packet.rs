//! What a packet says about the connection it belongs to.

use octoplane_flow::Tuple;
use octoplane_packet::headers::{ETHERNET_LEN, IPV6_LEN, Ipv4, Ipv6, icmp4, icmp6, protocol};
use zerocopy::FromBytes;

use crate::drop_reason::DropReason;

/// TCP flags (RFC 9293, section 3.1).
pub(crate) mod tcp {
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const SYN: u8 = 0x02;
    pub(crate) const RST: u8 = 0x04;
    pub(crate) const ACK: u8 = 0x10;
}

/// Extension headers that may be walked through (RFC 8200, section 4); more is a lie or an attack.
const MAX_EXTENSIONS: usize = 8;

/// Which part of a packet this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// The first fragment, which has the ports.
    First,
    /// Another fragment, which has not.
    Later,
}

/// What the upper layer is, as far as it makes a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upper {
    /// TCP with these flags.
    Tcp(u8),
    Udp,
    Sctp,
    /// An echo request or reply: its identifier stands for the ports.
    Echo,
    /// An ICMP error about another packet.
    IcmpError,
    /// The one that says that a packet was too large and must not be cut (ICMP type 3, code 4).
    TooBig,
    /// Something without ports.
    Other,
}

/// Whether a packet is the first of a TCP connection.
#[inline(always)]
pub(crate) fn begins(upper: Upper) -> bool {
    matches!(upper, Upper::Tcp(flags) if flags & (tcp::SYN | tcp::ACK) == tcp::SYN)
}

/// A packet's place in the world: where its headers are and what they say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) tuple: Tuple,
    pub(crate) upper: Upper,
    pub(crate) part: Part,
    /// Where the IPv6 fragment header begins, if there is one, in bytes from the Ethernet header.
    pub(crate) fragment: Option<usize>,
    /// Where the upper layer begins, in bytes from the Ethernet header.
    pub(crate) l4: usize,
    /// Where the IP packet ends.
    pub(crate) end: usize,
    /// What policies call the port: the destination port or the ICMP type (specification, 2.6).
    pub(crate) port: u16,
}

impl Packet {
    /// Whether it asks for an echo, as opposed to being one.
    pub(crate) fn is_echo_request(&self) -> bool {
        let request = match self.tuple.is_v6() {
            true => icmp6::ECHO_REQUEST,
            false => icmp4::ECHO_REQUEST,
        };
        self.upper == Upper::Echo && self.port == request.into()
    }

    /// Reads an IPv4 packet whose header was checked.
    pub(crate) fn v4(frame: &[u8]) -> Result<Self, DropReason> {
        let packet = frame.get(ETHERNET_LEN..).unwrap_or_default();
        let (header, _) = Ipv4::ref_from_prefix(packet).map_err(|_| DropReason::InvalidPacket)?;
        let fragment = header.flags_fragment.get();
        let part = match (fragment & Ipv4::OFFSET, fragment & Ipv4::MF) {
            (0, 0) => Part::Whole,
            (0, _) => Part::First,
            _ => Part::Later,
        };
        let l4 = ETHERNET_LEN + header.header_len();
        let end = ETHERNET_LEN + usize::from(header.total_len.get());
        let upper = frame.get(l4..end).ok_or(DropReason::InvalidPacket)?;
        let seen = Seen::read(header.protocol, upper, part, false)?;
        let (src, dst) = (u32::from_be_bytes(header.src), u32::from_be_bytes(header.dst));
        Ok(Self {
            tuple: Tuple::v4(src, dst, seen.sport, seen.dport, header.protocol, 0),
            upper: seen.upper,
            part,
            fragment: None,
            l4,
            end,
            port: seen.port,
        })
    }

    /// Reads an IPv6 packet whose header was checked.
    pub(crate) fn v6(frame: &[u8]) -> Result<Self, DropReason> {
        let packet = frame.get(ETHERNET_LEN..).unwrap_or_default();
        let (header, _) = Ipv6::ref_from_prefix(packet).map_err(|_| DropReason::InvalidPacket)?;
        let end = ETHERNET_LEN + IPV6_LEN + usize::from(header.payload_len.get());
        let (mut next, mut l4, mut part) = (header.next_header, ETHERNET_LEN + IPV6_LEN, Part::Whole);
        let mut fragment = None;
        for _ in 0..MAX_EXTENSIONS {
            let rest = frame.get(l4..end).ok_or(DropReason::InvalidExtension)?;
            let units = match (next, rest) {
                // Hop-by-hop, routing, destination options, mobility.
                (0 | 43 | 60 | 135, &[_, units, ..]) => usize::from(units) * 8 + 8,
                (protocol::FRAGMENT, &[_, _, high, low, _, _, _, _, ..]) => {
                    let offset = u16::from_be_bytes([high, low]);
                    fragment = Some(l4);
                    part = match (offset & !7, offset & 1) {
                        (0, 0) => Part::Whole,
                        (0, _) => Part::First,
                        _ => Part::Later,
                    };
                    8
                }
                (0 | 43 | 60 | 135 | protocol::FRAGMENT, _) => return Err(DropReason::InvalidExtension),
                _ => {
                    let seen = Seen::read(next, rest, part, true)?;
                    let half =
                        |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                    let halves = |addr: &[u8; 16]| [half(addr), half(&addr[8..])];
                    let (src, dst) = (halves(&header.src), halves(&header.dst));
                    return Ok(Self {
                        tuple: Tuple::v6(src, dst, seen.sport, seen.dport, next, 0),
                        upper: seen.upper,
                        part,
                        fragment,
                        l4,
                        end,
                        port: seen.port,
                    });
                }
            };
            next = rest.first().copied().unwrap_or(59);
            l4 += units;
            if part == Part::Later && units == 8 && next != protocol::FRAGMENT {
                // What follows is from the middle of something.
                let half = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                let halves = |addr: &[u8; 16]| [half(addr), half(&addr[8..])];
                return Ok(Self {
                    tuple: Tuple::v6(halves(&header.src), halves(&header.dst), 0, 0, next, 0),
                    upper: Upper::Other,
                    part,
                    fragment,
                    l4,
                    end,
                    port: 0,
                });
            }
        }
        Err(DropReason::InvalidExtension)
    }
}

/// What the upper layer's header says.
struct Seen {
    upper: Upper,
    sport: u16,
    dport: u16,
    port: u16,
}

impl Seen {
    fn read(protocol: u8, upper: &[u8], part: Part, v6: bool) -> Result<Self, DropReason> {
        let plain = |upper| Self {
            upper,
            sport: 0,
            dport: 0,
            port: 0,
        };
        if part == Part::Later {
            return Ok(plain(Upper::Other));
        }
        let word = |at: usize| {
            upper
                .get(at..at + 2)
                .map_or(0, |word| u16::from(word[0]) << 8 | u16::from(word[1]))
        };
        let ports = |least: usize, kind| {
            if upper.len() < least {
                return Err(DropReason::CtInvalidHeader);
            }
            Ok(Self {
                upper: kind,
                sport: word(0),
                dport: word(2),
                port: word(2),
            })
        };
        match protocol {
            protocol::TCP => ports(20, Upper::Tcp(upper.get(13).copied().unwrap_or(0))),
            protocol::UDP => ports(8, Upper::Udp),
            protocol::SCTP => ports(12, Upper::Sctp),
            protocol::ICMP if !v6 => Self::icmp(upper, word(4), false),
            protocol::ICMPV6 if v6 => Self::icmp(upper, word(4), true),
            _ => Ok(plain(Upper::Other)),
        }
    }

    /// The identifier stands where it is when the connection is turned round (specification, 2.3).
    fn icmp(upper: &[u8], id: u16, v6: bool) -> Result<Self, DropReason> {
        let [kind, code, _, _, _, _, _, _, ..] = *upper else {
            return Err(DropReason::CtInvalidHeader);
        };
        // Those that belong to a connection (specification, 2.3): a redirect, for one, does not.
        let (request, reply, error) = match v6 {
            true => (icmp6::ECHO_REQUEST, icmp6::ECHO_REPLY, (1..=4).contains(&kind)),
            false => (
                icmp4::ECHO_REQUEST,
                icmp4::ECHO_REPLY,
                matches!(kind, 3 | 11 | 12),
            ),
        };
        let (upper, sport, dport) = match kind {
            kind if kind == request => (Upper::Echo, 0, id),
            kind if kind == reply => (Upper::Echo, id, 0),
            icmp4::UNREACHABLE if !v6 && code == icmp4::FRAGMENTATION_NEEDED => (Upper::TooBig, 0, 0),
            _ if error => (Upper::IcmpError, 0, 0),
            _ => (Upper::Other, 0, 0),
        };
        Ok(Self {
            upper,
            sport,
            dport,
            port: kind.into(),
        })
    }
}
