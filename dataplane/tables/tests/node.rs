//! Settings of the node, egress gateways and rates, seen from a worker's side.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::net::IpAddr;

use common::{endpoint, ip, node, prefix, put_node, refusal, snapshot, store, store_with, v4, v6};
use octoplane_tables::model::{
    AuthKey, Authentication, Change, Dsr, DsrDispatch, EgressGateway, EgressGatewayRule, EgressKey,
    Forwarding, FrontendType, Node, Protocol, Routing, Service, ServiceFrontend, Tunnel, TunnelProtocol,
};
use octoplane_tables::{Action, Capacity, EgressRule, ErrorKind, Object, Rates, Store};

#[test]
fn settings_reach_the_workers() {
    let mut store = store();
    let before = snapshot(&store);
    assert_eq!(before.node().snat_min(), 32_768);
    assert!(!before.node().own4(v4("198.51.100.1")));
    let it = Node {
        masquerade4: Some("198.51.100.1".parse().unwrap()),
        native_cidrs: vec![prefix("10.0.0.0/8"), prefix("fd00::/8")],
        nodeport_max: 31_999,
        routing: Routing::Tunnel,
        tunnel: Tunnel {
            protocol: TunnelProtocol::Geneve,
            port: 6081,
            local4: Some("198.51.100.1".parse().unwrap()),
            local6: None,
        },
        ..node(&["198.51.100.1", "2001:db8:2::1"])
    };
    let events = store.apply(vec![put_node(it.clone())]).unwrap().events;
    assert!(matches!(&events[0].object, Object::Node(now) if **now == it));
    let now = snapshot(&store);
    let view = now.node();
    assert!(view.own4(v4("198.51.100.1")) && view.own6(v6("2001:db8:2::1")));
    assert!(view.native4(v4("10.255.0.1")) && !view.native4(v4("11.0.0.1")));
    assert!(view.native6(v6("fd00::1")) && !view.native6(v6("2001:db8::1")));
    assert!(view.is_nodeport(31_999) && !view.is_nodeport(32_000) && !view.is_nodeport(29_999));
    assert_eq!((view.snat_min(), view.masquerade6), (32_000, None));
    assert_eq!((view.tunnel, view.dual_stack), (it.tunnel, true));
    assert!(store.apply(vec![put_node(it)]).unwrap().events.is_empty());
    let gone = store.apply(vec![Change::RemoveNode]).unwrap().events;
    assert!(gone[0].removed);
    assert_eq!(snapshot(&store).node().snat_min(), 32_768);
    assert_eq!(
        refusal(&mut store, vec![Change::RemoveNode]),
        "changes[0]: node: not found"
    );
}

#[test]
fn the_nodes_addresses_are_the_hosts() {
    let mut store = store();
    store
        .apply(vec![put_node(node(&["198.51.100.1", "192.0.2.1"]))])
        .unwrap();
    let now = snapshot(&store);
    assert_eq!(now.route4(v4("198.51.100.1")).action, Action::Host);
    assert_eq!(now.route4(v4("192.0.2.1")).action, Action::Local, "a port's own");
    let error = refusal(
        &mut store,
        vec![Change::PutEndpoint(endpoint(7, &["198.51.100.1"]))],
    );
    assert!(error.contains("data plane's own"), "{error}");
    store.apply(vec![put_node(node(&["198.51.100.2"]))]).unwrap();
    let now = snapshot(&store);
    assert_eq!(now.route4(v4("198.51.100.1")).action, Action::None);
    assert_eq!(now.route4(v4("198.51.100.2")).action, Action::Host);
    store
        .apply(vec![Change::PutEndpoint(endpoint(7, &["198.51.100.1"]))])
        .unwrap();
    let error = store.apply(vec![put_node(node(&["198.51.100.1"]))]).unwrap_err();
    assert_eq!(error.error.kind(), ErrorKind::Conflict);
    assert_eq!(
        error.to_string(),
        "changes[0]: node: addresses: 198.51.100.1 belongs to endpoint 7"
    );
}

#[test]
fn bad_settings_are_refused() {
    let mut store = store();
    let with = |change: &dyn Fn(&mut Node)| {
        let mut it = node(&["198.51.100.1"]);
        change(&mut it);
        put_node(it)
    };
    for (change, expected) in [
        (
            with(&|it| it.addresses.push(ip("198.51.100.1"))),
            "node: addresses holds 198.51.100.1 twice",
        ),
        (
            with(&|it| it.addresses.push(ip("127.0.0.1"))),
            "node: addresses holds 127.0.0.1, which is not a node's: it is a loopback address",
        ),
        (
            with(&|it| it.addresses.push(ip("169.254.1.1"))),
            "node: addresses holds 169.254.1.1, which is the gateway that pods see",
        ),
        (
            with(&|it| it.nodeport_addresses.push(ip("224.0.0.1"))),
            "node: nodeport_addresses holds 224.0.0.1",
        ),
        (
            with(&|it| it.masquerade4 = Some("0.0.0.0".parse().unwrap())),
            "node: masquerade4 0.0.0.0 is not the address of a node: it is unspecified",
        ),
        (
            with(&|it| it.nodeport_min = 0),
            "node: nodeport_min 0 is out of range",
        ),
        (
            with(&|it| it.nodeport_max = 29_999),
            "node: nodeport_max 29999 is out of range, expected nodeport_min (30000) to 65534",
        ),
        (
            with(&|it| it.nodeport_max = 65_535),
            "node: nodeport_max 65535 is out of range",
        ),
        (
            with(&|it| it.tunnel.port = 0),
            "node: tunnel.port 0 is out of range",
        ),
        (
            with(&|it| it.routing = Routing::Tunnel),
            "node: tunnel has neither local4 nor local6",
        ),
        (
            with(&|it| it.native_cidrs = vec![prefix("10.0.0.0/8"); 2]),
            "node: native_cidrs holds 10.0.0.0/8 twice",
        ),
        (
            with(&|it| it.addresses = (1..=65).map(|n| IpAddr::from([198, 51, 100, n])).collect()),
            "node: addresses has 65 addresses, expected at most 64",
        ),
    ] {
        let error = refusal(&mut store, vec![change]);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn rates_are_of_endpoints() {
    let mut store = store();
    let mut pod = endpoint(7, &["10.0.0.7"]);
    (pod.ingress_rate, pod.egress_rate) = (1_000_000, 2_000_000);
    store.apply(vec![Change::PutEndpoint(pod.clone())]).unwrap();
    let rates = Rates {
        ingress: 1_000_000,
        egress: 2_000_000,
    };
    assert_eq!(snapshot(&store).rates(7), rates);
    assert_eq!(snapshot(&store).rates(8), Rates::default());
    (pod.ingress_rate, pod.egress_rate) = (0, 0);
    store.apply(vec![Change::PutEndpoint(pod)]).unwrap();
    assert_eq!(snapshot(&store).rates(7), Rates::default());
}

fn rule(source: &str, destination: &str, gateway: &str, egress_ip: Option<&str>) -> EgressGatewayRule {
    EgressGatewayRule {
        key: EgressKey {
            source: prefix(source),
            destination: prefix(destination),
        },
        gateway: match gateway {
            "" => EgressGateway::Missing,
            "excluded" => EgressGateway::Excluded,
            addr => EgressGateway::Node(ip(addr)),
        },
        egress_ip: egress_ip.map(ip),
    }
}

fn find(store: &Store, src: &str, dst: &str) -> Option<EgressRule> {
    let now = snapshot(store);
    match (ip(src), ip(dst)) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => now.egress_gateway4(src.to_bits(), dst.to_bits()).copied(),
        (IpAddr::V6(src), IpAddr::V6(dst)) => now.egress_gateway6(src.to_bits(), dst.to_bits()).copied(),
        _ => None,
    }
}

#[test]
fn egress_rules_are_found_by_the_longest_source_then_destination() {
    let mut store = store();
    let rules = [
        rule("10.0.0.7/32", "0.0.0.0/0", "192.0.2.5", Some("203.0.113.5")),
        rule("10.0.0.7/32", "10.0.0.0/8", "excluded", None),
        rule("10.0.0.8/32", "0.0.0.0/0", "", None),
        rule("10.0.0.0/24", "198.51.100.0/24", "192.0.2.6", None),
        rule("fd00::7/128", "::/0", "192.0.2.5", Some("2001:db8:9::5")),
    ];
    store.apply(rules.map(Change::PutEgressGateway).to_vec()).unwrap();
    let gateway = |src, dst| find(&store, src, dst).map(|rule| rule.gateway);
    let at = |addr| Some(EgressGateway::Node(ip(addr)));
    assert_eq!(gateway("10.0.0.7", "8.8.8.8"), at("192.0.2.5"));
    assert_eq!(
        gateway("10.0.0.7", "198.51.100.1"),
        at("192.0.2.5"),
        "longest source"
    );
    assert_eq!(gateway("10.0.0.7", "10.9.9.9"), Some(EgressGateway::Excluded));
    assert_eq!(gateway("10.0.0.8", "8.8.8.8"), Some(EgressGateway::Missing));
    assert_eq!(gateway("10.0.0.9", "198.51.100.1"), at("192.0.2.6"));
    assert_eq!(gateway("10.0.0.9", "8.8.8.8"), None);
    assert_eq!(gateway("fd00::7", "2001:db8::1"), at("192.0.2.5"));
    assert_eq!(
        find(&store, "fd00::7", "2001:db8::1").unwrap().egress_ip,
        Some(ip("2001:db8:9::5"))
    );
    store
        .apply(
            rules
                .map(|it| Change::RemoveEgressGateway { key: it.key })
                .to_vec(),
        )
        .unwrap();
    assert_eq!(find(&store, "10.0.0.7", "8.8.8.8"), None);
    assert_eq!(store.state().egress_gateway_count(), 0);
}

#[test]
fn bad_egress_rules_are_refused() {
    let mut store = store_with(Capacity {
        egress_gateways: 1,
        ..Capacity::default()
    });
    for (bad, expected) in [
        (
            rule("10.0.0.7/32", "::/0", "192.0.2.5", None),
            "egress gateway 10.0.0.7/32 to ::/0: destination ::/0 is of another address family than source",
        ),
        (
            rule("10.0.0.7/32", "0.0.0.0/0", "127.0.0.1", None),
            "gateway 127.0.0.1 is not the address of a node",
        ),
        (
            rule("10.0.0.7/32", "0.0.0.0/0", "192.0.2.5", Some("fd00::1")),
            "egress_ip fd00::1 is of another address family than source",
        ),
    ] {
        let error = refusal(&mut store, vec![Change::PutEgressGateway(bad)]);
        assert!(error.contains(expected), "{error}");
    }
    let two = ["10.0.0.7/32", "10.0.0.8/32"];
    let two = two.map(|source| Change::PutEgressGateway(rule(source, "0.0.0.0/0", "", None)));
    assert!(refusal(&mut store, two.to_vec()).contains("table egress_gateways is full: 1 entries"));
    let key = rule("10.0.0.7/32", "0.0.0.0/0", "", None).key;
    assert_eq!(
        refusal(&mut store, vec![Change::RemoveEgressGateway { key }]),
        "changes[0]: egress gateway 10.0.0.7/32 to 0.0.0.0/0: not found"
    );
}

/// How a backend's node is told has to be possible: each mistake names the field.
#[test]
fn direct_return_that_cannot_be() {
    let mut store = store();
    let with = |dispatch, routing, protocol, local4: Option<&str>, source4: Option<&str>| {
        put_node(Node {
            routing,
            tunnel: Tunnel {
                protocol,
                local4: local4.map(|addr| addr.parse().unwrap()),
                ..Tunnel::default()
            },
            forwarding: Forwarding::Dsr,
            dsr: Dsr {
                dispatch,
                source4: source4.map(prefix),
                source6: None,
            },
            ..node(&["198.51.100.1"])
        })
    };
    use DsrDispatch::{Geneve, Ipip, Opt};
    use Routing::{Native, Tunnel as Tunnelled};
    let ours = Some("198.51.100.1");
    for (change, why) in [
        (
            with(Geneve, Native, TunnelProtocol::Vxlan, ours, None),
            "dsr.dispatch geneve needs Geneve tunnels, expected tunnel.protocol geneve",
        ),
        (
            with(Geneve, Native, TunnelProtocol::Geneve, None, None),
            "dsr.dispatch geneve needs an end of tunnels, expected tunnel.local4 or tunnel.local6",
        ),
        (
            with(Ipip, Tunnelled, TunnelProtocol::Geneve, ours, None),
            "dsr.dispatch ipip reaches backends by the underlying network only, expected routing native",
        ),
        (
            with(Ipip, Native, TunnelProtocol::Vxlan, None, Some("2001:db8::/64")),
            "dsr.source4 2001:db8::/64 is not an IPv4 prefix",
        ),
    ] {
        let error = refusal(&mut store, vec![change]);
        assert_eq!(error, format!("changes[0]: node: {why}"));
    }
    for change in [
        with(Opt, Tunnelled, TunnelProtocol::Vxlan, ours, None),
        with(Geneve, Native, TunnelProtocol::Geneve, ours, None),
        with(Ipip, Native, TunnelProtocol::Vxlan, None, Some("198.18.0.0/16")),
    ] {
        store.apply(vec![change]).unwrap();
        assert!(snapshot(&store).returns_directly());
    }
}

/// A node listens to what others say about clients only if it, or a service, returns directly.
#[test]
fn who_returns_directly() {
    let mut store = store();
    let service = |forwarding| {
        let mut it = Service::new("ns/svc:p", Protocol::Tcp);
        it.forwarding = forwarding;
        it.frontends.push(ServiceFrontend {
            addr: ip("203.0.113.9"),
            port: 80,
            kind: FrontendType::LoadBalancer,
        });
        Change::PutService(Box::new(it))
    };
    assert!(!snapshot(&store).returns_directly());
    for (forwarding, direct) in [
        (None, false),
        (Some(Forwarding::Dsr), true),
        (Some(Forwarding::Snat), false),
        (Some(Forwarding::Hybrid), true),
    ] {
        store.apply(vec![service(forwarding)]).unwrap();
        assert_eq!(snapshot(&store).returns_directly(), direct, "{forwarding:?}");
    }
    store
        .apply(vec![Change::RemoveService {
            name: "ns/svc:p".into(),
        }])
        .unwrap();
    assert!(!snapshot(&store).returns_directly());
}

#[test]
fn authentications_are_refused_by_field() {
    let good = Authentication {
        key: AuthKey {
            local_identity: 1001,
            remote_identity: 1002,
            remote_node: None,
            auth_type: 1,
        },
        expires: 1,
    };
    let with = |edit: &dyn Fn(&mut AuthKey)| {
        let mut it = good;
        edit(&mut it.key);
        it
    };
    let mut store = store();
    for (wrong, expected) in [
        (
            with(&|it| it.local_identity = 0),
            "local_identity 0 is out of range",
        ),
        (
            with(&|it| it.remote_identity = 0x0300_0000),
            "remote_identity 50331648 is out of range",
        ),
        (with(&|it| it.auth_type = 0), "auth_type 0 is out of range"),
        (with(&|it| it.auth_type = 128), "auth_type 128 is out of range"),
        (
            with(&|it| it.remote_node = Some("224.0.0.1".parse().unwrap())),
            "remote_node 224.0.0.1 is not the address of a node",
        ),
    ] {
        let error = store
            .apply(vec![Change::PutAuthentication(wrong)])
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
    store.apply(vec![Change::PutAuthentication(good)]).unwrap();
    assert_eq!(store.state().authentications().count(), 1);
    let again = store.apply(vec![Change::PutAuthentication(good)]).unwrap();
    assert!(again.events.is_empty());
    store
        .apply(vec![Change::RemoveAuthentication { key: good.key }])
        .unwrap();
    let error = store
        .apply(vec![Change::RemoveAuthentication { key: good.key }])
        .unwrap_err();
    assert!(error.to_string().contains("1001 to 1002 on this node"), "{error}");
}
