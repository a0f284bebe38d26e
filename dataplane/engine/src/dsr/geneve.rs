//! The option of Geneve tunnels (RFC 8926, section 3.5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use octoplane_packet::PacketBuf;

use super::Front;
use crate::drop_reason::DropReason;

/// Class and type of the option; the type's first bit says that who does not know it must not go on.
const KIND: [u8; 3] = [0x01, 0x4b, 0x81];
const CRITICAL: u8 = 0x80;
/// Option header; address, port, and two bytes of nothing.
const LEN4: usize = 4 + 8;
const LEN6: usize = 4 + 20;

/// Bytes that a packet grows by.
pub(super) fn len(front: &Front) -> usize {
    match front.addr {
        IpAddr::V4(_) => LEN4,
        IpAddr::V6(_) => LEN6,
    }
}

/// Puts the option in front of the packet in `buf`, to be followed, towards the front, by the tunnel's fixed header.
/// Returns that one's first two bytes: length of options, in units of four bytes, and "critical options present".
///
/// # Errors
/// Reason to drop it: there is no room for it.
pub(crate) fn prepend<B: PacketBuf>(buf: &mut B, front: &Front) -> Result<[u8; 2], DropReason> {
    let len = len(front);
    let frame = buf.prepend(len).map_err(|_| DropReason::NoBuffer)?;
    let option = frame.get_mut(..len).ok_or(DropReason::NoBuffer)?;
    let (head, value) = option.split_at_mut(4);
    head[..3].copy_from_slice(&KIND);
    head[3] = (value.len() / 4) as u8;
    let (addr, rest) = value.split_at_mut(value.len() - 4);
    match front.addr {
        IpAddr::V4(front) => addr.copy_from_slice(&front.octets()),
        IpAddr::V6(front) => addr.copy_from_slice(&front.octets()),
    }
    rest[..2].copy_from_slice(&front.port.to_be_bytes());
    rest[2..].fill(0);
    Ok([(len / 4) as u8, 0x40])
}

/// What the options of a tunnel packet say; `None` if it is nothing of ours. `critical` is whether the fixed header says that
/// there is one that must be understood, `known` whether ours is.
///
/// # Errors
/// Reason to drop it: an option is not what it says, or must be understood and is not.
pub(crate) fn read(mut options: &[u8], critical: bool, known: bool) -> Result<Option<Front>, DropReason> {
    let invalid = DropReason::InvalidPacket;
    let (mut found, mut understood) = (None, false);
    while let Some((head, rest)) = options.split_first_chunk::<4>() {
        let (value, rest) = rest
            .split_at_checked(usize::from(head[3] & 0x1f) * 4)
            .ok_or(invalid)?;
        match head[..3] == KIND && known {
            true => {
                found = Some(front(value)?);
                understood = true;
            }
            false if head[2] & CRITICAL != 0 => return Err(invalid),
            false => {}
        }
        options = rest;
    }
    match options.is_empty() && (!critical || understood) {
        true => Ok(found),
        false => Err(invalid),
    }
}

fn front(value: &[u8]) -> Result<Front, DropReason> {
    match *value {
        [a, b, c, d, high, low, _, _] => {
            Front::checked(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low]))
        }
        ref value => {
            let (addr, rest) = value.split_first_chunk::<16>().ok_or(DropReason::InvalidPacket)?;
            let &[high, low, _, _] = rest else {
                return Err(DropReason::InvalidPacket);
            };
            Front::checked(Ipv6Addr::from(*addr).into(), u16::from_be_bytes([high, low]))
        }
    }
}
