//! Traffic to the world that leaves from a certain node (specification, 1.6 step 5, 1.7 step 6, 2.12).

use octoplane_engine::Direction;
use octoplane_packet::HeapPool;
use octoplane_tables::model::{
    Change, EgressGateway, EgressGatewayRule, EgressKey, IpcacheEntry, TunnelProtocol,
};

use crate::common::bytes::{be16, ip};
use crate::common::flows::{end, ends, packet};
use crate::common::*;
use crate::overlay::{PEER, PEER4, tunnelled, wrapped};

const SYN: u8 = 2;
const ACK: u8 = 16;
/// Bytes of an outer IPv4 packet with VXLAN.
const OUTER: usize = 14 + 20 + 8 + 8;

fn rule(source: &str, gateway: EgressGateway, egress_ip: Option<&str>) -> Change {
    let v6 = source.contains(':');
    Change::PutEgressGateway(EgressGatewayRule {
        key: EgressKey {
            source: source.parse().unwrap(),
            destination: if v6 { "::/0" } else { "0.0.0.0/0" }.parse().unwrap(),
        },
        gateway,
        egress_ip: egress_ip.map(ip),
    })
}

fn source_node(gateway: EgressGateway) -> Lab<HeapPool> {
    let mut lab = tunnelled(TunnelProtocol::Vxlan, PEER4);
    lab.apply(vec![
        rule("10.0.0.0/24", gateway, Some("192.0.2.99")),
        rule("fd00::/64", gateway, Some("2001:db8::99")),
    ]);
    lab
}

const TO_THE_WORLD: [(&str, &str); 2] = [("10.0.0.1", "198.51.100.7"), ("fd00::1", "2001:db8:ffff::7")];

#[test]
fn through_the_tunnel_to_the_gateway_and_back() {
    for (client, server) in TO_THE_WORLD {
        let mut lab = source_node(EgressGateway::Node(ip(PEER4)));
        for flags in [SYN, ACK, ACK] {
            let frame = packet(6, (client, 4000), (server, 80), flags, (OURS[0], EP1));
            let outcome = lab.one(POD0, &frame);
            let (port, sent) = outcome.only();
            assert_eq!((port, &sent[..6], be16(sent, 36)), (UPLINK, &PEER[..], 8472));
            assert_eq!(
                (&sent[30..34], &sent[46..49]),
                (&[192, 0, 2, 9][..], &[0, 3, 0xe9][..])
            );
            // The gateway gives it another address; the way there is a hop (specification, section 5, TTL).
            assert_eq!(&sent[OUTER + 12..], &forwarded(&frame, PEER, OURS[2])[12..]);
            let back = packet(6, (server, 80), (client, 4000), SYN | ACK, ([9; 6], [8; 6]));
            let outcome = lab.one(UPLINK, &wrapped(2, TunnelProtocol::Vxlan, &back, 0));
            let (port, sent) = outcome.only();
            assert_eq!((port, ends(sent)), (POD0, (end(server, 80), end(client, 4000))));
        }
        assert_eq!(lab.flows.len(), 1);
    }
}

#[test]
fn what_stays_in_the_cluster_or_is_excluded_takes_no_detour() {
    // To another endpoint of this node.
    let mut lab = source_node(EgressGateway::Node(ip(PEER4)));
    let frame = packet(6, ("10.0.0.1", 4000), ("10.0.0.2", 80), SYN, (OURS[0], EP1));
    assert_eq!(lab.one(POD0, &frame).only().0, POD1);
    // To something that the cluster knows.
    lab.apply(vec![Change::PutIpcache(IpcacheEntry {
        prefix: "198.51.100.0/24".parse().unwrap(),
        identity: 6,
        tunnel: None,
        key: 0,
        skip_tunnel: false,
    })]);
    let frame = packet(6, ("10.0.0.1", 4001), ("198.51.100.7", 80), SYN, (OURS[0], EP1));
    let outcome = lab.one(POD0, &frame);
    assert_eq!(
        ends(outcome.only().1),
        (end("10.0.0.1", 4001), end("198.51.100.7", 80))
    );
    // Excluded destinations.
    let mut lab = source_node(EgressGateway::Excluded);
    let outcome = lab.one(POD0, &frame);
    assert_eq!(
        ends(outcome.only().1),
        (end("10.0.0.1", 4001), end("198.51.100.7", 80))
    );
}

#[test]
fn without_a_gateway_it_does_not_leave() {
    for (client, server) in TO_THE_WORLD {
        let mut lab = source_node(EgressGateway::Missing);
        let frame = packet(6, (client, 4000), (server, 80), SYN, (OURS[0], EP1));
        assert_eq!(lab.one(POD0, &frame).drops, vec![(194, Direction::Egress, 1)]);
    }
}

/// On the gateway: other nodes' endpoints leave under the rule's address, and their answers find back.
#[test]
fn at_the_gateway() {
    for (client, server, egress_ip, source) in [
        ("10.1.0.7", "198.51.100.7", OWN4, "10.1.0.0/16"),
        ("fd01::7", "2001:db8:ffff::7", OWN6, "fd01::/64"),
    ] {
        let mut lab = tunnelled(TunnelProtocol::Vxlan, PEER4);
        lab.apply(vec![rule(source, EgressGateway::Node(ip(OWN4)), Some(egress_ip))]);
        for flags in [SYN, ACK, ACK] {
            let inner = packet(6, (client, 40_000), (server, 80), flags, ([9; 6], [8; 6]));
            let outcome = lab.one(UPLINK, &wrapped(5000, TunnelProtocol::Vxlan, &inner, 0));
            let (port, sent) = outcome.only();
            assert_eq!(
                (port, ends(sent)),
                (UPLINK, (end(egress_ip, 40_000), end(server, 80)))
            );
            let back = packet(6, (server, 80), (egress_ip, 40_000), SYN | ACK, (OURS[2], ROUTER));
            let outcome = lab.one(UPLINK, &back);
            let (port, sent) = outcome.only();
            assert_eq!((port, &sent[..6], be16(sent, 36)), (UPLINK, &PEER[..], 8472));
            assert_eq!(ends(&sent[OUTER..]), (end(server, 80), end(client, 40_000)));
        }
    }
}

#[test]
fn at_a_gateway_without_address() {
    let mut lab = tunnelled(TunnelProtocol::Vxlan, PEER4);
    lab.apply(vec![rule("10.1.0.0/16", EgressGateway::Node(ip(OWN4)), None)]);
    let inner = packet(6, ("10.1.0.7", 4000), ("198.51.100.7", 80), SYN, ([9; 6], [8; 6]));
    let outcome = lab.one(UPLINK, &wrapped(5000, TunnelProtocol::Vxlan, &inner, 0));
    assert_eq!(outcome.drops, vec![(204, Direction::Ingress, 1)]);
}
