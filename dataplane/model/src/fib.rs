//! Where destinations are, and who they are: routes, neighbours, ipcache (specification, 2.1).

use std::net::IpAddr;

use crate::config::{Direction, Endpoint, IpcacheEntry, Mac, Port, Prefix, Role, RouteTarget};
use crate::model::{Model, Rx};
use crate::outcome::{Flow, Stop, Told, Waiting, code};
use crate::wire::{ICMP6, Packet, be16, byte, put, sum};

/// Reserved identities (specification, section 4).
pub(crate) mod identity {
    pub(crate) const HOST: u32 = 1;
    pub(crate) const WORLD: u32 = 2;
    pub(crate) const REMOTE_NODE: u32 = 6;
    pub(crate) const KUBE_APISERVER: u32 = 7;
    pub(crate) const WORLD4: u32 = 9;
    pub(crate) const WORLD6: u32 = 10;

    /// Whether it is another node's.
    pub(crate) fn is_remote_node(id: u32) -> bool {
        matches!(id, REMOTE_NODE | KUBE_APISERVER) || id >> 24 == 2
    }

    /// Whether it is in the cluster, with the quirk of the specification, section 4.
    pub(crate) fn in_cluster(id: u32) -> bool {
        !matches!(id, WORLD | WORLD4 | WORLD6) && !(0x0100_0001..=0x0100_ffff).contains(&id)
    }
}

/// Where packets leave.
#[derive(Debug, Clone)]
pub(crate) struct Exit {
    pub(crate) port: Port,
    pub(crate) next_hop: IpAddr,
    /// `None`: not known yet.
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: u16,
}

/// What a destination is.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Unknown,
    Gateway,
    /// One of this node's own addresses.
    Own,
    Endpoint(Endpoint),
    Exit(Exit),
    /// A route to the kernel.
    Host,
    Blackhole,
}

impl Model {
    fn port(&self, name: &str) -> Option<&Port> {
        self.ports.iter().find(|port| port.name == name)
    }

    /// What `dst` is: our own addresses, endpoints, the longest route, links of our own.
    pub(crate) fn target(&self, dst: IpAddr) -> Target {
        if self.is_gateway(dst) {
            return Target::Gateway;
        }
        if self.is_own(dst) {
            return Target::Own;
        }
        if let Some(endpoint) = self.owner(dst) {
            return Target::Endpoint(endpoint.clone());
        }
        self.route(dst)
    }

    /// Where the routes say that `dst` is.
    pub(crate) fn route(&self, dst: IpAddr) -> Target {
        let routes = self.state.routes.iter().map(|route| {
            let mtu = (route.mtu != 0).then_some(route.mtu);
            (route.prefix, 1, route.target.clone(), mtu)
        });
        let links = self
            .ports
            .iter()
            .filter(|port| port.role == Role::Uplink)
            .flat_map(|port| {
                port.addresses.iter().map(move |own| {
                    let target = RouteTarget::Via {
                        port: port.name.clone(),
                        gateway: None,
                    };
                    (*own, 0, target, None)
                })
            });
        let best = routes
            .chain(links)
            .filter(|(prefix, ..)| prefix.contains(dst))
            .max_by_key(|(prefix, configured, ..)| (prefix.len, *configured));
        match best {
            None => Target::Unknown,
            Some((.., RouteTarget::Host, _)) => Target::Host,
            Some((.., RouteTarget::Blackhole, _)) => Target::Blackhole,
            Some((_, _, RouteTarget::Via { port, gateway }, mtu)) => {
                let Some(port) = self.port(&port).cloned() else {
                    return Target::Unknown;
                };
                let next_hop = gateway.unwrap_or(dst);
                let mac = self
                    .state
                    .neighbours
                    .iter()
                    .find(|known| known.port == port.name && known.address == next_hop)
                    .map(|known| known.mac);
                Target::Exit(Exit {
                    mtu: mtu.unwrap_or(port.mtu).min(port.mtu),
                    port,
                    next_hop,
                    mac,
                })
            }
        }
    }

    /// The ipcache entry of an address, endpoints and our own addresses included.
    pub(crate) fn ipcache(&self, addr: IpAddr) -> Option<IpcacheEntry> {
        let implicit = |identity| {
            Some(IpcacheEntry {
                prefix: Prefix::host(addr),
                identity,
                tunnel_endpoint: None,
                key: 0,
                skip_tunnel: false,
            })
        };
        if let Some(endpoint) = self.owner(addr) {
            return implicit(endpoint.identity);
        }
        if self.is_own(addr) || self.is_gateway(addr) {
            return implicit(identity::HOST);
        }
        self.state
            .ipcache
            .iter()
            .filter(|entry| entry.prefix.contains(addr))
            .max_by_key(|entry| entry.prefix.len)
            .cloned()
    }

    /// The identity of an address: the world's if nothing is known of it (specification, 1.2 step 11).
    pub(crate) fn identity(&self, addr: IpAddr) -> u32 {
        self.ipcache(addr)
            .map_or_else(|| self.world(addr.is_ipv6()), |entry| entry.identity)
    }

    /// The world's identity: one each family with dual stack, which is a node with addresses of both.
    pub(crate) fn world(&self, v6: bool) -> u32 {
        let node = &self.state.node;
        let own = |v6| node.addresses.iter().any(|addr| addr.is_ipv6() == v6);
        match (own(false) && own(true), v6) {
            (false, _) => identity::WORLD,
            (true, false) => identity::WORLD4,
            (true, true) => identity::WORLD6,
        }
    }

    /// Whether a packet may go out: TTL, then size, as bytes of the IP packet.
    pub(crate) fn fits(&self, pkt: &Packet, (port, mtu): (&Port, u16), direction: Direction) -> Flow {
        if !port.admin_up {
            return Err(Stop::Drop(code::NO_DEVICE, direction));
        }
        if pkt.ttl() <= 1 {
            return Err(Stop::Refuse(code::TTL, direction, Told::TimeExceeded));
        }
        too_big(pkt, mtu, direction)
    }

    /// Sends a packet out of an uplink; its TTL was looked after.
    pub(crate) fn transmit(&self, rx: &mut Rx<'_>, pkt: &Packet, exit: &Exit) -> Flow {
        let Some(mac) = exit.mac else {
            rx.out.waits.push((exit.port.name.clone(), exit.next_hop));
            rx.out.waiting.push(Waiting {
                port: rx.port.name.clone(),
                frame: match rx.tunnel {
                    Some(_) => rx.frame.clone(),
                    None => rx.received.clone(),
                },
                tunnel: rx.tunnel.map(|node| (node, rx.vni)),
            });
            return Ok(());
        };
        self.send(rx, pkt, &exit.port, mac, exit.mtu);
        Ok(())
    }

    /// Sends a packet out of any port, in pieces if it is too large for it.
    pub(crate) fn send(&self, rx: &mut Rx<'_>, pkt: &Packet, port: &Port, mac: Mac, mtu: u16) {
        let mut link = mac.0.to_vec();
        link.extend(port.mac.0);
        link.extend(pkt.ethertype().to_be_bytes());
        if pkt.bytes.len() > usize::from(mtu) {
            let pieces = cut(&pkt.bytes, mtu.into());
            let frames = pieces.iter().map(|piece| [link.as_slice(), piece].concat());
            rx.out.sent.extend(frames.map(|frame| (port.name.clone(), frame)));
            return;
        }
        let mut frame = link;
        frame.extend(&pkt.bytes);
        // What stands behind a packet must not make the frame too large.
        if pkt.bytes.len() + pkt.tail.len() <= usize::from(mtu) {
            frame.extend(&pkt.tail);
        }
        rx.out.sent.push((port.name.clone(), frame));
    }

    /// A packet to one of our own addresses.
    pub(crate) fn ours(&mut self, rx: &mut Rx<'_>, pkt: &Packet, gateway: bool, src_id: u32) -> Flow {
        let from_host = rx.port.role == Role::Host;
        let kernel = self.ports.iter().any(|port| port.role == Role::Host) && !from_host;
        // Behind IPv6 extension headers it is not looked for.
        let plain = match pkt.fragment {
            _ if !pkt.v6 => true,
            Some(_) => byte(&pkt.bytes, 6) == 44 && byte(&pkt.bytes, 40) == ICMP6,
            None => byte(&pkt.bytes, 6) == ICMP6,
        };
        let echo = plain && pkt.is_icmp() && (pkt.later_fragment() || pkt.echo() == Some(false));
        // What this machine says to an address of its own that is on no port does not come out of it.
        let mut ports = self.ports.iter();
        let on_port = ports.any(|port| port.addresses.iter().any(|own| own.addr == pkt.dst()));
        if from_host && !gateway && !on_port {
            return Err(rx.drop(code::UNROUTABLE));
        }
        if echo && (gateway || !kernel) {
            if pkt.fragment.is_some() {
                return Err(rx.drop(code::FRAGMENT));
            }
            return self.answer_echo(rx, pkt);
        }
        if from_host {
            return Err(rx.drop(code::UNROUTABLE));
        }
        let frame = self.reframe(rx, pkt);
        self.punt(rx, frame, src_id, code::LOCAL_HOST)
    }
}

/// Refuses what is larger than `mtu`, unless it is IPv4's and its sender allows fragments (RFC 791, 3.2).
pub(crate) fn too_big(pkt: &Packet, mtu: u16, direction: Direction) -> Flow {
    if pkt.bytes.len() <= usize::from(mtu) || !pkt.v6 && !pkt.dont_fragment() {
        return Ok(());
    }
    Err(Stop::Refuse(code::FRAG_NEEDED, direction, Told::TooBig(mtu)))
}

/// An IPv4 packet in fragments of at most `mtu` bytes each (RFC 791, 3.2).
fn cut(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let header = usize::from(byte(packet, 0) & 15) * 4;
    let (first, data) = packet.split_at(header.min(packet.len()));
    // Options of which the first bit is not set are in the first fragment only.
    let mut options = Vec::new();
    let mut rest = first.get(20..).unwrap_or_default();
    while let [kind, ..] = *rest {
        let len = match (kind, rest) {
            (0, _) => break,
            (1, _) => 1,
            (_, [_, len, ..]) => usize::from(*len),
            _ => break,
        };
        let Some((option, others)) = rest.split_at_checked(len).filter(|_| len > 0) else {
            break;
        };
        if kind & 0x80 != 0 {
            options.extend(option);
        }
        rest = others;
    }
    options.resize(options.len().next_multiple_of(4), 0);
    let mut later = first.get(..20).unwrap_or_default().to_vec();
    later.extend(&options);
    let words = (later.len() / 4) as u8;
    put(&mut later, 0, &[0x40 | words]);
    let word = be16(packet, 6);
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < data.len() {
        let mut piece = if at == 0 { first.to_vec() } else { later.clone() };
        let most = mtu.saturating_sub(piece.len()) / 8 * 8;
        if most == 0 {
            return Vec::new();
        }
        let end = (at + most).min(data.len());
        let more = end < data.len() || word & 0x2000 != 0;
        let place = (word & 0x1fff) + (at / 8) as u16;
        piece.extend(data.get(at..end).unwrap_or_default());
        let len = (piece.len() as u16).to_be_bytes();
        put(&mut piece, 2, &len);
        put(&mut piece, 6, &(place | u16::from(more) << 13).to_be_bytes());
        put(&mut piece, 10, &[0, 0]);
        let header = usize::from(byte(&piece, 0) & 15) * 4;
        let checksum = !sum(&[piece.get(..header).unwrap_or_default()]);
        put(&mut piece, 10, &checksum.to_be_bytes());
        pieces.push(piece);
        at = end;
    }
    pieces
}
