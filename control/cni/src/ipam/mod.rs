//! Which addresses are free.
//!
//! There is no list of allocations beside the attachments: an address is in use because an attachment has it. What is kept here
//! is derived from them, but for addresses that were given back and rest.

mod pool;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use octoplane_config::schema;

use crate::error::AttachError;
use pool::Pool;

/// The address families that somebody wants an address of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// 4 or 6.
    pub fn number(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }
}

/// How full a pool is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Its prefix.
    pub prefix: String,
    /// Addresses that could be given out; the largest number there is if they are more.
    pub size: u64,
    /// Addresses in use.
    pub used: u64,
    /// Addresses that rest.
    pub resting: u64,
}

/// The pools, and what of them is in use.
#[derive(Debug, Default)]
pub(crate) struct Ipam {
    pools: Vec<Pool>,
    used: BTreeSet<IpAddr>,
    /// Until when, in seconds since 1970.
    resting: BTreeMap<IpAddr, u64>,
}

impl Ipam {
    /// Nothing is in use.
    pub(crate) fn new(pools: &[schema::Pool]) -> Self {
        Self {
            pools: pools.iter().map(Pool::new).collect(),
            ..Self::default()
        }
    }

    /// Whether there is a pool of a family.
    pub(crate) fn has(&self, family: Family) -> bool {
        self.pools.iter().any(|pool| pool.family() == family)
    }

    /// Takes the next free address of a family, from the first pool that has one. `foreign` says which addresses somebody else
    /// has, who does not get them here. Addresses are taken round and round, so that one is not used again soon.
    ///
    /// # Errors
    /// [`AttachError::NoPool`], [`AttachError::Exhausted`]
    pub(crate) fn take(
        &mut self,
        family: Family,
        now: u64,
        foreign: impl Fn(IpAddr) -> bool,
    ) -> Result<IpAddr, AttachError> {
        if !self.has(family) {
            return Err(AttachError::NoPool(family.number()));
        }
        let (used, resting) = (&self.used, &self.resting);
        let rests = |address| resting.get(&address).is_some_and(|until| *until > now);
        let free = |address| !used.contains(&address) && !rests(address) && !foreign(address);
        let found = self
            .pools
            .iter_mut()
            .filter(|pool| pool.family() == family)
            .find_map(|pool| pool.next(free));
        if let Some(address) = found {
            self.occupy(address);
            return Ok(address);
        }
        let full: Vec<Usage> = self
            .usage()
            .into_iter()
            .zip(&self.pools)
            .filter_map(|(usage, pool)| (pool.family() == family).then_some(usage))
            .collect();
        Err(AttachError::Exhausted {
            family: family.number(),
            pools: full
                .iter()
                .map(|usage| usage.prefix.as_str())
                .collect::<Vec<_>>()
                .join(", "),
            used: full.iter().map(|usage| usage.used).sum(),
            resting: full.iter().map(|usage| usage.resting).sum(),
        })
    }

    /// Notes that an address is in use; says whether it was not before.
    pub(crate) fn occupy(&mut self, address: IpAddr) -> bool {
        self.used.insert(address)
    }

    /// Gives an address back.
    pub(crate) fn give_back(&mut self, address: IpAddr) {
        self.used.remove(&address);
    }

    /// Notes that an address rests until then, and after it as long as nobody has asked for those that have rested.
    pub(crate) fn rest(&mut self, address: IpAddr, until: u64) {
        self.resting.insert(address, until);
    }

    /// How full the pools are.
    pub(crate) fn usage(&self) -> Vec<Usage> {
        let count = |pool: &Pool, addresses: &mut dyn Iterator<Item = &IpAddr>| {
            addresses.filter(|address| pool.offers(**address)).count() as u64
        };
        let usage = |pool: &Pool| Usage {
            prefix: pool.prefix().to_string(),
            size: pool.size(),
            used: count(pool, &mut self.used.iter()),
            resting: count(
                pool,
                &mut self.resting.keys().filter(|it| !self.used.contains(it)),
            ),
        };
        self.pools.iter().map(usage).collect()
    }

    /// Ends the rest of addresses that have rested and are not in use again, and says which. They count as in use until they are
    /// given back: nobody gets one, and has it rest anew, before what was kept of its rest is gone.
    pub(crate) fn expire(&mut self, now: u64) -> Vec<IpAddr> {
        let mut rested = Vec::new();
        self.resting.retain(|address, until| {
            let ends = *until <= now && self.used.insert(*address);
            if ends {
                rested.push(*address);
            }
            !ends
        });
        rested
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipam(pools: &[(&str, &[&str])]) -> Ipam {
        let pools: Vec<_> = pools
            .iter()
            .map(|(prefix, exclude)| schema::Pool {
                prefix: prefix.parse().unwrap(),
                exclude: exclude.iter().map(|it| it.parse().unwrap()).collect(),
            })
            .collect();
        Ipam::new(&pools)
    }

    fn take(ipam: &mut Ipam, family: Family) -> String {
        ipam.take(family, 0, |_| false)
            .map_or_else(|error| error.to_string(), |address| address.to_string())
    }

    #[test]
    fn every_address_once_and_then_an_error_that_says_why() {
        let mut ipam = ipam(&[("10.0.0.0/29", &["10.0.0.2/31"]), ("10.0.1.0/31", &[])]);
        let taken: Vec<_> = (0..6).map(|_| take(&mut ipam, Family::V4)).collect();
        // Network and broadcast address are nobody's, but for a network of two (RFC 3021).
        assert_eq!(
            taken[..5],
            ["10.0.0.1", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.1.0"]
        );
        assert_eq!(taken[5], "10.0.1.1");
        assert_eq!(
            take(&mut ipam, Family::V4),
            "no IPv4 address is free: 6 are in use and 0 rest, in the pools 10.0.0.0/29, 10.0.1.0/31"
        );
        assert!(take(&mut ipam, Family::V6).starts_with("there is no pool of IPv6 addresses"));
    }

    #[test]
    fn an_address_rests_before_it_is_used_again() {
        let mut ipam = ipam(&[("10.0.0.0/30", &[])]);
        let first = ipam.take(Family::V4, 100, |_| false).unwrap();
        assert_eq!(take(&mut ipam, Family::V4), "10.0.0.2");
        ipam.give_back(first);
        ipam.rest(first, 160);
        let refused = ipam.take(Family::V4, 159, |_| false).unwrap_err();
        assert!(
            refused.to_string().contains("1 are in use and 1 rest"),
            "{refused}"
        );
        assert_eq!(ipam.take(Family::V4, 160, |_| false).unwrap(), first);
    }

    #[test]
    fn what_was_given_back_is_not_the_next_one() {
        let mut ipam = ipam(&[("10.0.0.0/24", &[])]);
        let first = ipam.take(Family::V4, 0, |_| false).unwrap();
        ipam.give_back(first);
        assert_eq!(take(&mut ipam, Family::V4), "10.0.0.2");
    }

    #[test]
    fn an_address_that_somebody_else_has_is_left_out() {
        let mut ipam = ipam(&[("10.0.0.0/24", &[]), ("fd00::/64", &[])]);
        let foreign = |address: IpAddr| ["10.0.0.1", "fd00::1"].iter().any(|it| it.parse() == Ok(address));
        assert_eq!(ipam.take(Family::V4, 0, foreign).unwrap().to_string(), "10.0.0.2");
        assert_eq!(ipam.take(Family::V6, 0, foreign).unwrap().to_string(), "fd00::2");
        assert!(ipam.occupy("10.0.0.3".parse().unwrap()));
        assert!(!ipam.occupy("10.0.0.3".parse().unwrap()));
        assert_eq!(take(&mut ipam, Family::V4), "10.0.0.4");
        assert_eq!(ipam.usage()[0].used, 3);
        assert_eq!((ipam.usage()[0].size, ipam.usage()[1].size), (254, u64::MAX));
    }

    #[test]
    fn very_large_exclusions_are_jumped_over() {
        // All but the last two addresses, in an order that leaves them to be merged.
        let mut ipam = ipam(&[(
            "fd00::/64",
            &["fd00::8000:0:0:0/65", "fd00::/65", "fd00::ffff:ffff:ffff:0/112"],
        )]);
        assert!(take(&mut ipam, Family::V6).starts_with("no IPv6 address is free: 0 are in use"));
        assert_eq!(ipam.usage()[0].size, 0);
    }
}
