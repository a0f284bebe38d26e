//! What leaves and enters a pod (specification, 1.2 to 1.4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::{Direction, Endpoint, FrontendType, NoBackend, Role, Routing, Subject};
use crate::conntrack::{Entry, Filter, Kind, Scope, Status};
use crate::egress::Redirect;
use crate::fib::{Target, identity};
use crate::lb::{self, BackendId, FrontendId};
use crate::model::{Model, Rx};
use crate::netdev::Origin;
use crate::outcome::{Flow, Stop, Told, code};
use crate::wire::{End, Packet, Tuple, UDP};

/// What per-packet load balancing leaves behind (specification, 1.2 step 9 h).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Balanced {
    pub(crate) rev_nat: Option<FrontendId>,
    loopback: bool,
    proxy: u16,
    nat: Option<(IpAddr, u16)>,
}

impl Model {
    /// What there is to say about a service without backends (specification, 3.7).
    pub(crate) fn no_backend(&self, code: u16, direction: Direction) -> Stop {
        if code == code::NO_SERVICE && self.state.node.no_backend == NoBackend::Reject {
            Stop::Refuse(code, direction, Told::PortUnreachable)
        } else {
            Stop::Drop(code, direction)
        }
    }

    /// Per-packet load balancing (specification, 1.2 step 9).
    pub(crate) fn balance(&mut self, rx: &mut Rx<'_>, pkt: &mut Packet) -> Flow<Balanced> {
        let mut done = Balanced::default();
        if !pkt.has_ports() {
            return Ok(done);
        }
        let tuple = match pkt.tuple() {
            Ok(tuple) => tuple,
            // What the kernel sends need not be readable.
            Err(_) if rx.port.role == Role::Host => return Ok(done),
            Err(code) => return Err(rx.drop(code)),
        };
        // What answers a flow is no request.
        if self.ct.get(&tuple.reversed(), Kind::In).is_some() {
            return Ok(done);
        }
        let mut found = lb::find(&self.state, tuple.dst, tuple.dport, tuple.protocol);
        if found.is_none()
            && let Some(kept) = self.kept(&tuple)
        {
            done.rev_nat = kept.entry.rev_nat;
            done.nat = kept.entry.nat;
            self.send_to(rx, pkt, &tuple, kept.backend, &mut done)?;
            return Ok(done);
        }
        if found.is_none() && rx.port.role == Role::Pod && self.ct.get(&tuple, Kind::Out).is_none() {
            let node = &self.state.node;
            let remote = self
                .ipcache(tuple.dst)
                .is_some_and(|entry| identity::is_remote_node(entry.identity));
            // Without an address of its own, the node has no ports.
            let own = match node.nodeport_addresses.is_empty() {
                true => &node.addresses,
                false => &node.nodeport_addresses,
            };
            let own = own.iter().any(|addr| addr.is_ipv6() == pkt.v6);
            if own && remote && (node.nodeport_min..=node.nodeport_max).contains(&tuple.dport) {
                let any: IpAddr = if pkt.v6 {
                    Ipv6Addr::UNSPECIFIED.into()
                } else {
                    Ipv4Addr::UNSPECIFIED.into()
                };
                found = lb::find(&self.state, any, tuple.dport, tuple.protocol)
                    .filter(|found| found.kind == FrontendType::NodePort);
                done.nat = found.as_ref().map(|_| (tuple.dst, tuple.dport));
            }
        }
        let Some(found) = found.map(lb::Found::internal) else {
            return Ok(done);
        };
        if found.service.proxy_port != 0 {
            done.proxy = found.service.proxy_port;
            return Ok(done);
        }
        let chosen = self
            .lb_local(
                &mut *rx.choices,
                &found,
                &tuple,
                pkt.tcp_flags(),
                pkt.is_syn(),
                true,
            )
            .map_err(|code| self.no_backend(code, Direction::Egress))?;
        done.rev_nat = Some(found.id);
        self.send_to(rx, pkt, &tuple, chosen.backend, &mut done)?;
        Ok(done)
    }

    /// Makes a backend the packet's destination.
    fn send_to(
        &self,
        rx: &Rx<'_>,
        pkt: &mut Packet,
        tuple: &Tuple,
        backend: BackendId,
        done: &mut Balanced,
    ) -> Flow {
        pkt.set_port(End::Destination, backend.port)
            .map_err(|code| rx.drop(code))?;
        pkt.set_addr(End::Destination, backend.address);
        if backend.address == tuple.src {
            done.loopback = true;
            pkt.set_addr(End::Source, lb::loopback(tuple.src));
        }
        Ok(())
    }

    /// A packet from a pod.
    pub(crate) fn pod_egress(&mut self, rx: &mut Rx<'_>, pkt: &mut Packet) -> Flow {
        let fail = |code| Stop::Drop(code, Direction::Egress);
        let Some(endpoint) = self.owner(pkt.src()).cloned() else {
            return Err(fail(code::INVALID_SOURCE));
        };
        let kernel = self.ports.iter().any(|port| port.role == Role::Host);
        match self.target(pkt.dst()) {
            target @ (Target::Gateway | Target::Own) if !self.is_known(pkt) => {
                let gateway = matches!(target, Target::Gateway);
                if gateway || !kernel {
                    return self.ends_here(rx, pkt, gateway);
                }
            }
            _ => {}
        }
        pkt.tuple().map_err(fail)?;
        let lb = self.balance(rx, pkt)?;
        let tuple = pkt.tuple().map_err(fail)?;
        let flags = pkt.tcp_flags();
        let scope = if lb.rev_nat.is_some() || lb.proxy != 0 {
            Scope::Forward
        } else {
            Scope::Both
        };
        let (status, entry) = self
            .ct
            .lookup(self.now, &tuple, Kind::Out, (scope, Filter::Any), flags);
        let dst_id = self.identity(tuple.dst);
        let mut proxy = lb.proxy;
        let mut answers_itself = false;
        match status {
            Status::New | Status::Established => {
                if lb.proxy == 0 && !lb.loopback {
                    proxy = self.egress_policy(rx, pkt, &tuple, &endpoint, Some(status))?;
                }
                let new = Entry {
                    src_id: endpoint.identity,
                    rev_nat: lb.rev_nat,
                    loopback: lb.loopback,
                    proxy_redirect: proxy != 0,
                    nat: lb.nat,
                    ..Entry::default()
                };
                let changed = entry.rev_nat != lb.rev_nat || entry.proxy_redirect != (proxy != 0);
                if (status == Status::New || changed)
                    && !self.ct.create(self.now, &tuple, Kind::Out, new, flags)
                {
                    return Err(fail(code::CT_FULL));
                }
            }
            Status::Reply => {
                if entry.proxy_redirect {
                    return self.hand_to_proxy(rx, pkt, 0, endpoint.identity);
                }
                answers_itself = entry.loopback;
            }
        }
        if proxy != 0 {
            return self.hand_to_proxy(rx, pkt, proxy, endpoint.identity);
        }
        if answers_itself {
            return self.local_delivery(rx, pkt, &endpoint, endpoint.identity, false);
        }
        self.nat.given = status == Status::Reply;
        self.pod_forward(rx, pkt, &endpoint, dst_id, status, &entry)?;
        self.forget_unused(&tuple);
        Ok(())
    }

    /// Whether a packet belongs to a flow, or is for a service.
    fn is_known(&self, pkt: &Packet) -> bool {
        let Ok(tuple) = pkt.tuple() else { return false };
        let flow =
            self.ct.get(&tuple.reversed(), Kind::In).is_some() || self.ct.get(&tuple, Kind::Out).is_some();
        let service = pkt.has_ports()
            && (lb::find(&self.state, tuple.dst, tuple.dport, tuple.protocol).is_some()
                || lb::wildcard(&self.state, tuple.dst));
        flow || service
    }

    /// A packet to one of our own addresses that no kernel is there for, or to the gateway: a ping is answered here, and no
    /// flow begins.
    fn ends_here(&mut self, rx: &mut Rx<'_>, pkt: &Packet, gateway: bool) -> Flow {
        let src_id = self.asked(rx, pkt)?;
        self.asked_host(rx, pkt, src_id, Direction::Ingress)?;
        self.ours(rx, pkt, gateway, src_id)
    }

    /// The sender's policy (specification, 1.2 step 12). Returns the port of the proxy to go through, or 0.
    pub(crate) fn egress_policy(
        &self,
        rx: &mut Rx<'_>,
        pkt: &Packet,
        tuple: &Tuple,
        endpoint: &Endpoint,
        status: Option<Status>,
    ) -> Flow<u16> {
        let fail = |code| Stop::Drop(code, Direction::Egress);
        let node = &self.state.node;
        if node.routing == Routing::Tunnel
            && tuple.protocol == UDP
            && tuple.dport == node.tunnel.udp_port()
            && endpoint.identity != identity::HOST
        {
            return Err(fail(code::ENCAP_PROHIBITED));
        }
        let dst_id = self.identity(tuple.dst);
        let subject = Subject::Endpoint(endpoint.id);
        let decision = self.policy(subject, Direction::Egress, dst_id, pkt, tuple);
        let result = decision.result;
        if status != Some(Status::Established) || result != Ok(0) || decision.event.audited {
            rx.out.verdicts.push(decision.event);
        }
        result.map_err(|code| {
            let denied = matches!(code, code::POLICY | code::POLICY_DENY);
            if denied && node.policy_deny_response {
                Stop::Refuse(code, Direction::Egress, Told::Prohibited)
            } else {
                fail(code)
            }
        })
    }

    /// Where a pod's packet goes (specification, 1.2 step 14).
    fn pod_forward(
        &mut self,
        rx: &mut Rx<'_>,
        pkt: &mut Packet,
        endpoint: &Endpoint,
        dst_id: u32,
        status: Status,
        entry: &Entry,
    ) -> Flow {
        let src_id = endpoint.identity;
        let target = self.target(pkt.dst());
        if let Target::Endpoint(other) = &target {
            return self.local_delivery(rx, pkt, other, src_id, false);
        }
        if matches!(target, Target::Gateway | Target::Own) {
            self.rev_dnat(rx, pkt)?;
            self.host_ingress(rx, pkt, src_id)?;
            return self.ours(rx, pkt, matches!(target, Target::Gateway), src_id);
        }
        let origin = Origin::Pod {
            reply: status == Status::Reply,
            dst_id,
        };
        if status == Status::Reply && !self.rev_dnat(rx, pkt)? {
            self.answer_host(pkt);
        }
        if let Some(peer) = self.tunnel_peer(pkt.dst(), entry.from_tunnel) {
            self.pace(rx, endpoint)?;
            self.rev_dnat(rx, pkt)?;
            return self.encapsulate(rx, pkt, peer, src_id, Direction::Egress);
        }
        match target {
            Target::Exit(exit) => {
                if status != Status::Reply
                    && exit.port.admin_up
                    && let Ok(Redirect::To(peer)) = self.egress_rule(pkt, dst_id)
                {
                    self.pace(rx, endpoint)?;
                    return self.to_gateway(rx, pkt, peer, src_id);
                }
                self.fits(pkt, (&exit.port, exit.mtu), Direction::Egress)?;
                pkt.set_ttl(pkt.ttl() - 1);
                self.netdev_egress(rx, pkt, &exit, src_id, origin)
            }
            Target::Blackhole => Err(rx.drop(code::UNROUTABLE)),
            Target::Unknown => {
                // Not around the egress gateway by way of the kernel.
                if status != Status::Reply {
                    match self.egress_rule(pkt, dst_id)? {
                        Redirect::None => {}
                        Redirect::Here(to) => {
                            let to = to.ok_or(Stop::Drop(code::NO_EGRESS_IP, Direction::Egress))?;
                            self.snat(rx, pkt, to, false)?;
                        }
                        Redirect::To(peer) => return self.to_gateway(rx, pkt, peer, src_id),
                    }
                }
                self.rev_dnat(rx, pkt)?;
                self.answer_host(pkt);
                let frame = self.reframe(rx, pkt);
                self.punt(rx, frame, src_id, code::UNROUTABLE)
            }
            _ => {
                self.rev_dnat(rx, pkt)?;
                self.answer_host(pkt);
                let frame = self.reframe(rx, pkt);
                self.punt(rx, frame, src_id, code::UNROUTABLE)
            }
        }
    }

    /// Hands a packet to a local endpoint (specification, 1.4).
    pub(crate) fn local_delivery(
        &mut self,
        rx: &mut Rx<'_>,
        pkt: &mut Packet,
        endpoint: &Endpoint,
        src_id: u32,
        from_tunnel: bool,
    ) -> Flow {
        let Some(port) = self.ports.iter().find(|port| port.name == endpoint.port).cloned() else {
            return Err(rx.drop(code::NO_DEVICE));
        };
        if let Err(stop) = self.fits(pkt, (&port, port.mtu), rx.direction()) {
            // It was heard all the same.
            if let Ok(tuple) = pkt.tuple() {
                let any = (Scope::Both, Filter::Any);
                self.ct.lookup(self.now, &tuple, Kind::In, any, pkt.tcp_flags());
            }
            return Err(stop);
        }
        pkt.set_ttl(pkt.ttl() - 1);
        self.pod_ingress(rx, pkt, endpoint, src_id, from_tunnel)?;
        self.send(rx, pkt, &port, endpoint.mac, port.mtu);
        Ok(())
    }

    /// Conntrack, reverse NAT and policy of what enters a pod (specification, 1.3).
    fn pod_ingress(
        &mut self,
        rx: &mut Rx<'_>,
        pkt: &mut Packet,
        endpoint: &Endpoint,
        src_id: u32,
        from_tunnel: bool,
    ) -> Flow {
        let fail = |code| Stop::Drop(code, Direction::Ingress);
        let tuple = pkt.tuple().map_err(fail)?;
        let flags = pkt.tcp_flags();
        let (status, entry) = self
            .ct
            .lookup(self.now, &tuple, Kind::In, (Scope::Both, Filter::Any), flags);
        if status == Status::Reply {
            if entry.proxy_redirect {
                self.hand_to_proxy(rx, pkt, 0, src_id)?;
                return Err(Stop::Done);
            }
            return self.rev_nat_of(pkt, &entry).map_err(fail);
        }
        let returned = tuple.src == lb::loopback(tuple.src)
            && self.ct.get(&tuple, Kind::Out).is_some_and(|entry| entry.loopback);
        let loopback = returned || status == Status::Established && entry.loopback;
        let mut proxy = 0;
        if !loopback {
            let subject = Subject::Endpoint(endpoint.id);
            let decision = self.policy(subject, Direction::Ingress, src_id, pkt, &tuple);
            let result = decision.result;
            if status == Status::New || result != Ok(0) || decision.event.audited {
                rx.out.verdicts.push(decision.event);
            }
            proxy = result.map_err(fail)?;
        }
        if status == Status::New {
            let new = Entry {
                src_id,
                from_tunnel,
                proxy_redirect: proxy != 0,
                loopback,
                ..Entry::default()
            };
            if !self.ct.create(self.now, &tuple, Kind::In, new, flags) {
                return Err(fail(code::CT_FULL));
            }
        }
        if proxy != 0 {
            self.hand_to_proxy(rx, pkt, proxy, src_id)?;
            return Err(Stop::Done);
        }
        Ok(())
    }

    /// Gives a reply the address its request went to (specification, 3.5).
    pub(crate) fn rev_nat_of(&self, pkt: &mut Packet, entry: &Entry) -> Result<(), u16> {
        let Some((addr, port)) = entry
            .nat
            .or_else(|| entry.rev_nat.map(|id| (id.address, id.port)))
        else {
            return Ok(());
        };
        let old = pkt.src();
        if pkt.has_ports() {
            pkt.set_port(End::Source, port)?;
        }
        pkt.set_addr(End::Source, addr);
        if entry.loopback {
            pkt.set_addr(End::Destination, old);
        }
        Ok(())
    }
}
