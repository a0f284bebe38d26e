//! When what holds for an address changed last, so that what was decided about it need not be decided again before.
//!
//! A revision is written down for each address that a transaction may have changed anything for: routes, what is known of
//! it, the policy and the rates of its endpoint, the services at it, the gateway that it leaves by. Prefixes are written
//! down by address or by block of addresses if they are short; a transaction with more than that changes everything.
//! Addresses share places by their hash, so a place may say that something changed when it did for another address, never
//! the other way round.
//!
//! One table serves all versions of the others. It is written before a version is published, so whoever reads that
//! version finds in it all that the version changed; and who still reads the one before finds too much, and decides again.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use octoplane_packet::Prefix;

use crate::touched::Touched;

/// Bits of a place's number among those of addresses: with as many, 1,000 changes a second of addresses that a connection
/// has nothing to do with make it decide again once in 20 seconds.
const HOST_BITS: u32 = 16;
/// Among those of blocks: 256 IPv4 addresses, or an IPv6 prefix of 64 bits.
const BLOCK_BITS: u32 = 14;
/// Places that one prefix may take; what is shorter changes everything.
const MOST: u32 = 256;

/// An odd number near 2^64 divided by the golden ratio: neighbouring keys land far apart.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// In which revision what holds for addresses changed last.
pub struct LastChanged {
    hosts: Box<[AtomicU64; 1 << HOST_BITS]>,
    blocks: Box<[AtomicU64; 1 << BLOCK_BITS]>,
    everything: AtomicU64,
    latest: AtomicU64,
}

impl Default for LastChanged {
    fn default() -> Self {
        Self {
            hosts: places(),
            blocks: places(),
            everything: AtomicU64::new(0),
            latest: AtomicU64::new(0),
        }
    }
}

/// Zeros that are never on the stack.
fn places<const N: usize>() -> Box<[AtomicU64; N]> {
    let zeros: Vec<AtomicU64> = (0..N).map(|_| AtomicU64::new(0)).collect();
    match zeros.into_boxed_slice().try_into() {
        Ok(places) => places,
        Err(_) => unreachable!("a vector of N has N elements"),
    }
}

#[inline(always)]
fn host4(addr: u32) -> usize {
    (u64::from(addr).wrapping_mul(SPREAD) >> (64 - HOST_BITS)) as usize
}

#[inline(always)]
fn block4(addr: u32) -> usize {
    (u64::from(addr >> 8).wrapping_mul(SPREAD) >> (64 - BLOCK_BITS)) as usize
}

#[inline(always)]
fn host6([high, low]: [u64; 2]) -> usize {
    ((high.wrapping_mul(SPREAD) ^ low).wrapping_mul(SPREAD) >> (64 - HOST_BITS)) as usize
}

#[inline(always)]
fn block6(high: u64) -> usize {
    (high.wrapping_mul(SPREAD) >> (64 - BLOCK_BITS)) as usize
}

impl LastChanged {
    /// The last revision that was noted.
    pub fn latest(&self) -> u64 {
        self.latest.load(Relaxed)
    }

    /// Whether nothing changed for all addresses at once since what was decided in this revision.
    #[inline(always)]
    pub fn nothing_since(&self, revision: u64) -> bool {
        self.everything.load(Relaxed) <= revision
    }

    /// Whether nothing changed for an IPv4 address (most significant byte first); ask [`LastChanged::nothing_since`], too.
    #[inline(always)]
    pub fn unchanged4(&self, revision: u64, addr: u32) -> bool {
        let (host, block) = (&self.hosts[host4(addr)], &self.blocks[block4(addr)]);
        (host.load(Relaxed) <= revision) & (block.load(Relaxed) <= revision)
    }

    /// The same for an IPv6 address in halves.
    #[inline(always)]
    pub fn unchanged6(&self, revision: u64, addr: [u64; 2]) -> bool {
        let (host, block) = (&self.hosts[host6(addr)], &self.blocks[block6(addr[0])]);
        (host.load(Relaxed) <= revision) & (block.load(Relaxed) <= revision)
    }

    /// Takes note of what a transaction touched. The revision that it makes must not have been published yet.
    pub(crate) fn note(&self, revision: u64, touched: &Touched) {
        self.latest.store(revision, Relaxed);
        if touched.everything {
            return self.note_everything(revision);
        }
        for &prefix in touched.fib.iter().chain(&touched.ipcache).chain(&touched.others) {
            self.note_prefix(revision, prefix);
        }
    }

    /// Takes note of a transaction after which nothing may be as it was.
    pub(crate) fn note_everything(&self, revision: u64) {
        self.everything.store(revision, Relaxed);
    }

    fn note_prefix(&self, revision: u64, prefix: Prefix) {
        let hosts = |index: usize| self.hosts[index].store(revision, Relaxed);
        let blocks = |index: usize| self.blocks[index].store(revision, Relaxed);
        // How many addresses, or else blocks, there are in the prefix.
        let count = |bits: u8| {
            1_u32
                .checked_shl(bits.saturating_sub(prefix.len()).into())
                .filter(|count| *count <= MOST)
        };
        match prefix.addr() {
            IpAddr::V4(addr) => {
                let first = addr.to_bits();
                if prefix.len() > 24 {
                    (0..count(32).unwrap_or(0)).for_each(|n| hosts(host4(first + n)));
                } else if let Some(count) = count(24) {
                    (0..count).for_each(|n| blocks(block4(first + (n << 8))));
                } else {
                    self.note_everything(revision);
                }
            }
            IpAddr::V6(addr) => {
                let bits = addr.to_bits();
                let first = [(bits >> 64) as u64, bits as u64];
                if let Some(count) = count(128) {
                    (0..count).for_each(|n| hosts(host6([first[0], first[1] + u64::from(n)])));
                } else if let Some(count) = count(64) {
                    (0..count).for_each(|n| blocks(block6(first[0] + u64::from(n))));
                } else {
                    self.note_everything(revision);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unchanged(changed: &LastChanged, revision: u64, addr: &str) -> bool {
        changed.nothing_since(revision)
            && match addr.parse().unwrap() {
                IpAddr::V4(addr) => changed.unchanged4(revision, addr.to_bits()),
                IpAddr::V6(addr) => {
                    let bits = addr.to_bits();
                    changed.unchanged6(revision, [(bits >> 64) as u64, bits as u64])
                }
            }
    }

    fn touched(prefix: &str) -> Touched {
        Touched {
            fib: [prefix.parse().unwrap()].into(),
            ..Touched::default()
        }
    }

    #[test]
    fn every_address_of_a_prefix_changed() {
        for (prefix, addresses) in [
            ("10.1.2.3/32", &["10.1.2.3"][..]),
            ("10.1.2.128/25", &["10.1.2.128", "10.1.2.200", "10.1.2.255"]),
            ("10.1.2.0/24", &["10.1.2.0", "10.1.2.77", "10.1.2.255"]),
            ("10.1.0.0/16", &["10.1.0.0", "10.1.2.77", "10.1.255.255"]),
            ("10.0.0.0/15", &["10.1.0.0", "10.0.2.77"]),
            ("0.0.0.0/0", &["255.255.255.255", "1.2.3.4"]),
            ("fd00::1/128", &["fd00::1"]),
            ("fd00::100/120", &["fd00::100", "fd00::1ff"]),
            ("fd00::/119", &["fd00::", "fd00::1ff"]),
            ("fd00::/64", &["fd00::", "fd00::ffff:ffff:ffff:ffff"]),
            ("fd00::/56", &["fd00::", "fd00:0:0:ff::7"]),
            ("fd00::/55", &["fd00:0:0:100::7"]),
            ("::/0", &["fd00::1"]),
        ] {
            let changed = LastChanged::default();
            changed.note(7, &touched(prefix));
            for addr in addresses {
                assert!(!unchanged(&changed, 6, addr), "{addr} of {prefix}");
                assert!(unchanged(&changed, 7, addr), "{addr} of {prefix}");
            }
        }
    }

    #[test]
    fn others_hardly_ever_did() {
        let changed = LastChanged::default();
        // A thousand endpoints here and there, and a few blocks.
        for n in 0..1000 {
            changed.note(7, &touched(&format!("10.1.{}.{}/32", n / 250, n % 250)));
            changed.note(7, &touched(&format!("fd01::{n:x}/128")));
        }
        changed.note(7, &touched("10.3.0.0/22"));
        let hit = (0..10_000)
            .filter(|n| {
                !unchanged(&changed, 6, &format!("10.2.{}.{}", n / 250, n % 250))
                    || !unchanged(&changed, 6, &format!("fd02::{n:x}"))
            })
            .count();
        // 2,000 of 65,536 places are taken.
        assert!(hit < 10_000 * 2 * 2_000 / 65_536 * 2, "{hit}");
    }

    #[test]
    fn neighbours_in_a_block_did_not() {
        let changed = LastChanged::default();
        changed.note(7, &touched("10.0.0.7/32"));
        changed.note(7, &touched("fd00::7/128"));
        let same = (0..256)
            .filter(|n| {
                unchanged(&changed, 6, &format!("10.0.0.{n}"))
                    && unchanged(&changed, 6, &format!("fd00::{n:x}"))
            })
            .count();
        assert!(same >= 252, "{same}");
    }
}
