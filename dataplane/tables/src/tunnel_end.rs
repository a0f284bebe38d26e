//! The other ends of tunnels, each with the headers of packets to it prepared.

use std::net::IpAddr;

use octoplane_packet::checksum::checksum;
use octoplane_packet::headers::{ETHERNET_LEN, IPV4_LEN, IPV6_LEN, Ipv4, Ipv6, ethertype, protocol};
use zerocopy::IntoBytes;

use crate::model::{PortId, Tunnel, TunnelProtocol};
use crate::target::Target;

/// Bytes of a UDP header and of a VXLAN or Geneve header without options.
const UDP_AND_TUNNEL: usize = 16;
/// TTL of tunnel packets.
const TTL: u8 = 64;

/// Bytes of the headers of a tunnel packet over IPv4, from Ethernet to the tunnel's own.
pub const TUNNEL_HEADERS_V4: usize = ETHERNET_LEN + IPV4_LEN + UDP_AND_TUNNEL;
/// The same over IPv6.
pub const TUNNEL_HEADERS_V6: usize = ETHERNET_LEN + IPV6_LEN + UDP_AND_TUNNEL;

/// A node that a tunnel leads to. Over IPv4 all that a packet needs is in one cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct TunnelEnd {
    /// Number of the target that leads there, for [`crate::Snapshot::target`]; 0: there is no route.
    pub target: u32,
    /// Bytes of `headers` that are used; 0: there is no tunnel, as this node has no address in the family of the other one's.
    /// An inner packet has to be as many bytes smaller than what fits on the way.
    pub len: u16,
    /// Port to send from, where `room` is not 0.
    pub port: PortId,
    /// Bytes that a frame may have before it is put into the tunnel: those that fit on the way then. 0: none fits without a
    /// closer look.
    pub room: u16,
    /// Headers of a tunnel packet, complete but for Ethernet addresses where `room` is 0, and source port, VNI, the bits of congestion
    /// notification and a UDP checksum over IPv6, which are zero, and lengths and the IPv4 header's checksum, which are
    /// right for a total length of zero.
    pub headers: [u8; TUNNEL_HEADERS_V6],
    /// The node's address.
    pub addr: Option<IpAddr>,
}

impl Default for TunnelEnd {
    fn default() -> Self {
        Self {
            target: 0,
            len: 0,
            port: 0,
            room: 0,
            headers: [0; TUNNEL_HEADERS_V6],
            addr: None,
        }
    }
}

impl TunnelEnd {
    /// The end with this address, to which target number `number` leads.
    pub(crate) fn new(addr: IpAddr, number: u32, target: &Target, tunnel: &Tunnel) -> Self {
        let mut end = Self {
            target: number,
            addr: Some(addr),
            ..Self::default()
        };
        let upper = upper(tunnel);
        match (addr, tunnel.local4, tunnel.local6) {
            (IpAddr::V4(dst), Some(src), _) => {
                let mut ip = Ipv4 {
                    version_ihl: 0x45,
                    tos: 0,
                    total_len: 0.into(),
                    id: 0.into(),
                    // Nothing on the way may cut it: what is inside was made to fit.
                    flags_fragment: Ipv4::DF.into(),
                    ttl: TTL,
                    protocol: protocol::UDP,
                    checksum: 0.into(),
                    src: src.octets(),
                    dst: dst.octets(),
                };
                ip.checksum = checksum(ip.as_bytes()).into();
                end.fill(ethertype::IPV4, ip.as_bytes(), &upper);
            }
            (IpAddr::V6(dst), _, Some(src)) => {
                let ip = Ipv6 {
                    version_class_flow: (6 << 28).into(),
                    payload_len: 0.into(),
                    next_header: protocol::UDP,
                    hop_limit: TTL,
                    src: src.octets(),
                    dst: dst.octets(),
                };
                end.fill(ethertype::IPV6, ip.as_bytes(), &upper);
            }
            _ => {}
        }
        end.lead_by(target);
        end
    }

    /// Takes over what packets need to know of the target that leads there.
    fn lead_by(&mut self, target: &Target) {
        if self.len == 0 || target.limit == 0 {
            return;
        }
        self.headers[..ETHERNET_LEN - 2].copy_from_slice(&target.macs);
        self.port = target.port;
        self.room = target
            .limit
            .saturating_add(ETHERNET_LEN as u16)
            .saturating_sub(self.len);
    }

    fn fill(&mut self, kind: u16, ip: &[u8], upper: &[u8]) {
        let mut at = ETHERNET_LEN - 2;
        for part in [&kind.to_be_bytes(), ip, upper] {
            self.headers[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        self.len = at as u16;
    }
}

/// UDP and what follows it (RFC 7348, section 5; RFC 8926, section 3.4).
fn upper(tunnel: &Tunnel) -> [u8; UDP_AND_TUNNEL] {
    let mut upper = [0; UDP_AND_TUNNEL];
    upper[2..4].copy_from_slice(&tunnel.port.to_be_bytes());
    upper[8..12].copy_from_slice(match tunnel.protocol {
        TunnelProtocol::Vxlan => &[0x08, 0, 0, 0],
        TunnelProtocol::Geneve => &[0, 0, 0x65, 0x58],
    });
    upper
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn over_ipv4_one_cache_line_has_it_all() {
        assert!(offset_of!(TunnelEnd, headers) + TUNNEL_HEADERS_V4 <= 64);
        assert_eq!(size_of::<TunnelEnd>(), 128);
    }

    #[test]
    fn without_an_address_of_ours_there_is_none() {
        let ours = Tunnel {
            local4: Some([192, 0, 2, 1].into()),
            ..Tunnel::default()
        };
        let len = |addr: &str| TunnelEnd::new(addr.parse().unwrap(), 7, &Target::default(), &ours).len;
        assert_eq!((len("192.0.2.9"), len("2001:db8::9")), (50, 0));
    }
}
