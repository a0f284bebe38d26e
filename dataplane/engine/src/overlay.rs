//! Packets of other nodes' endpoints: VXLAN (RFC 7348) and Geneve (RFC 8926), with the sender's identity as VNI
//! (specification, 1.7 and 5).

use std::net::IpAddr;

use octoplane_packet::PacketBuf;
use octoplane_packet::checksum::{checksum, fold, pseudo_header, sum};
use octoplane_packet::headers::{ETHERNET_LEN, IPV4_LEN, IPV6_LEN, Ipv4, Ipv6, ethertype, protocol};
use octoplane_tables::model::TunnelProtocol;
use octoplane_tables::{Snapshot, Target};
use zerocopy::{FromBytes, IntoBytes};

use crate::drop_reason::DropReason;

/// Bytes of a UDP header and of a VXLAN or Geneve header without options.
const UDP_AND_TUNNEL: usize = 16;
/// TTL of what we send.
const TTL: u8 = 64;

/// Identities that mean something else on another node.
mod identity {
    pub(super) const HOST: u32 = 1;
    pub(super) const WORLD: u32 = 2;
    pub(super) const REMOTE_NODE: u32 = 6;
    pub(super) const WORLD_IPV4: u32 = 9;
    pub(super) const WORLD_IPV6: u32 = 10;
}

/// By how much the inner packet has to be smaller than the underlay's MTU.
pub(crate) fn overhead(remote: IpAddr) -> u16 {
    let ip = if remote.is_ipv4() { IPV4_LEN } else { IPV6_LEN };
    (ip + UDP_AND_TUNNEL + ETHERNET_LEN) as u16
}

/// Puts the frame in `buf` into a tunnel packet for the other end that `target` leads to. `hash` is that of the connection.
pub(crate) fn encapsulate<B: PacketBuf>(
    buf: &mut B,
    snapshot: &Snapshot,
    target: &Target,
    remote: IpAddr,
    identity: u32,
    hash: u64,
) -> Result<(), DropReason> {
    let tunnel = &snapshot.node().tunnel;
    let traffic_class = traffic_class(buf.data());
    // Ephemeral ports, so that the underlay spreads connections and keeps each in order (RFC 7348, section 5).
    let sport = 0xc000 | (hash >> 50) as u16;
    let vni = on_the_wire(identity);
    let header = match tunnel.protocol {
        TunnelProtocol::Vxlan => [0x08, 0, 0, 0],
        TunnelProtocol::Geneve => [0, 0, 0x65, 0x58],
    };
    let inner = buf.len();
    let udp_len = (inner + UDP_AND_TUNNEL) as u16;
    let mut upper = [0; UDP_AND_TUNNEL];
    upper[..2].copy_from_slice(&sport.to_be_bytes());
    upper[2..4].copy_from_slice(&tunnel.port.to_be_bytes());
    upper[4..6].copy_from_slice(&udp_len.to_be_bytes());
    upper[8..12].copy_from_slice(&header);
    upper[12..16].copy_from_slice(&(vni << 8).to_be_bytes());
    match (remote, tunnel.local4, tunnel.local6) {
        (IpAddr::V4(dst), Some(src), _) => {
            let mut ip = Ipv4 {
                version_ihl: 0x45,
                // ECN as inside (RFC 6040, section 4.1).
                tos: traffic_class & 3,
                total_len: ((IPV4_LEN + usize::from(udp_len)) as u16).into(),
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
            wrap(buf, target, ethertype::IPV4, ip.as_bytes(), &upper)
        }
        (IpAddr::V6(dst), _, Some(src)) => {
            let ip = Ipv6 {
                version_class_flow: (6 << 28 | u32::from(traffic_class & 3) << 20).into(),
                payload_len: udp_len.into(),
                next_header: protocol::UDP,
                hop_limit: TTL,
                src: src.octets(),
                dst: dst.octets(),
            };
            // Over IPv6 a checksum is expected (RFC 8200, section 8.1).
            let pseudo = pseudo_header(&ip.src, &ip.dst, protocol::UDP, udp_len.into());
            let sum = !fold(pseudo + sum(&upper) + sum(buf.data()));
            upper[6..8].copy_from_slice(&(if sum == 0 { 0xffff } else { sum }).to_be_bytes());
            wrap(buf, target, ethertype::IPV6, ip.as_bytes(), &upper)
        }
        _ => Err(DropReason::NoTunnelEndpoint),
    }
}

fn wrap<B: PacketBuf>(
    buf: &mut B,
    target: &Target,
    kind: u16,
    ip: &[u8],
    upper: &[u8],
) -> Result<(), DropReason> {
    let kind = kind.to_be_bytes();
    let parts = [&target.macs[..], &kind, ip, upper];
    let len = parts.iter().map(|part| part.len()).sum();
    let mut rest = buf.prepend(len).map_err(|_| DropReason::NoBuffer)?;
    for part in parts {
        let (head, tail) = rest.split_at_mut(part.len());
        head.copy_from_slice(part);
        rest = tail;
    }
    Ok(())
}

/// The sender's identity as other nodes know it (specification, 1.7).
fn on_the_wire(identity: u32) -> u32 {
    match identity {
        identity::HOST => identity::REMOTE_NODE,
        identity::WORLD_IPV4 | identity::WORLD_IPV6 => identity::WORLD,
        // Identities of other scopes mean nothing there, and do not fit.
        _ => identity & 0xff_ffff,
    }
}

/// Takes the tunnel's headers, of which the first `ip_len` bytes behind Ethernet are the IP header, off a frame in which the IP
/// packet ends at `end`. Returns the sender's identity.
pub(crate) fn decapsulate<B: PacketBuf>(
    buf: &mut B,
    snapshot: &Snapshot,
    (ip_len, end): (usize, usize),
) -> Result<u32, DropReason> {
    let node = snapshot.node();
    let frame = buf.data();
    let outer = traffic_class(frame) & 3;
    let headers = ETHERNET_LEN + ip_len + UDP_AND_TUNNEL;
    let (udp, tunnel): (&[u8; 8], &[u8; 8]) = frame
        .get(headers - UDP_AND_TUNNEL..end)
        .and_then(|rest| rest.first_chunk().zip(rest.get(8..)?.first_chunk()))
        .ok_or(DropReason::InvalidPacket)?;
    // What stands behind the datagram (RFC 768) is not the tunnel's.
    let beyond = (frame.len() - (headers - UDP_AND_TUNNEL))
        .checked_sub(u16::from_be_bytes([udp[4], udp[5]]).into())
        .filter(|beyond| *beyond >= frame.len() - end)
        .ok_or(DropReason::InvalidPacket)?;
    let options = match node.tunnel.protocol {
        TunnelProtocol::Vxlan if tunnel[0] & 0x08 == 0 => return Err(DropReason::NoTunnelKey),
        TunnelProtocol::Vxlan => 0,
        TunnelProtocol::Geneve if tunnel[0] >> 6 != 0 || tunnel[2..4] != [0x65, 0x58] => {
            return Err(DropReason::InvalidPacket);
        }
        // A control message is for nobody here, and an option that must be understood is not (RFC 8926, section 3.4).
        TunnelProtocol::Geneve if tunnel[1] & 0xc0 != 0 => return Err(DropReason::InvalidPacket),
        TunnelProtocol::Geneve => usize::from(tunnel[0] & 0x3f) * 4,
    };
    let vni = u32::from_be_bytes([0, tunnel[4], tunnel[5], tunnel[6]]);
    buf.trim_back(beyond)
        .and_then(|()| buf.trim_front(headers + options))
        .map_err(|_| DropReason::InvalidPacket)?;
    let v6 = match buf.data().get(12..14) {
        Some([0x08, 0x00]) => false,
        Some([0x86, 0xdd]) => true,
        Some(_) => return Err(DropReason::UnsupportedL3),
        None => return Err(DropReason::InvalidPacket),
    };
    congestion(buf.data_mut(), outer, v6)?;
    match vni {
        // No other node speaks for this one.
        identity::HOST => Err(DropReason::InvalidIdentity),
        identity::WORLD if node.dual_stack && v6 => Ok(identity::WORLD_IPV6),
        identity::WORLD if node.dual_stack => Ok(identity::WORLD_IPV4),
        vni => Ok(vni),
    }
}

/// Carries congestion that the tunnel met over to the packet inside (RFC 6040, section 4.2).
fn congestion(frame: &mut [u8], outer: u8, v6: bool) -> Result<(), DropReason> {
    const EXPERIENCED: u8 = 3;
    let inner = traffic_class(frame);
    match (inner & 3, outer) {
        (0, EXPERIENCED) => return Err(DropReason::InvalidPacket),
        (1 | 2, EXPERIENCED) => {}
        // What was not marked as experienced may still change from one capability to the other.
        (2, 1) => return set_traffic_class(frame, inner & !3 | 1, v6),
        _ => return Ok(()),
    }
    set_traffic_class(frame, inner | EXPERIENCED, v6)
}

fn set_traffic_class(frame: &mut [u8], class: u8, v6: bool) -> Result<(), DropReason> {
    let ip = frame.get_mut(ETHERNET_LEN..).ok_or(DropReason::InvalidPacket)?;
    if v6 {
        if let [first, second, ..] = ip {
            *first = *first & 0xf0 | class >> 4;
            *second = *second & 0x0f | class << 4;
        }
    } else if let Ok((header, _)) = Ipv4::mut_from_prefix(ip) {
        let word = |tos: u8| u16::from(header.version_ihl) << 8 | u16::from(tos);
        let (old, new) = (word(header.tos), word(class));
        header.tos = class;
        let sum = octoplane_packet::checksum::update(header.checksum.get(), old, new);
        header.checksum.set(sum);
    }
    Ok(())
}

/// DSCP and ECN of the IP packet in a frame.
fn traffic_class(frame: &[u8]) -> u8 {
    match frame.get(12..16) {
        Some(&[0x08, 0x00, _, tos]) => tos,
        Some(&[0x86, 0xdd, first, second]) => first << 4 | second >> 4,
        _ => 0,
    }
}

/// Whether the IPv4 header of the packet inside is sound.
pub(crate) fn check4(frame: &[u8]) -> Result<(), DropReason> {
    let packet = frame.get(ETHERNET_LEN..).unwrap_or_default();
    let (header, _) = Ipv4::ref_from_prefix(packet).map_err(|_| DropReason::InvalidPacket)?;
    let (len, total) = (header.header_len(), usize::from(header.total_len.get()));
    if header.version_ihl >> 4 != 4 || len < IPV4_LEN || total < len || total > packet.len() {
        return Err(DropReason::InvalidPacket);
    }
    match checksum(&packet[..len]) {
        0 => Ok(()),
        _ => Err(DropReason::L3Checksum),
    }
}

/// Whether the IPv6 header of the packet inside is sound.
pub(crate) fn check6(frame: &[u8]) -> Result<(), DropReason> {
    let packet = frame.get(ETHERNET_LEN..).unwrap_or_default();
    let (header, rest) = Ipv6::ref_from_prefix(packet).map_err(|_| DropReason::InvalidPacket)?;
    let sound =
        header.version_class_flow.get() >> 28 == 6 && usize::from(header.payload_len.get()) <= rest.len();
    sound.then_some(()).ok_or(DropReason::InvalidPacket)
}
