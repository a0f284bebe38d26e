//! No input makes the model panic, and none vanishes.

use octoplane_model::{First, Outcome};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use crate::bytes::*;
use crate::lab::*;

fn lab() -> Lab {
    Lab::new(json!({
        "node": {"routing": "tunnel", "tunnel": {"local4": "192.0.2.1"}, "masquerade4": "192.0.2.1",
                 "masquerade6": "2001:db8::1", "policy_deny_response": true},
        "services": [{"name": "s", "protocol": "tcp",
            "frontends": [{"address": "10.96.0.1", "port": 80, "type": "cluster_ip"},
                          {"address": "0.0.0.0", "port": 30080, "type": "node_port"}],
            "backends": [{"address": "10.0.0.2", "port": 81}, {"address": "10.0.0.1", "port": 80}]}],
        "policies": [{"endpoint": 2, "enforce_ingress": true,
            "entries": [{"direction": "ingress", "protocol": 6, "precedence": 1}]}],
        "egress_gateways": [{"source": "10.0.0.2", "destination": "198.51.100.0/24", "gateway": "192.0.2.2", "egress_ip": "192.0.2.1"}],
    }))
}

fn accounted(outcome: &Outcome) -> usize {
    outcome.sent.len()
        + outcome.drops.len()
        + outcome.punts.len()
        + outcome.waits.len()
        + outcome.consumed
        + outcome.held
}

fn address() -> impl Strategy<Value = &'static str> {
    select(vec![
        "10.0.0.1",
        "10.0.0.2",
        "10.96.0.1",
        "192.0.2.1",
        "192.0.2.2",
        "10.0.2.5",
        "198.51.100.7",
        "10.0.0.254",
        "169.254.42.1",
        "224.0.0.1",
    ])
}

fn segment() -> impl Strategy<Value = Segment> {
    let port = || select(vec![80u16, 81, 30080, 4000, 40000, 8472]);
    prop_oneof![
        (port(), port(), any::<u8>()).prop_map(|(sport, dport, flags)| tcp(sport, dport, flags)),
        (port(), port()).prop_map(|(sport, dport)| udp(sport, dport)),
        (0..16u8, 0..5u8, proptest::collection::vec(any::<u8>(), 0..60))
            .prop_map(|(kind, code, data)| icmp(kind, code, 0, &data)),
        (0..16u8, address(), address(), port(), port()).prop_map(|(kind, src, dst, sport, dport)| icmp(
            kind,
            0,
            0,
            &packet(src, dst, udp(sport, dport))
        )),
        (address(), address()).prop_map(|(src, dst)| {
            let inner = ethernet([4; 6], [6; 6], &packet(src, dst, tcp(4000, 80, SYN)));
            Segment(
                17,
                [
                    &[0xc0, 0, 0x21, 0x18, 0, 0x66, 0, 0, 8, 0, 0, 0, 0, 7, 0xd1, 0][..],
                    &inner,
                ]
                .concat(),
                None,
            )
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_bytes(
        port in select(vec!["pod1", "uplink", "host", "none"]),
        kind in select(vec![[8u8, 0], [0x86, 0xdd], [8, 6], [0x81, 0], [0, 9]]),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        known: bool,
    ) {
        let mut frame = bytes;
        if known && frame.len() > 14 {
            frame[..6].copy_from_slice(&OURS);
            frame[12..14].copy_from_slice(&kind);
        }
        let outcome = lab().model.receive_with(port, &frame, &mut First);
        prop_assert!(accounted(&outcome) > 0, "{:?}", frame);
    }

    #[test]
    fn mutated_packets(
        steps in proptest::collection::vec(
            (
                (select(vec!["pod1", "pod2", "uplink", "host"]), address(), address(), segment()),
                proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
                any::<prop::sample::Index>(),
                (any::<bool>(), any::<bool>()),
            ),
            1..12,
        )
    ) {
        let mut lab = lab();
        for ((port, src, dst, segment), changes, cut, (shorter, repaired)) in steps {
            let mut bytes = packet(src, dst, segment);
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if repaired && bytes[0] >> 4 == 4 && usize::from(bytes[0] & 15) * 4 <= bytes.len() && bytes[0] & 15 >= 5 {
                patch4(&mut bytes, 8, &[64]);
            }
            if shorter {
                bytes.truncate(cut.index(bytes.len()).max(1));
            }
            let frame = ethernet(OURS, behind(port), &bytes);
            let outcome = lab.model.receive(port, &frame);
            prop_assert!(accounted(&outcome) > 0, "{:?}", frame);
            let later = lab.model.now() + SECOND / 3;
            lab.model.set_time(later);
        }
    }
}
