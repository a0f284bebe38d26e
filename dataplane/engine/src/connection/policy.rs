//! Who may talk to whom (specification, 1.2 step 12, 1.3 step 4, 1.5 step 9, 2.6).

use octoplane_flow::{FlowRef, Tuple};
use octoplane_packet::BufPool;
use octoplane_tables::model::{AuthKey, HOST_ENDPOINT, Role, Routing};
use octoplane_tables::{Action as Way, Decision, EndpointPolicy, Snapshot, Verdict as Decided, identity};

use super::place::Place;
use super::service::is_loopback_address;
use super::state::{Action, FROM_TUNNEL};
use super::{Packet, Sender, Upper, remote};
use crate::drop_reason::DropReason;
use crate::engine::{Core, Rx};
use crate::icmp::Error;
use crate::observe::PolicyVerdict;
use crate::verdict::Verdict;

/// A policy that is asked.
struct Asked<'a> {
    /// Whose it is.
    endpoint: u32,
    /// What it says; `None`: everything is allowed.
    policy: Option<&'a EndpointPolicy>,
    egress: bool,
    local: u32,
    remote: u32,
}

impl<'a> Asked<'a> {
    /// The policy of an endpoint, or of the node if it has one.
    fn of(snapshot: &'a Snapshot, endpoint: u32) -> Option<Self> {
        let policy = snapshot.policy(endpoint);
        (policy.is_some() || endpoint != HOST_ENDPOINT).then_some(Self {
            endpoint,
            policy,
            egress: false,
            local: 0,
            remote: 0,
        })
    }

    /// The policy of who receives what goes to `place`, an endpoint or the node, about what this sender sends.
    fn receiver(snapshot: &'a Snapshot, place: &Place<'_>, sender: Sender) -> Option<Self> {
        let target = place.target;
        let (to, local) = match target.action {
            Way::Deliver => (target.endpoint, target.identity),
            // What the node says to itself is not asked about twice.
            Way::Local | Way::Host | Way::Gateway if !is_node(sender) && is_own(place) => {
                (HOST_ENDPOINT, identity::HOST)
            }
            _ => return None,
        };
        Some(Self {
            local,
            remote: sender.identity,
            ..Self::of(snapshot, to)?
        })
    }
}

/// Whether the node itself sends, and no endpoint.
fn is_node(sender: Sender) -> bool {
    sender.endpoint == 0 && sender.identity == identity::HOST
}

/// What policies call the port of a packet that leaves as `out`.
fn port_of(packet: &Packet, out: &Tuple) -> u16 {
    match packet.upper {
        Upper::Tcp(_) | Upper::Udp | Upper::Sctp => out.dport(),
        _ => packet.port,
    }
}

impl<P: BufPool> Core<P> {
    /// Whether policy lets the sender send `packet`, which leaves as `out`: that of the sending endpoint, then that of the
    /// receiving one. The node itself has a policy as endpoints have. Returns the port of the proxy on this node that the
    /// packet has to go through, or 0. `place` is where it goes; `first`: whether the packet begins a connection.
    pub(super) fn allowed(
        &self,
        rx: &Rx<'_>,
        packet: &Packet,
        (out, place): (&Tuple, &Place<'_>),
        sender: Sender,
        first: bool,
    ) -> Result<u16, Verdict> {
        let snapshot = rx.snapshot;
        // An endpoint that reaches itself through a service is not asked; nor is what path-MTU discovery needs (2.6 step 1). Who
        // says that this was its address is no such endpoint (1.3 step 4).
        let itself = is_loopback_address(out.src()) && out.src() != packet.tuple.src();
        if itself || packet.upper == Upper::TooBig {
            return Ok(0);
        }
        let port = port_of(packet, out);
        let node = snapshot.node();
        let mut proxy = 0;
        let from = match sender.endpoint {
            0 => is_node(sender).then_some(HOST_ENDPOINT),
            endpoint => Some(endpoint),
        };
        if let Some(from) = from {
            let tunnelled = node.routing == Routing::Tunnel && packet.upper == Upper::Udp;
            if from != HOST_ENDPOINT && tunnelled && port == node.tunnel.port {
                return Err(Verdict::Drop(DropReason::EncapProhibited));
            }
            if let Some(asked) = Asked::of(snapshot, from) {
                let asked = Asked {
                    egress: true,
                    local: sender.identity,
                    remote: place.remote().identity,
                    ..asked
                };
                proxy = self.ask(rx, &asked, out, port, first).map_err(|reason| {
                    let told = node.policy_deny_response
                        && matches!(reason, DropReason::PolicyDenied | DropReason::PolicyDenylist);
                    match told && from != HOST_ENDPOINT {
                        true => Verdict::Refuse(reason, Error::Prohibited),
                        false => Verdict::Drop(reason),
                    }
                })?;
            }
        }
        if let Some(asked) = Asked::receiver(snapshot, place, sender) {
            let ingress = self.ask(rx, &asked, out, port, first).map_err(Verdict::Drop)?;
            if ingress != 0 {
                proxy = ingress;
            }
        }
        Ok(proxy)
    }

    /// Whether the receiver's policy, an endpoint's or the node's, lets it have what answers a connection that somebody else has
    /// begun in its name: that is none of its own (specification, 1.3 step 1, 1.5 step 9).
    pub(super) fn receiver_allows(
        &self,
        rx: &Rx<'_>,
        packet: &Packet,
        flow: FlowRef,
        sender: Sender,
    ) -> Result<(), Verdict> {
        let snapshot = rx.snapshot;
        let begun = self.flows.table().half(flow.other());
        // Who began what another process has left behind is not known.
        let known = begun
            .map(|half| Action::of(&half))
            .filter(|begun| *begun != Action::default());
        let by_others = known.is_some_and(|Action { port, .. }| {
            let view = snapshot.port(port);
            port == FROM_TUNNEL || view.is_some_and(|view| view.role == Role::Uplink)
        });
        if !by_others || packet.upper == Upper::TooBig {
            return Ok(());
        }
        let out = self.outgoing(flow);
        if out.dst() != packet.tuple.dst() {
            // It has left under the node's address, which remembers it (2.4).
            return Ok(());
        }
        let Some(asked) = Asked::receiver(snapshot, &Place::of(snapshot, out.dst()), sender) else {
            return Ok(());
        };
        let allowed = self.ask(rx, &asked, &out, port_of(packet, &out), false);
        allowed.map(|_| ()).map_err(Verdict::Drop)
    }

    /// Whether policy lets the sender send a packet that goes where it says.
    pub(crate) fn may_send(&self, rx: &Rx<'_>, packet: &Packet, sender: Sender) -> Result<(), Verdict> {
        let place = Place::of(rx.snapshot, packet.tuple.dst());
        self.allowed(rx, packet, (&packet.tuple, &place), sender, false)
            .map(|_| ())
    }

    /// What a policy says of a packet `out`, and does what follows from it but for dropping: returns the port of a proxy, or 0.
    fn ask(
        &self,
        rx: &Rx<'_>,
        asked: &Asked<'_>,
        out: &Tuple,
        port: u16,
        first: bool,
    ) -> Result<u16, DropReason> {
        let key = (asked.egress, asked.remote, out.protocol(), port);
        let mut decided = asked.policy.map_or(Decided::UNENFORCED, |policy| {
            policy.lookup(key.0, key.1, key.2, key.3)
        });
        if decided.decision == Decision::AuthRequired {
            let other = if asked.egress { out.dst() } else { out.src() };
            let sides = AuthKey {
                local_identity: asked.local,
                remote_identity: asked.remote,
                remote_node: remote(rx.snapshot, other).tunnel,
                auth_type: decided.auth_type,
            };
            if rx.snapshot.has_authenticated(&sides) {
                decided.decision = Decision::Allow;
            }
        }
        if decided.audited {
            self.stats.audited.add(1);
        }
        let verdict = PolicyVerdict {
            endpoint: asked.endpoint,
            egress: asked.egress,
            local: asked.local,
            remote: asked.remote,
            tuple: *out,
            port,
            decided,
            enforced: asked.policy.is_some_and(|policy| policy.enforces(asked.egress)),
            first,
        };
        self.tell_verdict(rx, &verdict, || {
            let policy = asked.policy?;
            policy.entry(key.0, key.1, key.2, key.3)
        });
        match verdict.reason() {
            None => Ok(decided.proxy_port),
            Some(reason) => Err(reason),
        }
    }
}

/// Whether the host's policy guards an address (specification, 1.5 step 9).
fn is_own(place: &Place<'_>) -> bool {
    place.remote().identity == identity::HOST
}
