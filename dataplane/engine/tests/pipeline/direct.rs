//! Direct server return (specification, 3.6).

use octoplane_tables::model::{
    BackendState, Change, Direction, Dsr, DsrDispatch, Forwarding, FrontendType, IpcacheEntry, Node, Policy,
    PolicyEntry, PolicyKey, PolicyValue, Protocol, Service, ServiceBackend, ServiceFrontend, Tunnel,
    TunnelProtocol,
};

use crate::common::bytes::{be16, internet_checksum, ip, put16};
use crate::common::flows::{end, ends, packet};
use crate::common::*;

const SYN: u8 = 2;
const ACK: u8 = 16;
const TCP: u8 = 6;
const UDP: u8 = 17;

const VIP4: &str = "203.0.113.10";
const VIP6: &str = "2001:db8:a::10";
const CLIENT4: &str = "198.51.100.7";
const CLIENT6: &str = "2001:db8:7::7";
const FAR4: &str = "198.51.101.9";
const FAR6: &str = "2001:db8:8::9";

fn service(protocol: Protocol, vip: &str, backend: (&str, u16)) -> Service {
    let mut service = Service::new("ns/svc:p", protocol);
    service.frontends.push(ServiceFrontend {
        addr: ip(vip),
        port: 80,
        kind: FrontendType::LoadBalancer,
    });
    service.backends.push(ServiceBackend {
        addr: ip(backend.0),
        port: backend.1,
        weight: 1,
        state: BackendState::Active,
        local: false,
    });
    service
}

fn node(forwarding: Forwarding, dispatch: DsrDispatch) -> Change {
    Change::PutNode(Box::new(Node {
        addresses: vec![ip(OWN4), ip(OWN6)],
        masquerade4: Some(OWN4.parse().unwrap()),
        masquerade6: Some(OWN6.parse().unwrap()),
        tunnel: Tunnel {
            protocol: TunnelProtocol::Geneve,
            port: 6081,
            local4: Some(OWN4.parse().unwrap()),
            local6: None,
        },
        forwarding,
        dsr: Dsr {
            dispatch,
            ..Dsr::default()
        },
        ..Node::default()
    }))
}

fn put(service: Service) -> Change {
    Change::PutService(Box::new(service))
}

fn identity(prefix: &str, identity: u32, tunnel: Option<&str>) -> Change {
    Change::PutIpcache(IpcacheEntry {
        prefix: prefix.parse().unwrap(),
        identity,
        tunnel: tunnel.map(ip),
        key: 0,
        skip_tunnel: false,
    })
}

/// A balancer with a service whose backend is on another node.
fn balancer(dispatch: DsrDispatch, protocol: Protocol, v6: bool) -> Lab<octoplane_packet::HeapPool> {
    let mut lab = lab();
    let (vip, far) = if v6 { (VIP6, FAR6) } else { (VIP4, FAR4) };
    lab.apply(vec![
        node(Forwarding::Dsr, dispatch),
        identity("198.51.101.0/24", 5000, Some("192.0.2.77")),
        identity("2001:db8:8::/64", 5000, Some("192.0.2.77")),
        put(service(protocol, vip, (far, 8080))),
    ]);
    lab
}

/// What stands between the fixed IPv4 header and the upper layer, and the packet without it, all lengths and checksums right.
fn without_options(frame: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let header = usize::from(frame[14] & 15) * 4;
    assert_eq!(internet_checksum(&frame[14..14 + header]), 0);
    assert_eq!(usize::from(be16(frame, 16)), frame.len() - 14);
    let options = frame[34..14 + header].to_vec();
    let mut plain = frame[..34].to_vec();
    plain.extend(&frame[14 + header..]);
    plain[14] = 0x45;
    let total = plain.len() as u16 - 14;
    put16(&mut plain, 16, total);
    put16(&mut plain, 24, 0);
    let sum = internet_checksum(&plain[14..34]);
    put16(&mut plain, 24, sum);
    (options, plain)
}

/// The same for IPv6: the extension header that comes first.
fn without_extension(frame: &[u8]) -> (Vec<u8>, Vec<u8>) {
    assert_eq!(frame[20], 60);
    assert_eq!(usize::from(be16(frame, 18)), frame.len() - 54);
    let len = usize::from(frame[55]) * 8 + 8;
    let mut plain = frame[..54].to_vec();
    plain[20] = frame[54];
    plain.extend(&frame[54 + len..]);
    let payload = plain.len() as u16 - 54;
    put16(&mut plain, 18, payload);
    (frame[54..54 + len].to_vec(), plain)
}

/// The option of the specification: port and address with their bytes in the opposite order; in the SYN only.
#[test]
fn a_backend_is_told_in_an_ipv4_option() {
    let mut lab = balancer(DsrDispatch::Opt, Protocol::Tcp, false);
    let mut vip = service(Protocol::Tcp, "10.96.0.1", (FAR4, 8080));
    vip.name = "ns/other:p".into();
    vip.frontends[0].addr = ip("10.96.0.1");
    lab.apply(vec![put(vip)]);
    let there = packet(TCP, (CLIENT4, 4000), ("10.96.0.1", 80), SYN, (OURS[2], ROUTER));
    let outcome = lab.one(UPLINK, &there);
    let (port, sent) = outcome.only();
    let (option, plain) = without_options(sent);
    assert_eq!(option, [0x9a, 8, 0x50, 0x00, 0x01, 0x00, 0x60, 0x0a]);
    assert_eq!(
        (port, ends(&plain)),
        (UPLINK, (end(CLIENT4, 4000), end(FAR4, 8080)))
    );
    assert_eq!((plain[22], plain.len()), (there[22] - 1, there.len()));
    // What follows is translated only; a SYN that is sent again says it again.
    for flags in [ACK, ACK] {
        let there = packet(TCP, (CLIENT4, 4000), ("10.96.0.1", 80), flags, (OURS[2], ROUTER));
        let outcome = lab.one(UPLINK, &there);
        let (_, sent) = outcome.only();
        assert_eq!(
            (sent[14], ends(sent)),
            (0x45, (end(CLIENT4, 4000), end(FAR4, 8080)))
        );
    }
    let again = lab.one(UPLINK, &there);
    assert_eq!(without_options(again.only().1).0, option);
    assert_eq!(lab.flows.len(), 1);
}

#[test]
fn every_datagram_says_it() {
    let mut lab = balancer(DsrDispatch::Opt, Protocol::Udp, false);
    for _ in 0..3 {
        let there = packet(UDP, (CLIENT4, 4000), (VIP4, 80), 0, (OURS[2], ROUTER));
        let outcome = lab.one(UPLINK, &there);
        let (option, plain) = without_options(outcome.only().1);
        assert_eq!(option, [0x9a, 8, 0x50, 0x00, 10, 113, 0, 203]);
        assert_eq!(ends(&plain), (end(CLIENT4, 4000), end(FAR4, 8080)));
    }
}

/// IPv6: a destination option of type 0x1b and length 20 with address and port as they are.
#[test]
fn a_backend_is_told_in_a_destination_option() {
    for (protocol, number, first) in [(Protocol::Tcp, TCP, SYN), (Protocol::Udp, UDP, 0)] {
        let mut lab = balancer(DsrDispatch::Opt, protocol, true);
        let there = packet(number, (CLIENT6, 4000), (VIP6, 80), first, (OURS[2], ROUTER));
        let outcome = lab.one(UPLINK, &there);
        let (option, plain) = without_extension(outcome.only().1);
        let mut wanted = vec![number, 2, 0x1b, 20, 0x20, 0x01, 0x0d, 0xb8, 0, 0x0a];
        wanted.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 80, 0, 0]);
        assert_eq!(option, wanted);
        assert_eq!(ends(&plain), (end(CLIENT6, 4000), end(FAR6, 8080)));
        if number == TCP {
            let next = packet(TCP, (CLIENT6, 4000), (VIP6, 80), ACK, (OURS[2], ROUTER));
            let outcome = lab.one(UPLINK, &next);
            assert_eq!(ends(outcome.only().1), (end(CLIENT6, 4000), end(FAR6, 8080)));
        }
    }
}

/// Modes: the node's, and a service's own, which goes before it.
#[test]
fn who_answers_is_a_matter_of_mode_and_protocol() {
    use Forwarding::{Dsr, Hybrid, Snat};
    for (nodes, services, tcp, udp) in [
        (Snat, None, false, false),
        (Snat, Some(Dsr), true, true),
        (Snat, Some(Hybrid), true, false),
        (Dsr, None, true, true),
        (Dsr, Some(Snat), false, false),
        (Hybrid, None, true, false),
        (Hybrid, Some(Dsr), true, true),
    ] {
        for (protocol, number, direct) in [(Protocol::Tcp, TCP, tcp), (Protocol::Udp, UDP, udp)] {
            let mut lab = lab();
            let mut it = service(protocol, VIP4, (FAR4, 8080));
            it.forwarding = services;
            lab.apply(vec![node(nodes, DsrDispatch::Opt), put(it)]);
            let there = packet(number, (CLIENT4, 4000), (VIP4, 80), SYN, (OURS[2], ROUTER));
            let outcome = lab.one(UPLINK, &there);
            let (option, plain) = without_options(outcome.only().1);
            let from = if direct { CLIENT4 } else { OWN4 };
            assert_eq!(
                (option.len(), ends(&plain).0.0),
                (if direct { 8 } else { 0 }, ip(from))
            );
        }
    }
}

/// A packet to endpoint 1 as a load balancer sends it.
fn told(number: u8, v6: bool, flags: u8, option: &[u8]) -> Vec<u8> {
    let (client, pod) = if v6 {
        (CLIENT6, "fd00::1")
    } else {
        (CLIENT4, "10.0.0.1")
    };
    let plain = packet(number, (client, 4000), (pod, 8080), flags, (OURS[2], ROUTER));
    if option.is_empty() {
        return plain;
    }
    let at = if v6 { 54 } else { 34 };
    let mut frame = plain[..at].to_vec();
    frame.extend(option);
    frame.extend(&plain[at..]);
    if v6 {
        frame[20] = 60;
        let payload = frame.len() as u16 - 54;
        put16(&mut frame, 18, payload);
    } else {
        frame[14] += option.len() as u8 / 4;
        let total = frame.len() as u16 - 14;
        put16(&mut frame, 16, total);
        put16(&mut frame, 24, 0);
        let sum = internet_checksum(&frame[14..34 + option.len()]);
        put16(&mut frame, 24, sum);
    }
    frame
}

fn option6(number: u8) -> Vec<u8> {
    let mut option = vec![number, 2, 0x1b, 20, 0x20, 0x01, 0x0d, 0xb8, 0, 0x0a];
    option.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 80, 0, 0]);
    option
}

/// 203.0.113.10, port 80.
const OPTION4: [u8; 8] = [0x9a, 8, 0x50, 0, 10, 113, 0, 203];

fn answer(number: u8, v6: bool, flags: u8) -> Vec<u8> {
    let (client, pod) = if v6 {
        (CLIENT6, "fd00::1")
    } else {
        (CLIENT4, "10.0.0.1")
    };
    packet(number, (pod, 8080), (client, 4000), flags, (OURS[0], EP1))
}

#[test]
fn a_backend_answers_in_the_name_of_what_the_client_used() {
    for v6 in [false, true] {
        for number in [TCP, UDP] {
            let mut lab = lab();
            lab.apply(vec![node(Forwarding::Dsr, DsrDispatch::Opt)]);
            let (client, pod, vip) = if v6 {
                (CLIENT6, "fd00::1", VIP6)
            } else {
                (CLIENT4, "10.0.0.1", VIP4)
            };
            let option = if v6 { option6(number) } else { OPTION4.to_vec() };
            let first = told(number, v6, SYN, &option);
            let outcome = lab.one(UPLINK, &first);
            let (port, sent) = outcome.only();
            // The endpoint gets it as it is, option included.
            assert_eq!((port, sent), (POD0, &forwarded(&first, EP1, OURS[0])[..]));
            for _ in 0..3 {
                let outcome = lab.one(POD0, &answer(number, v6, SYN | ACK));
                let (port, sent) = outcome.only();
                assert_eq!((port, ends(sent)), (UPLINK, (end(vip, 80), end(client, 4000))));
                let next = told(number, v6, ACK, &[]);
                let outcome = lab.one(UPLINK, &next);
                let (port, sent) = outcome.only();
                assert_eq!((port, ends(sent)), (POD0, (end(client, 4000), end(pod, 8080))));
            }
            // Both directions go by the fast path.
            assert_eq!(lab.one(POD0, &answer(number, v6, ACK)).slow, 0);
            assert_eq!(lab.one(UPLINK, &told(number, v6, ACK, &[])).slow, 0);
            assert_eq!(lab.flows.len(), 1);
        }
    }
}

/// 3.6: a SYN without information on a tuple that was used before clears it; one with other information replaces it.
#[test]
fn a_tuple_is_used_again() {
    let mut lab = lab();
    lab.apply(vec![node(Forwarding::Dsr, DsrDispatch::Opt)]);
    let mut name = |lab: &mut Lab<_>, option: &[u8]| {
        lab.one(UPLINK, &told(TCP, false, SYN, option)).only();
        let outcome = lab.one(POD0, &answer(TCP, false, SYN | ACK));
        ends(outcome.only().1).0
    };
    assert_eq!(name(&mut lab, &OPTION4), end(VIP4, 80));
    assert_eq!(name(&mut lab, &[]), end("10.0.0.1", 8080));
    assert_eq!(name(&mut lab, &OPTION4), end(VIP4, 80));
    assert_eq!(
        name(&mut lab, &[0x9a, 8, 0x51, 0, 11, 113, 0, 203]),
        end("203.0.113.11", 81)
    );
    // What is not a SYN says nothing.
    let outcome = lab.one(UPLINK, &told(TCP, false, ACK, &OPTION4));
    outcome.only();
    let outcome = lab.one(POD0, &answer(TCP, false, ACK));
    assert_eq!(ends(outcome.only().1).0, end("203.0.113.11", 81));
    assert_eq!(lab.flows.len(), 1);
}

/// Where nobody returns directly, an option is just an option.
#[test]
fn a_node_that_does_not_return_directly_does_not_listen() {
    let mut lab = lab();
    lab.apply(vec![node(Forwarding::Snat, DsrDispatch::Opt)]);
    lab.one(UPLINK, &told(TCP, false, SYN, &OPTION4)).only();
    let outcome = lab.one(POD0, &answer(TCP, false, SYN | ACK));
    assert_eq!(ends(outcome.only().1).0, end("10.0.0.1", 8080));
}

/// Short, wrong in their length, lying about it, or of an address that nobody has.
#[test]
fn options_that_make_no_sense() {
    let mut lab = lab();
    lab.apply(vec![node(Forwarding::Dsr, DsrDispatch::Opt)]);
    for option in [
        &[0x9a, 0, 0, 0][..],
        &[0x9a, 1, 0, 0],
        &[0x9a, 4, 80, 0],
        &[0x9a, 9, 0x50, 0, 10, 113, 0, 203],
        &[0x9a, 12, 0x50, 0, 10, 113, 0, 203, 0, 0, 0, 0],
        &[0x9a, 40, 0x50, 0, 10, 113, 0, 203],
        &[1, 1, 1, 0x9a],
        &[0x44, 0, 0, 0],
        &[0x9a, 8, 0, 0, 10, 113, 0, 203],
        &[0x9a, 8, 0x50, 0, 1, 0, 0, 127],
        &[0x9a, 8, 0x50, 0, 1, 0, 0, 224],
        &[0x9a, 8, 0x50, 0, 0, 0, 0, 0],
    ] {
        assert_eq!(
            lab.one(UPLINK, &told(TCP, false, SYN, option)).dropped(),
            134,
            "{option:?}"
        );
    }
    let with = |at: usize, value: u8| {
        let mut option = option6(TCP);
        option[at] = value;
        option
    };
    for option in [with(3, 0), with(3, 19), with(3, 21), with(3, 255), with(3, 4)] {
        assert_eq!(
            lab.one(UPLINK, &told(TCP, true, SYN, &option)).dropped(),
            156,
            "{option:?}"
        );
    }
    for option in [with(21, 0), with(4, 0xff)] {
        assert_eq!(
            lab.one(UPLINK, &told(TCP, true, SYN, &option)).dropped(),
            134,
            "{option:?}"
        );
    }
    assert!(lab.flows.is_empty());
    // Behind others it is found, and no option is no mistake.
    for (option, name) in [
        (
            &[1, 1, 1, 1, 0x9a, 8, 0x50, 0, 10, 113, 0, 203][..],
            end(VIP4, 80),
        ),
        (&[0x94, 4, 0, 0, 0, 0, 0, 0], end("10.0.0.1", 8080)),
    ] {
        lab.one(UPLINK, &told(TCP, false, SYN, option)).only();
        let outcome = lab.one(POD0, &answer(TCP, false, SYN | ACK));
        assert_eq!(ends(outcome.only().1).0, name);
    }
}

/// The endpoint's policy is about the client.
#[test]
fn policy_sees_the_client() {
    for (known, dropped) in [(5001, false), (5002, true)] {
        let mut lab = lab();
        lab.apply(vec![
            node(Forwarding::Dsr, DsrDispatch::Opt),
            identity("198.51.100.0/24", known, None),
            Change::PutPolicy(Policy {
                endpoint: 1,
                enforce_ingress: true,
                enforce_egress: false,
                audit: false,
                entries: vec![PolicyEntry {
                    key: PolicyKey {
                        direction: Direction::Ingress,
                        identity: 5001,
                        protocol: TCP,
                        port: 8080,
                        port_prefix_len: 16,
                    },
                    value: PolicyValue {
                        precedence: 0xffff_ff01,
                        ..PolicyValue::default()
                    },
                }],
            }),
        ]);
        let outcome = lab.one(UPLINK, &told(TCP, false, SYN, &OPTION4));
        match dropped {
            false => assert_eq!(outcome.only().0, POD0),
            true => assert_eq!(outcome.dropped(), 133),
        }
    }
}
