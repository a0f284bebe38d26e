//! ICMP errors about packets of flows: they pass without policy, and what they quote is what its sender knows.
//!
//! The specification (2.3) knows an error by its addresses alone, and lets one pass that quotes whatever it likes. Here it
//! has to quote a packet of a flow, wherever it comes from, and its inner headers are translated, too.

use std::net::IpAddr;

use crate::config::{Dispatch, Role};
use crate::conntrack::{Entry, Kind};
use crate::fib::Target;
use crate::lb;
use crate::model::{Model, Rx};
use crate::outcome::{Flow, code};
use crate::wire::{End, Packet, Tuple};

/// A flow from where its first packet comes in to where it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    /// Addresses and ports that its first packet comes in with.
    pub arrives: Tuple,
    /// Those that it leaves with.
    pub leaves: Tuple,
    /// Those of its conntrack entry: behind services, before masquerading.
    pub entry: Tuple,
    /// A backend on another node answers its client directly.
    pub direct: bool,
    /// A balancer on another node has said what its client used.
    pub dsr: bool,
}

/// What an error is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About {
    /// The packet as the error quotes it.
    quoted: Tuple,
    /// The same as its sender sent it.
    original: Tuple,
    /// It is a reply to a client whom the backend's node answers directly.
    direct: bool,
}

impl Model {
    /// All flows. An entry on the side of the receiver says nothing that one on the side of the sender does not.
    pub fn connections(&self) -> Vec<Connection> {
        let entries = &self.ct.entries;
        entries
            .iter()
            .filter(|((tuple, kind), entry)| match kind {
                Kind::Out => true,
                // Nor does one of what answers another flow.
                Kind::In => {
                    let back = tuple.reversed();
                    // Nor one of what answers under another name.
                    let answers = entries.iter().any(|((asked, kind), entry)| {
                        *kind == Kind::Out
                            && (asked.src, asked.sport, asked.protocol)
                                == (back.src, back.sport, back.protocol)
                            && meant(entry) == Some((back.dst, back.dport))
                    });
                    if answers {
                        return false;
                    }
                    let request = entries.get(&(back, Kind::In));
                    !entries.contains_key(&(*tuple, Kind::Out))
                        && !entries.contains_key(&(back, Kind::Out))
                        && request.is_none_or(|request| request.number >= entry.number)
                }
                Kind::Service => false,
            })
            .map(|((tuple, _), entry)| {
                let mut arrives = *tuple;
                if entry.loopback {
                    arrives.src = tuple.dst;
                }
                if let Some((addr, port)) = meant(entry) {
                    (arrives.dst, arrives.dport) = (addr, port);
                }
                let mapping = self
                    .nat
                    .mappings
                    .iter()
                    .find(|mapping| mapping.original == *tuple);
                Connection {
                    arrives,
                    leaves: mapping.map_or(*tuple, |mapping| mapping.translated),
                    entry: *tuple,
                    direct: entry.direct,
                    dsr: entry.dsr,
                }
            })
            .collect()
    }

    /// What a packet is about, if it is an error about a packet of a flow.
    pub(crate) fn about(&self, pkt: &Packet) -> Option<About> {
        let quoted = pkt.quoted()?;
        self.connections().into_iter().find_map(|it| {
            // Errors about answers to what a balancer has told of come by way of the balancer, which has seen to them.
            let told = it.dsr && self.state.node.dsr.dispatch != Dispatch::Ipip;
            let (original, direct) = if quoted == it.leaves {
                (it.arrives, false)
            } else if told && quoted == it.leaves.reversed() {
                (quoted, false)
            } else if !told && quoted == it.arrives.reversed() {
                (it.leaves.reversed(), it.direct)
            } else {
                return None;
            };
            Some(About {
                quoted,
                original,
                direct,
            })
        })
    }

    /// Whether flows matter to packets from this port to this destination.
    pub(crate) fn is_tracked(&self, rx: &Rx<'_>, dst: IpAddr) -> bool {
        match (rx.port.role, self.target(dst)) {
            (Role::Pod, _) | (_, Target::Endpoint(_)) => true,
            (Role::Uplink, Target::Exit(_)) => lb::is_near_frontend(&self.state, dst),
            (Role::Uplink, _) => true,
            (Role::Host, Target::Exit(_)) => self.host_firewall() || self.tunnel_peer(dst, false).is_some(),
            (Role::Host, _) => true,
        }
    }

    /// Sends an error to whom the packet that it is about came from.
    pub(crate) fn pass_on(&mut self, rx: &mut Rx<'_>, pkt: &Packet, about: About, src_id: u32) -> Flow {
        let About {
            quoted,
            original,
            direct,
        } = about;
        if direct && self.state.node.dsr.dispatch == Dispatch::Ipip {
            // The backend's node knows the flow as its client does.
            return self.send_around(rx, pkt, original.src);
        }
        let mut new = pkt.clone();
        new.set_quoted(&original);
        // Who was talked to is known by the name that was used; a router on the way by its own.
        if pkt.src() == quoted.dst {
            new.set_addr(End::Source, original.dst);
        }
        new.set_addr(End::Destination, original.src);
        let direction = rx.direction();
        let dst = original.src;
        match self.target(dst) {
            Target::Endpoint(endpoint) => {
                let Some(port) = self.ports.iter().find(|port| port.name == endpoint.port).cloned() else {
                    return Err(rx.drop(code::NO_DEVICE));
                };
                self.fits(pkt, (&port, port.mtu), direction)?;
                new.set_ttl(new.ttl() - 1);
                self.send(rx, &new, &port, endpoint.mac, port.mtu);
                Ok(())
            }
            Target::Blackhole => Err(rx.drop(code::UNROUTABLE)),
            Target::Own | Target::Gateway | Target::Host => self.hand_up(rx, &new, src_id, code::LOCAL_HOST),
            target => {
                if let Some(peer) = self.tunnel_peer(dst, false) {
                    return self.encapsulate(rx, &new, peer, src_id, direction);
                }
                let Target::Exit(exit) = target else {
                    return self.hand_up(rx, &new, src_id, code::UNROUTABLE);
                };
                self.fits(pkt, (&exit.port, exit.mtu), direction)?;
                new.set_ttl(new.ttl() - 1);
                self.transmit(rx, &new, &exit)
            }
        }
    }

    /// What is this machine's kernel's, unless it came from there.
    pub(crate) fn hand_up(&mut self, rx: &mut Rx<'_>, pkt: &Packet, src_id: u32, otherwise: u16) -> Flow {
        if rx.port.role == Role::Host {
            return Err(rx.drop(code::UNROUTABLE));
        }
        let frame = self.reframe(rx, pkt);
        self.punt(rx, frame, src_id, otherwise)
    }
}

/// What a flow's client used in place of its backend.
fn meant(entry: &Entry) -> Option<(IpAddr, u16)> {
    entry
        .nat
        .or_else(|| entry.rev_nat.map(|id| (id.address, id.port)))
}
