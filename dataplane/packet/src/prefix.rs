//! IP prefixes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An IPv4 or IPv6 prefix: an address whose bits behind the prefix length are all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

/// Why a prefix was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Not of the form `address/length`.
    #[error("\"{0}\" is not a prefix: expected ADDRESS/LENGTH as in 10.0.0.0/24 or fd00::/64")]
    Syntax(String),
    /// The length is beyond that of the address family.
    #[error("prefix length {len} is out of range: expected 0 to {max}")]
    Length {
        /// What was given.
        len: u32,
        /// 32 or 128.
        max: u8,
    },
    /// Bits behind the prefix length are set.
    #[error("{addr}/{len} has host bits set: the prefix is {network}/{len}")]
    HostBits {
        /// What was given.
        addr: IpAddr,
        /// What was given.
        len: u8,
        /// The same address with its host bits cleared.
        network: IpAddr,
    },
}

impl Prefix {
    /// A prefix of `len` bits. Refuses host bits, so that one prefix has one spelling.
    pub fn new(addr: IpAddr, len: u8) -> Result<Self, PrefixError> {
        let max = bits(addr);
        if len > max {
            return Err(PrefixError::Length { len: len.into(), max });
        }
        let network = network(addr, len);
        if network != addr {
            return Err(PrefixError::HostBits { addr, len, network });
        }
        Ok(Self { addr, len })
    }

    /// The prefix of `len` bits that holds `addr`; a longer `len` than the family has is cut to it.
    pub fn containing(addr: IpAddr, len: u8) -> Self {
        let len = len.min(bits(addr));
        Self {
            addr: network(addr, len),
            len,
        }
    }

    /// The prefix that holds this one address.
    pub fn host(addr: IpAddr) -> Self {
        Self {
            addr,
            len: bits(addr),
        }
    }

    /// First address.
    pub fn addr(self) -> IpAddr {
        self.addr
    }

    /// Length in bits.
    #[allow(clippy::len_without_is_empty, reason = "a length in bits, not a container")]
    pub fn len(self) -> u8 {
        self.len
    }

    /// Whether `addr` lies in this prefix.
    pub fn contains(self, addr: IpAddr) -> bool {
        self.addr.is_ipv4() == addr.is_ipv4() && network(addr, self.len) == self.addr
    }
}

fn bits(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

fn network(addr: IpAddr, len: u8) -> IpAddr {
    match addr {
        IpAddr::V4(a) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            Ipv4Addr::from_bits(a.to_bits() & mask).into()
        }
        IpAddr::V6(a) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            Ipv6Addr::from_bits(a.to_bits() & mask).into()
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || PrefixError::Syntax(text.chars().take(64).collect());
        let (addr, len) = text.split_once('/').ok_or_else(syntax)?;
        let addr: IpAddr = addr.parse().map_err(|_| syntax())?;
        if len.is_empty() || !len.bytes().all(|b| b.is_ascii_digit()) {
            return Err(syntax());
        }
        let len: u32 = len.parse().map_err(|_| syntax())?;
        let narrow = u8::try_from(len).map_err(|_| PrefixError::Length { len, max: bits(addr) })?;
        Self::new(addr, narrow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_per_prefix() {
        assert_eq!(
            "10.1.0.0/16".parse::<Prefix>().unwrap().to_string(),
            "10.1.0.0/16"
        );
        assert_eq!("::/0".parse::<Prefix>().unwrap().to_string(), "::/0");
        let error = "10.1.2.3/16".parse::<Prefix>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "10.1.2.3/16 has host bits set: the prefix is 10.1.0.0/16"
        );
    }

    #[test]
    fn lengths_beyond_the_family_are_refused() {
        assert_eq!(
            "10.0.0.0/33".parse::<Prefix>(),
            Err(PrefixError::Length { len: 33, max: 32 })
        );
        assert_eq!(
            "fd00::/4000".parse::<Prefix>(),
            Err(PrefixError::Length { len: 4000, max: 128 })
        );
        assert!("10.0.0.0".parse::<Prefix>().is_err());
        assert!("10.0.0.0/+8".parse::<Prefix>().is_err());
    }

    #[test]
    fn containment() {
        let prefix: Prefix = "fd00:1::/32".parse().unwrap();
        assert!(prefix.contains("fd00:1:2::3".parse().unwrap()));
        assert!(!prefix.contains("fd00:2::".parse().unwrap()));
        assert!(
            !"0.0.0.0/0"
                .parse::<Prefix>()
                .unwrap()
                .contains("::1".parse().unwrap())
        );
    }
}
