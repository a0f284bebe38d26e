//! Reading fields of messages. What is wrong is said with the object, the field and the limit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use octoplane_packet::Prefix;

use crate::mistake::{Mistake, clip};

/// Reads the fields of one object.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    /// What the object is called.
    pub(crate) object: &'a str,
}

impl Fields<'_> {
    /// A field is not what it should be.
    pub(crate) fn refuse(self, field: &str, why: impl std::fmt::Display) -> Mistake {
        Mistake::invalid(format!("{}: {field}: {why}", self.object))
    }

    pub(crate) fn address(self, field: &str, text: &str) -> Result<IpAddr, Mistake> {
        let why = || format!("\"{}\" is not an IPv4 or IPv6 address", clip(text));
        text.parse().map_err(|_| self.refuse(field, why()))
    }

    /// An address, or none.
    pub(crate) fn maybe(self, field: &str, text: &str) -> Result<Option<IpAddr>, Mistake> {
        if text.is_empty() {
            return Ok(None);
        }
        self.address(field, text).map(Some)
    }

    /// An IPv4 address, or none.
    pub(crate) fn maybe4(self, field: &str, text: &str) -> Result<Option<Ipv4Addr>, Mistake> {
        match self.maybe(field, text)? {
            Some(IpAddr::V6(addr)) => Err(self.refuse(field, format!("{addr} is not an IPv4 address"))),
            Some(IpAddr::V4(addr)) => Ok(Some(addr)),
            None => Ok(None),
        }
    }

    /// An IPv6 address, or none.
    pub(crate) fn maybe6(self, field: &str, text: &str) -> Result<Option<Ipv6Addr>, Mistake> {
        match self.maybe(field, text)? {
            Some(IpAddr::V4(addr)) => Err(self.refuse(field, format!("{addr} is not an IPv6 address"))),
            Some(IpAddr::V6(addr)) => Ok(Some(addr)),
            None => Ok(None),
        }
    }

    pub(crate) fn prefix(self, field: &str, text: &str) -> Result<Prefix, Mistake> {
        text.parse().map_err(|error| self.refuse(field, error))
    }

    /// Each entry of a list.
    pub(crate) fn each<T>(
        self,
        field: &str,
        texts: &[String],
        read: impl Fn(&str, &str) -> Result<T, Mistake>,
    ) -> Result<Vec<T>, Mistake> {
        texts
            .iter()
            .enumerate()
            .map(|(index, text)| read(&format!("{field}[{index}]"), text))
            .collect()
    }

    /// A number of 16 bits.
    pub(crate) fn word(self, field: &str, value: u32) -> Result<u16, Mistake> {
        let why = || format!("{value} is out of range, expected at most 65535");
        u16::try_from(value).map_err(|_| self.refuse(field, why()))
    }

    /// A number of 8 bits.
    pub(crate) fn byte(self, field: &str, value: u32) -> Result<u8, Mistake> {
        let why = || format!("{value} is out of range, expected at most 255");
        u8::try_from(value).map_err(|_| self.refuse(field, why()))
    }

    /// A value of an enumeration.
    pub(crate) fn choice<T: TryFrom<i32>>(self, field: &str, value: i32) -> Result<T, Mistake> {
        T::try_from(value).map_err(|_| self.refuse(field, format!("{value} is no value of it")))
    }
}
