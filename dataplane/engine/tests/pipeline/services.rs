//! Services as endpoints see them (specification, 1.2 step 9, 3).

use std::collections::HashSet;

use octoplane_engine::Direction;
use octoplane_tables::model::{
    BackendState, Change, FrontendType, IpcacheEntry, NoBackend, Node, Protocol, Routing, Service,
    ServiceBackend, ServiceFrontend, Tunnel, TunnelProtocol,
};

use crate::common::bytes::{be16, internet_checksum, ip, ip4, put16};
use crate::common::flows::{end, ends, packet};
use crate::common::*;
use crate::overlay::{PEER4, tunnelled, wrapped};

const SYN: u8 = 2;
const ACK: u8 = 16;

fn service(name: &str, protocol: Protocol, vip: (&str, u16), backends: &[(&str, u16)]) -> Service {
    let mut service = Service::new(name, protocol);
    service.frontends.push(ServiceFrontend {
        addr: ip(vip.0),
        port: vip.1,
        kind: FrontendType::ClusterIp,
    });
    service.backends = backends
        .iter()
        .map(|&(addr, port)| ServiceBackend {
            addr: ip(addr),
            port,
            weight: 1,
            state: BackendState::Active,
            local: true,
        })
        .collect();
    service
}

fn put(service: Service) -> Change {
    Change::PutService(Box::new(service))
}

#[test]
fn to_a_backend_and_back_under_the_services_address() {
    for (vip, client, backend) in [
        ("10.96.0.10", "10.0.0.1", "10.0.0.2"),
        ("fd96::10", "fd00::1", "fd00::2"),
    ] {
        for (protocol, number) in [(Protocol::Tcp, 6), (Protocol::Udp, 17)] {
            let mut lab = lab();
            lab.apply(vec![put(service(
                "ns/svc:p",
                protocol,
                (vip, 80),
                &[(backend, 8080)],
            ))]);
            // First packets, and those that follow them.
            for flags in [SYN, ACK, ACK] {
                let there = packet(number, (client, 4000), (vip, 80), flags, (OURS[0], EP1));
                let outcome = lab.one(POD0, &there);
                let (port, sent) = outcome.only();
                assert_eq!((port, &sent[..6], sent.len()), (POD1, &EP2[..], there.len()));
                assert_eq!(ends(sent), (end(client, 4000), end(backend, 8080)));
                let back = packet(number, (backend, 8080), (client, 4000), SYN | ACK, (OURS[1], EP2));
                let outcome = lab.one(POD1, &back);
                let (port, sent) = outcome.only();
                assert_eq!((port, &sent[..6]), (POD0, &EP1[..]));
                assert_eq!(ends(sent), (end(vip, 80), end(client, 4000)));
            }
            assert_eq!(lab.flows.len(), 1);
        }
    }
}

#[test]
fn a_connection_stays_with_its_backend_and_all_backends_are_used() {
    let mut lab = lab();
    lab.apply(vec![put(service(
        "ns/svc:p",
        Protocol::Tcp,
        ("10.96.0.10", 80),
        &[("10.0.0.2", 8080), ("10.0.0.3", 8080)],
    ))]);
    let mut used = HashSet::new();
    for sport in 1000..1064 {
        let frame = packet(6, ("10.0.0.1", sport), ("10.96.0.10", 80), ACK, (OURS[0], EP1));
        let backends: HashSet<_> = (0..5).map(|_| ends(lab.one(POD0, &frame).only().1).1).collect();
        assert_eq!(backends.len(), 1);
        used.extend(backends);
    }
    assert_eq!(used.len(), 2);
}

/// 1.2 step 9 f: the endpoint sees the loopback address, and its own address never comes back to it as a sender.
#[test]
fn an_endpoint_reaches_itself() {
    for (vip, client, loopback) in [
        ("10.96.0.10", "10.0.0.1", "169.254.42.1"),
        ("fd96::10", "fd00::1", "fe80::1"),
    ] {
        let mut lab = lab();
        lab.apply(vec![put(service(
            "ns/svc:p",
            Protocol::Tcp,
            (vip, 80),
            &[(client, 8080)],
        ))]);
        for flags in [SYN, ACK] {
            let there = packet(6, (client, 4000), (vip, 80), flags, (OURS[0], EP1));
            let outcome = lab.one(POD0, &there);
            let (port, sent) = outcome.only();
            assert_eq!(
                (port, ends(sent)),
                (POD0, (end(loopback, 4000), end(client, 8080)))
            );
            let back = packet(6, (client, 8080), (loopback, 4000), SYN | ACK, (OURS[0], EP1));
            let outcome = lab.one(POD0, &back);
            let (port, sent) = outcome.only();
            assert_eq!((port, ends(sent)), (POD0, (end(vip, 80), end(client, 4000))));
        }
    }
}

/// 3.7.
#[test]
fn without_backends_the_sender_is_told() {
    let mut lab = lab();
    let mut gone = service(
        "ns/svc:p",
        Protocol::Tcp,
        ("10.96.0.10", 80),
        &[("10.0.0.2", 8080)],
    );
    gone.backends[0].state = BackendState::Maintenance;
    lab.apply(vec![put(gone)]);
    let mut frame = packet(6, ("10.0.0.1", 4000), ("10.96.0.10", 80), SYN, (OURS[0], EP1));
    frame.extend([0; 40]);
    let len = frame.len() as u16 - 14;
    put16(&mut frame, 16, len);
    put16(&mut frame, 24, 0);
    let sum = internet_checksum(&frame[14..34]);
    put16(&mut frame, 24, sum);
    let outcome = lab.one(POD0, &frame);
    let (code, sent) = outcome.dropped_and_sent();
    assert_eq!((code, &sent[0].1[34..36]), (158, &[3, 3][..]));
    // In the name of the service: TOS 0, id 0, no "don't fragment", TTL 64; the first 64 bytes of the packet at most.
    let answer = &sent[0].1[14..];
    assert_eq!(answer[..10], [0x45, 0, 0, 28 + 64, 0, 0, 0, 0, 64, 1]);
    assert_eq!(answer[12..20], [10, 96, 0, 10, 10, 0, 0, 1]);
    assert_eq!(
        (internet_checksum(&answer[..20]), internet_checksum(&answer[20..])),
        (0, 0)
    );
    assert!(frame.len() - 14 > 64, "{}", frame.len());
    assert_eq!(answer[28..], frame[14..14 + 64]);
    lab.apply(vec![Change::PutNode(Box::new(Node {
        no_backend: NoBackend::Drop,
        ..Node::default()
    }))]);
    assert_eq!(lab.one(POD0, &frame).dropped(), 158);
    assert!(lab.flows.is_empty());
}

/// KEP-1669: better one that is about to go than none.
#[test]
fn terminating_backends_serve_when_there_are_no_others() {
    let mut lab = lab();
    let mut going = service(
        "ns/svc:p",
        Protocol::Tcp,
        ("10.96.0.10", 80),
        &[("10.0.0.2", 80), ("10.0.0.3", 80)],
    );
    going.backends[1].state = BackendState::Terminating;
    lab.apply(vec![put(going.clone())]);
    let frame = |sport| packet(6, ("10.0.0.1", sport), ("10.96.0.10", 80), SYN, (OURS[0], EP1));
    for sport in 1000..1020 {
        assert_eq!(ends(lab.one(POD0, &frame(sport)).only().1).1, end("10.0.0.2", 80));
    }
    going.backends[0].state = BackendState::Terminating;
    lab.apply(vec![put(going)]);
    let used: HashSet<_> = (2000..2040)
        .map(|sport| ends(lab.one(POD0, &frame(sport)).only().1).1)
        .collect();
    assert_eq!(used.len(), 2);
}

#[test]
fn other_ports_of_the_address_are_no_service() {
    let mut lab = lab();
    lab.apply(vec![put(service(
        "ns/svc:p",
        Protocol::Tcp,
        ("10.96.0.10", 80),
        &[("10.0.0.2", 8080)],
    ))]);
    // As routed, untranslated.
    for (protocol, port) in [(6, 81), (17, 80)] {
        let frame = packet(
            protocol,
            ("10.0.0.1", 4000),
            ("10.96.0.10", port),
            SYN,
            (OURS[0], EP1),
        );
        assert_eq!(lab.one(POD0, &frame).only().0, UPLINK);
    }
}

/// From outside: a NodePort on the node's address, to a backend here and to one on another node.
#[test]
fn from_outside_to_here_and_to_other_nodes() {
    for (own, client, here, there) in [
        (OWN4, "198.51.100.7", "10.0.0.1", "198.51.101.9"),
        (OWN6, "2001:db8:7::7", "fd00::1", "2001:db8:8::9"),
    ] {
        let mut lab = lab();
        let mut nodeport = service("ns/svc:p", Protocol::Tcp, (own, 30_080), &[(here, 8080)]);
        nodeport.frontends[0].kind = FrontendType::NodePort;
        lab.apply(vec![
            Change::PutNode(Box::new(Node {
                masquerade4: Some(OWN4.parse().unwrap()),
                masquerade6: Some(OWN6.parse().unwrap()),
                ..Node::default()
            })),
            put(nodeport.clone()),
        ]);
        for flags in [SYN, ACK, ACK] {
            // The endpoint sees the client.
            let question = packet(6, (client, 4000), (own, 30_080), flags, (OURS[2], ROUTER));
            let outcome = lab.one(UPLINK, &question);
            let (port, sent) = outcome.only();
            assert_eq!((port, ends(sent)), (POD0, (end(client, 4000), end(here, 8080))));
            let answer = packet(6, (here, 8080), (client, 4000), SYN | ACK, (OURS[0], EP1));
            let outcome = lab.one(POD0, &answer);
            let (port, sent) = outcome.only();
            assert_eq!(
                (port, ends(sent)),
                (UPLINK, (end(own, 30_080), end(client, 4000)))
            );
        }
        nodeport.backends[0].addr = ip(there);
        nodeport.backends[0].local = false;
        lab.apply(vec![put(nodeport)]);
        for flags in [SYN, ACK, ACK] {
            // The other node's endpoint answers to us.
            let question = packet(6, (client, 4001), (own, 30_080), flags, (OURS[2], ROUTER));
            let outcome = lab.one(UPLINK, &question);
            let (port, sent) = outcome.only();
            let (from, to) = ends(sent);
            assert_eq!((port, from.0, to), (UPLINK, ip(own), end(there, 8080)));
            assert!(from.1 >= 32_768);
            let answer = packet(6, (there, 8080), (own, from.1), SYN | ACK, (OURS[2], ROUTER));
            let outcome = lab.one(UPLINK, &answer);
            let (port, sent) = outcome.only();
            assert_eq!(
                (port, ends(sent)),
                (UPLINK, (end(own, 30_080), end(client, 4001)))
            );
        }
    }
}

/// 3.6 step 4: the source is the node's own address, whether what leaves the cluster is masqueraded or not.
#[test]
fn requests_to_other_nodes_come_from_this_one_without_masquerading_too() {
    for (own, client, there) in [
        (OWN4, "198.51.100.7", "198.51.101.9"),
        (OWN6, "2001:db8:7::7", "2001:db8:8::9"),
    ] {
        let mut lab = lab();
        let mut nodeport = service("ns/svc:p", Protocol::Tcp, (own, 30_080), &[(there, 8080)]);
        nodeport.frontends[0].kind = FrontendType::NodePort;
        nodeport.backends[0].local = false;
        lab.apply(vec![
            Change::PutNode(Box::new(Node {
                addresses: vec![ip(own)],
                ..Node::default()
            })),
            put(nodeport),
        ]);
        for flags in [SYN, ACK, ACK] {
            let question = packet(6, (client, 4001), (own, 30_080), flags, (OURS[2], ROUTER));
            let outcome = lab.one(UPLINK, &question);
            let (port, sent) = outcome.only();
            let (from, to) = ends(sent);
            assert_eq!((port, from.0, to), (UPLINK, ip(own), end(there, 8080)));
            let answer = packet(6, (there, 8080), (own, from.1), SYN | ACK, (OURS[2], ROUTER));
            let outcome = lab.one(UPLINK, &answer);
            let (port, sent) = outcome.only();
            assert_eq!(
                (port, ends(sent)),
                (UPLINK, (end(own, 30_080), end(client, 4001)))
            );
        }
    }
}

/// 3.6 step 2.
#[test]
fn what_is_not_for_the_outside() {
    let mut lab = lab();
    let mut balanced = service("ns/svc:p", Protocol::Tcp, (OWN4, 80), &[("10.0.0.1", 8080)]);
    balanced.frontends[0].kind = FrontendType::LoadBalancer;
    balanced.source_ranges = vec!["198.51.100.0/24".parse().unwrap()];
    let internal = service("ns/in:p", Protocol::Tcp, (OWN4, 81), &[("10.0.0.1", 8080)]);
    lab.apply(vec![put(balanced), put(internal)]);
    let from = |client, port| packet(6, (client, 4000), (OWN4, port), SYN, (OURS[2], ROUTER));
    assert_eq!(lab.one(UPLINK, &from("198.51.100.7", 80)).only().0, POD0);
    assert_eq!(lab.one(UPLINK, &from("203.0.113.7", 80)).dropped(), 177);
    assert_eq!(lab.one(UPLINK, &from("198.51.100.7", 81)).dropped(), 174);
    // The address is the services' altogether (3.2).
    assert_eq!(lab.one(UPLINK, &from("198.51.100.7", 82)).dropped(), 158);
}

/// 1.2 step 9 c: an endpoint that uses another node's NodePort is served from here, and hears from the address it used.
#[test]
fn another_nodes_node_port() {
    let mut lab = lab();
    let mut nodeport = service(
        "ns/svc:p",
        Protocol::Tcp,
        ("0.0.0.0", 30_080),
        &[("10.0.0.2", 8080)],
    );
    nodeport.frontends[0].kind = FrontendType::NodePort;
    let identity = |prefix: &str, identity| {
        Change::PutIpcache(IpcacheEntry {
            prefix: prefix.parse().unwrap(),
            identity,
            tunnel: None,
            key: 0,
            skip_tunnel: false,
        })
    };
    lab.apply(vec![
        Change::PutNode(Box::new(Node {
            addresses: vec![ip(OWN4)],
            ..Node::default()
        })),
        identity("198.51.100.9/32", 6),
        identity("198.51.100.10/32", 1234),
        put(nodeport),
    ]);
    for flags in [SYN, ACK] {
        let there = packet(
            6,
            ("10.0.0.1", 4000),
            ("198.51.100.9", 30_080),
            flags,
            (OURS[0], EP1),
        );
        let outcome = lab.one(POD0, &there);
        let (port, sent) = outcome.only();
        assert_eq!(
            (port, ends(sent)),
            (POD1, (end("10.0.0.1", 4000), end("10.0.0.2", 8080)))
        );
        let back = packet(
            6,
            ("10.0.0.2", 8080),
            ("10.0.0.1", 4000),
            SYN | ACK,
            (OURS[1], EP2),
        );
        let outcome = lab.one(POD1, &back);
        assert_eq!(
            ends(outcome.only().1),
            (end("198.51.100.9", 30_080), end("10.0.0.1", 4000))
        );
    }
    // Ports outside of the range, and addresses that are no nodes', are left alone.
    for (addr, port) in [("198.51.100.9", 8080), ("198.51.100.10", 30_080)] {
        let there = packet(6, ("10.0.0.1", 4001), (addr, port), SYN, (OURS[0], EP1));
        let outcome = lab.one(POD0, &there);
        assert_eq!(
            (outcome.only().0, ends(outcome.only().1).1),
            (UPLINK, end(addr, port))
        );
    }
}

/// 3.2, 3.6: addresses of load balancers and external ones are services' for whoever comes by an uplink, whatever route
/// there is to them.
#[test]
fn external_addresses_from_an_uplink() {
    for (kind, unserved) in [
        (FrontendType::LoadBalancer, Some(158)),
        (FrontendType::ExternalIp, None),
    ] {
        for (vip, client, backend) in [
            ("203.0.113.10", "198.51.100.7", "10.0.0.2"),
            ("2001:db8:77::10", "2001:db8:ffff::7", "fd00::2"),
        ] {
            let mut lab = lab();
            let mut balanced = service("ns/svc:p", Protocol::Tcp, (vip, 80), &[(backend, 8080)]);
            balanced.frontends[0].kind = kind;
            lab.apply(vec![put(balanced)]);
            for flags in [SYN, ACK, ACK] {
                let there = packet(6, (client, 4000), (vip, 80), flags, (OURS[2], ROUTER));
                let outcome = lab.one(UPLINK, &there);
                let (port, sent) = outcome.only();
                assert_eq!(
                    (port, ends(sent)),
                    (POD1, (end(client, 4000), end(backend, 8080)))
                );
                let back = packet(6, (backend, 8080), (client, 4000), SYN | ACK, (OURS[1], EP2));
                let outcome = lab.one(POD1, &back);
                let (port, sent) = outcome.only();
                assert_eq!((port, ends(sent)), (UPLINK, (end(vip, 80), end(client, 4000))));
            }
            let other = packet(6, (client, 4000), (vip, 81), SYN, (OURS[2], ROUTER));
            let outcome = lab.one(UPLINK, &other);
            match unserved {
                Some(code) => assert_eq!(outcome.dropped(), code),
                None => assert_eq!(outcome.only().0, UPLINK),
            }
        }
    }
}

/// The checksum of SCTP is over its ports (RFC 9260, section 6.8): as scapy has it for both; a wrong one stays visible.
#[test]
fn sctp_gets_a_right_checksum_if_it_had_one() {
    let mut lab = lab();
    lab.apply(vec![put(service(
        "ns/svc:p",
        Protocol::Sctp,
        ("10.96.0.10", 80),
        &[("10.0.0.2", 8080)],
    ))]);
    let message = |port: [u8; 2], sum: [u8; 4]| {
        let parts: [&[u8]; 5] = [&[0x9c, 0x40], &port, &[0, 0, 0, 9], &sum, b"abcdefgh"];
        parts.concat()
    };
    let frame = |sum| {
        ip4("10.0.0.1", "10.96.0.10")
            .payload(132, message([0, 80], sum))
            .frame(OURS[0], EP1)
    };
    let outcome = lab.one(POD0, &frame([0x16, 0x16, 0x78, 0xdd]));
    assert_eq!(
        outcome.only().1[34..],
        message([0x1f, 0x90], [0xd7, 0x15, 0xcc, 0xbb])
    );
    assert_eq!(lab.one(POD0, &frame([0x16, 0x16, 0x78, 0xdc])).dropped(), 154);
}

/// With more services than caches hold, what a burst needs of them is fetched ahead: each packet is treated as it is alone,
/// broken ones among them.
#[test]
fn many_services_in_one_burst() {
    let vip = |index: u16, v6: bool| match v6 {
        false => format!("10.96.{}.{}", index >> 8, index & 0xff),
        true => format!("fd96::{index:x}"),
    };
    let services = || {
        let one = |(index, v6): (u16, bool)| {
            let backend = if v6 { "fd00::2" } else { "10.0.0.2" };
            // Every seventh has no backend.
            let backends = [(backend, 1000 + index)];
            let backends = if index % 7 == 0 { &[][..] } else { &backends[..] };
            let name = format!("ns/svc-{index}-{v6}:p");
            put(service(&name, Protocol::Udp, (&vip(index, v6), 80), backends))
        };
        (0..400)
            .flat_map(|index| [(index, false), (index, true)])
            .map(one)
    };
    let mut frames = Vec::new();
    for index in 0..28 {
        for (v6, client) in [(false, "10.0.0.1"), (true, "fd00::1")] {
            let (to, sport) = (vip(13 * index, v6), 4000 + index);
            let whole = packet(17, (client, sport), (&to, 80), 0, (OURS[0], EP1));
            if index % 9 == 8 {
                frames.push(whole[..usize::from(2 * index)].to_vec());
            }
            frames.push(whole);
        }
    }
    let (mut together, mut alone) = (lab(), lab());
    together.apply(services().collect());
    alone.apply(services().collect());
    for _ in 0..2 {
        let burst = together.burst(POD0, &frames);
        let mut sent = Vec::new();
        let mut dropped = 0;
        for frame in &frames {
            let outcome = alone.one(POD0, frame);
            dropped += outcome.drop_count();
            sent.extend(outcome.sent);
        }
        let mut of_burst = burst.sent.clone();
        of_burst.sort();
        sent.sort();
        assert!(sent.iter().filter(|(port, _)| *port == POD1).count() > 40);
        assert_eq!((of_burst, burst.drop_count()), (sent, dropped));
    }
    assert_eq!(together.flows.len(), alone.flows.len());
}

/// 3.3: the choice of a backend outlives the connection that it was made for, unless the backend takes no new ones.
#[test]
fn a_connection_that_begins_anew_keeps_its_backend() {
    const FIN: u8 = 1;
    let mut lab = lab();
    let mut two = service(
        "ns/svc:p",
        Protocol::Tcp,
        ("10.96.0.10", 80),
        &[("10.0.0.2", 8080), ("10.0.0.3", 8080)],
    );
    lab.apply(vec![put(two.clone())]);
    let there = |sport, flags| packet(6, ("10.0.0.1", sport), ("10.96.0.10", 80), flags, (OURS[0], EP1));
    for sport in 1000..1032 {
        let backend = ends(lab.one(POD0, &there(sport, SYN)).only().1).1;
        lab.one(POD0, &there(sport, FIN | ACK));
        assert_eq!(ends(lab.one(POD0, &there(sport, SYN)).only().1).1, backend);
        lab.one(POD0, &there(sport, FIN | ACK));
    }
    two.backends[0].state = BackendState::Terminating;
    lab.apply(vec![put(two)]);
    for sport in 1000..1032 {
        let backend = ends(lab.one(POD0, &there(sport, SYN)).only().1).1;
        assert_eq!(backend, end("10.0.0.3", 8080));
    }
}

/// 3.6: which service's it is cannot be told, so it is nobody's; elsewhere the kernel may see what it makes of it.
#[test]
fn what_cannot_be_read_is_no_services() {
    let mut lab = Plan {
        host: true,
        default_routes: false,
        ..Plan::default()
    }
    .lab();
    lab.apply(vec![put(service(
        "ns/svc:p",
        Protocol::Tcp,
        ("10.96.0.10", 80),
        &[("10.0.0.2", 8080)],
    ))]);
    for (protocol, len) in [(6, 19), (17, 7), (1, 7)] {
        let frame = |to| {
            let part = vec![0; len];
            ip4("198.51.100.7", to)
                .payload(protocol, part)
                .frame(OURS[2], ROUTER)
        };
        assert_eq!(
            lab.one(UPLINK, &frame("10.96.0.10")).drops,
            vec![(135, Direction::Ingress, 1)]
        );
        assert_eq!(lab.one(UPLINK, &frame("10.96.0.11")).only().0, HOST);
    }
}

/// 2.4: the kernel's ports are kept for it where requests to backends on other nodes take the node's first address, too.
#[test]
fn requests_to_other_nodes_do_not_take_the_kernels_ports() {
    let mut lab = Plan {
        host: true,
        ..Plan::default()
    }
    .lab();
    let backend = ("198.51.101.9", 8080);
    let mut nodeport = service("ns/svc:p", Protocol::Tcp, (OWN4, 30_080), &[backend]);
    nodeport.frontends[0].kind = FrontendType::NodePort;
    nodeport.backends[0].local = false;
    lab.apply(vec![
        Change::PutNode(Box::new(Node {
            addresses: vec![ip(OWN4)],
            ..Node::default()
        })),
        put(nodeport),
    ]);
    let kernels = packet(6, (OWN4, 40_000), backend, SYN, (OURS[3], KERNEL));
    assert_eq!(
        ends(lab.one(HOST, &kernels).only().1),
        (end(OWN4, 40_000), end(backend.0, backend.1))
    );
    let clients = packet(
        6,
        ("198.51.100.7", 40_000),
        (OWN4, 30_080),
        SYN,
        (OURS[2], ROUTER),
    );
    let (from, to) = ends(lab.one(UPLINK, &clients).only().1);
    assert_eq!((from.0, to), (ip(OWN4), end(backend.0, backend.1)));
    assert_ne!(from.1, 40_000);
}

/// 3.6 step 3: the client's address is preserved, whoever claims it; the loopback address is for endpoints here (1.2 step 9 f).
#[test]
fn nobody_reaches_itself_from_outside() {
    for (own, client) in [(OWN4, "10.0.0.1"), (OWN6, "fd00::1")] {
        let mut lab = lab();
        let mut nodeport = service("ns/svc:p", Protocol::Tcp, (own, 30_080), &[(client, 8080)]);
        nodeport.frontends[0].kind = FrontendType::NodePort;
        lab.apply(vec![put(nodeport)]);
        let question = packet(6, (client, 4000), (own, 30_080), SYN, (OURS[2], ROUTER));
        let (from, to) = ends(lab.one(UPLINK, &question).only().1);
        assert_eq!((from, to), (end(client, 4000), end(client, 8080)));
    }
}

/// 1.2 step 13: what the backend has said before by itself, or the client by another service, does not keep a client from it.
#[test]
fn connections_between_the_same_ends_give_way() {
    let mut lab = lab();
    let vip = |name, addr| service(name, Protocol::Tcp, (addr, 80), &[("10.0.0.2", 8080)]);
    lab.apply(vec![
        put(vip("ns/one:p", "10.96.0.10")),
        put(vip("ns/two:p", "10.96.0.11")),
    ]);
    let stray = packet(6, ("10.0.0.2", 8080), ("10.0.0.1", 4000), ACK, (OURS[1], EP2));
    assert_eq!(lab.one(POD1, &stray).only().0, POD0);
    for vip in ["10.96.0.10", "10.96.0.11", "10.96.0.10"] {
        let request = packet(6, ("10.0.0.1", 4000), (vip, 80), SYN, (OURS[0], EP1));
        let outcome = lab.one(POD0, &request);
        assert_eq!(ends(outcome.only().1).1, end("10.0.0.2", 8080));
        assert_eq!(ends(lab.one(POD1, &stray).only().1).0, end(vip, 80));
    }
    assert_eq!(lab.flows.len(), 1);
}

/// What stands behind a packet does not go from one tunnel into another: a pod on another node asks this node for a service with a backend on another node (3.6).
#[test]
fn padding_is_not_taken_from_one_tunnel_to_another() {
    let mut lab = tunnelled(TunnelProtocol::Vxlan, PEER4);
    let mut nodeport = service("ns/svc:p", Protocol::Tcp, (OWN4, 30_080), &[("10.1.0.8", 8080)]);
    nodeport.frontends[0].kind = FrontendType::NodePort;
    nodeport.backends[0].local = false;
    let node = Node {
        addresses: vec![ip(OWN4)],
        routing: Routing::Tunnel,
        tunnel: Tunnel {
            local4: Some(OWN4.parse().unwrap()),
            ..Tunnel::default()
        },
        ..Node::default()
    };
    lab.apply(vec![Change::PutNode(Box::new(node)), put(nodeport)]);
    for (flags, padding) in [(SYN, 5), (ACK, 6), (ACK, 0), (ACK, 1)] {
        let mut inner = packet(6, ("10.1.0.7", 4000), (OWN4, 30_080), flags, ([7; 6], [9; 6]));
        inner.resize(inner.len() + padding, 0);
        let outcome = lab.one(UPLINK, &wrapped(5000, TunnelProtocol::Vxlan, &inner, 0));
        let sent = outcome.only().1;
        assert_eq!((be16(sent, 36), &sent[80..84]), (8472, &[10, 1, 0, 8][..]));
        // RFC 791: the length in the header of the packet inside.
        assert_eq!(usize::from(be16(sent, 66)), sent.len() - 64, "{padding} bytes");
    }
}
