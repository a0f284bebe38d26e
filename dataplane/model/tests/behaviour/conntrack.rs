//! Conntrack: specification 2.3.

use octoplane_model::{Kind, Model, timeout};
use serde_json::json;

use crate::bytes::*;
use crate::lab::*;

/// Remaining lifetimes of the TCP entries of a kind.
fn left(model: &Model, kind: Kind) -> Vec<u64> {
    model
        .flows()
        .iter()
        .filter(|flow| flow.kind == kind && flow.tuple.protocol == 6)
        .map(|flow| flow.entry.expires - model.now())
        .collect()
}

#[test]
fn lifetimes_follow_the_connection() {
    let mut lab = Lab::new(json!({}));
    let there = |flags| packet("10.0.0.1", "10.0.0.2", tcp(4000, 80, flags));
    let back = |flags| packet("10.0.0.2", "10.0.0.1", tcp(80, 4000, flags));
    lab.send("pod1", &there(SYN));
    assert_eq!(
        (left(&lab.model, Kind::Out), left(&lab.model, Kind::In)),
        (vec![timeout::SYN], vec![timeout::SYN])
    );
    lab.send("pod2", &back(SYNACK));
    assert_eq!(left(&lab.model, Kind::Out), [timeout::SYN]);
    lab.send("pod1", &there(ACK));
    assert_eq!(left(&lab.model, Kind::Out), [timeout::TCP]);
    lab.send("pod1", &there(FIN));
    assert_eq!(left(&lab.model, Kind::Out), [timeout::TCP], "half closed");
    lab.send("pod2", &back(FIN));
    assert_eq!(left(&lab.model, Kind::Out), [timeout::CLOSING]);
    lab.send("pod1", &there(ACK));
    assert_eq!(
        left(&lab.model, Kind::Out),
        [timeout::CLOSING],
        "a closed one is not refreshed"
    );
    lab.send("pod1", &there(SYN));
    assert_eq!(left(&lab.model, Kind::Out), [timeout::SYN], "reopened");
    lab.wait(61);
    assert!(lab.model.flows().is_empty());
}

#[test]
fn a_reset_before_the_handshake_closes_both_ways() {
    let mut lab = Lab::new(json!({}));
    lab.send("pod1", &packet("10.0.0.1", "10.0.0.2", tcp(4000, 80, SYN)));
    lab.send("pod2", &packet("10.0.0.2", "10.0.0.1", tcp(80, 4000, RST | ACK)));
    assert_eq!(left(&lab.model, Kind::Out), [timeout::CLOSING]);
}

#[test]
fn replies_and_related_errors_need_no_policy() {
    let policies = json!([{"endpoint": 1, "enforce_ingress": true, "entries": []}]);
    let mut lab = Lab::new(json!({"policies": policies}));
    let request = packet("10.0.0.1", "198.51.100.7", udp(5000, 53));
    let reply = packet("198.51.100.7", "10.0.0.1", udp(53, 5000));
    assert_eq!(lab.dropped("uplink", &reply), 133);
    lab.through("pod1", &request);
    lab.through("uplink", &reply);
    // Port unreachable from the other end belongs to the flow, and from a router on the way, if it quotes it.
    let error = |from, quoted: &[u8]| packet(from, "10.0.0.1", icmp(3, 3, 0, quoted));
    lab.through("uplink", &error("198.51.100.7", &request));
    lab.through("uplink", &error("198.51.100.1", &request));
    let other = packet("10.0.0.1", "198.51.100.7", udp(5001, 53));
    assert_eq!(lab.dropped("uplink", &error("198.51.100.7", &other)), 133);
    // A redirect is no error about it.
    let redirect = packet("198.51.100.7", "10.0.0.1", icmp(5, 1, 0, &request));
    assert_eq!(lab.dropped("uplink", &redirect), 133);
    // "Fragmentation needed" always passes.
    lab.through(
        "uplink",
        &packet("198.51.100.1", "10.0.0.1", icmp(3, 4, 1400, &request)),
    );
    // Echo replies are found by id.
    lab.through(
        "pod1",
        &packet("10.0.0.1", "198.51.100.9", icmp(8, 0, 77 << 16, b"")),
    );
    lab.through(
        "uplink",
        &packet("198.51.100.9", "10.0.0.1", icmp(0, 0, 77 << 16, b"")),
    );
    assert_eq!(
        lab.dropped(
            "uplink",
            &packet("198.51.100.9", "10.0.0.1", icmp(0, 0, 78 << 16, b""))
        ),
        133
    );
}

#[test]
fn headers_cut_off() {
    let mut lab = Lab::new(json!({}));
    for (protocol, len) in [(6, 19), (17, 7), (132, 11), (1, 7)] {
        let short = packet("10.0.0.1", "10.0.0.2", Segment(protocol, vec![0; len], None));
        let frame = ethernet(OURS, EP1, &short);
        assert_eq!(lab.model.receive("pod1", &frame).drops[0].0, 135);
    }
}
