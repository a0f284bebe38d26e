//! Fragments: specification, 2.10, and the decision that late first fragments are waited for.

use serde_json::json;

use crate::bytes::*;
use crate::lab::*;

/// Two fragments of a UDP datagram, the first one first.
fn fragments(src: &str, dst: &str, id: u16) -> [Vec<u8>; 2] {
    let segment = |len| {
        Segment(
            17,
            [&[0, 9, 0, 80, 0, 40, 0, 0][..], &vec![7; len]].concat(),
            None,
        )
    };
    if src.contains(':') {
        let with = |offset: u16, payload: Segment| {
            let mut body = vec![17, 0];
            body.extend(offset.to_be_bytes());
            body.extend([0, 0]);
            body.extend(id.to_be_bytes());
            body.extend(payload.1);
            packet(src, dst, Segment(44, body, None))
        };
        return [with(1, segment(8)), with(16, segment(8))];
    }
    let with = |flags: u16, segment| {
        let mut bytes = packet(src, dst, segment);
        bytes[4..6].copy_from_slice(&id.to_be_bytes());
        patch4(&mut bytes, 6, &flags.to_be_bytes());
        bytes
    };
    [with(0x2000, segment(8)), with(2, segment(8))]
}

fn lab() -> Lab {
    let service = json!([{"name": "s", "protocol": "udp",
        "frontends": [{"address": "10.96.0.1", "port": 80, "type": "cluster_ip"}, {"address": "fd96::1", "port": 80, "type": "cluster_ip"}],
        "backends": [{"address": "10.0.0.2", "port": 81}, {"address": "fd00::2", "port": 81}]}]);
    Lab::new(json!({"services": service}))
}

#[test]
fn all_go_the_same_way() {
    let mut lab = lab();
    for (src, dst) in [("10.0.0.1", "10.96.0.1"), ("fd00::1", "fd96::1")] {
        let [first, second] = fragments(src, dst, 1);
        for fragment in [first, second] {
            let outcome = lab.send("pod1", &fragment);
            assert_eq!((outcome.sent.len(), outcome.sent[0].0.as_str()), (1, "pod2"));
        }
        let [first, second] = fragments(src, dst, 2);
        let outcome = lab.send("pod1", &second);
        assert_eq!((outcome.held, outcome.sent.len(), outcome.drops.len()), (1, 0, 0));
        let outcome = lab.send("pod1", &first);
        assert_eq!(outcome.sent.len(), 2);
        assert!(outcome.sent.iter().all(|sent| sent.0 == "pod2"));
    }
}

#[test]
fn patience_ends() {
    let mut lab = lab();
    let [first, second] = fragments("10.0.0.1", "10.0.0.2", 3);
    lab.send("pod1", &second);
    let now = lab.model.now();
    assert_eq!(lab.model.set_time(now + SECOND - 1).drops, []);
    assert_eq!(lab.model.set_time(now + SECOND).drops[0].0, 175);
    assert_eq!(lab.send("pod1", &first).sent.len(), 1);
}

#[test]
fn transit_needs_no_ports() {
    let mut lab = lab();
    let [_, second] = fragments("198.51.100.7", "203.0.113.7", 3);
    let outcome = lab.model.receive("uplink", &ethernet(OURS, ROUTER, &second));
    assert_eq!((outcome.held, outcome.sent.len()), (0, 1));
}
