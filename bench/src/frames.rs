//! Packets to measure with.

use std::net::IpAddr;

use octoplane_packet::MacAddr;
use octoplane_packet::checksum::checksum;
use octoplane_packet::headers::{Ethernet, Ipv4, Ipv6, ethertype, protocol};
use zerocopy::IntoBytes;

/// Bytes of a frame's check sequence: part of its size on the wire, never in a buffer.
pub(crate) const FCS: u16 = 4;
/// Bytes of a frame that are not all zero, at most.
const HEADER: usize = 64;
/// IPv6 without anything behind it.
const NO_NEXT_HEADER: u8 = 59;

/// A frame: headers, and zeros behind them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    header: [u8; HEADER],
    len: u16,
}

impl Frame {
    /// Bytes in a buffer, without FCS.
    pub(crate) fn len(&self) -> usize {
        self.len.into()
    }

    /// The bytes that matter: all of a short frame.
    pub(crate) fn header(&self) -> &[u8] {
        &self.header[..self.len().min(HEADER)]
    }
}

/// What is in a frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow {
    pub(crate) src_mac: MacAddr,
    pub(crate) dst_mac: MacAddr,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) src_port: u16,
}

/// A UDP packet to the discard port in a frame of `size` bytes with FCS, 64 or more. An IPv6 packet whose frame has no
/// room for a UDP header has none.
pub(crate) fn build(flow: &Flow, size: u16) -> Frame {
    let len = size - FCS;
    let mut bytes = Vec::with_capacity(HEADER);
    let ip_len = len - 14;
    let ethertype = match flow.dst {
        IpAddr::V4(_) => ethertype::IPV4,
        IpAddr::V6(_) => ethertype::IPV6,
    };
    let ethernet = Ethernet {
        dst: flow.dst_mac.0,
        src: flow.src_mac.0,
        ethertype: ethertype.into(),
    };
    bytes.extend_from_slice(ethernet.as_bytes());
    let payload = match (flow.src, flow.dst) {
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let payload = ip_len - 40;
            let next_header = if payload < 8 {
                NO_NEXT_HEADER
            } else {
                protocol::UDP
            };
            let header = Ipv6 {
                version_class_flow: (6 << 28).into(),
                payload_len: payload.into(),
                next_header,
                hop_limit: 64,
                src: src.octets(),
                dst: dst.octets(),
            };
            bytes.extend_from_slice(header.as_bytes());
            payload
        }
        (src, dst) => {
            let octets = |addr| match addr {
                IpAddr::V4(addr) => addr.octets(),
                IpAddr::V6(_) => [0; 4],
            };
            let mut header = Ipv4 {
                version_ihl: 0x45,
                tos: 0,
                total_len: ip_len.into(),
                id: 0.into(),
                flags_fragment: Ipv4::DF.into(),
                ttl: 64,
                protocol: protocol::UDP,
                checksum: 0.into(),
                src: octets(src),
                dst: octets(dst),
            };
            header.checksum = checksum(header.as_bytes()).into();
            bytes.extend_from_slice(header.as_bytes());
            ip_len - 20
        }
    };
    if payload >= 8 {
        for word in [flow.src_port, 9, payload, 0] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
    }
    bytes.resize(HEADER, 0);
    let mut header = [0; HEADER];
    header.copy_from_slice(&bytes[..HEADER]);
    Frame { header, len }
}

/// The sizes of an Internet mix by turns: 7 of 64, 4 of 570 and 1 of 1518 bytes.
pub(crate) const IMIX: [u16; 12] = [64, 570, 64, 64, 570, 64, 1518, 64, 570, 64, 570, 64];

/// Puts items into an order that looks random and is always the same (Fisher and Yates over splitmix64).
pub(crate) fn shuffle<T>(items: &mut [T]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..items.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let other = (z % (last as u64 + 1)) as usize;
        items.swap(last, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(src: &str, dst: &str) -> Flow {
        Flow {
            src_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            dst_mac: MacAddr([2, 0, 0, 0, 0, 2]),
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            src_port: 1024,
        }
    }

    #[test]
    fn ipv4_has_a_right_checksum_and_its_length() {
        let frame = build(&flow("198.18.0.1", "198.19.0.1"), 64);
        assert_eq!((frame.len(), frame.header().len()), (60, 60));
        assert_eq!(checksum(&frame.header()[14..34]), 0);
        assert_eq!(frame.header()[16..18], [0, 46]);
        assert_eq!(frame.header()[38..40], [0, 26]);
    }

    #[test]
    fn ipv6_fits_into_64_bytes_without_udp() {
        let frame = build(&flow("2001:2::1", "2001:2::2"), 64);
        assert_eq!((frame.len(), frame.header()[20]), (60, NO_NEXT_HEADER));
        assert_eq!(frame.header()[18..20], [0, 6]);
        let frame = build(&flow("2001:2::1", "2001:2::2"), 1518);
        assert_eq!((frame.len(), frame.header()[20]), (1514, protocol::UDP));
    }

    #[test]
    fn the_mix_is_seven_to_four_to_one() {
        let count = |size| IMIX.iter().filter(|&&s| s == size).count();
        assert_eq!((count(64), count(570), count(1518)), (7, 4, 1));
    }

    #[test]
    fn shuffling_keeps_everything_and_the_same_order_each_time() {
        let mut a: Vec<u32> = (0..1000).collect();
        let mut b = a.clone();
        shuffle(&mut a);
        shuffle(&mut b);
        assert_eq!(a, b);
        assert!(a.windows(2).any(|pair| pair[0] > pair[1]));
        a.sort_unstable();
        assert!(a.into_iter().eq(0..1000));
    }
}
