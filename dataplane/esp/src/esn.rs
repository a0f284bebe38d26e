//! The upper half of a sequence number that the packet carries the lower half of (RFC 4303, appendix A2.2).

/// The whole sequence number: of those with this lower half the one that is inside the window ending at `top`, or else the
/// first above it. `None` if it would be below zero, which no sender sends.
///
/// Without a replay window (`window` 0) the nearest to `top` is taken.
#[inline]
pub fn infer(top: u64, window: u32, low: u32) -> Option<u64> {
    let window = if window == 0 { 1 << 31 } else { window };
    let (top_low, top_high) = (top as u32, (top >> 32) as u32);
    let bottom = top_low.wrapping_sub(window - 1);
    let high = if top_low >= window - 1 {
        // Case A: the window lies within one subspace of 2^32 numbers.
        if low >= bottom {
            top_high
        } else {
            top_high.checked_add(1)?
        }
    } else {
        // Case B: it reaches into the one before.
        if low >= bottom {
            top_high.checked_sub(1)?
        } else {
            top_high
        }
    };
    Some(u64::from(high) << 32 | u64::from(low))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_cases_of_the_appendix() {
        // Case A: window 64 ending at 100: bottom 37.
        assert_eq!(infer(5 << 32 | 100, 64, 37), Some(5 << 32 | 37));
        assert_eq!(infer(5 << 32 | 100, 64, 36), Some(6 << 32 | 36));
        assert_eq!(infer(5 << 32 | 100, 64, 0xffff_ffff), Some(5 << 32 | 0xffff_ffff));
        // Case B: window 64 ending at 10: bottom 0xffff_ffcb of the subspace before.
        assert_eq!(infer(5 << 32 | 10, 64, 0xffff_ffcb), Some(4 << 32 | 0xffff_ffcb));
        assert_eq!(infer(5 << 32 | 10, 64, 0xffff_ffca), Some(5 << 32 | 0xffff_ffca));
        assert_eq!(infer(5 << 32 | 10, 64, 11), Some(5 << 32 | 11));
    }

    #[test]
    fn at_the_start() {
        assert_eq!(infer(0, 1024, 1), Some(1));
        assert_eq!(infer(0, 0, 1), Some(1));
        // Behind the window's bottom, and before the first number.
        assert_eq!(infer(0, 1024, 0xffff_ffff), None);
        assert_eq!(infer(u64::MAX, 1024, 5), None);
    }

    proptest! {
        /// Whatever is in the window, or less than 2^32 - window above it, is found from its lower half.
        #[test]
        fn finds_the_number_sent(top: u64, window in 1u32..=4096, ahead in -4095i64..0xffff_0000) {
            let ahead = ahead.max(1 - i64::from(window));
            let sent = top.checked_add_signed(ahead);
            prop_assume!(sent.is_some());
            let sent = sent.unwrap();
            prop_assert_eq!(infer(top, window, sent as u32), Some(sent));
        }
    }
}
