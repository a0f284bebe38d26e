//! Where packets go: to an endpoint here, through the tunnel to another node, encrypted, or as routed.

use std::net::IpAddr;

use octoplane_esp::Sa;
use octoplane_flow::Tuple;
use octoplane_tables::model::Routing;
use octoplane_tables::{Action as Way, Remote, Snapshot, Target, TunnelEnd, identity};

use super::gateway::{self, Exit};
use super::place::Place;
use crate::drop_reason::DropReason;
use crate::engine::Rx;
use crate::ipsec::{Framing, Ipsec, is_protected};

/// Where packets go.
#[derive(Clone, Copy)]
pub(super) struct Path {
    /// Number of the target, or of the other end of a tunnel, or of the node that packets are encrypted for.
    pub(super) number: u32,
    /// Whether it is the way to another node, in a tunnel.
    pub(super) tunnel: bool,
    /// Whether it is the way to another node, encrypted, without a tunnel.
    pub(super) encrypt: bool,
    /// Whether the tunnel is a hop: the way to an egress gateway.
    pub(super) hop: bool,
}

impl Path {
    /// The target that leads on, and the other node, whether there is a tunnel to it or not.
    pub(super) fn resolve<'a>(&self, snapshot: &'a Snapshot) -> (&'a Target, Option<&'a TunnelEnd>) {
        match self.tunnel || self.encrypt {
            false => (snapshot.target(self.number), None),
            true => {
                let end = snapshot.tunnel_end(self.number);
                (snapshot.target(end.target), Some(end))
            }
        }
    }
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
/// `place` is that of the destination.
pub(super) fn way(
    rx: &Rx<'_>,
    out: &Tuple,
    place: &Place<'_>,
    forward: bool,
    sender: u32,
) -> Result<(Path, Exit), DropReason> {
    way_back(rx, out, place, forward, sender, false)
}

/// The same, back into the tunnel if what is answered came `from_tunnel` (1.2 step 14.7).
pub(super) fn way_back(
    rx: &Rx<'_>,
    out: &Tuple,
    place: &Place<'_>,
    forward: bool,
    sender: u32,
    from_tunnel: bool,
) -> Result<(Path, Exit), DropReason> {
    let (snapshot, action) = (rx.snapshot, place.target.action);
    let local = matches!(action, Way::Deliver | Way::Local | Way::Gateway);
    let routed = Path {
        number: place.number,
        tunnel: false,
        encrypt: false,
        hop: false,
    };
    if local {
        return Ok((routed, Exit::Anywhere));
    }
    if snapshot.node().routing == Routing::Tunnel {
        let remote = place.remote();
        if remote.tunnel.is_some() && (from_tunnel || !remote.skip_tunnel) {
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
    // Endpoints leave by gateways, not this machine.
    let exit = match forward && sender != identity::HOST {
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
        Exit::Anywhere => encrypted(rx, place, sender).unwrap_or(routed),
    };
    Ok((path, exit))
}

/// The way to another node's endpoint if packets of this sender are encrypted on it (specification, 1.9).
fn encrypted(rx: &Rx<'_>, place: &Place<'_>, sender: u32) -> Option<Path> {
    rx.ipsec?;
    let remote = place.remote();
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

/// Number of the target that packets to an address go to.
pub(crate) fn find(snapshot: &Snapshot, addr: IpAddr) -> u32 {
    match addr {
        IpAddr::V4(addr) => snapshot.find4(addr.to_bits()),
        IpAddr::V6(addr) => snapshot.find6(addr.to_bits()),
    }
}
