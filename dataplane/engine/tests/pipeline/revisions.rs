//! What a change of the tables means for connections that live: what concerns them is seen by their next packet, what does
//! not costs them nothing (specification, 2.3 and 2.6: policy holds for established connections, too).

use octoplane_packet::HeapPool;
use octoplane_tables::model::{
    BackendState, Change, Direction, EgressGateway, EgressGatewayRule, EgressKey, FrontendType, IpcacheEntry,
    Node, Policy, PolicyEntry, PolicyKey, PolicyMode, PolicyValue, Protocol, RouteTarget, Routing, Service,
    ServiceBackend, ServiceFrontend, Tunnel, TunnelProtocol,
};

use crate::common::bytes::{be16, ip};
use crate::common::flows::{end, ends, packet};
use crate::common::*;
use crate::overlay::{PEER, PEER4, tunnelled};

const SYN: u8 = 2;
const ACK: u8 = 16;
/// Endpoint 1 to endpoint 2 and to an endpoint of another node, in both families.
const HERE: [(&str, &str); 2] = [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")];
const AWAY: [(&str, &str); 2] = [("10.0.0.1", "10.1.0.7"), ("fd00::1", "fd01::7")];
const SERVICE: [(&str, &str, &str); 2] = [
    ("10.0.0.1", "10.96.0.1", "10.1.0.7"),
    ("fd00::1", "fd96::1", "fd01::7"),
];

/// To a service from another port than to its backend: both connections have the same answers otherwise.
fn there(pair: (&str, &str), flags: u8) -> Vec<u8> {
    let through = SERVICE.iter().any(|(_, vip, _)| pair.1 == *vip);
    let port = 4000 + u16::from(through);
    packet(6, (pair.0, port), (pair.1, 80), flags, (OURS[0], EP1))
}

fn back(pair: (&str, &str), flags: u8) -> Vec<u8> {
    packet(6, (pair.1, 80), (pair.0, 4000), flags, (OURS[1], EP2))
}

/// Everything that the connections of these tests need: a node with tunnels, policies that allow them, and services.
fn lab() -> Lab<HeapPool> {
    let mut lab = tunnelled(TunnelProtocol::Vxlan, PEER4);
    lab.apply(vec![
        policy(1, Direction::Egress, &[5000, 1002, 1003]),
        policy(2, Direction::Ingress, &[1001]),
        ipcache("10.1.0.7/32", 5000, Some(PEER4)),
        ipcache("fd01::7/128", 5000, Some(PEER4)),
        service("ns/svc", SERVICE[0].1, &[SERVICE[0].2]),
        service("ns/svc6", SERVICE[1].1, &[SERVICE[1].2]),
    ]);
    lab
}

fn policy(endpoint: u32, direction: Direction, identities: &[u32]) -> Change {
    Change::PutPolicy(Policy {
        endpoint,
        enforce_ingress: direction == Direction::Ingress,
        enforce_egress: direction == Direction::Egress,
        audit: false,
        entries: identities
            .iter()
            .map(|&identity| PolicyEntry {
                key: PolicyKey {
                    direction,
                    identity,
                    protocol: 6,
                    port: 80,
                    port_prefix_len: 16,
                },
                value: PolicyValue {
                    precedence: 0xffff_ff01,
                    ..PolicyValue::default()
                },
            })
            .collect(),
    })
}

fn ipcache(prefix: &str, identity: u32, tunnel: Option<&str>) -> Change {
    Change::PutIpcache(IpcacheEntry {
        prefix: prefix.parse().unwrap(),
        identity,
        tunnel: tunnel.map(ip),
        key: 0,
        skip_tunnel: false,
    })
}

fn service(name: &str, addr: &str, backends: &[&str]) -> Change {
    let mut service = Service::new(name, Protocol::Tcp);
    service.frontends.push(ServiceFrontend {
        addr: ip(addr),
        port: 80,
        kind: FrontendType::ClusterIp,
    });
    service.backends = backends
        .iter()
        .map(|addr| ServiceBackend {
            addr: ip(addr),
            port: 80,
            weight: 1,
            state: BackendState::Active,
            local: false,
        })
        .collect();
    Change::PutService(Box::new(service))
}

fn node(policy_mode: PolicyMode) -> Change {
    Change::PutNode(Box::new(Node {
        routing: Routing::Tunnel,
        tunnel: Tunnel {
            local4: Some(OWN4.parse().unwrap()),
            local6: Some(OWN6.parse().unwrap()),
            ..Tunnel::default()
        },
        policy_mode,
        ..Node::default()
    }))
}

/// Sends a packet that must come through the fast path.
#[track_caller]
fn fast(lab: &mut Lab<HeapPool>, port: u16, frame: &[u8]) -> (u16, Vec<u8>) {
    let outcome = lab.one(port, frame);
    assert_eq!((outcome.fast, outcome.slow), (1, 0), "{outcome:?}");
    let (port, sent) = outcome.only();
    (port, sent.to_vec())
}

/// Begins a connection and has it decided for good.
#[track_caller]
fn establish(lab: &mut Lab<HeapPool>, pair: (&str, &str)) {
    for flags in [SYN, ACK] {
        lab.one(POD0, &there(pair, flags)).only();
    }
    fast(lab, POD0, &there(pair, ACK));
}

#[test]
fn what_does_not_concern_a_connection_costs_it_nothing() {
    let mut lab = lab();
    for pair in HERE {
        establish(&mut lab, pair);
        lab.one(POD1, &back(pair, SYN | ACK)).only();
    }
    for pair in AWAY {
        establish(&mut lab, pair);
    }
    for (client, vip, _) in SERVICE {
        establish(&mut lab, (client, vip));
    }
    let egress = |source: &str| EgressKey {
        source: source.parse().unwrap(),
        destination: "0.0.0.0/0".parse().unwrap(),
    };
    let changes = [
        neighbour("192.0.2.77", Some([2, 0, 0, 0, 1, 77])),
        neighbour("2001:db8::77", Some([2, 0, 0, 0, 1, 77])),
        neighbour("192.0.2.77", None),
        endpoint(4, POD1, [2, 0, 0, 0, 0, 4], &["10.0.0.4", "fd00::4"]),
        endpoint(3, POD1, [2, 0, 0, 0, 0, 33], &["10.0.0.3", "fd00::3"]),
        Change::RemoveEndpoint { id: 4 },
        route("10.77.0.0/16", via("192.0.2.254"), None),
        route("10.0.1.0/24", via("192.0.2.254"), None),
        route("fd77::/64", via("2001:db8::fe"), None),
        ipcache("10.1.0.8/32", 5001, Some(PEER4)),
        ipcache("fd01::8/128", 5001, Some(PEER4)),
        ipcache("10.1.0.8/32", 5002, Some("192.0.2.10")),
        ipcache("10.1.1.0/24", 5003, Some("192.0.2.10")),
        Change::RemoveIpcache {
            prefix: "10.1.0.8/32".parse().unwrap(),
        },
        policy(3, Direction::Ingress, &[1001]),
        policy(77, Direction::Egress, &[]),
        service("ns/other", "10.96.0.2", &["10.1.0.8"]),
        service("ns/other", "10.96.0.2", &["10.1.0.7", "10.1.0.8"]),
        Change::RemoveService {
            name: "ns/other".into(),
        },
        Change::PutEgressGateway(EgressGatewayRule {
            key: egress("10.0.0.3/32"),
            gateway: EgressGateway::Node(ip(PEER4)),
            egress_ip: None,
        }),
    ];
    for change in changes {
        let text = format!("{change:?}");
        let before = lab.store.state().revision();
        lab.apply(vec![change]);
        assert_eq!(lab.store.state().revision(), before + 1, "{text}");
        let mut frames: Vec<(u16, Vec<u8>)> = Vec::new();
        for pair in HERE {
            frames.push((POD0, there(pair, ACK)));
            frames.push((POD1, back(pair, ACK)));
        }
        frames.extend(AWAY.map(|pair| (POD0, there(pair, ACK))));
        frames.extend(SERVICE.map(|(client, vip, _)| (POD0, there((client, vip), ACK))));
        for (port, frame) in frames {
            let outcome = lab.one(port, &frame);
            outcome.only();
            assert_eq!((outcome.fast, outcome.slow), (1, 0), "{text}");
        }
    }
}

/// However many changes there were since its last packet.
#[test]
fn a_connection_that_paused_goes_on() {
    let mut lab = lab();
    for pair in HERE {
        establish(&mut lab, pair);
    }
    for n in 0..1000 {
        lab.apply(vec![ipcache(
            &format!("10.200.{}.{}/32", n / 250, n % 250),
            6000,
            None,
        )]);
    }
    for pair in HERE {
        fast(&mut lab, POD0, &there(pair, ACK));
        lab.now += SECOND;
        fast(&mut lab, POD0, &there(pair, ACK));
    }
}

#[test]
fn either_sides_policy_cuts_and_lets_go_on() {
    for (allow, revoke) in [
        (
            policy(1, Direction::Egress, &[1002]),
            policy(1, Direction::Egress, &[9]),
        ),
        (
            policy(2, Direction::Ingress, &[1001]),
            policy(2, Direction::Ingress, &[9]),
        ),
    ] {
        for pair in HERE {
            let mut lab = lab();
            establish(&mut lab, pair);
            lab.apply(vec![revoke.clone()]);
            assert_eq!(lab.one(POD0, &there(pair, ACK)).dropped(), 133);
            assert_eq!(lab.one(POD0, &there(pair, ACK)).dropped(), 133);
            // Replies are exempt.
            lab.one(POD1, &back(pair, ACK)).only();
            lab.apply(vec![allow.clone()]);
            lab.one(POD0, &there(pair, ACK)).only();
            fast(&mut lab, POD0, &there(pair, ACK));
        }
    }
}

#[test]
fn single_entries_of_a_policy_count() {
    let mut lab = lab();
    establish(&mut lab, HERE[0]);
    lab.apply(vec![Change::RemovePolicyEntries {
        endpoint: 2,
        keys: vec![PolicyKey {
            direction: Direction::Ingress,
            identity: 1001,
            protocol: 6,
            port: 80,
            port_prefix_len: 16,
        }],
    }]);
    assert_eq!(lab.one(POD0, &there(HERE[0], ACK)).dropped(), 133);
}

#[test]
fn the_nodes_policy_mode_counts() {
    let mut lab = lab();
    lab.apply(vec![Change::RemovePolicy { endpoint: 1 }]);
    establish(&mut lab, AWAY[0]);
    lab.apply(vec![node(PolicyMode::Always)]);
    assert_eq!(lab.one(POD0, &there(AWAY[0], ACK)).dropped(), 133);
    lab.apply(vec![node(PolicyMode::Never)]);
    lab.one(POD0, &there(AWAY[0], ACK)).only();
}

/// Directly, and as a service's backend.
#[test]
fn another_identity_of_the_other_side_is_asked_about() {
    for (address, prefix) in [
        (AWAY[0].1, "10.1.0.7/32"),
        (AWAY[1].1, "fd01::7/128"),
        (AWAY[0].1, "10.1.0.0/25"),
        (AWAY[0].1, "10.1.0.0/24"),
    ] {
        let v6 = address.contains(':');
        let (direct, through) = (AWAY[usize::from(v6)], SERVICE[usize::from(v6)]);
        let mut lab = lab();
        if !prefix.ends_with("/32") && !prefix.ends_with("/128") {
            // What is known by a longer prefix does not change with a shorter one.
            lab.apply(vec![Change::RemoveIpcache {
                prefix: "10.1.0.7/32".parse().unwrap(),
            }]);
        }
        establish(&mut lab, direct);
        establish(&mut lab, (through.0, through.1));
        lab.apply(vec![ipcache(prefix, 5009, Some(PEER4))]);
        for pair in [direct, (through.0, through.1)] {
            assert_eq!(lab.one(POD0, &there(pair, ACK)).dropped(), 133, "{prefix}");
        }
        lab.apply(vec![ipcache(prefix, 5000, Some(PEER4))]);
        for pair in [direct, (through.0, through.1)] {
            lab.one(POD0, &there(pair, ACK)).only();
            fast(&mut lab, POD0, &there(pair, ACK));
        }
    }
}

/// The sender's own identity, which the receiver's policy asks for, and which the tunnel carries.
#[test]
fn another_identity_of_the_sender_is_asked_about() {
    let mut lab = lab();
    establish(&mut lab, HERE[0]);
    establish(&mut lab, AWAY[0]);
    let mut changed = endpoint(1, POD0, EP1, &["10.0.0.1", "fd00::1"]);
    if let Change::PutEndpoint(endpoint) = &mut changed {
        endpoint.identity = 1077;
    }
    lab.apply(vec![changed]);
    assert_eq!(lab.one(POD0, &there(HERE[0], ACK)).dropped(), 133);
    let outcome = lab.one(POD0, &there(AWAY[0], ACK));
    assert_eq!(&outcome.only().1[46..49], &[0, 4, 0x35]);
}

#[test]
fn endpoints_that_move_are_followed() {
    for pair in HERE {
        let mut lab = lab();
        establish(&mut lab, pair);
        let mac = [2, 0, 0, 0, 0, 0x22];
        lab.apply(vec![endpoint(2, POD1, mac, &["10.0.0.2", "fd00::2"])]);
        let outcome = lab.one(POD0, &there(pair, ACK));
        assert_eq!((outcome.only().0, &outcome.only().1[..6]), (POD1, &mac[..]));
        // Its address becomes another endpoint's.
        lab.apply(vec![
            endpoint(2, POD1, mac, &["10.0.0.22", "fd00::22"]),
            endpoint(3, POD1, EP3, &["10.0.0.3", "fd00::3", pair.1]),
        ]);
        let outcome = lab.one(POD0, &there(pair, ACK));
        assert_eq!((outcome.only().0, &outcome.only().1[..6]), (POD1, &EP3[..]));
    }
}

#[test]
fn an_endpoint_that_is_gone_is_not_reached_and_does_not_send() {
    let mut lab = lab();
    establish(&mut lab, HERE[0]);
    establish(&mut lab, AWAY[0]);
    lab.apply(vec![Change::RemoveEndpoint { id: 2 }]);
    // By the default route, under the policy on the world.
    assert_eq!(lab.one(POD0, &there(HERE[0], ACK)).dropped(), 133);
    lab.apply(vec![Change::RemoveEndpoint { id: 1 }]);
    assert_eq!(lab.one(POD0, &there(AWAY[0], ACK)).dropped(), 132);
}

/// Routes to what is outside: those in use, longer ones, and what the neighbours are.
#[test]
fn routes_and_neighbours_move_connections() {
    for (pair, hop, longer, wide) in [
        (
            ("10.0.0.3", "198.51.100.7"),
            "192.0.2.253",
            ["198.51.100.7/32", "198.51.100.0/25", "198.51.100.0/24"],
            ["198.51.0.0/17", "198.0.0.0/8", "0.0.0.0/0"],
        ),
        (
            ("fd00::3", "2001:db8:ffff::7"),
            "2001:db8::fd",
            [
                "2001:db8:ffff::7/128",
                "2001:db8:ffff::/120",
                "2001:db8:ffff::/64",
            ],
            ["2001:db8:ff00::/40", "2001::/16", "::/0"],
        ),
    ] {
        for prefix in longer.into_iter().chain(wide) {
            let mut lab = crate::common::lab();
            let frame = packet(6, (pair.0, 4000), (pair.1, 80), ACK, (OURS[1], EP3));
            for _ in 0..2 {
                lab.one(POD1, &frame).only();
            }
            let (_, sent) = fast(&mut lab, POD1, &frame);
            assert_eq!(&sent[..6], &ROUTER);
            let other = [2, 0, 0, 0, 1, 0xfd];
            lab.apply(vec![neighbour(hop, Some(other)), route(prefix, via(hop), None)]);
            let outcome = lab.one(POD1, &frame);
            assert_eq!(&outcome.only().1[..6], &other, "{prefix}");
            // A neighbour that changes its address is followed without a new decision.
            let third = [2, 0, 0, 0, 1, 0xfc];
            lab.apply(vec![neighbour(hop, Some(third))]);
            let (_, sent) = fast(&mut lab, POD1, &frame);
            assert_eq!(&sent[..6], &third, "{prefix}");
            lab.apply(vec![route(prefix, RouteTarget::Blackhole, None)]);
            assert_eq!(lab.one(POD1, &frame).drop_count(), 1, "{prefix}");
        }
    }
}

#[test]
fn tunnels_that_move_are_followed() {
    for (pair, prefix) in AWAY.into_iter().zip(["10.1.0.7/32", "fd01::7/128"]) {
        let mut lab = lab();
        establish(&mut lab, pair);
        // The peer lives on another node, on the same link.
        let other = [2, 0, 0, 0, 1, 10];
        lab.apply(vec![
            neighbour("192.0.2.10", Some(other)),
            ipcache(prefix, 5000, Some("192.0.2.10")),
        ]);
        let outcome = lab.one(POD0, &there(pair, ACK));
        let sent = outcome.only().1;
        assert_eq!((&sent[..6], &sent[30..34]), (&other[..], &[192, 0, 2, 10][..]));
        let (_, sent) = fast(&mut lab, POD0, &there(pair, ACK));
        assert_eq!(&sent[30..34], &[192, 0, 2, 10]);
        // The node's Ethernet address changes, then the way to it.
        let third = [2, 0, 0, 0, 1, 11];
        lab.apply(vec![neighbour("192.0.2.10", Some(third))]);
        assert_eq!(&lab.one(POD0, &there(pair, ACK)).only().1[..6], &third);
        lab.apply(vec![route("192.0.2.10/32", via("192.0.2.254"), None)]);
        let outcome = lab.one(POD0, &there(pair, ACK));
        let sent = outcome.only().1;
        assert_eq!((&sent[..6], &sent[30..34]), (&ROUTER[..], &[192, 0, 2, 10][..]));
        // No tunnel any more.
        lab.apply(vec![ipcache(prefix, 5000, None)]);
        let outcome = lab.one(POD0, &there(pair, ACK));
        let sent = outcome.only().1;
        assert_eq!(sent.len(), there(pair, ACK).len());
        assert_eq!(&sent[..6], &ROUTER);
        // And one again.
        lab.apply(vec![ipcache(prefix, 5000, Some(PEER4))]);
        let outcome = lab.one(POD0, &there(pair, ACK));
        assert_eq!(
            (&outcome.only().1[..6], be16(outcome.only().1, 36)),
            (&PEER[..], 8472)
        );
    }
}

#[test]
fn the_nodes_settings_of_tunnels_count() {
    let mut lab = lab();
    establish(&mut lab, AWAY[0]);
    let mut settings = Node {
        routing: Routing::Tunnel,
        ..Node::default()
    };
    settings.tunnel = Tunnel {
        protocol: TunnelProtocol::Geneve,
        port: 6081,
        local4: Some("192.0.2.3".parse().unwrap()),
        local6: None,
    };
    lab.apply(vec![Change::PutNode(Box::new(settings.clone()))]);
    let outcome = lab.one(POD0, &there(AWAY[0], ACK));
    let sent = outcome.only().1;
    assert_eq!(
        (&sent[26..30], be16(sent, 36), &sent[42..46]),
        (&[192, 0, 2, 3][..], 6081, &[0, 0, 0x65, 0x58][..])
    );
    settings.routing = Routing::Native;
    lab.apply(vec![Change::PutNode(Box::new(settings))]);
    let outcome = lab.one(POD0, &there(AWAY[0], ACK));
    assert_eq!(outcome.only().1.len(), there(AWAY[0], ACK).len());
}

/// A change of the service keeps its connections where they are, as long as their backend is one of it (3.3).
#[test]
fn a_service_that_changes_keeps_its_connections() {
    for (client, vip, backend) in SERVICE {
        let v6 = client.contains(':');
        let (name, other) = match v6 {
            false => ("ns/svc", "10.1.0.8"),
            true => ("ns/svc6", "fd01::8"),
        };
        let mut lab = lab();
        establish(&mut lab, (client, vip));
        let ends_of = |lab: &mut Lab<HeapPool>| {
            let outcome = lab.one(POD0, &there((client, vip), ACK));
            ends(&outcome.only().1[50..]).1
        };
        for _ in 0..20 {
            lab.apply(vec![service(name, vip, &[other, backend])]);
            assert_eq!(ends_of(&mut lab), end(backend, 80));
            lab.apply(vec![service(name, vip, &[backend])]);
            assert_eq!(ends_of(&mut lab), end(backend, 80));
        }
        lab.apply(vec![service(name, vip, &[other])]);
        assert_eq!(ends_of(&mut lab), end(other, 80));
    }
}

#[test]
fn rates_and_gateways_count_for_connections_that_live() {
    let mut lab = crate::common::lab();
    let world = ("10.0.0.1", "198.51.100.7");
    establish(&mut lab, world);
    let mut limited = endpoint(1, POD0, EP1, &["10.0.0.1", "fd00::1"]);
    if let Change::PutEndpoint(endpoint) = &mut limited {
        endpoint.egress_rate = 1;
    }
    lab.apply(vec![limited]);
    let dropped: u64 = (0..2000)
        .map(|_| lab.one(POD0, &there(world, ACK)).drop_count())
        .sum();
    assert!(dropped > 0);

    let mut lab = tunnelled(TunnelProtocol::Vxlan, PEER4);
    establish(&mut lab, world);
    let key = EgressKey {
        source: "10.0.0.1/32".parse().unwrap(),
        destination: "0.0.0.0/0".parse().unwrap(),
    };
    let rule = |node: &str| {
        Change::PutEgressGateway(EgressGatewayRule {
            key,
            gateway: EgressGateway::Node(ip(node)),
            egress_ip: None,
        })
    };
    lab.apply(vec![rule(PEER4)]);
    let outcome = lab.one(POD0, &there(world, ACK));
    assert_eq!(&outcome.only().1[30..34], &[192, 0, 2, 9]);
    let other = [2, 0, 0, 0, 1, 10];
    lab.apply(vec![neighbour("192.0.2.10", Some(other)), rule("192.0.2.10")]);
    for _ in 0..2 {
        let outcome = lab.one(POD0, &there(world, ACK));
        let sent = outcome.only().1;
        assert_eq!((&sent[..6], &sent[30..34]), (&other[..], &[192, 0, 2, 10][..]));
    }
    lab.apply(vec![route("192.0.2.10/32", via("192.0.2.254"), None)]);
    assert_eq!(&lab.one(POD0, &there(world, ACK)).only().1[..6], &ROUTER);
    lab.apply(vec![Change::RemoveEgressGateway { key }]);
    assert_eq!(
        lab.one(POD0, &there(world, ACK)).only().1.len(),
        there(world, ACK).len()
    );
}
