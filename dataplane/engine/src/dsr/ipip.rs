//! Packets in IP packets (RFC 2003, RFC 2473), from a load balancer to a backend.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use octoplane_flow::Tuple;
use octoplane_packet::checksum::checksum;
use octoplane_packet::headers::{ETHERNET_LEN, IPV4_LEN, IPV6_LEN, Ipv4, Ipv6};
use octoplane_packet::{PacketBuf, Prefix};
use octoplane_tables::NodeView;
use zerocopy::IntoBytes;

use crate::drop_reason::DropReason;
use crate::overlay::{congestion, traffic_class};

/// Protocol numbers of IPv4 in IP and IPv6 in IP.
pub(crate) const IPV4: u8 = 4;
pub(crate) const IPV6: u8 = 41;
/// TTL and hop limit of outer headers.
const TTL: u8 = 64;

/// Bytes that a packet to this backend grows by.
pub(super) fn len(dst: IpAddr) -> usize {
    match dst {
        IpAddr::V4(_) => IPV4_LEN,
        IpAddr::V6(_) => IPV6_LEN,
    }
}

/// Puts the IP packet of `size` bytes in `buf`, which is of `tuple`'s connection, into one to the backend `dst`.
///
/// # Errors
/// Reason to drop it: there is no room, or the node has no address in this family.
pub(crate) fn encapsulate<B: PacketBuf>(
    buf: &mut B,
    size: usize,
    node: &NodeView,
    tuple: &Tuple,
    dst: IpAddr,
) -> Result<(), DropReason> {
    let class = traffic_class(buf.data());
    let len = len(dst);
    let frame = buf.prepend(len).map_err(|_| DropReason::NoBuffer)?;
    if frame.len() < len + ETHERNET_LEN {
        return Err(DropReason::InvalidPacket);
    }
    frame.copy_within(len..len + ETHERNET_LEN, 0);
    let outer = &mut frame[ETHERNET_LEN..ETHERNET_LEN + len];
    match (dst, source(node, tuple)) {
        (IpAddr::V4(dst), Some(IpAddr::V4(src))) => {
            let total = u16::try_from(size + len).map_err(|_| DropReason::InvalidPacket)?;
            let mut header = Ipv4 {
                version_ihl: 0x45,
                tos: class,
                total_len: total.into(),
                id: 0.into(),
                // Nothing on the way may cut it: what is inside was made to fit.
                flags_fragment: Ipv4::DF.into(),
                ttl: TTL,
                protocol: IPV4,
                checksum: 0.into(),
                src: src.octets(),
                dst: dst.octets(),
            };
            header.checksum = checksum(header.as_bytes()).into();
            outer.copy_from_slice(header.as_bytes());
        }
        (IpAddr::V6(dst), Some(IpAddr::V6(src))) => {
            let payload = u16::try_from(size).map_err(|_| DropReason::InvalidPacket)?;
            let header = Ipv6 {
                version_class_flow: (6 << 28 | u32::from(class) << 20).into(),
                payload_len: payload.into(),
                next_header: IPV6,
                hop_limit: TTL,
                src: src.octets(),
                dst: dst.octets(),
            };
            outer.copy_from_slice(header.as_bytes());
        }
        _ => return Err(DropReason::NoTunnelEndpoint),
    }
    Ok(())
}

/// The outer source address of a connection's packets (specification, 3.6): of one connection always the same, so that they
/// stay in order; of others another one, so that receivers spread them.
fn source(node: &NodeView, tuple: &Tuple) -> Option<IpAddr> {
    let ports = u32::from(tuple.sport()) << 16 | u32::from(tuple.dport());
    match tuple.src() {
        IpAddr::V4(client) => {
            let Some(prefix) = node.dsr.source4 else {
                return node.first4.map(IpAddr::V4);
            };
            let IpAddr::V4(base) = prefix.addr() else {
                return None;
            };
            let host = spread(client.to_bits() ^ ports, host_bits(&prefix, 32));
            Some(Ipv4Addr::from_bits(base.to_bits() | host).into())
        }
        IpAddr::V6(client) => {
            let Some(prefix) = node.dsr.source6 else {
                return node.first6.map(IpAddr::V6);
            };
            let IpAddr::V6(base) = prefix.addr() else {
                return None;
            };
            // The specification says it for IPv4; the address counts as the four words that it has.
            let bits = client.to_bits();
            let folded = [96, 64, 32, 0]
                .into_iter()
                .fold(ports, |sum, shift| sum ^ (bits >> shift) as u32);
            let host = spread(folded, host_bits(&prefix, 128));
            Some(Ipv6Addr::from_bits(base.to_bits() | u128::from(host)).into())
        }
    }
}

fn host_bits(prefix: &Prefix, all: u32) -> u32 {
    (all - u32::from(prefix.len()).min(all)).min(32)
}

/// The upper bits of a product with the golden ratio (Fibonacci hashing).
fn spread(value: u32, bits: u32) -> u32 {
    let product = value.wrapping_mul(0x9e37_79b9);
    product.checked_shr(32 - bits).unwrap_or(0)
}

/// Takes an outer IP header of `len` bytes off the packet of `total` bytes in `buf`.
///
/// # Errors
/// Reason to drop it: what is inside is not of its family.
pub(crate) fn decapsulate<B: PacketBuf>(buf: &mut B, len: usize, total: usize) -> Result<(), DropReason> {
    let invalid = DropReason::InvalidPacket;
    let frame = buf.data();
    let outer = traffic_class(frame) & 3;
    let first = frame.get(ETHERNET_LEN..).and_then(|ip| ip.first());
    let inner = frame.get(ETHERNET_LEN + len..ETHERNET_LEN + total);
    let inner = inner.and_then(|ip| ip.first());
    let (Some(first), Some(inner)) = (first, inner) else {
        return Err(invalid);
    };
    if first >> 4 != inner >> 4 {
        return Err(invalid);
    }
    let v6 = inner >> 4 == 6;
    buf.trim_back(frame.len() - ETHERNET_LEN - total)
        .map_err(|_| invalid)?;
    buf.data_mut().copy_within(..ETHERNET_LEN, len);
    buf.trim_front(len).map_err(|_| invalid)?;
    congestion(buf.data_mut(), outer, v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: (0xc6336407 ^ (4000 << 16 | 80)) · 0x9e3779b9 mod 2^32 is 0xed73056f; a /24 takes the upper 8 bits.
    #[test]
    fn the_upper_bits_of_a_product() {
        let value = 0xc633_6407_u32 ^ (4000 << 16 | 80);
        assert_eq!(value, 0xc993_6457);
        let product = (u64::from(value) * 0x9e37_79b9) as u32;
        assert_eq!(spread(value, 8), product >> 24);
        assert_eq!((spread(value, 0), spread(value, 32)), (0, product));
    }
}
