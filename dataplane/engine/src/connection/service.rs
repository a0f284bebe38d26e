//! Services: which backend a new connection goes to (specification, 1.2 step 9, 3.2, 3.3, 3.6, 3.7).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use octoplane_flow::{FlowRef, Tuple};
use octoplane_packet::BufPool;
use octoplane_packet::headers::protocol;
use octoplane_tables::model::{Algorithm, BackendState, FrontendType, NoBackend};
use octoplane_tables::services::maglev::{Seed, hash4, hash6};
use octoplane_tables::{Action as Way, Backend, Frontend, Snapshot};

use super::affinity::refresh;
use super::masquerade::REMOTE_NODE;
use super::packet::begins;
use super::{Answers, Packet, Sender, Upper, remote};
use crate::drop_reason::DropReason;
use crate::engine::{Core, Rx};
use crate::icmp::Error;
use crate::observe::{Choice, Step};
use crate::verdict::Verdict;

/// Where an endpoint that is its own backend seems to hear from.
const LOOPBACK4: Ipv4Addr = Ipv4Addr::new(169, 254, 42, 1);
const LOOPBACK6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Whether this is the address that endpoints see when they reach themselves through a service.
pub(crate) fn is_loopback_address(addr: IpAddr) -> bool {
    addr == IpAddr::V4(LOOPBACK4) || addr == IpAddr::V6(LOOPBACK6)
}

/// Whether packets to this address and port are a service's.
pub(crate) fn is_served(snapshot: &Snapshot, tuple: &Tuple) -> bool {
    // Of other protocols nothing is a service's, not even at its address (3.6 step 1).
    matches!(tuple.protocol(), protocol::TCP | protocol::UDP | protocol::SCTP)
        && (frontend(snapshot, tuple).is_some() || wildcard(snapshot, tuple))
}

fn frontend<'a>(snapshot: &'a Snapshot, tuple: &Tuple) -> Option<&'a Frontend> {
    match tuple.dst() {
        IpAddr::V4(dst) => snapshot.frontend4(dst.to_bits(), tuple.dport(), tuple.protocol()),
        IpAddr::V6(dst) => snapshot.frontend6(dst.to_bits(), tuple.dport(), tuple.protocol()),
    }
}

/// The NodePort service that an endpoint means with another node's address: it is served from here (1.2 step 9 c).
fn another_nodes<'a>(snapshot: &'a Snapshot, tuple: &Tuple) -> Option<&'a Frontend> {
    let node = snapshot.node();
    if !node.is_nodeport(tuple.dport()) || remote(snapshot, tuple.dst()).identity != REMOTE_NODE {
        return None;
    }
    let ours = match tuple.is_v6() {
        false => IpAddr::V4(node.nodeport4?),
        true => IpAddr::V6(node.nodeport6?),
    };
    let here = Tuple::new(
        tuple.src(),
        ours,
        tuple.sport(),
        tuple.dport(),
        tuple.protocol(),
        tuple.zone(),
    );
    frontend(snapshot, &here).filter(|frontend| frontend.kind == FrontendType::NodePort)
}

/// Of packets that a service could be for (3.6 step 1).
fn wildcard(snapshot: &Snapshot, tuple: &Tuple) -> bool {
    if !matches!(tuple.protocol(), protocol::TCP | protocol::UDP | protocol::SCTP) {
        return false;
    }
    match tuple.dst() {
        IpAddr::V4(dst) => snapshot.wildcard4(dst.to_bits()),
        IpAddr::V6(dst) => snapshot.wildcard6(dst.to_bits()),
    }
}

impl<P: BufPool> Core<P> {
    /// What the first packet of a connection becomes: itself, or a packet to a backend if it is for a service; and whether
    /// who answers it: where the backend is on another node and the client is not ours, not somebody here. `before`: what
    /// the connection left as until it closed.
    pub(super) fn serve(
        &mut self,
        rx: &Rx<'_>,
        packet: &Packet,
        sender: Sender,
        before: Option<Tuple>,
    ) -> Result<(Tuple, Answers), Verdict> {
        let tuple = packet.tuple;
        if !matches!(packet.upper, Upper::Tcp(_) | Upper::Udp | Upper::Sctp) {
            return Ok((tuple, Answers::Here));
        }
        let inside = sender.is_inside();
        let elsewhere = || match sender.endpoint != 0 {
            true => another_nodes(rx.snapshot, &tuple),
            false => None,
        };
        let Some(frontend) = frontend(rx.snapshot, &tuple).or_else(elsewhere) else {
            // Endpoints look for exact frontends only (3.2).
            return if !inside && wildcard(rx.snapshot, &tuple) {
                Err(Verdict::Drop(DropReason::NoBackend))
            } else {
                Ok((tuple, Answers::Here))
            };
        };
        let set = match inside {
            true => &frontend.internal,
            false => &frontend.external,
        };
        // The choice outlives the connection that it was made for (3.3).
        let chosen = before
            .and_then(|out| set.at(out.dst(), out.dport()))
            .filter(|backend| backend.state == BackendState::Active);
        let affine = chosen.or_else(|| self.affine(rx, &tuple, frontend, inside));
        let with = affine.is_some();
        let backend = if inside {
            let random = self.choice();
            affine.or_else(|| frontend.internal.pick_random(random))
        } else {
            if let Some(ranges) = &frontend.source_ranges
                && !ranges.admits(tuple.src())
            {
                self.note(|| considered(frontend, inside, None));
                return Err(Verdict::Drop(DropReason::NotInSourceRange));
            }
            if !frontend.routable {
                self.note(|| considered(frontend, inside, None));
                return Err(Verdict::Drop(DropReason::IsClusterIp));
            }
            let random = self.choice();
            affine.or_else(|| match frontend.algorithm {
                Algorithm::Maglev => frontend.external.pick_maglev(flow_hash(&tuple, frontend)),
                Algorithm::Random => frontend.external.pick_random(random),
            })
        };
        let backend = backend.copied();
        self.note(|| {
            let choice = match (with, inside, frontend.algorithm) {
                (true, _, _) => Choice::Affinity,
                (false, false, Algorithm::Maglev) => Choice::Maglev,
                (false, _, _) => Choice::Random,
            };
            considered(frontend, inside, backend.map(|backend| (backend, choice)))
        });
        let Some(backend) = backend else {
            return Err(match rx.snapshot.node().no_backend {
                NoBackend::Reject => Verdict::Refuse(DropReason::NoBackend, Error::PortUnreachable),
                NoBackend::Drop => Verdict::Drop(DropReason::NoBackend),
            });
        };
        let Backend { addr, port, .. } = backend;
        let elsewhere = || !is_local(rx.snapshot, addr) && !is_own(rx.snapshot, addr);
        if !inside && frontend.kind == FrontendType::HostPort && elsewhere() {
            // A port of this machine leads to nobody on another one (3.6 step 2).
            return Err(Verdict::Drop(DropReason::InvalidPacket));
        }
        if frontend.affinity_seconds > 0 {
            self.stay(rx, &tuple, frontend, &backend);
        }
        // Only who is here can reach itself (1.2 step 9 f); others stay who they are (3.6 step 3).
        let src = match (inside && addr == tuple.src(), addr) {
            (true, IpAddr::V4(_)) => LOOPBACK4.into(),
            (true, IpAddr::V6(_)) => LOOPBACK6.into(),
            (false, _) => tuple.src(),
        };
        let out = Tuple::new(src, addr, tuple.sport(), port, tuple.protocol(), tuple.zone());
        let forwarding = frontend
            .forwarding
            .unwrap_or_else(|| rx.snapshot.node().forwarding);
        let answers = match !inside && !is_local(rx.snapshot, addr) {
            false => Answers::Here,
            true if forwarding.is_direct(frontend.protocol) && !is_own(rx.snapshot, addr) => {
                Answers::Directly
            }
            // A backend on another node has to answer through us (3.6 step 4).
            true => Answers::ByUs,
        };
        Ok((out, answers))
    }

    /// Whether a connection to a service needs another backend: its own is the service's no more, or does not take new
    /// connections and this begins one (3.3). Without the service it goes on where it is.
    pub(super) fn has_to_move(&self, rx: &Rx<'_>, packet: &Packet, flow: FlowRef, sender: Sender) -> bool {
        if !flow.is_forward() {
            return false;
        }
        let out = self.outgoing(flow);
        if out.dst() == packet.tuple.dst() && out.dport() == packet.tuple.dport() {
            // It began before there was a service where it goes, which is looked for with every packet (1.2 step 9, 3.6).
            let ports = matches!(packet.upper, Upper::Tcp(_) | Upper::Udp | Upper::Sctp);
            let wild = || !sender.is_inside() && wildcard(rx.snapshot, &packet.tuple);
            return ports && (frontend(rx.snapshot, &packet.tuple).is_some() || wild());
        }
        frontend(rx.snapshot, &packet.tuple).is_some_and(|frontend| {
            let set = match sender.is_inside() {
                true => &frontend.internal,
                false => &frontend.external,
            };
            set.at(out.dst(), out.dport())
                .is_none_or(|backend| begins(packet.upper) && backend.state != BackendState::Active)
        })
    }

    /// Whether a connection goes to the backend of a service that the node may answer for at addresses which are not its own
    /// (1.2 step 9 c): what changes then for the service's addresses is not seen from the connection's.
    pub(super) fn is_served_elsewhere(
        &self,
        rx: &Rx<'_>,
        packet: &Packet,
        out: &Tuple,
        sender: Sender,
    ) -> bool {
        sender.is_inside()
            && out.dst() != packet.tuple.dst()
            && rx.snapshot.node().is_nodeport(packet.tuple.dport())
    }

    /// Whether a connection's packets, which leave as `out`, prolong their client's stay with the backend. If so, this one does.
    pub(super) fn prolong(&self, rx: &Rx<'_>, packet: &Packet, out: &Tuple) -> bool {
        let affine = out.dst() != packet.tuple.dst()
            && frontend(rx.snapshot, &packet.tuple).is_some_and(|frontend| frontend.affinity_seconds > 0);
        if affine {
            refresh(&self.affinities, &packet.tuple, rx.second);
        }
        affine
    }
}

/// A choice of a backend, to tell of it.
fn considered(frontend: &Frontend, inside: bool, chosen: Option<(Backend, Choice)>) -> Step {
    let set = match inside {
        true => &frontend.internal,
        false => &frontend.external,
    };
    Step::Service {
        name: frontend.service.to_string(),
        addr: (frontend.addr, frontend.port),
        kind: frontend.kind,
        inside,
        chosen,
        backends: set.slots().to_vec(),
        usable: set.count as usize,
    }
}

/// Whether a packet that leaves as `out` is one of a connection between a client outside of the cluster and a backend on another
/// node: this one sends it on.
pub(super) fn goes_on(rx: &Rx<'_>, packet: &Packet, out: &Tuple, flow: FlowRef, sender: Sender) -> bool {
    let (from, to) = (packet.tuple.src() != out.src(), packet.tuple.dst() != out.dst());
    match flow.is_forward() {
        true => {
            to && !sender.is_inside() && !is_local(rx.snapshot, out.dst()) && !is_own(rx.snapshot, out.dst())
        }
        false => to && from && sender.endpoint == 0 && !is_local(rx.snapshot, out.dst()),
    }
}

/// Whether an address is the node's.
fn is_own(snapshot: &Snapshot, addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => snapshot.node().own4(addr.to_bits()),
        IpAddr::V6(addr) => snapshot.node().own6(addr.to_bits()),
    }
}

/// Whether an address is an endpoint's of this node.
pub(super) fn is_local(snapshot: &Snapshot, addr: IpAddr) -> bool {
    let target = match addr {
        IpAddr::V4(addr) => snapshot.route4(addr.to_bits()),
        IpAddr::V6(addr) => snapshot.route6(addr.to_bits()),
    };
    target.action == Way::Deliver
}

/// A packet for a service that another node's load balancer has sent to this backend: to the backend's port, which is the
/// service's own where the service is not known here.
pub(super) fn to_backend(snapshot: &Snapshot, tuple: &Tuple, backend: IpAddr) -> Tuple {
    let known = frontend(snapshot, tuple).and_then(|frontend| frontend.external.of(backend));
    Tuple::new(
        tuple.src(),
        backend,
        tuple.sport(),
        known.map_or_else(|| tuple.dport(), |known| known.port),
        tuple.protocol(),
        tuple.zone(),
    )
}

/// A packet to one of the backends of the service that a packet is for.
pub(super) fn any_backend(snapshot: &Snapshot, tuple: &Tuple, sender: Sender) -> Option<Tuple> {
    let frontend = frontend(snapshot, tuple)?;
    let set = match sender.is_inside() {
        true => &frontend.internal,
        false => &frontend.external,
    };
    let backend = set.slots().first()?;
    Some(Tuple::new(
        tuple.src(),
        backend.addr,
        tuple.sport(),
        backend.port,
        tuple.protocol(),
        tuple.zone(),
    ))
}

/// The Maglev hash of a connection (3.4).
fn flow_hash(tuple: &Tuple, frontend: &Frontend) -> u32 {
    let sport = if frontend.affinity_seconds > 0 {
        0
    } else {
        tuple.sport()
    };
    match tuple.src() {
        IpAddr::V4(src) => hash4(
            src.to_bits(),
            sport,
            tuple.dport(),
            tuple.protocol(),
            Seed::DEFAULT,
        ),
        IpAddr::V6(src) => hash6(
            src.to_bits(),
            sport,
            tuple.dport(),
            tuple.protocol(),
            Seed::DEFAULT,
        ),
    }
}
