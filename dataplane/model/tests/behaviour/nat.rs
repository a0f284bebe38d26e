//! Masquerading: specification, 2.4.

use serde_json::json;

use crate::bytes::*;
use crate::lab::*;

fn lab() -> Lab {
    Lab::new(json!({"node": {
        "masquerade4": "192.0.2.1", "masquerade6": "2001:db8::1", "native_cidrs": ["10.0.0.0/8"],
    }}))
}

#[test]
fn there_and_back() {
    let mut lab = lab();
    for (pod, world, own) in [
        ("10.0.0.1", "198.51.100.7", "192.0.2.1"),
        ("fd00::1", "2001:db8:7::7", "2001:db8::1"),
    ] {
        for (sport, kept) in [(40000, true), (1000, false)] {
            let (_, seen) = lab.through("pod1", &packet(pod, world, udp(sport, 53)));
            assert_eq!((seen.src.as_str(), seen.sport == sport), (own, kept));
            let (port, back) = lab.through("uplink", &packet(world, own, udp(53, seen.sport)));
            assert_eq!((port.as_str(), four(&back)), ("pod1", (world, 53, pod, sport)));
        }
        let echo = |kind, id: u32| icmp(kind, 0, id << 16, b"data");
        let (request, reply) = if own.contains(':') { (128, 129) } else { (8, 0) };
        let (_, seen) = lab.through("pod1", &packet(pod, world, echo(request, 5)));
        assert_eq!((seen.src.as_str(), be16(&seen.payload, 4)), (own, 5));
        let (port, seen) = lab.through("uplink", &packet(world, own, echo(reply, 5)));
        assert_eq!((port.as_str(), seen.dst.as_str()), ("pod1", pod));
    }
}

#[test]
fn a_taken_port_is_not_given_twice() {
    let mut lab = lab();
    let (_, first) = lab.through("pod1", &packet("10.0.0.1", "198.51.100.7", udp(40000, 53)));
    let (_, second) = lab.through("pod2", &packet("10.0.0.2", "198.51.100.7", udp(40000, 53)));
    assert_ne!(first.sport, second.sport);
    // The same port serves other destinations.
    let (_, third) = lab.through("pod2", &packet("10.0.0.2", "198.51.100.8", udp(40000, 53)));
    assert_eq!(third.sport, 40000);
    // Nor a port of this machine.
    lab.through("host", &packet("192.0.2.1", "198.51.100.9", udp(40000, 53)));
    let (_, seen) = lab.through("pod1", &packet("10.0.0.1", "198.51.100.9", udp(40000, 53)));
    assert_ne!(seen.sport, 40000);
    let (port, seen) = lab.through("uplink", &packet("198.51.100.9", "192.0.2.1", udp(53, 40000)));
    assert_eq!((port.as_str(), seen.dport), ("host", 40000));
    // A mapping ends with its flow.
    assert_eq!(lab.model.mappings().len(), 5);
    lab.wait(61);
    assert!(lab.model.mappings().is_empty());
}

#[test]
fn who_keeps_its_address() {
    let mut lab = lab();
    for dst in ["10.0.2.5", "192.0.2.2"] {
        let (_, seen) = lab.through("pod1", &packet("10.0.0.1", dst, udp(1, 2)));
        assert_eq!(seen.src, "10.0.0.1");
    }
    lab.through("uplink", &packet("198.51.100.7", "10.0.0.1", udp(7, 8)));
    let (_, seen) = lab.through("pod1", &packet("10.0.0.1", "198.51.100.7", udp(8, 7)));
    assert_eq!(seen.src, "10.0.0.1", "a reply");
    assert_eq!(
        lab.dropped(
            "pod1",
            &packet("10.0.0.1", "198.51.100.7", Segment(50, vec![0; 20], None))
        ),
        168
    );
}

#[test]
fn icmp_errors_are_translated_inside_and_outside() {
    let mut lab = lab();
    for (pod, world, own, kind) in [
        ("10.0.0.1", "198.51.100.7", "192.0.2.1", 3),
        ("fd00::1", "2001:db8:7::7", "2001:db8::1", 1),
    ] {
        for segment in [
            udp(1000, 53),
            tcp(1000, 53, SYN),
            icmp(if kind == 3 { 8 } else { 128 }, 0, 9 << 16, b"abc"),
        ] {
            let request = packet(pod, world, segment);
            let outcome = lab.send("pod1", &request);
            let sent = outcome.sent[0].1[14..].to_vec();
            let error = packet(world, own, icmp(kind, 1, 0, &sent));
            let (port, seen) = lab.through("uplink", &error);
            assert_eq!((port.as_str(), seen.dst.as_str()), ("pod1", pod));
            let mut inner = seen.payload[8..].to_vec();
            // Apart from the TTL the pod sees what it sent.
            if kind == 3 {
                patch4(&mut inner, 8, &[64]);
            } else {
                inner[7] = 64;
            }
            assert_eq!(inner, request);
            // Cut off behind the ports.
            let cut = &sent[..if kind == 3 { 28 } else { 48 }];
            let (port, seen) = lab.through("uplink", &packet(world, own, icmp(kind, 1, 0, cut)));
            assert_eq!((port.as_str(), seen.dst.as_str()), ("pod1", pod));
        }
    }
}
