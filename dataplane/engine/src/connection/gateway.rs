//! Egress gateways: endpoints' traffic to the world leaves from a certain node, under an address of its own
//! (specification, 1.6 step 5, 1.7 step 6, 2.12).

use std::net::IpAddr;

use octoplane_flow::Tuple;
use octoplane_tables::model::EgressGateway;
use octoplane_tables::{Action, EgressRule, Snapshot};

use super::remote;
use crate::drop_reason::DropReason;

/// Identities of what is outside of the cluster: the world, and prefixes that policies name.
const WORLD: [u32; 3] = [2, 9, 10];
const CIDRS: std::ops::RangeInclusive<u32> = 0x0100_0001..=0x01ff_ffff;

/// Where a new connection to the world leaves from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// Where the routes say.
    Anywhere,
    /// From another node, the end of the tunnel with this number.
    Node(u32),
    /// From here, under this address.
    Here(IpAddr),
}

/// Where packets with these addresses, the first of whose connection went this way, have to leave from.
///
/// # Errors
/// Reason to drop them.
pub(super) fn exit(snapshot: &Snapshot, out: &Tuple) -> Result<Exit, DropReason> {
    let Some(rule) = rule(snapshot, out) else {
        return Ok(Exit::Anywhere);
    };
    match rule.gateway {
        EgressGateway::Missing => Err(DropReason::NoEgressGateway),
        EgressGateway::Excluded => Ok(Exit::Anywhere),
        EgressGateway::Node(addr) if is_here(snapshot, addr) => {
            rule.egress_ip.map(Exit::Here).ok_or(DropReason::NoEgressIp)
        }
        EgressGateway::Node(_) => Ok(Exit::Node(rule.tunnel_end)),
    }
}

/// The rule for packets with these addresses, if they leave the cluster.
pub(super) fn rule<'a>(snapshot: &'a Snapshot, out: &Tuple) -> Option<&'a EgressRule> {
    let rule = match (out.src(), out.dst()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => snapshot.egress_gateway4(src.to_bits(), dst.to_bits()),
        (IpAddr::V6(src), IpAddr::V6(dst)) => snapshot.egress_gateway6(src.to_bits(), dst.to_bits()),
        _ => None,
    };
    rule.filter(|_| is_world(remote(snapshot, out.dst()).identity))
}

/// Whether an identity is one of those outside of the cluster.
pub(crate) fn is_world(identity: u32) -> bool {
    WORLD.contains(&identity) || CIDRS.contains(&identity)
}

fn is_here(snapshot: &Snapshot, addr: IpAddr) -> bool {
    let node = snapshot.node();
    // Addresses of our ports are ours, too.
    match addr {
        IpAddr::V4(addr) => {
            node.own4(addr.to_bits())
                || node.tunnel.local4 == Some(addr)
                || snapshot.route4(addr.to_bits()).action == Action::Local
        }
        IpAddr::V6(addr) => {
            node.own6(addr.to_bits())
                || node.tunnel.local6 == Some(addr)
                || snapshot.route6(addr.to_bits()).action == Action::Local
        }
    }
}
