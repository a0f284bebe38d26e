//! Who may talk to whom (specification, 1.2 step 12, 1.3 step 4, 1.5 step 9, 2.6).

use std::net::IpAddr;

use octoplane_flow::Tuple;
use octoplane_packet::BufPool;
use octoplane_tables::model::{AuthKey, HOST_ENDPOINT, Routing};
use octoplane_tables::{Action as Way, Decision, Snapshot, Verdict as Decided, identity};

use super::service::is_loopback_address;
use super::{Packet, Sender, Upper, remote};
use crate::drop_reason::DropReason;
use crate::engine::{Core, Rx};
use crate::icmp::Error;
use crate::slow::Verdict;

impl<P: BufPool> Core<P> {
    /// Whether policy lets the sender send `packet`, which leaves as `out`: that of the sending endpoint, then that of the
    /// receiving one. The node itself has a policy as endpoints have. Returns the port of the proxy on this node that the
    /// packet has to go through, or 0.
    pub(super) fn allowed(
        &self,
        rx: &Rx<'_>,
        packet: &Packet,
        out: &Tuple,
        sender: Sender,
    ) -> Result<u16, Verdict> {
        let snapshot = rx.snapshot;
        // An endpoint that reaches itself through a service is not asked; nor is what path-MTU discovery needs (2.6 step 1).
        if is_loopback_address(out.src()) || packet.upper == Upper::TooBig {
            return Ok(0);
        }
        let port = match packet.upper {
            Upper::Tcp(_) | Upper::Udp | Upper::Sctp => out.dport(),
            _ => packet.port,
        };
        let node = snapshot.node();
        let mut proxy = 0;
        let from = match (sender.endpoint, sender.identity) {
            (0, identity::HOST) => Some(HOST_ENDPOINT),
            (0, _) => None,
            (endpoint, _) => Some(endpoint),
        };
        if let Some(from) = from {
            let tunnelled = node.routing == Routing::Tunnel && packet.upper == Upper::Udp;
            if from != HOST_ENDPOINT && tunnelled && port == node.tunnel.port {
                return Err(Verdict::Drop(DropReason::EncapProhibited));
            }
            if let Some(policy) = snapshot.policy(from) {
                let other = remote(snapshot, out.dst());
                let decided = policy.lookup(true, other.identity, out.protocol(), port);
                let sides = || AuthKey {
                    local_identity: sender.identity,
                    remote_identity: other.identity,
                    remote_node: other.tunnel,
                    auth_type: decided.auth_type,
                };
                proxy = self.obey(snapshot, &decided, sides).map_err(|reason| {
                    let told = node.policy_deny_response
                        && matches!(reason, DropReason::PolicyDenied | DropReason::PolicyDenylist);
                    match told && from != HOST_ENDPOINT {
                        true => Verdict::Refuse(reason, Error::Prohibited),
                        false => Verdict::Drop(reason),
                    }
                })?;
            }
        }
        let target = match out.dst() {
            IpAddr::V4(dst) => snapshot.route4(dst.to_bits()),
            IpAddr::V6(dst) => snapshot.route6(dst.to_bits()),
        };
        let to = match target.action {
            Way::Deliver => Some(target.endpoint),
            Way::Local | Way::Host if is_own(snapshot, out.dst()) => Some(HOST_ENDPOINT),
            _ => None,
        };
        if let Some(policy) = to.and_then(|to| snapshot.policy(to)) {
            let decided = policy.lookup(false, sender.identity, out.protocol(), port);
            let sides = || AuthKey {
                local_identity: remote(snapshot, out.dst()).identity,
                remote_identity: sender.identity,
                remote_node: remote(snapshot, out.src()).tunnel,
                auth_type: decided.auth_type,
            };
            let ingress = self.obey(snapshot, &decided, sides).map_err(Verdict::Drop)?;
            if ingress != 0 {
                proxy = ingress;
            }
        }
        Ok(proxy)
    }

    /// Whether policy lets the sender send a packet that goes where it says.
    pub(crate) fn may_send(&self, rx: &Rx<'_>, packet: &Packet, sender: Sender) -> Result<(), Verdict> {
        self.allowed(rx, packet, &packet.tuple, sender).map(|_| ())
    }

    /// The port of the proxy, or 0. `sides` are those who would have to have authenticated.
    fn obey(
        &self,
        snapshot: &Snapshot,
        decided: &Decided,
        sides: impl FnOnce() -> AuthKey,
    ) -> Result<u16, DropReason> {
        if decided.audited {
            self.stats.audited.add(1);
        }
        match decided.decision {
            Decision::Allow => Ok(decided.proxy_port),
            Decision::Deny => Err(DropReason::PolicyDenylist),
            Decision::NoMatch => Err(DropReason::PolicyDenied),
            Decision::AuthRequired if snapshot.has_authenticated(&sides()) => Ok(decided.proxy_port),
            Decision::AuthRequired => Err(DropReason::AuthRequired),
        }
    }
}

/// Whether the host's policy guards an address (specification, 1.5 step 9).
fn is_own(snapshot: &Snapshot, addr: IpAddr) -> bool {
    remote(snapshot, addr).identity == identity::HOST
}
