//! Direct server return (specification, 3.6).

use octoplane_tables::model::{
    BackendState, Change, Direction, Dsr, DsrDispatch, Forwarding, FrontendType, IpcacheEntry, Node, Policy,
    PolicyEntry, PolicyKey, PolicyValue, Protocol, Service, ServiceBackend, ServiceFrontend, Tunnel,
    TunnelProtocol,
};

use crate::common::bytes::{self, be16, icmp4, internet_checksum, ip, ip4, ip6, put16, udp};
use crate::common::flows::{end, ends, packet, upper_checksum};
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
        neighbour("192.0.2.77", Some(ROUTER)),
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
    // By the fast path.
    let next = packet(TCP, (CLIENT4, 4000), ("10.96.0.1", 80), ACK, (OURS[2], ROUTER));
    assert_eq!(lab.one(UPLINK, &next).slow, 0);
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
    let name = |lab: &mut Lab<_>, option: &[u8]| {
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
            only(5001),
        ]);
        let outcome = lab.one(UPLINK, &told(TCP, false, SYN, &OPTION4));
        match dropped {
            false => assert_eq!(outcome.only().0, POD0),
            true => assert_eq!(outcome.dropped(), 133),
        }
    }
}

/// The balancer's frame around the client's: UDP to the backend's node from there on.
fn geneve<'a>(frame: &'a [u8], to: &str) -> (&'a [u8], &'a [u8], &'a [u8]) {
    assert_eq!((frame[23], be16(frame, 36)), (UDP, 6081));
    assert_eq!(
        std::net::IpAddr::from(<[u8; 4]>::try_from(&frame[30..34]).unwrap()),
        ip(to)
    );
    assert_eq!(internet_checksum(&frame[14..34]), 0);
    assert_eq!(usize::from(be16(frame, 16)), frame.len() - 14);
    assert_eq!(usize::from(be16(frame, 38)), frame.len() - 34);
    let options = usize::from(frame[42] & 0x3f) * 4;
    (&frame[42..50], &frame[50..50 + options], &frame[50 + options..])
}

/// Option class 0x014b, type 0x81, address, port, two bytes of padding; VNI 2 (world); with the SYN or a datagram only.
#[test]
fn a_backends_node_is_told_in_a_geneve_option() {
    let told4 = vec![0x01, 0x4b, 0x81, 2, 203, 0, 113, 10, 0, 80, 0, 0];
    let mut told6 = vec![0x01, 0x4b, 0x81, 5, 0x20, 0x01, 0x0d, 0xb8, 0, 0x0a];
    told6.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 80, 0, 0]);
    for (v6, client, vip, far, option) in [
        (false, CLIENT4, VIP4, FAR4, told4),
        (true, CLIENT6, VIP6, FAR6, told6),
    ] {
        for (protocol, number) in [(Protocol::Tcp, TCP), (Protocol::Udp, UDP)] {
            let mut lab = balancer(DsrDispatch::Geneve, protocol, v6);
            for flags in [SYN, ACK, ACK] {
                let there = packet(number, (client, 4000), (vip, 80), flags, (OURS[2], ROUTER));
                let outcome = lab.one(UPLINK, &there);
                let (header, options, inner) = geneve(outcome.only().1, "192.0.2.77");
                let says = number == UDP || flags == SYN;
                let first = if says {
                    [option.len() as u8 / 4, 0x40]
                } else {
                    [0, 0]
                };
                assert_eq!(header, [first[0], first[1], 0x65, 0x58, 0, 0, 2, 0]);
                assert_eq!(options, if says { &option[..] } else { &[] });
                assert_eq!(ends(inner), (end(client, 4000), end(far, 8080)));
            }
        }
    }
}

/// Without the node of a backend there is no tunnel to it.
#[test]
fn no_tunnel_to_a_backend() {
    let mut lab = balancer(DsrDispatch::Geneve, Protocol::Tcp, false);
    lab.apply(vec![identity("198.51.101.0/24", 5000, None)]);
    let there = packet(TCP, (CLIENT4, 4000), (VIP4, 80), SYN, (OURS[2], ROUTER));
    assert_eq!(lab.one(UPLINK, &there).dropped(), 160);
}

/// A tunnel packet to this node from another one.
fn tunnelled(flags: u8, vni: u8, options: &[u8], inner: &[u8]) -> Vec<u8> {
    let mut payload = vec![0xc0, 1, 0x17, 0xc1, 0, 0, 0, 0];
    payload.extend([options.len() as u8 / 4, flags, 0x65, 0x58, 0, 0, vni, 0]);
    payload.extend(options);
    payload.extend(inner);
    let len = payload.len() as u16;
    put16(&mut payload, 4, len);
    ip4("192.0.2.77", OWN4)
        .payload(UDP, payload)
        .frame(OURS[2], ROUTER)
}

#[test]
fn a_backend_told_by_geneve_answers_in_the_name_of_what_the_client_used() {
    let option = [0x01, 0x4b, 0x81, 2, 203, 0, 113, 10, 0, 80, 0, 0];
    // A sender may not set "critical options present".
    for flags in [0x40, 0] {
        for number in [TCP, UDP] {
            let mut lab = lab();
            lab.apply(vec![node(Forwarding::Hybrid, DsrDispatch::Geneve)]);
            let inner = told(number, false, SYN, &[]);
            let outcome = lab.one(UPLINK, &tunnelled(flags, 2, &option, &inner));
            let (port, sent) = outcome.only();
            assert_eq!(
                (port, ends(sent)),
                (POD0, (end(CLIENT4, 4000), end("10.0.0.1", 8080)))
            );
            for _ in 0..2 {
                let outcome = lab.one(POD0, &answer(number, false, SYN | ACK));
                let (port, sent) = outcome.only();
                assert_eq!((port, ends(sent)), (UPLINK, (end(VIP4, 80), end(CLIENT4, 4000))));
                let next = tunnelled(0, 2, &[], &told(number, false, ACK, &[]));
                assert_eq!(lab.one(UPLINK, &next).only().0, POD0);
            }
            assert_eq!(lab.flows.len(), 1);
        }
    }
}

/// 1.7 step 5: what is the world to the tunnel may be more to this node.
#[test]
fn policy_sees_the_client_behind_the_tunnel() {
    let option = [0x01, 0x4b, 0x81, 2, 203, 0, 113, 10, 0, 80, 0, 0];
    for (known, dropped) in [(5001, false), (5002, true)] {
        let mut lab = lab();
        lab.apply(vec![
            node(Forwarding::Dsr, DsrDispatch::Geneve),
            identity("198.51.100.0/24", known, None),
            only(5001),
        ]);
        let outcome = lab.one(UPLINK, &tunnelled(0x40, 2, &option, &told(TCP, false, SYN, &[])));
        match dropped {
            false => assert_eq!(outcome.only().0, POD0),
            true => assert_eq!(outcome.dropped(), 133),
        }
    }
}

#[test]
fn geneve_options_that_make_no_sense() {
    let mut lab = lab();
    lab.apply(vec![node(Forwarding::Dsr, DsrDispatch::Geneve)]);
    let inner = told(TCP, false, SYN, &[]);
    let mut six = vec![0x01, 0x4b, 0x81, 5];
    six.extend([0x20; 20]);
    for option in [
        // Empty, too long, longer than what there is, of another family, of no port and of no address.
        &[0x01, 0x4b, 0x81, 0][..],
        &[0x01, 0x4b, 0x81, 3, 203, 0, 113, 10, 0, 80, 0, 0, 0, 0, 0, 0],
        &[0x01, 0x4b, 0x81, 31, 203, 0, 113, 10, 0, 80, 0, 0],
        &six,
        &[0x01, 0x4b, 0x81, 2, 203, 0, 113, 10, 0, 0, 0, 0],
        &[0x01, 0x4b, 0x81, 2, 127, 0, 0, 1, 0, 80, 0, 0],
        // One that must be understood, and is another.
        &[0x01, 0x4b, 0x82, 2, 203, 0, 113, 10, 0, 80, 0, 0],
    ] {
        let outcome = lab.one(UPLINK, &tunnelled(0x40, 2, option, &inner));
        assert_eq!(outcome.dropped(), 134, "{option:?}");
    }
    // "Critical", and nothing is.
    assert_eq!(lab.one(UPLINK, &tunnelled(0x40, 2, &[], &inner)).dropped(), 134);
    // Nobody listens here, and the option must be understood.
    lab.apply(vec![node(Forwarding::Snat, DsrDispatch::Geneve)]);
    let option = [0x01, 0x4b, 0x81, 2, 203, 0, 113, 10, 0, 80, 0, 0];
    assert_eq!(
        lab.one(UPLINK, &tunnelled(0x40, 2, &option, &inner)).dropped(),
        134
    );
    assert!(lab.flows.is_empty());
}

fn only(identity: u32) -> Change {
    Change::PutPolicy(Policy {
        endpoint: 1,
        enforce_ingress: true,
        enforce_egress: false,
        audit: false,
        entries: vec![PolicyEntry {
            key: PolicyKey {
                direction: Direction::Ingress,
                identity,
                protocol: TCP,
                port: 8080,
                port_prefix_len: 16,
            },
            value: PolicyValue {
                precedence: 0xffff_ff01,
                ..PolicyValue::default()
            },
        }],
    })
}

/// Protocol 4 or 41, the client's packet as it is (its TTL, too) inside; the backend behind it.
#[test]
fn a_client_s_packet_goes_to_the_backend_in_an_ip_packet() {
    for (v6, client, vip) in [(false, CLIENT4, VIP4), (true, CLIENT6, VIP6)] {
        for (protocol, number) in [(Protocol::Tcp, TCP), (Protocol::Udp, UDP)] {
            let mut lab = balancer(DsrDispatch::Ipip, protocol, v6);
            for flags in [SYN, ACK, ACK] {
                let there = packet(number, (client, 4000), (vip, 80), flags, (OURS[2], ROUTER));
                let outcome = lab.one(UPLINK, &there);
                let (port, sent) = outcome.only();
                assert_eq!(
                    (port, &sent[..6], &sent[12..14]),
                    (UPLINK, &ROUTER[..], &there[12..14])
                );
                let at = if v6 { 54 } else { 34 };
                assert_eq!(sent[at..], there[14..]);
                if v6 {
                    assert_eq!(
                        (sent[20], sent[21], usize::from(be16(sent, 18))),
                        (41, 64, there.len() - 14)
                    );
                    let addresses: Vec<u8> = [OWN6, FAR6]
                        .iter()
                        .flat_map(|it| bytes::v6(it).octets())
                        .collect();
                    assert_eq!(sent[22..54], addresses);
                } else {
                    assert_eq!(
                        (sent[14], sent[22], sent[23], usize::from(be16(sent, 16))),
                        (0x45, 64, 4, there.len() + 6)
                    );
                    assert_eq!(internet_checksum(&sent[14..34]), 0);
                    assert_eq!(sent[26..34], [192, 0, 2, 1, 198, 51, 101, 9]);
                }
            }
        }
    }
}

/// The outer source is prefix | hash of client and ports, by hand: 198.51.100.7 is 0xc6336407; 4000 << 16 | 80 is
/// 0x0fa00050; the last byte is the upper eight bits of their exclusive or, times 0x9e3779b9.
#[test]
fn outer_sources_come_from_a_prefix() {
    let mut lab = balancer(DsrDispatch::Ipip, Protocol::Tcp, false);
    lab.apply(vec![Change::PutNode(Box::new(Node {
        addresses: vec![ip(OWN4)],
        forwarding: Forwarding::Dsr,
        dsr: Dsr {
            dispatch: DsrDispatch::Ipip,
            source4: Some("192.0.2.0/24".parse().unwrap()),
            source6: None,
        },
        ..Node::default()
    }))]);
    let mut last = std::collections::HashSet::new();
    for sport in 4000..4064_u16 {
        let there = packet(TCP, (CLIENT4, sport), (VIP4, 80), SYN, (OURS[2], ROUTER));
        let outcome = lab.one(UPLINK, &there);
        let (_, sent) = outcome.only();
        assert_eq!(sent[26..29], [192, 0, 2]);
        let hash = (u64::from(0xc633_6407 ^ (u32::from(sport) << 16 | 80)) * 0x9e37_79b9) as u32;
        assert_eq!(u32::from(sent[29]), hash >> 24);
        last.insert(sent[29]);
    }
    assert!(last.len() > 16);
}

/// The frame of a load balancer: the client's packet to the service in an IP packet to endpoint 1.
fn around(number: u8, v6: bool, flags: u8) -> Vec<u8> {
    let (client, vip) = if v6 { (CLIENT6, VIP6) } else { (CLIENT4, VIP4) };
    let inner = packet(number, (client, 4000), (vip, 80), flags, (OURS[2], ROUTER));
    match v6 {
        false => ip4("192.0.2.99", "10.0.0.1")
            .payload(4, inner[14..].to_vec())
            .frame(OURS[2], ROUTER),
        true => ip6("2001:db8::99", "fd00::1")
            .payload(41, inner[14..].to_vec())
            .frame(OURS[2], ROUTER),
    }
}

#[test]
fn a_backend_gets_what_was_in_an_ip_packet() {
    for v6 in [false, true] {
        for number in [TCP, UDP] {
            // The backend's port is the service's if that is known here, or the one that the client used.
            for (known, port) in [(true, 8080), (false, 80)] {
                let mut lab = lab();
                lab.apply(vec![node(Forwarding::Dsr, DsrDispatch::Ipip)]);
                let (client, pod, vip) = if v6 {
                    (CLIENT6, "fd00::1", VIP6)
                } else {
                    (CLIENT4, "10.0.0.1", VIP4)
                };
                let protocol = if number == TCP {
                    Protocol::Tcp
                } else {
                    Protocol::Udp
                };
                if known {
                    lab.apply(vec![put(service(protocol, vip, (pod, 8080)))]);
                }
                for flags in [SYN, ACK] {
                    let outcome = lab.one(UPLINK, &around(number, v6, flags));
                    let (out, sent) = outcome.only();
                    assert_eq!((out, ends(sent)), (POD0, (end(client, 4000), end(pod, port))));
                    let back = packet(number, (pod, port), (client, 4000), SYN | ACK, (OURS[0], EP1));
                    let outcome = lab.one(POD0, &back);
                    let (out, sent) = outcome.only();
                    assert_eq!((out, ends(sent)), (UPLINK, (end(vip, 80), end(client, 4000))));
                }
                assert_eq!(lab.flows.len(), 1);
            }
        }
    }
}

/// What is inside is looked at as what comes by itself is.
#[test]
fn ip_packets_that_make_no_sense() {
    let mut lab = lab();
    lab.apply(vec![node(Forwarding::Dsr, DsrDispatch::Ipip)]);
    let cases: [(usize, u8, u16); 5] = [
        // Version and length of the inner header, its total length, checksum, and source.
        (34, 0x65, 134),
        (34, 0x44, 134),
        (36, 0xff, 134),
        (44, 0x01, 153),
        (34, 0x4f, 153),
    ];
    for (at, value, code) in cases {
        let mut frame = around(TCP, false, SYN);
        frame[at] = value;
        assert_eq!(lab.one(UPLINK, &frame).dropped(), code, "{at} {value}");
    }
    let short = |len: usize| {
        ip4("192.0.2.99", "10.0.0.1")
            .payload(4, around(TCP, false, SYN)[34..34 + len].to_vec())
            .frame(OURS[2], ROUTER)
    };
    for len in [0, 1, 19, 20, 39] {
        let code = lab.one(UPLINK, &short(len)).dropped();
        assert_eq!(code, 134, "{len}");
    }
    assert!(lab.flows.is_empty());
    // Elsewhere it is a protocol like others.
    lab.apply(vec![node(Forwarding::Snat, DsrDispatch::Ipip)]);
    let frame = around(TCP, false, SYN);
    assert_eq!(lab.one(UPLINK, &frame).only().1, forwarded(&frame, EP1, OURS[0]));
}

/// Larger than the MTU with what is added: the client is told how much less it has to be, about the packet that it sent.
#[test]
fn too_large_with_what_is_added() {
    for (v6, dispatch, less) in [
        (false, DsrDispatch::Opt, 8),
        (true, DsrDispatch::Opt, 24),
        (false, DsrDispatch::Geneve, 50 + 12),
        (true, DsrDispatch::Geneve, 50 + 24),
        (false, DsrDispatch::Ipip, 20),
        (true, DsrDispatch::Ipip, 40),
    ] {
        let mut lab = balancer(dispatch, Protocol::Udp, v6);
        let (client, vip) = if v6 { (CLIENT6, VIP6) } else { (CLIENT4, VIP4) };
        let sized = |size: usize| {
            let mut frame = packet(UDP, (client, 4000), (vip, 80), 0, (OURS[2], ROUTER));
            let at = if v6 { 54 } else { 34 };
            frame.resize(14 + size, 0);
            let upper = (frame.len() - at) as u16;
            put16(&mut frame, at + 4, upper);
            put16(&mut frame, at + 6, 0);
            let sum = upper_checksum(ip(client), ip(vip), UDP, &frame[at..]);
            put16(&mut frame, at + 6, sum);
            if v6 {
                put16(&mut frame, 18, upper);
            } else {
                put16(&mut frame, 16, size as u16);
                frame[20] |= 0x40;
                put16(&mut frame, 24, 0);
                let sum = internet_checksum(&frame[14..34]);
                put16(&mut frame, 24, sum);
            }
            frame
        };
        assert_eq!(lab.one(UPLINK, &sized(1500 - less)).only().1.len(), 1514);
        let large = sized(1500 - less + 1);
        let outcome = lab.one(UPLINK, &large);
        let (code, sent) = outcome.dropped_and_sent();
        assert_eq!((code, sent.len()), (136, 1));
        let error = &sent[0].1;
        if v6 {
            assert_eq!((error[54], usize::from(be16(error, 60))), (2, 1500 - less));
            assert_eq!(error[62..102], large[14..54]);
        } else {
            assert_eq!(
                (error[34], error[35], usize::from(be16(error, 40))),
                (3, 4, 1500 - less)
            );
            assert_eq!(error[42..70], large[14..42]);
        }
    }
}

/// What may be cut is: every piece has the option, which says that it wants to be copied.
#[test]
fn pieces_keep_the_option() {
    let mut lab = balancer(DsrDispatch::Opt, Protocol::Udp, false);
    let there = ip4(CLIENT4, VIP4)
        .flags(0)
        .payload(UDP, udp(1480))
        .frame(OURS[2], ROUTER);
    let mut there = there;
    put16(&mut there, 34, 4000);
    put16(&mut there, 36, 80);
    let outcome = lab.one(UPLINK, &there);
    assert_eq!(outcome.sent.len(), 2, "{outcome:?}");
    for (_, piece) in &outcome.sent {
        assert!(piece.len() <= 1514);
        assert_eq!(without_options(piece).0, [0x9a, 8, 0x50, 0x00, 10, 113, 0, 203]);
    }
}

/// An error about an answer, which left the backend's node in the service's name, comes to the balancer; the backend's endpoint
/// gets it as one about what it sent.
#[test]
fn errors_about_answers_find_the_backend() {
    for dispatch in [DsrDispatch::Opt, DsrDispatch::Ipip] {
        let mut lab = balancer(dispatch, Protocol::Tcp, false);
        lab.one(
            UPLINK,
            &packet(TCP, (CLIENT4, 4000), (VIP4, 80), SYN, (OURS[2], ROUTER)),
        )
        .only();
        let about = packet(TCP, (VIP4, 80), (CLIENT4, 4000), ACK, (OURS[2], ROUTER));
        let message = icmp4(3, 4, [0, 0, 4, 0], &about[14..42]);
        let error = ip4("203.0.113.250", VIP4)
            .payload(1, message)
            .frame(OURS[2], ROUTER);
        let outcome = lab.one(UPLINK, &error);
        let (_, sent) = outcome.only();
        // And the backend's node, which knows the connection.
        let mut there = crate::common::lab();
        there.apply(vec![node(Forwarding::Dsr, dispatch)]);
        match dispatch {
            DsrDispatch::Ipip => {
                assert_eq!(
                    (sent[23], &sent[30..34], &sent[34..]),
                    (4, &[198, 51, 101, 9][..], &error[14..])
                );
                there.one(UPLINK, &around(TCP, false, SYN)).only();
            }
            _ => {
                assert_eq!(sent[30..34], [198, 51, 101, 9]);
                assert_eq!(
                    (sent[54..62].to_vec(), be16(sent, 62)),
                    (vec![198, 51, 101, 9, 198, 51, 100, 7], 8080)
                );
                there.one(UPLINK, &told(TCP, false, SYN, &OPTION4)).only();
            }
        }
        // As it would look for the backend that this node has.
        let port = if dispatch == DsrDispatch::Ipip { 80 } else { 8080 };
        let error = match dispatch {
            DsrDispatch::Ipip => ip4("192.0.2.99", "10.0.0.1").payload(4, error[14..].to_vec()),
            _ => {
                let about = packet(TCP, ("10.0.0.1", 8080), (CLIENT4, 4000), ACK, (OURS[2], ROUTER));
                let message = icmp4(3, 4, [0, 0, 4, 0], &about[14..42]);
                ip4("203.0.113.250", "10.0.0.1").payload(1, message)
            }
        }
        .frame(OURS[2], ROUTER);
        let outcome = there.one(UPLINK, &error);
        let (out, sent) = outcome.only();
        assert_eq!((out, &sent[30..34]), (POD0, &[10, 0, 0, 1][..]));
        assert_eq!(internet_checksum(&sent[34..]), 0);
        assert_eq!(
            (sent[54..62].to_vec(), be16(sent, 62)),
            (vec![10, 0, 0, 1, 198, 51, 100, 7], port)
        );
    }
}

/// An endpoint's error about what the client sent goes to the client, in the name of what it used, and quotes what it sent.
#[test]
fn errors_of_an_endpoint_find_the_client() {
    for v6 in [false, true] {
        let mut lab = lab();
        lab.apply(vec![node(Forwarding::Dsr, DsrDispatch::Opt)]);
        let option = if v6 { option6(UDP) } else { OPTION4.to_vec() };
        let first = told(UDP, v6, 0, &option);
        let outcome = lab.one(UPLINK, &first);
        let delivered = outcome.only().1.to_vec();
        let error = match v6 {
            false => ip4("10.0.0.1", CLIENT4)
                .payload(1, icmp4(3, 3, [0; 4], &delivered[14..]))
                .frame(OURS[0], EP1),
            true => ip6("fd00::1", CLIENT6)
                .icmp(1, 4, [0; 4], &delivered[14..])
                .frame(OURS[0], EP1),
        };
        let outcome = lab.one(POD0, &error);
        let (port, sent) = outcome.only();
        assert_eq!(port, UPLINK);
        let octets = |addr: &str| match ip(addr) {
            std::net::IpAddr::V4(addr) => addr.octets().to_vec(),
            std::net::IpAddr::V6(addr) => addr.octets().to_vec(),
        };
        let (vip, client, from, quoted, upper) = match v6 {
            false => (VIP4, CLIENT4, 26, 42 + 12, 42 + 28),
            true => (VIP6, CLIENT6, 22, 62 + 8, 62 + 64),
        };
        assert_eq!(sent[from..from + octets(vip).len()], octets(vip));
        assert_eq!(
            sent[quoted..quoted + 2 * octets(vip).len()],
            [octets(client), octets(vip)].concat()
        );
        assert_eq!((be16(sent, upper), be16(sent, upper + 2)), (4000, 80));
    }
}

/// A balancer hears of the client's end only: it does not keep what that has closed.
#[test]
fn what_the_client_has_closed_is_forgotten() {
    let mut lab = balancer(DsrDispatch::Opt, Protocol::Tcp, false);
    let there = |flags| packet(TCP, (CLIENT4, 4000), (VIP4, 80), flags, (OURS[2], ROUTER));
    for flags in [SYN, ACK, ACK] {
        lab.one(UPLINK, &there(flags)).only();
    }
    lab.now += 100 * SECOND;
    lab.engine.expire(lab.now, 1024);
    assert_eq!(lab.flows.len(), 1);
    lab.one(UPLINK, &there(1 | ACK)).only();
    // While it still hears what the backend sends, it goes on.
    for _ in 0..5 {
        lab.now += 8 * SECOND;
        lab.engine.expire(lab.now, 1024);
        lab.one(UPLINK, &there(ACK)).only();
    }
    assert_eq!(lab.flows.len(), 1);
    lab.now += 12 * SECOND;
    lab.engine.expire(lab.now, 1024);
    lab.engine.expire(lab.now, 1024);
    assert_eq!(lab.flows.len(), 0);
}
