//! The slow path: every check in the order of the specification (1.2 for pods, 1.5 for uplinks), one packet at a time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use octoplane_flow::Tuple;
use octoplane_packet::checksum::{fold, sum};
use octoplane_packet::headers::{
    ETHERNET_LEN, Ethernet, IPV6_LEN, Ipv4, Ipv6, ethertype, icmp4, icmp6, protocol,
};
use octoplane_packet::{BufPool, ChecksumStatus, PacketBuf};
use octoplane_tables::model::{HOST_ENDPOINT, Role, Routing};
use octoplane_tables::{Action, Target, identity};
use zerocopy::FromBytes;

use crate::address::{may_send, routable4, routable6};
use crate::connection::{self, FROM_TUNNEL, Packet, Sender, is_served};
use crate::drop_reason::DropReason;
use crate::dsr::Told;
use crate::engine::{Core, Rx};
use crate::icmp::Error;
use crate::inside::is_tunnel;
use crate::ipsec::{EspIn, esp_in, is_protected, source};
use crate::output::Output;
use crate::parking::Awaited;
use crate::verdict::Verdict::{self, Drop, Punt, Refuse};
use crate::verdict::send;

/// What remembers a packet.
enum Whose {
    /// A connection, or the one that it begins.
    Connection(Packet, Sender),
    /// What is in an IP packet to an endpoint, of which the header has this many bytes, and all of it that many.
    Ipip((usize, usize)),
    /// What is in the tunnel packet, whose IP header has this many bytes, and which ends there in the frame.
    Tunnel((usize, usize)),
    /// Nothing: it is dropped.
    Nobodys(DropReason),
    /// What the first fragment of its packet will say.
    Unknown(Tuple),
}

impl<P: BufPool> Core<P> {
    /// Takes one packet through all checks and carries the verdict out.
    #[cold]
    #[inline(never)]
    pub(crate) fn slow(&mut self, rx: &Rx<'_>, mut buf: P::Buf, out: &mut Output<P::Buf>) {
        let verdict = self.inspect(rx, &mut buf);
        self.finish(rx, verdict, buf, out);
    }

    /// The same for a packet that came out of a tunnel, from a sender of this identity.
    #[cold]
    #[inline(never)]
    pub(crate) fn slow_inner(
        &mut self,
        rx: &Rx<'_>,
        identity: u32,
        mut buf: P::Buf,
        out: &mut Output<P::Buf>,
    ) {
        let verdict = self.inner(rx, &mut buf, identity, Told::Nothing, FROM_TUNNEL);
        self.finish(rx, verdict, buf, out);
    }

    fn inspect(&mut self, rx: &Rx<'_>, buf: &mut P::Buf) -> Verdict {
        if !buf.is_contiguous() {
            return Drop(DropReason::Segmented);
        }
        let role = rx.view.role;
        loop {
            let Ok((ethernet, rest)) = Ethernet::ref_from_prefix(buf.data()) else {
                return Drop(DropReason::InvalidPacket);
            };
            let group = ethernet.dst[0] & 1 != 0;
            if role != Role::Pod && !group && ethernet.dst != rx.view.mac.0 {
                return Drop(DropReason::OtherStation);
            }
            return match ethernet.ethertype.get() {
                ethertype::ARP => self.arp(rx, buf),
                ethertype::IPV4 => self.ipv4(rx, buf, group),
                ethertype::IPV6 => self.ipv6(rx, buf, group),
                ethertype::VLAN | ethertype::QINQ if role != Role::Pod => {
                    let Some(&[high, low]) = rest.first_chunk() else {
                        return Drop(DropReason::InvalidPacket);
                    };
                    if u16::from_be_bytes([high, low]) & 0xfff != 0 {
                        return Drop(DropReason::VlanFiltered);
                    }
                    // A priority tag (VLAN id 0) says nothing about where the packet belongs.
                    buf.data_mut().copy_within(..12, 4);
                    if buf.trim_front(4).is_err() {
                        return Drop(DropReason::InvalidPacket);
                    }
                    continue;
                }
                other => match role {
                    Role::Uplink if other < ethertype::MIN => Punt(DropReason::UnsupportedL2),
                    Role::Uplink => Punt(DropReason::UnsupportedL3),
                    _ if other < ethertype::MIN => Drop(DropReason::UnsupportedL2),
                    _ => Drop(DropReason::UnsupportedL3),
                },
            };
        }
    }

    fn ipv4(&mut self, rx: &Rx<'_>, buf: &mut P::Buf, group: bool) -> Verdict {
        let packet = &buf.data()[ETHERNET_LEN..];
        let Ok((header, _)) = Ipv4::ref_from_prefix(packet) else {
            return Drop(DropReason::InvalidPacket);
        };
        let (len, total) = (header.header_len(), usize::from(header.total_len.get()));
        if header.version_ihl >> 4 != 4 || len < 20 || total < len || total > packet.len() {
            return Drop(DropReason::InvalidPacket);
        }
        let intact = match buf.ip_checksum_status() {
            ChecksumStatus::Good => true,
            ChecksumStatus::Bad => false,
            ChecksumStatus::Unknown => fold(sum(&packet[..len])) == 0xffff,
        };
        if !intact {
            return Drop(DropReason::L3Checksum);
        }
        let (src, dst) = (Ipv4Addr::from(header.src), Ipv4Addr::from(header.dst));
        let owner = (rx.view.role == Role::Pod).then(|| rx.snapshot.route4(src.to_bits()));
        if owner.is_some_and(|owner| !may_send(owner, rx)) {
            return Drop(DropReason::InvalidSource);
        }
        if !src.is_unspecified() && !routable4(src.to_bits()) {
            return Drop(DropReason::InvalidPacket);
        }
        let to_many = group && rx.view.role != Role::Pod || dst.is_multicast() || dst.is_broadcast();
        if to_many || src.is_unspecified() {
            // Nothing that was sent to many is forwarded (RFC 1812, section 5.3.4).
            return self.not_forwarded(rx, buf.data(), src.into());
        }
        if !routable4(dst.to_bits()) {
            return Drop(DropReason::Unroutable);
        }
        let target = *rx.snapshot.route4(dst.to_bits());
        self.note_route(dst.into(), &target);
        if let Some(verdict) = esp(rx, packet, &target) {
            return verdict;
        }
        let whose = self.whose(rx, buf.data(), &target, (src.into(), owner));
        if was_tunnelled(rx, whose.as_ref()) {
            return self.inner(rx, buf, sender(rx, src.into()).identity, Told::Nothing, rx.port);
        }
        if let Some(whose) = whose {
            return self.stateful(rx, buf, whose);
        }
        if let Err(verdict) = self.ask_before_lost(rx, buf.data(), &target, src.into()) {
            return verdict;
        }
        let ttl = header.ttl;
        let may_cut = header.flags_fragment.get() & Ipv4::DF == 0;
        if let Err(verdict) = self.route(rx, &target, dst.into(), total, ttl, may_cut) {
            return verdict;
        }
        match target.action {
            Action::Forward | Action::Deliver => {
                trim_to_mtu(buf, &target, total);
                let data = buf.data_mut();
                let Ok((header, _)) = Ipv4::mut_from_prefix(&mut data[ETHERNET_LEN..]) else {
                    return Drop(DropReason::InvalidPacket);
                };
                header.ttl -= 1;
                header.checksum.set(0);
                let checksum = !fold(sum(&data[ETHERNET_LEN..ETHERNET_LEN + len]));
                data[ETHERNET_LEN + 10..ETHERNET_LEN + 12].copy_from_slice(&checksum.to_be_bytes());
                data[..12].copy_from_slice(&target.macs);
                send(&target, total)
            }
            _ => {
                if let Err(verdict) = self.ask_here(rx, buf.data(), src.into()) {
                    return verdict;
                }
                let (fragment, is_icmp) = (header.is_fragment(), header.protocol == protocol::ICMP);
                // A later fragment does not say what it is a part of.
                let later = header.flags_fragment.get() & Ipv4::OFFSET != 0;
                // What stands behind the packet is none of it.
                let kind = packet.get(len).filter(|_| total > len);
                let echo = is_icmp && (later || kind == Some(&icmp4::ECHO_REQUEST));
                self.ours(rx, &target, echo, fragment, |core| {
                    core.answer_echo4(rx, buf, len, total)
                })
            }
        }
    }

    fn ipv6(&mut self, rx: &Rx<'_>, buf: &mut P::Buf, group: bool) -> Verdict {
        let packet = &buf.data()[ETHERNET_LEN..];
        let Ok((header, _)) = Ipv6::ref_from_prefix(packet) else {
            return Drop(DropReason::InvalidPacket);
        };
        let total = usize::from(header.payload_len.get()) + IPV6_LEN;
        if header.version_class_flow.get() >> 28 != 6 || total > packet.len() {
            return Drop(DropReason::InvalidPacket);
        }
        let (src, dst) = (Ipv6Addr::from(header.src), Ipv6Addr::from(header.dst));
        if src.is_multicast() {
            return Drop(match rx.view.role {
                Role::Pod => DropReason::InvalidSource,
                Role::Uplink | Role::Host => DropReason::InvalidPacket,
            });
        }
        // Neighbour discovery comes before the source check: a pod asks from its link-local address, too.
        let kind = if header.next_header == protocol::ICMPV6 && total > IPV6_LEN {
            packet.get(IPV6_LEN).copied()
        } else {
            None
        };
        if matches!(
            kind,
            Some(icmp6::NEIGHBOUR_SOLICITATION | icmp6::NEIGHBOUR_ADVERTISEMENT)
        ) {
            return self.neighbour_discovery(rx, buf, total);
        }
        let gateway = rx.snapshot.gateways().ipv6;
        let owner = (rx.view.role == Role::Pod).then(|| rx.snapshot.route6(src.to_bits()));
        if owner.is_some_and(|owner| !may_send(owner, rx)) {
            // A pod that pings a link-local gateway does so from its own link-local address, which no endpoint has.
            let local = src.is_unicast_link_local() && dst.is_unicast_link_local() && dst == gateway;
            return match kind {
                Some(icmp6::ECHO_REQUEST) if local => self.answer_echo6(rx, buf, total),
                _ => Drop(DropReason::InvalidSource),
            };
        }
        if group && rx.view.role != Role::Pod || dst.is_multicast() {
            return self.not_forwarded(rx, buf.data(), src.into());
        }
        if src.is_loopback() {
            return Drop(DropReason::InvalidPacket);
        }
        if !routable6(src.to_bits()) || dst.is_unicast_link_local() && dst != gateway {
            return self.not_forwarded(rx, buf.data(), src.into());
        }
        if dst.is_unspecified() || dst.is_loopback() {
            return Drop(DropReason::Unroutable);
        }
        let target = *rx.snapshot.route6(dst.to_bits());
        self.note_route(dst.into(), &target);
        if let Some(verdict) = esp(rx, packet, &target) {
            return verdict;
        }
        let whose = self.whose(rx, buf.data(), &target, (src.into(), owner));
        if was_tunnelled(rx, whose.as_ref()) {
            return self.inner(rx, buf, sender(rx, src.into()).identity, Told::Nothing, rx.port);
        }
        if let Some(whose) = whose {
            return self.stateful(rx, buf, whose);
        }
        if let Err(verdict) = self.ask_before_lost(rx, buf.data(), &target, src.into()) {
            return verdict;
        }
        if let Err(verdict) = self.route(rx, &target, dst.into(), total, header.hop_limit, false) {
            return verdict;
        }
        match target.action {
            Action::Forward | Action::Deliver => {
                trim_to_mtu(buf, &target, total);
                let data = buf.data_mut();
                data[ETHERNET_LEN + 7] -= 1;
                data[..12].copy_from_slice(&target.macs);
                Verdict::Send(target.port)
            }
            _ => {
                if let Err(verdict) = self.ask_here(rx, buf.data(), src.into()) {
                    return verdict;
                }
                let fragment = header.next_header == protocol::FRAGMENT
                    && packet.get(IPV6_LEN) == Some(&protocol::ICMPV6);
                // A later fragment does not say what it is a part of.
                let later = packet
                    .get(IPV6_LEN + 2..IPV6_LEN + 4)
                    .is_some_and(|at| at[0] != 0 || at[1] & 0xf8 != 0);
                let echo = match fragment {
                    true => {
                        let first = packet.get(IPV6_LEN + 8).filter(|_| total > IPV6_LEN + 8);
                        later || first == Some(&icmp6::ECHO_REQUEST)
                    }
                    false => kind == Some(icmp6::ECHO_REQUEST),
                };
                self.ours(rx, &target, echo, fragment, |core| {
                    core.answer_echo6(rx, buf, total)
                })
            }
        }
    }

    /// Whether a packet belongs to a connection: one from an endpoint, to one or to a service, or the reply to one. `None`
    /// for others, which are forwarded without memory. `owner` is the target of the source's address if it has to be
    /// an endpoint's.
    fn whose(
        &mut self,
        rx: &Rx<'_>,
        frame: &[u8],
        target: &Target,
        (src, owner): (IpAddr, Option<&Target>),
    ) -> Option<Whose> {
        let read = |frame: &[u8]| match src {
            IpAddr::V4(_) => Packet::v4(frame),
            IpAddr::V6(_) => Packet::v6(frame),
        };
        let forwarded = matches!(
            target.action,
            Action::Forward | Action::Deliver | Action::Resolve | Action::Glean
        );
        let own = matches!(target.action, Action::Local | Action::Host);
        let always = match (rx.view.role, target.action) {
            (_, Action::Deliver) => true,
            // What goes to the kernel is no way round policy, and a tunnel may lead where no route does.
            (Role::Pod, Action::None | Action::Host) => true,
            (Role::Pod, Action::Local) => rx.snapshot.host_port().is_some(),
            (Role::Pod, Action::Gateway) => false,
            (Role::Pod, _) => forwarded || is_tunnelled(rx, frame, src),
            (Role::Uplink, _) => own && rx.snapshot.policy(HOST_ENDPOINT).is_some(),
            (Role::Host, action) => {
                forwarded && rx.snapshot.policy(HOST_ENDPOINT).is_some()
                    || !matches!(action, Action::Local | Action::Gateway) && is_tunnelled(rx, frame, src)
            }
        };
        let mut packet = match read(frame) {
            Ok(packet) => packet,
            Err(reason) if always => return Some(Whose::Nobodys(reason)),
            // Which of the services at its address it is for cannot be told (3.6).
            Err(reason)
                if rx.view.role == Role::Uplink
                    && destination(frame, src).is_some_and(|dst| rx.snapshot.serves(dst)) =>
            {
                return Some(Whose::Nobodys(reason));
            }
            Err(_) => return None,
        };
        if target.action == Action::Deliver && connection::hears_ipip(rx, &packet) {
            return Some(Whose::Ipip((packet.l4 - ETHERNET_LEN, packet.end - ETHERNET_LEN)));
        }
        let always =
            always || rx.view.role == Role::Host && forwarded && connection::reserves(rx.snapshot, &packet);
        // What no route forwards may be a service's. What the kernel sends is not held up for that.
        let (snapshot, dst) = (rx.snapshot, packet.tuple.dst());
        let near_service = || snapshot.serves_block(dst);
        let held = || match rx.view.role {
            Role::Host => rx.snapshot.policy(HOST_ENDPOINT).is_some(),
            Role::Pod | Role::Uplink => !forwarded || near_service(),
        };
        if (always || held())
            && let Err(first) = self.find_ports(rx, frame, &mut packet)
        {
            return Some(Whose::Unknown(first));
        }
        if !always || own {
            if own && rx.view.role == Role::Uplink && is_tunnel(rx, &packet) {
                return Some(Whose::Tunnel((packet.l4 - ETHERNET_LEN, packet.end)));
            }
            // Replies to what left under our address, or to an endpoint that reached itself, errors about them, and services.
            let known = match forwarded {
                true => near_service() && self.tells_of_known(frame, &packet),
                false => self.knows(frame, &packet),
            };
            if !always && !known && !is_served(rx.snapshot, &packet.tuple) {
                return None;
            }
        }
        let sender = owner.map_or_else(|| sender(rx, src), |owner| endpoint(rx, owner));
        Some(Whose::Connection(packet, sender))
    }

    /// A packet to many, or of link-local scope: the kernel's, unless it came from there.
    fn not_forwarded(&self, rx: &Rx<'_>, frame: &[u8], src: IpAddr) -> Verdict {
        if rx.view.role == Role::Host {
            return Verdict::Consumed;
        }
        match self.ask_policy(rx, frame, src) {
            Ok(()) => Punt(DropReason::Unroutable),
            Err(verdict) => verdict,
        }
    }

    fn stateful(&mut self, rx: &Rx<'_>, buf: &mut P::Buf, whose: Whose) -> Verdict {
        match whose {
            Whose::Connection(packet, sender) => self.connection(rx, buf, &packet, sender, Told::Nothing),
            Whose::Ipip(place) => self.unwrap_ipip(rx, buf, place),
            Whose::Tunnel(place) => self.unwrap_tunnel(rx, buf, place),
            Whose::Nobodys(reason) => Drop(reason),
            Whose::Unknown(first) => Verdict::Park(Awaited::FirstFragment(first)),
        }
    }

    /// Whether the packet may go where its target says: `Ok` if it is forwarded, or is for this machine. One that may be
    /// cut may be too large.
    pub(crate) fn route(
        &self,
        rx: &Rx<'_>,
        target: &Target,
        dst: IpAddr,
        size: usize,
        ttl: u8,
        may_cut: bool,
    ) -> Result<(), Verdict> {
        match target.action {
            Action::Forward | Action::Deliver | Action::Resolve | Action::Glean => {
                if ttl <= 1 {
                    return Err(Refuse(DropReason::TtlExceeded, Error::TimeExceeded));
                }
                if size > usize::from(target.mtu) && !may_cut {
                    return Err(Refuse(DropReason::FragmentationNeeded, Error::TooBig(target.mtu)));
                }
                match target.action {
                    Action::Resolve => {
                        let next_hop = target.next_hop.unwrap_or(dst);
                        Err(Verdict::Park(Awaited::Neighbour(target.port, next_hop)))
                    }
                    Action::Glean => Err(Verdict::Park(Awaited::Neighbour(target.port, dst))),
                    _ => Ok(()),
                }
            }
            Action::Gateway | Action::Local => Ok(()),
            Action::None | Action::Host => Err(if rx.view.role == Role::Host {
                // It came from the kernel, which has no better idea.
                Drop(DropReason::Unroutable)
            } else {
                Punt(DropReason::Unroutable)
            }),
            Action::Blackhole => Err(Drop(DropReason::Unroutable)),
            Action::PortDown => Err(Drop(DropReason::NoDevice)),
        }
    }

    /// A packet to one of our own addresses. Pings of the gateway are answered here; our addresses on links belong to
    /// the kernel, if there is a way to it.
    fn ours(
        &mut self,
        rx: &Rx<'_>,
        target: &Target,
        echo: bool,
        fragment: bool,
        answer: impl FnOnce(&mut Self) -> Verdict,
    ) -> Verdict {
        let kernel = rx.snapshot.host_port().is_some() && rx.view.role != Role::Host;
        if echo && (target.action == Action::Gateway || !kernel) {
            return if fragment {
                Drop(DropReason::Fragment)
            } else {
                answer(self)
            };
        }
        if rx.view.role == Role::Host {
            Drop(DropReason::Unroutable)
        } else {
            Punt(DropReason::LocalHostUnreachable)
        }
    }
}

/// What is to be done with a packet from the underlay that is encrypted, or should be (specification, 1.5 step 3): `None` if
/// nothing special is.
pub(crate) fn esp(rx: &Rx<'_>, packet: &[u8], target: &Target) -> Option<Verdict> {
    let ipsec = rx
        .ipsec
        .filter(|_| rx.view.role == Role::Uplink && !rx.decrypted)?;
    let src = source(packet)?;
    match target.action {
        Action::Local | Action::Host => match esp_in(packet)? {
            _ if ipsec.knows(src) => Some(Verdict::Open),
            EspIn::Ip => Some(Drop(DropReason::NoNodeId)),
            // Somebody else's on this machine.
            EspIn::Udp => None,
        },
        Action::Deliver if plain_refused(rx, src) => Some(Drop(DropReason::Unencrypted)),
        _ => None,
    }
}

/// Whether a packet that came out of ESP was in a tunnel, too, and was taken out of it before: then it goes where packets from
/// tunnels go.
fn was_tunnelled(rx: &Rx<'_>, whose: Option<&Whose>) -> bool {
    rx.decrypted
        && rx.view.role == Role::Uplink
        && rx.snapshot.node().routing == Routing::Tunnel
        && !matches!(whose, Some(Whose::Tunnel(_)))
}

/// Whether a packet from this address should have come encrypted.
pub(crate) fn plain_refused(rx: &Rx<'_>, src: IpAddr) -> bool {
    let Some(ipsec) = rx.ipsec.filter(|ipsec| ipsec.strict && !rx.decrypted) else {
        return false;
    };
    let remote = connection::remote(rx.snapshot, src);
    remote.key != 0 && is_protected(remote.identity) && remote.tunnel.is_some_and(|node| ipsec.demands(node))
}

/// Cuts off what stands behind an IP packet of `total` bytes if the frame would be too large with it.
fn trim_to_mtu<B: PacketBuf>(buf: &mut B, target: &Target, total: usize) {
    let payload = buf.len() - ETHERNET_LEN;
    if payload > usize::from(target.mtu) && payload > total {
        // Never more than there is: `total` was checked against the buffer.
        let _ = buf.trim_back(payload - total);
    }
}

/// Who sends packets from this address by the port that they came in by.
pub(crate) fn sender(rx: &Rx<'_>, src: IpAddr) -> Sender {
    match rx.view.role {
        Role::Pod => {
            let owner = match src {
                IpAddr::V4(src) => rx.snapshot.route4(src.to_bits()),
                IpAddr::V6(src) => rx.snapshot.route6(src.to_bits()),
            };
            endpoint(rx, owner)
        }
        Role::Host => Sender {
            identity: identity::HOST,
            endpoint: 0,
            port: rx.port,
        },
        Role::Uplink => Sender {
            // Nobody out there speaks for this node (specification, 1.5 step 5).
            identity: match connection::remote(rx.snapshot, src).identity {
                identity::HOST => 0,
                identity => identity,
            },
            endpoint: 0,
            port: rx.port,
        },
    }
}

/// The endpoint that a source address belongs to.
fn endpoint(rx: &Rx<'_>, owner: &Target) -> Sender {
    Sender {
        identity: owner.identity,
        endpoint: owner.endpoint,
        port: rx.port,
    }
}

/// Whether the way to where the kernel sends a packet is a tunnel (specification, 1.5, from_host).
fn is_tunnelled(rx: &Rx<'_>, frame: &[u8], src: IpAddr) -> bool {
    rx.snapshot.node().routing == Routing::Tunnel
        && destination(frame, src).is_some_and(|dst| {
            let remote = connection::remote(rx.snapshot, dst);
            remote.tunnel.is_some() && !remote.skip_tunnel
        })
}

/// Where a packet from `src` goes.
fn destination(frame: &[u8], src: IpAddr) -> Option<IpAddr> {
    match src {
        IpAddr::V4(_) => {
            let dst: &[u8; 4] = frame.get(ETHERNET_LEN + 16..)?.first_chunk()?;
            Some((*dst).into())
        }
        IpAddr::V6(_) => {
            let dst: &[u8; 16] = frame.get(ETHERNET_LEN + 24..)?.first_chunk()?;
            Some((*dst).into())
        }
    }
}
