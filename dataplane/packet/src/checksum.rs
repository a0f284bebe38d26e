//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

/// Ones'-complement sum of `data` as big-endian 16-bit words, not folded; an odd last byte is padded with zero.
#[inline]
pub fn sum(data: &[u8]) -> u64 {
    let (words, tail) = data.as_chunks::<4>();
    // Ones'-complement addition does not care about word size: 32-bit words add up to the same folded sum.
    let mut total: u64 = words
        .iter()
        .map(|word| u64::from(u32::from_be_bytes(*word)))
        .sum();
    let mut last = [0; 4];
    last[..tail.len()].copy_from_slice(tail);
    total += u64::from(u32::from_be_bytes(last));
    total
}

/// Folds a sum to 16 bits.
#[inline]
pub fn fold(mut sum: u64) -> u16 {
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The checksum of `data`, in whose checksum field is zero; over data with its checksum in place it yields 0.
#[inline]
pub fn checksum(data: &[u8]) -> u16 {
    !fold(sum(data))
}

/// Whether the 20 bytes of an IPv4 header without options sum up to minus zero.
#[inline(always)]
pub fn ipv4_header_ok(header: &[u8; 20]) -> bool {
    let (first, rest) = header.split_at(8);
    let (second, third) = rest.split_at(8);
    let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let third = third.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    ipv4_words_ok(word(first), word(second), third)
}

/// The same for a header that was read as two words of 64 bits and one of 32, all in the same byte order, whichever.
#[inline(always)]
pub fn ipv4_words_ok(first: u64, second: u64, third: u32) -> bool {
    // Byte order does not matter for a comparison with all ones (RFC 1071, section 2 B), nor does word size as long as
    // carries come back at the other end.
    let (total, carry) = first.overflowing_add(second);
    let (total, carry) = total.overflowing_add(u64::from(third) + u64::from(carry));
    let total = total + u64::from(carry);
    // Halves added to themselves turned round: the upper half is their sum with the carry of the lower one.
    let total = (total.wrapping_add(total.rotate_left(32)) >> 32) as u32;
    let total = total.wrapping_add(total.rotate_left(16)) >> 16;
    total == 0xffff
}

/// The checksum after a 16-bit word under it changed from `old` to `new` (RFC 1624, equation 3).
#[inline(always)]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// Sum of the pseudo-header of an upper-layer packet over IPv4 (RFC 793) or IPv6 (RFC 8200, section 8.1), not folded.
/// `src` and `dst` are addresses of 4 or 16 bytes; `len` is the upper layer's length in bytes.
pub fn pseudo_header(src: &[u8], dst: &[u8], protocol: u8, len: usize) -> u64 {
    sum(src) + sum(dst) + u64::from(protocol) + len as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071, section 4.1, as it stands there.
    fn reference(data: &[u8]) -> u16 {
        let mut sum: u32 = 0;
        for word in data.chunks(2) {
            sum += u32::from(word[0]) << 8 | word.get(1).map_or(0, |byte| u32::from(*byte));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(
            fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])),
            0xddf2
        );
    }

    proptest! {
        #[test]
        fn is_the_reference(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(checksum(&data), reference(&data));
        }

        #[test]
        fn header_check_is_the_reference(mut header in any::<[u8; 20]>(), flip in any::<bool>()) {
            header[10..12].fill(0);
            let sum = reference(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            header[3] ^= u8::from(flip);
            prop_assert_eq!(ipv4_header_ok(&header), !flip);
        }

        #[test]
        fn update_is_a_fresh_sum(mut data in proptest::collection::vec(any::<u8>(), 20), new: u16) {
            // RFC 1624: the two differ for data of zeros only, which no IPv4 header is.
            data[0] = 0x45;
            let before = reference(&data);
            let old = u16::from_be_bytes([data[8], data[9]]);
            data[8..10].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(update(before, old, new), reference(&data));
        }
    }
}
