//! Who may talk to whom (specification, 1.2 step 12, 1.3 step 4, 2.6).

use std::net::IpAddr;

use octoplane_flow::Tuple;
use octoplane_packet::BufPool;
use octoplane_tables::model::Routing;
use octoplane_tables::{Action as Way, Decision, Verdict as Decided};

use super::service::is_loopback_address;
use super::{Packet, Sender, Upper, remote};
use crate::drop_reason::DropReason;
use crate::engine::{Core, Rx};
use crate::icmp::Error;
use crate::slow::Verdict;

impl<P: BufPool> Core<P> {
    /// Whether policy lets the sender send `packet`, which leaves as `out`: that of the sending endpoint, then that of the
    /// receiving one.
    pub(super) fn allowed(
        &self,
        rx: &Rx<'_>,
        packet: &Packet,
        out: &Tuple,
        sender: Sender,
    ) -> Result<(), Verdict> {
        let snapshot = rx.snapshot;
        // An endpoint that reaches itself through a service is not asked; nor is what path-MTU discovery needs (2.6 step 1).
        if is_loopback_address(out.src()) || packet.upper == Upper::TooBig {
            return Ok(());
        }
        let port = match packet.upper {
            Upper::Tcp(_) | Upper::Udp | Upper::Sctp => out.dport(),
            _ => packet.port,
        };
        let node = snapshot.node();
        if sender.endpoint != 0 {
            if node.routing == Routing::Tunnel && packet.upper == Upper::Udp && port == node.tunnel.port {
                return Err(Verdict::Drop(DropReason::EncapProhibited));
            }
            if let Some(policy) = snapshot.policy(sender.endpoint) {
                let identity = remote(snapshot, out.dst()).identity;
                let decided = policy.lookup(true, identity, out.protocol(), port);
                self.obey(&decided).map_err(|reason| {
                    let told = node.policy_deny_response
                        && matches!(reason, DropReason::PolicyDenied | DropReason::PolicyDenylist);
                    match told {
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
        if target.action == Way::Deliver
            && let Some(policy) = snapshot.policy(target.endpoint)
        {
            let decided = policy.lookup(false, sender.identity, out.protocol(), port);
            self.obey(&decided).map_err(Verdict::Drop)?;
        }
        Ok(())
    }

    fn obey(&self, decided: &Decided) -> Result<(), DropReason> {
        if decided.audited {
            self.stats.audited.add(1);
        }
        match decided.decision {
            // There is no way to a proxy yet: what would have to go through one is not let past it.
            Decision::Allow if decided.proxy_port != 0 => Err(DropReason::ProxyMissing),
            Decision::Allow => Ok(()),
            Decision::Deny => Err(DropReason::PolicyDenylist),
            Decision::NoMatch => Err(DropReason::PolicyDenied),
            Decision::AuthRequired => Err(DropReason::AuthRequired),
        }
    }
}
