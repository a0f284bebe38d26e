//! Other addresses and ports in a packet, and the checksums over them.

use octoplane_flow::Tuple;
use octoplane_packet::checksum::fold;
use octoplane_packet::headers::ETHERNET_LEN;

use super::packet::{Packet, Part, Upper};
use crate::drop_reason::DropReason;

/// Gives `frame`, which is `packet`, the addresses and ports of `to`.
pub(crate) fn translate(frame: &mut [u8], packet: &Packet, to: &Tuple) -> Result<(), DropReason> {
    translate_at(frame, ETHERNET_LEN, packet, to)
}

/// Whether ports can be changed to those of `to`: those of SCTP only with all of a message whose checksum is right.
pub(super) fn is_possible(frame: &[u8], packet: &Packet, to: &Tuple) -> bool {
    let from = &packet.tuple;
    let same = from.sport() == to.sport() && from.dport() == to.dport();
    if same || packet.upper != Upper::Sctp || packet.part == Part::Later {
        return true;
    }
    let upper = frame.get(packet.l4..packet.end).unwrap_or_default();
    let stands = upper.get(8..12).and_then(|sum| sum.first_chunk());
    packet.part == Part::Whole && crc32c_of_sctp(upper) == stands.map(|sum| u32::from_le_bytes(*sum))
}

/// The same for a packet whose IP header begins at `ip`. Of one that is quoted in an ICMP error (`ip` is not the usual
/// place) the end may be missing, checksums among it.
pub(super) fn translate_at(
    frame: &mut [u8],
    ip: usize,
    packet: &Packet,
    to: &Tuple,
) -> Result<(), DropReason> {
    let quoted = ip != ETHERNET_LEN;
    let from = &packet.tuple;
    if from == to {
        return Ok(());
    }
    let addresses = address_change(from, to);
    let ports = delta(from.sport(), to.sport()) + delta(from.dport(), to.dport());
    if packet.part != Part::Later {
        let upper = frame
            .get_mut(packet.l4..packet.end)
            .ok_or(DropReason::InvalidPacket)?;
        match packet.upper {
            Upper::Tcp(_) => {
                put(upper, 0, to.sport())?;
                put(upper, 2, to.dport())?;
                if !quoted || upper.len() >= 18 {
                    adjust(upper, 16, addresses + ports)?;
                }
            }
            Upper::Udp => {
                put(upper, 0, to.sport())?;
                put(upper, 2, to.dport())?;
                // Zero is "no checksum" (RFC 768); a sum of zero is written as all ones.
                if get(upper, 6)? != 0 {
                    adjust(upper, 6, addresses + ports)?;
                    if get(upper, 6)? == 0 {
                        put(upper, 6, 0xffff)?;
                    }
                }
            }
            Upper::Echo => {
                put(upper, 4, to.sport() | to.dport())?;
                // Only ICMPv6 has the addresses in its checksum (RFC 4443, section 2.3).
                adjust(upper, 2, ports + if from.is_v6() { addresses } else { 0 })?;
            }
            Upper::Sctp => {
                if from.sport() != to.sport() || from.dport() != to.dport() {
                    // The checksum is over what is not here; or it is wrong, and a new one would hide that.
                    let stands = upper.get(8..12).and_then(|sum| sum.first_chunk());
                    let sound = crc32c_of_sctp(upper) == stands.map(|sum| u32::from_le_bytes(*sum));
                    if packet.part == Part::First || !(quoted || sound) {
                        return Err(DropReason::L4Checksum);
                    }
                    put(upper, 0, to.sport())?;
                    put(upper, 2, to.dport())?;
                    // A quoted one's checksum was over more than is there.
                    if quoted {
                        return addresses_of(frame, ip, to, addresses);
                    }
                    let sum = crc32c_of_sctp(upper).ok_or(DropReason::InvalidPacket)?;
                    upper
                        .get_mut(8..12)
                        .ok_or(DropReason::InvalidPacket)?
                        .copy_from_slice(&sum.to_le_bytes());
                }
            }
            Upper::IcmpError | Upper::TooBig | Upper::Other => {
                if from.is_v6() && from.protocol() == 58 {
                    adjust(upper, 2, addresses)?;
                }
            }
        }
    }
    addresses_of(frame, ip, to, addresses)
}

/// Writes the addresses of `to` into the IP header that begins at `ip`.
fn addresses_of(frame: &mut [u8], ip: usize, to: &Tuple, addresses: u64) -> Result<(), DropReason> {
    let ip = frame.get_mut(ip..).ok_or(DropReason::InvalidPacket)?;
    if to.is_v6() {
        let [a, b] = to.src6();
        let [c, d] = to.dst6();
        for (index, word) in [a, b, c, d].into_iter().enumerate() {
            ip.get_mut(8 + 8 * index..16 + 8 * index)
                .ok_or(DropReason::InvalidPacket)?
                .copy_from_slice(&word.to_be_bytes());
        }
    } else {
        adjust(ip, 10, addresses)?;
        let both = u64::from(to.src4()) << 32 | u64::from(to.dst4());
        ip.get_mut(12..20)
            .ok_or(DropReason::InvalidPacket)?
            .copy_from_slice(&both.to_be_bytes());
    }
    Ok(())
}

/// What a checksum's complement grows by when the addresses change (RFC 1624, equation 3, summed up).
pub(super) fn address_change(from: &Tuple, to: &Tuple) -> u64 {
    let word = |old: u64, new: u64| halves(!old) + halves(new);
    if from.is_v6() {
        let old = [from.src6(), from.dst6()];
        let new = [to.src6(), to.dst6()];
        old.iter()
            .flatten()
            .zip(new.iter().flatten())
            .map(|(&old, &new)| word(old, new))
            .sum()
    } else {
        let both = |tuple: &Tuple| u64::from(tuple.src4()) << 32 | u64::from(tuple.dst4());
        word(both(from), both(to))
    }
}

fn halves(word: u64) -> u64 {
    (word >> 32) + (word & 0xffff_ffff)
}

pub(super) fn delta(old: u16, new: u16) -> u64 {
    u64::from(!old) + u64::from(new)
}

pub(super) fn adjust(data: &mut [u8], at: usize, delta: u64) -> Result<(), DropReason> {
    let old = get(data, at)?;
    put(data, at, !fold(u64::from(!old) + delta))
}

fn get(data: &[u8], at: usize) -> Result<u16, DropReason> {
    data.get(at..)
        .and_then(|rest| rest.first_chunk())
        .map(|word| u16::from_be_bytes(*word))
        .ok_or(DropReason::InvalidPacket)
}

fn put(data: &mut [u8], at: usize, value: u16) -> Result<(), DropReason> {
    data.get_mut(at..)
        .and_then(|rest| rest.first_chunk_mut())
        .map(|word| *word = value.to_be_bytes())
        .ok_or(DropReason::InvalidPacket)
}

/// The CRC32c of an SCTP packet with zeros in the place of its checksum (RFC 9260, appendix A).
fn crc32c_of_sctp(packet: &[u8]) -> Option<u32> {
    let (head, rest) = packet.split_at_checked(8)?;
    let body = rest.get(4..)?;
    let crc = [head, &[0; 4], body]
        .into_iter()
        .flatten()
        .fold(!0_u32, |crc, byte| {
            CRC32C[usize::from(crc as u8 ^ byte)] ^ crc >> 8
        });
    Some(!crc)
}

/// The Castagnoli polynomial, a byte at a time.
static CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 != 0 {
                crc >> 1 ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_crc32c() {
        // The usual check string, over the eight bytes before the checksum's place and one behind it.
        let crc = b"123456789".iter().fold(!0_u32, |crc, byte| {
            CRC32C[usize::from(crc as u8 ^ byte)] ^ crc >> 8
        });
        assert_eq!(!crc, 0xe306_9283);
    }
}
