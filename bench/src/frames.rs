//! Packets to measure with.

use std::net::{IpAddr, Ipv4Addr};

use octoplane_packet::MacAddr;
use octoplane_packet::checksum::checksum;
use octoplane_packet::headers::{Ethernet, Ipv4, Ipv6, ethertype, protocol};
use zerocopy::IntoBytes;

/// Bytes of a frame's check sequence: part of its size on the wire, never in a buffer.
pub(crate) const FCS: u16 = 4;
/// Bytes of a frame that are not all zero, at most.
const HEADER: usize = 128;
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

/// The bytes that matter of many frames, one behind the other: as little memory as can be goes through the caches of who
/// reads them.
pub(crate) struct Packed {
    bytes: Vec<u8>,
    /// Bytes of each.
    stride: usize,
    lens: Vec<u16>,
}

impl Packed {
    pub(crate) fn new(frames: &[Frame]) -> Self {
        let stride = frames.iter().map(|frame| frame.header().len()).max();
        // Whole and half cache lines.
        let stride = stride.unwrap_or(0).next_multiple_of(32).max(32);
        let mut bytes = vec![0; stride * frames.len()];
        for (to, frame) in bytes.chunks_exact_mut(stride).zip(frames) {
            to[..frame.header().len()].copy_from_slice(frame.header());
        }
        let lens = frames.iter().map(|frame| frame.len).collect();
        Self { bytes, stride, lens }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.lens.len()
    }

    /// Frame after frame, again and again: the bytes that matter, padded with zeros, and the frame's length.
    pub(crate) fn cycle(&self) -> impl Iterator<Item = (&[u8], usize)> {
        let frames = self.bytes.chunks_exact(self.stride);
        frames
            .zip(&self.lens)
            .map(|(bytes, &len)| (bytes, len.into()))
            .cycle()
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
    pub(crate) dst_port: u16,
}

/// The tunnel packet around a frame: VXLAN over IPv4.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outer {
    pub(crate) src_mac: MacAddr,
    pub(crate) dst_mac: MacAddr,
    pub(crate) src: Ipv4Addr,
    pub(crate) dst: Ipv4Addr,
    pub(crate) src_port: u16,
    pub(crate) vni: u32,
}

/// Bytes of the outer headers: Ethernet, IPv4, UDP, VXLAN.
const OUTER: usize = 14 + 20 + 8 + 8;

/// Puts a frame into a tunnel packet (RFC 7348, section 5).
pub(crate) fn wrap(outer: &Outer, inner: &Frame) -> Frame {
    let len = inner.len + OUTER as u16;
    let mut ip = Ipv4 {
        version_ihl: 0x45,
        tos: 0,
        total_len: (len - 14).into(),
        id: 0.into(),
        flags_fragment: Ipv4::DF.into(),
        ttl: 64,
        protocol: protocol::UDP,
        checksum: 0.into(),
        src: outer.src.octets(),
        dst: outer.dst.octets(),
    };
    ip.checksum = checksum(ip.as_bytes()).into();
    let ethernet = Ethernet {
        dst: outer.dst_mac.0,
        src: outer.src_mac.0,
        ethertype: ethertype::IPV4.into(),
    };
    let udp = [outer.src_port, 8472, len - 34, 0].map(u16::to_be_bytes).concat();
    let vxlan = [0x0800_0000, outer.vni << 8].map(u32::to_be_bytes).concat();
    let mut bytes = [ethernet.as_bytes(), ip.as_bytes(), &udp, &vxlan, inner.header()].concat();
    bytes.resize(HEADER, 0);
    let mut header = [0; HEADER];
    header.copy_from_slice(&bytes[..HEADER]);
    Frame { header, len }
}

/// A UDP packet in a frame of `size` bytes with FCS, 64 or more. An IPv6 packet whose frame has no
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
        for word in [flow.src_port, flow.dst_port, payload, 0] {
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
            dst_port: 9,
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
    fn a_tunnel_packet_has_the_frame_inside() {
        let inner = build(&flow("198.18.0.1", "198.19.0.1"), 64);
        let outer = Outer {
            src_mac: MacAddr([2, 0, 0, 0, 0, 3]),
            dst_mac: MacAddr([2, 0, 0, 0, 0, 4]),
            src: Ipv4Addr::new(192, 0, 2, 2),
            dst: Ipv4Addr::new(192, 0, 2, 1),
            src_port: 50_000,
            vni: 0x0b_5005,
        };
        let frame = wrap(&outer, &inner);
        assert_eq!((frame.len(), &frame.header()[50..]), (110, inner.header()));
        assert_eq!(checksum(&frame.header()[14..34]), 0);
        assert_eq!(frame.header()[16..18], [0, 96]);
        assert_eq!(
            frame.header()[34..50],
            [0xc3, 0x50, 0x21, 0x18, 0, 76, 0, 0, 8, 0, 0, 0, 0x0b, 0x50, 5, 0]
        );
    }

    #[test]
    fn packed_frames_come_again_and_again() {
        let frames = [64, 1518].map(|size| build(&flow("198.18.0.1", "198.19.0.1"), size));
        let packed = Packed::new(&frames);
        let lens: Vec<usize> = packed.cycle().take(5).map(|(_, len)| len).collect();
        assert_eq!(lens, [60, 1514, 60, 1514, 60]);
        for ((bytes, _), frame) in packed.cycle().zip(&frames) {
            assert_eq!(&bytes[..frame.header().len()], frame.header());
        }
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
