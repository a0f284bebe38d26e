//! Packets for tests, built and checked independently of the model.

use std::net::IpAddr;

pub(crate) type Mac = [u8; 6];

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn raw(addr: &str) -> Vec<u8> {
    match ip(addr) {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

/// The one's complement of the one's complement sum.
pub(crate) fn checksum(data: &[u8]) -> u16 {
    let mut sum = 0u32;
    for (at, byte) in data.iter().enumerate() {
        sum += u32::from(*byte) << if at % 2 == 0 { 8 } else { 0 };
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn pseudo(src: &[u8], dst: &[u8], protocol: u8, payload: &[u8]) -> u16 {
    let len = (payload.len() as u32).to_be_bytes();
    checksum(&[src, dst, &len, &[0, 0, 0, protocol], payload].concat())
}

/// A transport segment without checksum, and where that goes.
#[derive(Clone, Debug)]
pub(crate) struct Segment(pub(crate) u8, pub(crate) Vec<u8>, pub(crate) Option<usize>);

pub(crate) fn tcp(sport: u16, dport: u16, flags: u8) -> Segment {
    let mut bytes = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    bytes.extend([
        0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 16, 0, 0, 0, 0, 0, b'x', b'y', b'z',
    ]);
    Segment(6, bytes, Some(16))
}

pub(crate) fn udp(sport: u16, dport: u16) -> Segment {
    let mut bytes = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    bytes.extend([0, 13, 0, 0, 1, 2, 3, 4, 5]);
    Segment(17, bytes, Some(6))
}

pub(crate) fn icmp(kind: u8, code: u8, rest: u32, data: &[u8]) -> Segment {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(rest.to_be_bytes());
    bytes.extend(data);
    Segment(1, bytes, Some(2))
}

pub(crate) const SYN: u8 = 2;
pub(crate) const ACK: u8 = 16;
pub(crate) const SYNACK: u8 = 18;
pub(crate) const FIN: u8 = 17;
pub(crate) const RST: u8 = 4;

/// An IP packet; ICMP becomes ICMPv6 between IPv6 addresses.
pub(crate) fn packet(src: &str, dst: &str, segment: Segment) -> Vec<u8> {
    let (from, to) = (raw(src), raw(dst));
    let Segment(mut protocol, mut bytes, at) = segment;
    if from.len() == 16 && protocol == 1 {
        protocol = 58;
    }
    if let Some(at) = at {
        let mut sum = if protocol == 1 {
            checksum(&bytes)
        } else {
            pseudo(&from, &to, protocol, &bytes)
        };
        if sum == 0 && protocol == 17 {
            sum = 0xffff;
        }
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    let mut header;
    if from.len() == 4 {
        header = vec![0x45, 0];
        header.extend((20 + bytes.len() as u16).to_be_bytes());
        header.extend([0, 7, 0x40, 0, 64, protocol, 0, 0]);
        header.extend(&from);
        header.extend(&to);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        header = vec![0x60, 0, 0, 0];
        header.extend((bytes.len() as u16).to_be_bytes());
        header.extend([protocol, 64]);
        header.extend(&from);
        header.extend(&to);
    }
    header.extend(bytes);
    header
}

pub(crate) fn ethernet(dst: Mac, src: Mac, packet: &[u8]) -> Vec<u8> {
    let kind: [u8; 2] = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    [&dst[..], &src, &kind, packet].concat()
}

/// Changes the IPv4 header and makes its checksum right again.
pub(crate) fn patch4(packet: &mut [u8], at: usize, new: &[u8]) {
    packet[at..at + new.len()].copy_from_slice(new);
    packet[10..12].fill(0);
    let sum = checksum(&packet[..usize::from(packet[0] & 15) * 4]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// An IP packet taken apart, all of its checksums verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) src: String,
    pub(crate) dst: String,
    pub(crate) protocol: u8,
    pub(crate) ttl: u8,
    pub(crate) sport: u16,
    pub(crate) dport: u16,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn be16(data: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([data[at], data[at + 1]])
}

#[track_caller]
pub(crate) fn dissect(packet: &[u8]) -> Seen {
    let text = |bytes: &[u8]| match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).unwrap()).to_string(),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).unwrap()).to_string(),
    };
    let (src, dst, protocol, ttl, payload);
    let mut whole = true;
    if packet[0] >> 4 == 4 {
        let header = usize::from(packet[0] & 15) * 4;
        assert_eq!(checksum(&packet[..header]), 0, "header checksum");
        assert_eq!(usize::from(be16(packet, 2)), packet.len());
        whole = be16(packet, 6) & 0x3fff == 0;
        (src, dst) = (&packet[12..16], &packet[16..20]);
        (protocol, ttl, payload) = (packet[9], packet[8], &packet[header..]);
    } else {
        assert_eq!(usize::from(be16(packet, 4)) + 40, packet.len());
        (src, dst) = (&packet[8..24], &packet[24..40]);
        (protocol, ttl, payload) = (packet[6], packet[7], &packet[40..]);
    }
    if whole {
        match protocol {
            1 => assert_eq!(checksum(payload), 0, "ICMP checksum"),
            17 if be16(payload, 6) == 0 => {}
            6 | 17 | 58 => assert_eq!(pseudo(src, dst, protocol, payload), 0, "checksum"),
            _ => {}
        }
    }
    let (sport, dport) = match protocol {
        6 | 17 => (be16(payload, 0), be16(payload, 2)),
        _ => (0, 0),
    };
    Seen {
        src: text(src),
        dst: text(dst),
        protocol,
        ttl,
        sport,
        dport,
        payload: payload.to_vec(),
    }
}
