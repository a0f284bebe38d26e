//! ICMP and ICMPv6: pings of our addresses, and errors to senders.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use octoplane_esp::Sa;
use octoplane_packet::checksum::{fold, pseudo_header, sum};
use octoplane_packet::headers::{
    ETHERNET_LEN, Ethernet, IPV4_LEN, IPV6_LEN, Icmp, Ipv4, Ipv6, ethertype, icmp4, icmp6, protocol,
};
use octoplane_packet::{BufPool, PacketBuf};
use octoplane_tables::model::{PortId, Role};
use octoplane_tables::{Action, identity};
use zerocopy::{FromBytes, IntoBytes};

use crate::connection;
use crate::drop_reason::DropReason;
use crate::engine::{Core, Rx};
use crate::ipsec::Ipsec;
use crate::output::Output;
use crate::overlay;
use crate::verdict::{Seal, Verdict};

/// What a sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Error {
    /// The TTL or hop limit ran out on the way.
    TimeExceeded,
    /// Larger than this MTU (bytes of the IP packet).
    TooBig(u16),
    /// The last hop does not find the station.
    HostUnreachable,
    /// The service has no backend (specification, 3.7).
    PortUnreachable,
    /// Policy forbids it (specification, 1.2 step 12).
    Prohibited,
}

impl Error {
    /// Type, code and the word behind the checksum: RFC 792 and RFC 1191.
    fn v4(self) -> (u8, u8, u32) {
        match self {
            Self::TimeExceeded => (icmp4::TIME_EXCEEDED, 0, 0),
            Self::TooBig(mtu) => (icmp4::UNREACHABLE, icmp4::FRAGMENTATION_NEEDED, mtu.into()),
            Self::HostUnreachable => (icmp4::UNREACHABLE, 1, 0),
            Self::PortUnreachable => (icmp4::UNREACHABLE, 3, 0),
            Self::Prohibited => (icmp4::UNREACHABLE, 13, 0),
        }
    }

    /// The same for RFC 4443.
    fn v6(self) -> (u8, u8, u32) {
        match self {
            Self::TimeExceeded => (icmp6::TIME_EXCEEDED, 0, 0),
            Self::TooBig(mtu) => (icmp6::PACKET_TOO_BIG, 0, mtu.into()),
            Self::HostUnreachable => (1, 3, 0),
            Self::PortUnreachable => (1, 4, 0),
            Self::Prohibited => (1, 1, 0),
        }
    }
}

impl Error {
    /// Whether it is said in the name of whom the packet was for, not of the router that this is (specification, 3.7).
    fn of_destination(self) -> bool {
        matches!(self, Self::PortUnreachable | Self::Prohibited)
    }
}

/// What of a packet is quoted in the name of its destination (specification, 3.7).
const SAMPLE_V4: usize = 64;
/// Largest ICMP error over IPv4, in bytes of the IP packet (RFC 1812, section 4.3.2.3).
const MAX_V4: usize = 576;
/// Largest ICMPv6 error: the smallest IPv6 MTU (RFC 4443, section 2.4).
const MAX_V6: usize = 1280;
/// TTL and hop limit of what we send.
const TTL: u8 = 64;

impl<P: BufPool> Core<P> {
    /// Makes an echo reply of the request in `buf`: IPv4 header of `len` bytes, IP packet of `total` bytes.
    pub(crate) fn answer_echo4(&self, rx: &Rx<'_>, buf: &mut P::Buf, len: usize, total: usize) -> Verdict {
        let data = buf.data_mut();
        let message = &data[ETHERNET_LEN + len..ETHERNET_LEN + total];
        if message.len() < 8 {
            return Verdict::Drop(DropReason::InvalidPacket);
        }
        if fold(sum(message)) != 0xffff {
            return Verdict::Drop(DropReason::L4Checksum);
        }
        turn(rx, data);
        let Ok((header, _)) = Ipv4::mut_from_prefix(&mut data[ETHERNET_LEN..]) else {
            return Verdict::Drop(DropReason::InvalidPacket);
        };
        (header.src, header.dst) = (header.dst, header.src);
        header.ttl = TTL;
        header.checksum.set(0);
        let checksum = !fold(sum(&data[ETHERNET_LEN..ETHERNET_LEN + len]));
        data[ETHERNET_LEN + 10..ETHERNET_LEN + 12].copy_from_slice(&checksum.to_be_bytes());
        let message = &mut data[ETHERNET_LEN + len..ETHERNET_LEN + total];
        message[0] = icmp4::ECHO_REPLY;
        message[2..4].fill(0);
        let checksum = !fold(sum(message));
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        Verdict::Answer
    }

    /// Makes an echo reply of the ICMPv6 request in `buf`, an IPv6 packet of `total` bytes without extension headers.
    pub(crate) fn answer_echo6(&self, rx: &Rx<'_>, buf: &mut P::Buf, total: usize) -> Verdict {
        let data = buf.data_mut();
        turn(rx, data);
        let Ok((header, message)) = Ipv6::mut_from_prefix(&mut data[ETHERNET_LEN..ETHERNET_LEN + total])
        else {
            return Verdict::Drop(DropReason::InvalidPacket);
        };
        if message.len() < 8 {
            return Verdict::Drop(DropReason::InvalidPacket);
        }
        let pseudo = pseudo_header(&header.src, &header.dst, protocol::ICMPV6, message.len());
        if fold(pseudo + sum(message)) != 0xffff {
            return Verdict::Drop(DropReason::L4Checksum);
        }
        (header.src, header.dst) = (header.dst, header.src);
        header.hop_limit = TTL;
        message[0] = icmp6::ECHO_REPLY;
        message[2..4].fill(0);
        // The pseudo-header's sum does not care which address is which.
        let checksum = !fold(pseudo + sum(message));
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        Verdict::Answer
    }

    /// Tells the sender of `frame` about an error, unless that is not allowed, or too many errors were sent lately: back to where
    /// it came from; if it was taken out of a tunnel (`inside`), through the tunnel to its sender's node; if it came in ESP without
    /// a tunnel, as packets to its sender are routed and encrypted.
    pub(crate) fn icmp_error(
        &mut self,
        rx: &Rx<'_>,
        frame: &[u8],
        error: Error,
        inside: bool,
        out: &mut Output<P::Buf>,
    ) {
        let Ok((ethernet, packet)) = Ethernet::ref_from_prefix(frame) else {
            return;
        };
        if ethernet.dst[0] & 1 != 0 {
            return;
        }
        let made = if ethernet.ethertype.get() == ethertype::IPV4 {
            may_report4(packet)
                && self.icmp4.allow(rx.now)
                && self.error4(rx, ethernet, packet, error, inside, out)
        } else {
            may_report6(packet)
                && self.icmp6.allow(rx.now)
                && self.error6(rx, ethernet, packet, error, inside, out)
        };
        if made {
            self.stats.icmp_errors.add(1);
        } else {
            self.stats.icmp_suppressed.add(1);
        }
    }

    fn error4(
        &mut self,
        rx: &Rx<'_>,
        ethernet: &Ethernet,
        packet: &[u8],
        error: Error,
        inside: bool,
        out: &mut Output<P::Buf>,
    ) -> bool {
        let Ok((old, _)) = Ipv4::ref_from_prefix(packet) else {
            return false;
        };
        // Network control (RFC 1812, section 4.3.2.5) is what a router sends.
        let (src, most, tos) = match error.of_destination() {
            true => (Some(old.dst.into()), SAMPLE_V4, 0),
            false => (own4(rx, inside), MAX_V4 - IPV4_LEN - 8, 0xc0),
        };
        let Some(src) = src else { return false };
        let sample = &packet[..packet.len().min(old.total_len.get().into()).min(most)];
        let total = IPV4_LEN + 8 + sample.len();
        let mut header = Ipv4 {
            version_ihl: 0x45,
            tos,
            total_len: (total as u16).into(),
            id: 0.into(),
            flags_fragment: 0.into(),
            ttl: TTL,
            protocol: protocol::ICMP,
            checksum: 0.into(),
            src: src.octets(),
            dst: old.src,
        };
        header.checksum = (!fold(sum(header.as_bytes()))).into();
        let (kind, code, rest) = error.v4();
        let mut icmp = Icmp {
            kind,
            code,
            checksum: 0.into(),
            rest: rest.into(),
        };
        icmp.checksum = (!fold(sum(icmp.as_bytes()) + sum(sample))).into();
        let parts = [header.as_bytes(), icmp.as_bytes(), sample];
        match inside {
            true => self.send_inside(rx, ethernet, parts, IpAddr::from(old.src), out),
            false => self.send_back(rx, ethernet, parts, IpAddr::from(old.src), out),
        }
    }

    fn error6(
        &mut self,
        rx: &Rx<'_>,
        ethernet: &Ethernet,
        packet: &[u8],
        error: Error,
        inside: bool,
        out: &mut Output<P::Buf>,
    ) -> bool {
        let Ok((old, _)) = Ipv6::ref_from_prefix(packet) else {
            return false;
        };
        let src = match error.of_destination() {
            true => Some(old.dst.into()),
            false => own6(rx, inside),
        };
        let Some(src) = src else { return false };
        let len = usize::from(old.payload_len.get()) + IPV6_LEN;
        let sample = &packet[..packet.len().min(len).min(MAX_V6 - IPV6_LEN - 8)];
        let header = Ipv6 {
            version_class_flow: (6 << 28).into(),
            payload_len: ((8 + sample.len()) as u16).into(),
            next_header: protocol::ICMPV6,
            hop_limit: TTL,
            src: src.octets(),
            dst: old.src,
        };
        let (kind, code, rest) = error.v6();
        let mut icmp = Icmp {
            kind,
            code,
            checksum: 0.into(),
            rest: rest.into(),
        };
        let pseudo = pseudo_header(&header.src, &header.dst, protocol::ICMPV6, 8 + sample.len());
        icmp.checksum = (!fold(pseudo + sum(icmp.as_bytes()) + sum(sample))).into();
        let parts = [header.as_bytes(), icmp.as_bytes(), sample];
        match inside {
            true => self.send_inside(rx, ethernet, parts, IpAddr::from(old.src), out),
            false => self.send_back(rx, ethernet, parts, IpAddr::from(old.src), out),
        }
    }

    /// Sends an error back to where the frame came from.
    fn send_back(
        &mut self,
        rx: &Rx<'_>,
        ethernet: &Ethernet,
        parts: [&[u8]; 3],
        sender: IpAddr,
        out: &mut Output<P::Buf>,
    ) -> bool {
        let Some(buf) = self.frame(rx, ethernet, parts, out) else {
            return false;
        };
        if is_unwrapped(rx, ethernet.src) {
            return self.send_routed(rx, buf, sender, out);
        }
        self.seal_or_send(rx, buf, rx.port, None, 0, out)
    }

    /// Sends what is said to the sender of a packet that was taken out of ESP the way that leads there, encrypted if what goes
    /// there is: the station that the packet came from is not known, and what is quoted of it was not to be read on the way.
    /// Whether it was sent.
    pub(crate) fn send_routed(
        &self,
        rx: &Rx<'_>,
        mut buf: P::Buf,
        sender: IpAddr,
        out: &mut Output<P::Buf>,
    ) -> bool {
        let remote = connection::remote(rx.snapshot, sender);
        let end = (remote.tunnel.is_some() && remote.key != 0 && rx.ipsec.is_some())
            .then(|| rx.snapshot.tunnel_end(remote.tunnel_end));
        // Whatever this node's own identity is: it repeats what somebody else's packet said.
        let Ok(sa) = connection::sealing(rx, end, false, remote.identity) else {
            out.discard(buf);
            return false;
        };
        let target = rx.snapshot.target(match end {
            Some(end) => end.target,
            None => connection::find(rx.snapshot, sender),
        });
        let mtu = match sa {
            Some((ipsec, sa)) => ipsec.room(sa, target.mtu, 0),
            None => target.mtu,
        };
        if target.action != Action::Forward || buf.len() - ETHERNET_LEN > usize::from(mtu) {
            out.discard(buf);
            return false;
        }
        if let Some(macs) = buf.data_mut().get_mut(..12) {
            macs.copy_from_slice(&target.macs);
        }
        self.seal_or_send(rx, buf, target.port, sa, 0, out)
    }

    /// Sends an error through the tunnel to the node of a sender elsewhere, encrypted if what goes there is.
    fn send_inside(
        &mut self,
        rx: &Rx<'_>,
        ethernet: &Ethernet,
        parts: [&[u8]; 3],
        sender: IpAddr,
        out: &mut Output<P::Buf>,
    ) -> bool {
        let remote = connection::remote(rx.snapshot, sender);
        if remote.tunnel_end == 0 {
            return false;
        }
        let end = rx.snapshot.tunnel_end(remote.tunnel_end);
        let target = rx.snapshot.target(end.target);
        // This node says it, but what it repeats was not to be read on the way if it came so.
        let author = if rx.decrypted {
            remote.identity
        } else {
            identity::HOST
        };
        let Ok(sa) = connection::sealing(rx, Some(end), true, author) else {
            return false;
        };
        if target.action != Action::Forward {
            return false;
        }
        let Some(mut buf) = self.frame(rx, ethernet, parts, out) else {
            return false;
        };
        let ecn = overlay::traffic_class(buf.data()) & 3;
        if overlay::encapsulate(&mut buf, end, identity::HOST, 0, ecn).is_err() {
            out.discard(buf);
            return false;
        }
        self.seal_or_send(rx, buf, target.port, sa, end.len, out)
    }

    /// Sends a frame with `tunnel` bytes of a tunnel's headers out of a port, encrypted if it is to be. Whether it was sent.
    fn seal_or_send(
        &self,
        rx: &Rx<'_>,
        buf: P::Buf,
        port: PortId,
        sa: Option<(Ipsec<'_>, &Sa)>,
        tunnel: u16,
        out: &mut Output<P::Buf>,
    ) -> bool {
        if let Some((ipsec, sa)) = sa {
            let seal = Seal {
                sa: sa.id(),
                port,
                front: ipsec.front(tunnel),
            };
            self.seal(rx, buf, seal, out);
            return true;
        }
        match out.send(port, buf) {
            Ok(()) => true,
            Err(buf) => {
                out.discard(buf);
                false
            }
        }
    }

    /// A frame of these parts, back to where `ethernet` is from.
    fn frame(
        &mut self,
        rx: &Rx<'_>,
        ethernet: &Ethernet,
        [ip, icmp, sample]: [&[u8]; 3],
        out: &mut Output<P::Buf>,
    ) -> Option<P::Buf> {
        let mut buf = self.pool.alloc()?;
        let back = Ethernet {
            dst: ethernet.src,
            src: rx.view.mac.0,
            ethertype: ethernet.ethertype,
        };
        let parts = [back.as_bytes(), ip, icmp, sample];
        let Ok(mut data) = buf.append(parts.iter().map(|part| part.len()).sum()) else {
            out.discard(buf);
            return None;
        };
        for part in parts {
            let (head, tail) = data.split_at_mut(part.len());
            head.copy_from_slice(part);
            data = tail;
        }
        Some(buf)
    }
}

/// Whether a frame was never on a link: its IP packet was in ESP, and who put an Ethernet header in front of it does not know
/// where that came from.
pub(crate) fn is_unwrapped(rx: &Rx<'_>, src: [u8; 6]) -> bool {
    rx.view.role == Role::Uplink && (rx.decrypted || src == [0; 6])
}

/// Swaps the Ethernet addresses for an answer.
fn turn(rx: &Rx<'_>, data: &mut [u8]) {
    if let Ok((ethernet, _)) = Ethernet::mut_from_prefix(data) {
        ethernet.dst = ethernet.src;
        ethernet.src = rx.view.mac.0;
    }
}

/// Our address that a sender behind this port knows, or one in the tunnel.
fn own4(rx: &Rx<'_>, inside: bool) -> Option<Ipv4Addr> {
    match rx.view.role {
        Role::Uplink if !inside => rx.view.addresses.iter().find_map(|addr| {
            if let IpAddr::V4(own) = addr {
                Some(*own)
            } else {
                None
            }
        }),
        _ => Some(rx.snapshot.gateways().ipv4),
    }
}

/// The same for IPv6.
fn own6(rx: &Rx<'_>, inside: bool) -> Option<Ipv6Addr> {
    match rx.view.role {
        Role::Uplink if !inside => rx
            .view
            .addresses
            .iter()
            .filter_map(|addr| match addr {
                IpAddr::V6(own) => Some(*own),
                IpAddr::V4(_) => None,
            })
            // A link-local address is no use to a sender behind a router (RFC 6724, rule 2).
            .min_by_key(Ipv6Addr::is_unicast_link_local),
        _ => Some(rx.snapshot.gateways().ipv6),
    }
}

/// Whether an error may be sent about this packet (RFC 1122, section 3.2.2).
fn may_report4(packet: &[u8]) -> bool {
    let Ok((header, _)) = Ipv4::ref_from_prefix(packet) else {
        return false;
    };
    let (src, dst) = (Ipv4Addr::from(header.src), Ipv4Addr::from(header.dst));
    let later_fragment = header.flags_fragment.get() & Ipv4::OFFSET != 0;
    let about_error = header.protocol == protocol::ICMP
        && packet
            .get(header.header_len())
            .is_none_or(|kind| icmp4::is_error(*kind));
    let one_station = |addr: Ipv4Addr| !(addr.is_multicast() || addr.is_broadcast() || addr.octets()[0] == 0);
    one_station(src) && one_station(dst) && !src.is_loopback() && !later_fragment && !about_error
}

/// Whether an error may be sent about this packet (RFC 4443, section 2.4 e).
fn may_report6(packet: &[u8]) -> bool {
    let Ok((header, mut rest)) = Ipv6::ref_from_prefix(packet) else {
        return false;
    };
    let (src, dst) = (Ipv6Addr::from(header.src), Ipv6Addr::from(header.dst));
    if src.is_unspecified() || src.is_multicast() || src.is_loopback() || dst.is_multicast() {
        return false;
    }
    // An ICMPv6 error may stand behind extension headers: hop-by-hop, routing, fragment, destination options.
    let mut next = header.next_header;
    for _ in 0..8 {
        match next {
            protocol::ICMPV6 => {
                return rest
                    .first()
                    .is_some_and(|kind| !icmp6::is_error(*kind) && *kind != icmp6::REDIRECT);
            }
            0 | 43 | 60 => {
                let [following, units, ..] = *rest else {
                    return false;
                };
                next = following;
                let Some(behind) = rest.get(8 + usize::from(units) * 8..) else {
                    return false;
                };
                rest = behind;
            }
            44 => {
                let [following, _, high, low, _, _, _, _, ref behind @ ..] = *rest else {
                    return false;
                };
                if u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
                    // What it is about stands in another fragment.
                    return false;
                }
                next = following;
                rest = behind;
            }
            _ => return true,
        }
    }
    false
}
