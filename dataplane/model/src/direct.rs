//! Direct server return (specification, 3.6, "DSR dispatch" and "backend side").

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::{Dispatch, Forwarding, Prefix, Protocol, State};
use crate::conntrack::{Entry, Filter, Kind, Scope, Status};
use crate::fib::{Target, identity};
use crate::lb;
use crate::model::{Model, Rx, routable};
use crate::outcome::{Flow, Stop, code};
use crate::overlay::ecn_out;
use crate::wire::{End, Packet, TCP, be16, build4, build6, byte, octets, put, uncut};

/// What a client used.
type Front = (IpAddr, u16);

/// The forwarding of a frontend's service.
fn forwarding(state: &State, own: Option<Forwarding>) -> Forwarding {
    own.unwrap_or(state.node.forwarding)
}

fn front(addr: IpAddr, port: u16) -> Result<Front, u16> {
    if routable(addr) && port != 0 {
        Ok((addr, port))
    } else {
        Err(code::INVALID)
    }
}

/// Whether the balancer has something to say with a packet: with the SYN of TCP, with each of the others.
fn says(pkt: &Packet) -> bool {
    pkt.has_ports() && !pkt.later_fragment() && (pkt.protocol != TCP || pkt.is_syn())
}

impl Model {
    /// Whether anything on this node is answered directly.
    pub(crate) fn returns_directly(&self) -> bool {
        self.state.node.forwarding != Forwarding::Snat
            || lb::asks(&self.state, |service| {
                service.forwarding.is_some_and(|it| it != Forwarding::Snat)
            })
    }

    /// Whether requests to a service's backends on other nodes are answered directly.
    pub(crate) fn is_direct(&self, found: &lb::Found) -> bool {
        match forwarding(&self.state, found.service.forwarding) {
            Forwarding::Snat => false,
            Forwarding::Dsr => true,
            Forwarding::Hybrid => found.service.protocol == Protocol::Tcp,
        }
    }

    /// Sends a request, which `pkt` is with the backend's address and port, to the backend.
    pub(crate) fn send_direct(&self, rx: &mut Rx<'_>, request: &Packet, pkt: &Packet, src_id: u32) -> Flow {
        let tuple = request.tuple().map_err(|code| rx.drop(code))?;
        let backend = pkt.dst();
        let mut pkt = pkt.clone();
        match self.state.node.dsr.dispatch {
            Dispatch::Ipip => return self.send_around(rx, request, backend),
            Dispatch::Geneve => {
                let peer = self.ipcache(backend).and_then(|entry| entry.tunnel_endpoint);
                let Some(peer) = peer else {
                    return Err(rx.drop(code::NO_TUNNEL_ENDPOINT));
                };
                let mut option = Vec::new();
                if says(request) {
                    let addr = octets(tuple.dst);
                    option.extend([0x01, 0x4b, 0x81, (addr.len() / 4 + 1) as u8]);
                    option.extend(addr);
                    option.extend(tuple.dport.to_be_bytes());
                    option.extend([0, 0]);
                }
                return self.encapsulate_with(rx, &pkt, peer, identity::WORLD, rx.direction(), &option);
            }
            Dispatch::Opt => {}
        }
        let len = match (says(request), pkt.v6) {
            (false, _) => 0,
            (true, false) => 8,
            (true, true) => 24,
        };
        if let Some(peer) = self.tunnel_peer(backend, false) {
            if len > 0 {
                pkt.say(tuple.dst, tuple.dport).map_err(|code| rx.drop(code))?;
            }
            return match self.encapsulate(rx, &pkt, peer, src_id, rx.direction()) {
                Err(Stop::Refuse(code, direction, crate::outcome::Told::TooBig(room))) => Err(Stop::Refuse(
                    code,
                    direction,
                    crate::outcome::Told::TooBig(room.saturating_sub(len)),
                )),
                other => other,
            };
        }
        let exit = self.exit(rx, backend)?;
        self.fits(&pkt, (&exit.port, exit.mtu.saturating_sub(len)), rx.direction())?;
        if len > 0 {
            pkt.say(tuple.dst, tuple.dport).map_err(|code| rx.drop(code))?;
        }
        pkt.set_ttl(pkt.ttl() - 1);
        self.transmit(rx, &pkt, &exit)
    }

    /// Sends the client's packet in an IP packet to the backend.
    pub(crate) fn send_around(&self, rx: &mut Rx<'_>, pkt: &Packet, backend: IpAddr) -> Flow {
        let exit = self.exit(rx, backend)?;
        if !exit.port.admin_up {
            return Err(rx.drop(code::NO_DEVICE));
        }
        let len = if pkt.v6 { 40 } else { 20 };
        let room = exit.mtu.saturating_sub(len);
        if pkt.bytes.len() > usize::from(room) {
            let told = crate::outcome::Told::TooBig(room);
            return Err(Stop::Refuse(code::FRAG_NEEDED, rx.direction(), told));
        }
        let class = if pkt.v6 {
            byte(&pkt.bytes, 0) << 4 | byte(&pkt.bytes, 1) >> 4
        } else {
            byte(&pkt.bytes, 1)
        };
        let bytes = match (self.outer_source(pkt), backend) {
            (Some(IpAddr::V4(src)), IpAddr::V4(dst)) => uncut(build4(src, dst, 4, class, 0, &pkt.bytes)),
            (Some(IpAddr::V6(src)), IpAddr::V6(dst)) => build6(src, dst, 41, class, &pkt.bytes),
            _ => return Err(rx.drop(code::NO_TUNNEL_ENDPOINT)),
        };
        let mut outer = Packet::parse(pkt.v6, &bytes).map_err(|code| rx.drop(code))?;
        outer.tail = pkt.tail.clone();
        self.transmit(rx, &outer, &exit)
    }

    /// `prefix | hash32(client ^ (sport << 16 | dport), bits)`.
    fn outer_source(&self, pkt: &Packet) -> Option<IpAddr> {
        let node = &self.state.node;
        let tuple = pkt.tuple().ok()?;
        let prefix = if pkt.v6 {
            node.dsr.source6
        } else {
            node.dsr.source4
        };
        let Some(Prefix { addr, len }) = prefix else {
            let own = node.addresses.iter().find(|addr| addr.is_ipv6() == pkt.v6);
            return own.copied();
        };
        let mut value = u32::from(tuple.sport) << 16 | u32::from(tuple.dport);
        for word in octets(tuple.src).chunks(4) {
            value ^= u32::from(be16(word, 0)) << 16 | u32::from(be16(word, 2));
        }
        let all = if pkt.v6 { 128 } else { 32 };
        let bits = all - u32::from(len);
        let product = (u64::from(value) * 0x9e37_79b9) & 0xffff_ffff;
        let hash = (product >> (32 - bits.min(32))) as u32;
        Some(match addr {
            IpAddr::V4(addr) => Ipv4Addr::from_bits(addr.to_bits() | hash).into(),
            IpAddr::V6(addr) => Ipv6Addr::from_bits(addr.to_bits() | u128::from(hash)).into(),
        })
    }

    /// Learns what the client of a packet to an endpoint used, if a balancer says it (specification, 1.5 step 8).
    pub(crate) fn hear(&mut self, rx: &Rx<'_>, pkt: &Packet) -> Flow {
        if !pkt.has_ports() || self.owner(pkt.dst()).is_none() {
            return Ok(());
        }
        let tuple = pkt.tuple().map_err(|code| rx.drop(code))?;
        let flags = pkt.tcp_flags();
        let heard = if !says(pkt) || !self.returns_directly() {
            None
        } else {
            match self.state.node.dsr.dispatch {
                Dispatch::Opt => pkt.said().map_err(|code| rx.drop(code))?,
                Dispatch::Geneve => rx.told,
                Dispatch::Ipip => None,
            }
        };
        match heard {
            Some(front) => self.remember(rx, &tuple, front, flags),
            None => {
                if pkt.is_syn() {
                    // A SYN without information clears what was known.
                    let of_dsr = |entry: &Entry| entry.dsr;
                    if self.ct.get(&tuple, Kind::Out).is_some_and(of_dsr) {
                        self.ct.entries.remove(&(tuple, Kind::Out));
                    }
                } else {
                    let filter = (Scope::Forward, Filter::Dsr);
                    self.ct.lookup(self.now, &tuple, Kind::Out, filter, flags);
                }
                Ok(())
            }
        }
    }

    fn remember(&mut self, rx: &Rx<'_>, tuple: &crate::wire::Tuple, front: Front, flags: u8) -> Flow {
        let filter = (Scope::Forward, Filter::Dsr);
        let (status, entry) = self.ct.lookup(self.now, tuple, Kind::Out, filter, flags);
        if status != Status::New && entry.nat == Some(front) {
            return Ok(());
        }
        // A flow of the same addresses and ports that began at the other end is over: what is said last holds.
        for kind in [Kind::Out, Kind::In] {
            self.ct.entries.remove(&(tuple.reversed(), kind));
        }
        let entry = Entry {
            dsr: true,
            nat: Some(front),
            src_id: self.world(tuple.src.is_ipv6()),
            ..Entry::default()
        };
        if !self.ct.create(self.now, tuple, Kind::Out, entry, flags) {
            return Err(rx.drop(code::CT_FULL));
        }
        Ok(())
    }

    /// What a balancer says in Geneve options; `critical`: one of them must be understood, says the header.
    pub(crate) fn geneve_option(&self, options: &[u8], critical: bool) -> Result<Option<Front>, u16> {
        let listens = self.returns_directly() && self.state.node.dsr.dispatch == Dispatch::Geneve;
        let (mut rest, mut found, mut known) = (options, None, false);
        while rest.len() >= 4 {
            let len = usize::from(byte(rest, 3) & 31) * 4;
            let value = rest.get(4..4 + len).ok_or(code::INVALID)?;
            if listens && rest.starts_with(&[0x01, 0x4b, 0x81]) {
                let addr: IpAddr = match value.len() {
                    8 => Ipv4Addr::from(std::array::from_fn(|at| byte(value, at))).into(),
                    20 => Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|at| byte(value, at))).into(),
                    _ => return Err(code::INVALID),
                };
                found = Some(front(addr, be16(value, value.len() - 4))?);
                known = true;
            } else if byte(rest, 2) & 0x80 != 0 {
                return Err(code::INVALID);
            }
            rest = rest.get(4 + len..).unwrap_or_default();
        }
        if critical && !known {
            return Err(code::INVALID);
        }
        Ok(found)
    }

    /// Whether a packet is one around a client's, from a balancer to an endpoint.
    pub(crate) fn is_around(&self, pkt: &Packet) -> bool {
        pkt.protocol == if pkt.v6 { 41 } else { 4 }
            && pkt.fragment.is_none()
            && pkt.bad_extensions.is_none()
            && self.state.node.dsr.dispatch == Dispatch::Ipip
            && self.returns_directly()
            && matches!(self.target(pkt.dst()), Target::Endpoint(_))
    }

    /// Takes the client's packet out of it and delivers it.
    pub(crate) fn take_out(&mut self, rx: &mut Rx<'_>, outer: &Packet) -> Flow {
        let backend = outer.dst();
        let inside = outer.payload();
        if byte(inside, 0) >> 4 != byte(&outer.bytes, 0) >> 4 {
            return Err(rx.drop(code::INVALID));
        }
        let inner_ecn = byte(inside, 1) >> if outer.v6 { 4 } else { 0 } & 3;
        let Some(ecn) = ecn_out(inner_ecn, outer.ecn()) else {
            return Err(rx.drop(code::INVALID));
        };
        let mut pkt = Packet::parse(outer.v6, inside).map_err(|code| rx.drop(code))?;
        // From here on it is about the client's packet.
        let mut frame = rx.frame.get(..14).unwrap_or_default().to_vec();
        frame.extend(&pkt.bytes);
        let mut rx = Rx {
            port: rx.port.clone(),
            frame,
            received: rx.received.clone(),
            tunnel: rx.tunnel,
            vni: rx.vni,
            told: None,
            choices: &mut *rx.choices,
            out: &mut *rx.out,
        };
        let first = pkt.clone();
        let result = self.delivered(&mut rx, &mut pkt, backend, ecn);
        self.conclude(&mut rx, result);
        self.release_fragments(&mut rx, &first, None);
        Ok(())
    }

    fn delivered(&mut self, rx: &mut Rx<'_>, pkt: &mut Packet, backend: IpAddr, ecn: u8) -> Flow {
        if ecn != pkt.ecn() {
            pkt.set_ecn(ecn);
        }
        let tuple = pkt.tuple().map_err(|code| rx.drop(code))?;
        if !routable(pkt.src()) || !routable(pkt.dst()) {
            return Err(rx.drop(code::INVALID));
        }
        // One that overtook its first one does not wait: it would not be known again for what it is.
        if !self.recall(pkt, None) {
            return Err(rx.drop(code::FRAG_NOT_FOUND));
        }
        let tuple = pkt.tuple().unwrap_or(tuple);
        let src_id = match self.identity(pkt.src()) {
            identity::HOST => 0,
            id => id,
        };
        if let Some(about) = self.about(pkt) {
            return self.pass_on(rx, pkt, about, src_id);
        }
        let Some(endpoint) = self.owner(backend).cloned() else {
            return Err(rx.drop(code::UNROUTABLE));
        };
        let known = lb::find(&self.state, tuple.dst, tuple.dport, tuple.protocol).and_then(|found| {
            let backends = found.service.backends.into_iter();
            backends
                .filter(|it| it.address == backend)
                .map(|it| it.port)
                .next()
        });
        if pkt.has_ports() {
            pkt.set_port(End::Destination, known.unwrap_or(tuple.dport))
                .map_err(|code| rx.drop(code))?;
        }
        pkt.set_addr(End::Destination, backend);
        let delivered = pkt.tuple().map_err(|code| rx.drop(code))?;
        self.remember(rx, &delivered, (tuple.dst, tuple.dport), pkt.tcp_flags())?;
        self.local_delivery(rx, pkt, &endpoint, src_id, false)
    }
}

impl Packet {
    /// Puts what the client used into an option of the header (specification, 3.6, `opt`).
    fn say(&mut self, addr: IpAddr, port: u16) -> Result<(), u16> {
        let at = match addr {
            IpAddr::V4(addr) => {
                if self.header_len() + 8 > 60 {
                    return Err(code::INVALID);
                }
                let mut option = vec![0x9a, 8];
                option.extend(port.to_be_bytes().iter().rev());
                option.extend(addr.octets().iter().rev());
                self.bytes.splice(20..20, option);
                let total = (be16(&self.bytes, 2) + 8).to_be_bytes();
                let first = byte(&self.bytes, 0) + 2;
                put(&mut self.bytes, 0, &[first]);
                put(&mut self.bytes, 2, &total);
                self.fix_header();
                8
            }
            IpAddr::V6(addr) => {
                // Hop-by-hop options stay first (RFC 8200, 4.1).
                let (says, at) = match byte(&self.bytes, 6) {
                    0 => (40, 48 + usize::from(byte(&self.bytes, 41)) * 8),
                    _ => (6, 40),
                };
                let mut header = vec![byte(&self.bytes, says), 2, 0x1b, 20];
                header.extend(addr.octets());
                header.extend(port.to_be_bytes());
                header.extend([0, 0]);
                put(&mut self.bytes, says, &[60]);
                self.bytes.splice(at..at, header);
                let payload = (be16(&self.bytes, 4) + 24).to_be_bytes();
                put(&mut self.bytes, 4, &payload);
                24
            }
        };
        self.l4 += at;
        Ok(())
    }

    /// What such an option says.
    fn said(&self) -> Result<Option<Front>, u16> {
        if self.v6 { self.said6() } else { self.said4() }
    }

    fn said4(&self) -> Result<Option<Front>, u16> {
        let options = self.bytes.get(20..self.header_len()).unwrap_or_default();
        let mut at = 0;
        while at < options.len() {
            let len = match byte(options, at) {
                0 => return Ok(None),
                1 => 1,
                _ => usize::from(*options.get(at + 1).ok_or(code::INVALID)?),
            };
            if byte(options, at) != 1 && (len < 2 || at + len > options.len()) {
                return Err(code::INVALID);
            }
            if byte(options, at) == 0x9a {
                if len != 8 {
                    return Err(code::INVALID);
                }
                let mut value: Vec<u8> = options.get(at + 2..at + 8).unwrap_or_default().to_vec();
                value.reverse();
                let addr = Ipv4Addr::from(std::array::from_fn(|index| byte(&value, index)));
                return front(addr.into(), be16(&value, 4)).map(Some);
            }
            at += len;
        }
        Ok(None)
    }

    fn said6(&self) -> Result<Option<Front>, u16> {
        let (mut next, mut at) = (byte(&self.bytes, 6), 40);
        if next == 0 {
            (next, at) = (
                byte(&self.bytes, at),
                at + 8 + usize::from(byte(&self.bytes, at + 1)) * 8,
            );
        }
        if next != 60 {
            return Ok(None);
        }
        let end = at + 8 + usize::from(byte(&self.bytes, at + 1)) * 8;
        let options = self.bytes.get(at + 2..end).ok_or(code::EXTENSION)?;
        let mut at = 0;
        while at < options.len() {
            if byte(options, at) == 0 {
                at += 1;
                continue;
            }
            let len = usize::from(*options.get(at + 1).ok_or(code::EXTENSION)?);
            let value = options.get(at + 2..at + 2 + len).ok_or(code::EXTENSION)?;
            if byte(options, at) == 0x1b {
                if len != 20 {
                    return Err(code::EXTENSION);
                }
                let addr = Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|index| byte(value, index)));
                return front(addr.into(), be16(value, 16)).map(Some);
            }
            at += 2 + len;
        }
        Ok(None)
    }
}
