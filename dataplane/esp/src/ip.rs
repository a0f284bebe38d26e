//! The little of IP that ESP has to know.

use octoplane_packet::headers::{IPV4_LEN, IPV6_LEN, Ipv4, Ipv6, protocol};
use octoplane_packet::{Prefix, checksum};
use zerocopy::FromBytes;

use crate::cause::Cause;

/// ESP's protocol number.
pub(crate) const ESP: u8 = 50;
/// IPv4 in IP.
pub(crate) const IPV4: u8 = 4;
/// IPv6 in IP.
pub(crate) const IPV6: u8 = 41;
/// No next header; in ESP a dummy packet (RFC 4303, section 2.6).
pub(crate) const NO_NEXT: u8 = 59;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;

/// An address of either family, IPv4 mapped into IPv6.
pub(crate) type Addr = u128;

/// The mapped form of an IPv4 address.
#[inline(always)]
pub(crate) fn map4(addr: [u8; 4]) -> Addr {
    0xffff_0000_0000 | Addr::from(u32::from_be_bytes(addr))
}

/// The mapped form of any address.
pub(crate) fn map(addr: std::net::IpAddr) -> Addr {
    match addr {
        std::net::IpAddr::V4(addr) => map4(addr.octets()),
        std::net::IpAddr::V6(addr) => addr.to_bits(),
    }
}

/// A prefix as first address and mask.
pub(crate) fn masked(prefix: Prefix) -> (Addr, Addr) {
    let len = if prefix.addr().is_ipv4() {
        prefix.len() + 96
    } else {
        prefix.len()
    };
    let mask = Addr::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
    (map(prefix.addr()), mask)
}

/// What the fixed headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet {
    /// 4 or 6.
    pub version: u8,
    /// Bytes of header and payload; not more than there are.
    pub len: usize,
    /// IPv4: the header with options. IPv6: the fixed header.
    pub header_len: usize,
    /// Of the fixed header.
    pub protocol: u8,
    /// Type of service or traffic class.
    pub class: u8,
    /// IPv4: the flags and fragment offset.
    pub flags_fragment: u16,
    pub src: Addr,
    pub dst: Addr,
}

/// What the outer header takes over from the packet inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inner {
    /// 4 or 6.
    pub version: u8,
    /// Type of service or traffic class.
    pub class: u8,
    /// IPv4: the flags and fragment offset.
    pub flags_fragment: u16,
    /// Bytes of header and payload.
    pub len: u16,
}

/// Reads the fixed header of the packet that starts here.
#[inline]
pub(crate) fn parse(data: &[u8]) -> Result<Packet, Cause> {
    match data.first().ok_or(Cause::TooShort)? >> 4 {
        4 => {
            let (header, _) = Ipv4::ref_from_prefix(data).map_err(|_| Cause::TooShort)?;
            let (len, header_len) = (usize::from(header.total_len.get()), header.header_len());
            if header_len < IPV4_LEN || len < header_len || len > data.len() {
                return Err(Cause::Malformed);
            }
            Ok(Packet {
                version: 4,
                len,
                header_len,
                protocol: header.protocol,
                class: header.tos,
                flags_fragment: header.flags_fragment.get(),
                src: map4(header.src),
                dst: map4(header.dst),
            })
        }
        6 => {
            let (header, _) = Ipv6::ref_from_prefix(data).map_err(|_| Cause::TooShort)?;
            let payload = usize::from(header.payload_len.get());
            // Length 0 with hop-by-hop options is a jumbogram (RFC 2675), which nothing here carries.
            if IPV6_LEN + payload > data.len() || (payload == 0 && header.next_header == HOP_BY_HOP) {
                return Err(Cause::Malformed);
            }
            Ok(Packet {
                version: 6,
                len: IPV6_LEN + payload,
                header_len: IPV6_LEN,
                protocol: header.next_header,
                class: (header.version_class_flow.get() >> 20) as u8,
                flags_fragment: 0,
                src: Addr::from_be_bytes(header.src),
                dst: Addr::from_be_bytes(header.dst),
            })
        }
        _ => Err(Cause::Malformed),
    }
}

/// Type of service or traffic class, whatever the lengths say.
#[inline]
pub(crate) fn class(data: &[u8]) -> Option<u8> {
    let [first, second] = data.first_chunk::<2>()?;
    match first >> 4 {
        4 => Some(*second),
        _ => Some(first << 4 | second >> 4),
    }
}

/// Where the upper layer, or ESP, starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Upper {
    /// Its first byte.
    pub offset: usize,
    /// Its protocol.
    pub protocol: u8,
    /// The byte that names its protocol.
    pub named_at: usize,
}

/// Looks behind the headers that are for routers on the way: options of IPv4, hop-by-hop options and routing header of
/// IPv6, destination options in front of a routing header (RFC 4303, section 3.1.1). With `all_options`, destination
/// options of any place are skipped: the receiver of ESP may find them in front of it.
pub(crate) fn upper(data: &[u8], packet: &Packet, all_options: bool) -> Result<Upper, Cause> {
    let mut at = Upper {
        offset: packet.header_len,
        protocol: packet.protocol,
        named_at: if packet.version == 4 { 9 } else { 6 },
    };
    if packet.version == 4 {
        if packet.flags_fragment & (Ipv4::MF | Ipv4::OFFSET) != 0 {
            return Err(Cause::Fragment);
        }
        return Ok(at);
    }
    loop {
        let skip = match at.protocol {
            HOP_BY_HOP | ROUTING => true,
            DESTINATION_OPTIONS => all_options || data.get(at.offset) == Some(&ROUTING),
            protocol::FRAGMENT => return Err(Cause::Fragment),
            _ => false,
        };
        if !skip {
            return Ok(at);
        }
        let (Some(next), Some(len)) = (data.get(at.offset), data.get(at.offset + 1)) else {
            return Err(Cause::Malformed);
        };
        at = Upper {
            named_at: at.offset,
            protocol: *next,
            offset: at.offset + 8 + usize::from(*len) * 8,
        };
        if at.offset > packet.len {
            return Err(Cause::Malformed);
        }
    }
}

/// Sets length and protocol of a packet whose header starts `data` and ends before `header_len` (options and extension
/// headers included). `named_at` is the byte that names the protocol behind.
pub(crate) fn rewrite(
    data: &mut [u8],
    header_len: usize,
    named_at: usize,
    protocol: u8,
) -> Result<(), Cause> {
    let len = data.len();
    *data.get_mut(named_at).ok_or(Cause::Malformed)? = protocol;
    if data.first().is_some_and(|byte| byte >> 4 == 4) {
        let total = u16::try_from(len).map_err(|_| Cause::TooLarge)?;
        let header = data.get_mut(..header_len).ok_or(Cause::Malformed)?;
        let (fixed, _) = Ipv4::mut_from_prefix(header).map_err(|_| Cause::Malformed)?;
        fixed.total_len.set(total);
        fixed.checksum.set(0);
        let sum = checksum::checksum(header);
        let (fixed, _) = Ipv4::mut_from_prefix(header).map_err(|_| Cause::Malformed)?;
        fixed.checksum.set(sum);
    } else {
        let (fixed, _) = Ipv6::mut_from_prefix(data).map_err(|_| Cause::Malformed)?;
        let payload = u16::try_from(len - IPV6_LEN).map_err(|_| Cause::TooLarge)?;
        fixed.payload_len.set(payload);
    }
    Ok(())
}

/// Sets the ECN bits of a packet, and an IPv4 header's checksum with them.
#[inline]
pub(crate) fn set_ecn(data: &mut [u8], ecn: u8) {
    match data.first().map(|byte| byte >> 4) {
        Some(4) => {
            if let Ok((header, _)) = Ipv4::mut_from_prefix(data) {
                let old = u16::from_be_bytes([header.version_ihl, header.tos]);
                header.tos = header.tos & !crate::ecn::MASK | ecn;
                let new = u16::from_be_bytes([header.version_ihl, header.tos]);
                let sum = checksum::update(header.checksum.get(), old, new);
                header.checksum.set(sum);
            }
        }
        Some(6) => {
            if let Some(byte) = data.get_mut(1) {
                *byte = *byte & !(crate::ecn::MASK << 4) | ecn << 4;
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extension_headers_in_front_of_esp() {
        let mut data = vec![0x60, 0, 0, 0, 0, 40, HOP_BY_HOP, 64];
        data.resize(80, 0);
        data[40] = ROUTING;
        data[48] = DESTINATION_OPTIONS;
        data[49] = 1;
        data[64] = ESP;
        let packet = parse(&data).unwrap();
        let outbound = upper(&data, &packet, false).unwrap();
        assert_eq!(
            (outbound.offset, outbound.protocol, outbound.named_at),
            (64, DESTINATION_OPTIONS, 48)
        );
        let inbound = upper(&data, &packet, true).unwrap();
        assert_eq!(
            (inbound.offset, inbound.protocol, inbound.named_at),
            (72, ESP, 64)
        );
        data[64] = protocol::FRAGMENT;
        assert_eq!(upper(&data, &packet, true), Err(Cause::Fragment));
    }

    #[test]
    fn lengths_that_lie() {
        assert_eq!(parse(&[]), Err(Cause::TooShort));
        assert_eq!(parse(&[0x45; 19]), Err(Cause::TooShort));
        let mut data = [0; 40];
        data[0] = 0x45;
        data[3] = 41;
        assert_eq!(parse(&data), Err(Cause::Malformed));
        data[3] = 19;
        assert_eq!(parse(&data), Err(Cause::Malformed));
        data[3] = 40;
        assert!(parse(&data).is_ok());
        data[0] = 0x44;
        assert_eq!(parse(&data), Err(Cause::Malformed));
        data[0] = 0x75;
        assert_eq!(parse(&data), Err(Cause::Malformed));
    }
}
