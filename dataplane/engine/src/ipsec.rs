//! Encryption between nodes, as Cilium does it (specification, 1.9): which packets, for which node, and what may come in
//! without it. The engine decides; somebody else encrypts what is in [`Output::seal`](crate::Output::seal), decrypts what is
//! in [`Output::open`](crate::Output::open), and gives that back to [`Engine::decrypted`](crate::Engine::decrypted).

use std::net::IpAddr;

use octoplane_esp::view::NodeDecision;
use octoplane_esp::{Reader, Sa, Snapshot};
use octoplane_packet::headers::{ETHERNET_LEN, IPV6_LEN, Ipv4, Ipv6, protocol};
use octoplane_tables::identity;
use zerocopy::FromBytes;

use crate::connection::is_world;
use crate::drop_reason::DropReason;

/// ESP's protocol number.
pub(crate) const ESP: u8 = 50;
/// UDP port of ESP with NAT traversal (RFC 3948).
const NAT_TRAVERSAL: u16 = 4500;
/// Identities of other nodes, and those of nodes that are known by labels.
pub(crate) const REMOTE_NODES: std::ops::RangeInclusive<u32> = 6..=7;
const NODE_SCOPE: std::ops::RangeInclusive<u32> = 0x0200_0000..=0x02ff_ffff;

/// What is in what where packets between nodes are both in a tunnel and encrypted. What comes in may have either form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// The whole tunnel packet in ESP, whoever sent it (Cilium from 1.18 on).
    #[default]
    TunnelInEsp,
    /// What endpoints send in ESP, and that in the tunnel packet (Cilium up to 1.17).
    EspInTunnel,
}

/// What an engine is told about encryption between nodes.
#[derive(Debug, Clone)]
pub struct IpsecConfig {
    /// Security associations and nodes.
    pub reader: Reader,
    /// Whether packets that have to come encrypted are refused when they do not (195): those in tunnels, and those from
    /// endpoints of other nodes.
    pub strict: bool,
    /// What is in what.
    pub framing: Framing,
    /// Whether IPv4 packets that are too large once they are encrypted, and that are in no tunnel, are cut before, if their senders
    /// allow it.
    pub cut: bool,
}

impl IpsecConfig {
    /// Whether what goes to the node with this address, or comes from it, is encrypted.
    pub fn encrypts(&mut self, node: IpAddr) -> bool {
        matches!(self.reader.load().node(node), NodeDecision::Encrypt(_))
    }
}

/// The same while a burst is under way.
#[derive(Clone, Copy)]
pub(crate) struct Ipsec<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) strict: bool,
    pub(crate) framing: Framing,
    pub(crate) cut: bool,
}

impl<'a> Ipsec<'a> {
    pub(crate) fn load(config: Option<&'a mut IpsecConfig>) -> Option<Self> {
        config.map(|config| Self {
            strict: config.strict,
            framing: config.framing,
            cut: config.cut,
            snapshot: config.reader.load(),
        })
    }

    /// The security association for packets to the node with this address; `None` if they go as they are, because one of
    /// the nodes has no key.
    ///
    /// # Errors
    /// They must not go at all: the node is unknown (197), or there is nothing to encrypt with.
    #[inline]
    pub(crate) fn towards(self, node: IpAddr) -> Result<Option<&'a Sa>, DropReason> {
        match self.snapshot.node(node) {
            NodeDecision::Encrypt(id) => match self.snapshot.sa(id) {
                Some(sa) => Ok(Some(sa)),
                None => Err(DropReason::NoSecurityAssociation),
            },
            NodeDecision::Plain => Ok(None),
            NodeDecision::NoNodeId => Err(DropReason::NoNodeId),
            NodeDecision::NoSa => Err(DropReason::NoSecurityAssociation),
        }
    }

    /// How large a packet may be, given the MTU of the link and the bytes that the tunnel takes, if there is one.
    #[inline]
    pub(crate) fn room(self, sa: &Sa, mtu: u16, tunnel: u16) -> u16 {
        let (mtu, tunnel) = (usize::from(mtu), usize::from(tunnel));
        (match self.framing {
            Framing::TunnelInEsp => sa.max_len(mtu).saturating_sub(tunnel),
            Framing::EspInTunnel => sa.max_len(mtu.saturating_sub(tunnel)),
        }) as u16
    }

    /// Bytes of a frame in front of what is encrypted, of which `tunnel` were put in front of it by the tunnel.
    #[inline]
    pub(crate) fn front(self, tunnel: u16) -> u16 {
        match self.framing {
            Framing::TunnelInEsp => ETHERNET_LEN as u16,
            Framing::EspInTunnel => ETHERNET_LEN as u16 + tunnel,
        }
    }

    /// Whether what comes from the node with this address, or from behind it, has to be encrypted.
    pub(crate) fn demands(self, node: IpAddr) -> bool {
        self.strict && self.snapshot.node(node) != NodeDecision::Plain
    }

    /// Whether this is an outer source that ESP may come from.
    pub(crate) fn knows(self, node: IpAddr) -> bool {
        self.snapshot.node_view(node).is_some()
    }
}

/// Whether what a sender of this identity sends to other nodes' endpoints is encrypted: endpoints and what belongs to the
/// cluster, but no host and not the world.
pub(crate) fn is_protected(sender: u32) -> bool {
    sender != 0
        && sender != identity::HOST
        && !is_world(sender)
        && !REMOTE_NODES.contains(&sender)
        && !NODE_SCOPE.contains(&sender)
}

/// What ESP is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EspIn {
    /// IP (RFC 4303).
    Ip,
    /// UDP (RFC 3948).
    Udp,
}

/// Whether an IP packet carries ESP: as its own protocol, or in UDP, where IKE and keepalives are told apart.
pub(crate) fn esp_in(packet: &[u8]) -> Option<EspIn> {
    let (upper, header_len, fragment) = match packet.first()? >> 4 {
        4 => {
            let (header, _) = Ipv4::ref_from_prefix(packet).ok()?;
            (header.protocol, header.header_len(), header.is_fragment())
        }
        6 => {
            let (header, _) = Ipv6::ref_from_prefix(packet).ok()?;
            (header.next_header, IPV6_LEN, false)
        }
        _ => return None,
    };
    match upper {
        ESP => Some(EspIn::Ip),
        protocol::UDP if !fragment => match packet.get(header_len..)? {
            [_, _, high, low, _, _, _, _, payload @ ..]
                if u16::from_be_bytes([*high, *low]) == NAT_TRAVERSAL
                    && payload.first_chunk::<4>().is_some_and(|spi| *spi != [0; 4]) =>
            {
                Some(EspIn::Udp)
            }
            _ => None,
        },
        _ => None,
    }
}

/// The sender of an IP packet.
pub(crate) fn source(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Ipv4::ref_from_prefix(packet)
            .ok()
            .map(|(header, _)| IpAddr::from(header.src)),
        6 => Ipv6::ref_from_prefix(packet)
            .ok()
            .map(|(header, _)| IpAddr::from(header.src)),
        _ => None,
    }
}
