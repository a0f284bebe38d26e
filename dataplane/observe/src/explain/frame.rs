//! The packet that is asked about, as a frame.

use std::net::IpAddr;

use octoplane_flow::Tuple;
use octoplane_packet::MacAddr;
use octoplane_packet::checksum::{checksum, fold, pseudo_header, sum};
use octoplane_packet::headers::{Ipv4, Ipv6, ethertype, icmp4, icmp6, protocol};
use zerocopy::IntoBytes;

/// TTL and hop limit.
const HOPS: u8 = 64;
/// TCP flags (RFC 9293, section 3.1).
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A frame between these stations with a packet of this tuple: the first of its connection, or a later one.
pub(super) fn frame(dst: MacAddr, src: MacAddr, tuple: &Tuple, later: bool) -> Vec<u8> {
    let upper = upper(tuple, later);
    let kind = if tuple.is_v6() {
        ethertype::IPV6
    } else {
        ethertype::IPV4
    };
    let mut frame = [&dst.0[..], &src.0, &kind.to_be_bytes()].concat();
    match (tuple.src(), tuple.dst()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut ip = Ipv4 {
                version_ihl: 0x45,
                tos: 0,
                total_len: ((20 + upper.len()) as u16).into(),
                id: 0.into(),
                flags_fragment: Ipv4::DF.into(),
                ttl: HOPS,
                protocol: tuple.protocol(),
                checksum: 0.into(),
                src: src.octets(),
                dst: dst.octets(),
            };
            ip.checksum = checksum(ip.as_bytes()).into();
            frame.extend(ip.as_bytes());
        }
        (src, dst) => {
            let octets = |addr| match addr {
                IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
                IpAddr::V6(addr) => addr.octets(),
            };
            let ip = Ipv6 {
                version_class_flow: (6 << 28).into(),
                payload_len: (upper.len() as u16).into(),
                next_header: tuple.protocol(),
                hop_limit: HOPS,
                src: octets(src),
                dst: octets(dst),
            };
            frame.extend(ip.as_bytes());
        }
    }
    frame.extend(upper);
    frame
}

/// The upper layer, with its checksum.
fn upper(tuple: &Tuple, later: bool) -> Vec<u8> {
    let ports = [tuple.sport().to_be_bytes(), tuple.dport().to_be_bytes()].concat();
    let (mut bytes, at) = match tuple.protocol() {
        protocol::TCP => {
            let flags = if later { ACK } else { SYN };
            let rest = [0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
            ([&ports[..], &rest].concat(), Some(16))
        }
        protocol::UDP => ([&ports[..], &[0, 8, 0, 0]].concat(), Some(6)),
        // A common header and an INIT chunk (RFC 9260, section 3.3.2). Its checksum is none of the data plane's business.
        protocol::SCTP => {
            let chunk = [1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1];
            ([&ports[..], &[0; 8], &chunk].concat(), None)
        }
        other => {
            let (request, reply) = match other {
                protocol::ICMPV6 => (icmp6::ECHO_REQUEST, icmp6::ECHO_REPLY),
                _ => (icmp4::ECHO_REQUEST, icmp4::ECHO_REPLY),
            };
            let kind = if tuple.sport() == 0 { request } else { reply };
            let id = (tuple.sport() | tuple.dport()).to_be_bytes();
            (vec![kind, 0, 0, 0, id[0], id[1], 0, 1], Some(2))
        }
    };
    let pseudo = match (tuple.protocol(), tuple.src(), tuple.dst()) {
        (protocol::ICMP, _, _) => 0,
        (number, IpAddr::V4(src), IpAddr::V4(dst)) => {
            pseudo_header(&src.octets(), &dst.octets(), number, bytes.len())
        }
        (number, IpAddr::V6(src), IpAddr::V6(dst)) => {
            pseudo_header(&src.octets(), &dst.octets(), number, bytes.len())
        }
        _ => 0,
    };
    let sum = !fold(pseudo + sum(&bytes));
    if let Some(field) = at.and_then(|at| bytes.get_mut(at..at + 2)) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}
