//! Source NAT (specification, 2.4).

use std::net::IpAddr;

use crate::config::Direction;
use crate::conntrack::{Conntrack, Entry, Filter, Kind, Scope, Status};
use crate::fib::identity;
use crate::model::{Model, Rx};
use crate::outcome::{Flow, Stop, code};
use crate::wire::{End, Packet, SCTP, TCP, Tuple, UDP};

/// A mapping. It lives as long as the conntrack entry ([`Kind::Out`]) of its original tuple.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The flow as its sender knows it.
    pub original: Tuple,
    /// The flow as the other side knows it.
    pub translated: Tuple,
    /// Whether conntrack follows the flow for the mapping's sake only.
    pub needs_ct: bool,
}

/// The port of a tuple that NAT changes: the id of an echo request stands in the destination port.
fn port(tuple: &Tuple) -> u16 {
    if matches!(tuple.protocol, TCP | UDP | SCTP) || tuple.sport != 0 {
        tuple.sport
    } else {
        tuple.dport
    }
}

fn translate(tuple: &Tuple, addr: IpAddr, port: u16, request: bool) -> Tuple {
    let mut new = Tuple { src: addr, ..*tuple };
    if request {
        new.dport = port;
    } else {
        new.sport = port;
    }
    new
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Nat {
    pub(crate) mappings: Vec<Mapping>,
    /// Whether the packet that is being looked at got a source.
    pub(crate) given: bool,
    /// How many entries had been made when it came.
    pub(crate) before: u64,
}

impl Nat {
    pub(crate) fn expire(&mut self, ct: &Conntrack) {
        self.mappings
            .retain(|mapping| ct.get(&mapping.original, Kind::Out).is_some());
    }
}

impl Model {
    /// Gives a packet that leaves the source address `to` (specification, 2.4). `needs_ct`: nobody else tracks the flow.
    pub(crate) fn snat(&mut self, rx: &mut Rx<'_>, pkt: &mut Packet, to: IpAddr, needs_ct: bool) -> Flow {
        let fail = |code| Stop::Drop(code, Direction::Egress);
        let tuple = pkt.tuple().map_err(fail)?;
        if pkt.is_icmp() && pkt.fragment.is_some() {
            return Err(fail(code::INVALID));
        }
        let request = pkt.echo() == Some(false);
        if !pkt.has_ports() && pkt.echo().is_none() {
            return Err(fail(code::NAT_PROTOCOL));
        }
        // A packet that a flow begins with is its first one only once, whoever asks.
        let begins = self
            .ct
            .get(&tuple, Kind::Out)
            .is_some_and(|entry| entry.number > self.nat.before);
        if needs_ct && !begins {
            let filter = (Scope::Forward, Filter::Any);
            let flags = pkt.tcp_flags();
            let (status, _) = self.ct.lookup(self.now, &tuple, Kind::Out, filter, flags);
            let entry = Entry {
                src_id: identity::HOST,
                ..Entry::default()
            };
            if status == Status::New && !self.ct.create(self.now, &tuple, Kind::Out, entry, flags) {
                return Err(fail(code::CT_FULL));
            }
        }
        let known = self
            .nat
            .mappings
            .iter()
            .find(|known| known.original == tuple)
            .cloned();
        let mapping = match known {
            Some(known) if known.translated.src == to && known.needs_ct == needs_ct => known,
            _ => {
                self.nat.mappings.retain(|known| known.original != tuple);
                let translated = self.allocate(rx, &tuple, to, request)?;
                let new = Mapping {
                    original: tuple,
                    translated,
                    needs_ct,
                };
                self.nat.mappings.push(new.clone());
                new
            }
        };
        self.nat.given = true;
        let new = mapping.translated;
        pkt.set_addr(End::Source, new.src);
        let to = if request { new.dport } else { new.sport };
        let end = if request { End::Destination } else { End::Source };
        pkt.set_port(end, to).map_err(fail)
    }

    /// Forgets the mapping of a flow whose packet has left without it.
    pub(crate) fn forget_unused(&mut self, original: &Tuple) {
        if !self.nat.given {
            self.nat.mappings.retain(|known| known.original != *original);
        }
    }

    /// A translated tuple that nobody else has: the port stays if it may, else any free one is taken while there is one.
    fn allocate(&self, rx: &mut Rx<'_>, tuple: &Tuple, to: IpAddr, request: bool) -> Flow<Tuple> {
        let first = if pkt_is_echo(tuple) {
            0
        } else {
            self.state.node.nodeport_max.saturating_add(1)
        };
        let range = first..=u16::MAX;
        let is_free = |port| {
            let wanted = translate(tuple, to, port, request);
            !self.nat.mappings.iter().any(|known| known.translated == wanted)
        };
        let own = if request { tuple.dport } else { tuple.sport };
        let picked = if range.contains(&own) && is_free(own) {
            Some(own)
        } else {
            rx.choices
                .pick_port(range.clone(), &is_free)
                .filter(|port| range.contains(port) && is_free(*port))
        };
        picked
            .map(|port| translate(tuple, to, port, request))
            .ok_or(Stop::Drop(code::NAT_NO_MAPPING, Direction::Egress))
    }

    /// Undoes SNAT on a packet that comes in; whether there was anything to undo.
    pub(crate) fn rev_snat(&mut self, rx: &Rx<'_>, pkt: &mut Packet) -> Flow<bool> {
        let Ok(tuple) = pkt.tuple() else { return Ok(false) };
        let back = tuple.reversed();
        let mut mappings = self.nat.mappings.iter();
        let Some(known) = mappings.find(|known| known.translated == back).cloned() else {
            return Ok(false);
        };
        if pkt.is_icmp() && pkt.fragment.is_some() {
            return Err(rx.drop(code::INVALID));
        }
        let old = known.original;
        if pkt.has_ports() {
            pkt.set_port(End::Destination, old.sport)
                .map_err(|code| rx.drop(code))?;
        } else {
            let end = if pkt.echo() == Some(true) {
                End::Source
            } else {
                End::Destination
            };
            pkt.set_port(end, port(&old)).map_err(|code| rx.drop(code))?;
        }
        pkt.set_addr(End::Destination, old.src);
        if known.needs_ct {
            let restored = pkt.tuple().map_err(|code| rx.drop(code))?;
            let filter = (Scope::Reverse, Filter::Any);
            self.ct
                .lookup(self.now, &restored, Kind::In, filter, pkt.tcp_flags());
        }
        Ok(true)
    }

    /// The source address that a packet of a local pod gets on its way out, if any (specification, 2.4: who is SNATed).
    pub(crate) fn masquerade(&self, pkt: &Packet) -> Option<IpAddr> {
        let node = &self.state.node;
        let own = if pkt.v6 {
            node.masquerade6.map(IpAddr::V6)
        } else {
            node.masquerade4.map(IpAddr::V4)
        }?;
        let dst = pkt.dst();
        if node.native_cidrs.iter().any(|cidr| cidr.contains(dst)) {
            return None;
        }
        if let Some(entry) = self.ipcache(dst)
            && identity::is_remote_node(entry.identity)
            && (node.routing == crate::config::Routing::Native || entry.skip_tunnel)
        {
            return None;
        }
        Some(own)
    }
}

fn pkt_is_echo(tuple: &Tuple) -> bool {
    !matches!(tuple.protocol, TCP | UDP | SCTP)
}
