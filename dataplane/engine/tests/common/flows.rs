//! Packets of connections, taken apart without the crates under test.

use std::net::IpAddr;

use super::Mac;
use super::bytes::{be16, internet_checksum, ip, ip4, ip6, put16};

/// A TCP or UDP packet between two addresses and ports, with a checksum that is right.
pub(crate) fn packet(
    protocol: u8,
    from: (&str, u16),
    to: (&str, u16),
    flags: u8,
    link: (Mac, Mac),
) -> Vec<u8> {
    let mut upper = vec![0; if protocol == 6 { 20 } else { 8 }];
    put16(&mut upper, 0, from.1);
    put16(&mut upper, 2, to.1);
    if protocol == 6 {
        (upper[12], upper[13]) = (0x50, flags);
    }
    upper.extend(b"payload of some odd length.");
    if protocol == 17 {
        let len = upper.len() as u16;
        put16(&mut upper, 4, len);
    }
    let at = if protocol == 6 { 16 } else { 6 };
    let sum = upper_checksum(ip(from.0), ip(to.0), protocol, &upper);
    put16(&mut upper, at, sum);
    match ip(from.0) {
        IpAddr::V4(_) => ip4(from.0, to.0).payload(protocol, upper).frame(link.0, link.1),
        IpAddr::V6(_) => ip6(from.0, to.0).payload(protocol, upper).frame(link.0, link.1),
    }
}

/// The checksum of TCP, UDP and ICMPv6 with its pseudo-header; 0 over a packet whose checksum is right.
pub(crate) fn upper_checksum(src: IpAddr, dst: IpAddr, protocol: u8, upper: &[u8]) -> u16 {
    let mut data = Vec::new();
    for addr in [src, dst] {
        match addr {
            IpAddr::V4(addr) => data.extend(addr.octets()),
            IpAddr::V6(addr) => data.extend(addr.octets()),
        }
    }
    data.extend((upper.len() as u32).to_be_bytes());
    data.extend([0, 0, 0, protocol]);
    data.extend(upper);
    internet_checksum(&data)
}

/// Addresses and ports of a TCP or UDP packet, whose checksums must be right.
pub(crate) fn ends(frame: &[u8]) -> ((IpAddr, u16), (IpAddr, u16)) {
    let v6 = frame[12..14] == [0x86, 0xdd];
    let (src, dst, protocol, upper) = if v6 {
        let addr = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap());
        let end = 54 + usize::from(be16(frame, 18));
        (addr(22), addr(38), frame[20], &frame[54..end])
    } else {
        let addr = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap());
        assert_eq!(internet_checksum(&frame[14..34]), 0, "the IPv4 header checksum");
        let end = 14 + usize::from(be16(frame, 16));
        (addr(26), addr(30), frame[23], &frame[34..end])
    };
    assert_eq!(upper_checksum(src, dst, protocol, upper), 0, "the checksum");
    ((src, be16(upper, 0)), (dst, be16(upper, 2)))
}

/// The same to be compared with.
pub(crate) fn end(addr: &str, port: u16) -> (IpAddr, u16) {
    (ip(addr), port)
}
