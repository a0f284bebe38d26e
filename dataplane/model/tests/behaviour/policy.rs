//! Policy: specification 2.6, 2.7, 1.2 step 12, 1.3.

use serde_json::{Value, json};

use crate::bytes::*;
use crate::lab::*;

/// `(0xFFFFFF - priority) << 8 | low` for priority 0.
const ALLOW: u32 = 0xffff_ff01;
const DENY: u32 = 0xffff_ffff;

fn lab(node: Value, policy: Value) -> Lab {
    Lab::new(json!({"node": node, "policies": [policy]}))
}

fn egress(entries: Value) -> Lab {
    lab(
        json!({}),
        json!({"endpoint": 1, "enforce_egress": true, "entries": entries}),
    )
}

fn to_pod2(dport: u16) -> Vec<u8> {
    packet("10.0.0.1", "10.0.0.2", tcp(4000, dport, SYN))
}

#[test]
fn identity_protocol_and_port() {
    let mut lab = egress(json!([
        {"direction": "egress", "identity": 1002, "protocol": 6, "port": 80, "port_prefix_len": 16, "precedence": ALLOW, "cookie": 5},
        {"direction": "egress", "identity": 0, "protocol": 17, "port": 0x2000, "port_prefix_len": 4, "precedence": ALLOW},
    ]));
    let outcome = lab.send("pod1", &to_pod2(80));
    only(&outcome);
    let verdict = outcome.verdicts[0];
    assert_eq!(
        (
            verdict.match_type,
            verdict.cookie,
            verdict.verdict,
            verdict.remote
        ),
        (2, 5, 0, 1002)
    );
    assert_eq!(lab.dropped("pod1", &to_pod2(81)), 133);
    lab.through("pod1", &packet("10.0.0.1", "10.0.0.2", udp(1, 0x2fff)));
    assert_eq!(
        lab.dropped("pod1", &packet("10.0.0.1", "10.0.0.2", udp(1, 0x3000))),
        133
    );
    let outcome = lab.send("pod1", &packet("10.0.0.1", "198.51.100.7", tcp(1, 80, SYN)));
    assert_eq!(
        (
            outcome.drops[0].0,
            outcome.verdicts[0].remote,
            outcome.verdicts[0].verdict
        ),
        (133, 9, -133)
    );
}

#[test]
fn precedence_then_length_then_identity() {
    let entry = |identity: u32, port: u16, deny: bool, precedence: u32| {
        json!({"direction": "egress", "identity": identity, "protocol": 6, "port": port,
               "port_prefix_len": if port == 0 { 0 } else { 16 }, "deny": deny, "precedence": precedence})
    };
    // Deny beats allow on one level, whichever is more specific.
    let mut first = egress(json!([entry(1002, 80, false, ALLOW), entry(0, 0, true, DENY)]));
    assert_eq!(first.dropped("pod1", &to_pod2(80)), 181);
    // An allow of a higher level beats a deny of a lower one.
    let mut second = egress(json!([
        entry(1002, 0, true, DENY - 0x100),
        entry(0, 80, false, ALLOW)
    ]));
    second.through("pod1", &to_pod2(80));
    assert_eq!(second.dropped("pod1", &to_pod2(81)), 181);
    // Equal precedence: the longer prefix, here that of any identity.
    let mut third = egress(json!([
        entry(1002, 0, false, ALLOW),
        {"direction": "egress", "protocol": 6, "port": 80, "port_prefix_len": 16, "proxy_port": 10000, "precedence": ALLOW},
    ]));
    let outcome = third.send("pod1", &to_pod2(80));
    assert_eq!(outcome.punts[0].to, octoplane_model::PuntTo::Proxy(10000));
    assert_eq!(outcome.verdicts[0].verdict, 10000);
}

#[test]
fn established_flows_are_cut_replies_are_not() {
    let allow = json!([{"direction": "egress", "precedence": ALLOW}]);
    let mut lab = egress(allow);
    lab.through("pod1", &to_pod2(80));
    let none = json!([{"endpoint": 1, "enforce_egress": true}]);
    lab.model.apply(state(json!({"policies": none})));
    assert_eq!(
        lab.dropped("pod1", &packet("10.0.0.1", "10.0.0.2", tcp(4000, 80, ACK))),
        133
    );
    lab.through("pod2", &packet("10.0.0.2", "10.0.0.1", tcp(80, 4000, SYNACK)));
    // And what pod 2 asks for is answered.
    lab.through("pod2", &packet("10.0.0.2", "10.0.0.1", tcp(9, 90, SYN)));
    lab.through("pod1", &packet("10.0.0.1", "10.0.0.2", tcp(90, 9, SYNACK)));
}

#[test]
fn modes_and_audit() {
    let none = || json!({"endpoint": 1, "enforce_egress": true});
    lab(json!({"policy_mode": "never"}), none()).through("pod1", &to_pod2(80));
    let mut always = Lab::new(json!({"node": {"policy_mode": "always"}}));
    assert_eq!(always.dropped("pod1", &to_pod2(80)), 133);
    let outcome = lab(json!({"audit": true}), none()).send("pod1", &to_pod2(80));
    only(&outcome);
    assert!(outcome.verdicts[0].audited);
}

#[test]
fn ingress_is_dropped_silently_egress_is_answered_if_wanted() {
    let both = json!({"endpoint": 1, "enforce_egress": true, "enforce_ingress": true});
    let mut lab = lab(json!({"policy_deny_response": true}), both);
    assert_eq!(
        lab.dropped("uplink", &packet("198.51.100.7", "10.0.0.1", udp(1, 2))),
        133
    );
    for (src, dst, want, len) in [
        ("10.0.0.1", "198.51.100.7", [3, 13], 33),
        ("fd00::1", "2001:db8:7::7", [1, 1], 53),
    ] {
        let outcome = lab.send("pod1", &packet(src, dst, udp(1, 2)));
        assert_eq!(outcome.drops[0].0, 133);
        let seen = dissect(&outcome.sent[0].1[14..]);
        assert_eq!((seen.src.as_str(), seen.dst.as_str(), seen.ttl), (dst, src, 64));
        assert_eq!((&seen.payload[..2], seen.payload.len()), (&want[..], 8 + len));
    }
}

#[test]
fn authentication_is_required() {
    let entries = json!([{"direction": "egress", "precedence": ALLOW, "auth_type": 1}]);
    let outcome = egress(entries).send("pod1", &to_pod2(80));
    assert_eq!((outcome.drops[0].0, outcome.verdicts[0].auth_type), (189, 1));
}

#[test]
fn the_host_has_a_firewall() {
    let policy = json!({"endpoint": "host", "enforce_ingress": true, "entries": [
        {"direction": "ingress", "protocol": 6, "port": 22, "port_prefix_len": 16, "precedence": ALLOW}]});
    let mut lab = lab(json!({}), policy);
    let to = |port| packet("198.51.100.7", "192.0.2.1", tcp(4, port, SYN));
    assert_eq!(lab.through("uplink", &to(22)).0, "host");
    assert_eq!(lab.dropped("uplink", &to(23)), 133);
}
