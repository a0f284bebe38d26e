//! What identifies one direction of a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses, ports and protocol of a packet as it arrives, in five words.
///
/// An IPv4 tuple has everything in the first and the last word. Ports of protocols without them are chosen by the
/// engine (ICMP: the identifier).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// IPv4: source and destination. IPv6: upper half of the source.
    first: u64,
    /// IPv6: lower half of the source, then the destination.
    middle: [u64; 3],
    /// Source port, destination port, protocol, zone, family (4 or 6), from the most significant bit.
    last: u64,
}

impl Tuple {
    /// The zone of a tuple with which no packet arrives: packets of its direction have the other direction's tuple turned
    /// round, and this one says what that direction's packets are translated to. So only answers are translated.
    pub const ANSWERS_ONLY: u8 = 255;

    /// Number of words.
    pub(crate) const WORDS: usize = 5;

    /// A tuple of IPv4 addresses and ports, each most significant byte first. `zone` keeps apart what has the same
    /// addresses and is not the same.
    #[inline(always)]
    #[must_use]
    pub fn v4(src: u32, dst: u32, sport: u16, dport: u16, protocol: u8, zone: u8) -> Self {
        Self {
            first: u64::from(src) << 32 | u64::from(dst),
            middle: [0; 3],
            last: last(sport, dport, protocol, zone, 4),
        }
    }

    /// The same for IPv6, addresses in halves.
    #[inline(always)]
    #[must_use]
    pub fn v6(src: [u64; 2], dst: [u64; 2], sport: u16, dport: u16, protocol: u8, zone: u8) -> Self {
        Self {
            first: src[0],
            middle: [src[1], dst[0], dst[1]],
            last: last(sport, dport, protocol, zone, 6),
        }
    }

    /// A tuple of addresses of either family. Of different families it makes no sense and matches nothing.
    #[must_use]
    pub fn new(src: IpAddr, dst: IpAddr, sport: u16, dport: u16, protocol: u8, zone: u8) -> Self {
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                Self::v4(src.to_bits(), dst.to_bits(), sport, dport, protocol, zone)
            }
            (src, dst) => Self::v6(halves(src), halves(dst), sport, dport, protocol, zone),
        }
    }

    /// Whether the addresses are IPv6.
    #[inline(always)]
    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.last & 0xff == 6
    }

    /// IPv4 source, most significant byte first.
    #[inline(always)]
    #[must_use]
    pub fn src4(&self) -> u32 {
        (self.first >> 32) as u32
    }

    /// IPv4 destination.
    #[inline(always)]
    #[must_use]
    pub fn dst4(&self) -> u32 {
        self.first as u32
    }

    /// IPv6 source in halves.
    #[inline(always)]
    #[must_use]
    pub fn src6(&self) -> [u64; 2] {
        [self.first, self.middle[0]]
    }

    /// IPv6 destination in halves.
    #[inline(always)]
    #[must_use]
    pub fn dst6(&self) -> [u64; 2] {
        [self.middle[1], self.middle[2]]
    }

    /// Source address.
    #[must_use]
    pub fn src(&self) -> IpAddr {
        if self.is_v6() {
            from_halves(self.src6())
        } else {
            Ipv4Addr::from_bits(self.src4()).into()
        }
    }

    /// Destination address.
    #[must_use]
    pub fn dst(&self) -> IpAddr {
        if self.is_v6() {
            from_halves(self.dst6())
        } else {
            Ipv4Addr::from_bits(self.dst4()).into()
        }
    }

    /// Source port.
    #[inline(always)]
    #[must_use]
    pub fn sport(&self) -> u16 {
        (self.last >> 48) as u16
    }

    /// Destination port.
    #[inline(always)]
    #[must_use]
    pub fn dport(&self) -> u16 {
        (self.last >> 32) as u16
    }

    /// Protocol number.
    #[inline(always)]
    #[must_use]
    pub fn protocol(&self) -> u8 {
        (self.last >> 24) as u8
    }

    /// Zone.
    #[inline(always)]
    #[must_use]
    pub fn zone(&self) -> u8 {
        (self.last >> 16) as u8
    }

    /// The tuple that packets of its direction arrive with, `other` being the other direction's.
    #[must_use]
    pub fn arriving(&self, other: &Self) -> Self {
        match self.zone() {
            Self::ANSWERS_ONLY => other.reverse(),
            _ => *self,
        }
    }

    /// The same in another zone.
    #[must_use]
    pub fn in_zone(&self, zone: u8) -> Self {
        Self {
            last: self.last & !0x00ff_0000 | u64::from(zone) << 16,
            ..*self
        }
    }

    /// The other direction of a connection that nobody translates.
    #[inline(always)]
    #[must_use]
    pub fn reverse(&self) -> Self {
        let (protocol, zone) = (self.protocol(), self.zone());
        if self.is_v6() {
            Self::v6(
                self.dst6(),
                self.src6(),
                self.dport(),
                self.sport(),
                protocol,
                zone,
            )
        } else {
            Self::v4(
                self.dst4(),
                self.src4(),
                self.dport(),
                self.sport(),
                protocol,
                zone,
            )
        }
    }

    /// Whether these words are a tuple's, whatever they are of.
    pub(crate) fn is_one(&self) -> bool {
        match self.last & 0xffff {
            4 => self.middle == [0; 3],
            6 => true,
            _ => false,
        }
    }

    pub(crate) fn words(&self) -> [u64; Self::WORDS] {
        let [a, b, c] = self.middle;
        [self.first, a, b, c, self.last]
    }

    pub(crate) fn from_words([first, a, b, c, last]: [u64; Self::WORDS]) -> Self {
        Self {
            first,
            middle: [a, b, c],
            last,
        }
    }
}

impl std::fmt::Debug for Tuple {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { .. } = self;
        write!(
            f,
            "{} {}",
            self.protocol(),
            std::net::SocketAddr::new(self.src(), self.sport())
        )?;
        write!(f, " -> {}", std::net::SocketAddr::new(self.dst(), self.dport()))?;
        if self.zone() == 0 {
            Ok(())
        } else {
            write!(f, " zone {}", self.zone())
        }
    }
}

#[inline(always)]
fn last(sport: u16, dport: u16, protocol: u8, zone: u8, family: u8) -> u64 {
    u64::from(sport) << 48
        | u64::from(dport) << 32
        | u64::from(protocol) << 24
        | u64::from(zone) << 16
        | u64::from(family)
}

fn halves(addr: IpAddr) -> [u64; 2] {
    let bits = match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().to_bits(),
        IpAddr::V6(addr) => addr.to_bits(),
    };
    [(bits >> 64) as u64, bits as u64]
}

fn from_halves([high, low]: [u64; 2]) -> IpAddr {
    Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into()
}

/// Hashes tuples, differently in each process: who does not know the seed cannot aim at one bucket.
#[derive(Clone, Copy, Debug)]
pub struct Hasher {
    seed: [u64; 4],
}

impl Default for Hasher {
    fn default() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self::seeded([0, 1, 2, 3].map(|n: u64| RandomState::new().hash_one(n)))
    }
}

impl Hasher {
    /// A hasher that is the same in each process that gives the same seed.
    #[must_use]
    pub fn seeded(seed: [u64; 4]) -> Self {
        Self {
            seed: seed.map(|word| word | 1),
        }
    }

    pub(crate) fn seed(&self) -> [u64; 4] {
        self.seed
    }

    /// 64 bits, all of them good.
    #[inline(always)]
    #[must_use]
    pub fn hash(&self, tuple: &Tuple) -> u64 {
        let [a, b, c, d] = self.seed;
        let mut hash = fold(tuple.first ^ a, tuple.last ^ b);
        if tuple.is_v6() {
            let [x, y, z] = tuple.middle;
            hash = fold(hash ^ x ^ c, y ^ d) ^ fold(z ^ a, hash ^ d);
        }
        fold(hash, d)
    }
}

/// Both halves of the product, one upon the other.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn addr() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
            any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
        ]
    }

    proptest! {
        #[test]
        fn everything_comes_back(src in addr(), dst in addr(), sport: u16, dport: u16, protocol: u8, zone: u8) {
            prop_assume!(src.is_ipv4() == dst.is_ipv4());
            let tuple = Tuple::new(src, dst, sport, dport, protocol, zone);
            prop_assert_eq!((tuple.src(), tuple.dst(), tuple.sport(), tuple.dport()), (src, dst, sport, dport));
            prop_assert_eq!((tuple.protocol(), tuple.zone(), tuple.is_v6()), (protocol, zone, src.is_ipv6()));
            prop_assert_eq!(Tuple::from_words(tuple.words()), tuple);
            prop_assert_eq!(tuple.reverse().reverse(), tuple);
            prop_assert_eq!(tuple.in_zone(7), Tuple::new(src, dst, sport, dport, protocol, 7));
            prop_assert_eq!(tuple.reverse(), Tuple::new(dst, src, dport, sport, protocol, zone));
        }
    }

    #[test]
    fn neighbouring_tuples_spread_evenly() {
        let hasher = Hasher::seeded([3, 5, 7, 9]);
        for v6 in [false, true] {
            let mut fill = [0_u32; 1024];
            for n in 0..64 * 1024_u32 {
                let tuple = match v6 {
                    false => Tuple::v4(0x0a00_0000 + n / 64, 0x0a01_0001, (n % 64) as u16, 80, 6, 0),
                    true => Tuple::v6([1, 2], [3, u64::from(n)], 4, 5, 6, 0),
                };
                fill[(hasher.hash(&tuple) % 1024) as usize] += 1;
            }
            // 64 expected; eight standard deviations either side.
            assert!(fill.iter().all(|&n| n < 128), "{:?}", fill.iter().max());
        }
    }
}
