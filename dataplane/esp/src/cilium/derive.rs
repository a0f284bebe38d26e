//! Keys of a pair of nodes, one for each direction, from the key of the cluster.

use std::net::IpAddr;

use aws_lc_rs::digest::{Context, SHA256, SHA512};
use zeroize::{Zeroizing, zeroize_stack};

/// Bytes of a boot id: the text of `/proc/sys/kernel/random/boot_id`.
pub const BOOT_ID_LEN: usize = 36;

/// Longest key of a cluster: what SHA-512 can make as much of.
const MAX_KEY_LEN: usize = 64;

/// One end: its tunnel address, and the text of its boot id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End<'a> {
    /// The address that this end has in the outer header.
    pub addr: IpAddr,
    /// At least [`BOOT_ID_LEN`] bytes, of which the first are used.
    pub boot_id: &'a str,
}

/// Why no key was derived.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeriveError {
    /// The boot id is too short.
    #[error("boot id of {addr}: {len} bytes, expected at least {BOOT_ID_LEN}")]
    BootId {
        /// Whose.
        addr: IpAddr,
        /// How long it is.
        len: usize,
    },
    /// There is no hash that long.
    #[error("key: {0} bytes, expected at most {MAX_KEY_LEN}")]
    KeyLen(usize),
}

/// The key for packets from `source` to `destination`: as many bytes as the cluster's key has, of
/// `H(key || source address || destination address || source boot id || destination boot id)`, where H is SHA-256 for up to
/// 32 bytes and SHA-512 above (section 1.9).
pub fn derive(key: &[u8], source: End<'_>, destination: End<'_>) -> Result<Zeroizing<Vec<u8>>, DeriveError> {
    if key.len() > MAX_KEY_LEN {
        return Err(DeriveError::KeyLen(key.len()));
    }
    let derived = hash(key, source, destination);
    // What was on the stack meanwhile.
    zeroize_stack::<4096>();
    derived
}

#[inline(never)]
fn hash(key: &[u8], source: End<'_>, destination: End<'_>) -> Result<Zeroizing<Vec<u8>>, DeriveError> {
    let mut hash = Context::new(if key.len() <= 32 { &SHA256 } else { &SHA512 });
    hash.update(key);
    for end in [source, destination] {
        match end.addr.to_canonical() {
            IpAddr::V4(addr) => hash.update(&addr.octets()),
            IpAddr::V6(addr) => hash.update(&addr.octets()),
        }
    }
    for end in [source, destination] {
        let boot_id = end
            .boot_id
            .as_bytes()
            .get(..BOOT_ID_LEN)
            .ok_or(DeriveError::BootId {
                addr: end.addr,
                len: end.boot_id.len(),
            })?;
        hash.update(boot_id);
    }
    let digest = hash.finish();
    let derived = digest.as_ref().get(..key.len()).unwrap_or_default();
    Ok(Zeroizing::new(derived.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: End<'_> = End {
        addr: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)),
        boot_id: "11111111-1111-1111-1111-111111111111",
    };
    const B: End<'_> = End {
        addr: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)),
        boot_id: "22222222-2222-2222-2222-222222222222",
    };

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn vectors_of_the_specification() {
        let short: Vec<u8> = (0..20).collect();
        let long: Vec<u8> = (0..36).collect();
        assert_eq!(
            hex(&derive(&short, A, B).unwrap()),
            "972327a27a9e8aed56580040068e3e3d9d951050"
        );
        assert_eq!(
            hex(&derive(&short, B, A).unwrap()),
            "947449b6fe93d64df0b964aa9c1ad6209ce01ef7"
        );
        assert_eq!(
            hex(&derive(&long, A, B).unwrap()),
            "e2654e849a0e12d375a0afd81028d05a55fe42fa1d8c889c11f2de0600f36efd8272b062"
        );
    }

    #[test]
    fn mapped_addresses_are_ipv4_and_boot_ids_are_cut() {
        let key = [7; 20];
        let mapped = End {
            addr: "::ffff:10.0.0.1".parse().unwrap(),
            ..A
        };
        let newline = End {
            boot_id: "11111111-1111-1111-1111-111111111111\n",
            ..A
        };
        assert_eq!(derive(&key, mapped, B), derive(&key, A, B));
        assert_eq!(derive(&key, newline, B), derive(&key, A, B));
        let short = End { boot_id: "1", ..A };
        assert_eq!(
            derive(&key, B, short).unwrap_err().to_string(),
            "boot id of 10.0.0.1: 1 bytes, expected at least 36"
        );
        assert_eq!(derive(&[0; 65], A, B), Err(DeriveError::KeyLen(65)));
    }
}
