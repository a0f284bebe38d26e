//! Egress gateway and bandwidth: specification, 1.6 step 5, 1.7 step 6, 2.12, 2.14.

use serde_json::{Value, json};

use crate::bytes::*;
use crate::lab::*;

fn lab(rules: Value) -> Lab {
    Lab::new(json!({"egress_gateways": rules, "node": {
        "tunnel": {"local4": "192.0.2.1"}, "masquerade4": "192.0.2.1"}}))
}

fn rule(source: &str, gateway: &str, egress_ip: &str) -> Value {
    json!({"source": source, "destination": "198.51.100.0/24", "gateway": gateway, "egress_ip": egress_ip})
}

fn out(sport: u16) -> Vec<u8> {
    packet("10.0.0.1", "198.51.100.7", udp(sport, 53))
}

#[test]
fn what_rules_say() {
    let mut lab = lab(json!([]));
    let rules = |lab: &mut Lab, rule: Value| {
        lab.model.apply(state(json!({"egress_gateways": rule, "node": {
            "tunnel": {"local4": "192.0.2.1"}, "masquerade4": "192.0.2.1"}})));
    };
    rules(&mut lab, json!([rule("10.0.0.1/32", "192.0.2.2", "198.18.0.1")]));
    let (_, seen) = lab.through("pod1", &out(1));
    assert_eq!((seen.dst.as_str(), seen.dport), ("192.0.2.2", 8472));
    rules(&mut lab, json!([rule("10.0.0.1/32", "192.0.2.1", "198.18.0.1")]));
    assert_eq!(lab.through("pod1", &out(2)).1.src, "198.18.0.1");
    rules(&mut lab, json!([rule("10.0.0.1/32", "excluded", "")]));
    assert_eq!(lab.through("pod1", &out(3)).1.src, "192.0.2.1");
    rules(&mut lab, json!([rule("10.0.0.1/32", "", "")]));
    assert_eq!(lab.dropped("pod1", &out(4)), 194);
    rules(&mut lab, json!([rule("10.0.0.1/32", "192.0.2.1", "")]));
    assert_eq!(lab.dropped("pod1", &out(5)), 204);
}

#[test]
fn this_node_is_the_gateway_of_another_nodes_pod() {
    let mut lab = Lab::new(
        json!({"egress_gateways": [rule("10.0.2.5/32", "192.0.2.1", "198.18.0.1")], "node": {
        "addresses": ["198.18.0.1"], "tunnel": {"local4": "192.0.2.1"}, "masquerade4": "192.0.2.1"}}),
    );
    let inner = packet("10.0.2.5", "198.51.100.7", udp(40000, 53));
    let mut bytes = vec![0xc3, 0x50, 0x21, 0x18];
    let payload = [vec![8, 0, 0, 0, 0, 7, 0xd1, 0], ethernet([4; 6], [6; 6], &inner)].concat();
    bytes.extend((8 + payload.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    let (_, seen) = lab.through(
        "uplink",
        &packet("192.0.2.2", "192.0.2.1", Segment(17, bytes, None)),
    );
    assert_eq!(
        (four(&seen), seen.ttl),
        (("198.18.0.1", 40000, "198.51.100.7", 53), 63)
    );
    let (_, seen) = lab.through("uplink", &packet("198.51.100.7", "198.18.0.1", udp(53, 40000)));
    assert_eq!(
        (seen.dst.as_str(), &seen.payload[12..15]),
        ("192.0.2.2", &[0, 0, 2][..])
    );
    assert_eq!(dissect(&seen.payload[30..]).dst, "10.0.2.5");
}

#[test]
fn packets_beyond_the_horizon_are_dropped() {
    let mut endpoints = base()["endpoints"].clone();
    endpoints[0]["egress_rate"] = 100.into();
    let mut lab = Lab::new(json!({"endpoints": endpoints}));
    // 47 bytes at 100 a second, 0.47 seconds each: one at once, four within two seconds.
    let passed = (0..10)
        .filter(|n| lab.send("pod1", &out(*n)).drops.is_empty())
        .count();
    assert_eq!(passed, 5);
    assert_eq!(lab.dropped("pod1", &out(1)), 162);
    lab.wait(2);
    lab.through("pod1", &out(1));
    lab.through("pod1", &packet("10.0.0.1", "10.0.0.2", udp(1, 2)));
}
