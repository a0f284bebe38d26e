//! What each scenario consists of: two sides, the tables between them, and the flows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::ValueEnum;
use octoplane_packet::{MacAddr, Prefix};
use octoplane_tables::Gateways;
use octoplane_tables::model::{
    BackendState, Change, Direction, Endpoint, FrontendType, IpcacheEntry, Neighbour, Node, Origin, Policy,
    PolicyEntry, PolicyKey, PolicyValue, Protocol, Role, Route, RouteTarget, Routing, Service,
    ServiceBackend, ServiceFrontend, Tunnel,
};
use serde::{Deserialize, Serialize};

use crate::frames::{Flow, Frame, Outer, build, shuffle, wrap};

/// Where packets come from and go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scenario {
    /// Between two uplinks, both ways, by routes and neighbours.
    Uplink,
    /// Between the endpoints of two pod ports, both ways.
    PodToPod,
    /// From the endpoints of a pod port to an uplink.
    PodToUplink,
    /// From an uplink to the endpoints of a pod port.
    UplinkToPod,
    /// From the endpoints of a pod port to services whose backends live on another node: translation, egress policy and
    /// VXLAN.
    PodToService,
    /// The answers: from that node, out of the tunnel, translated back, to the endpoints of a pod port.
    FromTunnel,
}

/// Addresses behind one uplink: half of RFC 2544's range, and as many of RFC 5180's.
const REMOTE: u32 = 65_536;
/// Endpoints behind a pod port.
pub(crate) const ENDPOINTS: u32 = 64;
/// Backends of a service.
const BACKENDS: u32 = 10;
/// Security identity of the backends.
const BACKEND_IDENTITY: u32 = 5000;
/// Port of services and backends.
const DISCARD: u16 = 9;
/// Bytes, with FCS, that a frame of either family with a UDP header has at least.
pub(crate) const MAX_HEADER: u16 = 66;
/// Neighbours of an uplink.
const NEIGHBOURS: u32 = 4;

/// Gateways that pods see.
pub(crate) const GATEWAYS: Gateways = Gateways {
    ipv4: Ipv4Addr::new(169, 254, 1, 1),
    ipv6: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
};

/// How large the tables are that only the scenarios with services have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scale {
    /// Services; all are used.
    pub(crate) services: u32,
    /// Entries of each endpoint's policy; one is used.
    pub(crate) policy: u32,
    /// What is known of addresses besides those that are used.
    pub(crate) ipcache: u32,
}

impl Default for Scale {
    fn default() -> Self {
        Self {
            services: 16,
            policy: 1,
            ipcache: 0,
        }
    }
}

impl Scenario {
    /// What stands at the other end of ports 0 and 1.
    pub(crate) fn roles(self) -> [Role; 2] {
        match self {
            Self::Uplink => [Role::Uplink, Role::Uplink],
            Self::PodToPod => [Role::Pod, Role::Pod],
            Self::PodToUplink | Self::PodToService => [Role::Pod, Role::Uplink],
            Self::UplinkToPod | Self::FromTunnel => [Role::Uplink, Role::Pod],
        }
    }

    /// How many of the two ports packets come from.
    pub(crate) fn sources(self) -> usize {
        match self {
            Self::Uplink | Self::PodToPod => 2,
            Self::PodToUplink | Self::UplinkToPod | Self::PodToService | Self::FromTunnel => 1,
        }
    }

    /// Whether all packets belong to connections: those have ports.
    pub(crate) fn has_connections(self) -> bool {
        self != Self::Uplink
    }

    /// Whether there are services and another node.
    pub(crate) fn has_cluster(self) -> bool {
        matches!(self, Self::PodToService | Self::FromTunnel)
    }

    /// The port that leads to other nodes, where there are any.
    fn uplink(self) -> usize {
        self.roles()
            .iter()
            .position(|role| *role == Role::Uplink)
            .unwrap_or(1)
    }

    /// Backends of a service. Where answers are sent before anybody could see which backend was chosen, there is one only.
    fn backends(self) -> u32 {
        match self {
            Self::FromTunnel => 1,
            _ => BACKENDS,
        }
    }

    /// The frames that port `port` receives: `flows` flows in frames of the given sizes by turns.
    pub(crate) fn frames(
        self,
        port: usize,
        ipv6: bool,
        flows: u32,
        sizes: &[u16],
        random: bool,
        scale: &Scale,
    ) -> Vec<Frame> {
        let turns = sizes.len().max(1);
        let count = (flows as usize).next_multiple_of(turns);
        let mut frames: Vec<Frame> = (0..count)
            .zip(sizes.iter().cycle())
            .map(|(index, &size)| {
                let index = index as u32 % flows;
                match self {
                    Self::FromTunnel => {
                        let frame = build(&self.answer(ipv6, index, scale), size);
                        wrap(&outer(port, index), &frame)
                    }
                    _ => build(&self.flow(port, ipv6, index, scale), size),
                }
            })
            .collect();
        if random {
            shuffle(&mut frames);
        }
        frames
    }

    /// What has to have been sent before, and by which port it came in, for the frames to be answers.
    pub(crate) fn questions(self, ipv6: bool, flows: u32, scale: &Scale) -> (usize, Vec<Frame>) {
        let port = 1 - self.uplink();
        let count = if self == Self::FromTunnel { flows } else { 0 };
        let frames = (0..count).map(|index| build(&self.flow(port, ipv6, index, scale), MAX_HEADER));
        (port, frames.collect())
    }

    /// The answer to flow number `index` to a service, from its backend.
    fn answer(self, ipv6: bool, index: u32, scale: &Scale) -> Flow {
        let uplink = self.uplink();
        let question = self.flow(1 - uplink, ipv6, index, scale);
        Flow {
            src_mac: neighbour_mac(uplink, 0),
            dst_mac: port_mac(uplink),
            src: address(uplink, ipv6, index % scale.services),
            dst: question.src,
            src_port: DISCARD,
            dst_port: question.src_port,
        }
    }

    /// Flow number `index` of those that port `port` receives, or would if these were not the answers.
    fn flow(self, port: usize, ipv6: bool, index: u32, scale: &Scale) -> Flow {
        let other = 1 - port;
        let roles = self.roles();
        let (sources, destinations) = match self.has_cluster() {
            true => (ENDPOINTS, scale.services),
            false => (population(roles[port]), population(roles[other])),
        };
        // Different for any two flows until all pairs are used up; then the UDP port is.
        let dst = index % destinations;
        let src = (index + index / destinations) % sources;
        let pairs = u64::from(sources) * u64::from(destinations);
        Flow {
            src_mac: match roles[port] {
                Role::Pod => endpoint_mac(port, src),
                _ => neighbour_mac(port, src % NEIGHBOURS),
            },
            dst_mac: port_mac(port),
            src: address(port, ipv6, src),
            dst: match self.has_cluster() {
                true => service_address(ipv6, dst),
                false => address(other, ipv6, dst),
            },
            src_port: 1024 + (u64::from(index) / pairs % 60_000) as u16,
            dst_port: DISCARD,
        }
    }

    /// Everything the tables need for `flows` flows from each source.
    pub(crate) fn changes(self, flows: u32, scale: &Scale) -> Vec<Change> {
        let mut changes: Vec<Change> = self
            .roles()
            .into_iter()
            .enumerate()
            .flat_map(|(port, role)| match role {
                Role::Pod => endpoints(port),
                _ => routes(port, flows),
            })
            .collect();
        if self.has_cluster() {
            changes.extend(self.cluster(scale));
        }
        changes
    }

    /// Our addresses on the link of a port.
    pub(crate) fn link(self, port: usize) -> Vec<(IpAddr, u8)> {
        match self.roles()[port] {
            Role::Pod => Vec::new(),
            _ => vec![
                (link_address(port, false, 0), 25),
                (link_address(port, true, 0), 64),
            ],
        }
    }
}

/// How many addresses stand behind a port.
fn population(role: Role) -> u32 {
    match role {
        Role::Pod => ENDPOINTS,
        _ => REMOTE,
    }
}

/// IPv4 address number `index` on the link of an uplink; 0 is ours.
fn link4(port: usize, index: u32) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 128 * port as u8 + 1 + index as u8)
}

/// Our own address on a port.
pub(crate) fn port_mac(port: usize) -> MacAddr {
    MacAddr([0x02, 0x00, 0x00, 0x00, 0x00, port as u8])
}

pub(crate) fn endpoint_mac(port: usize, index: u32) -> MacAddr {
    MacAddr([0x02, 0x00, 0x00, 0x01, port as u8, index as u8])
}

pub(crate) fn neighbour_mac(port: usize, index: u32) -> MacAddr {
    MacAddr([0x02, 0x00, 0x00, 0x02, port as u8, index as u8])
}

/// Address number `index` behind a port.
pub(crate) fn address(port: usize, ipv6: bool, index: u32) -> IpAddr {
    if ipv6 {
        let high = u128::from(Ipv6Addr::new(0x2001, 2, 0, port as u16, 0, 0, 0, 0));
        Ipv6Addr::from_bits(high + u128::from(index)).into()
    } else {
        let high = Ipv4Addr::new(198, 18 + port as u8, 0, 0).to_bits();
        Ipv4Addr::from_bits(high + index).into()
    }
}

/// Address number `index` on the link of an uplink; 0 is ours.
fn link_address(port: usize, ipv6: bool, index: u32) -> IpAddr {
    if ipv6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0, port as u16, 0, 0, 0, 1 + index as u16).into()
    } else {
        link4(port, index).into()
    }
}

/// Address of service number `index`.
fn service_address(ipv6: bool, index: u32) -> IpAddr {
    if ipv6 {
        let high = u128::from(Ipv6Addr::new(0x2001, 2, 0, 96, 0, 0, 0, 0));
        Ipv6Addr::from_bits(high + u128::from(index)).into()
    } else {
        Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 0).to_bits() + index).into()
    }
}

impl Scenario {
    /// The node's settings. What `told` says makes no difference to packets that are allowed, but all connections depend on it.
    pub(crate) fn node(self, told: bool) -> Change {
        Change::PutNode(Box::new(Node {
            routing: Routing::Tunnel,
            tunnel: Tunnel {
                local4: Some(link4(self.uplink(), 0)),
                ..Tunnel::default()
            },
            policy_deny_response: told,
            ..Node::default()
        }))
    }

    /// Another node behind the uplink, its endpoints, services that they are the backends of, and policies of our endpoints.
    fn cluster(self, scale: &Scale) -> Vec<Change> {
        let uplink = self.uplink();
        let mut changes = vec![self.node(false)];
        for ipv6 in [false, true] {
            let peer = IpAddr::V4(link4(uplink, 1));
            changes.extend((0..scale.services * self.backends()).map(|backend| {
                let addr = address(uplink, ipv6, backend);
                known(Prefix::host(addr), BACKEND_IDENTITY, peer)
            }));
            changes.extend((0..scale.ipcache).map(|index| {
                let addr = bystander(ipv6, index);
                known(Prefix::host(addr), 100_000 + index % 50_000, peer)
            }));
            changes.extend((0..scale.services).map(|index| self.service(ipv6, index)));
        }
        let first = (1 - uplink) as u32 * ENDPOINTS + 1;
        changes.extend((first..first + ENDPOINTS).map(|endpoint| policy(endpoint, scale.policy)));
        changes
    }

    fn service(self, ipv6: bool, index: u32) -> Change {
        let mut service = Service::new(format!("bench/{ipv6}-{index}:discard"), Protocol::Udp);
        service.frontends.push(ServiceFrontend {
            addr: service_address(ipv6, index),
            port: DISCARD,
            kind: FrontendType::ClusterIp,
        });
        let backends = self.backends();
        service.backends = (0..backends)
            .map(|backend| ServiceBackend {
                addr: address(self.uplink(), ipv6, backends * index + backend),
                port: DISCARD,
                weight: 1,
                state: BackendState::Active,
                local: false,
            })
            .collect();
        Change::PutService(Box::new(service))
    }
}

/// The tunnel packet in which flow number `index` comes from the other node.
fn outer(port: usize, index: u32) -> Outer {
    Outer {
        src_mac: neighbour_mac(port, 0),
        dst_mac: port_mac(port),
        src: link4(port, 1),
        dst: link4(port, 0),
        src_port: 0xc000 | (index.wrapping_mul(0x9e37_79b1) >> 18) as u16,
        vni: BACKEND_IDENTITY,
    }
}

/// What is known of an address behind the other node.
pub(crate) fn known(prefix: Prefix, identity: u32, peer: IpAddr) -> Change {
    Change::PutIpcache(IpcacheEntry {
        prefix,
        identity,
        tunnel: Some(peer),
        key: 0,
        skip_tunnel: false,
    })
}

/// An endpoint's policy of `entries` entries, of which the traffic needs one.
fn policy(endpoint: u32, entries: u32) -> Change {
    let entry = |identity| PolicyEntry {
        key: PolicyKey {
            direction: Direction::Egress,
            identity,
            protocol: 17,
            port: DISCARD,
            port_prefix_len: 16,
        },
        value: PolicyValue {
            // A plain allow of the highest priority (specification of the datapath, section 2.7).
            precedence: 0xffff_ff01,
            ..PolicyValue::default()
        },
    };
    Change::PutPolicy(Policy {
        endpoint,
        enforce_ingress: true,
        enforce_egress: true,
        audit: false,
        entries: (0..entries.max(1))
            .map(|index| match index {
                0 => entry(BACKEND_IDENTITY),
                index => entry(200_000 + index),
            })
            .collect(),
    })
}

/// An address of the other node's that no traffic comes from or goes to.
pub(crate) fn bystander(ipv6: bool, index: u32) -> IpAddr {
    if ipv6 {
        let high = u128::from(Ipv6Addr::new(0x2001, 2, 0, 97, 0, 0, 0, 0));
        Ipv6Addr::from_bits(high + u128::from(index)).into()
    } else {
        Ipv4Addr::from_bits(Ipv4Addr::new(10, 128, 0, 0).to_bits() + index).into()
    }
}

pub(crate) fn endpoints(port: usize) -> Vec<Change> {
    (0..ENDPOINTS)
        .map(|index| {
            let id = port as u32 * ENDPOINTS + index + 1;
            Change::PutEndpoint(Endpoint {
                id,
                name: format!("bench/pod-{id}"),
                port: port as u16,
                mac: endpoint_mac(port, index),
                identity: 256 + id,
                addresses: vec![address(port, false, index), address(port, true, index)],
                ingress_rate: 0,
                egress_rate: 0,
            })
        })
        .collect()
}

/// A route for every 256 addresses that are used, to the neighbours by turns.
fn routes(port: usize, flows: u32) -> Vec<Change> {
    let id = port as u16;
    let mut changes = Vec::new();
    for ipv6 in [false, true] {
        for index in 0..NEIGHBOURS {
            changes.push(Change::PutNeighbour(Neighbour {
                port: id,
                addr: link_address(port, ipv6, 1 + index),
                mac: Some(neighbour_mac(port, index)),
                origin: Origin::Static,
            }));
        }
        for block in 0..flows.min(REMOTE).div_ceil(256) {
            changes.push(Change::PutRoute(Route {
                prefix: Prefix::containing(address(port, ipv6, 256 * block), if ipv6 { 120 } else { 24 }),
                target: RouteTarget::Gateway {
                    port: id,
                    gateway: link_address(port, ipv6, 1 + block % NEIGHBOURS),
                },
                mtu: None,
            }));
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const ALL: [Scenario; 6] = [
        Scenario::FromTunnel,
        Scenario::PodToService,
        Scenario::Uplink,
        Scenario::PodToPod,
        Scenario::PodToUplink,
        Scenario::UplinkToPod,
    ];

    #[test]
    fn no_flow_is_twice() {
        for scenario in ALL {
            let seen: HashSet<_> = (0..200_000)
                .map(|index| {
                    let flow = scenario.flow(0, false, index, &Scale::default());
                    (flow.src, flow.dst, flow.src_port)
                })
                .collect();
            assert_eq!(seen.len(), 200_000, "{scenario:?}");
        }
    }

    #[test]
    fn answers_are_those_of_the_backends() {
        let scale = Scale::default();
        let scenario = Scenario::FromTunnel;
        let (port, questions) = scenario.questions(false, 100, &scale);
        let answers = scenario.frames(0, false, 100, &[64], false, &scale);
        assert_eq!((port, questions.len(), answers.len()), (1, 100, 100));
        for (index, (question, answer)) in questions.iter().zip(&answers).enumerate() {
            let (question, answer) = (question.header(), &answer.header()[50..]);
            assert_eq!(question[26..30], answer[30..34]);
            assert_eq!(question[34..36], answer[36..38]);
            let backend = address(0, false, index as u32 % scale.services);
            assert_eq!(
                IpAddr::from(<[u8; 4]>::try_from(&answer[26..30]).unwrap()),
                backend
            );
        }
    }

    #[test]
    fn a_thousand_flows_have_a_thousand_destinations_on_uplinks() {
        let seen: HashSet<_> = (0..1000)
            .map(|index| Scenario::Uplink.flow(0, true, index, &Scale::default()).dst)
            .collect();
        assert_eq!(seen.len(), 1000);
    }
}
