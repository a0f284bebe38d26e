//! ICMP errors about connections (specification, 2.3, 2.4; RFC 5508, section 4): they reach who sent the packet, and
//! quote it as it was sent.

use octoplane_tables::model::{
    Change, FrontendType, Node, Policy, Protocol, Service, ServiceBackend, ServiceFrontend,
};

use crate::common::bytes::{be16, icmp4, icmp6_checksum, internet_checksum, ip, ip4, ip6, v6};
use crate::common::flows::packet;
use crate::common::*;

const SYN: u8 = 2;

/// A lab that masquerades, where nothing is allowed in.
fn closed() -> Lab<octoplane_packet::HeapPool> {
    let mut lab = lab();
    lab.apply(vec![
        Change::PutNode(Box::new(Node {
            masquerade4: Some(OWN4.parse().unwrap()),
            masquerade6: Some(OWN6.parse().unwrap()),
            ..Node::default()
        })),
        Change::PutPolicy(Policy {
            endpoint: 1,
            enforce_ingress: true,
            enforce_egress: false,
            audit: false,
            entries: Vec::new(),
        }),
    ]);
    lab
}

#[test]
fn from_a_router_about_a_masqueraded_packet() {
    for protocol in [6, 17] {
        let mut lab = closed();
        let frame = packet(
            protocol,
            ("10.0.0.1", 1234),
            ("198.51.100.7", 80),
            SYN,
            (OURS[0], EP1),
        );
        let left = lab.one(POD0, &frame).only().1.to_vec();
        assert_eq!(left[26..30], [192, 0, 2, 1]);
        // All of the packet, and the least that must be quoted (RFC 792).
        for quoted in [&left[14..], &left[14..42]] {
            for (kind, code) in [(11, 0), (3, 4), (3, 1)] {
                let error = ip4("203.0.113.1", OWN4)
                    .payload(1, icmp4(kind, code, [0, 0, 5, 0], quoted))
                    .frame(OURS[2], ROUTER);
                let outcome = lab.one(UPLINK, &error);
                let (port, sent) = outcome.only();
                assert_eq!((port, &sent[..6]), (POD0, &EP1[..]));
                assert_eq!(
                    (&sent[26..30], &sent[30..34]),
                    (&[203, 0, 113, 1][..], &[10, 0, 0, 1][..])
                );
                assert_eq!(
                    (internet_checksum(&sent[14..34]), internet_checksum(&sent[34..])),
                    (0, 0)
                );
                assert_eq!((sent[34], sent[35]), (kind, code));
                // What is quoted is what was sent, but for the hop it had made.
                let want = forwarded(&frame, ROUTER, OURS[2]);
                assert_eq!(sent[42..], want[14..14 + quoted.len()]);
            }
        }
    }
}

#[test]
fn in_the_other_family() {
    let mut lab = closed();
    let frame = packet(17, ("fd00::1", 1234), ("2001:db8:7::7", 80), 0, (OURS[0], EP1));
    let left = lab.one(POD0, &frame).only().1.to_vec();
    let error = ip6("2001:db8:99::1", OWN6)
        .icmp(2, 0, [0, 0, 5, 0], &left[14..])
        .frame(OURS[2], ROUTER);
    let outcome = lab.one(UPLINK, &error);
    let (port, sent) = outcome.only();
    assert_eq!((port, &sent[22..38]), (POD0, &v6("2001:db8:99::1").octets()[..]));
    assert_eq!(sent[38..54], v6("fd00::1").octets());
    assert_eq!(
        icmp6_checksum(v6("2001:db8:99::1"), v6("fd00::1"), &sent[54..]),
        0
    );
    assert_eq!(sent[62..], forwarded(&frame, ROUTER, OURS[2])[14..]);
}

/// Who was talked to is known by the service's address.
#[test]
fn from_a_backend_about_a_packet_to_the_service() {
    let mut lab = lab();
    let mut service = Service::new("ns/svc:p", Protocol::Udp);
    service.frontends.push(ServiceFrontend {
        addr: ip("10.96.0.10"),
        port: 53,
        kind: FrontendType::ClusterIp,
    });
    service.backends.push(ServiceBackend {
        addr: ip("10.0.0.2"),
        port: 5353,
        weight: 1,
        state: Default::default(),
        local: true,
    });
    lab.apply(vec![Change::PutService(Box::new(service))]);
    let frame = packet(17, ("10.0.0.1", 1234), ("10.96.0.10", 53), 0, (OURS[0], EP1));
    let left = lab.one(POD0, &frame).only().1.to_vec();
    let error = ip4("10.0.0.2", "10.0.0.1")
        .payload(1, icmp4(3, 3, [0; 4], &left[14..]))
        .frame(OURS[1], EP2);
    let outcome = lab.one(POD1, &error);
    let (port, sent) = outcome.only();
    assert_eq!(
        (port, &sent[26..30], &sent[30..34]),
        (POD0, &[10, 96, 0, 10][..], &[10, 0, 0, 1][..])
    );
    assert_eq!(internet_checksum(&sent[34..]), 0);
    assert_eq!((&sent[58..62], be16(sent, 64)), (&[10, 96, 0, 10][..], 53));
}

/// An error about nothing that is known is new, and policy decides.
#[test]
fn about_nothing() {
    let mut lab = closed();
    let quoted = packet(6, ("10.0.0.1", 7), ("198.51.100.7", 80), SYN, (OURS[0], EP1));
    let error = ip4("203.0.113.1", "10.0.0.1")
        .payload(1, icmp4(11, 0, [0; 4], &quoted[14..]))
        .frame(OURS[2], ROUTER);
    assert_eq!(lab.one(UPLINK, &error).dropped(), 133);
    // Cut off, or a later fragment.
    for cut in 0..28 {
        let error = ip4("203.0.113.1", "10.0.0.1")
            .payload(1, icmp4(11, 0, [0; 4], &quoted[14..14 + cut]))
            .frame(OURS[2], ROUTER);
        assert_eq!(lab.one(UPLINK, &error).dropped(), 133);
    }
}

/// Only destination unreachable, time exceeded and parameter problem are about a connection (specification, 2.3).
#[test]
fn what_is_no_error_about_a_packet_is_subject_to_policy() {
    let mut lab = closed();
    lab.apply(vec![Change::PutNode(Box::default())]);
    let frame = packet(17, ("10.0.0.1", 1234), ("198.51.100.7", 80), 0, (OURS[0], EP1));
    let left = lab.one(POD0, &frame).only().1.to_vec();
    for (kind, passes) in [(3, true), (4, false), (5, false), (11, true), (12, true)] {
        let error = ip4("198.51.100.7", "10.0.0.1")
            .payload(1, icmp4(kind, 1, [0; 4], &left[14..]))
            .frame(OURS[2], ROUTER);
        let outcome = lab.one(UPLINK, &error);
        assert_eq!(outcome.sent.len(), usize::from(passes), "{kind}");
        assert_eq!(outcome.drop_count(), u64::from(!passes), "{kind}");
    }
}

/// As many extension headers as a packet may have, its quotation may have, too.
#[test]
fn about_packets_with_many_extension_headers() {
    let mut lab = closed();
    for count in [1, 4, 7] {
        // Destination options with padding (RFC 8200, section 4.2), and UDP behind them.
        let mut chain: Vec<u8> = (1..=count)
            .flat_map(|at| [if at == count { 17 } else { 60 }, 0, 1, 4, 0, 0, 0, 0])
            .collect();
        chain.extend([0x04, 0xd2, 0, 80, 0, 8, 0, 0]);
        let frame = ip6("fd00::1", "fd00::2").payload(60, chain).frame(OURS[0], EP1);
        let left = lab.one(POD0, &frame).only().1.to_vec();
        let error = ip6("fd00::2", "fd00::1")
            .icmp(1, 4, [0; 4], &left[14..])
            .frame(OURS[1], EP2);
        assert_eq!(lab.one(POD1, &error).only().0, POD0, "{count} headers");
    }
}
