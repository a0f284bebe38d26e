//! VXLAN (RFC 7348) and Geneve (RFC 8926): specification, 1.7 and section 5.

use std::net::IpAddr;

use crate::config::{Direction, Routing, TunnelProtocol};
use crate::conntrack::Kind;
use crate::fib::{Target, identity};
use crate::model::{Model, Rx};
use crate::outcome::{Flow, Stop, Told, code};
use crate::wire::{Packet, UDP, be16, build4, build6, byte, l4_checksum, put, uncut};

/// UDP, tunnel and inner Ethernet headers.
const OVERHEAD: u16 = 8 + 8 + 14;

/// The VNI that stands for an identity (specification, 1.7).
pub(crate) fn vni(id: u32) -> u32 {
    match id {
        identity::HOST => identity::REMOTE_NODE,
        identity::WORLD4 | identity::WORLD6 => identity::WORLD,
        // Identities that mean something on one node only do not leave it.
        id if id > 0xff_ffff => identity::WORLD,
        id => id,
    }
}

/// The inner ECN field after decapsulation; `None`: drop (RFC 6040, section 4.2).
pub(crate) fn ecn_out(inner: u8, outer: u8) -> Option<u8> {
    match (inner, outer) {
        (0, 3) => None,
        (0, _) => Some(0),
        (_, 3) => Some(3),
        (2, 1) => Some(1),
        (inner, _) => Some(inner),
    }
}

impl Model {
    /// The node behind which `dst` is, if it is reached in a tunnel (specification, 1.2 step 14.7).
    pub(crate) fn tunnel_peer(&self, dst: IpAddr, from_tunnel: bool) -> Option<IpAddr> {
        let entry = self.ipcache(dst)?;
        (self.state.node.routing == Routing::Tunnel && (from_tunnel || !entry.skip_tunnel))
            .then_some(entry.tunnel_endpoint)
            .flatten()
    }

    /// Sends a packet to another node in a tunnel. Its TTL stays.
    pub(crate) fn encapsulate(
        &self,
        rx: &mut Rx<'_>,
        pkt: &Packet,
        peer: IpAddr,
        id: u32,
        direction: Direction,
    ) -> Flow {
        self.encapsulate_with(rx, pkt, peer, id, direction, &[])
    }

    /// The same with Geneve options, of which each must be understood.
    pub(crate) fn encapsulate_with(
        &self,
        rx: &mut Rx<'_>,
        pkt: &Packet,
        peer: IpAddr,
        id: u32,
        direction: Direction,
        options: &[u8],
    ) -> Flow {
        let tunnel = self.state.node.tunnel.clone();
        let local = match peer {
            IpAddr::V4(_) => tunnel.local4.map(IpAddr::V4),
            IpAddr::V6(_) => tunnel.local6.map(IpAddr::V6),
        };
        // Without an address of ours there is no tunnel.
        let Some(local) = local else {
            return Err(Stop::Drop(code::NO_TUNNEL_ENDPOINT, direction));
        };
        let Target::Exit(exit) = self.route(peer) else {
            return Err(Stop::Drop(code::NO_FIB, direction));
        };
        if !exit.port.admin_up {
            return Err(Stop::Drop(code::NO_DEVICE, direction));
        }
        let outer: u16 = if peer.is_ipv4() { 20 } else { 40 };
        // Nothing is cut on its way into a tunnel: whoever may be told is told.
        let room = exit.mtu.saturating_sub(OVERHEAD + outer + options.len() as u16);
        if pkt.bytes.len() > usize::from(room) {
            return Err(Stop::Refuse(code::FRAG_NEEDED, direction, Told::TooBig(room)));
        }
        let vni = vni(id).to_be_bytes();
        let port = rx.choices.tunnel_source_port();
        let mut inner = match tunnel.protocol {
            TunnelProtocol::Vxlan => vec![8, 0, 0, 0, byte(&vni, 1), byte(&vni, 2), byte(&vni, 3), 0],
            TunnelProtocol::Geneve => {
                let critical = if options.is_empty() { 0 } else { 0x40 };
                let words = (options.len() / 4) as u8;
                vec![
                    words,
                    critical,
                    0x65,
                    0x58,
                    byte(&vni, 1),
                    byte(&vni, 2),
                    byte(&vni, 3),
                    0,
                ]
            }
        };
        inner.extend(options);
        inner.extend(rx.frame.get(..12).unwrap_or_default());
        inner.extend(pkt.ethertype().to_be_bytes());
        inner.extend(&pkt.bytes);
        let mut udp = port.to_be_bytes().to_vec();
        udp.extend(tunnel.udp_port().to_be_bytes());
        udp.extend(((8 + inner.len()) as u16).to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(inner);
        let bytes = match (local, peer) {
            (IpAddr::V4(local), IpAddr::V4(peer)) => {
                // What is inside was made to fit.
                let id = rx.choices.outer_ip_id();
                uncut(build4(local, peer, UDP, pkt.ecn(), id, &udp))
            }
            (IpAddr::V6(local), IpAddr::V6(peer)) => {
                let checksum = match l4_checksum(local.into(), peer.into(), UDP, &udp) {
                    0 => 0xffff,
                    other => other,
                };
                put(&mut udp, 6, &checksum.to_be_bytes());
                build6(local, peer, UDP, pkt.ecn(), &udp)
            }
            _ => return Err(Stop::Drop(code::NO_TUNNEL_ENDPOINT, direction)),
        };
        let outer = Packet::parse(peer.is_ipv6(), &bytes).map_err(|code| Stop::Drop(code, direction))?;
        self.transmit(rx, &outer, &exit)
    }

    /// Whether a packet is a tunnel packet to this node.
    pub(crate) fn is_tunnel(&self, pkt: &Packet) -> bool {
        let tunnel = &self.state.node.tunnel;
        let local = [tunnel.local4.map(IpAddr::V4), tunnel.local6.map(IpAddr::V6)];
        pkt.protocol == UDP
            && local.contains(&Some(pkt.dst()))
            && !pkt.later_fragment()
            && pkt.payload().len() >= 8
            && be16(pkt.payload(), 2) == tunnel.udp_port()
    }

    /// Takes a packet out of the tunnel.
    pub(crate) fn decapsulate(&mut self, rx: &mut Rx<'_>, outer: &Packet) -> Flow {
        if outer.fragment.is_some() {
            return Err(rx.drop(code::FRAGMENT));
        }
        let udp = outer.payload();
        let len = usize::from(be16(udp, 4));
        let Some(udp) = udp.get(..len).filter(|udp| udp.len() >= 16) else {
            return Err(rx.drop(code::INVALID));
        };
        // The checksum need not be looked at (RFC 7348, section 5; RFC 8926, section 3.3).
        let header = udp.get(8..16).unwrap_or_default();
        let (valid, options) = match self.state.node.tunnel.protocol {
            TunnelProtocol::Vxlan => (byte(header, 0) & 8 != 0, 0),
            TunnelProtocol::Geneve => (
                // Control packets are nobody's (RFC 8926, 3.4).
                byte(header, 0) >> 6 == 0 && byte(header, 1) & 0x80 == 0 && be16(header, 2) == 0x6558,
                usize::from(byte(header, 0) & 0x3f) * 4,
            ),
        };
        if !valid {
            return Err(rx.drop(match self.state.node.tunnel.protocol {
                TunnelProtocol::Vxlan => code::NO_TUNNEL_KEY,
                TunnelProtocol::Geneve => code::INVALID,
            }));
        }
        let vni = u32::from(be16(header, 4)) << 8 | u32::from(byte(header, 6));
        let (Some(frame), Some(options)) = (udp.get(16 + options..), udp.get(16..16 + options)) else {
            return Err(rx.drop(code::INVALID));
        };
        let critical =
            self.state.node.tunnel.protocol == TunnelProtocol::Geneve && byte(header, 1) & 0x40 != 0;
        let told = self
            .geneve_option(options, critical)
            .map_err(|code| rx.drop(code))?;
        if frame.len() < 14 {
            return Err(rx.drop(code::INVALID));
        }
        let mut frame = frame.to_vec();
        let v6 = match be16(&frame, 12) {
            0x0800 => false,
            0x86dd => true,
            _ => return Err(rx.drop(code::UNSUPPORTED_L3)),
        };
        if told.is_some_and(|(addr, _)| addr.is_ipv6() != v6) {
            return Err(rx.drop(code::INVALID));
        }
        // The tunnel ends before the datapath looks at what came out of it.
        let inner = if v6 {
            byte(&frame, 15) >> 4 & 3
        } else {
            byte(&frame, 15) & 3
        };
        let Some(ecn) = ecn_out(inner, outer.ecn()) else {
            return Err(rx.drop(code::INVALID));
        };
        if vni == identity::HOST {
            return Err(rx.drop(code::INVALID_IDENTITY));
        }
        let mut pkt = Packet::parse(v6, frame.get(14..).unwrap_or_default()).map_err(|code| rx.drop(code))?;
        if ecn != pkt.ecn() {
            pkt.set_ecn(ecn);
            // It comes out of the tunnel with it (RFC 6040, 4.2): what is said about it later quotes it so.
            put(&mut frame, 14, &pkt.bytes);
        }
        let mut rx = Rx {
            port: rx.port.clone(),
            frame,
            received: rx.received.clone(),
            tunnel: Some(outer.src()),
            vni,
            told,
            choices: &mut *rx.choices,
            out: &mut *rx.out,
        };
        let result = self.inner(&mut rx, &mut pkt, vni);
        self.conclude(&mut rx, result);
        Ok(())
    }

    /// What has come out of a tunnel.
    pub(crate) fn inner(&mut self, rx: &mut Rx<'_>, pkt: &mut Packet, vni: u32) -> Flow {
        if !self.fragment_of(rx, pkt, Some(vni))? {
            return Ok(());
        }
        let first = pkt.clone();
        let result = self.without_trace(|model| model.overlay_ingress(rx, pkt, vni));
        self.conclude(rx, result);
        self.release_fragments(rx, &first, Some(vni));
        Ok(())
    }

    /// A packet that came in a tunnel (specification, 1.7: `cil_from_overlay`).
    pub(crate) fn overlay_ingress(&mut self, rx: &mut Rx<'_>, pkt: &mut Packet, vni: u32) -> Flow {
        pkt.tuple().map_err(|code| rx.drop(code))?;
        let mut src_id = if vni == identity::WORLD {
            self.world(pkt.v6)
        } else {
            vni
        };
        // What the world is to the node that has balanced it may be more here.
        if matches!(src_id, identity::WORLD | identity::WORLD4 | identity::WORLD6) && self.returns_directly()
        {
            src_id = match self.identity(pkt.src()) {
                identity::HOST => src_id,
                known => known,
            };
        }
        if let Some(about) = self.about(pkt) {
            return self.pass_on(rx, pkt, about, src_id);
        }
        if self.nodeport_lb(rx, pkt, src_id)? {
            return Ok(());
        }
        if identity::is_remote_node(src_id) {
            src_id = match self.identity(pkt.src()) {
                // Nobody out there speaks for this node.
                identity::HOST => src_id,
                known => known,
            };
        }
        if self.egress_here(rx, pkt)? {
            return Ok(());
        }
        match self.target(pkt.dst()) {
            Target::Endpoint(endpoint) => self.local_delivery(rx, pkt, &endpoint, src_id, true),
            Target::Own | Target::Host => {
                self.host_ingress(rx, pkt, src_id)?;
                self.up(rx, pkt, src_id)
            }
            // A tunnel leads to pods and to this machine, not through it; but for answers to what went by it.
            target => {
                let tuple = pkt.tuple().map_err(|code| rx.drop(code))?;
                let known = [tuple, tuple.reversed()].iter().any(|tuple| {
                    [Kind::Out, Kind::In]
                        .iter()
                        .any(|kind| self.ct.get(tuple, *kind).is_some())
                });
                if !known {
                    return Err(rx.drop(code::UNROUTABLE));
                }
                self.host_ingress(rx, pkt, src_id)?;
                match target {
                    // Who is on another node is sent what answers it.
                    Target::Exit(_) | Target::Unknown if self.tunnel_peer(pkt.dst(), false).is_some() => {
                        let Some(peer) = self.tunnel_peer(pkt.dst(), false) else {
                            return Err(rx.drop(code::NO_TUNNEL_ENDPOINT));
                        };
                        self.encapsulate(rx, pkt, peer, src_id, Direction::Ingress)
                    }
                    Target::Exit(exit) => {
                        self.fits(pkt, (&exit.port, exit.mtu), Direction::Ingress)?;
                        pkt.set_ttl(pkt.ttl() - 1);
                        self.transmit(rx, pkt, &exit)
                    }
                    Target::Blackhole => Err(rx.drop(code::UNROUTABLE)),
                    _ => self.up(rx, pkt, src_id),
                }
            }
        }
    }

    /// What came in a tunnel for this machine's kernel.
    fn up(&mut self, rx: &mut Rx<'_>, pkt: &Packet, src_id: u32) -> Flow {
        let mut frame = rx.frame.get(..12).unwrap_or_default().to_vec();
        frame.extend(pkt.ethertype().to_be_bytes());
        frame.extend(&pkt.bytes);
        self.punt(rx, frame, src_id, code::UNROUTABLE)
    }
}
