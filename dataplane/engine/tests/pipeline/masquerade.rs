//! Under the node's address (specification, 2.4).

use std::collections::HashSet;

use octoplane_packet::HeapPool;
use octoplane_tables::model::{Change, Node, Routing, Tunnel, TunnelProtocol};

use crate::common::bytes::{icmp4, internet_checksum, ip, ip4, ip6};
use crate::common::flows::{end, ends, packet, upper_checksum};
use crate::common::*;
use crate::overlay::{PEER4, tunnelled, wrapped};

const SYN: u8 = 2;
const ACK: u8 = 16;

fn masquerading() -> Lab<HeapPool> {
    let mut lab = lab();
    lab.apply(vec![Change::PutNode(Box::new(Node {
        masquerade4: Some(OWN4.parse().unwrap()),
        masquerade6: Some(OWN6.parse().unwrap()),
        native_cidrs: vec!["198.51.101.0/24".parse().unwrap()],
        ..Node::default()
    }))]);
    lab
}

#[test]
fn what_leaves_has_the_nodes_address_and_replies_come_back() {
    for (own, client, remote) in [
        (OWN4, "10.0.0.1", "198.51.100.7"),
        (OWN6, "fd00::1", "2001:db8:7::7"),
    ] {
        for protocol in [6, 17] {
            let mut lab = masquerading();
            for flags in [SYN, ACK, ACK] {
                // A port in the range is kept.
                let there = packet(protocol, (client, 40_000), (remote, 80), flags, (OURS[0], EP1));
                let outcome = lab.one(POD0, &there);
                let (port, sent) = outcome.only();
                assert_eq!((port, ends(sent)), (UPLINK, (end(own, 40_000), end(remote, 80))));
                let back = packet(
                    protocol,
                    (remote, 80),
                    (own, 40_000),
                    SYN | ACK,
                    (OURS[2], ROUTER),
                );
                let outcome = lab.one(UPLINK, &back);
                let (port, sent) = outcome.only();
                assert_eq!((port, &sent[..6]), (POD0, &EP1[..]));
                assert_eq!(ends(sent), (end(remote, 80), end(client, 40_000)));
            }
        }
    }
}

#[test]
fn other_ports_become_ports_of_the_range() {
    let mut lab = masquerading();
    for sport in 1000..1200 {
        let frame = packet(6, ("10.0.0.1", sport), ("198.51.100.7", 80), SYN, (OURS[0], EP1));
        let (from, _) = ends(lab.one(POD0, &frame).only().1);
        assert_eq!(from.0, ip(OWN4));
        assert!(from.1 >= 32_768, "{}", from.1);
    }
}

/// Two endpoints with the same port to the same place.
#[test]
fn no_two_connections_share_a_port_to_the_same_place() {
    let mut lab = masquerading();
    let mut ports = HashSet::new();
    for (port, client, mac) in [
        (POD0, "10.0.0.1", EP1),
        (POD1, "10.0.0.2", EP2),
        (POD1, "10.0.0.3", EP3),
    ] {
        let frame = packet(
            6,
            (client, 40_000),
            ("198.51.100.7", 80),
            SYN,
            (OURS[usize::from(port)], mac),
        );
        ports.insert(ends(lab.one(port, &frame).only().1).0);
    }
    assert_eq!(ports.len(), 3);
    // To another place the port is free.
    let frame = packet(6, ("10.0.0.2", 40_000), ("198.51.100.8", 80), SYN, (OURS[1], EP2));
    assert_eq!(ends(lab.one(POD1, &frame).only().1).0, end(OWN4, 40_000));
}

#[test]
fn who_knows_our_endpoints_sees_them() {
    let mut lab = masquerading();
    lab.apply(vec![route("198.51.101.0/24", via("192.0.2.254"), None)]);
    let frame = packet(6, ("10.0.0.1", 40_000), ("198.51.101.7", 80), SYN, (OURS[0], EP1));
    assert_eq!(ends(lab.one(POD0, &frame).only().1).0, end("10.0.0.1", 40_000));
    // And endpoints see each other.
    let frame = packet(6, ("10.0.0.1", 40_000), ("10.0.0.2", 80), SYN, (OURS[0], EP1));
    assert_eq!(ends(lab.one(POD0, &frame).only().1).0, end("10.0.0.1", 40_000));
}

#[test]
fn pings_have_identifiers_of_their_own() {
    let mut lab = masquerading();
    let request = |id| {
        ip4("10.0.0.1", "198.51.100.7")
            .payload(1, icmp4(8, 0, [0, id, 0, 1], b"ping"))
            .frame(OURS[0], EP1)
    };
    let outcome = lab.one(POD0, &request(7));
    let (port, sent) = outcome.only();
    assert_eq!(
        (port, &sent[26..30], &sent[38..40]),
        (UPLINK, &[192, 0, 2, 1][..], &[0, 7][..])
    );
    assert_eq!(
        (internet_checksum(&sent[14..34]), internet_checksum(&sent[34..])),
        (0, 0)
    );
    let reply = ip4("198.51.100.7", OWN4)
        .payload(1, icmp4(0, 0, [0, 7, 0, 1], b"ping"))
        .frame(OURS[2], ROUTER);
    let outcome = lab.one(UPLINK, &reply);
    let (port, sent) = outcome.only();
    assert_eq!(
        (port, &sent[30..34], &sent[38..40]),
        (POD0, &[10, 0, 0, 1][..], &[0, 7][..])
    );
    assert_eq!(internet_checksum(&sent[34..]), 0);
    // Another endpoint with the same identifier.
    let frame = ip4("10.0.0.2", "198.51.100.7")
        .payload(1, icmp4(8, 0, [0, 7, 0, 1], b"ping"))
        .frame(OURS[1], EP2);
    let outcome = lab.one(POD1, &frame);
    assert_ne!(&outcome.only().1[38..40], &[0, 7]);
    // The other family, whose checksum covers the addresses.
    let frame = ip6("fd00::1", "2001:db8:7::7")
        .icmp(128, 0, [0, 7, 0, 1], b"ping")
        .frame(OURS[0], EP1);
    let outcome = lab.one(POD0, &frame);
    let sent = outcome.only().1;
    let sum = upper_checksum(ip(OWN6), ip("2001:db8:7::7"), 58, &sent[54..]);
    assert_eq!((sum, &sent[58..60]), (0, &[0, 7][..]));
}

/// What has no ports cannot be told apart on the way back.
#[test]
fn other_protocols_do_not_leave() {
    let mut lab = masquerading();
    let frame = ip4("10.0.0.1", "198.51.100.7")
        .payload(47, vec![0; 20])
        .frame(OURS[0], EP1);
    assert_eq!(lab.one(POD0, &frame).dropped(), 168);
}

/// A free port is found as long as there is one, and not after.
#[test]
fn all_ports_are_used() {
    let mut lab = masquerading();
    lab.apply(vec![Change::PutNode(Box::new(Node {
        masquerade4: Some(OWN4.parse().unwrap()),
        nodeport_min: 65_000,
        nodeport_max: 65_485,
        ..Node::default()
    }))]);
    let frame = |sport| packet(6, ("10.0.0.1", sport), ("198.51.100.7", 80), SYN, (OURS[0], EP1));
    let ports: HashSet<u16> = (1000..1050)
        .map(|sport| ends(lab.one(POD0, &frame(sport)).only().1).0.1)
        .collect();
    assert_eq!(ports.len(), 50);
    assert_eq!(lab.one(POD0, &frame(2000)).dropped(), 167);
}

/// The kernel's connections from that address, and an endpoint's: whoever comes second gets another port.
#[test]
fn the_kernels_ports_are_kept_for_it() {
    for endpoint_first in [false, true] {
        let mut lab = Plan {
            host: true,
            ..Plan::default()
        }
        .lab();
        lab.apply(vec![Change::PutNode(Box::new(Node {
            masquerade4: Some(OWN4.parse().unwrap()),
            ..Node::default()
        }))]);
        let remote = ("198.51.100.7", 80);
        let kernels = packet(6, (OWN4, 40_000), remote, SYN, (OURS[3], KERNEL));
        let endpoints = packet(6, ("10.0.0.1", 40_000), remote, SYN, (OURS[0], EP1));
        let mut used = Vec::new();
        for from_endpoint in [endpoint_first, !endpoint_first] {
            let outcome = match from_endpoint {
                true => lab.one(POD0, &endpoints),
                false => lab.one(HOST, &kernels),
            };
            let (port, sent) = outcome.only();
            assert_eq!(port, UPLINK);
            let (src, dst) = ends(sent);
            assert_eq!((src.0, dst), (ip(OWN4), end(remote.0, remote.1)));
            used.push((from_endpoint, src.1));
        }
        assert_eq!(used[0].1, 40_000);
        assert_ne!(used[1].1, 40_000);
        // Each hears its own answers.
        for (from_endpoint, sport) in used {
            let answer = packet(6, remote, (OWN4, sport), SYN | ACK, (OURS[2], ROUTER));
            let outcome = lab.one(UPLINK, &answer);
            let (port, sent) = outcome.only();
            let (_, dst) = ends(sent);
            let expected = match from_endpoint {
                true => (POD0, end("10.0.0.1", 40_000)),
                false => (HOST, end(OWN4, 40_000)),
            };
            assert_eq!((port, dst), expected);
        }
    }
    // Ports that endpoints never get, and other addresses, are none of this.
    let mut lab = Plan {
        host: true,
        ..Plan::default()
    }
    .lab();
    lab.apply(vec![Change::PutNode(Box::new(Node {
        masquerade4: Some(OWN4.parse().unwrap()),
        ..Node::default()
    }))]);
    for from in [(OWN4, 22), ("192.0.2.2", 40_000)] {
        lab.one(
            HOST,
            &packet(6, from, ("198.51.100.7", 80), SYN, (OURS[3], KERNEL)),
        )
        .only();
    }
    assert!(lab.flows.is_empty());
}

/// 2.4, "existing mapping": a SYN on a connection that is closing makes it a new one (2.3), but its translation is still there.
#[test]
fn a_connection_that_begins_anew_keeps_its_port() {
    const FIN: u8 = 1;
    let mut lab = masquerading();
    for sport in 1000..1032 {
        let there = |flags| {
            packet(
                6,
                ("10.0.0.1", sport),
                ("198.51.100.7", 80),
                flags,
                (OURS[0], EP1),
            )
        };
        let first = ends(lab.one(POD0, &there(SYN)).only().1).0;
        let back = packet(
            6,
            ("198.51.100.7", 80),
            (OWN4, first.1),
            FIN | ACK,
            (OURS[2], ROUTER),
        );
        assert_eq!(lab.one(UPLINK, &back).only().0, POD0);
        assert_eq!(ends(lab.one(POD0, &there(SYN)).only().1).0, first);
        // The other side knows it by that port still.
        assert_eq!(lab.one(UPLINK, &back).only().0, POD0);
    }
    assert_eq!(lab.flows.len(), 32);
}

/// 2.4: of ICMP only whole pings are masqueraded, whatever went before.
#[test]
fn what_has_no_identifier_is_no_ping() {
    let mut lab = masquerading();
    let message = |kind| {
        ip4("10.0.0.1", "198.51.100.7")
            .payload(1, icmp4(kind, 0, [0; 4], b"ping"))
            .frame(OURS[0], EP1)
    };
    assert_eq!(lab.one(POD0, &message(8)).only().0, UPLINK);
    // A timestamp request (RFC 792), an error about nothing.
    for kind in [13, 3] {
        assert_eq!(lab.one(POD0, &message(kind)).dropped(), 168);
    }
    let mut first = message(8);
    // "More fragments", and the checksum anew.
    first[20..22].copy_from_slice(&[0x20, 0]);
    first[24..26].fill(0);
    let sum = internet_checksum(&first[14..34]);
    first[24..26].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(lab.one(POD0, &first).dropped(), 134);
    assert_eq!(lab.one(POD0, &message(8)).only().0, UPLINK);
}

/// 2.3: a reply is one, whichever way it comes: here around the translation, from the kernel or from the network.
#[test]
fn answers_around_the_translation() {
    for (port, mac) in [(HOST, KERNEL), (UPLINK, ROUTER)] {
        let mut lab = Plan {
            host: true,
            ..Plan::default()
        }
        .lab();
        lab.apply(vec![Change::PutNode(Box::new(Node {
            masquerade4: Some(OWN4.parse().unwrap()),
            ..Node::default()
        }))]);
        let remote = ("198.51.100.7", 80);
        let there = packet(6, ("10.0.0.1", 4000), remote, SYN, (OURS[0], EP1));
        assert_eq!(ends(lab.one(POD0, &there).only().1).0.0, ip(OWN4));
        let ours = OURS[usize::from(port)];
        let back = packet(6, remote, ("10.0.0.1", 4000), SYN | ACK, (ours, mac));
        let outcome = lab.one(port, &back);
        let (to, sent) = outcome.only();
        assert_eq!(
            (to, ends(sent)),
            (POD0, (end(remote.0, remote.1), end("10.0.0.1", 4000)))
        );
    }
}

/// The same out of a tunnel: the remote turned out to be another node's endpoint.
#[test]
fn answers_around_the_translation_out_of_a_tunnel() {
    let mut lab = tunnelled(TunnelProtocol::Vxlan, PEER4);
    lab.apply(vec![Change::PutNode(Box::new(Node {
        routing: Routing::Tunnel,
        tunnel: Tunnel {
            protocol: TunnelProtocol::Vxlan,
            port: 8472,
            local4: Some(OWN4.parse().unwrap()),
            local6: Some(OWN6.parse().unwrap()),
        },
        masquerade4: Some(OWN4.parse().unwrap()),
        ..Node::default()
    }))]);
    let remote = ("198.51.100.7", 80);
    let there = packet(6, ("10.0.0.1", 4000), remote, SYN, (OURS[0], EP1));
    assert_eq!(ends(lab.one(POD0, &there).only().1).0.0, ip(OWN4));
    let back = packet(6, remote, ("10.0.0.1", 4000), SYN | ACK, (OURS[0], EP1));
    let outcome = lab.one(UPLINK, &wrapped(5000, TunnelProtocol::Vxlan, &back, 0));
    let (to, sent) = outcome.only();
    assert_eq!(
        (to, ends(sent)),
        (POD0, (end(remote.0, remote.1), end("10.0.0.1", 4000)))
    );
}
