//! Connections: what the first packet of one decides, and how others follow it.
//!
//! The first packet goes through all checks ([`create`](Core::create)) and leaves a connection in the flow table, which
//! has for either direction where its packets go. Later packets need that one lookup, until the tables change for one of
//! their addresses ([`LastChanged`](octoplane_tables::LastChanged)): then the next packet of each direction decides again
//! ([`follow`](Core::follow)), policy included, but keeps the translation.

mod affinity;
mod direct;
mod gateway;
mod leave;
mod masquerade;
mod packet;
mod place;
mod policy;
mod proxy;
mod related;
mod service;
mod state;
mod store;
mod translate;
mod translation;
mod view;
mod way;

use octoplane_flow::{FlowRef, Tuple};
use octoplane_packet::{BufPool, PacketBuf};
use octoplane_tables::model::Role;
use octoplane_tables::{Action as Way, Target, identity};

pub(crate) use affinity::{adopt as adopt_affinity, refresh, resume as resume_affinity};
pub(crate) use direct::{destination, hears_ipip, is_station, refined, speaks};
use gateway::Exit;
pub(crate) use gateway::is_world;
use leave::Leaving;
pub(crate) use leave::one_hop_further;
pub(crate) use masquerade::reserves;
pub(crate) use packet::{Packet, Part, Upper, begins, tcp};
use place::Place;
pub(crate) use service::is_served;
pub use state::Timeouts;
pub(crate) use state::{Action, FROM_TUNNEL, Progress, flag, progress, resume as resume_connection, seen_in};
pub(crate) use store::copy;
pub(crate) use translate::translate;
pub(crate) use translation::{Translation, set_addresses6};
pub use view::{Decided, DirectionView, FlowState, FlowView, describe};
use way::{Path, way, way_back};
pub(crate) use way::{find, leaves_here, remote, sealing};

use crate::drop_reason::DropReason;
use crate::dsr::{Note, Told};
use crate::engine::{Core, Rx};
use crate::observe::Step;
use crate::rate;
use crate::verdict::Verdict;

/// Who sent a packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender {
    /// Security identity.
    pub(crate) identity: u32,
    /// The endpoint, if it is one of ours, or 0.
    pub(crate) endpoint: u32,
    /// The port it came in by, or [`FROM_TUNNEL`].
    pub(crate) port: u16,
}

impl Sender {
    /// Whether it is an endpoint of this node or the node itself: what services are to those inside of the cluster.
    fn is_inside(&self) -> bool {
        self.endpoint != 0 || self.identity == identity::HOST
    }
}

/// Who answers the packets of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answers {
    /// Somebody whose answers come by here.
    Here,
    /// Somebody who has to answer to an address of ours.
    ByUs,
    /// A service's backend on another node, which answers the client.
    Directly,
}

impl<P: BufPool> Core<P> {
    /// Takes a packet that belongs to a connection, or begins one, through the checks and on its way.
    pub(crate) fn connection(
        &mut self,
        rx: &Rx<'_>,
        buf: &mut P::Buf,
        packet: &Packet,
        sender: Sender,
        told: Told,
    ) -> Verdict {
        self.note(|| Step::Sender {
            src: packet.tuple.src(),
            identity: sender.identity,
            endpoint: sender.endpoint,
            tunnel: sender.port == FROM_TUNNEL,
        });
        if let Some((flow, quoted)) = self.related(buf.data(), packet) {
            return self.pass_on(rx, buf, packet, flow, &quoted, sender);
        }
        let told = match direct::told(rx, buf.data(), packet, sender, told) {
            Ok(told) => told,
            Err(reason) => return Verdict::Drop(reason),
        };
        if let Some(flow) = self.answered_around(rx, packet) {
            return self.pass_as_it_is(rx, buf, packet, flow, sender);
        }
        match self.follow(rx, packet, sender, told) {
            Ok((out, action)) => self.carry_out(rx, buf, packet, &out, action),
            Err(verdict) => verdict,
        }
    }

    /// The direction of a connection that has left under the node's address, if a packet from outside, or the kernel's, answers it at
    /// the address that its sender has: a reply all the same (specification, 2.3).
    fn answered_around(&self, rx: &Rx<'_>, packet: &Packet) -> Option<FlowRef> {
        if rx.view.role == Role::Pod {
            return None;
        }
        let table = self.flows.table();
        let back = packet.tuple.reverse();
        let flow = table.find(table.hash(&back), &back)?;
        let out = self.outgoing(flow);
        let masqueraded = flow.is_forward() && out.src() != back.src() && out.dst() == back.dst();
        masqueraded.then(|| flow.other())
    }

    /// Sends a reply on that needs no translation.
    fn pass_as_it_is(
        &self,
        rx: &Rx<'_>,
        buf: &mut P::Buf,
        packet: &Packet,
        flow: FlowRef,
        sender: Sender,
    ) -> Verdict {
        let out = packet.tuple;
        let place = Place::of(rx.snapshot, out.dst());
        let way = match way(rx, &out, &place, false, sender.identity) {
            Ok((way, _)) => way,
            Err(reason) => return Verdict::Drop(reason),
        };
        let table = self.flows.table();
        if let Some(half) = table.half(flow) {
            progress(table, flow, &half, packet.upper, rx.second);
        }
        let leaving = Leaving {
            out: &out,
            way,
            identity: sender.identity,
            note: Note::None,
            hop: false,
        };
        if let Err(reason) = rate::admit(rx, &out, way.resolve(rx.snapshot).0, buf.len()) {
            return Verdict::Drop(reason);
        }
        self.leave(rx, buf, packet, leaving, |_| Ok(()))
    }

    /// Whether a packet belongs to a connection that is known, or tells of one.
    pub(crate) fn knows(&self, frame: &[u8], packet: &Packet) -> bool {
        let table = self.flows.table();
        table.find(table.hash(&packet.tuple), &packet.tuple).is_some() || self.tells_of_known(frame, packet)
    }

    /// Whether a packet is an error about one of a connection that is known.
    pub(crate) fn tells_of_known(&self, frame: &[u8], packet: &Packet) -> bool {
        self.related(frame, packet).is_some()
    }

    /// What a packet leaves as and what is to be done with it, by the tables as they are now.
    fn follow(
        &mut self,
        rx: &Rx<'_>,
        packet: &Packet,
        sender: Sender,
        told: Told,
    ) -> Result<(Tuple, Action), Verdict> {
        let hash = self.flows.table().hash(&packet.tuple);
        let known = self.flows.table().find(hash, &packet.tuple);
        if let Some(flow) = known {
            self.note_known(flow);
        }
        let mut left = None;
        let known = match known {
            Some(flow) if flow.is_forward() => {
                let now = self.proxy_of(flow);
                let elsewhere = now == 0
                    && (self.has_to_move(rx, packet, flow, sender)
                        || self.is_told_otherwise(packet, flow, told));
                // Policy comes behind the choice of a backend (1.2 steps 9 and 12): who needs another one is asked about then.
                let moves = elsewhere || {
                    let meant = self.meant_for(rx, packet, flow, sender);
                    let place = Place::of(rx.snapshot, meant.dst());
                    self.allowed(rx, packet, (&meant, &place), sender, false)? != now
                };
                match moves {
                    true => {
                        left = self.remember(flow);
                        self.flows.remove(flow);
                        None
                    }
                    false => Some(self.under_address(rx, packet, flow, sender)?),
                }
            }
            // What a load balancer says is about a connection that begins at the other end.
            Some(_) if told != Told::Nothing => None,
            Some(flow) => {
                self.receiver_allows(rx, packet, flow, sender)?;
                Some(flow)
            }
            None => None,
        };
        let mut before = None;
        let known = known.filter(|&flow| {
            let table = self.flows.table();
            let again = |half| progress(table, flow, &half, packet.upper, rx.second) == Progress::Again;
            let again = table.half(flow).is_some_and(again);
            if again {
                before = flow.is_forward().then(|| self.outgoing(flow));
                left = self.remember(flow);
                self.flows.remove(flow);
            }
            !again
        });
        // The packet that a connection begins with counts as its SYN, whatever it is (specification, 2.3).
        let (flow, way) = match known {
            Some(flow) => (flow, None),
            None => match self.create(rx, packet, sender, told, before) {
                Ok(made) => made,
                Err(verdict) => {
                    // What is refused leaves no trace.
                    if let Some((there, back, progress)) = left
                        && let Ok(flow) = self.store(rx, packet, sender, [&there, &back])
                    {
                        progress.store(self.flows.table(), flow);
                    }
                    return Err(verdict);
                }
            },
        };
        self.compile(rx, packet, flow, sender, way)
    }

    /// What is needed to put a connection back.
    fn remember(&self, flow: FlowRef) -> Option<(Tuple, Tuple, state::Carried)> {
        let table = self.flows.table();
        let flow = if flow.is_forward() { flow } else { flow.other() };
        let (there, back) = (table.half(flow)?.tuple(), table.half(flow.other())?.tuple());
        Some((there, back, state::Carried::of(table, flow)))
    }

    /// Decides about the first packet of a connection, and stores it. Says where packets of its direction go, too, if that
    /// was asked. `before`: what its packets left as until it closed, if it begins anew: the choice of a backend and the port
    /// outlive that (specification, 2.4, 3.3).
    fn create(
        &mut self,
        rx: &Rx<'_>,
        packet: &Packet,
        sender: Sender,
        told: Told,
        before: Option<Tuple>,
    ) -> Result<(FlowRef, Option<Path>), Verdict> {
        let (out, answers) = match told {
            Told::For(backend) => (
                service::to_backend(rx.snapshot, &packet.tuple, backend),
                Answers::Here,
            ),
            Told::Nothing | Told::Used(_) => self.serve(rx, packet, sender, before)?,
        };
        // Where its answers will be found, by the time it is stored.
        self.flows.table().prefetch_tuple(&out.reverse());
        let place = Place::of(rx.snapshot, out.dst());
        let proxy = self.allowed(rx, packet, (&out, &place), sender, true)?;
        if let Told::Used(front) = told {
            // What a proxy answers would not be answered in the name of what the client used.
            return match proxy {
                0 => self
                    .store_answered_as(rx, packet, sender, front)
                    .map(|flow| (flow, None)),
                _ => Err(Verdict::Drop(DropReason::ProxyMissing)),
            };
        }
        if proxy == 0 && matches!(told, Told::For(_)) {
            let flow = self.store_over(rx, packet, sender, [&packet.tuple, &out.reverse()])?;
            return Ok((flow, None));
        }
        if proxy != 0 {
            self.note(|| Step::Proxy { port: proxy });
            let out = proxy::to_proxy(rx.snapshot, &out, proxy).map_err(Verdict::Drop)?;
            let flow = self.store_between(rx, packet, sender, &out)?;
            if let Some(half) = self.flows.table().half(flow) {
                state::set_proxied(&half);
            }
            return Ok((flow, None));
        }
        self.note_gateway(rx, &out);
        let (path, exit) = way(rx, &out, &place, true, sender.identity).map_err(Verdict::Drop)?;
        let own = match (answers, exit) {
            // Without an address for it nothing can come back.
            (Answers::ByUs, _) => {
                let own = masquerade::towards_backends(rx.snapshot, out.is_v6());
                Some(own.ok_or(Verdict::Drop(DropReason::NoNatPort))?)
            }
            (Answers::Directly, _) => {
                let flow = self.store_between(rx, packet, sender, &out)?;
                if let Some(half) = self.flows.table().half(flow) {
                    state::set_direct(&half);
                }
                return Ok((flow, None));
            }
            (Answers::Here, Exit::Here(addr)) => Some(addr),
            (Answers::Here, _) => masquerade::address(rx.snapshot, packet, &out, sender, path),
        };
        if let Some(addr) = own {
            let flow = self.masquerade(rx, packet, sender, &out, addr, before)?;
            self.note(|| Step::Masquerade {
                addr,
                out: self.outgoing(flow),
            });
            return Ok((flow, None));
        }
        let flow = self.store_between(rx, packet, sender, &out)?;
        // Answers go back another way.
        Ok((flow, Some(path).filter(|_| flow.is_forward())))
    }

    /// Whether packets of a direction come out of a tunnel.
    fn came_by_tunnel(&self, flow: FlowRef) -> bool {
        let half = self.flows.table().half(flow);
        half.is_some_and(|half| Action::of(&half).port == FROM_TUNNEL)
    }

    /// What packets of a direction look like when they leave.
    pub(crate) fn outgoing(&self, flow: FlowRef) -> Tuple {
        let table = self.flows.table();
        let back = table.half(flow.other()).map(|half| half.tuple());
        back.map_or_else(|| Tuple::v4(0, 0, 0, 0, 0, 0), |back| back.reverse())
    }

    /// Decides where packets of a direction go by the tables as they are, and stores it. That they may was decided before, and
    /// perhaps the way. Says what they leave as, too.
    fn compile(
        &self,
        rx: &Rx<'_>,
        packet: &Packet,
        flow: FlowRef,
        sender: Sender,
        decided: Option<Path>,
    ) -> Result<(Tuple, Action), Verdict> {
        let out = self.outgoing(flow);
        let mut way = match decided {
            Some(way) => way,
            None => {
                let place = Place::of(rx.snapshot, out.dst());
                let decided = match flow.is_forward() {
                    true => way(rx, &out, &place, true, sender.identity),
                    false => {
                        let from_tunnel = sender.endpoint != 0 && self.came_by_tunnel(flow.other());
                        way_back(rx, &out, &place, false, sender.identity, from_tunnel)
                    }
                };
                decided.map_err(Verdict::Drop)?.0
            }
        };
        let (mut flags, mut identity) = (flag::COMPILED, sender.identity);
        if self.is_direct(flow) && !service::is_local(rx.snapshot, out.dst()) {
            flags |= flag::DIRECT;
            if let Some(path) = direct::tunnel(rx.snapshot, out.dst()).map_err(Verdict::Drop)? {
                (way, identity) = (path, direct::WORLD);
            }
        }
        // Who comes from another node to leave the cluster here is looked for a way for, too (1.7 step 6).
        let leaves = flow.is_forward()
            && sender.port == FROM_TUNNEL
            && out.src() != packet.tuple.src()
            && out.dst() == packet.tuple.dst();
        if !way.tunnel && !way.encrypt && (leaves || service::goes_on(rx, packet, &out, flow, sender)) {
            let action = rx.snapshot.target(way.number).action;
            if matches!(action, Way::None | Way::Host | Way::Blackhole) {
                // The kernel knows no better (3.6 steps 4 and 5).
                return Err(Verdict::Drop(DropReason::NoFib));
            }
        }
        self.note_way(rx, &out, way);
        if self.is_served_elsewhere(rx, packet, &out, sender) {
            flags |= flag::ANY_CHANGE;
        }
        if self.answered_as(flow).is_some() {
            flags |= flag::ANSWERED_AS;
        }
        if out != packet.tuple {
            flags |= flag::TRANSLATE;
        }
        if way.tunnel {
            flags |= flag::ENCAPSULATE;
            let own_name = out.src() != packet.tuple.src();
            let hop = match flow.is_forward() {
                true => own_name || way.hop,
                // To a client of a service whose backend is elsewhere (3.6 step 5).
                false => own_name && out.dst() != packet.tuple.dst(),
            };
            if hop {
                flags |= flag::HOP;
            }
        }
        if way.encrypt {
            flags |= flag::ENCRYPT;
        }
        if flow.is_forward() && self.prolong(rx, packet, &out) {
            flags |= flag::AFFINE;
        }
        if rate::is_limited(rx, &packet.tuple, way.resolve(rx.snapshot).0) {
            flags |= flag::LIMITED;
        }
        let action = Action {
            target: way.number,
            port: sender.port,
            flags,
            revision: rx.snapshot.revision(),
            identity,
        };
        if let Some(half) = self.flows.table().half(flow) {
            action.store(&half);
        }
        Ok((out, action))
    }
}

impl<P: BufPool> Core<P> {
    fn note_known(&self, flow: FlowRef) {
        let forward = if flow.is_forward() { flow } else { flow.other() };
        if let Some(half) = self.flows.table().half(forward) {
            self.note(|| Step::Known {
                forward: half.tuple(),
                is_forward: flow.is_forward(),
            });
        }
    }

    fn note_gateway(&self, rx: &Rx<'_>, out: &Tuple) {
        if self.explains()
            && let Some(rule) = gateway::rule(rx.snapshot, out)
        {
            self.note(|| Step::EgressGateway {
                src: out.src(),
                dst: out.dst(),
                rule: *rule,
            });
        }
    }

    fn note_way(&self, rx: &Rx<'_>, out: &Tuple, way: Path) {
        self.note(|| {
            let (target, end) = way.resolve(rx.snapshot);
            Step::Way {
                out: *out,
                target: *target,
                node: end.and_then(|end| end.addr).map(|addr| (addr, way.tunnel)),
            }
        });
    }

    fn note_rate(&self, rx: &Rx<'_>, packet: &Packet, target: &Target) {
        let ingress = target.action == Way::Deliver;
        let endpoint = match ingress {
            true => target.endpoint,
            false => rx.snapshot.target(find(rx.snapshot, packet.tuple.src())).endpoint,
        };
        self.note(|| Step::Rate { endpoint, ingress });
    }
}

/// Nanoseconds in seconds, the unit in which connections age; never 0.
pub(crate) fn second(now: u64) -> u32 {
    (now / 1_000_000_000) as u32 + 1
}
