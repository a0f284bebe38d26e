//! What becomes of packets when something runs out under them, and of fragments that overlap.

use std::collections::BTreeSet;
use std::net::IpAddr;

use octoplane_engine::Direction;
use octoplane_packet::HeapPool;
use octoplane_tables::model::{
    self, BackendState, Change, FrontendType, Policy, PolicyEntry, PolicyKey, PolicyValue, Protocol, Service,
    ServiceBackend, ServiceFrontend,
};

use crate::common::bytes::{internet_checksum, ip, put16};
use crate::common::flows::{ends, packet};
use crate::common::*;

const SYN: u8 = 2;
const ACK: u8 = 16;
const CLIENTS: std::ops::Range<u16> = 4000..4064;

fn service(affinity_seconds: u32, backends: &[&str]) -> Change {
    let mut service = Service::new("ns/svc:p", Protocol::Tcp);
    service.frontends.push(ServiceFrontend {
        addr: ip("10.96.0.10"),
        port: 80,
        kind: FrontendType::ClusterIp,
    });
    service.affinity_seconds = affinity_seconds;
    service.backends = backends
        .iter()
        .map(|addr| ServiceBackend {
            addr: ip(addr),
            port: 8080,
            weight: 1,
            state: BackendState::Active,
            local: false,
        })
        .collect();
    Change::PutService(Box::new(service))
}

/// A packet of a client's connection to the service.
fn request(sport: u16, flags: u8) -> Vec<u8> {
    packet(6, ("10.0.0.1", sport), ("10.96.0.10", 80), flags, (OURS[0], EP1))
}

fn backends(lab: &mut Lab<HeapPool>, flags: u8) -> BTreeSet<IpAddr> {
    CLIENTS
        .map(|sport| ends(lab.one(POD0, &request(sport, flags)).only().1).1.0)
        .collect()
}

/// 3.3 and 3.7: connections under way lose their backends one after the other, then all, and get them back.
#[test]
fn a_service_whose_backends_vanish_under_load() {
    for affinity in [0, 10] {
        let mut lab = lab();
        lab.apply(vec![service(
            affinity,
            &["10.0.0.2", "203.0.113.3", "203.0.113.4"],
        )]);
        backends(&mut lab, SYN);
        for left in [&["10.0.0.2", "203.0.113.4"][..], &["203.0.113.4"]] {
            lab.apply(vec![service(affinity, left)]);
            let all: BTreeSet<IpAddr> = left.iter().map(|addr| ip(addr)).collect();
            let used = backends(&mut lab, ACK);
            assert!(used.is_subset(&all), "{used:?} of {all:?}");
            assert_eq!(lab.flows.len(), CLIENTS.len() as u32);
        }
        lab.apply(vec![service(affinity, &[])]);
        for sport in CLIENTS {
            let outcome = lab.one(POD0, &request(sport, ACK));
            let (code, sent) = outcome.dropped_and_sent();
            // Port unreachable.
            assert_eq!((code, &sent[0].1[34..36]), (158, &[3, 3][..]), "{sport}");
        }
        lab.apply(vec![service(affinity, &["10.0.0.2"])]);
        assert_eq!(backends(&mut lab, ACK), BTreeSet::from([ip("10.0.0.2")]));
        assert_eq!(lab.flows.len(), CLIENTS.len() as u32);
    }
}

/// A fragment of a UDP datagram to a port: `offset` in units of eight bytes.
fn fragment(port: u16, offset: u16, more: bool) -> Vec<u8> {
    let mut frame = packet(17, ("10.0.0.1", 4000), ("10.0.0.2", port), 0, (OURS[0], EP1));
    put16(&mut frame, 18, 77);
    put16(&mut frame, 20, offset | u16::from(more) << 13);
    put16(&mut frame, 24, 0);
    let sum = internet_checksum(&frame[14..34]);
    put16(&mut frame, 24, sum);
    frame
}

/// RFC 1858: a fragment that overlaps the first one cannot carry a packet to a port that its sender may not reach: ports are
/// those of the last first fragment, and each of these is asked about.
#[test]
fn overlapping_fragments() {
    let mut lab = lab();
    let entry = PolicyEntry {
        key: PolicyKey {
            direction: model::Direction::Egress,
            identity: 0,
            protocol: 17,
            port: 53,
            port_prefix_len: 16,
        },
        value: PolicyValue {
            precedence: 0xffff_ff01,
            ..PolicyValue::default()
        },
    };
    lab.apply(vec![Change::PutPolicy(Policy {
        endpoint: 1,
        enforce_ingress: false,
        enforce_egress: true,
        audit: false,
        entries: vec![entry],
    })]);
    assert_eq!(lab.one(POD0, &fragment(53, 0, true)).only().0, POD1);
    assert_eq!(lab.one(POD0, &fragment(54, 1, true)).only().0, POD1, "no ports");
    let refused = vec![(133, Direction::Egress, 1)];
    assert_eq!(
        lab.one(POD0, &fragment(54, 0, true)).drops,
        refused,
        "another first"
    );
    assert_eq!(
        lab.one(POD0, &fragment(53, 2, false)).drops,
        refused,
        "what follows"
    );
}
