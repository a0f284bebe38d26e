//! What may come out of an inbound security association.

use super::config::InnerSelector;
use crate::ip::{self, Addr};

/// An [`InnerSelector`] as it is compared.
#[derive(Debug)]
pub(crate) struct Inner {
    version: u8,
    source: (Addr, Addr),
    destination: (Addr, Addr),
}

impl From<&InnerSelector> for Inner {
    fn from(selector: &InnerSelector) -> Self {
        Self {
            version: if selector.source.addr().is_ipv4() { 4 } else { 6 },
            source: ip::masked(selector.source),
            destination: ip::masked(selector.destination),
        }
    }
}

impl Inner {
    #[inline]
    pub(crate) fn matches(&self, packet: &ip::Packet) -> bool {
        packet.version == self.version
            && packet.src & self.source.1 == self.source.0
            && packet.dst & self.destination.1 == self.destination.0
    }
}
