//! Packets in packets: out of tunnels from other nodes, and out of what other nodes' load balancers send.

use std::net::IpAddr;

use octoplane_packet::headers::ETHERNET_LEN;
use octoplane_packet::{BufPool, PacketBuf};
use octoplane_tables::Action;

use crate::connection::{self, FROM_TUNNEL, Packet, Part, Sender, Upper, is_served, leaves_here};
use crate::drop_reason::DropReason;
use crate::dsr::{Told, ipip};
use crate::engine::{Core, Rx};
use crate::ipsec::{EspIn, Framing, esp_in, is_protected, source};
use crate::overlay;
use crate::parking::Awaited;
use crate::slow::{plain_refused, sender};
use crate::verdict::Verdict::{self, Drop, Refuse};

impl<P: BufPool> Core<P> {
    /// Takes a packet out of the tunnel and to its endpoint (specification, 1.7). `place` is where the outer one is.
    pub(crate) fn unwrap_tunnel(&mut self, rx: &Rx<'_>, buf: &mut P::Buf, place: (usize, usize)) -> Verdict {
        let node = buf.data().get(ETHERNET_LEN..).and_then(source);
        let (identity, front) = match overlay::decapsulate(buf, rx.snapshot, place) {
            Ok(inside) => inside,
            Err(reason) => return Drop(reason),
        };
        if let Some(ipsec) = rx.ipsec.filter(|_| !rx.decrypted) {
            let packet = buf.data().get(ETHERNET_LEN..).unwrap_or_default();
            if esp_in(packet) == Some(EspIn::Ip) && !is_delivered(rx, packet) {
                // Who may have sent it follows from the packet inside, not from the tunnel, which anybody could have made.
                return match node.is_some_and(|node| ipsec.knows(node)) {
                    true => Verdict::Open,
                    false => Drop(DropReason::NoNodeId),
                };
            }
            let all = ipsec.framing == Framing::TunnelInEsp;
            if (all || is_protected(identity)) && node.is_none_or(|node| ipsec.demands(node)) {
                return Drop(DropReason::Unencrypted);
            }
        }
        self.inner(
            rx,
            buf,
            identity,
            front.map_or(Told::Nothing, Told::Used),
            FROM_TUNNEL,
        )
    }

    /// Takes a packet that another node's load balancer has sent to an endpoint out of the IP packet around it, and to the
    /// endpoint (specification, 3.6). `place` is where that one is.
    pub(crate) fn unwrap_ipip(
        &mut self,
        rx: &Rx<'_>,
        buf: &mut P::Buf,
        (len, total): (usize, usize),
    ) -> Verdict {
        let Some(backend) = connection::destination(buf.data()) else {
            return Drop(DropReason::InvalidPacket);
        };
        let read = ipip::decapsulate(buf, len, total).and_then(|()| match backend {
            IpAddr::V4(_) => overlay::check4(buf.data()).and_then(|()| Packet::v4(buf.data())),
            IpAddr::V6(_) => overlay::check6(buf.data()).and_then(|()| Packet::v6(buf.data())),
        });
        let mut packet = match read {
            Ok(packet) => packet,
            Err(reason) => return Drop(reason),
        };
        let src = packet.tuple.src();
        if plain_refused(rx, src) {
            return Drop(DropReason::Unencrypted);
        }
        if !connection::is_station(src) || !connection::is_station(packet.tuple.dst()) {
            return Drop(DropReason::InvalidPacket);
        }
        // One that waits would not be known again for what it is.
        if self.find_ports(rx, buf.data(), &mut packet).is_err() {
            return Drop(DropReason::FragmentNotFound);
        }
        self.connection(rx, buf, &packet, sender(rx, src), Told::For(backend))
    }

    /// Takes a packet that came out of a tunnel to its endpoint. `port` is where its connection expects the next one.
    pub(crate) fn inner(
        &mut self,
        rx: &Rx<'_>,
        buf: &mut P::Buf,
        identity: u32,
        told: Told,
        port: u16,
    ) -> Verdict {
        let read = match buf.data().get(12..14) {
            Some([0x08, 0x00]) => overlay::check4(buf.data()).and_then(|()| Packet::v4(buf.data())),
            _ => overlay::check6(buf.data()).and_then(|()| Packet::v6(buf.data())),
        };
        let mut packet = match read {
            Ok(packet) => packet,
            Err(reason) => return Drop(reason),
        };
        if let Err(first) = self.find_ports(rx, buf.data(), &mut packet) {
            return Verdict::ParkInner(Awaited::FirstFragment(first), identity);
        }
        let target = match packet.tuple.dst() {
            IpAddr::V4(dst) => rx.snapshot.route4(dst.to_bits()),
            IpAddr::V6(dst) => rx.snapshot.route6(dst.to_bits()),
        };
        self.note_route(packet.tuple.dst(), target);
        let kernels =
            matches!(target.action, Action::Local | Action::Host) && rx.snapshot.host_port().is_some();
        if target.action != Action::Deliver
            && !kernels
            && !self.knows(buf.data(), &packet)
            && !is_served(rx.snapshot, &packet.tuple)
            && !leaves_here(rx.snapshot, &packet.tuple)
        {
            // A tunnel leads to endpoints and to this machine, not through it.
            return match (target.action, target.endpoint) {
                (Action::PortDown, 1..) => Drop(DropReason::NoDevice),
                _ => Drop(DropReason::Unroutable),
            };
        }
        let sender = Sender {
            identity: connection::refined(rx.snapshot, identity, packet.tuple.src()),
            endpoint: 0,
            port,
        };
        match self.connection(rx, buf, &packet, sender, told) {
            Verdict::Park(awaited) => Verdict::ParkInner(awaited, identity),
            Refuse(reason, error) => Verdict::RefuseInner(reason, error),
            verdict => verdict,
        }
    }
}

/// Whether an IP packet is for an endpoint of this node.
fn is_delivered(rx: &Rx<'_>, packet: &[u8]) -> bool {
    let target = match packet.first().map_or(0, |first| first >> 4) {
        4 => packet
            .get(16..20)
            .and_then(|dst| dst.first_chunk())
            .map(|dst| rx.snapshot.route4(u32::from_be_bytes(*dst))),
        6 => packet
            .get(24..40)
            .and_then(|dst| dst.first_chunk())
            .map(|dst| rx.snapshot.route6(u128::from_be_bytes(*dst))),
        _ => None,
    };
    target.is_some_and(|target| target.action == Action::Deliver)
}

/// Whether a packet to one of our addresses comes from another node's tunnel.
pub(crate) fn is_tunnel(rx: &Rx<'_>, packet: &Packet) -> bool {
    let node = rx.snapshot.node();
    let ours = match packet.tuple.dst() {
        IpAddr::V4(dst) => node.tunnel.local4 == Some(dst),
        IpAddr::V6(dst) => node.tunnel.local6 == Some(dst),
    };
    ours && packet.upper == Upper::Udp && packet.part == Part::Whole && packet.port == node.tunnel.port
}
