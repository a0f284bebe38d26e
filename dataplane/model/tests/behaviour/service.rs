//! Services: specification, section 3, 1.2 step 9, 1.3 step 3.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use octoplane_model::{Choices, Kind};
use serde_json::{Value, json};

use crate::bytes::*;
use crate::lab::*;

/// Takes backend number `.0`.
struct Nth(usize);

impl Choices for Nth {
    fn pick_backend(&mut self, _: &[SocketAddr]) -> usize {
        self.0
    }
    fn pick_port(&mut self, range: RangeInclusive<u16>, is_free: &dyn Fn(u16) -> bool) -> Option<u16> {
        range.rev().find(|port| is_free(*port))
    }
    fn tunnel_source_port(&mut self) -> u16 {
        50000
    }
    fn outer_ip_id(&mut self) -> u16 {
        7
    }
}

fn frontends() -> Value {
    json!([
        {"address": "10.96.0.1", "port": 80, "type": "cluster_ip"},
        {"address": "0.0.0.0", "port": 30080, "type": "node_port"},
        {"address": "203.0.113.1", "port": 80, "type": "load_balancer"},
        {"address": "fd96::1", "port": 80, "type": "cluster_ip"},
    ])
}

fn backends() -> Value {
    json!([
        {"address": "10.0.0.2", "port": 8080, "local": true},
        {"address": "10.0.2.5", "port": 8080},
        {"address": "fd00::2", "port": 8080, "local": true},
    ])
}

fn lab_with(node: Value, extra: Value) -> Lab {
    let mut service =
        json!({"name": "a/b:c", "protocol": "tcp", "frontends": frontends(), "backends": backends()});
    for (key, value) in extra.as_object().unwrap() {
        service[key] = value.clone();
    }
    Lab::new(json!({"node": node, "services": [service]}))
}

fn lab(extra: Value) -> Lab {
    lab_with(json!({"masquerade4": "192.0.2.1"}), extra)
}

fn from_pod(dst: &str, port: u16, sport: u16, flags: u8) -> Vec<u8> {
    packet(
        if dst.contains(':') { "fd00::1" } else { "10.0.0.1" },
        dst,
        tcp(sport, port, flags),
    )
}

fn from_world(dst: &str, port: u16, flags: u8) -> Vec<u8> {
    packet("198.51.100.7", dst, tcp(4000, port, flags))
}

#[test]
fn a_pod_reaches_a_service_and_the_reply_comes_from_it() {
    let mut lab = lab(json!({}));
    for (vip, backend, client) in [
        ("10.96.0.1", "10.0.0.2", "10.0.0.1"),
        ("fd96::1", "fd00::2", "fd00::1"),
    ] {
        let (port, seen) = lab.through("pod1", &from_pod(vip, 80, 4000, SYN));
        assert_eq!(
            (port.as_str(), four(&seen)),
            ("pod2", (client, 4000, backend, 8080))
        );
        let (port, seen) = lab.through("pod2", &packet(backend, client, tcp(8080, 4000, SYNACK)));
        assert_eq!((port.as_str(), four(&seen)), ("pod1", (vip, 80, client, 4000)));
    }
    assert_eq!(
        lab.model
            .flows()
            .iter()
            .filter(|flow| flow.kind == Kind::Service)
            .count(),
        2
    );
    // Other ports of the address are no service to pods.
    let (port, _) = lab.through("pod1", &from_pod("10.96.0.1", 81, 4000, SYN));
    assert_eq!(port, "uplink");
}

#[test]
fn a_connection_stays_with_its_backend_until_that_is_gone() {
    let mut lab = lab(json!({}));
    let to = |lab: &mut Lab, flags, nth| {
        let outcome = lab.send_with("pod1", &from_pod("10.96.0.1", 80, 4000, flags), &mut Nth(nth));
        only(&outcome).1.dst
    };
    assert_eq!(to(&mut lab, SYN, 1), "10.0.2.5");
    assert_eq!(to(&mut lab, ACK, 0), "10.0.2.5");
    let change = |state_of: &str| {
        let mut all = backends();
        all[1]["state"] = state_of.into();
        let service = json!({"name": "a/b:c", "protocol": "tcp", "frontends": frontends(), "backends": all});
        state(json!({"services": [service]}))
    };
    lab.model.apply(change("terminating"));
    assert_eq!(to(&mut lab, ACK, 0), "10.0.2.5", "it drains");
    assert_eq!(to(&mut lab, SYN, 0), "10.0.0.2", "new connections go elsewhere");
    assert_eq!(to(&mut lab, ACK, 1), "10.0.0.2");
}

#[test]
fn terminating_backends_serve_if_there_are_no_others() {
    let backend = |at: &str| json!([{"address": "10.0.0.2", "port": 8080, "state": at}]);
    lab(json!({"backends": backend("terminating")})).through("pod1", &from_pod("10.96.0.1", 80, 1, SYN));
    for at in ["quarantined", "maintenance"] {
        let mut lab = lab(json!({"backends": backend(at)}));
        let outcome = lab.send("pod1", &from_pod("10.96.0.1", 80, 1, SYN));
        assert_eq!(outcome.drops[0].0, 158);
    }
}

#[test]
fn without_backends_the_client_is_told() {
    let mut lab = lab(json!({"backends": []}));
    let outcome = lab.send("pod1", &from_pod("10.96.0.1", 80, 1, SYN));
    let seen = dissect(&outcome.sent[0].1[14..]);
    assert_eq!(
        (seen.src.as_str(), &seen.payload[..2], seen.ttl),
        ("10.96.0.1", &[3, 3][..], 64)
    );
    let outcome = lab.send("pod1", &from_pod("fd96::1", 80, 1, SYN));
    let seen = dissect(&outcome.sent[0].1[14..]);
    assert_eq!((seen.src.as_str(), &seen.payload[..2]), ("fd96::1", &[1, 4][..]));
    let outcome = lab.send("uplink", &from_world("192.0.2.1", 30080, SYN));
    assert_eq!((outcome.sent[0].0.as_str(), outcome.drops[0].0), ("uplink", 158));
    let mut silent = lab_with(json!({"no_backend": "drop"}), json!({"backends": []}));
    assert_eq!(silent.dropped("pod1", &from_pod("10.96.0.1", 80, 1, SYN)), 158);
}

#[test]
fn a_pod_reaches_itself() {
    let mut lab = lab(json!({"backends": [{"address": "10.0.0.1", "port": 8080}]}));
    let policies = json!([{"endpoint": 1, "enforce_ingress": true, "enforce_egress": true}]);
    let mut all = state(json!({"policies": policies}));
    all.services = serde_json::from_value(json!([{"name": "a", "protocol": "tcp", "frontends": frontends(),
        "backends": [{"address": "10.0.0.1", "port": 8080}]}]))
    .unwrap();
    lab.model.apply(all);
    let (port, seen) = lab.through("pod1", &from_pod("10.96.0.1", 80, 4000, SYN));
    assert_eq!(
        (port.as_str(), four(&seen)),
        ("pod1", ("169.254.42.1", 4000, "10.0.0.1", 8080))
    );
    let (port, seen) = lab.through(
        "pod1",
        &packet("10.0.0.1", "169.254.42.1", tcp(8080, 4000, SYNACK)),
    );
    assert_eq!(
        (port.as_str(), four(&seen)),
        ("pod1", ("10.96.0.1", 80, "10.0.0.1", 4000))
    );
    lab.through("pod1", &from_pod("10.96.0.1", 80, 4000, ACK));
}

#[test]
fn affinity() {
    let mut lab = lab(json!({"affinity_seconds": 100}));
    let to = |lab: &mut Lab, sport, nth| {
        only(&lab.send_with("pod1", &from_pod("10.96.0.1", 80, sport, SYN), &mut Nth(nth)))
            .1
            .dst
    };
    assert_eq!(to(&mut lab, 1, 1), "10.0.2.5");
    lab.wait(99);
    assert_eq!(to(&mut lab, 2, 0), "10.0.2.5");
    lab.wait(100);
    assert_eq!(to(&mut lab, 3, 0), "10.0.0.2");
}

#[test]
fn clients_outside_a_local_backend() {
    let mut lab = lab(json!({}));
    for (vip, vport) in [("192.0.2.1", 30080), ("203.0.113.1", 80)] {
        let (port, seen) = lab.through("uplink", &from_world(vip, vport, SYN));
        assert_eq!(
            (port.as_str(), four(&seen)),
            ("pod2", ("198.51.100.7", 4000, "10.0.0.2", 8080))
        );
        let reply = packet("10.0.0.2", "198.51.100.7", tcp(8080, 4000, SYNACK));
        let (port, seen) = lab.through("pod2", &reply);
        assert_eq!(
            (port.as_str(), four(&seen)),
            ("uplink", (vip, vport, "198.51.100.7", 4000))
        );
        lab.wait(9000);
    }
}

#[test]
fn clients_outside_a_remote_backend() {
    let mut lab = lab(json!({"backends": [{"address": "10.0.2.5", "port": 8080}]}));
    let (port, seen) = lab.through("uplink", &from_world("203.0.113.1", 80, SYN));
    let ours = seen.sport;
    assert!(ours > 32767);
    assert_eq!(
        (port.as_str(), four(&seen), seen.ttl),
        ("uplink", ("192.0.2.1", ours, "10.0.2.5", 8080), 63)
    );
    let (port, seen) = lab.through(
        "uplink",
        &packet("10.0.2.5", "192.0.2.1", tcp(8080, ours, SYNACK)),
    );
    assert_eq!(
        (port.as_str(), four(&seen)),
        ("uplink", ("203.0.113.1", 80, "198.51.100.7", 4000))
    );
    assert_eq!(
        only(&lab.send("uplink", &from_world("203.0.113.1", 80, ACK)))
            .1
            .sport,
        ours
    );
}

#[test]
fn refusals_outside() {
    let mut open = lab(json!({}));
    let mut to = |dst, port| open.dropped("uplink", &from_world(dst, port, SYN));
    assert_eq!(
        (to("10.96.0.1", 80), to("203.0.113.1", 81), to("10.96.0.1", 81)),
        (174, 158, 158)
    );
    let ranges = json!(["198.51.100.0/24"]);
    for (deny, allowed) in [(false, true), (true, false)] {
        let mut lab = lab(json!({"source_ranges": ranges, "source_ranges_deny": deny}));
        let outcome = lab.send("uplink", &from_world("203.0.113.1", 80, SYN));
        assert_eq!(
            outcome.drops.first().map(|drop| drop.0),
            (!allowed).then_some(177)
        );
        let other = packet("198.51.101.7", "203.0.113.1", tcp(1, 80, SYN));
        assert_eq!(
            lab.send("uplink", &other).drops.first().map(|drop| drop.0),
            allowed.then_some(177)
        );
        // All of its addresses are.
        let at_node = packet("198.51.101.7", "192.0.2.1", tcp(1, 30080, SYN));
        assert_eq!(
            lab.send("uplink", &at_node).drops.first().map(|drop| drop.0),
            allowed.then_some(177)
        );
    }
}

#[test]
fn traffic_policies_have_their_scopes() {
    let remote = json!([{"address": "10.0.2.5", "port": 8080}]);
    let mut lab = lab(json!({"backends": remote, "external_policy": "local"}));
    assert_eq!(
        lab.send("uplink", &from_world("203.0.113.1", 80, SYN)).drops[0].0,
        158
    );
    lab.through("pod1", &from_pod("203.0.113.1", 80, 1, SYN));
    lab.through("pod1", &from_pod("10.96.0.1", 80, 1, SYN));
    let mut inside = lab_with(
        json!({"masquerade4": "192.0.2.1"}),
        json!({"backends": remote, "internal_policy": "local"}),
    );
    inside.through("uplink", &from_world("203.0.113.1", 80, SYN));
    assert_eq!(
        inside.send("pod1", &from_pod("203.0.113.1", 80, 1, SYN)).drops[0].0,
        158
    );
}

#[test]
fn a_node_port_of_another_node() {
    let mut lab = lab(json!({}));
    let (_, seen) = lab.through("pod1", &from_pod("192.0.2.2", 30080, 4000, SYN));
    assert_eq!(seen.dst, "10.0.0.2");
    let (_, seen) = lab.through("pod2", &packet("10.0.0.2", "10.0.0.1", tcp(8080, 4000, SYNACK)));
    assert_eq!((seen.src.as_str(), seen.sport), ("192.0.2.2", 30080));
}

#[test]
fn maglev_is_for_clients_outside() {
    let backends: Vec<Value> = (1..4)
        .map(|n| json!({"address": format!("10.0.3.{n}"), "port": 80}))
        .collect();
    let mut lab = lab(json!({"backends": backends, "algorithm": "maglev"}));
    let first = lab.send_with("uplink", &from_world("203.0.113.1", 80, SYN), &mut Nth(99));
    let again = lab.send_with("uplink", &from_world("192.0.2.1", 30080, SYN), &mut Nth(99));
    only(&first);
    only(&again);
    let pod = lab.send_with("pod1", &from_pod("10.96.0.1", 80, 1, SYN), &mut Nth(2));
    assert_eq!(only(&pod).1.dst, "10.0.3.3");
}

#[test]
fn a_service_behind_a_proxy() {
    let mut lab = lab(json!({"proxy_port": 12000}));
    let outcome = lab.send("pod1", &from_pod("10.96.0.1", 80, 1, SYN));
    assert_eq!(outcome.punts[0].to, octoplane_model::PuntTo::Proxy(12000));
    assert_eq!(dissect(&outcome.punts[0].frame[14..]).dst, "10.96.0.1");
}

#[test]
fn sctp_ports_are_rewritten_if_the_checksum_is_right() {
    let service = json!([{"name": "s", "protocol": "sctp",
        "frontends": [{"address": "10.96.0.2", "port": 80, "type": "cluster_ip"}],
        "backends": [{"address": "10.0.0.2", "port": 8080}]}]);
    let mut lab = Lab::new(json!({"services": service}));
    // As scapy makes them: source port 40000, verification tag 9, "abcdefgh".
    let message = |port: [u8; 2], sum: [u8; 4]| {
        let parts: [&[u8]; 5] = [&[0x9c, 0x40], &port, &[0, 0, 0, 9], &sum, b"abcdefgh"];
        Segment(132, parts.concat(), None)
    };
    let right = message([0, 80], [0x16, 0x16, 0x78, 0xdd]);
    let outcome = lab.send("pod1", &packet("10.0.0.1", "10.96.0.2", right));
    let Segment(_, expected, _) = message([0x1f, 0x90], [0xd7, 0x15, 0xcc, 0xbb]);
    assert_eq!(outcome.sent[0].1[34..], expected);
    let wrong = message([0, 80], [1, 2, 3, 4]);
    assert_eq!(lab.dropped("pod1", &packet("10.0.0.1", "10.96.0.2", wrong)), 154);
}
