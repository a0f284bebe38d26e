//! Endpoints of other nodes in tunnels (specification, 1.6, 1.7, 5).

use std::net::IpAddr;

use octoplane_engine::NeighbourEvent;
use octoplane_packet::HeapPool;
use octoplane_tables::model::{Change, IpcacheEntry, Node, Routing, Tunnel, TunnelProtocol};

use crate::common::bytes::{Ip4, be16, internet_checksum, ip, ip4, put16};
use crate::common::flows::{packet, upper_checksum};
use crate::common::*;

const SYN: u8 = 2;
const ACK: u8 = 16;
pub(crate) const PEER4: &str = "192.0.2.9";
pub(crate) const PEER6: &str = "2001:db8::9";
pub(crate) const PEER: [u8; 6] = [2, 0, 0, 0, 1, 9];

pub(crate) fn tunnelled(protocol: TunnelProtocol, peer: &str) -> Lab<HeapPool> {
    let mut lab = lab();
    let remote = |prefix: &str| {
        Change::PutIpcache(IpcacheEntry {
            prefix: prefix.parse().unwrap(),
            identity: 5000,
            tunnel: Some(ip(peer)),
            key: 0,
            skip_tunnel: false,
        })
    };
    lab.apply(vec![
        Change::PutNode(Box::new(Node {
            routing: Routing::Tunnel,
            tunnel: Tunnel {
                protocol,
                port: 8472,
                local4: Some(OWN4.parse().unwrap()),
                local6: Some(OWN6.parse().unwrap()),
            },
            ..Node::default()
        })),
        neighbour(peer, Some(PEER)),
        remote("10.1.0.0/16"),
        remote("fd01::/64"),
    ]);
    lab
}

/// The tunnel packet of another node around a frame.
pub(crate) fn wrapped(vni: u32, protocol: TunnelProtocol, inner: &[u8], tos: u8) -> Vec<u8> {
    let mut udp = vec![0; 8];
    put16(&mut udp, 0, 50_000);
    put16(&mut udp, 2, 8472);
    put16(&mut udp, 4, (16 + inner.len()) as u16);
    udp.extend(match protocol {
        TunnelProtocol::Vxlan => [8, 0, 0, 0],
        TunnelProtocol::Geneve => [0, 0, 0x65, 0x58],
    });
    udp.extend((vni << 8).to_be_bytes());
    udp.extend(inner);
    Ip4 {
        tos,
        ..ip4(PEER4, OWN4)
    }
    .payload(17, udp)
    .frame(OURS[2], PEER)
}

#[test]
fn to_another_node_in_a_tunnel() {
    for protocol in [TunnelProtocol::Vxlan, TunnelProtocol::Geneve] {
        for (client, server) in [("10.0.0.1", "10.1.0.7"), ("fd00::1", "fd01::7")] {
            let mut lab = tunnelled(protocol, PEER4);
            for flags in [SYN, ACK, ACK] {
                let frame = packet(6, (client, 4000), (server, 80), flags, (OURS[0], EP1));
                let outcome = lab.one(POD0, &frame);
                let (port, sent) = outcome.only();
                assert_eq!(
                    (port, &sent[..6], &sent[6..12]),
                    (UPLINK, &PEER[..], &OURS[2][..])
                );
                // Outer IPv4: TTL 64, UDP, from us to the other node, checksum right, that of UDP absent.
                assert_eq!(
                    (&sent[12..16], sent[22], sent[23]),
                    (&[8, 0, 0x45, 0][..], 64, 17)
                );
                assert_eq!(
                    (&sent[26..30], &sent[30..34]),
                    (&[192, 0, 2, 1][..], &[192, 0, 2, 9][..])
                );
                assert_eq!(internet_checksum(&sent[14..34]), 0);
                assert_eq!((be16(sent, 36), be16(sent, 40)), (8472, 0));
                assert_eq!(usize::from(be16(sent, 16)), sent.len() - 14);
                assert_eq!(usize::from(be16(sent, 38)), sent.len() - 34);
                let header = match protocol {
                    TunnelProtocol::Vxlan => [8, 0, 0, 0],
                    TunnelProtocol::Geneve => [0, 0, 0x65, 0x58],
                };
                // The VNI is the sender's identity, 1001.
                assert_eq!(
                    (&sent[42..46], &sent[46..50]),
                    (&header[..], &[0, 3, 0xe9, 0][..])
                );
                // Inside, the packet as it was: a tunnel is no hop.
                assert_eq!(&sent[62..], &frame[12..]);
            }
        }
    }
}

#[test]
fn over_ipv6_with_a_checksum() {
    let mut lab = tunnelled(TunnelProtocol::Vxlan, PEER6);
    let frame = packet(17, ("10.0.0.1", 4000), ("10.1.0.7", 80), 0, (OURS[0], EP1));
    let outcome = lab.one(POD0, &frame);
    let (port, sent) = outcome.only();
    assert_eq!(
        (port, &sent[12..14], sent[20], sent[21]),
        (UPLINK, &[0x86, 0xdd][..], 17, 64)
    );
    let (src, dst): (IpAddr, IpAddr) = (ip(OWN6), ip(PEER6));
    assert_eq!(upper_checksum(src, dst, 17, &sent[54..]), 0);
    assert_eq!(&sent[82..], &frame[12..]);
}

#[test]
fn one_connection_has_one_source_port_and_many_have_many() {
    let mut lab = tunnelled(TunnelProtocol::Vxlan, PEER4);
    let mut ports = std::collections::HashSet::new();
    for sport in 1000..1100 {
        let frame = packet(6, ("10.0.0.1", sport), ("10.1.0.7", 80), ACK, (OURS[0], EP1));
        let (first, second) = (
            be16(lab.one(POD0, &frame).only().1, 34),
            be16(lab.one(POD0, &frame).only().1, 34),
        );
        assert_eq!(first, second);
        assert!(first >= 0xc000);
        ports.insert(first);
    }
    assert!(ports.len() > 80);
}

#[test]
fn from_another_node_to_an_endpoint() {
    for protocol in [TunnelProtocol::Vxlan, TunnelProtocol::Geneve] {
        for (server, client) in [("10.0.0.1", "10.1.0.7"), ("fd00::1", "fd01::7")] {
            let mut lab = tunnelled(protocol, PEER4);
            for flags in [SYN, ACK] {
                let inner = packet(6, (client, 4000), (server, 80), flags, ([7; 6], [9; 6]));
                let outcome = lab.one(UPLINK, &wrapped(5000, protocol, &inner, 0));
                let (port, sent) = outcome.only();
                assert_eq!((port, sent.to_vec()), (POD0, forwarded(&inner, EP1, OURS[0])));
                // And the answer goes the same way back.
                let answer = packet(6, (server, 80), (client, 4000), ACK, (OURS[0], EP1));
                let outcome = lab.one(POD0, &answer);
                let (port, sent) = outcome.only();
                assert_eq!(
                    (port, be16(sent, 36), &sent[46..50]),
                    (UPLINK, 8472, &[0, 3, 0xe9, 0][..])
                );
                assert_eq!(&sent[62..], &answer[12..]);
            }
        }
    }
}

/// 1.7: nobody else is this host, whatever it says.
#[test]
fn identities_that_cannot_be() {
    let mut lab = tunnelled(TunnelProtocol::Vxlan, PEER4);
    let inner = packet(6, ("10.1.0.7", 4000), ("10.0.0.1", 80), SYN, ([7; 6], [9; 6]));
    assert_eq!(
        lab.one(UPLINK, &wrapped(1, TunnelProtocol::Vxlan, &inner, 0))
            .dropped(),
        171
    );
    // A VXLAN header without valid VNI.
    let mut frame = wrapped(5000, TunnelProtocol::Vxlan, &inner, 0);
    frame[42] = 0;
    assert_eq!(lab.one(UPLINK, &frame).dropped(), 147);
}

/// 1.2 step 12.
#[test]
fn endpoints_do_not_make_tunnel_packets() {
    let mut lab = tunnelled(TunnelProtocol::Vxlan, PEER4);
    let frame = packet(17, ("10.0.0.1", 4000), (PEER4, 8472), 0, (OURS[0], EP1));
    assert_eq!(lab.one(POD0, &frame).dropped(), 170);
}

/// The underlay's MTU is 1500, the tunnel takes 50.
#[test]
fn what_does_not_fit_into_the_tunnel_is_told() {
    let mut lab = Plan {
        mtu: [9000, 9000, 1500, 1500],
        ..Plan::default()
    }
    .lab();
    let mut small = tunnelled(TunnelProtocol::Vxlan, PEER4);
    std::mem::swap(&mut lab.out, &mut small.out);
    for (size, fits) in [(1450, true), (1451, false)] {
        let frame = ip4("10.0.0.1", "10.1.0.7").size(size).frame(OURS[0], EP1);
        let outcome = small.one(POD0, &frame);
        if fits {
            assert_eq!(outcome.only().1.len(), 14 + 1500);
        } else {
            let (code, sent) = outcome.dropped_and_sent();
            assert_eq!(
                (code, &sent[0].1[34..36], be16(&sent[0].1, 40)),
                (136, &[3, 4][..], 1450)
            );
        }
    }
}

/// RFC 6040, section 4.2.
#[test]
fn congestion_on_the_way_is_seen_inside() {
    let mut lab = tunnelled(TunnelProtocol::Vxlan, PEER4);
    for (inner, outer, want) in [
        (0, 0, Some(0)),
        (2, 0, Some(2)),
        (2, 3, Some(3)),
        (1, 3, Some(3)),
        (3, 0, Some(3)),
        (2, 1, Some(1)),
        (0, 3, None),
    ] {
        let frame = Ip4 {
            tos: 0xa0 | inner,
            ..ip4("10.1.0.7", "10.0.0.1")
        }
        .frame([7; 6], [9; 6]);
        let outcome = lab.one(UPLINK, &wrapped(5000, TunnelProtocol::Vxlan, &frame, outer));
        match want {
            Some(ecn) => {
                let sent = outcome.only().1;
                assert_eq!(sent[15], 0xa0 | ecn, "{inner} in {outer}");
                assert_eq!(internet_checksum(&sent[14..34]), 0);
            }
            None => assert_eq!(outcome.dropped(), 134),
        }
    }
}

#[test]
fn what_is_inside_is_checked() {
    let mut lab = tunnelled(TunnelProtocol::Vxlan, PEER4);
    let inner = packet(6, ("10.1.0.7", 4000), ("10.0.0.1", 80), SYN, ([7; 6], [9; 6]));
    let mut bad = inner.clone();
    bad[24] ^= 1;
    assert_eq!(
        lab.one(UPLINK, &wrapped(5000, TunnelProtocol::Vxlan, &bad, 0))
            .dropped(),
        153
    );
    for len in 0..34 {
        let outcome = lab.one(UPLINK, &wrapped(5000, TunnelProtocol::Vxlan, &inner[..len], 0));
        assert_eq!(outcome.drop_count(), 1, "{len}");
    }
}

/// Nobody out there has the inner address: it is the tunnel's end on the link that is asked for.
#[test]
fn the_tunnels_end_on_the_link_is_asked_for() {
    for (client, server) in [("10.0.0.1", "10.1.0.7"), ("fd00::1", "fd01::7")] {
        for peer in ["192.0.2.77", "2001:db8::77"] {
            let mut lab = tunnelled(TunnelProtocol::Vxlan, peer);
            lab.apply(vec![Change::RemoveNeighbour {
                port: UPLINK,
                addr: ip(peer),
            }]);
            let frame = packet(6, (client, 4000), (server, 80), SYN, (OURS[0], EP1));
            let outcome = lab.one(POD0, &frame);
            let wanted = NeighbourEvent::Wanted {
                port: UPLINK,
                addr: ip(peer),
            };
            assert_eq!(
                (&outcome.events[..], outcome.parked),
                (&[wanted][..], 1),
                "{peer}"
            );
            lab.apply(vec![neighbour(peer, Some(PEER))]);
            let outcome = lab.tick(1_000_000);
            let (port, sent) = outcome.only();
            assert_eq!((port, &sent[..6]), (UPLINK, &PEER[..]));
        }
    }
}

/// Whether a tunnel packet of which these bytes of the UDP datagram are others reaches the endpoint, or why not.
fn arrives(protocol: TunnelProtocol, at: usize, bytes: &[u8]) -> Result<Vec<u8>, u16> {
    let mut lab = tunnelled(protocol, PEER4);
    let inner = packet(17, ("10.1.0.7", 4000), ("10.0.0.1", 53), 0, (EP1, PEER));
    let mut frame = wrapped(5000, protocol, &inner, 0);
    frame[34 + at..34 + at + bytes.len()].copy_from_slice(bytes);
    frame.extend([0xee; 6]);
    let outcome = lab.one(UPLINK, &frame);
    match outcome.sent.first() {
        Some((POD0, sent)) => Ok(sent[14..].to_vec()),
        _ => Err(outcome.dropped()),
    }
}

#[test]
fn what_stands_behind_the_datagram_is_not_in_the_tunnel() {
    let inner = packet(17, ("10.1.0.7", 4000), ("10.0.0.1", 53), 0, (EP1, PEER));
    let protocol = TunnelProtocol::Vxlan;
    let arrived = arrives(protocol, 8, &[8]).unwrap();
    assert_eq!(arrived.len(), inner.len() - 14);
    // A length that leaves no room for the headers, or is more than there is; one that cuts the packet inside off.
    for len in [0, 15, inner.len() as u16 + 17, 0xffff] {
        assert_eq!(arrives(protocol, 4, &len.to_be_bytes()), Err(134), "{len}");
    }
    let len = inner.len() as u16 + 15;
    assert_eq!(arrives(protocol, 4, &len.to_be_bytes()), Err(134));
}

#[test]
fn control_messages_of_geneve_are_not_forwarded() {
    let protocol = TunnelProtocol::Geneve;
    assert!(arrives(protocol, 9, &[0]).is_ok());
    for flags in [0x80, 0x40, 0xc0] {
        assert_eq!(arrives(protocol, 9, &[flags]), Err(134));
    }
}

/// Packets of a connection that is known are not taken out before their connection is found: all checks hold for them, too.
#[test]
fn what_is_known_is_found_in_the_tunnel() {
    for protocol in [TunnelProtocol::Vxlan, TunnelProtocol::Geneve] {
        for (server, client) in [("10.0.0.1", "10.1.0.7"), ("fd00::1", "fd01::7")] {
            let v4 = server.contains('.');
            let mut lab = tunnelled(protocol, PEER4);
            let inner = packet(17, (client, 4000), (server, 53), 0, ([7; 6], [9; 6]));
            let good = wrapped(5000, protocol, &inner, 0);
            let arrived = |outcome: &Outcome| {
                let (port, sent) = outcome.only();
                assert_eq!((port, sent.to_vec()), (POD0, forwarded(&inner, EP1, OURS[0])));
                outcome.fast
            };
            assert_eq!(arrived(&lab.one(UPLINK, &good)), 0);
            assert_eq!(arrived(&lab.one(UPLINK, &good)), 1);
            // The sender says who it is in each packet: another one is asked about.
            let other = wrapped(5001, protocol, &inner, 0);
            assert_eq!(arrived(&lab.one(UPLINK, &other)), 0);
            assert_eq!(lab.one(UPLINK, &wrapped(1, protocol, &inner, 0)).dropped(), 171);
            assert_eq!(arrived(&lab.one(UPLINK, &good)), 0);
            assert_eq!(arrived(&lab.one(UPLINK, &good)), 1);
            // What stands behind it is not the tunnel's.
            assert_eq!(arrived(&lab.one(UPLINK, &[&good[..], &[0xee; 6]].concat())), 0);
            // Congestion is carried over (RFC 6040, section 4.2): here to a packet that cannot say so.
            assert_eq!(
                lab.one(UPLINK, &wrapped(5000, protocol, &inner, 3)).dropped(),
                134
            );
            // The last hop was the one before.
            let mut old = inner.clone();
            old[if v4 { 22 } else { 21 }] = 1;
            if v4 {
                put16(&mut old, 24, 0);
                let sum = internet_checksum(&old[14..34]);
                put16(&mut old, 24, sum);
            }
            assert_eq!(
                lab.one(UPLINK, &wrapped(5000, protocol, &old, 0))
                    .dropped_and_sent()
                    .0,
                196
            );
            // More than there is.
            let mut long = inner.clone();
            let at = if v4 { 16 } else { 18 };
            let len = be16(&long, at) + 1;
            put16(&mut long, at, len);
            assert!(lab.one(UPLINK, &wrapped(5000, protocol, &long, 0)).drop_count() == 1);
            if v4 {
                let mut bad = inner.clone();
                bad[24] ^= 1;
                assert_eq!(lab.one(UPLINK, &wrapped(5000, protocol, &bad, 0)).dropped(), 153);
            }
            assert_eq!(arrived(&lab.one(UPLINK, &good)), 1);
        }
    }
}

#[test]
fn errors_about_what_is_inside_go_back_into_the_tunnel() {
    for (v6, sender, receiver, at) in [
        (false, "10.1.0.7", "10.0.0.1", 22),
        (true, "fd01::7", "fd00::1", 21),
    ] {
        let mut lab = tunnelled(TunnelProtocol::Vxlan, PEER4);
        let mut inner = packet(6, (sender, 4000), (receiver, 80), SYN, ([2; 6], [4; 6]));
        inner[at] = 1;
        if !v6 {
            let sum = internet_checksum(&[&inner[14..24], &[0, 0], &inner[26..34]].concat());
            put16(&mut inner, 24, sum);
        }
        let outcome = lab.one(UPLINK, &wrapped(5000, TunnelProtocol::Vxlan, &inner, 0));
        let (code, sent) = outcome.dropped_and_sent();
        assert_eq!((code, sent.len()), (196, 1));
        let (port, sent) = (sent[0].0, &sent[0].1);
        // Through the tunnel to the node of the sender, from a node (identity 6 on the wire).
        assert_eq!(
            (port, &sent[..6], &sent[30..34]),
            (UPLINK, &PEER[..], &[192, 0, 2, 9][..])
        );
        assert_eq!((be16(sent, 36), &sent[46..50]), (8472, &[0, 0, 6, 0][..]));
        let (error, kind, quoted) = match v6 {
            // RFC 4443, section 3.3.
            true => (&sent[64..], 40, 3),
            // RFC 792.
            false => (&sent[64..], 20, 11),
        };
        assert_eq!(error[kind], quoted);
        let (to, expected) = match ip(sender) {
            IpAddr::V4(addr) => (&error[16..20], addr.octets().to_vec()),
            IpAddr::V6(addr) => (&error[24..40], addr.octets().to_vec()),
        };
        assert_eq!(to, expected);
        assert_eq!(error[kind + 8..], inner[14..], "the packet as it came");
    }
}

/// Neither with the first packet nor with those that follow it.
#[test]
fn padding_is_not_taken_to_another_node() {
    for (src, dst) in [("10.0.0.1", "10.1.0.7"), ("fd00::1", "fd01::7")] {
        let mut lab = tunnelled(TunnelProtocol::Vxlan, PEER4);
        for (flags, padding) in [(SYN, 5), (ACK, 6), (ACK, 0), (ACK, 1)] {
            let frame = packet(6, (src, 4000), (dst, 80), flags, (OURS[0], EP1));
            let mut padded = frame.clone();
            padded.resize(frame.len() + padding, 0);
            let outcome = lab.one(POD0, &padded);
            let sent = outcome.only().1;
            assert_eq!(sent[62..], frame[12..], "{padding} bytes");
            // The lengths are without it, too.
            assert_eq!(usize::from(be16(sent, 16)), sent.len() - 14);
            assert_eq!(usize::from(be16(sent, 38)), sent.len() - 34);
        }
    }
}

/// 1.2 step 14.7: what answers a packet out of the tunnel goes back into it, where what begins here does not use it, too.
#[test]
fn answers_go_back_into_the_tunnel_that_others_do_not_use() {
    for (server, client, prefix) in [
        ("10.0.0.1", "10.1.0.7", "10.1.0.0/16"),
        ("fd00::1", "fd01::7", "fd01::/64"),
    ] {
        let mut lab = tunnelled(TunnelProtocol::Vxlan, PEER4);
        lab.apply(vec![Change::PutIpcache(IpcacheEntry {
            prefix: prefix.parse().unwrap(),
            identity: 5000,
            tunnel: Some(ip(PEER4)),
            key: 0,
            skip_tunnel: true,
        })]);
        let tunnelled = |frame: &[u8]| frame[23] == 17 && be16(frame, 36) == 8472;
        for flags in [SYN, ACK, ACK] {
            let inner = packet(6, (client, 4000), (server, 80), flags, ([7; 6], [9; 6]));
            let outcome = lab.one(UPLINK, &wrapped(5000, TunnelProtocol::Vxlan, &inner, 0));
            assert_eq!(outcome.only().0, POD0);
            let answer = packet(6, (server, 80), (client, 4000), ACK, (OURS[0], EP1));
            assert!(tunnelled(lab.one(POD0, &answer).only().1));
        }
        let request = packet(6, (server, 4001), (client, 80), SYN, (OURS[0], EP1));
        assert!(!tunnelled(lab.one(POD0, &request).only().1));
    }
}

/// What is for an endpoint behind a port that is down says so (206), whichever way it came.
#[test]
fn an_endpoint_whose_port_is_down() {
    let mut lab = tunnelled(TunnelProtocol::Vxlan, PEER4);
    lab.apply(vec![admin(POD0, false)]);
    for client in ["10.1.0.7", "198.51.100.7"] {
        let plain = packet(6, (client, 4000), ("10.0.0.1", 80), SYN, (OURS[2], ROUTER));
        for frame in [&wrapped(5000, TunnelProtocol::Vxlan, &plain, 0), &plain] {
            assert_eq!(lab.one(UPLINK, frame).dropped(), 206);
        }
    }
}
