//! Packets byte by byte, with a checksum of its own: nothing here comes from the crates under test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) type Mac = [u8; 6];

pub(crate) const BROADCAST: Mac = [0xff; 6];

pub(crate) fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

pub(crate) fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// RFC 1071: 0 over data with a right checksum in it.
pub(crate) fn internet_checksum(data: &[u8]) -> u16 {
    let mut sum = 0u64;
    for (at, byte) in data.iter().enumerate() {
        sum += if at % 2 == 0 {
            u64::from(*byte) * 256
        } else {
            u64::from(*byte)
        };
    }
    while sum > 0xffff {
        sum = sum % 0x1_0000 + sum / 0x1_0000;
    }
    0xffff - sum as u16
}

/// The checksum of ICMPv6 over its pseudo-header (RFC 8200, section 8.1).
pub(crate) fn icmp6_checksum(src: Ipv6Addr, dst: Ipv6Addr, message: &[u8]) -> u16 {
    let mut all = Vec::new();
    all.extend(src.octets());
    all.extend(dst.octets());
    all.extend((message.len() as u32).to_be_bytes());
    all.extend([0, 0, 0, 58]);
    all.extend(message);
    internet_checksum(&all)
}

pub(crate) fn be16(data: &[u8], at: usize) -> u16 {
    u16::from(data[at]) * 256 + u16::from(data[at + 1])
}

pub(crate) fn put16(data: &mut [u8], at: usize, value: u16) {
    data[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

pub(crate) fn ethernet(dst: Mac, src: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(dst);
    frame.extend(src);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The frame with a tag behind its addresses.
pub(crate) fn tagged(frame: &[u8], tpid: u16, tci: u16) -> Vec<u8> {
    let mut with = frame[..12].to_vec();
    with.extend(tpid.to_be_bytes());
    with.extend(tci.to_be_bytes());
    with.extend(&frame[12..]);
    with
}

/// An IPv4 packet in the making.
#[derive(Clone, Debug)]
pub(crate) struct Ip4 {
    pub(crate) src: Ipv4Addr,
    pub(crate) dst: Ipv4Addr,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) tos: u8,
    pub(crate) id: u16,
    pub(crate) flags: u16,
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn ip4(src: &str, dst: &str) -> Ip4 {
    Ip4 {
        src: v4(src),
        dst: v4(dst),
        ttl: 64,
        protocol: 17,
        tos: 0,
        id: 0x1234,
        flags: 0x4000,
        options: Vec::new(),
        payload: udp(32),
    }
}

/// A UDP datagram without checksum, `len` bytes with its header.
pub(crate) fn udp(len: u16) -> Vec<u8> {
    let mut datagram = vec![0x30, 0x39, 0, 80];
    datagram.extend(len.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend((8..len).map(|at| at as u8));
    datagram
}

impl Ip4 {
    pub(crate) fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    pub(crate) fn flags(mut self, flags: u16) -> Self {
        self.flags = flags;
        self
    }

    pub(crate) fn payload(mut self, protocol: u8, payload: Vec<u8>) -> Self {
        self.protocol = protocol;
        self.payload = payload;
        self
    }

    /// Multiples of four bytes.
    pub(crate) fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    /// Makes the whole packet this many bytes.
    pub(crate) fn size(self, size: usize) -> Self {
        let rest = size - 20 - self.options.len();
        self.payload(17, udp(rest as u16))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let header = 20 + self.options.len();
        let mut packet = vec![0x40 + (header / 4) as u8, self.tos];
        packet.extend(((header + self.payload.len()) as u16).to_be_bytes());
        packet.extend(self.id.to_be_bytes());
        packet.extend(self.flags.to_be_bytes());
        packet.extend([self.ttl, self.protocol, 0, 0]);
        packet.extend(self.src.octets());
        packet.extend(self.dst.octets());
        packet.extend(&self.options);
        let sum = internet_checksum(&packet);
        put16(&mut packet, 10, sum);
        packet.extend(&self.payload);
        packet
    }

    pub(crate) fn frame(&self, dst: Mac, src: Mac) -> Vec<u8> {
        ethernet(dst, src, 0x0800, &self.bytes())
    }
}

/// An IPv6 packet in the making.
#[derive(Clone, Debug)]
pub(crate) struct Ip6 {
    pub(crate) src: Ipv6Addr,
    pub(crate) dst: Ipv6Addr,
    pub(crate) hop_limit: u8,
    pub(crate) next: u8,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn ip6(src: &str, dst: &str) -> Ip6 {
    Ip6 {
        src: v6(src),
        dst: v6(dst),
        hop_limit: 64,
        next: 17,
        payload: udp(32),
    }
}

impl Ip6 {
    pub(crate) fn ttl(mut self, hop_limit: u8) -> Self {
        self.hop_limit = hop_limit;
        self
    }

    pub(crate) fn payload(mut self, next: u8, payload: Vec<u8>) -> Self {
        self.next = next;
        self.payload = payload;
        self
    }

    /// Makes the whole packet this many bytes.
    pub(crate) fn size(self, size: usize) -> Self {
        self.payload(17, udp((size - 40) as u16))
    }

    /// An ICMPv6 message with its checksum.
    pub(crate) fn icmp(self, kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Self {
        let mut message = vec![kind, code, 0, 0];
        message.extend(rest);
        message.extend(body);
        let sum = icmp6_checksum(self.src, self.dst, &message);
        put16(&mut message, 2, sum);
        self.payload(58, message)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        // Traffic class 0xb8, flow label 0x12345: both must arrive as they are.
        let mut packet = vec![0x6b, 0x81, 0x23, 0x45];
        packet.extend((self.payload.len() as u16).to_be_bytes());
        packet.extend([self.next, self.hop_limit]);
        packet.extend(self.src.octets());
        packet.extend(self.dst.octets());
        packet.extend(&self.payload);
        packet
    }

    pub(crate) fn frame(&self, dst: Mac, src: Mac) -> Vec<u8> {
        ethernet(dst, src, 0x86dd, &self.bytes())
    }
}

/// An ICMP message with its checksum.
pub(crate) fn icmp4(kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    message.extend(body);
    let sum = internet_checksum(&message);
    put16(&mut message, 2, sum);
    message
}

/// An ARP packet (RFC 826) for IPv4 over Ethernet, 28 bytes.
pub(crate) fn arp(operation: u16, sender: (Mac, &str), target: (Mac, &str)) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    packet.extend(sender.0);
    packet.extend(v4(sender.1).octets());
    packet.extend(target.0);
    packet.extend(v4(target.1).octets());
    packet
}

/// The group that neighbours of `target` are asked through, and its Ethernet address.
pub(crate) fn solicited_node(target: &str) -> (Ipv6Addr, Mac) {
    let [.., a, b, c] = v6(target).octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    (group, [0x33, 0x33, 0xff, a, b, c])
}

/// A link-layer address option: kind 1 is the source's, 2 the target's.
pub(crate) fn lla(kind: u8, mac: Mac) -> Vec<u8> {
    [&[kind, 1][..], &mac].concat()
}

/// A neighbour solicitation to the group of its target.
pub(crate) fn solicitation(src: &str, target: &str, options: &[u8]) -> Ip6 {
    let (group, _) = solicited_node(target);
    let body = [&v6(target).octets()[..], options].concat();
    ip6(src, &group.to_string()).ttl(255).icmp(135, 0, [0; 4], &body)
}

/// A neighbour advertisement.
pub(crate) fn advertisement(src: &str, dst: &str, flags: u8, target: &str, options: &[u8]) -> Ip6 {
    let body = [&v6(target).octets()[..], options].concat();
    ip6(src, dst).ttl(255).icmp(136, 0, [flags, 0, 0, 0], &body)
}
