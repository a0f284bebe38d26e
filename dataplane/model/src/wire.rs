//! Packets as bytes: parsing, editing, checksums (RFC 791, 768, 793, 792, 4443, 8200, 1071, 1624).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::outcome::code;

/// ICMP.
pub(crate) const ICMP: u8 = 1;
/// TCP.
pub(crate) const TCP: u8 = 6;
/// UDP.
pub(crate) const UDP: u8 = 17;
/// ICMPv6.
pub(crate) const ICMP6: u8 = 58;
/// SCTP.
pub(crate) const SCTP: u8 = 132;

/// Most IPv6 extension headers that are looked behind (specification, 6.1: code 156).
const MAX_EXTENSIONS: usize = 8;

/// TCP flags.
pub(crate) mod tcp {
    pub(crate) const FIN: u8 = 1;
    pub(crate) const SYN: u8 = 2;
    pub(crate) const RST: u8 = 4;
    pub(crate) const ACK: u8 = 16;
}

/// The byte at `at`, or 0.
pub(crate) fn byte(data: &[u8], at: usize) -> u8 {
    data.get(at).copied().unwrap_or(0)
}

/// The two bytes at `at`, or 0.
pub(crate) fn be16(data: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([byte(data, at), byte(data, at + 1)])
}

/// Writes `new` at `at` if it fits.
pub(crate) fn put(data: &mut [u8], at: usize, new: &[u8]) {
    if let Some(place) = data.get_mut(at..at + new.len()) {
        place.copy_from_slice(new);
    }
}

/// The one's complement sum of `parts`, each starting at an even position.
pub(crate) fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            total += u64::from(u16::from_be_bytes([byte(pair, 0), byte(pair, 1)]));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// An address as it stands in a packet.
pub(crate) fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

/// The checksum field of `payload` between two addresses (RFC 768, 793, 8200); the field itself must be zero.
pub(crate) fn l4_checksum(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    let len = (payload.len() as u32).to_be_bytes();
    !sum(&[&octets(src), &octets(dst), &len, &[0, protocol], payload])
}

fn be32(data: &[u8], at: usize) -> u32 {
    u32::from(be16(data, at)) << 16 | u32::from(be16(data, at + 2))
}

/// The CRC32c of an SCTP message with zeros in the place of its checksum, bit by bit (RFC 9260, appendix A). It stands in the
/// message with its least significant byte first.
fn crc32c(message: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for (at, byte) in message.iter().enumerate() {
        crc ^= u32::from(if (8..12).contains(&at) { 0 } else { *byte });
        for _ in 0..8 {
            let carry = crc & 1;
            crc >>= 1;
            if carry == 1 {
                crc ^= 0x82f6_3b78;
            }
        }
    }
    !crc
}

/// A checksum after some of what it covers changed (RFC 1624, equation 3). Wrong checksums stay wrong.
fn adjust(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    let negated: Vec<u8> = old.iter().map(|byte| !byte).collect();
    !sum(&[&(!checksum).to_be_bytes(), &negated, new])
}

/// Fragment information.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) id: u32,
    pub(crate) first: bool,
}

/// Which end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Destination,
}

/// What conntrack and services know a packet by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port, or the id of an echo reply.
    pub sport: u16,
    /// Destination port, or the id of an echo request.
    pub dport: u16,
    /// Protocol.
    pub protocol: u8,
}

impl Tuple {
    /// The tuple of the other direction.
    pub fn reversed(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            ..self
        }
    }
}

/// An IP packet.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    /// The packet itself, as long as its header says.
    pub(crate) bytes: Vec<u8>,
    /// What stood behind it in the frame.
    pub(crate) tail: Vec<u8>,
    pub(crate) v6: bool,
    /// The protocol behind all extension headers.
    pub(crate) protocol: u8,
    /// Where that protocol's header starts.
    pub(crate) l4: usize,
    /// IPv6: too many extension headers, or one that is cut off.
    pub(crate) bad_extensions: Option<u16>,
    pub(crate) fragment: Option<Fragment>,
    /// Ports of a later fragment, once known.
    pub(crate) ports: Option<(u16, u16)>,
    /// The ICMP type of a later fragment, once known.
    pub(crate) kind: Option<u8>,
}

impl Packet {
    /// Takes what is behind an Ethernet header apart; the error is a drop code (134, 153).
    pub(crate) fn parse(v6: bool, data: &[u8]) -> Result<Self, u16> {
        if v6 {
            Self::parse6(data)
        } else {
            Self::parse4(data)
        }
    }

    fn parse4(data: &[u8]) -> Result<Self, u16> {
        if data.len() < 20 || byte(data, 0) >> 4 != 4 {
            return Err(code::INVALID);
        }
        let header = usize::from(byte(data, 0) & 15) * 4;
        let total = usize::from(be16(data, 2));
        if header < 20 || total < header || total > data.len() {
            return Err(code::INVALID);
        }
        let (bytes, tail) = data.split_at(total);
        if sum(&[bytes.get(..header).unwrap_or_default()]) != 0xffff {
            return Err(code::L3_CHECKSUM);
        }
        let word = be16(bytes, 6);
        Ok(Self {
            v6: false,
            protocol: byte(bytes, 9),
            l4: header,
            bad_extensions: None,
            fragment: (word & 0x3fff != 0).then(|| Fragment {
                id: be16(bytes, 4).into(),
                first: word & 0x1fff == 0,
            }),
            ports: None,
            kind: None,
            bytes: bytes.to_vec(),
            tail: tail.to_vec(),
        })
    }

    fn parse6(data: &[u8]) -> Result<Self, u16> {
        if data.len() < 40 || byte(data, 0) >> 4 != 6 {
            return Err(code::INVALID);
        }
        let total = usize::from(be16(data, 4)) + 40;
        if total > data.len() {
            return Err(code::INVALID);
        }
        let (bytes, tail) = data.split_at(total);
        let mut packet = Self {
            v6: true,
            protocol: byte(bytes, 6),
            l4: 40,
            bad_extensions: None,
            fragment: None,
            ports: None,
            kind: None,
            bytes: bytes.to_vec(),
            tail: tail.to_vec(),
        };
        for count in 0.. {
            if !matches!(packet.protocol, 0 | 43 | 44 | 51 | 60) {
                break;
            }
            if count == MAX_EXTENSIONS {
                packet.bad_extensions = Some(code::EXTENSION);
                break;
            }
            let at = packet.l4;
            let len = match packet.protocol {
                44 => 8,
                51 => (usize::from(byte(bytes, at + 1)) + 2) * 4,
                _ => (usize::from(byte(bytes, at + 1)) + 1) * 8,
            };
            if at + len > bytes.len() {
                packet.bad_extensions = Some(code::EXTENSION);
                break;
            }
            if packet.protocol == 44 {
                let word = be16(bytes, at + 2);
                let first = word & 0xfff8 == 0;
                // A fragment that is the whole packet (RFC 6946) is as good as none.
                if !first || word & 1 != 0 {
                    let id = u32::from(be16(bytes, at + 4)) << 16 | u32::from(be16(bytes, at + 6));
                    packet.fragment = Some(Fragment { id, first });
                }
            }
            packet.protocol = byte(bytes, at);
            packet.l4 += len;
            if packet.later_fragment() {
                break;
            }
        }
        Ok(packet)
    }

    fn addr(&self, end: End) -> IpAddr {
        let at = self.addr_at(end);
        if self.v6 {
            let bytes: [u8; 16] = std::array::from_fn(|index| byte(&self.bytes, at + index));
            Ipv6Addr::from(bytes).into()
        } else {
            let bytes: [u8; 4] = std::array::from_fn(|index| byte(&self.bytes, at + index));
            Ipv4Addr::from(bytes).into()
        }
    }

    fn addr_at(&self, end: End) -> usize {
        match (self.v6, end) {
            (false, End::Source) => 12,
            (false, End::Destination) => 16,
            (true, End::Source) => 8,
            (true, End::Destination) => 24,
        }
    }

    pub(crate) fn src(&self) -> IpAddr {
        self.addr(End::Source)
    }

    pub(crate) fn dst(&self) -> IpAddr {
        self.addr(End::Destination)
    }

    pub(crate) fn ethertype(&self) -> u16 {
        if self.v6 { 0x86dd } else { 0x0800 }
    }

    pub(crate) fn ttl(&self) -> u8 {
        byte(&self.bytes, if self.v6 { 7 } else { 8 })
    }

    pub(crate) fn dont_fragment(&self) -> bool {
        !self.v6 && be16(&self.bytes, 6) & 0x4000 != 0
    }

    pub(crate) fn ecn(&self) -> u8 {
        if self.v6 {
            byte(&self.bytes, 1) >> 4 & 3
        } else {
            byte(&self.bytes, 1) & 3
        }
    }

    pub(crate) fn set_ecn(&mut self, ecn: u8) {
        let old = byte(&self.bytes, 1);
        if self.v6 {
            put(&mut self.bytes, 1, &[old & 0xcf | ecn << 4]);
        } else {
            put(&mut self.bytes, 1, &[old & 0xfc | ecn]);
            self.fix_header();
        }
    }

    /// Length of the IPv4 header, or of the fixed IPv6 header.
    pub(crate) fn header_len(&self) -> usize {
        if self.v6 {
            40
        } else {
            usize::from(byte(&self.bytes, 0) & 15) * 4
        }
    }

    /// Makes the IPv4 header checksum right.
    pub(crate) fn fix_header(&mut self) {
        if !self.v6 {
            put(&mut self.bytes, 10, &[0, 0]);
            let header = self.header_len();
            let checksum = !sum(&[self.bytes.get(..header).unwrap_or_default()]);
            put(&mut self.bytes, 10, &checksum.to_be_bytes());
        }
    }

    pub(crate) fn set_ttl(&mut self, ttl: u8) {
        put(&mut self.bytes, if self.v6 { 7 } else { 8 }, &[ttl]);
        self.fix_header();
    }

    pub(crate) fn later_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| !fragment.first)
    }

    /// What is behind the IP headers; nothing a protocol could read in a later fragment.
    pub(crate) fn payload(&self) -> &[u8] {
        self.bytes.get(self.l4..).unwrap_or_default()
    }

    pub(crate) fn is_icmp(&self) -> bool {
        self.protocol == if self.v6 { ICMP6 } else { ICMP }
    }

    /// ICMP type and code.
    pub(crate) fn icmp(&self) -> Option<(u8, u8)> {
        match *self.payload() {
            [kind, code, ..] if self.is_icmp() && !self.later_fragment() => Some((kind, code)),
            _ => None,
        }
    }

    /// Whether it is an ICMP error that belongs to a flow (specification, 2.3).
    pub(crate) fn is_icmp_error(&self) -> bool {
        self.icmp().is_some_and(|(kind, _)| {
            if self.v6 {
                (1..=4).contains(&kind)
            } else {
                matches!(kind, 3 | 11 | 12)
            }
        })
    }

    /// Whether it is an echo request (`Some(false)`) or reply (`Some(true)`).
    pub(crate) fn echo(&self) -> Option<bool> {
        match (self.v6, self.icmp()?.0) {
            (false, 8) | (true, 128) => Some(false),
            (false, 0) | (true, 129) => Some(true),
            _ => None,
        }
    }

    pub(crate) fn tcp_flags(&self) -> u8 {
        if self.protocol == TCP && !self.later_fragment() {
            byte(self.payload(), 13)
        } else {
            0
        }
    }

    /// Whether it opens a TCP connection.
    pub(crate) fn is_syn(&self) -> bool {
        self.tcp_flags() & (tcp::SYN | tcp::ACK) == tcp::SYN
    }

    /// Whether a service may be found for it (specification, 3.2).
    pub(crate) fn has_ports(&self) -> bool {
        matches!(self.protocol, TCP | UDP | SCTP)
    }

    /// Addresses and ports; the error is a drop code.
    pub(crate) fn tuple(&self) -> Result<Tuple, u16> {
        if let Some(code) = self.bad_extensions {
            return Err(code);
        }
        let mut tuple = Tuple {
            src: self.src(),
            dst: self.dst(),
            sport: 0,
            dport: 0,
            protocol: self.protocol,
        };
        if self.later_fragment() {
            (tuple.sport, tuple.dport) = self.ports.unwrap_or_default();
            return Ok(tuple);
        }
        let payload = self.payload();
        let least = match self.protocol {
            TCP => 20,
            UDP => 8,
            SCTP => 12,
            ICMP if !self.v6 => 8,
            ICMP6 if self.v6 => 8,
            _ => 0,
        };
        if payload.len() < least {
            return Err(code::CT_HEADER);
        }
        if self.has_ports() {
            tuple.sport = be16(payload, 0);
            tuple.dport = be16(payload, 2);
        }
        match self.echo() {
            Some(false) => tuple.dport = be16(payload, 4),
            Some(true) => tuple.sport = be16(payload, 4),
            None => {}
        }
        Ok(tuple)
    }

    /// Where the checksum that covers addresses (`pseudo`) or ports stands.
    fn checksum_at(&self, pseudo: bool) -> Option<usize> {
        if self.later_fragment() {
            return None;
        }
        let at = match self.protocol {
            TCP => 16,
            UDP => 6,
            ICMP6 if self.v6 => 2,
            ICMP if !self.v6 && !pseudo => 2,
            _ => return None,
        };
        (self.l4 + at + 2 <= self.bytes.len()).then_some(self.l4 + at)
    }

    fn fix_l4(&mut self, pseudo: bool, old: &[u8], new: &[u8]) {
        let Some(at) = self.checksum_at(pseudo) else {
            return;
        };
        let checksum = be16(&self.bytes, at);
        if self.protocol == UDP && checksum == 0 {
            return;
        }
        let mut fixed = adjust(checksum, old, new);
        if self.protocol == UDP && fixed == 0 {
            fixed = 0xffff;
        }
        put(&mut self.bytes, at, &fixed.to_be_bytes());
    }

    /// Changes an address and the checksums over it.
    pub(crate) fn set_addr(&mut self, end: End, addr: IpAddr) {
        if addr.is_ipv6() != self.v6 || self.addr(end) == addr {
            return;
        }
        let (old, new) = (octets(self.addr(end)), octets(addr));
        self.fix_l4(true, &old, &new);
        let at = self.addr_at(end);
        put(&mut self.bytes, at, &new);
        self.fix_header();
    }

    /// Changes a port, or the id of an echo, and the checksum over it. SCTP's is over all of the message (RFC 9260, 6.8): it
    /// refuses if not all is here, or it was wrong before (specification, 1.2 step 9 g).
    pub(crate) fn set_port(&mut self, end: End, port: u16) -> Result<(), u16> {
        let tuple = self.tuple()?;
        let old = match end {
            End::Source => tuple.sport,
            End::Destination => tuple.dport,
        };
        if old == port {
            return Ok(());
        }
        let wrong = || be32(self.payload(), 8) != crc32c(self.payload()).swap_bytes();
        if self.protocol == SCTP && !self.later_fragment() && (self.fragment.is_some() || wrong()) {
            return Err(code::L4_CHECKSUM);
        }
        if self.later_fragment() {
            let (sport, dport) = self.ports.unwrap_or_default();
            self.ports = Some(match end {
                End::Source => (port, dport),
                End::Destination => (sport, port),
            });
            return Ok(());
        }
        let at = match (self.has_ports(), end) {
            (false, _) => 4,
            (true, End::Source) => 0,
            (true, End::Destination) => 2,
        };
        if self.has_ports() || self.echo().is_some() {
            self.fix_l4(false, &old.to_be_bytes(), &port.to_be_bytes());
            let at = self.l4 + at;
            put(&mut self.bytes, at, &port.to_be_bytes());
        }
        if self.protocol == SCTP {
            let sum = crc32c(self.payload()).to_le_bytes();
            let at = self.l4 + 8;
            put(&mut self.bytes, at, &sum);
        }
        Ok(())
    }

    /// Where the packet that an ICMP error quotes has its upper layer, and which that is. At least eight bytes of it are there
    /// (RFC 792, RFC 4443). What stands behind IPv6 extension headers is not looked for.
    fn quoted_upper(&self) -> Option<(usize, u8)> {
        if !self.is_icmp_error() || self.fragment.is_some() {
            return None;
        }
        let quoted = self.payload().get(8..)?;
        let (header, protocol) = if self.v6 {
            // A balancer may have put options in front of what is quoted (specification, 3.6).
            let (mut header, mut protocol) = (40, *quoted.get(6)?);
            for _ in 0..MAX_EXTENSIONS {
                if matches!(protocol, 0 | 60) {
                    protocol = *quoted.get(header)?;
                    header += usize::from(*quoted.get(header + 1)?) * 8 + 8;
                }
            }
            (header, protocol)
        } else {
            let header = usize::from(*quoted.first()? & 15) * 4;
            if header < 20 || be16(quoted, 6) & 0x1fff != 0 {
                return None;
            }
            (header, *quoted.get(9)?)
        };
        quoted.get(header..header + 8)?;
        Some((header, protocol))
    }

    /// The tuple of the packet that an ICMP error quotes.
    pub(crate) fn quoted(&self) -> Option<Tuple> {
        let (header, protocol) = self.quoted_upper()?;
        let quoted = self.payload().get(8..)?;
        let upper = quoted.get(header..)?;
        let addr = |end| {
            let at = self.addr_at(end);
            if self.v6 {
                IpAddr::from(std::array::from_fn::<u8, 16, _>(|index| byte(quoted, at + index)))
            } else {
                IpAddr::from(std::array::from_fn::<u8, 4, _>(|index| byte(quoted, at + index)))
            }
        };
        let id = be16(upper, 4);
        let (sport, dport) = match (protocol, self.v6, byte(upper, 0)) {
            (TCP | UDP | SCTP, ..) => (be16(upper, 0), be16(upper, 2)),
            (ICMP, false, 8) | (ICMP6, true, 128) => (0, id),
            (ICMP, false, 0) | (ICMP6, true, 129) => (id, 0),
            _ => (0, 0),
        };
        Some(Tuple {
            src: addr(End::Source),
            dst: addr(End::Destination),
            sport,
            dport,
            protocol,
        })
    }

    /// Gives the packet that an ICMP error quotes other addresses and ports, and makes the checksums over them right, as far
    /// as they are quoted; then that of the error. Checksums that are wrong stay so.
    pub(crate) fn set_quoted(&mut self, to: &Tuple) {
        let (Some((header, protocol)), Some(from)) = (self.quoted_upper(), self.quoted()) else {
            return;
        };
        let before = self.bytes.get(self.l4..).unwrap_or_default().to_vec();
        let at = self.l4 + 8;
        let upper = at + header;
        let addresses = |tuple: &Tuple| [octets(tuple.src), octets(tuple.dst)].concat();
        let ports = |tuple: &Tuple| [tuple.sport.to_be_bytes(), tuple.dport.to_be_bytes()].concat();
        let (old, new) = (addresses(&from), addresses(to));
        let both = (
            [old.clone(), ports(&from)].concat(),
            [new.clone(), ports(to)].concat(),
        );
        let echo = matches!(
            (protocol, self.v6, byte(&self.bytes, upper)),
            (ICMP, false, 0 | 8) | (ICMP6, true, 128 | 129)
        );
        // Where the quoted checksum stands, and what of it changes.
        let change = match protocol {
            TCP => Some((16, both)),
            UDP if be16(&self.bytes, upper + 6) != 0 => Some((6, both)),
            ICMP6 if self.v6 && echo => Some((2, both)),
            ICMP6 if self.v6 => Some((2, (old.clone(), new.clone()))),
            ICMP if echo => Some((2, (ports(&from), ports(to)))),
            _ => None,
        };
        if let Some((place, (was, is))) = change
            && upper + place + 2 <= self.bytes.len()
            && was != is
        {
            let mut fixed = adjust(be16(&self.bytes, upper + place), &was, &is);
            if protocol == UDP && fixed == 0 {
                fixed = 0xffff;
            }
            put(&mut self.bytes, upper + place, &fixed.to_be_bytes());
        }
        match protocol {
            TCP | UDP | SCTP => put(&mut self.bytes, upper, &ports(to)),
            _ if echo => put(&mut self.bytes, upper + 4, &(to.sport | to.dport).to_be_bytes()),
            _ => {}
        }
        if !self.v6 && old != new {
            let fixed = adjust(be16(&self.bytes, at + 10), &old, &new);
            put(&mut self.bytes, at + 10, &fixed.to_be_bytes());
        }
        let place = at + self.addr_at(End::Source);
        put(&mut self.bytes, place, &new);
        // Make both even: a byte more does not change a sum.
        let even = |mut bytes: Vec<u8>| {
            if bytes.len() % 2 == 1 {
                bytes.push(0);
            }
            bytes
        };
        let after = self.bytes.get(self.l4..).unwrap_or_default().to_vec();
        if before != after {
            self.fix_l4(false, &even(before), &even(after));
        }
    }
}

/// A new IPv4 header without options in front of `payload`.
pub(crate) fn build4(
    src: Ipv4Addr,
    dst: Ipv4Addr,
    protocol: u8,
    tos: u8,
    id: u16,
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![0x45, tos];
    bytes.extend(((20 + payload.len()) as u16).to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes.extend([0, 0, 64, protocol, 0, 0]);
    bytes.extend(src.octets());
    bytes.extend(dst.octets());
    let checksum = !sum(&[&bytes]);
    put(&mut bytes, 10, &checksum.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The same packet with "don't fragment" set.
pub(crate) fn uncut(mut bytes: Vec<u8>) -> Vec<u8> {
    put(&mut bytes, 6, &[0x40, 0]);
    put(&mut bytes, 10, &[0, 0]);
    let checksum = !sum(&[bytes.get(..20).unwrap_or_default()]);
    put(&mut bytes, 10, &checksum.to_be_bytes());
    bytes
}

/// A new IPv6 header in front of `payload`.
pub(crate) fn build6(src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, class: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60 | class >> 4, class << 4, 0, 0];
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend([protocol, 64]);
    bytes.extend(src.octets());
    bytes.extend(dst.octets());
    bytes.extend(payload);
    bytes
}
