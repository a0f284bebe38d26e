//! The node itself as a party: its policy, its own services, its way to other nodes' endpoints, its proxies
//! (specification, 1.5, 1.7, 1.8, 4).

use octoplane_engine::Direction as Towards;
use octoplane_packet::HeapPool;
use octoplane_tables::model::{
    BackendState, Change, Direction, EgressGateway, EgressGatewayRule, EgressKey, FrontendType, IpcacheEntry,
    Node, Policy, PolicyEntry, PolicyKey, PolicyValue, Protocol, Routing, Service, ServiceBackend,
    ServiceFrontend, Tunnel, TunnelProtocol,
};

use crate::common::bytes::{be16, ip};
use crate::common::flows::{end, ends, packet};
use crate::common::*;
use crate::overlay::{PEER, PEER4, wrapped};

const SYN: u8 = 2;
const ACK: u8 = 16;
/// Bytes of an outer IPv4 packet with VXLAN.
const OUTER: usize = 14 + 20 + 8 + 8;
const HOST_ENDPOINT: u32 = 0;
/// What the node knows nothing of, as it has both families.
const WORLD_IPV4: u32 = 9;

/// With a host port, in a cluster with tunnels; the node has the uplink's addresses.
fn node() -> Lab<HeapPool> {
    let mut lab = Plan {
        host: true,
        ..Plan::default()
    }
    .lab();
    let remote = |prefix: &str| {
        Change::PutIpcache(IpcacheEntry {
            prefix: prefix.parse().unwrap(),
            identity: 5000,
            tunnel: Some(ip(PEER4)),
            key: 0,
            skip_tunnel: false,
        })
    };
    lab.apply(vec![
        Change::PutNode(Box::new(Node {
            addresses: vec![ip(OWN4), ip(OWN6)],
            routing: Routing::Tunnel,
            tunnel: Tunnel {
                protocol: TunnelProtocol::Vxlan,
                port: 8472,
                local4: Some(OWN4.parse().unwrap()),
                local6: None,
            },
            ..Node::default()
        })),
        neighbour(PEER4, Some(PEER)),
        remote("10.1.0.0/16"),
        remote("fd01::/64"),
    ]);
    lab
}

fn allow(direction: Direction, identity: u32, port: u16, proxy_port: u16) -> PolicyEntry {
    PolicyEntry {
        key: PolicyKey {
            direction,
            identity,
            protocol: 6,
            port,
            port_prefix_len: 16,
        },
        value: PolicyValue {
            precedence: 0xffff_ff01,
            proxy_port,
            ..PolicyValue::default()
        },
    }
}

fn policy(endpoint: u32, entries: Vec<PolicyEntry>) -> Change {
    let names = |direction| {
        entries
            .iter()
            .any(|entry: &PolicyEntry| entry.key.direction == direction)
    };
    Change::PutPolicy(Policy {
        endpoint,
        enforce_ingress: names(Direction::Ingress),
        enforce_egress: names(Direction::Egress),
        audit: false,
        entries,
    })
}

/// 1.2 step 12: what an endpoint sends to the node, or through its kernel, needs a policy that lets it.
#[test]
fn an_endpoints_policy_holds_towards_the_kernel() {
    let mut lab = node();
    // Identity 1 is the host.
    lab.apply(vec![policy(1, vec![allow(Direction::Egress, 1, 22, 0)])]);
    for (client, own) in [("10.0.0.1", OWN4), ("fd00::1", OWN6)] {
        let frame = |port| packet(6, (client, 4000), (own, port), SYN, (OURS[0], EP1));
        assert_eq!(lab.one(POD0, &frame(22)).only().0, HOST);
        assert_eq!(lab.one(POD0, &frame(23)).drops, vec![(133, Towards::Egress, 1)]);
    }
}

/// The host firewall: 1.5 step 9, 1.6 step 4.
#[test]
fn the_nodes_own_policy() {
    let mut lab = node();
    let ssh = |port: u16, flags| packet(6, ("198.51.100.7", 4000), (OWN4, port), flags, (OURS[2], ROUTER));
    assert_eq!(lab.one(UPLINK, &ssh(22, SYN)).only().0, HOST);
    lab.apply(vec![policy(
        HOST_ENDPOINT,
        vec![
            allow(Direction::Ingress, WORLD_IPV4, 22, 0),
            allow(Direction::Egress, WORLD_IPV4, 443, 0),
        ],
    )]);
    for flags in [SYN, ACK] {
        assert_eq!(lab.one(UPLINK, &ssh(22, flags)).only().0, HOST);
        // What it answers passes, whatever its policy for sending says.
        let back = packet(
            6,
            (OWN4, 22),
            ("198.51.100.7", 4000),
            SYN | ACK,
            (OURS[3], KERNEL),
        );
        assert_eq!(lab.one(HOST, &back).only().0, UPLINK);
    }
    assert_eq!(
        lab.one(UPLINK, &ssh(23, SYN)).drops,
        vec![(133, Towards::Ingress, 1)]
    );
    // What it sends itself.
    let out = |port: u16| packet(6, (OWN4, 5000), ("198.51.100.8", port), SYN, (OURS[3], KERNEL));
    assert_eq!(lab.one(HOST, &out(443)).only().0, UPLINK);
    assert_eq!(lab.one(HOST, &out(80)).drops, vec![(133, Towards::Ingress, 1)]);
    // And endpoints that talk to it.
    let pod = packet(6, ("10.0.0.1", 4000), (OWN4, 22), SYN, (OURS[0], EP1));
    assert_eq!(lab.one(POD0, &pod).drops, vec![(133, Towards::Egress, 1)]);
}

/// Once the policy is gone the node is open again.
#[test]
fn without_a_policy_the_node_is_open() {
    let mut lab = node();
    lab.apply(vec![policy(
        HOST_ENDPOINT,
        vec![allow(Direction::Ingress, WORLD_IPV4, 22, 0)],
    )]);
    let frame = packet(6, ("198.51.100.7", 4000), (OWN4, 23), SYN, (OURS[2], ROUTER));
    assert_eq!(lab.one(UPLINK, &frame).drops, vec![(133, Towards::Ingress, 1)]);
    lab.apply(vec![Change::RemovePolicy {
        endpoint: HOST_ENDPOINT,
    }]);
    assert_eq!(lab.one(UPLINK, &frame).only().0, HOST);
}

/// A service whose backend is a process of the node, as the API server's is.
#[test]
fn a_backend_on_the_node() {
    for (vip, client, own) in [("10.96.0.1", "10.0.0.1", OWN4), ("fd96::1", "fd00::1", OWN6)] {
        let mut lab = node();
        let mut service = Service::new("default/kubernetes:https", Protocol::Tcp);
        service.frontends.push(ServiceFrontend {
            addr: ip(vip),
            port: 443,
            kind: FrontendType::ClusterIp,
        });
        service.backends.push(ServiceBackend {
            addr: ip(own),
            port: 6443,
            weight: 1,
            state: BackendState::Active,
            local: false,
        });
        lab.apply(vec![Change::PutService(Box::new(service))]);
        for flags in [SYN, ACK] {
            let frame = packet(6, (client, 4000), (vip, 443), flags, (OURS[0], EP1));
            let outcome = lab.one(POD0, &frame);
            let (port, sent) = outcome.only();
            assert_eq!((port, ends(sent)), (HOST, (end(client, 4000), end(own, 6443))));
            let back = packet(6, (own, 6443), (client, 4000), SYN | ACK, (OURS[3], KERNEL));
            let outcome = lab.one(HOST, &back);
            let (port, sent) = outcome.only();
            assert_eq!((port, ends(sent)), (POD0, (end(vip, 443), end(client, 4000))));
        }
    }
}

/// `from_host` and `to_host` through the tunnel: 1.5, 1.7. Other nodes see it as remote-node, 6.
#[test]
fn the_node_and_another_nodes_endpoint() {
    for (own, remote) in [(OWN4, "10.1.0.7"), (OWN6, "fd01::7")] {
        let mut lab = node();
        for flags in [SYN, ACK, ACK] {
            let frame = packet(6, (own, 4000), (remote, 80), flags, (OURS[3], KERNEL));
            let outcome = lab.one(HOST, &frame);
            let (port, sent) = outcome.only();
            assert_eq!((port, &sent[..6], be16(sent, 36)), (UPLINK, &PEER[..], 8472));
            assert_eq!(sent[46..49], [0, 0, 6]);
            assert_eq!(ends(&sent[OUTER..]), (end(own, 4000), end(remote, 80)));
            let back = packet(6, (remote, 80), (own, 4000), SYN | ACK, ([9; 6], [8; 6]));
            let outcome = lab.one(UPLINK, &wrapped(5000, TunnelProtocol::Vxlan, &back, 0));
            let (port, sent) = outcome.only();
            assert_eq!((port, ends(sent)), (HOST, (end(remote, 80), end(own, 4000))));
        }
    }
}

/// 1.8: policy sends a connection through a proxy on the node.
#[test]
fn through_a_proxy() {
    for (client, server, own) in [("10.0.0.1", "10.0.0.2", OWN4), ("fd00::1", "fd00::2", OWN6)] {
        for (endpoint, direction, identity) in [(1, Direction::Egress, 1002), (2, Direction::Ingress, 1001)] {
            let mut lab = node();
            lab.apply(vec![policy(
                endpoint,
                vec![allow(direction, identity, 80, 15_001)],
            )]);
            for flags in [SYN, ACK] {
                let frame = packet(6, (client, 4000), (server, 80), flags, (OURS[0], EP1));
                let outcome = lab.one(POD0, &frame);
                let (port, sent) = outcome.only();
                assert_eq!((port, ends(sent)), (HOST, (end(client, 4000), end(own, 15_001))));
                let back = packet(6, (own, 15_001), (client, 4000), SYN | ACK, (OURS[3], KERNEL));
                let outcome = lab.one(HOST, &back);
                let (port, sent) = outcome.only();
                assert_eq!((port, ends(sent)), (POD0, (end(server, 80), end(client, 4000))));
            }
            // Once it need not, it goes there itself.
            lab.apply(vec![policy(endpoint, vec![allow(direction, identity, 80, 0)])]);
            let frame = packet(6, (client, 4000), (server, 80), ACK, (OURS[0], EP1));
            let outcome = lab.one(POD0, &frame);
            let (port, sent) = outcome.only();
            assert_eq!((port, ends(sent)), (POD1, (end(client, 4000), end(server, 80))));
            // And if it may not at all, it does not.
            lab.apply(vec![policy(endpoint, vec![allow(direction, identity, 81, 0)])]);
            assert_eq!(lab.one(POD0, &frame).drops, vec![(133, Towards::Egress, 1)]);
        }
    }
}

#[test]
fn a_proxied_connection_is_cut_when_policy_changes() {
    let mut lab = node();
    lab.apply(vec![policy(1, vec![allow(Direction::Egress, 1002, 80, 15_001)])]);
    let frame = packet(6, ("10.0.0.1", 4000), ("10.0.0.2", 80), SYN, (OURS[0], EP1));
    assert_eq!(lab.one(POD0, &frame).only().0, HOST);
    lab.apply(vec![policy(1, vec![allow(Direction::Egress, 1002, 81, 0)])]);
    assert_eq!(lab.one(POD0, &frame).drops, vec![(133, Towards::Egress, 1)]);
}

/// What has to go through a proxy is not let past it.
#[test]
fn without_a_way_to_a_proxy() {
    let mut lab = lab();
    lab.apply(vec![policy(1, vec![allow(Direction::Egress, 1002, 80, 15_001)])]);
    let frame = packet(6, ("10.0.0.1", 4000), ("10.0.0.2", 80), SYN, (OURS[0], EP1));
    assert_eq!(lab.one(POD0, &frame).drops, vec![(1006, Towards::Egress, 1)]);
}

/// What the node's own processes send to a service goes to any of its backends, as endpoints' does.
#[test]
fn the_node_as_a_client_of_services() {
    let mut lab = node();
    let mut service = Service::new("ns/svc:p", Protocol::Tcp);
    service.frontends.push(ServiceFrontend {
        addr: ip("10.96.0.10"),
        port: 80,
        kind: FrontendType::ClusterIp,
    });
    service.backends.push(ServiceBackend {
        addr: ip("10.0.0.2"),
        port: 8080,
        weight: 1,
        state: BackendState::Active,
        local: true,
    });
    lab.apply(vec![Change::PutService(Box::new(service))]);
    for flags in [SYN, ACK] {
        let frame = packet(6, (OWN4, 4000), ("10.96.0.10", 80), flags, (OURS[3], KERNEL));
        let outcome = lab.one(HOST, &frame);
        let (port, sent) = outcome.only();
        assert_eq!(
            (port, ends(sent)),
            (POD1, (end(OWN4, 4000), end("10.0.0.2", 8080)))
        );
        let back = packet(6, ("10.0.0.2", 8080), (OWN4, 4000), SYN | ACK, (OURS[1], EP2));
        let outcome = lab.one(POD1, &back);
        let (port, sent) = outcome.only();
        assert_eq!(
            (port, ends(sent)),
            (HOST, (end("10.96.0.10", 80), end(OWN4, 4000)))
        );
    }
}

/// 1.5 step 9: what answers somebody on the network who claims the node's address answers nothing that the node has said.
#[test]
fn answers_to_who_claims_the_nodes_address_are_for_its_policy() {
    let mut lab = node();
    let claimed = packet(6, (OWN4, 4000), ("10.0.0.1", 80), SYN, (OURS[2], ROUTER));
    let own = packet(6, (OWN4, 4001), ("10.0.0.1", 80), SYN, (OURS[3], KERNEL));
    let answer = |port| packet(6, ("10.0.0.1", 80), (OWN4, port), SYN | ACK, (OURS[0], EP1));
    lab.apply(vec![policy(
        HOST_ENDPOINT,
        vec![
            allow(Direction::Ingress, WORLD_IPV4, 22, 0),
            allow(Direction::Egress, 0, 80, 0),
        ],
    )]);
    assert_eq!(lab.one(UPLINK, &claimed).only().0, POD0);
    for _ in 0..2 {
        assert_eq!(
            lab.one(POD0, &answer(4000)).drops,
            vec![(133, Towards::Egress, 1)]
        );
    }
    // What it has said itself is answered.
    assert_eq!(lab.one(HOST, &own).only().0, POD0);
    assert_eq!(lab.one(POD0, &answer(4001)).only().0, HOST);
    // And without a policy nobody asks.
    lab.apply(vec![Change::RemovePolicy {
        endpoint: HOST_ENDPOINT,
    }]);
    assert_eq!(lab.one(POD0, &answer(4000)).only().0, HOST);
}

/// 1.3 step 1: nor does what answers somebody who claims an endpoint's address answer that endpoint.
#[test]
fn answers_to_who_claims_an_endpoints_address_are_for_its_policy() {
    let mut lab = node();
    lab.apply(vec![policy(
        2,
        vec![allow(Direction::Ingress, WORLD_IPV4, 22, 0)],
    )]);
    let plain = packet(6, ("10.0.0.2", 4000), ("10.0.0.1", 80), SYN, (OURS[2], ROUTER));
    let tunnelled = wrapped(5000, TunnelProtocol::Vxlan, &plain, 0);
    let answer = packet(6, ("10.0.0.1", 80), ("10.0.0.2", 4000), SYN | ACK, (OURS[0], EP1));
    for claimed in [&plain, &tunnelled] {
        assert_eq!(lab.one(UPLINK, claimed).only().0, POD0);
        assert_eq!(lab.one(POD0, &answer).dropped(), 133);
    }
    // What it has said itself is answered.
    let own = packet(6, ("10.0.0.2", 4001), ("10.0.0.1", 80), SYN, (OURS[1], EP2));
    assert_eq!(lab.one(POD1, &own).only().0, POD0);
    let answer = packet(6, ("10.0.0.1", 80), ("10.0.0.2", 4001), SYN | ACK, (OURS[0], EP1));
    assert_eq!(lab.one(POD0, &answer).only().0, POD1);
}

/// 1.2 steps 9 and 12: a service comes before policy for who went to its address before, too.
#[test]
fn a_service_without_backends_comes_before_policy() {
    let mut lab = node();
    let frame = packet(6, ("10.0.0.1", 4000), ("10.96.0.10", 80), SYN, (OURS[0], EP1));
    lab.one(POD0, &frame).only();
    let mut service = Service::new("ns/svc:p", Protocol::Tcp);
    service.frontends.push(ServiceFrontend {
        addr: ip("10.96.0.10"),
        port: 80,
        kind: FrontendType::ClusterIp,
    });
    lab.apply(vec![
        Change::PutService(Box::new(service)),
        policy(1, vec![allow(Direction::Egress, 1, 22, 0)]),
    ]);
    assert_eq!(lab.one(POD0, &frame).drops, vec![(158, Towards::Egress, 1)]);
}

/// 1.7 step 6: what leaves the cluster here for another node's endpoint needs a route (169); the kernel does not get it.
#[test]
fn what_leaves_here_needs_a_route() {
    let mut lab = node();
    lab.apply(vec![Change::PutEgressGateway(EgressGatewayRule {
        key: EgressKey {
            source: "10.1.0.0/24".parse().unwrap(),
            destination: "0.0.0.0/0".parse().unwrap(),
        },
        gateway: EgressGateway::Node(ip(OWN4)),
        egress_ip: Some(ip(OWN4)),
    })]);
    let inner = packet(6, ("10.1.0.7", 4000), ("198.51.100.7", 80), SYN, ([7; 6], [9; 6]));
    let frame = wrapped(5000, TunnelProtocol::Vxlan, &inner, 0);
    assert_eq!(lab.one(UPLINK, &frame).only().0, UPLINK);
    lab.apply(vec![Change::RemoveRoute {
        prefix: "0.0.0.0/0".parse().unwrap(),
    }]);
    assert_eq!(lab.one(UPLINK, &frame).dropped(), 169);
}

/// 1.6 step 5: gateways are for endpoints; what the node sends, whatever its source, leaves from here.
#[test]
fn the_node_leaves_by_no_egress_gateway() {
    let mut lab = node();
    let mut service = Service::new("ns/svc:p", Protocol::Tcp);
    service.frontends.push(ServiceFrontend {
        addr: ip("10.96.0.10"),
        port: 80,
        kind: FrontendType::ClusterIp,
    });
    service.backends.push(ServiceBackend {
        addr: ip("198.51.100.9"),
        port: 8080,
        weight: 1,
        state: BackendState::Active,
        local: false,
    });
    lab.apply(vec![
        Change::PutService(Box::new(service)),
        Change::PutEgressGateway(EgressGatewayRule {
            key: EgressKey {
                source: "10.0.0.0/24".parse().unwrap(),
                destination: "0.0.0.0/0".parse().unwrap(),
            },
            gateway: EgressGateway::Missing,
            egress_ip: None,
        }),
    ]);
    let frame = packet(6, ("10.0.0.9", 4000), ("10.96.0.10", 80), SYN, (OURS[3], KERNEL));
    let outcome = lab.one(HOST, &frame);
    let (port, sent) = outcome.only();
    assert_eq!((port, ends(sent).1), (UPLINK, end("198.51.100.9", 8080)));
}
