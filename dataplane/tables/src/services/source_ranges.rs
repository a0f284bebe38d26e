//! Which clients may use a service.

use std::collections::HashSet;
use std::net::IpAddr;

use octoplane_packet::Prefix;
use rustc_hash::FxBuildHasher;

/// The source ranges of one service (specification of the datapath, section 3.6, step 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRanges {
    prefixes: HashSet<Prefix, FxBuildHasher>,
    lengths4: Vec<u8>,
    lengths6: Vec<u8>,
    deny: bool,
}

impl SourceRanges {
    /// The ranges; `deny`: those that may not.
    pub fn new(prefixes: &[Prefix], deny: bool) -> Self {
        let lengths = |ipv4: bool| {
            let mut lengths: Vec<u8> = prefixes
                .iter()
                .filter(|prefix| prefix.addr().is_ipv4() == ipv4)
                .map(|prefix| prefix.len())
                .collect();
            lengths.sort_unstable();
            lengths.dedup();
            lengths
        };
        Self {
            prefixes: prefixes.iter().copied().collect(),
            lengths4: lengths(true),
            lengths6: lengths(false),
            deny,
        }
    }

    /// Whether this client may use the service; if not, the drop reason is 177.
    pub fn admits(&self, client: IpAddr) -> bool {
        let lengths = if client.is_ipv4() {
            &self.lengths4
        } else {
            &self.lengths6
        };
        let listed = lengths
            .iter()
            .any(|&len| self.prefixes.contains(&Prefix::containing(client, len)));
        listed != self.deny
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(deny: bool) -> SourceRanges {
        let prefixes = ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"].map(|text| text.parse().unwrap());
        SourceRanges::new(&prefixes, deny)
    }

    #[test]
    fn listed_clients_may_or_may_not() {
        for (client, listed) in [
            ("10.255.0.1", true),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("11.0.0.1", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
        ] {
            let client: IpAddr = client.parse().unwrap();
            assert_eq!(ranges(false).admits(client), listed, "{client}");
            assert_eq!(ranges(true).admits(client), !listed, "{client}");
        }
    }
}
