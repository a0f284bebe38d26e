//! Numbers of keys, which are also SPIs.

use std::fmt;

/// A key's number, 1 to 15. It is the SPI in packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyIndex(u8);

/// Not a key's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("key index: {0}, expected 1 to 15")]
pub struct KeyIndexError(pub u32);

impl KeyIndex {
    /// The greatest.
    pub const MAX: u8 = 15;

    /// Checks the range.
    pub fn new(index: u32) -> Result<Self, KeyIndexError> {
        match u8::try_from(index) {
            Ok(narrow @ 1..=Self::MAX) => Ok(Self(narrow)),
            _ => Err(KeyIndexError(index)),
        }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for KeyIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The key that two nodes use with each other: the older of those they announce. Numbers grow with each rotation, and 1
/// follows 15 (section 1.9).
#[inline]
pub fn effective(local: KeyIndex, peer: KeyIndex) -> KeyIndex {
    match (local.0, peer.0) {
        (KeyIndex::MAX, 1) | (1, KeyIndex::MAX) => KeyIndex(KeyIndex::MAX),
        (KeyIndex::MAX, _) => peer,
        (_, KeyIndex::MAX) => local,
        _ => local.min(peer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule as section 1.9 of the specification has it.
    fn specification(local: u8, peer: u8) -> u8 {
        if peer == 15 {
            if local == 1 { 15 } else { local }
        } else if local == 15 {
            if peer == 1 { 15 } else { peer }
        } else {
            local.min(peer)
        }
    }

    #[test]
    fn the_older_of_two_keys() {
        for local in 1..=15 {
            for peer in 1..=15 {
                let result = effective(KeyIndex(local), KeyIndex(peer));
                assert_eq!(result.get(), specification(local, peer), "{local} {peer}");
                assert_eq!(
                    result,
                    effective(KeyIndex(peer), KeyIndex(local)),
                    "both ends agree"
                );
            }
        }
        // Some by hand: an ordinary rotation, and the one that wraps.
        for (local, peer, expected) in [
            (3, 4, 3),
            (4, 4, 4),
            (15, 1, 15),
            (1, 15, 15),
            (15, 15, 15),
            (14, 15, 14),
        ] {
            assert_eq!(effective(KeyIndex(local), KeyIndex(peer)).get(), expected);
        }
    }

    #[test]
    fn zero_and_sixteen_are_none() {
        assert_eq!(KeyIndex::new(0), Err(KeyIndexError(0)));
        assert_eq!(
            KeyIndex::new(16).unwrap_err().to_string(),
            "key index: 16, expected 1 to 15"
        );
        assert_eq!(KeyIndex::new(257), Err(KeyIndexError(257)));
        assert!(KeyIndex::new(15).is_ok());
    }
}
