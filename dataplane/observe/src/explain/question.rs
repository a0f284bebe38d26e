//! Which packet is asked about, and how it comes in.

use std::net::IpAddr;

use octoplane_api::v1;
use octoplane_convert::{Mistake, clip};
use octoplane_flow::Tuple;
use octoplane_packet::headers::protocol;
use octoplane_packet::{MacAddr, Prefix};
use octoplane_tables::State;
use octoplane_tables::model::{Endpoint, IpcacheEntry, Port, PortId, Role, RouteTarget, Routing};

use super::{Live, frame};

/// Source ports that are given where none is asked for: the first that no connection has.
const PORTS: std::ops::RangeInclusive<u16> = 40_000..=60_999;
/// The other station where no table has its address: a locally administered one.
const SOMEBODY: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

/// A packet and how it comes in.
pub(super) struct Question {
    /// The packet.
    pub(super) tuple: Tuple,
    /// The port that it comes in by.
    pub(super) port: PortId,
    /// What another node's tunnel says of the sender's identity, and the node.
    pub(super) tunnel: Option<u32>,
    /// That node, or the one that sends what comes encrypted.
    pub(super) node: Option<IpAddr>,
    /// Whether it comes encrypted.
    pub(super) encrypted: bool,
    /// What stands at the port.
    pub(super) role: Role,
    macs: [MacAddr; 2],
}

/// Who sends.
enum From<'a> {
    Endpoint(&'a Endpoint, Option<IpAddr>),
    Host(Option<IpAddr>),
    Network(IpAddr),
}

impl Question {
    /// Reads a request.
    pub(super) fn read(live: &Live<'_>, request: &v1::ExplainRequest) -> Result<Self, Mistake> {
        let state = &live.state;
        let dst = address("to", &request.to)?;
        let from = sender(state, &request.from)?;
        let (src, port, mac) = match from {
            From::Endpoint(endpoint, addr) => {
                let addr = family(addr, &endpoint.addresses, dst).ok_or_else(|| {
                    wrong(format!(
                        "from: endpoint {} has no address of the family of {dst}",
                        endpoint.id
                    ))
                })?;
                (addr, endpoint.port, endpoint.mac)
            }
            From::Host(addr) => {
                let port = state
                    .host_port()
                    .ok_or_else(|| wrong("from: there is no port of role host".into()))?;
                let addr = family(addr, &state.node().addresses, dst)
                    .ok_or_else(|| wrong(format!("from: the node has no address of the family of {dst}")))?;
                (addr, port.id, SOMEBODY)
            }
            From::Network(addr) => {
                if addr.is_ipv4() != dst.is_ipv4() {
                    return Err(wrong(format!("to: {dst} is of another address family than from")));
                }
                (addr, 0, SOMEBODY)
            }
        };
        let tuple = tuple(live, request, src, dst)?;
        let state = &live.state;
        let (mut tunnel, mut node) = (None, None);
        let mut port = port;
        let mut encrypted = false;
        if let From::Network(addr) = from {
            let known = known(state, addr);
            let behind = known.as_ref().and_then(|entry| entry.tunnel);
            let tunnelled = known.as_ref().filter(|entry| {
                entry.tunnel.is_some() && !entry.skip_tunnel && state.node().routing == Routing::Tunnel
            });
            tunnel = tunnelled.map(|entry| entry.identity);
            port = uplink(
                state,
                &request.in_port,
                behind.filter(|_| tunnel.is_some()).unwrap_or(addr),
            )?
            .id;
            let protected = tunnel.is_some() || known.is_some_and(|entry| entry.key != 0);
            let mut ipsec = live.ipsec.clone().filter(|_| protected);
            encrypted = ipsec
                .as_mut()
                .zip(behind)
                .is_some_and(|(ipsec, node)| ipsec.encrypts(node));
            node = behind.filter(|_| tunnel.is_some() || encrypted);
        } else if !request.in_port.is_empty() {
            return Err(wrong("in_port: only of packets from the network".into()));
        }
        let at = state.port(port);
        let ours = at.map_or(SOMEBODY, |port| port.mac);
        Ok(Self {
            tuple,
            port,
            tunnel,
            node,
            encrypted,
            role: at.map_or(Role::Uplink, |port| port.role),
            macs: [ours, mac],
        })
    }

    /// The packet: the first of its connection, or a later one.
    pub(super) fn frame(&self, later: bool) -> Vec<u8> {
        let [dst, src] = self.macs;
        frame::frame(dst, src, &self.tuple, later)
    }
}

fn wrong(text: String) -> Mistake {
    Mistake::invalid(text)
}

fn address(field: &str, text: &str) -> Result<IpAddr, Mistake> {
    text.parse().map_err(|_| {
        wrong(format!(
            "{field}: \"{}\" is not an IPv4 or IPv6 address",
            clip(text)
        ))
    })
}

/// The address that is meant, or the first of the other side's family.
fn family(meant: Option<IpAddr>, addresses: &[IpAddr], dst: IpAddr) -> Option<IpAddr> {
    let all = meant.as_ref().map_or(addresses, std::slice::from_ref);
    all.iter().find(|addr| addr.is_ipv4() == dst.is_ipv4()).copied()
}

/// By name, number or address.
fn sender<'a>(state: &'a State, text: &str) -> Result<From<'a>, Mistake> {
    if text.is_empty() {
        return Err(wrong(
            "from: is empty, expected an endpoint, \"host\" or an address".into(),
        ));
    }
    if let Some(endpoint) = state.endpoints().find(|endpoint| endpoint.name == text) {
        return Ok(From::Endpoint(endpoint, None));
    }
    if text == "host" {
        return Ok(From::Host(None));
    }
    if let Ok(addr) = text.parse::<IpAddr>() {
        let own = state.node().addresses.contains(&addr) || state.own_address(addr).is_some();
        return Ok(match state.owner(addr) {
            Some(endpoint) => From::Endpoint(endpoint, Some(addr)),
            None if own && state.host_port().is_some() => From::Host(Some(addr)),
            None => From::Network(addr),
        });
    }
    let endpoint = text.parse().ok().and_then(|id| state.endpoint(id));
    endpoint
        .map(|endpoint| From::Endpoint(endpoint, None))
        .ok_or_else(|| {
            Mistake::not_found(format!(
                "from: there is no endpoint \"{}\", and it is no address",
                clip(text)
            ))
        })
}

fn tuple(live: &Live<'_>, request: &v1::ExplainRequest, src: IpAddr, dst: IpAddr) -> Result<Tuple, Mistake> {
    let word = |field: &str, value: u32| {
        u16::try_from(value).map_err(|_| {
            wrong(format!(
                "{field}: {value} is out of range, expected at most 65535"
            ))
        })
    };
    let (port, source_port) = (
        word("port", request.port)?,
        word("source_port", request.source_port)?,
    );
    let number = match request.protocol {
        0 => protocol::TCP,
        1 | 58 if dst.is_ipv4() => protocol::ICMP,
        1 | 58 => protocol::ICMPV6,
        other @ (6 | 17 | 132) => other as u8,
        other => {
            return Err(wrong(format!(
                "protocol: {other} is not one of 1, 6, 17, 58, 132"
            )));
        }
    };
    let echo = matches!(number, protocol::ICMP | protocol::ICMPV6);
    if port == 0 && !echo {
        return Err(wrong("port: is missing, expected 1 to 65535".into()));
    }
    let make = |own: u16| match echo {
        // The identifier is the destination port of a request.
        true => Tuple::new(src, dst, 0, own, number, 0),
        false => Tuple::new(src, dst, own, port, number, 0),
    };
    if source_port != 0 {
        return Ok(make(source_port));
    }
    let table = &live.memory.flows;
    let free = |tuple: &Tuple| table.find(table.hash(tuple), tuple).is_none();
    let found = PORTS.map(make).find(free);
    Ok(found.unwrap_or_else(|| make(*PORTS.start())))
}

/// What is known of an address elsewhere, by the longest prefix.
pub(super) fn known(state: &State, addr: IpAddr) -> Option<IpcacheEntry> {
    let lengths = (0..=Prefix::host(addr).len()).rev();
    lengths
        .map(|len| Prefix::containing(addr, len))
        .find_map(|prefix| state.ipcache_entry(&prefix))
}

/// The uplink that packets from this address come in by.
fn uplink<'a>(state: &'a State, name: &str, addr: IpAddr) -> Result<&'a Port, Mistake> {
    if !name.is_empty() {
        let port = state
            .port_by_name(name)
            .ok_or_else(|| Mistake::not_found(format!("in_port: there is no port \"{}\"", clip(name))))?;
        return match port.role {
            Role::Uplink => Ok(port),
            other => Err(wrong(format!(
                "in_port: port \"{}\" has role {}, expected uplink",
                clip(name),
                other.name()
            ))),
        };
    }
    let back = match state.route_to(addr) {
        Some((_, RouteTarget::Gateway { port, .. } | RouteTarget::Link { port })) => Some(port),
        _ => None,
    };
    let mut uplinks = state.ports().filter(|port| port.role == Role::Uplink);
    let found = match back {
        Some(back) => uplinks.find(|port| port.id == back),
        None => uplinks.next().filter(|_| uplinks.next().is_none()),
    };
    found.ok_or_else(|| {
        wrong(format!(
            "in_port: is missing: no route leads back to {addr} by an uplink"
        ))
    })
}
