//! What security associations are known by.

use std::fmt;
use std::net::IpAddr;

use super::config::{Direction, Mark};

/// What a security association is known by: no two have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SaKey {
    /// Which way.
    pub direction: Direction,
    /// Security parameters index.
    pub spi: u32,
    /// The receiving end.
    pub destination: IpAddr,
    /// The sending end; `None` for any.
    pub source: Option<IpAddr>,
    /// Marks of packets that it is for.
    pub mark: Mark,
}

impl fmt::Display for SaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Outbound => "outbound",
            Direction::Inbound => "inbound",
        };
        write!(f, "{direction} sa spi {:#x} ", self.spi)?;
        match self.source {
            Some(source) => write!(f, "{source}")?,
            None => f.write_str("any")?,
        }
        write!(f, " -> {}", self.destination)?;
        if self.mark != Mark::default() {
            write!(f, " mark {:#x}/{:#x}", self.mark.value, self.mark.mask)?;
        }
        Ok(())
    }
}
