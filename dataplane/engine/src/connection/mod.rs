//! Connections: what the first packet of one decides, and how others follow it.
//!
//! The first packet goes through all checks ([`create`](Core::create)) and leaves a connection in the flow table, which
//! has for either direction where its packets go. Later packets need that one lookup, until the tables change for one of
//! their addresses ([`LastChanged`](octoplane_tables::LastChanged)): then the next packet of each direction decides again
//! ([`follow`](Core::follow)), policy included, but keeps the translation.

mod affinity;
mod direct;
mod gateway;
mod masquerade;
mod packet;
mod policy;
mod proxy;
mod related;
mod service;
mod state;
mod translate;
mod translation;
mod view;

use std::net::IpAddr;

use octoplane_esp::Sa;
use octoplane_flow::{FlowError, FlowHandle, FlowRef, FlowTable, Half, Tuple};
use octoplane_packet::headers::ETHERNET_LEN;
use octoplane_packet::{BufPool, PacketBuf};
use octoplane_tables::model::{Role, Routing};
use octoplane_tables::{Action as Way, Remote, Snapshot, Target, TunnelEnd, identity};

pub(crate) use affinity::{adopt as adopt_affinity, refresh, resume as resume_affinity};
pub(crate) use direct::{destination, hears_ipip, is_station, refined, speaks};
use gateway::Exit;
pub(crate) use gateway::is_world;
pub(crate) use masquerade::reserves;
pub(crate) use packet::{Packet, Part, Upper, begins, tcp};
pub(crate) use service::is_served;
pub use state::Timeouts;
pub(crate) use state::{Action, FROM_TUNNEL, Progress, flag, progress, resume as resume_connection, seen_in};
pub(crate) use translate::translate;
pub(crate) use translation::{Translation, set_addresses6};
pub use view::{Decided, DirectionView, FlowState, FlowView, describe};

use crate::drop_reason::DropReason;
use crate::dsr::{self, Note, Told};
use crate::engine::{Core, Rx};
use crate::fragment_ports;
use crate::ipsec::{Framing, Ipsec, is_protected};
use crate::observe::Step;
use crate::overlay;
use crate::rate;
use crate::slow::{Seal, Verdict, send};

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

/// Where packets go.
#[derive(Clone, Copy)]
struct Path {
    /// Number of the target, or of the other end of a tunnel, or of the node that packets are encrypted for.
    number: u32,
    /// Whether it is the way to another node, in a tunnel.
    tunnel: bool,
    /// Whether it is the way to another node, encrypted, without a tunnel.
    encrypt: bool,
    /// Whether the tunnel is a hop: the way to an egress gateway.
    hop: bool,
}

/// What a packet is when it leaves, and how it goes.
struct Leaving<'a> {
    /// Its addresses and ports.
    out: &'a Tuple,
    way: Path,
    /// Its sender's identity.
    identity: u32,
    /// What goes with it.
    note: Note,
    /// Whether it goes one hop further in front of a tunnel.
    hop: bool,
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

impl Path {
    /// The target that leads on, and the other node, whether there is a tunnel to it or not.
    fn resolve<'a>(&self, snapshot: &'a Snapshot) -> (&'a Target, Option<&'a TunnelEnd>) {
        match self.tunnel || self.encrypt {
            false => (snapshot.target(self.number), None),
            true => {
                let end = snapshot.tunnel_end(self.number);
                (snapshot.target(end.target), Some(end))
            }
        }
    }
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
        if let Some(flow) = self.answered_around(rx, packet, sender) {
            return self.pass_as_it_is(rx, buf, packet, flow, sender);
        }
        match self.follow(rx, packet, sender, told) {
            Ok((out, action)) => self.carry_out(rx, buf, packet, &out, action),
            Err(verdict) => verdict,
        }
    }

    /// The direction of a connection that has left under the node's address, if a packet from outside answers it at the address that
    /// its sender has: a reply all the same (specification, 2.3).
    fn answered_around(&self, rx: &Rx<'_>, packet: &Packet, sender: Sender) -> Option<FlowRef> {
        if rx.view.role != Role::Uplink || sender.port == FROM_TUNNEL {
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
        let way = match way(rx, &out, false, sender.identity) {
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
                // Only what is allowed takes the place of what was.
                let meant = self.meant_for(rx, packet, flow, sender);
                let proxy = self.allowed(rx, packet, &meant, sender, false)?;
                let moves = match self.proxy_of(flow) {
                    0 => {
                        proxy != 0
                            || self.has_to_move(rx, packet, flow, sender)
                            || self.is_told_otherwise(packet, flow, told)
                    }
                    now => proxy != now,
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
            known => known,
        };
        let known = known.filter(|&flow| {
            let table = self.flows.table();
            let again = |half| progress(table, flow, &half, packet.upper, rx.second) == Progress::Again;
            let again = table.half(flow).is_some_and(again);
            if again {
                self.flows.remove(flow);
            }
            !again
        });
        // The packet that a connection begins with counts as its SYN, whatever it is (specification, 2.3).
        let (flow, way) = match known {
            Some(flow) => (flow, None),
            None => match self.create(rx, packet, sender, told) {
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
        let (there, back) = (table.half(flow)?.tuple(), table.half(flow.other())?.tuple());
        Some((there, back, state::Carried::of(table, flow)))
    }

    /// Decides about the first packet of a connection, and stores it. Says where packets of its direction go, too, if that
    /// was asked.
    fn create(
        &mut self,
        rx: &Rx<'_>,
        packet: &Packet,
        sender: Sender,
        told: Told,
    ) -> Result<(FlowRef, Option<Path>), Verdict> {
        let (out, answers) = match told {
            Told::For(backend) => (
                service::to_backend(rx.snapshot, &packet.tuple, backend),
                Answers::Here,
            ),
            Told::Nothing | Told::Used(_) => self.serve(rx, packet, sender)?,
        };
        // Where its answers will be found, by the time it is stored.
        self.flows.table().prefetch_tuple(&out.reverse());
        let proxy = self.allowed(rx, packet, &out, sender, true)?;
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
        let (path, exit) = way(rx, &out, true, sender.identity).map_err(Verdict::Drop)?;
        let own = match (answers, exit) {
            // Without an address for it nothing can come back.
            (Answers::ByUs, _) => {
                Some(masquerade::own(rx.snapshot, out.is_v6()).ok_or(Verdict::Drop(DropReason::NoNatPort))?)
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
            let flow = self.masquerade(rx, packet, sender, &out, addr)?;
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

    /// Stores a connection whose packets leave as `out`.
    fn store_between(
        &mut self,
        rx: &Rx<'_>,
        packet: &Packet,
        sender: Sender,
        out: &Tuple,
    ) -> Result<FlowRef, Verdict> {
        match self.store(rx, packet, sender, [&packet.tuple, &out.reverse()]) {
            Ok(flow) => Ok(flow),
            // Another worker was faster, or the reply came first.
            Err(FlowError::Taken(flow)) if self.is_between(flow, &packet.tuple, out) => Ok(flow),
            Err(_) => Err(Verdict::Drop(DropReason::CtInsertion)),
        }
    }

    /// Whether a direction has this tuple on the one side and that one on the other.
    fn is_between(&self, flow: FlowRef, there: &Tuple, out: &Tuple) -> bool {
        let table = self.flows.table();
        table.half(flow).is_some_and(|half| half.tuple() == *there) && self.outgoing(flow) == *out
    }

    /// Stores a connection between two tuples, that of its first packet's direction and that of its replies.
    fn store(
        &mut self,
        rx: &Rx<'_>,
        packet: &Packet,
        sender: Sender,
        between: [&Tuple; 2],
    ) -> Result<FlowRef, FlowError> {
        let [there, back] = between;
        let translations = [(there, back), (back, there)]
            .map(|(from, other)| Translation::between(&from.arriving(other), &other.reverse()));
        let payload = |forward, translation: Translation| {
            let [first, second] = Action {
                port: if forward { sender.port } else { 0 },
                ..Action::default()
            }
            .words();
            [
                first,
                second,
                state::first_word(packet.upper, rx.second, forward, translation.upper_change()),
            ]
        };
        let payloads = [payload(true, translations[0]), payload(false, translations[1])];
        let look = rx
            .second
            .saturating_add(self.timeouts.syn.min(self.timeouts.other));
        let flow = self
            .flows
            .insert_with(between, payloads, translations.map(Translation::words), look)?;
        self.stats.flows_created.add(1);
        Ok(flow)
    }

    /// Ends connections that nothing was heard of for as long as their state allows.
    pub(crate) fn expire(&mut self, now: u64, records: usize) {
        let (now, timeouts) = (second(now), self.timeouts);
        let ended = self.flows.sweep(now, records, |table, flow| {
            let ends = state::ends(table, flow, &timeouts);
            (ends > now).then_some(ends)
        });
        affinity::expire(&mut self.affinities, now, records);
        fragment_ports::expire(&mut self.fragments, now, records);
        self.flows.quiesce();
        self.affinities.quiesce();
        self.fragments.quiesce();
        self.stats.flows_expired.add(ended as u64);
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
                let decided = way(rx, &out, flow.is_forward(), sender.identity);
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
        if !way.tunnel && !way.encrypt && service::goes_on(rx, packet, &out, flow, sender) {
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

    /// Does with a packet what its connection says.
    fn carry_out(
        &self,
        rx: &Rx<'_>,
        buf: &mut P::Buf,
        packet: &Packet,
        out: &Tuple,
        action: Action,
    ) -> Verdict {
        let way = Path {
            number: action.target,
            tunnel: action.flags & flag::ENCAPSULATE != 0,
            encrypt: action.flags & flag::ENCRYPT != 0,
            hop: action.flags & flag::HOP != 0,
        };
        if action.flags & flag::LIMITED != 0 {
            let (target, _) = way.resolve(rx.snapshot);
            if self.explains() {
                self.note_rate(rx, packet, target);
            } else if let Err(reason) = rate::admit(rx, &packet.tuple, target, buf.len()) {
                return Verdict::Drop(reason);
            }
        }
        let note = match action.flags & flag::DIRECT {
            0 => Note::None,
            _ => direct::note(rx.snapshot, packet, out),
        };
        let leaving = Leaving {
            out,
            way,
            identity: action.identity,
            note,
            hop: action.flags & flag::HOP != 0,
        };
        self.leave(rx, buf, packet, leaving, |frame| match note {
            Note::Ipip(_) => Ok(()),
            _ => translate(frame, packet, out),
        })
    }

    /// Sends a packet that `change` makes ready on its way.
    fn leave(
        &self,
        rx: &Rx<'_>,
        buf: &mut P::Buf,
        packet: &Packet,
        leaving: Leaving<'_>,
        change: impl FnOnce(&mut [u8]) -> Result<(), DropReason>,
    ) -> Verdict {
        let Leaving {
            out,
            way,
            identity,
            note,
            hop: ages,
        } = leaving;
        let (target, end) = way.resolve(rx.snapshot);
        if way.tunnel && end.is_none_or(|end| end.len == 0) {
            // Without an address of ours there is no tunnel.
            return Verdict::Drop(DropReason::NoTunnelEndpoint);
        }
        let mut target: Target = *target;
        let local = matches!(target.action, Way::None | Way::Local | Way::Host | Way::Gateway);
        if way.encrypt && local {
            // Not by way of the kernel, which would send it as it is.
            return Verdict::Drop(DropReason::Unroutable);
        }
        if !way.tunnel && local {
            // This machine's kernel has it. It is no hop, and takes any size.
            return match change(buf.data_mut()) {
                Err(reason) => Verdict::Drop(reason),
                Ok(()) if rx.view.role == Role::Host => Verdict::Drop(DropReason::Unroutable),
                Ok(()) if target.action == Way::None => Verdict::Punt(DropReason::Unroutable),
                Ok(()) => Verdict::Punt(DropReason::LocalHostUnreachable),
            };
        }
        let size = packet.end - ETHERNET_LEN;
        let around = matches!(note, Note::Ipip(_));
        // A tunnel is no hop by itself.
        let ttl = if way.tunnel && !ages || around {
            u8::MAX
        } else {
            ttl(buf.data(), out.is_v6())
        };
        let sa = match sealing(rx, end, way.tunnel, identity) {
            Ok(sa) => sa,
            Err(reason) => return Verdict::Drop(reason),
        };
        if let Some(((_, sa), node)) = sa.zip(end.and_then(|end| end.addr)) {
            self.note(|| Step::Encrypt {
                node,
                spi: sa.config().spi,
            });
        }
        let tunnel = end.filter(|_| way.tunnel);
        let overhead = tunnel.map_or(0, |end| end.len);
        target.mtu = match sa {
            Some((ipsec, sa)) => ipsec.room(sa, target.mtu, overhead),
            None => target.mtu.saturating_sub(overhead),
        };
        target.mtu = target.mtu.saturating_sub(note.len());
        let seal = sa.map(|(ipsec, sa)| Seal {
            sa: sa.id(),
            port: target.port,
            front: ipsec.front(overhead),
        });
        // Who allows fragments is not told, but cut (RFC 1191).
        let df = buf
            .data()
            .get(ETHERNET_LEN + 6)
            .is_none_or(|flags| flags & 0x40 != 0);
        let may_cut = !out.is_v6() && !df && !way.tunnel && !around && sa.is_none_or(|(ipsec, _)| ipsec.cut);
        // On a link, it is the tunnel's end whose Ethernet address is wanted.
        let hop = end.and_then(|end| end.addr).unwrap_or_else(|| out.dst());
        match self.route(rx, &target, hop, size, ttl, may_cut) {
            Ok(()) => {}
            // It does not wait in vain.
            Err(Verdict::Park(_)) if !around && !translate::is_possible(buf.data(), packet, out) => {
                return Verdict::Drop(DropReason::L4Checksum);
            }
            Err(verdict) => return verdict,
        }
        if !matches!(target.action, Way::Forward | Way::Deliver) {
            return Verdict::Punt(DropReason::LocalHostUnreachable);
        }
        // What stands behind the IP packet need not fit, and is not taken to another node.
        let padding = buf.len() - packet.end;
        let too_large = buf.len() - ETHERNET_LEN > usize::from(target.mtu);
        if (too_large || tunnel.is_some()) && buf.trim_back(padding).is_err() {
            return Verdict::Drop(DropReason::InvalidPacket);
        }
        let changed = change(buf.data_mut()).and_then(|()| match &note {
            Note::None | Note::Geneve(_) => Ok(()),
            Note::Option(front) => dsr::option::insert(buf, front),
            Note::Ipip(dst) => dsr::ipip::encapsulate(buf, size, rx.snapshot.node(), &packet.tuple, *dst),
        });
        if let Err(reason) = changed {
            return Verdict::Drop(reason);
        }
        if let Some(end) = tunnel {
            if ages {
                one_hop_further(buf.data_mut(), out.is_v6());
            }
            let hash = self.flows.table().hash(&packet.tuple);
            let ecn = overlay::traffic_class(buf.data()) & 3;
            let done = match &note {
                Note::Geneve(front) => overlay::encapsulate_direct(buf, end, identity, hash, ecn, front),
                _ => overlay::encapsulate(buf, end, identity, hash, ecn),
            };
            return match done {
                Ok(()) => seal.map_or(Verdict::Send(target.port), Verdict::Seal),
                Err(reason) => Verdict::Drop(reason),
            };
        }
        let frame = buf.data_mut();
        if !around {
            one_hop_further(frame, out.is_v6());
        }
        frame[..12].copy_from_slice(&target.macs);
        match seal {
            Some(seal) if size > usize::from(target.mtu) => Verdict::SealInPieces(seal, target.mtu),
            Some(seal) => Verdict::Seal(seal),
            None => {
                target.mtu = target.mtu.saturating_add(note.len());
                send(&target, size + usize::from(note.len()))
            }
        }
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

/// Copies the connection that packets with this tuple belong to from workers that go on meanwhile. Whether there is one.
pub(crate) fn copy(to: &mut FlowHandle, live: &FlowTable, tuple: &Tuple) -> bool {
    let Some(flow) = live.find(live.hash(tuple), tuple) else {
        return false;
    };
    let forward = if flow.is_forward() { flow } else { flow.other() };
    let (Some(there), Some(back)) = (live.half(forward), live.half(forward.other())) else {
        return false;
    };
    let words = |half: &Half<'_>| [half.word::<0>(), half.word::<1>(), half.word::<2>()];
    let (tuples, payloads) = ([there.tuple(), back.tuple()], [words(&there), words(&back)]);
    let spare = |half: &Half<'_>| [half.spare::<0>(), half.spare::<1>(), half.spare::<2>()];
    let spares = [spare(&there), spare(&back)];
    // A record may become another connection's while it is read.
    live.find(live.hash(tuple), tuple) == Some(flow)
        && tuples.contains(tuple)
        && !matches!(
            to.insert_with([&tuples[0], &tuples[1]], payloads, spares, u32::MAX),
            Err(FlowError::Full)
        )
}

/// What is known of an address.
pub(crate) fn remote(snapshot: &Snapshot, addr: IpAddr) -> &Remote {
    match addr {
        IpAddr::V4(addr) => snapshot.remote4(addr.to_bits()),
        IpAddr::V6(addr) => snapshot.remote6(addr.to_bits()),
    }
}

/// Where packets with these addresses go: to an endpoint here, through the tunnel to its node, or as routed
/// (specification, 1.2 step 14); and where they leave the cluster from if this is the direction of the connection's first
/// packet.
fn way(rx: &Rx<'_>, out: &Tuple, forward: bool, sender: u32) -> Result<(Path, Exit), DropReason> {
    let (snapshot, dst) = (rx.snapshot, out.dst());
    let target = find(snapshot, dst);
    let action = snapshot.target(target).action;
    let local = matches!(action, Way::Deliver | Way::Local | Way::Gateway);
    let routed = Path {
        number: target,
        tunnel: false,
        encrypt: false,
        hop: false,
    };
    if local {
        return Ok((routed, Exit::Anywhere));
    }
    if snapshot.node().routing == Routing::Tunnel {
        let remote = remote(snapshot, dst);
        if remote.tunnel.is_some() && !remote.skip_tunnel {
            let path = Path {
                number: remote.tunnel_end,
                tunnel: true,
                encrypt: false,
                hop: false,
            };
            return Ok((path, Exit::Anywhere));
        }
    }
    if matches!(action, Way::Host | Way::Blackhole | Way::PortDown) {
        return Ok((routed, Exit::Anywhere));
    }
    let exit = match forward {
        true => gateway::exit(snapshot, out)?,
        false => Exit::Anywhere,
    };
    let path = match exit {
        Exit::Node(number) => Path {
            number,
            tunnel: true,
            encrypt: false,
            hop: true,
        },
        Exit::Here(_) => routed,
        Exit::Anywhere => encrypted(rx, dst, sender).unwrap_or(routed),
    };
    Ok((path, exit))
}

/// The way to another node's endpoint if packets of this sender are encrypted on it (specification, 1.9).
fn encrypted(rx: &Rx<'_>, dst: IpAddr, sender: u32) -> Option<Path> {
    rx.ipsec?;
    let remote = remote(rx.snapshot, dst);
    (remote.tunnel.is_some() && remote.key != 0 && is_protected(sender)).then_some(Path {
        number: remote.tunnel_end,
        tunnel: false,
        encrypt: true,
        hop: false,
    })
}

/// What packets of this sender for a node are encrypted with, in a tunnel to it or without one.
///
/// # Errors
/// Reason to drop them: they would have to be encrypted.
#[inline]
pub(crate) fn sealing<'a>(
    rx: &Rx<'a>,
    node: Option<&TunnelEnd>,
    tunnel: bool,
    sender: u32,
) -> Result<Option<(Ipsec<'a>, &'a Sa)>, DropReason> {
    let (Some(ipsec), Some(node)) = (rx.ipsec, node) else {
        return Ok(None);
    };
    if tunnel && ipsec.framing == Framing::EspInTunnel && !is_protected(sender) {
        return Ok(None);
    }
    let sa = match node.addr {
        Some(addr) => ipsec.towards(addr)?,
        None => return Err(DropReason::NoNodeId),
    };
    Ok(sa.map(|sa| (ipsec, sa)))
}

/// Whether another node's endpoint sent this packet here for it to leave the cluster.
pub(crate) fn leaves_here(snapshot: &Snapshot, tuple: &Tuple) -> bool {
    matches!(
        gateway::exit(snapshot, tuple),
        Ok(Exit::Here(_)) | Err(DropReason::NoEgressIp)
    )
}

fn find(snapshot: &Snapshot, addr: IpAddr) -> u32 {
    match addr {
        IpAddr::V4(addr) => snapshot.find4(addr.to_bits()),
        IpAddr::V6(addr) => snapshot.find6(addr.to_bits()),
    }
}

fn ttl(frame: &[u8], v6: bool) -> u8 {
    let at = ETHERNET_LEN + if v6 { 7 } else { 8 };
    frame.get(at).copied().unwrap_or(0)
}

/// One less TTL or hop limit.
pub(crate) fn one_hop_further(frame: &mut [u8], v6: bool) {
    let Some(ip) = frame.get_mut(ETHERNET_LEN..) else {
        return;
    };
    if v6 {
        if let Some(hops) = ip.get_mut(7) {
            *hops = hops.wrapping_sub(1);
        }
    } else if let Some([ttl, _, high, low]) = ip.get_mut(8..12) {
        // TTL is the upper byte of its word.
        *ttl = ttl.wrapping_sub(1);
        let sum = octoplane_packet::checksum::update(u16::from_be_bytes([*high, *low]), 0x0100, 0);
        [*high, *low] = sum.to_be_bytes();
    }
}

/// Nanoseconds in seconds, the unit in which connections age; never 0.
pub(crate) fn second(now: u64) -> u32 {
    (now / 1_000_000_000) as u32 + 1
}
