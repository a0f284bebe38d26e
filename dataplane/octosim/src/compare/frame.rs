//! Frames made byte by byte, without the headers and checksums of the crates under comparison.

use std::net::IpAddr;

/// An Ethernet address.
pub(crate) type Mac = [u8; 6];

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP6: u8 = 58;
pub(crate) const SCTP: u8 = 132;

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

/// An address as it stands in a packet.
pub(crate) fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

/// The complement of the one's complement sum (RFC 1071).
pub(crate) fn checksum(data: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in data.chunks(2) {
        sum += u32::from(be16(pair, 0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    let len = (payload.len() as u32).to_be_bytes();
    checksum(
        &[
            &octets(src)[..],
            &octets(dst),
            &len,
            &[0, 0, 0, protocol],
            payload,
        ]
        .concat(),
    )
}

/// CRC32c, bit by bit (RFC 9260, appendix A).
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

/// Makes the checksum of an upper layer right, if it has one.
pub(crate) fn fix_upper(src: IpAddr, dst: IpAddr, protocol: u8, upper: &mut [u8]) {
    let (at, sum) = match protocol {
        TCP => (16, Some(true)),
        UDP => (6, Some(true)),
        ICMP6 => (2, Some(true)),
        ICMP => (2, Some(false)),
        SCTP => (8, None),
        _ => return,
    };
    put(upper, at, if sum.is_some() { &[0; 2] } else { &[0; 4] });
    match sum {
        Some(with_addresses) => {
            let mut sum = match with_addresses {
                true => pseudo(src, dst, protocol, upper),
                false => checksum(upper),
            };
            if sum == 0 && protocol == UDP {
                sum = 0xffff;
            }
            put(upper, at, &sum.to_be_bytes());
        }
        None => {
            let sum = crc32c(upper).to_le_bytes();
            put(upper, at, &sum);
        }
    }
}

/// Fields of an IP header that make a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ip {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) ttl: u8,
    pub(crate) class: u8,
    pub(crate) id: u16,
    pub(crate) df: bool,
}

/// A piece of the upper layer: where it begins in it, in units of eight bytes, and whether more follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) offset: u16,
    pub(crate) more: bool,
}

/// An IP packet. Options are IPv4's (a multiple of four bytes), or IPv6 extension headers, the first of which begins with
/// the number of the next; `next` is the number of the first.
pub(crate) fn packet(
    ip: &Ip,
    protocol: u8,
    upper: &[u8],
    piece: Option<Piece>,
    options: Option<(u8, &[u8])>,
) -> Vec<u8> {
    if ip.src.is_ipv4() {
        let options = options.map_or(&[][..], |(_, options)| options);
        let header = 20 + options.len();
        let mut bytes = vec![0x40 | (header / 4) as u8, ip.class];
        bytes.extend(((header + upper.len()) as u16).to_be_bytes());
        bytes.extend(ip.id.to_be_bytes());
        let mut word = u16::from(ip.df) << 14;
        if let Some(piece) = piece {
            word |= u16::from(piece.more) << 13 | piece.offset;
        }
        bytes.extend(word.to_be_bytes());
        bytes.extend([ip.ttl, protocol, 0, 0]);
        bytes.extend(octets(ip.src));
        bytes.extend(octets(ip.dst));
        bytes.extend(options);
        let sum = checksum(&bytes);
        put(&mut bytes, 10, &sum.to_be_bytes());
        bytes.extend(upper);
        return bytes;
    }
    let mut behind = Vec::new();
    let mut next = protocol;
    if let Some(piece) = piece {
        let word = piece.offset << 3 | u16::from(piece.more);
        behind.extend([protocol, 0]);
        behind.extend(word.to_be_bytes());
        behind.extend(u32::from(ip.id).to_be_bytes());
        next = 44;
    }
    if let Some((number, options)) = options {
        let mut options = options.to_vec();
        // The last one leads on to what was to be first.
        let mut at = 0;
        while let Some(len) = options.get(at + 1).map(|units| (usize::from(*units) + 1) * 8) {
            if at + len >= options.len() {
                put(&mut options, at, &[next]);
                break;
            }
            at += len;
        }
        options.extend(behind);
        behind = options;
        next = number;
    }
    behind.extend(upper);
    let mut bytes = vec![0x60 | ip.class >> 4, ip.class << 4, 0, 0];
    bytes.extend((behind.len() as u16).to_be_bytes());
    bytes.extend([next, ip.ttl]);
    bytes.extend(octets(ip.src));
    bytes.extend(octets(ip.dst));
    bytes.extend(behind);
    bytes
}

/// An Ethernet frame around an IP packet.
pub(crate) fn ethernet(dst: Mac, src: Mac, packet: &[u8]) -> Vec<u8> {
    let kind: [u8; 2] = if byte(packet, 0) >> 4 == 4 {
        [0x08, 0x00]
    } else {
        [0x86, 0xdd]
    };
    [&dst[..], &src, &kind, packet].concat()
}

/// A UDP datagram.
pub(crate) fn udp(src: IpAddr, dst: IpAddr, sport: u16, dport: u16, data: &[u8], with_sum: bool) -> Vec<u8> {
    let mut bytes = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    bytes.extend(((8 + data.len()) as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(data);
    if with_sum {
        fix_upper(src, dst, UDP, &mut bytes);
    }
    bytes
}

/// An IP packet in a frame, as far as it makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dissected {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) protocol: u8,
    /// Where the upper layer begins and the packet ends, in the frame.
    pub(crate) upper: std::ops::Range<usize>,
    pub(crate) later_fragment: bool,
}

/// Takes a frame apart; `None` if it holds no IP packet whose lengths make sense.
pub(crate) fn dissect(frame: &[u8]) -> Option<Dissected> {
    let ip = frame.get(14..)?;
    match be16(frame, 12) {
        0x0800 => {
            let header = usize::from(byte(ip, 0) & 15) * 4;
            let total = usize::from(be16(ip, 2));
            if header < 20 || total < header || total > ip.len() {
                return None;
            }
            let four = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?));
            Some(Dissected {
                src: four(12)?,
                dst: four(16)?,
                protocol: byte(ip, 9),
                upper: 14 + header..14 + total,
                later_fragment: be16(ip, 6) & 0x1fff != 0,
            })
        }
        0x86dd => {
            let total = 40 + usize::from(be16(ip, 4));
            if total > ip.len() {
                return None;
            }
            let sixteen = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(ip.get(at..at + 16)?).ok()?));
            let (mut next, mut at, mut later) = (byte(ip, 6), 40, false);
            while matches!(next, 0 | 43 | 44 | 60) {
                later |= next == 44 && be16(ip, at + 2) & 0xfff8 != 0;
                let len = if next == 44 {
                    8
                } else {
                    (usize::from(byte(ip, at + 1)) + 1) * 8
                };
                next = byte(ip, at);
                at += len;
                if at > total {
                    return None;
                }
            }
            Some(Dissected {
                src: sixteen(8)?,
                dst: sixteen(24)?,
                protocol: next,
                upper: 14 + at..14 + total,
                later_fragment: later,
            })
        }
        _ => None,
    }
}
