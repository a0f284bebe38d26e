//! Session affinity, and what becomes of connections when their backend goes (specification, 2.8, 3.3).

use std::collections::HashSet;
use std::net::IpAddr;

use octoplane_tables::model::{
    BackendState, Change, FrontendType, Protocol, Service, ServiceBackend, ServiceFrontend,
};

use octoplane_packet::HeapPool;

use crate::common::bytes::ip;
use crate::common::flows::{ends, packet};
use crate::common::*;

const SYN: u8 = 2;
const ACK: u8 = 16;
const MINUTE: u64 = 60 * SECOND;

fn service(affinity_seconds: u32, backends: &[(&str, BackendState)]) -> Change {
    let mut service = Service::new("ns/svc:p", Protocol::Tcp);
    for vip in ["10.96.0.10", "fd96::10"] {
        service.frontends.push(ServiceFrontend {
            addr: ip(vip),
            port: 80,
            kind: FrontendType::ClusterIp,
        });
    }
    service.affinity_seconds = affinity_seconds;
    service.backends = backends
        .iter()
        .map(|&(addr, state)| ServiceBackend {
            addr: ip(addr),
            port: 8080,
            weight: 1,
            state,
            local: false,
        })
        .collect();
    Change::PutService(Box::new(service))
}

const MANY: [(&str, BackendState); 8] = [
    ("10.0.0.2", BackendState::Active),
    ("203.0.113.3", BackendState::Active),
    ("203.0.113.4", BackendState::Active),
    ("203.0.113.5", BackendState::Active),
    ("fd00::2", BackendState::Active),
    ("2001:db8:ffff::3", BackendState::Active),
    ("2001:db8:ffff::4", BackendState::Active),
    ("2001:db8:ffff::5", BackendState::Active),
];

/// Which backend a packet of a client's connection is sent to.
fn backend(lab: &mut Lab<HeapPool>, client: &str, sport: u16, flags: u8) -> IpAddr {
    let vip = if client.contains(':') {
        "fd96::10"
    } else {
        "10.96.0.10"
    };
    let there = packet(6, (client, sport), (vip, 80), flags, (OURS[0], EP1));
    let outcome = lab.one(POD0, &there);
    ends(outcome.only().1).1.0
}

#[test]
fn a_client_stays_with_its_backend() {
    for client in ["10.0.0.1", "fd00::1"] {
        let mut lab = lab();
        lab.apply(vec![service(600, &MANY)]);
        let used: HashSet<_> = (1000..1032)
            .map(|sport| backend(&mut lab, client, sport, SYN))
            .collect();
        assert_eq!(used.len(), 1);
    }
}

#[test]
fn without_affinity_it_does_not() {
    let mut lab = lab();
    lab.apply(vec![service(0, &MANY)]);
    let used: HashSet<_> = (1000..1064)
        .map(|sport| backend(&mut lab, "10.0.0.1", sport, SYN))
        .collect();
    assert_eq!(used.len(), 4);
}

/// The time runs from the last packet of any of the client's connections.
#[test]
fn its_time_is_over_when_nothing_was_heard_for_so_long() {
    let mut lab = lab();
    lab.apply(vec![service(600, &MANY)]);
    let first = backend(&mut lab, "10.0.0.1", 1000, SYN);
    for minute in 1..20 {
        lab.now += MINUTE;
        assert_eq!(backend(&mut lab, "10.0.0.1", 1000, ACK), first, "minute {minute}");
    }
    for sport in 2000..2016 {
        assert_eq!(backend(&mut lab, "10.0.0.1", sport, SYN), first);
    }
    let mut used = HashSet::new();
    for sport in 3000..3064 {
        lab.now += 10 * MINUTE;
        used.insert(backend(&mut lab, "10.0.0.1", sport, SYN));
    }
    assert_eq!(used.len(), 4);
}

#[test]
fn a_backend_that_takes_no_new_connections_loses_its_clients() {
    let mut lab = lab();
    lab.apply(vec![service(600, &MANY)]);
    let first = backend(&mut lab, "10.0.0.1", 1000, SYN);
    let without: Vec<_> = MANY
        .iter()
        .map(|&(addr, state)| {
            let gone = ip(addr) == first;
            (addr, if gone { BackendState::Terminating } else { state })
        })
        .collect();
    lab.apply(vec![service(600, &without)]);
    // The old connection goes on, a new one goes elsewhere, and stays there.
    assert_eq!(backend(&mut lab, "10.0.0.1", 1000, ACK), first);
    let second = backend(&mut lab, "10.0.0.1", 1001, SYN);
    assert_ne!(second, first);
    for sport in 1002..1016 {
        assert_eq!(backend(&mut lab, "10.0.0.1", sport, SYN), second);
    }
    assert_eq!(backend(&mut lab, "10.0.0.1", 1000, ACK), first);
}

/// 3.3: a connection whose backend vanished gets another one, packets in the middle of it, too.
#[test]
fn a_connection_whose_backend_vanished_gets_another() {
    let mut lab = lab();
    lab.apply(vec![service(0, &MANY[..4])]);
    let first = backend(&mut lab, "10.0.0.1", 1000, SYN);
    let left: Vec<_> = MANY[..4]
        .iter()
        .copied()
        .filter(|&(addr, _)| ip(addr) != first)
        .collect();
    lab.apply(vec![service(0, &left)]);
    let second = backend(&mut lab, "10.0.0.1", 1000, ACK);
    assert_ne!(second, first);
    assert_eq!(backend(&mut lab, "10.0.0.1", 1000, ACK), second);
}

/// 3.3: a SYN on a connection whose backend takes no new ones begins a new one.
#[test]
fn a_syn_to_a_terminating_backend_goes_elsewhere() {
    let mut lab = lab();
    lab.apply(vec![service(0, &MANY[..4])]);
    let first = backend(&mut lab, "10.0.0.1", 1000, SYN);
    let draining: Vec<_> = MANY[..4]
        .iter()
        .map(|&(addr, state)| {
            let draining = ip(addr) == first;
            (
                addr,
                if draining {
                    BackendState::Terminating
                } else {
                    state
                },
            )
        })
        .collect();
    lab.apply(vec![service(0, &draining)]);
    assert_eq!(backend(&mut lab, "10.0.0.1", 1000, ACK), first);
    assert_ne!(backend(&mut lab, "10.0.0.1", 1000, SYN), first);
}
