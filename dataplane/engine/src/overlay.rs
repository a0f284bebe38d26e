//! Packets of other nodes' endpoints: VXLAN (RFC 7348) and Geneve (RFC 8926), with the sender's identity as VNI
//! (specification, 1.7 and 5).

use octoplane_packet::PacketBuf;
use octoplane_packet::checksum::{checksum, fold, pseudo_header, sum};
use octoplane_packet::headers::{ETHERNET_LEN, IPV4_LEN, IPV6_LEN, Ipv4, Ipv6, ethertype, protocol};
use octoplane_tables::model::{DsrDispatch, TunnelProtocol};
use octoplane_tables::{Snapshot, TUNNEL_HEADERS_V4, TUNNEL_HEADERS_V6, TunnelEnd};
use zerocopy::FromBytes;

use crate::drop_reason::DropReason;
use crate::dsr::{self, Front};

/// Bytes of a UDP header and of a VXLAN or Geneve header without options.
const UDP_AND_TUNNEL: usize = 16;
/// Bytes of the latter.
const TUNNEL: usize = 8;
/// Identities that mean something else on another node.
mod identity {
    pub(super) const HOST: u32 = 1;
    pub(super) const WORLD: u32 = 2;
    pub(super) const REMOTE_NODE: u32 = 6;
    pub(super) const WORLD_IPV4: u32 = 9;
    pub(super) const WORLD_IPV6: u32 = 10;
}

/// Puts the frame in `buf` into a tunnel packet for `end`, which `target` leads to. `hash` is that of the connection, `ecn` the
/// congestion notification of the packet inside.
#[inline(always)]
pub(crate) fn encapsulate<B: PacketBuf>(
    buf: &mut B,
    end: &TunnelEnd,
    identity: u32,
    hash: u64,
    ecn: u8,
) -> Result<(), DropReason> {
    // Ephemeral ports, so that the underlay spreads connections and keeps each in order (RFC 7348, section 5).
    let sport = 0xc000 | (hash >> 50) as u16;
    let vni = on_the_wire(identity);
    if usize::from(end.len) == TUNNEL_HEADERS_V4 {
        return encapsulate4(buf, &end.headers, ecn, sport, vni);
    }
    encapsulate6(buf, end, ecn, sport, vni)
}

/// The same with a Geneve option that says what the client of a service used (specification, 3.6).
#[allow(clippy::too_many_arguments, reason = "those of a tunnel packet, and one more")]
pub(crate) fn encapsulate_direct<B: PacketBuf>(
    buf: &mut B,
    end: &TunnelEnd,
    identity: u32,
    hash: u64,
    ecn: u8,
    front: &Front,
) -> Result<(), DropReason> {
    let flags = dsr::geneve::prepend(buf, front)?;
    let mut end = *end;
    let tunnel = usize::from(end.len)
        .checked_sub(TUNNEL)
        .and_then(|at| end.headers.get_mut(at..at + 2))
        .ok_or(DropReason::NoTunnelEndpoint)?;
    tunnel.copy_from_slice(&flags);
    encapsulate(buf, &end, identity, hash, ecn)
}

/// Over IPv4. Eight bytes at a time: what is prepared, with the packet's own in between. Words have the least significant byte
/// first, as checksums do not care (RFC 1071, section 2 B).
#[inline(always)]
fn encapsulate4<B: PacketBuf>(
    buf: &mut B,
    headers: &[u8; TUNNEL_HEADERS_V6],
    ecn: u8,
    sport: u16,
    vni: u32,
) -> Result<(), DropReason> {
    let udp_len = (buf.len() + UDP_AND_TUNNEL) as u16;
    let total = (udp_len + IPV4_LEN as u16).swap_bytes();
    let frame = buf.prepend(TUNNEL_HEADERS_V4).map_err(|_| DropReason::NoBuffer)?;
    let Some(frame) = frame.first_chunk_mut::<TUNNEL_HEADERS_V4>() else {
        return Err(DropReason::NoBuffer);
    };
    let word = |at: usize| {
        let bytes = headers[at..].first_chunk();
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    };
    let ids = word(24);
    // The prepared checksum is that of a header with zeros in these two places (RFC 1624, equation 3).
    let sum = u32::from(!(ids as u16)) + u32::from(total) + (u32::from(ecn) << 8);
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !((sum + (sum >> 16)) as u16);
    let vni = vni.swap_bytes() >> 8;
    let words = [
        word(0),
        // The end of the Ethernet addresses, type, version and traffic class.
        word(8) | u64::from(ecn) << 56,
        word(16) | u64::from(total),
        ids & !0xffff | u64::from(checksum),
        word(32) | u64::from(sport.swap_bytes()) << 16 | u64::from(udp_len.swap_bytes()) << 48,
        word(40) | u64::from(vni) << 48,
    ];
    let (places, rest) = frame.as_chunks_mut::<8>();
    for (place, word) in places.iter_mut().zip(words) {
        *place = word.to_le_bytes();
    }
    rest.copy_from_slice(&[(vni >> 16) as u8, 0]);
    Ok(())
}

/// Over IPv6.
#[inline(never)]
fn encapsulate6<B: PacketBuf>(
    buf: &mut B,
    end: &TunnelEnd,
    ecn: u8,
    sport: u16,
    vni: u32,
) -> Result<(), DropReason> {
    // The end of a tunnel that there is none of has no headers at all.
    if usize::from(end.len) != TUNNEL_HEADERS_V6 {
        return Err(DropReason::NoTunnelEndpoint);
    }
    let inner = buf.len();
    let frame = buf.prepend(end.len.into()).map_err(|_| DropReason::NoBuffer)?;
    frame[..TUNNEL_HEADERS_V6].copy_from_slice(&end.headers);
    // The two lowest bits of the traffic class.
    frame[ETHERNET_LEN + 1] |= ecn << 4;
    let udp_len = (inner + UDP_AND_TUNNEL) as u16;
    frame[ETHERNET_LEN + 4..ETHERNET_LEN + 6].copy_from_slice(&udp_len.to_be_bytes());
    let (ip, upper) = frame[ETHERNET_LEN..].split_at_mut(IPV6_LEN);
    upper[..2].copy_from_slice(&sport.to_be_bytes());
    upper[4..6].copy_from_slice(&udp_len.to_be_bytes());
    upper[12..16].copy_from_slice(&(vni << 8).to_be_bytes());
    let sum = udp6_checksum(ip, &upper[..usize::from(udp_len)]);
    upper[6..8].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// Bytes in front of the packet in a tunnel, at most: all headers of the tunnel, and two Ethernet headers.
pub const MAX_FRONT: usize = TUNNEL_HEADERS_V6 + ETHERNET_LEN;

/// Puts the headers of a tunnel packet that `encapsulate` made back in front of another IP packet than the one that was in it,
/// and makes lengths, type and checksums right. `front` is what was in front of that one, up to its IP header.
///
/// # Errors
/// There is no room, the packet is of no family, too long, or these are no such headers.
pub fn refit<B: PacketBuf>(buf: &mut B, front: &[u8]) -> Result<(), DropReason> {
    const V4: usize = TUNNEL_HEADERS_V4 + ETHERNET_LEN;
    let kind = match buf.data().first().map(|first| first >> 4) {
        Some(4) => ethertype::IPV4,
        Some(6) => ethertype::IPV6,
        _ => return Err(DropReason::InvalidPacket),
    };
    let udp_len = buf.len() + ETHERNET_LEN + UDP_AND_TUNNEL;
    let udp_len = u16::try_from(udp_len)
        .ok()
        .filter(|len| *len <= u16::MAX - IPV4_LEN as u16)
        .ok_or(DropReason::InvalidPacket)?;
    let ip_len = match front.len() {
        V4 => IPV4_LEN,
        MAX_FRONT => IPV6_LEN,
        _ => return Err(DropReason::InvalidPacket),
    };
    let frame = buf.prepend(front.len()).map_err(|_| DropReason::NoBuffer)?;
    frame[..front.len()].copy_from_slice(front);
    frame[front.len() - 2..front.len()].copy_from_slice(&kind.to_be_bytes());
    let (ip, upper) = frame[ETHERNET_LEN..].split_at_mut(ip_len);
    upper[4..6].copy_from_slice(&udp_len.to_be_bytes());
    if ip_len == IPV4_LEN {
        ip[2..4].copy_from_slice(&(udp_len + IPV4_LEN as u16).to_be_bytes());
        ip[10..12].fill(0);
        let checksum = checksum(ip);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    } else {
        ip[4..6].copy_from_slice(&udp_len.to_be_bytes());
        upper[6..8].fill(0);
        let sum = udp6_checksum(ip, &upper[..usize::from(udp_len)]);
        upper[6..8].copy_from_slice(&sum.to_be_bytes());
    }
    Ok(())
}

/// Checksum of a UDP datagram over IPv6, whose own field is zero. There has to be one (RFC 8200, section 8.1).
fn udp6_checksum(ip: &[u8], datagram: &[u8]) -> u16 {
    let pseudo = pseudo_header(&ip[8..24], &ip[24..40], protocol::UDP, datagram.len());
    match !fold(pseudo + sum(datagram)) {
        0 => 0xffff,
        sum => sum,
    }
}

/// The sender's identity as other nodes know it (specification, 1.7).
#[inline(always)]
fn on_the_wire(identity: u32) -> u32 {
    // Reserved identities are below 256, and local ones above 24 bits; nearly all packets have others, which stay as they are.
    match identity {
        256..=0xff_ffff => identity,
        _ => special_on_the_wire(identity),
    }
}

#[cold]
#[inline(never)]
fn special_on_the_wire(identity: u32) -> u32 {
    match identity {
        identity::HOST => identity::REMOTE_NODE,
        identity::WORLD_IPV4 | identity::WORLD_IPV6 => identity::WORLD,
        // Identities of other scopes mean nothing there, and do not fit.
        _ if identity > 0xff_ffff => identity::WORLD,
        _ => identity,
    }
}

/// Takes the tunnel's headers, of which the first `ip_len` bytes behind Ethernet are the IP header, off a frame in which the IP
/// packet ends at `end`. Returns the sender's identity, and what the client of a service used if the tunnel packet says so.
pub(crate) fn decapsulate<B: PacketBuf>(
    buf: &mut B,
    snapshot: &Snapshot,
    (ip_len, end): (usize, usize),
) -> Result<(u32, Option<Front>), DropReason> {
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
        // A control message is for nobody here (RFC 8926, section 3.4).
        TunnelProtocol::Geneve if tunnel[1] & 0x80 != 0 => return Err(DropReason::InvalidPacket),
        TunnelProtocol::Geneve => usize::from(tunnel[0] & 0x3f) * 4,
    };
    let critical = node.tunnel.protocol == TunnelProtocol::Geneve && tunnel[1] & 0x40 != 0;
    let front = match options {
        0 if critical => return Err(DropReason::InvalidPacket),
        0 => None,
        _ => {
            let options = frame
                .get(headers..headers + options)
                .filter(|_| headers + options <= end);
            let known = snapshot.returns_directly() && node.dsr.dispatch == DsrDispatch::Geneve;
            dsr::geneve::read(options.ok_or(DropReason::InvalidPacket)?, critical, known)?
        }
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
    if front.is_some_and(|front| front.addr.is_ipv6() != v6) {
        return Err(DropReason::InvalidPacket);
    }
    let identity = match vni {
        // No other node speaks for this one.
        identity::HOST => return Err(DropReason::InvalidIdentity),
        identity::WORLD if node.dual_stack && v6 => identity::WORLD_IPV6,
        identity::WORLD if node.dual_stack => identity::WORLD_IPV4,
        vni => vni,
    };
    Ok((identity, front))
}

/// Carries congestion that the tunnel met over to the packet inside (RFC 6040, section 4.2).
pub(crate) fn congestion(frame: &mut [u8], outer: u8, v6: bool) -> Result<(), DropReason> {
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
pub(crate) fn traffic_class(frame: &[u8]) -> u8 {
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
