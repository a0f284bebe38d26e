//! What translation does to packets of one direction, worked out when the connection begins: for IPv4 it is kept next to the
//! tuple, so that a packet needs one cache line of the table and a few additions.

use octoplane_flow::{Half, SPARE, Tuple};
use octoplane_packet::checksum::fold;

use super::packet::Upper;
use super::state;
use super::translate::{address_change, delta};

/// One less TTL, as a change of the sum over the header (RFC 1624, equation 3): the complement of a word and the same word
/// less one, least significant byte first.
const ONE_HOP: u32 = 0xfffe;

/// Words are as they stand in a packet, with the least significant byte first. A checksum does not care (RFC 1071,
/// section 2 B).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Translation {
    /// Source and destination of IPv4.
    addresses: u64,
    /// Source and destination port.
    ports: u32,
    /// What the complement of the IPv4 header's checksum grows by.
    ip: u16,
    /// The same for the upper layer's.
    upper: u16,
}

impl Translation {
    /// From what a packet arrives with to what it leaves with.
    pub(crate) fn between(from: &Tuple, to: &Tuple) -> Self {
        let addresses = address_change(from, to);
        let ports = delta(from.sport(), to.sport()) + delta(from.dport(), to.dport());
        let both = u64::from(to.src4()) << 32 | u64::from(to.dst4());
        Self {
            addresses: both.swap_bytes(),
            ports: (u32::from(to.sport()) << 16 | u32::from(to.dport())).swap_bytes(),
            ip: fold(addresses).swap_bytes(),
            upper: fold(addresses + ports).swap_bytes(),
        }
    }

    /// What an IPv4 direction keeps.
    pub(crate) fn words(self) -> [u64; SPARE] {
        let second = u64::from(self.ports) | u64::from(self.ip) << 32 | u64::from(self.upper) << 48;
        [self.addresses, second, 0]
    }

    /// What an IPv4 direction has kept.
    #[inline(always)]
    pub(crate) fn of(half: &Half<'_>) -> Self {
        let second = half.spare::<1>();
        Self {
            addresses: half.spare::<0>(),
            ports: second as u32,
            ip: (second >> 32) as u16,
            upper: (second >> 48) as u16,
        }
    }

    /// The same for the upper layer of an IPv6 direction: its third word has the change of the checksum, and the other
    /// direction, `back`, the ports.
    #[inline(always)]
    pub(crate) fn of6(half: &Half<'_>, back: &Half<'_>) -> Self {
        let back = back.tuple();
        Self {
            addresses: 0,
            ports: (u32::from(back.dport()) << 16 | u32::from(back.sport())).swap_bytes(),
            ip: 0,
            upper: state::upper_change(half.word::<2>()),
        }
    }

    /// What the complement of the upper layer's checksum grows by.
    pub(crate) fn upper_change(self) -> u16 {
        self.upper
    }

    /// The IPv4 tuple that a packet which arrives with this one leaves with.
    #[inline(always)]
    pub(crate) fn outgoing(self, tuple: &Tuple) -> Tuple {
        let (both, ports) = (self.addresses.swap_bytes(), self.ports.swap_bytes());
        Tuple::v4(
            (both >> 32) as u32,
            both as u32,
            (ports >> 16) as u16,
            ports as u16,
            tuple.protocol(),
            tuple.zone(),
        )
    }

    /// Changes the addresses in Ethernet and IPv4 headers, and takes one from the TTL if `hop`; it must not be 0 then.
    #[inline(always)]
    pub(crate) fn apply4(self, header: &mut [u8; 34], hop: bool) {
        let word = u32::from_le_bytes([header[22], header[23], header[24], header[25]]);
        let change = u32::from(self.ip) + if hop { ONE_HOP } else { 0 };
        let sum = u32::from(adjusted((word >> 16) as u16, change));
        let word = ((word & 0xffff) - u32::from(hop)) | (sum << 16);
        header[22..26].copy_from_slice(&word.to_le_bytes());
        header[26..34].copy_from_slice(&self.addresses.to_le_bytes());
    }

    /// Changes the ports and the checksum of TCP or UDP. Whoever calls has seen that the header is all there.
    #[inline(always)]
    pub(crate) fn apply_upper(self, data: &mut [u8], upper: Upper) {
        match (upper, data.first_chunk_mut::<18>()) {
            (Upper::Tcp(_), Some(header)) => {
                let sum = u16::from_le_bytes([header[16], header[17]]);
                header[16..18].copy_from_slice(&adjusted(sum, self.upper.into()).to_le_bytes());
            }
            (Upper::Tcp(_), None) => {}
            _ => {
                if let Some(header) = data.first_chunk_mut::<8>() {
                    let sum = u16::from_le_bytes([header[6], header[7]]);
                    // Zero is "no checksum" (RFC 768); a sum of zero is written as all ones.
                    if sum != 0 {
                        let new = adjusted(sum, self.upper.into());
                        let new = if new == 0 { 0xffff } else { new };
                        header[6..8].copy_from_slice(&new.to_le_bytes());
                    }
                }
            }
        }
        if let Some(ports) = data.first_chunk_mut() {
            *ports = self.ports.to_le_bytes();
        }
    }
}

/// A checksum whose complement grows by this, at most twice 16 bits.
#[inline(always)]
fn adjusted(sum: u16, change: u32) -> u16 {
    let sum = u32::from(!sum) + change;
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum + (sum >> 16)) as u16)
}

/// Writes the addresses of what arrives by the direction `back`, turned round, behind an Ethernet header, in IPv6.
#[inline(always)]
pub(crate) fn set_addresses6(header: &mut [u8; 54], back: &Half<'_>) {
    let back = back.tuple();
    let ([a, b], [c, d]) = (back.dst6(), back.src6());
    for (place, word) in header[22..].as_chunks_mut::<8>().0.iter_mut().zip([a, b, c, d]) {
        *place = word.to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use octoplane_packet::checksum::{checksum, pseudo_header, sum};
    use proptest::prelude::*;

    use super::*;

    /// An Ethernet frame with a UDP packet of these addresses and ports, its checksums made from nothing.
    fn frame(tuple: &Tuple, ttl: u8, udp: bool) -> [u8; 64] {
        let mut frame = [0; 64];
        frame[14..24].copy_from_slice(&[0x45, 0, 0, 50, 1, 2, 0x40, 0, ttl, 17]);
        frame[26..30].copy_from_slice(&tuple.src4().to_be_bytes());
        frame[30..34].copy_from_slice(&tuple.dst4().to_be_bytes());
        let ip = checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&ip.to_be_bytes());
        frame[34..36].copy_from_slice(&tuple.sport().to_be_bytes());
        frame[36..38].copy_from_slice(&tuple.dport().to_be_bytes());
        frame[38..40].copy_from_slice(&[0, 30]);
        if udp {
            let pseudo = pseudo_header(&frame[26..30], &frame[30..34], 17, 30);
            let sum = !fold(pseudo + sum(&frame[34..64]));
            frame[40..42].copy_from_slice(&(if sum == 0 { 0xffff } else { sum }).to_be_bytes());
        }
        frame
    }

    proptest! {
        #[test]
        fn comes_to_what_a_fresh_packet_has(
            from: (u32, u32, u16, u16), to: (u32, u32, u16, u16), ttl in 2_u8.., udp: bool, hop: bool,
        ) {
            let tuple = |(src, dst, sport, dport)| Tuple::v4(src, dst, sport, dport, 17, 0);
            let (from, to) = (tuple(from), tuple(to));
            let translation = Translation::between(&from, &to);
            prop_assert_eq!(translation.outgoing(&from), to);
            let mut packet = frame(&from, ttl, udp);
            let (header, upper) = packet.split_first_chunk_mut().unwrap();
            translation.apply4(header, hop);
            translation.apply_upper(upper, Upper::Udp);
            let expected = frame(&to, ttl - u8::from(hop), udp);
            prop_assert_eq!(packet, expected);
        }
    }
}
