//! Neighbour discovery (RFC 4861): the IPv6 counterpart of ARP, with the answers of the specification's section 5.3.

use std::net::{IpAddr, Ipv6Addr};

use octoplane_packet::checksum::{fold, pseudo_header, sum};
use octoplane_packet::headers::{ETHERNET_LEN, Ethernet, IPV6_LEN, Ipv6, icmp6, protocol};
use octoplane_packet::{BufPool, MacAddr, PacketBuf};
use octoplane_tables::Action;
use octoplane_tables::model::Role;
use zerocopy::FromBytes;

use crate::drop_reason::DropReason;
use crate::engine::{Core, Rx};
use crate::event::NeighbourEvent;
use crate::verdict::Verdict;

/// ICMPv6 header, flags and target address.
const MESSAGE: usize = 24;
/// A link-layer address option for Ethernet.
const OPTION: usize = 8;

const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;

const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// All nodes on the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

impl<P: BufPool> Core<P> {
    /// A neighbour solicitation or advertisement; `total` is the length of the IPv6 packet.
    pub(crate) fn neighbour_discovery(&mut self, rx: &Rx<'_>, buf: &mut P::Buf, total: usize) -> Verdict {
        let packet = &buf.data()[ETHERNET_LEN..][..total];
        let Ok((header, message)) = Ipv6::ref_from_prefix(packet) else {
            return Verdict::Drop(DropReason::InvalidPacket);
        };
        let (src, dst) = (Ipv6Addr::from(header.src), Ipv6Addr::from(header.dst));
        let Some(target) = message
            .get(8..MESSAGE)
            .and_then(|bytes| <[u8; 16]>::try_from(bytes).ok())
        else {
            return Verdict::Drop(DropReason::InvalidPacket);
        };
        let target = Ipv6Addr::from(target);
        // RFC 4861, sections 7.1.1 and 7.1.2. Hop limit 255 shows that no router passed it on.
        if header.hop_limit != 255 || message[1] != 0 || target.is_multicast() {
            return Verdict::Drop(DropReason::InvalidPacket);
        }
        let pseudo = pseudo_header(&header.src, &header.dst, protocol::ICMPV6, message.len());
        if fold(pseudo + sum(message)) != 0xffff {
            return Verdict::Drop(DropReason::L4Checksum);
        }
        let Some(options) = parse_options(&message[MESSAGE..]) else {
            return Verdict::Drop(DropReason::InvalidPacket);
        };
        if message[0] == icmp6::NEIGHBOUR_ADVERTISEMENT {
            if dst.is_multicast() && message[4] & SOLICITED != 0 {
                return Verdict::Drop(DropReason::InvalidPacket);
            }
            if rx.view.role == Role::Uplink
                && let Some(mac) = options.target
            {
                let addressed = message[4] & SOLICITED != 0;
                self.heard(rx, target, mac, addressed);
            }
            return Verdict::Consumed;
        }
        if src.is_unspecified() && (options.source.is_some() || !is_solicited_node(dst)) {
            return Verdict::Drop(DropReason::InvalidPacket);
        }
        let flags = match self.answer_for(rx, src, target) {
            Ok(flags) => flags,
            Err(verdict) => return verdict,
        };
        if rx.view.role == Role::Uplink
            && !src.is_unspecified()
            && let Some(mac) = options.source
        {
            self.heard(rx, src, mac, true);
        }
        self.advertise(rx, buf, total, src, target, flags)
    }

    /// Whether a solicitation for `target` is answered, and with which flags.
    fn answer_for(&self, rx: &Rx<'_>, src: Ipv6Addr, target: Ipv6Addr) -> Result<u8, Verdict> {
        let known = rx.snapshot.route6(target.to_bits());
        let is_endpoint = match known.action {
            Action::Deliver => true,
            Action::PortDown => known.endpoint != 0,
            _ => false,
        };
        match rx.view.role {
            Role::Uplink if rx.view.addresses.contains(&IpAddr::V6(target)) => Ok(ROUTER | OVERRIDE),
            Role::Uplink => Err(Verdict::Consumed),
            // The kernel checks whether it may have an address (RFC 4862, section 5.4): only what is taken is answered.
            Role::Host if src.is_unspecified() && !is_endpoint && known.action != Action::Gateway => {
                Err(Verdict::Consumed)
            }
            Role::Host => Ok(ROUTER),
            Role::Pod if target == rx.snapshot.gateways().ipv6 => Ok(ROUTER),
            // Duplicate address detection: a pod may have its own address.
            Role::Pod if crate::address::may_send(rx.snapshot.route6(target.to_bits()), rx) => {
                Err(Verdict::Consumed)
            }
            // Whether its port is up or down (5.3).
            Role::Pod if is_endpoint => Ok(OVERRIDE),
            // A link-local address is the pod's own business: nobody else is on its link.
            Role::Pod if target.is_unicast_link_local() => Err(Verdict::Consumed),
            Role::Pod => Err(Verdict::Drop(DropReason::UnknownL3Target)),
        }
    }

    fn heard(&mut self, rx: &Rx<'_>, addr: Ipv6Addr, mac: MacAddr, addressed: bool) {
        if mac.is_unicast() {
            let heard = NeighbourEvent::Heard {
                port: rx.port,
                addr: addr.into(),
                mac,
                addressed,
            };
            // A full list loses news that will be repeated.
            let _ = self.events.try_push(heard);
        }
    }

    /// Makes an advertisement of the solicitation in `buf`.
    fn advertise(
        &self,
        rx: &Rx<'_>,
        buf: &mut P::Buf,
        total: usize,
        src: Ipv6Addr,
        target: Ipv6Addr,
        flags: u8,
    ) -> Verdict {
        let want = ETHERNET_LEN + IPV6_LEN + MESSAGE + OPTION;
        let have = ETHERNET_LEN + total;
        let padding = buf.len() - have;
        let sized = buf.trim_back(padding).is_ok()
            && if want > have {
                buf.append(want - have).is_ok()
            } else {
                buf.trim_back(have - want).is_ok()
            };
        if !sized {
            return Verdict::Drop(DropReason::InvalidPacket);
        }
        // Who asks without an address checks for duplicates and is answered through all nodes (RFC 4861, 7.2.4).
        let (dst, flags) = if src.is_unspecified() {
            (ALL_NODES, flags)
        } else {
            (src, flags | SOLICITED)
        };
        let data = buf.data_mut();
        let Ok((ethernet, rest)) = Ethernet::mut_from_prefix(data) else {
            return Verdict::Drop(DropReason::InvalidPacket);
        };
        ethernet.dst = if src.is_unspecified() {
            MacAddr::for_ipv6_multicast(dst.octets()).0
        } else {
            ethernet.src
        };
        ethernet.src = rx.view.mac.0;
        let Ok((header, message)) = Ipv6::mut_from_prefix(rest) else {
            return Verdict::Drop(DropReason::InvalidPacket);
        };
        header.payload_len.set((MESSAGE + OPTION) as u16);
        header.hop_limit = 255;
        header.src = target.octets();
        header.dst = dst.octets();
        write_message(
            message,
            icmp6::NEIGHBOUR_ADVERTISEMENT,
            flags,
            target,
            (TARGET_LINK_LAYER, rx.view.mac),
        );
        let checksum =
            !fold(pseudo_header(&header.src, &header.dst, protocol::ICMPV6, message.len()) + sum(message));
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        Verdict::Answer
    }
}

/// Fills a neighbour message of 32 bytes with one link-layer address option; the checksum is left zero.
pub(crate) fn write_message(
    message: &mut [u8],
    kind: u8,
    flags: u8,
    target: Ipv6Addr,
    option: (u8, MacAddr),
) {
    message[..8].copy_from_slice(&[kind, 0, 0, 0, flags, 0, 0, 0]);
    message[8..MESSAGE].copy_from_slice(&target.octets());
    message[MESSAGE..MESSAGE + 2].copy_from_slice(&[option.0, 1]);
    message[MESSAGE + 2..MESSAGE + OPTION].copy_from_slice(&option.1.0);
}

/// Length of such a message in bytes.
pub(crate) const MESSAGE_WITH_OPTION: usize = MESSAGE + OPTION;

/// The option in a solicitation.
pub(crate) const SOLICITATION_OPTION: u8 = SOURCE_LINK_LAYER;

/// The group that listens for solicitations of `addr` (RFC 4291, section 2.7.1).
pub(crate) fn solicited_node(addr: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xff02_0000_0000_0000_0000_0001_ff00_0000 | addr.to_bits() & 0xff_ffff)
}

fn is_solicited_node(addr: Ipv6Addr) -> bool {
    solicited_node(addr) == addr
}

#[derive(Default)]
struct Options {
    source: Option<MacAddr>,
    target: Option<MacAddr>,
}

/// The link-layer addresses among the options; `None` if an option has no length or does not fit.
fn parse_options(mut rest: &[u8]) -> Option<Options> {
    let mut found = Options::default();
    while let [kind, units, ..] = *rest {
        let len = usize::from(units) * 8;
        if len == 0 || len > rest.len() {
            return None;
        }
        if let (OPTION, Ok(mac)) = (len, <[u8; 6]>::try_from(&rest[2..OPTION])) {
            match kind {
                SOURCE_LINK_LAYER => found.source = Some(MacAddr(mac)),
                TARGET_LINK_LAYER => found.target = Some(MacAddr(mac)),
                _ => {}
            }
        }
        rest = &rest[len..];
    }
    rest.is_empty().then_some(found)
}
