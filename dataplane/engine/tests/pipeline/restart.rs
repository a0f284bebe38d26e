//! Connections that a process left behind, in the hands of another one: its tables say the same, but number everything
//! differently.

use std::net::IpAddr;
use std::path::Path;

use octoplane_engine::{MEANING, Memory};
use octoplane_flow::{Directory, Kept, Purpose};
use octoplane_packet::HeapPool;
use octoplane_tables::model::{
    BackendState, Change, FrontendType, Node, Policy, Protocol, RouteTarget, Service, ServiceBackend,
    ServiceFrontend,
};

use crate::common::bytes::ip;
use crate::common::flows::{ends, packet};
use crate::common::*;

const SYN: u8 = 2;
const ACK: u8 = 16;
const VIPS: [(&str, &str); 2] = [("10.0.0.1", "10.96.0.10"), ("fd00::1", "fd96::10")];

fn place() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() {
        tempfile::tempdir_in(shm).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// A lab with empty tables that goes on with what is in the directory, at `now`.
fn process(place: &Path, now: u64) -> (Lab<HeapPool>, Kept, u32) {
    let purpose = Purpose {
        meaning: MEANING,
        boot: 1,
        capacities: Memory::kept_capacities(1024),
    };
    let (kept, unusable) = Kept::open(Directory::take(place).unwrap(), &purpose).unwrap();
    assert_eq!(unusable, None);
    let (memory, resumed) = Memory::resume(&kept, now).unwrap();
    assert_eq!(resumed.dropped, 0);
    let mut lab = Plan::default().empty_lab(HeapPool::default(), &memory);
    lab.now = now;
    (lab, kept, resumed.connections)
}

/// A service with backends outside, to which everybody goes under the node's address, with affinity.
fn service(name: &str, vips: [&str; 2], backends: &[String]) -> Change {
    let mut service = Service::new(name, Protocol::Tcp);
    for vip in vips {
        service.frontends.push(ServiceFrontend {
            addr: ip(vip),
            port: 80,
            kind: FrontendType::ClusterIp,
        });
    }
    service.affinity_seconds = 600;
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

fn backends() -> Vec<String> {
    let both = |n: u32| [format!("198.51.100.{n}"), format!("2001:db8:7::{n:x}")];
    (1..=20).flat_map(both).collect()
}

fn node() -> Change {
    Change::PutNode(Box::new(Node {
        masquerade4: Some(OWN4.parse().unwrap()),
        masquerade6: Some(OWN6.parse().unwrap()),
        ..Node::default()
    }))
}

/// The first process: five transactions.
fn first(place: &Path) -> (Lab<HeapPool>, Kept) {
    let (mut lab, kept, connections) = process(place, SECOND);
    assert_eq!(connections, 0);
    lab.apply(programme(true));
    lab.apply(vec![node()]);
    lab.apply(vec![service("ns/svc:p", ["10.96.0.10", "fd96::10"], &backends())]);
    lab.apply(vec![route("203.0.113.0/24", RouteTarget::Blackhole, None)]);
    lab.apply(vec![route("203.0.114.0/24", RouteTarget::Blackhole, None)]);
    assert_eq!(lab.store.state().revision(), 5);
    (lab, kept)
}

/// The second one: the same in the end, of the same revision, with other numbers for targets and backends.
fn second(place: &Path, now: u64) -> (Lab<HeapPool>, Kept, u32) {
    let (mut lab, kept, connections) = process(place, now);
    let mut reversed = backends();
    reversed.reverse();
    let mut all = vec![
        route("203.0.114.0/24", RouteTarget::Blackhole, None),
        route("203.0.113.0/24", RouteTarget::Blackhole, None),
        node(),
        service("ns/other:p", ["10.96.0.77", "fd96::77"], &reversed),
        service("ns/svc:p", ["10.96.0.10", "fd96::10"], &reversed),
    ];
    all.extend(programme(true).into_iter().rev());
    lab.store.restore(5, all).unwrap();
    assert_eq!(lab.store.state().revision(), 5);
    (lab, kept, connections)
}

/// Where a packet of a client leaves: under which port of the node's address, and to which backend.
fn leaves(lab: &mut Lab<HeapPool>, client: &str, sport: u16, vip: &str, flags: u8) -> (u16, IpAddr) {
    let there = packet(6, (client, sport), (vip, 80), flags, (OURS[0], EP1));
    let outcome = lab.one(POD0, &there);
    let (port, sent) = outcome.only();
    assert_eq!((port, &sent[..6]), (UPLINK, &ROUTER[..]));
    let (from, to) = ends(sent);
    let own = if client.contains(':') { OWN6 } else { OWN4 };
    assert_eq!((from.0, to.1), (ip(own), 8080));
    (from.1, to.0)
}

/// The answer of a backend comes back from the service.
fn comes_back(lab: &mut Lab<HeapPool>, client: &str, sport: u16, vip: &str, leaves: (u16, IpAddr)) {
    let own = if client.contains(':') { OWN6 } else { OWN4 };
    let backend = leaves.1.to_string();
    let back = packet(6, (&backend, 8080), (own, leaves.0), ACK, (OURS[2], ROUTER));
    let outcome = lab.one(UPLINK, &back);
    let (port, sent) = outcome.only();
    assert_eq!((port, &sent[..6]), (POD0, &EP1[..]));
    assert_eq!(ends(sent), ((ip(vip), 80), (ip(client), sport)));
}

#[test]
fn backends_and_ports_stay() {
    let place = place();
    let (mut lab, kept) = first(place.path());
    let mut made = Vec::new();
    for (client, vip) in VIPS {
        for sport in 1000..1040 {
            let way = leaves(&mut lab, client, sport, vip, SYN);
            comes_back(&mut lab, client, sport, vip, way);
            made.push((client, vip, sport, way));
        }
    }
    // Affinity: each client has one backend.
    assert_eq!(
        made.iter()
            .map(|it| it.3.1)
            .collect::<std::collections::HashSet<_>>()
            .len(),
        2
    );
    drop((lab, kept));

    let (mut lab, _kept, connections) = second(place.path(), 3 * SECOND);
    assert_eq!(connections, 80);
    for (n, &(client, vip, sport, way)) in made.iter().enumerate() {
        // Whichever direction speaks first.
        if n % 2 == 0 {
            comes_back(&mut lab, client, sport, vip, way);
        }
        assert_eq!(leaves(&mut lab, client, sport, vip, ACK), way);
        comes_back(&mut lab, client, sport, vip, way);
    }
    assert_eq!(lab.flows.len(), 80, "none was made anew");
    // The second packet of each is fast again.
    let there = packet(6, (VIPS[0].0, 1000), (VIPS[0].1, 80), ACK, (OURS[0], EP1));
    assert_eq!(lab.one(POD0, &there).fast, 1);
    // New ones of the same clients go where the old ones went, under ports that no old one has.
    for (client, vip) in VIPS {
        let backend = made.iter().find(|it| it.0 == client).unwrap().3.1;
        for sport in 2000..2040 {
            let way = leaves(&mut lab, client, sport, vip, SYN);
            assert_eq!(way.1, backend);
            assert!(made.iter().all(|it| it.0 != client || it.3.0 != way.0));
        }
    }
}

#[test]
fn policy_is_asked_again() {
    let place = place();
    let (mut lab, kept) = first(place.path());
    leaves(&mut lab, "10.0.0.1", 1000, "10.96.0.10", SYN);
    drop((lab, kept));
    let (mut lab, _kept, connections) = second(place.path(), 2 * SECOND);
    assert_eq!(connections, 1);
    lab.apply(vec![Change::PutPolicy(Policy {
        endpoint: 1,
        enforce_ingress: false,
        enforce_egress: true,
        audit: false,
        entries: Vec::new(),
    })]);
    let there = packet(6, ("10.0.0.1", 1000), ("10.96.0.10", 80), ACK, (OURS[0], EP1));
    assert_eq!(lab.one(POD0, &there).dropped(), 133);
}

#[test]
fn they_age_on() {
    let place = place();
    let (mut lab, kept) = first(place.path());
    leaves(&mut lab, "10.0.0.1", 1000, "10.96.0.10", SYN);
    drop((lab, kept));
    // A SYN that nobody answered is kept for 60 seconds (specification, 2.3), 50 of which were the other process's.
    let (mut lab, _kept, _) = second(place.path(), 51 * SECOND);
    lab.engine.expire(58 * SECOND, 1024);
    assert_eq!(lab.flows.len(), 1);
    lab.engine.expire(63 * SECOND, 1024);
    assert_eq!(lab.flows.len(), 0);
}

/// A clock that is behind, because the machine's was: nothing lives for ever.
#[test]
fn what_was_seen_in_the_future_was_seen_now() {
    let place = place();
    let (mut lab, kept) = first(place.path());
    lab.now = 5000 * SECOND;
    leaves(&mut lab, "10.0.0.1", 1000, "10.96.0.10", SYN);
    drop((lab, kept));
    let (mut lab, _kept, connections) = second(place.path(), SECOND);
    assert_eq!(connections, 1);
    lab.engine.expire(30 * SECOND, 1024);
    assert_eq!(lab.flows.len(), 1);
    lab.engine.expire(70 * SECOND, 1024);
    assert_eq!(lab.flows.len(), 0);
}
