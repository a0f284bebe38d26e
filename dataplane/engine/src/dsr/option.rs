//! The option of the IPv4 header and the destination option of IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use octoplane_packet::PacketBuf;
use octoplane_packet::checksum::checksum;
use octoplane_packet::headers::{ETHERNET_LEN, IPV4_LEN, IPV6_LEN};

use super::Front;
use crate::drop_reason::DropReason;

/// Type of the IPv4 option: number 26, to be copied into all fragments (RFC 791, section 3.1).
const TYPE4: u8 = 0x9a;
/// Type, length, port and address.
const LEN4: usize = 8;
/// Type of the IPv6 option: to be skipped by those who do not know it (RFC 8200, section 4.2).
const TYPE6: u8 = 0x1b;
/// What the option holds: address, port, and two bytes of nothing.
const VALUE6: u8 = 20;
/// The extension header with it.
const LEN6: usize = 24;
/// Longest IPv4 header.
const MAX_HEADER: usize = 60;
/// Next headers: hop-by-hop and destination options.
const HOP_BY_HOP: u8 = 0;
const DESTINATION: u8 = 60;

/// Bytes that a packet grows by.
pub(super) fn len(front: &Front) -> usize {
    match front.addr {
        IpAddr::V4(_) => LEN4,
        IpAddr::V6(_) => LEN6,
    }
}

/// Puts the option into the packet in `buf`, which is of `front`'s family and has sound headers.
///
/// # Errors
/// Reason to drop it: there is no room for it.
pub(crate) fn insert<B: PacketBuf>(buf: &mut B, front: &Front) -> Result<(), DropReason> {
    match front.addr {
        IpAddr::V4(addr) => insert4(buf, addr, front.port),
        IpAddr::V6(addr) => insert6(buf, addr, front.port),
    }
}

/// Behind the fixed header. Port and address stand there with their bytes in the opposite order (specification, 3.6).
fn insert4<B: PacketBuf>(buf: &mut B, addr: Ipv4Addr, port: u16) -> Result<(), DropReason> {
    let invalid = DropReason::InvalidPacket;
    let ip = buf.data().get(ETHERNET_LEN..).ok_or(invalid)?;
    let &[first, _, high, low] = ip.first_chunk().ok_or(invalid)?;
    let header = usize::from(first & 0xf) * 4;
    let total = u16::from_be_bytes([high, low]).checked_add(LEN4 as u16);
    let total = total.filter(|_| header + LEN4 <= MAX_HEADER).ok_or(invalid)?;
    let frame = buf.prepend(LEN4).map_err(|_| DropReason::NoBuffer)?;
    let at = ETHERNET_LEN + IPV4_LEN;
    if frame.len() < ETHERNET_LEN + header + LEN4 {
        return Err(invalid);
    }
    frame.copy_within(LEN4..LEN4 + at, 0);
    let [p, q] = port.to_le_bytes();
    let [a, b, c, d] = addr.to_bits().to_le_bytes();
    frame[at..at + LEN4].copy_from_slice(&[TYPE4, LEN4 as u8, p, q, a, b, c, d]);
    let ip = &mut frame[ETHERNET_LEN..ETHERNET_LEN + header + LEN4];
    ip[0] += (LEN4 / 4) as u8;
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[10..12].fill(0);
    let sum = checksum(ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// Behind the fixed header, or the hop-by-hop options, which have to be first (RFC 8200, section 4.1).
fn insert6<B: PacketBuf>(buf: &mut B, addr: Ipv6Addr, port: u16) -> Result<(), DropReason> {
    let invalid = DropReason::InvalidPacket;
    let ip = buf.data().get(ETHERNET_LEN..).ok_or(invalid)?;
    let payload = ip
        .get(4..)
        .and_then(|rest| rest.first_chunk())
        .and_then(|payload| u16::from_be_bytes(*payload).checked_add(LEN6 as u16))
        .ok_or(invalid)?;
    // Where the byte is that says what follows, and where that begins.
    let (mut says, mut at) = (6, IPV6_LEN);
    if ip.get(says) == Some(&HOP_BY_HOP) {
        says = at;
        at += usize::from(*ip.get(at + 1).ok_or(invalid)?) * 8 + 8;
    }
    let next = *ip.get(says).filter(|_| ip.len() >= at).ok_or(invalid)?;
    let frame = buf.prepend(LEN6).map_err(|_| DropReason::NoBuffer)?;
    frame.copy_within(LEN6..LEN6 + ETHERNET_LEN + at, 0);
    let ip = &mut frame[ETHERNET_LEN..];
    ip[says] = DESTINATION;
    ip[4..6].copy_from_slice(&payload.to_be_bytes());
    let option = &mut ip[at..at + LEN6];
    option[..4].copy_from_slice(&[next, (LEN6 / 8 - 1) as u8, TYPE6, VALUE6]);
    option[4..20].copy_from_slice(&addr.octets());
    option[20..22].copy_from_slice(&port.to_be_bytes());
    option[22..].fill(0);
    Ok(())
}

/// What the option in a packet says, whose fixed header was checked and whose upper layer begins at `l4` of the frame;
/// `None` if it has none.
///
/// # Errors
/// Reason to drop it: the option, or one before it, is not what it says.
pub(crate) fn read(frame: &[u8], v6: bool, l4: usize) -> Result<Option<Front>, DropReason> {
    match v6 {
        false => read4(frame.get(ETHERNET_LEN + IPV4_LEN..l4).unwrap_or_default()),
        true => read6(frame.get(ETHERNET_LEN..l4).unwrap_or_default()),
    }
}

fn read4(mut options: &[u8]) -> Result<Option<Front>, DropReason> {
    let invalid = DropReason::InvalidPacket;
    loop {
        match *options {
            [] | [0, ..] => return Ok(None),
            [1, ref rest @ ..] => options = rest,
            [kind, len, ..] => {
                let (option, rest) = options
                    .split_at_checked(len.into())
                    .filter(|_| len >= 2)
                    .ok_or(invalid)?;
                if kind == TYPE4 {
                    let &[_, _, p, q, a, b, c, d] = option else {
                        return Err(invalid);
                    };
                    let addr = Ipv4Addr::from_bits(u32::from_le_bytes([a, b, c, d]));
                    return Front::checked(addr.into(), u16::from_le_bytes([p, q])).map(Some);
                }
                options = rest;
            }
            [_] => return Err(invalid),
        }
    }
}

/// In the first destination options.
fn read6(ip: &[u8]) -> Result<Option<Front>, DropReason> {
    let invalid = DropReason::InvalidExtension;
    let Some((fixed, mut rest)) = ip.split_at_checked(IPV6_LEN) else {
        return Ok(None);
    };
    let mut next = fixed[6];
    loop {
        if !matches!(next, HOP_BY_HOP | DESTINATION) {
            return Ok(None);
        }
        let &[following, units, ..] = rest else {
            return Err(invalid);
        };
        let (header, behind) = rest.split_at_checked(usize::from(units) * 8 + 8).ok_or(invalid)?;
        if next == DESTINATION {
            return read_options6(&header[2..]);
        }
        (next, rest) = (following, behind);
    }
}

fn read_options6(mut options: &[u8]) -> Result<Option<Front>, DropReason> {
    let invalid = DropReason::InvalidExtension;
    loop {
        match *options {
            [] => return Ok(None),
            [0, ref rest @ ..] => options = rest,
            [kind, len, ref rest @ ..] => {
                let (value, rest) = rest.split_at_checked(len.into()).ok_or(invalid)?;
                if kind == TYPE6 {
                    let (addr, port) = match (value.first_chunk::<16>(), value.get(16..)) {
                        (Some(addr), Some(&[high, low, _, _])) => (*addr, u16::from_be_bytes([high, low])),
                        _ => return Err(invalid),
                    };
                    return Front::checked(Ipv6Addr::from(addr).into(), port).map(Some);
                }
                options = rest;
            }
            [_] => return Err(invalid),
        }
    }
}
