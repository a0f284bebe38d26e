//! One pool: which addresses it has, and which comes next.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use octoplane_config::schema;
use octoplane_packet::Prefix;

use super::Family;

/// A prefix and the parts of it that pods may have, as ranges of numbers.
#[derive(Debug)]
pub(super) struct Pool {
    prefix: Prefix,
    /// First and last address of each part, in ascending order, none of which touch.
    parts: Vec<(u128, u128)>,
    /// Where the next search begins.
    cursor: u128,
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn range(prefix: Prefix) -> (u128, u128) {
    let bits = if prefix.addr().is_ipv4() { 32 } else { 128 };
    let host = u128::MAX
        .checked_shr(128 - (bits - u32::from(prefix.len())))
        .unwrap_or(0);
    let first = number(prefix.addr());
    (first, first | host)
}

impl Pool {
    pub(super) fn new(pool: &schema::Pool) -> Self {
        let prefix = pool.prefix;
        let (first, last) = range(prefix);
        let mut excluded: Vec<_> = pool.exclude.iter().copied().map(range).collect();
        match prefix.addr() {
            // Network and broadcast address: hosts that take the prefix for a subnet treat them so. Not of point-to-point
            // links (RFC 3021).
            IpAddr::V4(_) if last - first > 1 => excluded.extend([(first, first), (last, last)]),
            // The anycast address of the subnet's routers (RFC 4291, section 2.6.1).
            IpAddr::V6(_) if last > first => excluded.push((first, first)),
            _ => {}
        }
        excluded.sort_unstable();
        let mut parts = Vec::new();
        let mut next = Some(first);
        for (from, to) in excluded {
            let Some(begin) = next else { break };
            if from > begin {
                parts.push((begin, from - 1));
            }
            next = to.checked_add(1).map(|after| after.max(begin));
        }
        if let Some(begin) = next.filter(|begin| *begin <= last) {
            parts.push((begin, last));
        }
        Self {
            prefix,
            cursor: parts.first().map_or(first, |(begin, _)| *begin),
            parts,
        }
    }

    pub(super) fn family(&self) -> Family {
        Family::of(self.prefix.addr())
    }

    pub(super) fn prefix(&self) -> Prefix {
        self.prefix
    }

    /// Addresses that pods may have.
    pub(super) fn size(&self) -> u64 {
        let sizes = self
            .parts
            .iter()
            .map(|(first, last)| u64::try_from(last - first).unwrap_or(u64::MAX).saturating_add(1));
        sizes.fold(0, u64::saturating_add)
    }

    /// Whether this is one of them.
    pub(super) fn offers(&self, address: IpAddr) -> bool {
        let wanted = number(address);
        self.prefix.contains(address)
            && self
                .parts
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&wanted))
    }

    /// The next free address, once around.
    pub(super) fn next(&mut self, free: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let family = self.family();
        let address = |number: u128| match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(0))),
            Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
        };
        let begin = self.cursor;
        let above = self
            .parts
            .iter()
            .filter(|(_, last)| *last >= begin)
            .map(|(first, last)| ((*first).max(begin), *last));
        let below = self
            .parts
            .iter()
            .filter(|(first, _)| *first < begin)
            .map(|(first, last)| (*first, (*last).min(begin - 1)));
        // Searches are as long as there are addresses in use, not as the pool is large.
        let found = above
            .chain(below)
            .find_map(|(first, last)| (first..=last).find(|number| free(address(*number))))?;
        self.cursor = found.checked_add(1).unwrap_or(0);
        Some(address(found))
    }
}
