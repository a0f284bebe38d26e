//! Fragments (specification, 2.10): ports come from the first fragment; later ones that overtake it wait for it.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use crate::config::{Direction, Port, Role};
use crate::fib::Target;
use crate::lb;
use crate::model::{Model, Rx};
use crate::outcome::{Flow, Outcome, code};
use crate::wire::Packet;

/// How long a fragment waits for its first one, in nanoseconds.
const PATIENCE: u64 = 1_000_000_000;

/// How long the ports of a first fragment are known (RFC 8200, 4.5), in nanoseconds.
const KNOWN: u64 = 60_000_000_000;

/// Ports of a fragmented packet.
#[derive(Debug, Clone, Copy)]
struct Ports {
    protocol: u8,
    sport: u16,
    dport: u16,
    kind: Option<u8>,
    since: u64,
}

/// What fragments of one packet have in common. IPv6 later fragments do not say their protocol for certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    id: u32,
    protocol: Option<u8>,
    vni: Option<u32>,
}

#[derive(Debug, Clone)]
struct Held {
    key: Key,
    since: u64,
    port: Port,
    frame: Vec<u8>,
    received: Vec<u8>,
    tunnel: Option<IpAddr>,
    vni: u32,
    pkt: Packet,
}

#[derive(Debug, Clone)]
pub(crate) struct Fragments {
    known: BTreeMap<Key, Ports>,
    order: VecDeque<Key>,
    held: Vec<Held>,
    bound: usize,
}

impl Fragments {
    pub(crate) fn new(bound: usize) -> Self {
        Self {
            known: BTreeMap::new(),
            order: VecDeque::new(),
            held: Vec::new(),
            bound,
        }
    }
}

impl Fragments {
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }
}

fn key(pkt: &Packet, vni: Option<u32>) -> Option<Key> {
    Some(Key {
        src: pkt.src(),
        dst: pkt.dst(),
        id: pkt.fragment?.id,
        protocol: (!pkt.v6).then_some(pkt.protocol),
        vni,
    })
}

impl Model {
    /// Whether anything may be decided by this packet's ports.
    fn needs_ports(&self, rx: &Rx<'_>, pkt: &Packet, vni: Option<u32>) -> bool {
        let dst = pkt.dst();
        vni.is_some()
            || match (rx.port.role, self.target(dst)) {
                (Role::Pod, _) | (_, Target::Endpoint(_)) => true,
                (Role::Uplink, Target::Exit(_)) => lb::is_near_frontend(&self.state, dst),
                (Role::Uplink, _) => true,
                (Role::Host, _) => self.host_firewall() || self.tunnel_peer(dst, false).is_some(),
            }
    }

    /// Gives a fragment its ports. `false`: it waits for the first one.
    pub(crate) fn fragment(&mut self, rx: &mut Rx<'_>, pkt: &mut Packet) -> Flow<bool> {
        self.fragment_of(rx, pkt, None)
    }

    pub(crate) fn fragment_of(&mut self, rx: &mut Rx<'_>, pkt: &mut Packet, vni: Option<u32>) -> Flow<bool> {
        let Some(key) = key(pkt, vni) else { return Ok(true) };
        if !self.needs_ports(rx, pkt, vni) {
            return Ok(true);
        }
        if self.recall(pkt, vni) {
            return Ok(true);
        }
        if self.fragments.held.len() >= self.fragments.bound {
            return Err(rx.drop(code::FRAG_NOT_FOUND));
        }
        self.fragments.held.push(Held {
            key,
            since: self.now,
            port: rx.port.clone(),
            frame: rx.frame.clone(),
            received: rx.received.clone(),
            tunnel: rx.tunnel,
            vni: rx.vni,
            pkt: pkt.clone(),
        });
        rx.out.held += 1;
        Ok(false)
    }

    /// Remembers the ports of a first fragment, or gives a later one those of its packet. `false`: nobody knows them.
    pub(crate) fn recall(&mut self, pkt: &mut Packet, vni: Option<u32>) -> bool {
        let Some(key) = key(pkt, vni) else { return true };
        if !pkt.later_fragment() {
            // Who needs ports that are not there drops it.
            let Ok(tuple) = pkt.tuple() else {
                return true;
            };
            let ports = Ports {
                protocol: pkt.protocol,
                sport: tuple.sport,
                dport: tuple.dport,
                kind: pkt.icmp().map(|(kind, _)| kind),
                since: self.now,
            };
            if self.fragments.known.insert(key, ports).is_none() {
                self.fragments.order.push_back(key);
            }
            if self.fragments.order.len() > self.fragments.bound
                && let Some(oldest) = self.fragments.order.pop_front()
            {
                self.fragments.known.remove(&oldest);
            }
            return true;
        }
        if let Some(known) = self.fragments.known.get(&key) {
            pkt.protocol = known.protocol;
            pkt.ports = Some((known.sport, known.dport));
            pkt.kind = known.kind;
            return true;
        }
        false
    }

    /// Lets the fragments go on that waited for the first fragment `pkt`.
    pub(crate) fn release_fragments(&mut self, rx: &mut Rx<'_>, pkt: &Packet, vni: Option<u32>) {
        let Some(key) = key(pkt, vni).filter(|_| !pkt.later_fragment()) else {
            return;
        };
        let Some(known) = self.fragments.known.get(&key).copied() else {
            return;
        };
        let (ready, waiting) = std::mem::take(&mut self.fragments.held)
            .into_iter()
            .partition(|held| held.key == key);
        self.fragments.held = waiting;
        for Held {
            port,
            frame,
            received,
            tunnel,
            vni: network,
            mut pkt,
            ..
        } in ready
        {
            pkt.protocol = known.protocol;
            pkt.ports = Some((known.sport, known.dport));
            pkt.kind = known.kind;
            let mut rx = Rx {
                port,
                frame,
                received,
                tunnel,
                vni: network,
                told: None,
                choices: &mut *rx.choices,
                out: &mut *rx.out,
            };
            let result = match vni {
                None => self.route_in(&mut rx, &pkt),
                Some(vni) => self.without_trace(|model| model.overlay_ingress(&mut rx, &mut pkt, vni)),
            };
            self.conclude(&mut rx, result);
        }
    }

    /// Drops fragments whose first one did not come in time.
    pub(crate) fn drop_late_fragments(&mut self, out: &mut Outcome) {
        let now = self.now;
        let fragments = &mut self.fragments;
        fragments
            .known
            .retain(|_, ports| now.saturating_sub(ports.since) < KNOWN);
        fragments.order.retain(|key| fragments.known.contains_key(key));
        self.fragments.held.retain(|held| {
            let waits = now.saturating_sub(held.since) < PATIENCE;
            if !waits {
                let direction = if held.port.role == Role::Pod {
                    Direction::Egress
                } else {
                    Direction::Ingress
                };
                out.drops.push((code::FRAG_NOT_FOUND, direction));
            }
            waits
        });
    }
}
