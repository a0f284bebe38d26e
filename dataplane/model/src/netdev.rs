//! Uplinks and the kernel (specification, 1.5, 1.6 and 3.6).

use std::net::IpAddr;

use crate::config::{Direction, FrontendType, Role, Subject};
use crate::conntrack::{Entry, Filter, Kind, Scope, Status};
use crate::egress::Redirect;
use crate::fib::{Exit, Target, identity};
use crate::lb::{self, BackendId, FrontendId};
use crate::model::{Model, Rx};
use crate::outcome::{Flow, Stop, Told, code};
use crate::wire::{End, Packet, Tuple};

/// Whose packet leaves by an uplink.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin {
    /// A local pod's.
    Pod {
        /// Whether it answers something.
        reply: bool,
        /// Identity of its destination.
        dst_id: u32,
    },
    /// This machine's.
    Host,
}

impl Model {
    /// A packet from the network.
    pub(crate) fn netdev_ingress(&mut self, rx: &mut Rx<'_>, pkt: &mut Packet) -> Flow {
        let src_id = match self.identity(pkt.src()) {
            identity::HOST => 0,
            id => id,
        };
        if self.is_tunnel(pkt) {
            return self.decapsulate(rx, pkt);
        }
        if self.is_around(pkt) {
            return self.take_out(rx, pkt);
        }
        if self.nodeport_lb(rx, pkt, src_id)? {
            return Ok(());
        }
        match self.target(pkt.dst()) {
            Target::Endpoint(endpoint) => self.local_delivery(rx, pkt, &endpoint, src_id, false),
            Target::Gateway => {
                // The kernel may have used this address, too.
                if !self.answer_host(pkt) {
                    self.asked_host(rx, pkt, src_id, Direction::Ingress)?;
                }
                self.ours(rx, pkt, true, src_id)
            }
            Target::Own => {
                self.host_ingress(rx, pkt, src_id)?;
                self.ours(rx, pkt, false, src_id)
            }
            Target::Exit(exit) => {
                self.fits(pkt, (&exit.port, exit.mtu), Direction::Ingress)?;
                pkt.set_ttl(pkt.ttl() - 1);
                self.transmit(rx, pkt, &exit)
            }
            Target::Blackhole => Err(rx.drop(code::UNROUTABLE)),
            Target::Host => {
                self.host_ingress(rx, pkt, src_id)?;
                let frame = self.reframe(rx, pkt);
                self.punt(rx, frame, src_id, code::UNROUTABLE)
            }
            Target::Unknown => {
                // A pod that has gone to another node goes on with what it began.
                if self.is_of_flow(pkt)
                    && let Some(peer) = self.tunnel_peer(pkt.dst(), false)
                {
                    return self.encapsulate(rx, pkt, peer, src_id, rx.direction());
                }
                let frame = self.reframe(rx, pkt);
                self.punt(rx, frame, src_id, code::UNROUTABLE)
            }
        }
    }

    /// A packet from the kernel (specification, 1.5: `cil_from_host`).
    pub(crate) fn kernel_egress(&mut self, rx: &mut Rx<'_>, pkt: &mut Packet) -> Flow {
        // An answer to what has left under our address by way of the kernel.
        if !matches!(self.target(pkt.dst()), Target::Exit(_))
            && self.rev_snat(rx, pkt)?
            && let Target::Endpoint(endpoint) = self.target(pkt.dst())
        {
            return self.local_delivery(rx, pkt, &endpoint, identity::HOST, false);
        }
        // The node's processes reach services as pods do (specification, 3.8: socket load balancing or the equivalent).
        let lb = self.balance(rx, pkt)?;
        let target = self.target(pkt.dst());
        // What it says to itself is no flow.
        if matches!(target, Target::Gateway | Target::Own) && lb.rev_nat.is_none() {
            let dst_id = self.identity(pkt.dst());
            self.asked_host(rx, pkt, dst_id, Direction::Egress)?;
        } else {
            self.host_egress(rx, pkt, lb.rev_nat)?;
        }
        match target {
            Target::Endpoint(endpoint) => self.local_delivery(rx, pkt, &endpoint, identity::HOST, false),
            Target::Gateway | Target::Own => {
                self.ours(rx, pkt, matches!(target, Target::Gateway), identity::HOST)
            }
            _ if self.tunnel_peer(pkt.dst(), false).is_some() => {
                let Some(peer) = self.tunnel_peer(pkt.dst(), false) else {
                    return Err(rx.drop(code::NO_TUNNEL_ENDPOINT));
                };
                self.rev_dnat(rx, pkt)?;
                self.encapsulate(rx, pkt, peer, identity::HOST, rx.direction())
            }
            Target::Exit(exit) => {
                self.fits(pkt, (&exit.port, exit.mtu), rx.direction())?;
                pkt.set_ttl(pkt.ttl() - 1);
                self.netdev_egress(rx, pkt, &exit, identity::HOST, Origin::Host)
            }
            // The kernel has no better idea.
            Target::Blackhole | Target::Unknown | Target::Host => Err(rx.drop(code::UNROUTABLE)),
        }
    }

    /// The host firewall on what comes for this machine (specification, 1.5 step 9).
    pub(crate) fn host_ingress(&mut self, rx: &mut Rx<'_>, pkt: &mut Packet, src_id: u32) -> Flow {
        if rx.port.role == Role::Host {
            return Ok(());
        }
        self.host_policy(rx, pkt, src_id, Direction::Ingress, None)
    }

    /// Gives what a backend answers to this machine, whatever address it used, the service's address.
    /// Whether the packet belongs to a flow.
    pub(crate) fn answer_host(&mut self, pkt: &mut Packet) -> bool {
        let Ok(tuple) = pkt.tuple() else { return false };
        let any = (Scope::Both, Filter::Any);
        let (status, entry) = self.ct.lookup(self.now, &tuple, Kind::In, any, pkt.tcp_flags());
        if status == Status::Reply && !entry.node_port && entry.rev_nat.is_some() {
            // An SCTP port that cannot be changed back leaves it as it is.
            let _ = self.rev_nat_of(pkt, &entry);
        }
        status != Status::New
    }

    /// The same from the network, where what the kernel has sent may come by again.
    fn is_of_flow(&mut self, pkt: &mut Packet) -> bool {
        if self.answer_host(pkt) {
            return true;
        }
        let Ok(tuple) = pkt.tuple() else { return false };
        let any = (Scope::Forward, Filter::Any);
        let (status, _) = self.ct.lookup(self.now, &tuple, Kind::Out, any, pkt.tcp_flags());
        status != Status::New
    }

    /// The host firewall on what begins no flow.
    pub(crate) fn asked_host(
        &self,
        rx: &mut Rx<'_>,
        pkt: &Packet,
        remote: u32,
        direction: Direction,
    ) -> Flow {
        if !self.host_firewall() {
            return Ok(());
        }
        let fail = |code| Stop::Drop(code, direction);
        let tuple = pkt.tuple().map_err(fail)?;
        let decision = self.policy(Subject::Host, direction, remote, pkt, &tuple);
        rx.out.verdicts.push(decision.event);
        decision.result.map_err(fail)?;
        Ok(())
    }

    /// The host firewall on what this machine sends.
    fn host_egress(&mut self, rx: &mut Rx<'_>, pkt: &mut Packet, rev_nat: Option<FrontendId>) -> Flow {
        let dst_id = self.identity(pkt.dst());
        self.host_policy(rx, pkt, dst_id, Direction::Egress, rev_nat)
    }

    /// What goes through a tunnel or to a service is a flow even without a host firewall.
    fn host_policy(
        &mut self,
        rx: &mut Rx<'_>,
        pkt: &mut Packet,
        remote: u32,
        direction: Direction,
        rev_nat: Option<FrontendId>,
    ) -> Flow {
        let firewall = self.host_firewall();
        let tunnel = match direction {
            Direction::Ingress => rx.tunnel.is_some(),
            Direction::Egress => self.tunnel_peer(pkt.dst(), false).is_some(),
        };
        let of_service = |tuple: Tuple| {
            let known = self.ct.get(&tuple.reversed(), Kind::Out);
            known.is_some_and(|known| known.rev_nat.is_some())
        };
        let served = rev_nat.is_some() || pkt.tuple().is_ok_and(of_service);
        if !firewall && !tunnel && !served {
            return Ok(());
        }
        // What is routed to the kernel and not its own address is tracked, and nobody's business (1.5 step 9).
        let guarded = direction == Direction::Egress || self.identity(pkt.dst()) == identity::HOST;
        let fail = |code| Stop::Drop(code, direction);
        let tuple = pkt.tuple().map_err(fail)?;
        let kind = match direction {
            Direction::Ingress => Kind::In,
            Direction::Egress => Kind::Out,
        };
        let flags = pkt.tcp_flags();
        // What answers a pod is nobody else's business.
        if direction == Direction::Egress && self.ct.get(&tuple.reversed(), Kind::Out).is_some() {
            return Ok(());
        }
        let scope = if rev_nat.is_some() {
            Scope::Forward
        } else {
            Scope::Both
        };
        let (status, known) = self
            .ct
            .lookup(self.now, &tuple, kind, (scope, Filter::Any), flags);
        if status == Status::Reply {
            return match direction {
                Direction::Ingress => self.rev_nat_of(pkt, &known).map_err(fail),
                Direction::Egress => Ok(()),
            };
        }
        let mut proxy = 0;
        if firewall && guarded {
            let decision = self.policy(Subject::Host, direction, remote, pkt, &tuple);
            let result = decision.result;
            if status == Status::New || result != Ok(0) || decision.event.audited {
                rx.out.verdicts.push(decision.event);
            }
            proxy = result.map_err(fail)?;
        }
        let entry = Entry {
            src_id: remote,
            proxy_redirect: proxy != 0,
            rev_nat,
            ..Entry::default()
        };
        if status == Status::New && !self.ct.create(self.now, &tuple, kind, entry, flags) {
            return Err(fail(code::CT_FULL));
        }
        Ok(())
    }

    /// Services for clients that are not pods here, and replies to them (specification, 3.6). Whether the packet was
    /// dealt with.
    pub(crate) fn nodeport_lb(&mut self, rx: &mut Rx<'_>, pkt: &mut Packet, src_id: u32) -> Flow<bool> {
        // What is for a service's address has to be readable, whatever else it is.
        if lb::is_frontend(&self.state, pkt.dst()) {
            let tuple = pkt.tuple().map_err(|code| rx.drop(code))?;
            // What answers a flow of this machine is no request.
            let known = self.ct.get(&tuple.reversed(), Kind::Out).is_some();
            if pkt.has_ports()
                && !known
                && let Some(found) = lb::find(&self.state, tuple.dst, tuple.dport, tuple.protocol)
            {
                return self.service(rx, pkt, &found, src_id);
            }
        }
        if pkt.has_ports()
            && let Ok(tuple) = pkt.tuple()
            && let Some(kept) = self.kept(&tuple)
            && let Some(front) = kept.entry.rev_nat.filter(|_| kept.entry.node_port)
        {
            return self.pass_to_backend(rx, pkt, front, kept.backend, (false, src_id));
        }
        if pkt.has_ports() && lb::is_frontend(&self.state, pkt.dst()) {
            let tuple = pkt.tuple().map_err(|code| rx.drop(code))?;
            if lb::wildcard(&self.state, tuple.dst) {
                return Err(rx.drop(code::NO_SERVICE));
            }
        }
        self.hear(rx, pkt)?;
        // What a route sends elsewhere is not this node's: its addresses are its own, or routed to its kernel.
        let passes = rx.tunnel.is_none() && matches!(self.target(pkt.dst()), Target::Exit(_));
        if passes || !self.rev_snat(rx, pkt)? {
            return Ok(false);
        }
        if let Some(peer) = self.egress_reply(pkt) {
            let world = self.world(pkt.v6);
            self.encapsulate(rx, pkt, peer, world, rx.direction())?;
            return Ok(true);
        }
        if self.nodeport_reply(rx, pkt)? {
            return Ok(true);
        }
        // A pod that has gone to another node goes on with what it began.
        if !matches!(
            self.target(pkt.dst()),
            Target::Endpoint(_) | Target::Own | Target::Gateway | Target::Host | Target::Blackhole
        ) && let Some(peer) = self.tunnel_peer(pkt.dst(), false)
        {
            self.encapsulate(rx, pkt, peer, src_id, rx.direction())?;
            return Ok(true);
        }
        Ok(false)
    }

    /// A request to a service (specification, 3.6 steps 2 to 4).
    fn service(&mut self, rx: &mut Rx<'_>, pkt: &mut Packet, found: &lb::Found, src_id: u32) -> Flow<bool> {
        let client = pkt.src();
        if !found.admits(client) {
            return Err(rx.drop(code::SOURCE_RANGE));
        }
        if !found.routable() {
            return Err(rx.drop(code::CLUSTER_IP));
        }
        if found.service.proxy_port != 0 {
            self.hand_to_proxy(rx, pkt, found.service.proxy_port, src_id)?;
            return Ok(true);
        }
        let tuple = pkt.tuple().map_err(|code| rx.drop(code))?;
        let (flags, syn) = (pkt.tcp_flags(), pkt.is_syn());
        let direction = rx.direction();
        let chosen = self
            .lb_local(&mut *rx.choices, found, &tuple, flags, syn, false)
            .map_err(|code| self.no_backend(code, direction))?;
        let backend = chosen.backend;
        let local = self.owner(backend.address).is_some() || self.is_own(backend.address);
        if found.kind == FrontendType::HostPort && !local {
            return Err(rx.drop(code::INVALID));
        }
        self.pass_to_backend(rx, pkt, found.id, backend, (self.is_direct(found), src_id))
    }

    /// Sends a request to a service on to its backend, which may answer its client directly.
    fn pass_to_backend(
        &mut self,
        rx: &mut Rx<'_>,
        pkt: &mut Packet,
        front: FrontendId,
        backend: BackendId,
        (directly, src_id): (bool, u32),
    ) -> Flow<bool> {
        let (flags, direction) = (pkt.tcp_flags(), rx.direction());
        let local = self.owner(backend.address).is_some() || self.is_own(backend.address);
        let request = pkt.clone();
        pkt.set_port(End::Destination, backend.port)
            .map_err(|code| rx.drop(code))?;
        pkt.set_addr(End::Destination, backend.address);
        let tuple = pkt.tuple().map_err(|code| rx.drop(code))?;
        let filter = (Scope::Forward, Filter::Service(front));
        let (status, known) = self.ct.lookup(self.now, &tuple, Kind::Out, filter, flags);
        let direct = !local
            && match status {
                Status::New => directly,
                _ => known.direct,
            };
        let entry = Entry {
            node_port: true,
            direct,
            rev_nat: Some(front),
            src_id: self.world(pkt.v6),
            ..Entry::default()
        };
        if status == Status::New && !self.ct.create(self.now, &tuple, Kind::Out, entry, flags) {
            return Err(rx.drop(code::CT_FULL));
        }
        if local {
            return Ok(false);
        }
        if direct {
            self.send_direct(rx, &request, pkt, src_id)?;
            return Ok(true);
        }
        let peer = self.tunnel_peer(backend.address, false);
        let Some(source) = self.service_source(pkt.v6, peer.is_some()) else {
            return Err(rx.drop(code::NAT_NO_MAPPING));
        };
        if let Some(peer) = peer {
            if pkt.ttl() <= 1 {
                return Err(Stop::Refuse(code::TTL, direction, Told::TimeExceeded));
            }
            self.snat(rx, pkt, source, false)?;
            pkt.set_ttl(pkt.ttl() - 1);
            self.encapsulate(rx, pkt, peer, src_id, direction)?;
        } else {
            let exit = self.exit(rx, pkt.dst())?;
            self.fits(pkt, (&exit.port, exit.mtu), direction)?;
            self.snat(rx, pkt, source, false)?;
            pkt.set_ttl(pkt.ttl() - 1);
            self.transmit(rx, pkt, &exit)?;
        }
        Ok(true)
    }

    /// The source that requests to backends on other nodes get (specification, 3.6 step 4). Link-local gateways are no
    /// use to other nodes.
    fn service_source(&self, v6: bool, tunnel: bool) -> Option<IpAddr> {
        let node = &self.state.node;
        let (router, masquerade): (Option<IpAddr>, Option<IpAddr>) = if v6 {
            (node.router6.map(IpAddr::V6), node.masquerade6.map(IpAddr::V6))
        } else {
            (node.router4.map(IpAddr::V4), node.masquerade4.map(IpAddr::V4))
        };
        let link_local = |addr: &IpAddr| match addr {
            IpAddr::V4(addr) => addr.is_link_local(),
            IpAddr::V6(addr) => addr.is_unicast_link_local(),
        };
        router
            .filter(|addr| tunnel && !link_local(addr))
            .or(masquerade)
            .or_else(|| {
                node.addresses
                    .iter()
                    .copied()
                    .find(|addr| addr.is_ipv6() == v6 && !link_local(addr))
            })
    }

    /// Where a packet leaves that must leave by an uplink.
    pub(crate) fn exit(&self, rx: &Rx<'_>, dst: IpAddr) -> Flow<Exit> {
        match self.route(dst) {
            Target::Exit(exit) => Ok(exit),
            _ => Err(rx.drop(code::NO_FIB)),
        }
    }

    /// A reply whose SNAT was undone: if it is to a client of a service, its way goes on from here (3.6 step 5).
    fn nodeport_reply(&mut self, rx: &mut Rx<'_>, pkt: &mut Packet) -> Flow<bool> {
        if !self.rev_dnat(rx, pkt)? {
            return Ok(false);
        }
        if let Some(peer) = self.tunnel_peer(pkt.dst(), false) {
            if pkt.ttl() <= 1 {
                return Err(Stop::Refuse(code::TTL, rx.direction(), Told::TimeExceeded));
            }
            pkt.set_ttl(pkt.ttl() - 1);
            let world = self.world(pkt.v6);
            self.encapsulate(rx, pkt, peer, world, rx.direction())?;
        } else {
            let exit = self.exit(rx, pkt.dst())?;
            self.fits(pkt, (&exit.port, exit.mtu), rx.direction())?;
            pkt.set_ttl(pkt.ttl() - 1);
            self.transmit(rx, pkt, &exit)?;
        }
        Ok(true)
    }

    /// Gives a reply of a backend the address that the client outside the cluster used (3.6 steps 5 and 6). Whether it
    /// was such a reply.
    pub(crate) fn rev_dnat(&mut self, rx: &Rx<'_>, pkt: &mut Packet) -> Flow<bool> {
        let tuple = match pkt.tuple() {
            Ok(tuple) => tuple,
            Err(_) if rx.port.role == Role::Host => return Ok(false),
            Err(code) => return Err(rx.drop(code)),
        };
        for filter in [Filter::NodePort, Filter::Dsr] {
            let (status, entry) = self.ct.lookup(
                self.now,
                &tuple,
                Kind::In,
                (Scope::Reverse, filter),
                pkt.tcp_flags(),
            );
            if status == Status::Reply {
                self.rev_nat_of(pkt, &entry)
                    .map_err(|code| Stop::Drop(code, Direction::Egress))?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The last steps before an uplink (specification, 1.6); the TTL was looked after.
    pub(crate) fn netdev_egress(
        &mut self,
        rx: &mut Rx<'_>,
        pkt: &mut Packet,
        exit: &Exit,
        src_id: u32,
        origin: Origin,
    ) -> Flow {
        let mut egress_ip = None;
        if let Origin::Pod { reply: false, dst_id } = origin {
            match self.egress_rule(pkt, dst_id)? {
                Redirect::None => {}
                Redirect::Here(addr) => egress_ip = Some(addr),
                Redirect::To(peer) => return self.to_gateway(rx, pkt, peer, src_id),
            }
        }
        if let Some(endpoint) = self.owner(pkt.src()).cloned()
            && matches!(origin, Origin::Pod { .. })
        {
            self.pace(rx, &endpoint)?;
        }
        let answered = self.rev_dnat(rx, pkt)?;
        match origin {
            _ if answered => {}
            Origin::Pod { reply: true, .. } => {}
            Origin::Pod { .. } => {
                if let Some(to) = egress_ip {
                    let to = to.ok_or(Stop::Drop(code::NO_EGRESS_IP, Direction::Egress))?;
                    self.snat(rx, pkt, to, false)?;
                } else if let Some(to) = self.masquerade(pkt) {
                    self.snat(rx, pkt, to, false)?;
                }
            }
            Origin::Host => self.reserve(rx, pkt)?,
        }
        self.transmit(rx, pkt, exit)
    }

    /// Keeps the port of a packet of this machine from being given to a pod's flow (specification, 2.4).
    fn reserve(&mut self, rx: &mut Rx<'_>, pkt: &mut Packet) -> Flow {
        let own = self.service_source(pkt.v6, false);
        let src = pkt.src();
        let Ok(tuple) = pkt.tuple() else { return Ok(()) };
        let reserved =
            pkt.has_ports() && tuple.sport > self.state.node.nodeport_max || pkt.echo() == Some(false);
        if own != Some(src) || !reserved || pkt.is_icmp() && pkt.fragment.is_some() {
            return Ok(());
        }
        self.snat(rx, pkt, src, true)
    }
}
