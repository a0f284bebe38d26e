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

use crate::frames::{Flow, Frame, build, shuffle};

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
}

/// Addresses behind one uplink: half of RFC 2544's range, and as many of RFC 5180's.
const REMOTE: u32 = 65_536;
/// Endpoints behind a pod port.
const ENDPOINTS: u32 = 64;
/// Services.
const SERVICES: u32 = 16;
/// Backends of each.
const BACKENDS: u32 = 10;
/// Security identity of the backends.
const BACKEND_IDENTITY: u32 = 5000;
/// Neighbours of an uplink.
const NEIGHBOURS: u32 = 4;

/// Gateways that pods see.
pub(crate) const GATEWAYS: Gateways = Gateways {
    ipv4: Ipv4Addr::new(169, 254, 1, 1),
    ipv6: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
};

impl Scenario {
    /// What stands at the other end of ports 0 and 1.
    pub(crate) fn roles(self) -> [Role; 2] {
        match self {
            Self::Uplink => [Role::Uplink, Role::Uplink],
            Self::PodToPod => [Role::Pod, Role::Pod],
            Self::PodToUplink | Self::PodToService => [Role::Pod, Role::Uplink],
            Self::UplinkToPod => [Role::Uplink, Role::Pod],
        }
    }

    /// How many of the two ports packets come from.
    pub(crate) fn sources(self) -> usize {
        match self {
            Self::Uplink | Self::PodToPod => 2,
            Self::PodToUplink | Self::UplinkToPod | Self::PodToService => 1,
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
    ) -> Vec<Frame> {
        let turns = sizes.len().max(1);
        let count = (flows as usize).next_multiple_of(turns);
        let mut frames: Vec<Frame> = (0..count)
            .zip(sizes.iter().cycle())
            .map(|(index, &size)| build(&self.flow(port, ipv6, index as u32 % flows), size))
            .collect();
        if random {
            shuffle(&mut frames);
        }
        frames
    }

    /// Flow number `index` of those that port `port` receives.
    fn flow(self, port: usize, ipv6: bool, index: u32) -> Flow {
        let other = 1 - port;
        let roles = self.roles();
        let (sources, destinations) = match self {
            Self::PodToService => (ENDPOINTS, SERVICES),
            _ => (population(roles[port]), population(roles[other])),
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
            dst: match self {
                Self::PodToService => service_address(ipv6, dst),
                _ => address(other, ipv6, dst),
            },
            src_port: 1024 + (u64::from(index) / pairs % 60_000) as u16,
        }
    }

    /// Everything the tables need for `flows` flows from each source.
    pub(crate) fn changes(self, flows: u32) -> Vec<Change> {
        let mut changes: Vec<Change> = self
            .roles()
            .into_iter()
            .enumerate()
            .flat_map(|(port, role)| match role {
                Role::Pod => endpoints(port),
                _ => routes(port, flows),
            })
            .collect();
        if self == Self::PodToService {
            changes.extend(cluster());
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

/// Our own address on a port.
pub(crate) fn port_mac(port: usize) -> MacAddr {
    MacAddr([0x02, 0x00, 0x00, 0x00, 0x00, port as u8])
}

fn endpoint_mac(port: usize, index: u32) -> MacAddr {
    MacAddr([0x02, 0x00, 0x00, 0x01, port as u8, index as u8])
}

fn neighbour_mac(port: usize, index: u32) -> MacAddr {
    MacAddr([0x02, 0x00, 0x00, 0x02, port as u8, index as u8])
}

/// Address number `index` behind a port.
fn address(port: usize, ipv6: bool, index: u32) -> IpAddr {
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
        Ipv4Addr::new(192, 0, 2, 128 * port as u8 + 1 + index as u8).into()
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

/// Another node behind port 1, its endpoints, services that they are the backends of, and policies of our endpoints.
fn cluster() -> Vec<Change> {
    let mut changes = vec![Change::PutNode(Box::new(Node {
        routing: Routing::Tunnel,
        tunnel: Tunnel {
            local4: match link_address(1, false, 0) {
                IpAddr::V4(addr) => Some(addr),
                IpAddr::V6(_) => None,
            },
            ..Tunnel::default()
        },
        ..Node::default()
    }))];
    for ipv6 in [false, true] {
        changes.push(Change::PutIpcache(IpcacheEntry {
            prefix: Prefix::containing(address(1, ipv6, 0), if ipv6 { 64 } else { 16 }),
            identity: BACKEND_IDENTITY,
            tunnel: Some(link_address(1, false, 1)),
            key: 0,
            skip_tunnel: false,
        }));
        for index in 0..SERVICES {
            let mut service = Service::new(format!("bench/{ipv6}-{index}:discard"), Protocol::Udp);
            service.frontends.push(ServiceFrontend {
                addr: service_address(ipv6, index),
                port: 9,
                kind: FrontendType::ClusterIp,
            });
            service.backends = (0..BACKENDS)
                .map(|backend| ServiceBackend {
                    addr: address(1, ipv6, BACKENDS * index + backend),
                    port: 9,
                    weight: 1,
                    state: BackendState::Active,
                    local: false,
                })
                .collect();
            changes.push(Change::PutService(Box::new(service)));
        }
    }
    changes.extend((1..=ENDPOINTS).map(|endpoint| {
        Change::PutPolicy(Policy {
            endpoint,
            enforce_ingress: true,
            enforce_egress: true,
            audit: false,
            entries: vec![PolicyEntry {
                key: PolicyKey {
                    direction: Direction::Egress,
                    identity: BACKEND_IDENTITY,
                    protocol: 17,
                    port: 9,
                    port_prefix_len: 16,
                },
                value: PolicyValue {
                    // A plain allow of the highest priority (specification of the datapath, section 2.7).
                    precedence: 0xffff_ff01,
                    ..PolicyValue::default()
                },
            }],
        })
    }));
    changes
}

fn endpoints(port: usize) -> Vec<Change> {
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

    const ALL: [Scenario; 5] = [
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
                    let flow = scenario.flow(0, false, index);
                    (flow.src, flow.dst, flow.src_port)
                })
                .collect();
            assert_eq!(seen.len(), 200_000, "{scenario:?}");
        }
    }

    #[test]
    fn a_thousand_flows_have_a_thousand_destinations_on_uplinks() {
        let seen: HashSet<_> = (0..1000)
            .map(|index| Scenario::Uplink.flow(0, true, index).dst)
            .collect();
        assert_eq!(seen.len(), 1000);
    }
}
