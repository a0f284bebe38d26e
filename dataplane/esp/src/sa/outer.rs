//! The headers in front of ESP in tunnel mode, prepared once, finished for each packet.

use std::net::IpAddr;

use octoplane_packet::checksum;
use octoplane_packet::headers::{IPV4_LEN, IPV6_LEN, Ipv4, protocol};

use super::config::{DontFragment, Dscp, NatTraversal, OuterHeader};
use crate::cause::Cause;
use crate::ecn;
use crate::ip;

/// Bytes of a UDP header.
pub(crate) const UDP_LEN: usize = 8;
const MAX_LEN: usize = IPV6_LEN + UDP_LEN;

/// IP header and, with NAT traversal, UDP header, but for what depends on the packet.
#[derive(Debug, Clone)]
pub(crate) struct OuterTemplate {
    bytes: [u8; MAX_LEN],
    /// Bytes of both.
    len: u8,
    /// Bytes of the IP header.
    ip_len: u8,
    options: OuterHeader,
    /// IPv4: sum of the words that are the same in each packet.
    sum: u64,
    udp: bool,
}

/// The UDP header in front of ESP, with everything but its length.
pub(crate) fn udp_header(ports: NatTraversal) -> [u8; UDP_LEN] {
    let mut header = [0; UDP_LEN];
    header[..2].copy_from_slice(&ports.source_port.to_be_bytes());
    header[2..4].copy_from_slice(&ports.destination_port.to_be_bytes());
    header
}

impl OuterTemplate {
    /// Both ends are of the same family.
    pub(crate) fn new(
        source: IpAddr,
        destination: IpAddr,
        options: OuterHeader,
        nat_traversal: Option<NatTraversal>,
    ) -> Self {
        let mut bytes = [0; MAX_LEN];
        let next = if nat_traversal.is_some() {
            protocol::UDP
        } else {
            ip::ESP
        };
        let ip_len = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes[0] = 0x45;
                bytes[8] = options.hop_limit;
                bytes[9] = next;
                bytes[12..16].copy_from_slice(&source.octets());
                bytes[16..20].copy_from_slice(&destination.octets());
                IPV4_LEN
            }
            (source, destination) => {
                bytes[0] = 0x60;
                bytes[6] = next;
                bytes[7] = options.hop_limit;
                bytes[8..24].copy_from_slice(&ip::map(source).to_be_bytes());
                bytes[24..40].copy_from_slice(&ip::map(destination).to_be_bytes());
                IPV6_LEN
            }
        };
        let mut len = ip_len;
        if let Some(ports) = nat_traversal {
            bytes[len..len + UDP_LEN].copy_from_slice(&udp_header(ports));
            len += UDP_LEN;
        }
        Self {
            sum: checksum::sum(&bytes[..IPV4_LEN]),
            bytes,
            len: len as u8,
            ip_len: ip_len as u8,
            options,
            udp: nat_traversal.is_some(),
        }
    }

    /// Bytes of all headers.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len.into()
    }

    /// Whether it is IPv6.
    #[inline(always)]
    pub(crate) fn is_ipv6(&self) -> bool {
        usize::from(self.ip_len) == IPV6_LEN
    }

    /// Writes the headers to the start of `data`, the whole packet. `inner` is the packet inside; `id` identifies the
    /// packet in case that routers fragment it.
    #[inline]
    pub(crate) fn write(&self, data: &mut [u8], inner: &ip::Inner, id: u16) -> Result<(), Cause> {
        let total = u16::try_from(data.len()).map_err(|_| Cause::TooLarge)?;
        let header = data.get_mut(..self.len()).ok_or(Cause::NoRoom)?;
        // The length is one of four: with each by itself, the compiler makes some stores of it instead of a call.
        match header.len() {
            IPV4_LEN => header.copy_from_slice(&self.bytes[..IPV4_LEN]),
            IPV6_LEN => header.copy_from_slice(&self.bytes[..IPV6_LEN]),
            _ => header.copy_from_slice(&self.bytes[..self.len()]),
        }
        let dscp = match self.options.dscp {
            Dscp::Copy => inner.class & !ecn::MASK,
            Dscp::Set(dscp) => dscp << 2,
        };
        let class = if self.options.ecn {
            dscp | inner.class & ecn::MASK
        } else {
            dscp
        };
        if !self.is_ipv6() {
            let dont_fragment = match self.options.dont_fragment {
                DontFragment::Set => true,
                DontFragment::Clear => false,
                DontFragment::Copy => inner.version == 6 || inner.flags_fragment & Ipv4::DF != 0,
            };
            let flags = if dont_fragment { Ipv4::DF } else { 0 };
            let sum = self.sum + u64::from(class) + u64::from(total) + u64::from(id) + u64::from(flags);
            header[1] = class;
            header[2..4].copy_from_slice(&total.to_be_bytes());
            header[4..6].copy_from_slice(&id.to_be_bytes());
            header[6..8].copy_from_slice(&flags.to_be_bytes());
            header[10..12].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
        } else {
            header[0] |= class >> 4;
            header[1] |= class << 4;
            header[4..6].copy_from_slice(&(total - IPV6_LEN as u16).to_be_bytes());
        }
        if self.udp {
            let at = usize::from(self.ip_len) + 4;
            header[at..at + 2].copy_from_slice(&(total - u16::from(self.ip_len)).to_be_bytes());
        }
        Ok(())
    }
}
