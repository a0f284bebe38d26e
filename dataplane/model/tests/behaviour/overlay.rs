//! Tunnels: specification, 1.6, 1.7 and section 5; RFC 6040.

use serde_json::json;

use crate::bytes::*;
use crate::lab::*;

fn lab(protocol: &str) -> Lab {
    Lab::new(json!({"node": {
        "routing": "tunnel", "tunnel": {"protocol": protocol, "local4": "192.0.2.1"},
    }}))
}

fn header(protocol: &str, vni: u32) -> Vec<u8> {
    let mut bytes = match protocol {
        "vxlan" => vec![8, 0, 0, 0],
        _ => vec![0, 0, 0x65, 0x58],
    };
    bytes.extend((vni << 8).to_be_bytes());
    bytes
}

fn port(protocol: &str) -> u16 {
    if protocol == "vxlan" { 8472 } else { 6081 }
}

/// A tunnel packet from the other node.
fn wrap(protocol: &str, vni: u32, inner: &[u8]) -> Vec<u8> {
    let mut bytes = [&50000u16.to_be_bytes()[..], &port(protocol).to_be_bytes()].concat();
    let payload = [header(protocol, vni), ethernet([4; 6], [6; 6], inner)].concat();
    bytes.extend((8 + payload.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    packet("192.0.2.2", "192.0.2.1", Segment(17, bytes, None))
}

#[test]
fn there() {
    for protocol in ["vxlan", "geneve"] {
        let mut lab = lab(protocol);
        let mut inner = packet("10.0.0.1", "10.0.2.5", udp(5, 6));
        patch4(&mut inner, 1, &[0xb9]);
        let (out, seen) = lab.through("pod1", &inner);
        assert_eq!(
            (out.as_str(), seen.src.as_str(), seen.dst.as_str()),
            ("uplink", "192.0.2.1", "192.0.2.2")
        );
        assert_eq!(
            (seen.ttl, seen.dport, be16(&seen.payload, 6)),
            (64, port(protocol), 0)
        );
        assert_eq!(seen.payload[8..16], header(protocol, 1001));
        // The inner TTL stays.
        assert_eq!(seen.payload[30..], inner);
        let outcome = lab.send("pod1", &inner);
        assert_eq!(outcome.sent[0].1[15], 1, "ECN is copied");
    }
}

#[test]
fn identities_on_the_way_out() {
    let mut lab = lab("vxlan");
    let (_, seen) = lab.through("host", &packet("192.0.2.1", "10.0.2.5", udp(5, 6)));
    assert_eq!(
        seen.payload[8..16],
        header("vxlan", 6),
        "the host is a remote node to others"
    );
}

#[test]
fn and_back() {
    for protocol in ["vxlan", "geneve"] {
        let mut lab = lab(protocol);
        let policies = json!([{"endpoint": 1, "enforce_ingress": true, "entries": [
            {"direction": "ingress", "identity": 2002, "precedence": 0xffff_ff01_u32}]}]);
        lab.model.apply(state(json!({"policies": policies, "node": {
            "routing": "tunnel", "tunnel": {"protocol": protocol, "local4": "192.0.2.1"}}})));
        let inner = packet("10.0.2.5", "10.0.0.1", udp(5, 6));
        let (out, seen) = lab.through("uplink", &wrap(protocol, 2002, &inner));
        assert_eq!(
            (out.as_str(), seen.ttl, four(&seen)),
            ("pod1", 63, ("10.0.2.5", 5, "10.0.0.1", 6))
        );
        let other = packet("10.0.2.5", "10.0.0.1", udp(7, 6));
        // What counts is the VNI, not the ipcache.
        assert_eq!(lab.dropped("uplink", &wrap(protocol, 2003, &other)), 133);
        assert_eq!(lab.dropped("uplink", &wrap(protocol, 1, &inner)), 171);
        let mut bad = wrap(protocol, 2002, &inner);
        bad[28 + usize::from(protocol == "geneve") * 2] = 0;
        // VXLAN without a VNI; Geneve with something else inside.
        let code = if protocol == "geneve" { 134 } else { 147 };
        assert_eq!(lab.dropped("uplink", &bad), code);
        // The world is known by family.
        let outcome = lab.send("uplink", &wrap(protocol, 2, &other));
        assert_eq!(outcome.verdicts[0].remote, 9);
        // What is for this machine is the kernel's; a tunnel does not lead through it.
        let ours = packet("10.0.2.5", "192.0.2.1", udp(5, 6));
        assert_eq!(lab.through("uplink", &wrap(protocol, 2002, &ours)).0, "host");
        let lost = packet("10.0.2.5", "10.0.77.1", udp(5, 6));
        assert_eq!(lab.dropped("uplink", &wrap(protocol, 2002, &lost)), 151);
    }
}

#[test]
fn congestion_marks_survive() {
    // Inner, outer, result: RFC 6040, figure 4.
    let table = [
        (0, 0, Some(0)),
        (0, 1, Some(0)),
        (0, 2, Some(0)),
        (0, 3, None),
        (2, 0, Some(2)),
        (2, 1, Some(1)),
        (2, 2, Some(2)),
        (2, 3, Some(3)),
        (1, 0, Some(1)),
        (1, 1, Some(1)),
        (1, 2, Some(1)),
        (1, 3, Some(3)),
        (3, 0, Some(3)),
        (3, 1, Some(3)),
        (3, 2, Some(3)),
        (3, 3, Some(3)),
    ];
    let mut lab = lab("vxlan");
    for (inside, outside, want) in table {
        let mut inner = packet("10.0.2.5", "10.0.0.1", udp(5, 6));
        patch4(&mut inner, 1, &[0xb8 | inside]);
        let mut outer = wrap("vxlan", 2002, &inner);
        patch4(&mut outer, 1, &[outside]);
        let outcome = lab.send("uplink", &outer);
        assert_eq!(
            outcome.sent.first().map(|sent| sent.1[15]),
            want.map(|ecn| 0xb8 | ecn),
            "{inside} {outside}"
        );
    }
}

#[test]
fn what_does_not_fit_is_told_the_inner_mtu() {
    let mut lab = lab("vxlan");
    let sized = |size: usize| packet("10.0.0.1", "10.0.2.5", Segment(17, vec![0; size - 20], None));
    assert_eq!(lab.send("pod1", &sized(1450)).drops, []);
    let outcome = lab.send("pod1", &sized(1451));
    let seen = dissect(&outcome.sent[0].1[14..]);
    assert_eq!((outcome.drops[0].0, be16(&seen.payload, 6)), (136, 1450));
}

#[test]
fn errors_go_back_into_the_tunnel() {
    let mut lab = lab("vxlan");
    let mut inner = packet("10.0.2.5", "10.0.0.1", udp(5, 6));
    patch4(&mut inner, 8, &[1]);
    let outcome = lab.send("uplink", &wrap("vxlan", 2002, &inner));
    let outer = dissect(&outcome.sent[0].1[14..]);
    assert_eq!((outcome.drops[0].0, outer.dst.as_str()), (196, "192.0.2.2"));
    let error = dissect(&outer.payload[30..]);
    assert_eq!(
        (error.src.as_str(), error.dst.as_str(), error.payload[0]),
        ("10.0.0.254", "10.0.2.5", 11)
    );
}

#[test]
fn pods_do_not_speak_tunnel() {
    let mut lab = lab("vxlan");
    assert_eq!(
        lab.dropped("pod1", &packet("10.0.0.1", "192.0.2.2", udp(5, 8472))),
        170
    );
}

#[test]
fn services_through_the_tunnel() {
    let mut lab = lab("vxlan");
    let services = json!([{"name": "s", "protocol": "udp",
        "frontends": [{"address": "203.0.113.1", "port": 53, "type": "load_balancer"}],
        "backends": [{"address": "10.0.2.5", "port": 5353}]}]);
    lab.model.apply(state(json!({"services": services, "node": {
        "routing": "tunnel", "tunnel": {"protocol": "vxlan", "local4": "192.0.2.1"}}})));
    let (_, seen) = lab.through("uplink", &packet("198.51.100.7", "203.0.113.1", udp(999, 53)));
    assert_eq!(seen.payload[8..16], header("vxlan", 2));
    let inner = dissect(&seen.payload[30..]);
    assert_eq!(
        (inner.src.as_str(), inner.dst.as_str(), inner.dport, inner.ttl),
        ("10.0.0.254", "10.0.2.5", 5353, 63)
    );
    let reply = packet("10.0.2.5", "10.0.0.254", udp(5353, inner.sport));
    let (port, seen) = lab.through("uplink", &wrap("vxlan", 2001, &reply));
    assert_eq!(
        (port.as_str(), four(&seen)),
        ("uplink", ("203.0.113.1", 53, "198.51.100.7", 999))
    );
}
