//! Tables: each part is there or not, and is drawn anew when it changes.

use octoplane_packet::MacAddr;
use octoplane_state::{
    Authentication, Backend, Dsr, EgressGateway, Endpoint, Frontend, Ipcache, Neighbour, Node, Policy,
    PolicyEntry, Port, Route, Service, State, Target, Tunnel,
};
use octoplane_tables::model::{Port as Table, PortId, Role};
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::pools::{FAR4, FAR6, OWN4, PODS4, PODS6, text};
use crate::setup::Setup;

/// Ports of all simulations: name, role, addresses.
const PORTS: [(&str, Role, &[&str]); 5] = [
    ("pod1", Role::Pod, &[]),
    ("pod2", Role::Pod, &[]),
    ("up0", Role::Uplink, &["192.0.2.1/24", "2001:db8::1/64"]),
    ("up1", Role::Uplink, &["198.18.0.1/24"]),
    ("host", Role::Host, &[]),
];

/// Three pods' ports and two uplinks, and the kernel's on request.
pub(crate) fn setup(kernel: bool, seed: u64) -> Setup {
    let ports =
        PORTS
            .iter()
            .take(if kernel { 5 } else { 4 })
            .enumerate()
            .map(|(index, (name, role, addresses))| Table {
                id: index as PortId,
                name: (*name).into(),
                role: *role,
                mac: MacAddr([2, 0, 0, 0, 0xff, index as u8]),
                mtu: 1500,
                admin_up: true,
                addresses: addresses
                    .iter()
                    .filter_map(|text| {
                        let (addr, len) = text.split_once('/')?;
                        Some((addr.parse().ok()?, len.parse().ok()?))
                    })
                    .collect(),
            });
    Setup {
        ports: ports.collect(),
        seed,
        ..Setup::default()
    }
}

/// A part of the tables.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    Ports(Vec<Port>),
    Endpoints(Vec<Endpoint>),
    Routes(Vec<Route>),
    Neighbours(Vec<Neighbour>),
    Node(Option<Box<Node>>),
    Ipcache(Vec<Ipcache>),
    Services(Vec<Service>),
    Policies(Vec<Policy>),
    EgressGateways(Vec<EgressGateway>),
    Authentications(Vec<Authentication>),
}

impl Part {
    /// Puts it in the place of what is there.
    pub(crate) fn put(self, state: &mut State) {
        match self {
            Self::Ports(it) => state.ports = it,
            Self::Endpoints(it) => state.endpoints = it,
            Self::Routes(it) => state.routes = it,
            Self::Neighbours(it) => state.neighbours = it,
            Self::Node(it) => state.node = it.map(|it| *it),
            Self::Ipcache(it) => state.ipcache = it,
            Self::Services(it) => state.services = it,
            Self::Policies(it) => state.policies = it,
            Self::EgressGateways(it) => state.egress_gateways = it,
            Self::Authentications(it) => state.authentications = it,
        }
    }
}

/// Everything.
pub(super) fn state() -> impl Strategy<Value = State> {
    let first = (endpoints(), routes(), neighbours(), weighted(0.9, node()));
    let second = (
        ipcache(),
        services(),
        policies(),
        egress_gateways(),
        authentications(),
    );
    (first, second).prop_map(|((endpoints, routes, neighbours, node), rest)| {
        let (ipcache, services, policies, egress_gateways, authentications) = rest;
        State {
            ports: Vec::new(),
            endpoints,
            routes,
            neighbours,
            node,
            ipcache,
            services,
            policies,
            egress_gateways,
            authentications,
        }
    })
}

/// One part, drawn anew.
pub(super) fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        1 => ports().prop_map(Part::Ports),
        2 => endpoints().prop_map(Part::Endpoints),
        2 => routes().prop_map(Part::Routes),
        2 => neighbours().prop_map(Part::Neighbours),
        2 => weighted(0.9, node().prop_map(Box::new)).prop_map(Part::Node),
        2 => ipcache().prop_map(Part::Ipcache),
        4 => services().prop_map(Part::Services),
        4 => policies().prop_map(Part::Policies),
        1 => egress_gateways().prop_map(Part::EgressGateways),
        1 => authentications().prop_map(Part::Authentications),
    ]
}

fn ports() -> impl Strategy<Value = Vec<Port>> {
    let port = |name: &'static str| {
        (select(vec![1500u16, 1500, 1400]), weighted(0.9, Just(()))).prop_map(move |(mtu, up)| Port {
            name: name.into(),
            role: None,
            mac: None,
            mtu: Some(mtu),
            admin: Some(if up.is_some() { "up" } else { "down" }.into()),
            addresses: Vec::new(),
        })
    };
    (port("pod1"), port("pod2"), port("up0")).prop_map(|(a, b, c)| vec![a, b, c])
}

/// Those of a list that are there.
fn some<T: Clone + std::fmt::Debug + 'static>(all: Vec<T>, least: usize) -> impl Strategy<Value = Vec<T>> {
    let most = all.len();
    subsequence(all, least..=most)
}

fn endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    let identity = || select(vec![1001, 1002, 2001]);
    (some(vec![0usize, 1, 2], 2), identity(), identity()).prop_map(|(there, first, second)| {
        there
            .into_iter()
            .map(|index| Endpoint {
                id: index as u32 + 1,
                name: String::new(),
                port: ["pod1", "pod2", "pod2"][index].into(),
                mac: format!("02:00:00:00:00:0{}", index + 1),
                identity: [first, second, first][index],
                addresses: std::iter::once(PODS4[index])
                    .chain(PODS6.get(index).copied())
                    .map(Into::into)
                    .collect(),
                ingress_rate: 0,
                egress_rate: 0,
            })
            .collect()
    })
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let via = |prefix: &str, port: &str, gateway: &str| Route {
        prefix: prefix.into(),
        via: (!gateway.is_empty()).then(|| gateway.into()),
        port: Some(port.into()),
        target: None,
        mtu: None,
    };
    let to = |prefix: &str, target| Route {
        prefix: prefix.into(),
        via: None,
        port: None,
        target: Some(target),
        mtu: None,
    };
    // Packets from uplinks find services only where no route forwards them (README).
    let services = vec![
        to("10.96.0.0/24", Target::Host),
        to("203.0.113.80/32", Target::Host),
        to("198.51.100.80/32", Target::Host),
        to("fd00:96::/64", Target::Host),
        to("2001:db8:113::80/128", Target::Host),
    ];
    let all = vec![
        via("0.0.0.0/0", "up0", "192.0.2.254"),
        via("::/0", "up0", "2001:db8::fe"),
        via("10.0.2.0/24", "up0", "192.0.2.2"),
        via("fd00:2::/64", "up0", "2001:db8::2"),
        via("198.51.100.0/24", "up1", "198.18.0.2"),
        to("10.9.0.0/16", Target::Blackhole),
        to("203.0.113.0/24", Target::Host),
    ];
    (
        some(all, 3),
        weighted(0.2, (0usize..7, select(vec![1400u16, 1300]))),
    )
        .prop_map(move |(mut routes, narrow)| {
            if let Some((index, mtu)) = narrow
                && let Some(route) = routes.get_mut(index)
            {
                route.mtu = Some(mtu);
            }
            routes.extend(services.clone());
            routes
        })
}

fn neighbours() -> impl Strategy<Value = Vec<Neighbour>> {
    let one = |port: &str, address: &str, last: u8| Neighbour {
        port: port.into(),
        address: address.into(),
        mac: format!("02:00:00:00:01:{last:02x}"),
        learned: false,
    };
    let all = vec![
        one("up0", "192.0.2.254", 0xfe),
        one("up0", "2001:db8::fe", 0xfe),
        one("up0", "192.0.2.2", 2),
        one("up0", "192.0.2.3", 3),
        one("up0", "2001:db8::2", 2),
        one("up1", "198.18.0.2", 9),
    ];
    some(all, 4)
}

fn node() -> impl Strategy<Value = Node> {
    let word = |words: &[&str]| select(words.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
    let addresses = (
        some(
            ["192.0.2.1", "203.0.113.1", "2001:db8::1", "2001:db8:113::1"]
                .map(String::from)
                .to_vec(),
            1,
        ),
        word(&["", "192.0.2.1", "203.0.113.1"]),
        word(&["", "2001:db8::1"]),
        some(
            ["10.0.0.0/8", "198.51.100.0/25", "fd00::/16"]
                .map(String::from)
                .to_vec(),
            0,
        ),
    );
    let ports = (
        // Few ports are left for masquerading in the second case.
        select(vec![(0u16, 0u16), (30000, 65532)]),
        weighted(0.1, word(&["192.0.2.1", "203.0.113.1"])),
    );
    let tunnel = (
        word(&["native", "tunnel", "tunnel"]),
        word(&["", "vxlan", "geneve"]),
        select(vec![0u16, 0, 4789]),
        word(&["192.0.2.1", "192.0.2.1", ""]),
        word(&["", "2001:db8::1"]),
    );
    let policy = (
        word(&["", "", "", "", "always", "never"]),
        proptest::bool::weighted(0.05),
        any::<bool>(),
        word(&["", "drop"]),
    );
    let direct = (
        word(&["", "", "", "dsr", "dsr", "hybrid"]),
        word(&["", "", "geneve", "ipip"]),
        word(&["", "198.18.7.0/24"]),
    );
    (addresses, ports, tunnel, policy, direct).prop_map(|(addresses, ports, tunnel, policy, direct)| {
        let (forwarding, dispatch, source4) = direct;
        let (mut own, masquerade4, masquerade6, native_cidrs) = addresses;
        // Whose address it is otherwise is left open (README of the model).
        if masquerade4 == OWN4[1] && !own.contains(&masquerade4) {
            own.push(masquerade4.clone());
        }
        let ((nodeport_min, nodeport_max), nodeport) = ports;
        let (routing, protocol, port, local4, local6) = tunnel;
        let (policy_mode, audit, policy_deny_response, no_backend) = policy;
        // What the tables refuse is no scenario.
        let possible = match dispatch.as_str() {
            "geneve" => protocol == "geneve" && !(local4.is_empty() && local6.is_empty()),
            "ipip" => routing == "native",
            _ => true,
        };
        let dsr = Dsr {
            dispatch: if possible { dispatch } else { String::new() },
            source4,
            source6: String::new(),
        };
        Node {
            addresses: own,
            masquerade4,
            masquerade6,
            native_cidrs,
            nodeport_addresses: nodeport.into_iter().collect(),
            nodeport_min,
            nodeport_max,
            routing,
            tunnel: Tunnel {
                protocol,
                port,
                local4,
                local6,
            },
            policy_mode,
            audit,
            policy_deny_response,
            no_backend,
            forwarding,
            dsr,
        }
    })
}

fn ipcache() -> impl Strategy<Value = Vec<Ipcache>> {
    let entry = |prefix: &'static str, identities: Vec<u32>, ends: Vec<&'static str>| {
        (select(identities), select(ends), proptest::bool::weighted(0.15)).prop_map(
            move |(identity, end, skip_tunnel)| Ipcache {
                prefix: prefix.into(),
                identity,
                tunnel_endpoint: end.into(),
                key: 0,
                skip_tunnel,
            },
        )
    };
    let there = |it: BoxedStrategy<Ipcache>| weighted(0.8, it);
    (
        there(
            entry(
                "10.0.2.0/24",
                vec![2001, 2002],
                vec!["192.0.2.2", "192.0.2.2", "2001:db8::2"],
            )
            .boxed(),
        ),
        there(entry("10.0.2.2/32", vec![2002, 0x0100_0002], vec!["192.0.2.3", ""]).boxed()),
        there(entry("fd00:2::/64", vec![2001], vec!["192.0.2.2", "2001:db8::2", ""]).boxed()),
        there(entry("192.0.2.2/32", vec![6], vec![""]).boxed()),
        there(entry("2001:db8::2/128", vec![6], vec![""]).boxed()),
        there(entry("198.51.100.0/24", vec![0x0100_0001, 2], vec![""]).boxed()),
        there(entry("10.0.0.1/32", vec![3000], vec!["192.0.2.2", ""]).boxed()),
        weighted(0.2, entry("0.0.0.0/0", vec![2], vec![""])),
    )
        .prop_map(|(a, b, c, d, e, f, g, h)| [a, b, c, d, e, f, g, h].into_iter().flatten().collect())
}

fn services() -> impl Strategy<Value = Vec<Service>> {
    (
        weighted(
            0.9,
            service("s/one", 80, 30080, ["10.96.0.1", "fd00:96::1", "203.0.113.80"]),
        ),
        weighted(
            0.5,
            service(
                "s/two",
                81,
                30081,
                ["10.96.0.2", "2001:db8:113::80", "198.51.100.80"],
            ),
        ),
    )
        .prop_map(|(one, two)| one.into_iter().chain(two).collect())
}

fn service(name: &'static str, port: u16, nodeport: u16, vips: [&'static str; 3]) -> BoxedStrategy<Service> {
    let frontend = |address: &str, port, kind: &str| Frontend {
        address: address.into(),
        port,
        r#type: kind.into(),
    };
    let [first, second, third] = vips;
    let frontends = vec![
        frontend(first, port, "cluster_ip"),
        frontend(
            second,
            port,
            if port == 80 { "cluster_ip" } else { "load_balancer" },
        ),
        frontend(
            third,
            port,
            if port == 80 {
                "load_balancer"
            } else {
                "external_ip"
            },
        ),
        frontend("0.0.0.0", nodeport, "node_port"),
        frontend("::", nodeport, "node_port"),
        frontend("192.0.2.1", 8080 + port % 2, "host_port"),
    ];
    let backend = |address: &'static str, local: bool| {
        let state = select(vec!["", "", "", "terminating", "quarantined", "maintenance"]);
        (select(vec![80u16, 8080]), state, select(vec![0u16, 3])).prop_map(move |(port, state, weight)| {
            Backend {
                address: address.into(),
                port,
                weight,
                state: state.into(),
                local,
            }
        })
    };
    let backends = (
        weighted(0.5, backend(PODS4[0], true)),
        weighted(0.5, backend(PODS4[1], true)),
        weighted(0.4, backend(FAR4[0], false)),
        weighted(0.3, backend(FAR4[1], false)),
        weighted(0.5, backend(PODS6[0], true)),
        weighted(0.4, backend(FAR6[0], false)),
    );
    let word = |words: &[&'static str]| select(words.to_vec());
    let how = (
        word(&["tcp", "tcp", "udp", "sctp"]),
        // The model computes a Maglev table for each packet.
        word(&["", "", "", "", "maglev"]),
        word(&["", "", "local"]),
        word(&["", "", "local"]),
        select(vec![0u32, 0, 10]),
        word(&["", "", "", "", "snat", "dsr", "hybrid"]),
        weighted(0.2, (word(&["198.51.100.0/25", "192.0.2.0/24"]), any::<bool>())),
    );
    (some(frontends, 1), backends, how)
        .prop_map(move |(frontends, (a, b, c, d, e, f), how)| {
            let (protocol, algorithm, internal, external, affinity_seconds, forwarding, ranges) = how;
            let (source_ranges, source_ranges_deny) = match ranges {
                Some((range, deny)) => (vec![range.into()], deny),
                None => (Vec::new(), false),
            };
            Service {
                name: name.into(),
                protocol: protocol.into(),
                frontends,
                backends: [a, b, c, d, e, f].into_iter().flatten().collect(),
                algorithm: algorithm.into(),
                affinity_seconds,
                source_ranges,
                source_ranges_deny,
                internal_policy: internal.into(),
                external_policy: external.into(),
                forwarding: forwarding.into(),
                proxy_port: 0,
            }
        })
        .boxed()
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let policy = |endpoint: u32| {
        let flags = (any::<bool>(), any::<bool>(), proptest::bool::weighted(0.1));
        (flags, vec(entry(), 0..5)).prop_map(move |((enforce_ingress, enforce_egress, audit), entries)| {
            let mut entries = entries;
            let key = |it: &PolicyEntry| {
                (
                    it.direction.clone(),
                    it.identity,
                    it.protocol,
                    it.port,
                    it.port_prefix_len,
                )
            };
            entries.sort_by_key(key);
            entries.dedup_by_key(|it| key(it));
            Policy {
                endpoint,
                enforce_ingress,
                enforce_egress,
                audit,
                entries,
            }
        })
    };
    (
        weighted(0.4, policy(1)),
        weighted(0.4, policy(2)),
        weighted(0.2, policy(3)),
        weighted(0.15, policy(0)),
    )
        .prop_map(|(a, b, c, d)| [a, b, c, d].into_iter().flatten().collect())
}

fn entry() -> impl Strategy<Value = PolicyEntry> {
    let ports = select(vec![
        (0u8, 0u16, 0u8),
        (6, 0, 0),
        (6, 80, 16),
        (6, 8080, 16),
        (6, 8080, 12),
        (17, 80, 16),
        (17, 0, 0),
        (132, 0, 0),
        (1, 8, 16),
        (1, 0, 0),
        (58, 128, 16),
    ]);
    (
        any::<bool>(),
        select(vec![0u32, 0, 0, 1, 2, 6, 9, 1001, 1002, 2001, 0x0100_0001]),
        ports,
        // Section 2.7 of the specification: allow, deny, and both one priority lower.
        select(vec![
            (false, 0xffff_ff01u32),
            (false, 0xffff_ff01),
            (false, 0xffff_ff01),
            (true, 0xffff_ffff),
            (false, 0xffff_fe01),
            (true, 0xffff_feff),
            (false, 0),
        ]),
        select(vec![0u8, 0, 0, 0, 0, 0, 0, 1]),
        any::<bool>(),
    )
        .prop_map(
            |(egress, identity, (protocol, port, bits), (deny, precedence), auth_type, explicit)| {
                // Prefixes have no bits behind them.
                let port = if bits == 12 { port & 0xfff0 } else { port };
                PolicyEntry {
                    direction: if egress { "egress" } else { "ingress" }.into(),
                    identity,
                    protocol,
                    port,
                    port_prefix_len: bits,
                    deny,
                    proxy_port: 0,
                    auth_type: if deny { 0 } else { auth_type },
                    auth_explicit: explicit && auth_type != 0 && !deny,
                    precedence,
                    cookie: 0,
                }
            },
        )
}

fn authentications() -> impl Strategy<Value = Vec<Authentication>> {
    let identity = || select(vec![1u32, 2, 1001, 1001, 1002, 1002, 2001]);
    let one = (identity(), identity(), select(vec!["", "", "192.0.2.3"])).prop_map(
        |(local_identity, remote_identity, node)| Authentication {
            local_identity,
            remote_identity,
            remote_node: node.into(),
            auth_type: 1,
            expires: u64::MAX,
        },
    );
    vec(one, 0..6).prop_map(|mut all| {
        all.sort_by_key(|it| (it.local_identity, it.remote_identity, it.remote_node.clone()));
        all.dedup();
        all
    })
}

fn egress_gateways() -> impl Strategy<Value = Vec<EgressGateway>> {
    let rule = (
        select(vec!["10.0.0.1/32", "10.0.2.1/32", "10.0.0.0/24"]),
        select(vec!["198.51.100.0/24", "0.0.0.0/0", "8.8.8.8/32"]),
        select(vec![
            "missing",
            "excluded",
            "192.0.2.1",
            "192.0.2.1",
            "192.0.2.3",
            "192.0.2.3",
        ]),
        text(&[&OWN4[..2]]),
        proptest::bool::weighted(0.85),
    )
        .prop_map(
            |(source, destination, gateway, egress_ip, has_ip)| EgressGateway {
                source: source.into(),
                destination: destination.into(),
                gateway: gateway.into(),
                egress_ip: if has_ip { egress_ip } else { String::new() },
            },
        );
    weighted(0.25, vec(rule, 1..3)).prop_map(|rules| {
        let mut rules = rules.unwrap_or_default();
        rules.sort_by_key(|it| (it.source.clone(), it.destination.clone()));
        rules.dedup_by_key(|it| (it.source.clone(), it.destination.clone()));
        rules
    })
}
