//! Services, seen from a worker's side.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::net::IpAddr;
use std::sync::Arc;

use common::{ip, node, prefix, put_node, refusal, snapshot, store, store_with, v4, v6};
use octoplane_tables::model::{
    Algorithm, BackendState, Change, Forwarding, FrontendType, Node, Protocol, Service, ServiceBackend,
    ServiceFrontend, TrafficPolicy,
};
use octoplane_tables::services::maglev::{Seed, hash4};
use octoplane_tables::{Backend, BackendSet, Capacity, ErrorKind, Frontend, Snapshot, Store};

const TCP: u8 = 6;

fn frontend(addr: &str, port: u16, kind: FrontendType) -> ServiceFrontend {
    ServiceFrontend {
        addr: ip(addr),
        port,
        kind,
    }
}

fn backend(addr: &str, port: u16) -> ServiceBackend {
    ServiceBackend {
        addr: ip(addr),
        port,
        weight: 1,
        state: BackendState::Active,
        local: false,
    }
}

/// A service with a cluster address and two backends.
fn service(name: &str, vip: &str) -> Service {
    Service {
        frontends: vec![frontend(vip, 80, FrontendType::ClusterIp)],
        backends: vec![backend("10.0.0.2", 8080), backend("10.0.0.1", 8080)],
        ..Service::new(name, Protocol::Tcp)
    }
}

fn put(service: Service) -> Change {
    Change::PutService(Box::new(service))
}

fn remove(name: &str) -> Change {
    Change::RemoveService { name: name.into() }
}

fn find<'a>(snapshot: &'a Snapshot, addr: &str, port: u16) -> Option<&'a Frontend> {
    match ip(addr) {
        IpAddr::V4(addr) => snapshot.frontend4(addr.to_bits(), port, TCP),
        IpAddr::V6(addr) => snapshot.frontend6(addr.to_bits(), port, TCP),
    }
}

fn addresses<'a>(backends: impl IntoIterator<Item = &'a Backend>) -> Vec<String> {
    backends.into_iter().map(|it| it.addr.to_string()).collect()
}

fn active(set: &BackendSet) -> Vec<String> {
    addresses(&set.slots()[..set.count as usize])
}

#[test]
fn a_service_answers_at_its_address_port_and_protocol() {
    let mut store = store();
    store.apply(vec![put(service("a", "172.20.0.1"))]).unwrap();
    let now = snapshot(&store);
    let found = find(&now, "172.20.0.1", 80).unwrap();
    assert_eq!((&*found.service, found.kind), ("a", FrontendType::ClusterIp));
    assert!(!found.routable && found.id != 0);
    assert_eq!(active(&found.external), ["10.0.0.1", "10.0.0.2"]);
    assert!(Arc::ptr_eq(&found.external, &found.internal));
    assert!(now.frontend4(v4("172.20.0.1"), 80, 17).is_none());
    assert!(find(&now, "172.20.0.1", 81).is_none());
    assert!(now.wildcard4(v4("172.20.0.1")) && !now.wildcard4(v4("172.20.0.2")));
    store.apply(vec![remove("a")]).unwrap();
    let now = snapshot(&store);
    assert!(find(&now, "172.20.0.1", 80).is_none() && !now.wildcard4(v4("172.20.0.1")));
    assert!(
        store
            .usage()
            .iter()
            .all(|usage| usage.used == 0 || usage.table.contains("nodes"))
    );
}

#[test]
fn wildcards_are_of_cluster_and_load_balancer_addresses() {
    let mut store = store();
    let mut all = service("a", "172.20.0.1");
    all.frontends = vec![
        frontend("172.20.0.1", 80, FrontendType::ClusterIp),
        frontend("172.20.0.2", 80, FrontendType::LoadBalancer),
        frontend("172.20.0.3", 80, FrontendType::ExternalIp),
        frontend("172.20.0.4", 80, FrontendType::NodePort),
        frontend("172.20.0.5", 80, FrontendType::HostPort),
        frontend("fd00:20::1", 80, FrontendType::LoadBalancer),
    ];
    let second = Service {
        frontends: vec![frontend("172.20.0.1", 443, FrontendType::ClusterIp)],
        ..service("b", "172.20.0.1")
    };
    store.apply(vec![put(all), put(second)]).unwrap();
    let now = snapshot(&store);
    let wild: Vec<u32> = (1..=5).filter(|n| now.wildcard4(v4("172.20.0.0") + n)).collect();
    assert_eq!(wild, [1, 2]);
    assert!(now.wildcard6(v6("fd00:20::1")) && !now.wildcard6(v6("fd00:20::2")));
    let routable: Vec<bool> = (1..=5)
        .map(|n| find(&now, &format!("172.20.0.{n}"), 80).unwrap().routable)
        .collect();
    assert_eq!(routable, [false, true, true, true, true]);
    // The other service has the address still.
    store.apply(vec![remove("a")]).unwrap();
    assert!(snapshot(&store).wildcard4(v4("172.20.0.1")));
    store.apply(vec![remove("b")]).unwrap();
    assert!(!snapshot(&store).wildcard4(v4("172.20.0.1")));
}

fn with_states(states: &[(&str, BackendState)]) -> Service {
    let backends = states
        .iter()
        .map(|&(addr, state)| ServiceBackend {
            state,
            ..backend(addr, 8080)
        })
        .collect();
    Service {
        backends,
        ..service("a", "172.20.0.1")
    }
}

#[test]
fn slots_are_in_the_order_of_the_specification() {
    use BackendState::{Active, Maintenance, Quarantined, Terminating};
    let mut store = store();
    store
        .apply(vec![put(with_states(&[
            ("10.0.0.9", Quarantined),
            ("10.0.0.8", Terminating),
            ("10.0.0.10", Active),
            ("10.0.0.2", Active),
            ("10.0.0.7", Maintenance),
            ("10.0.0.1", Quarantined),
        ]))])
        .unwrap();
    let now = snapshot(&store);
    let set = &find(&now, "172.20.0.1", 80).unwrap().external;
    assert_eq!((set.count, set.unusable), (2, 3));
    let expected = ["10.0.0.2", "10.0.0.10", "10.0.0.8", "10.0.0.1", "10.0.0.9"];
    assert_eq!(addresses(set.slots()), expected);
    for random in 0..10 {
        assert_eq!(set.pick_random(random).unwrap().state, Active);
    }
    // Old flows go on to all of them; only active ones keep new flows of a client.
    for addr in ["10.0.0.2", "10.0.0.7", "10.0.0.8", "10.0.0.9"] {
        let id = store_id(&store, addr);
        let found = set.get(id).unwrap();
        assert_eq!(found.addr, ip(addr));
        assert_eq!(
            set.affine(found.addr, found.port).is_some(),
            found.state == Active,
            "{addr}"
        );
    }
    assert!(set.get(9999).is_none() && set.affine(ip("10.0.0.2"), 9999).is_none());
}

/// The number of a backend: a service of its own tells.
fn store_id(store: &Store, addr: &str) -> u32 {
    let now = snapshot(store);
    let set = &find(&now, "172.20.0.1", 80).unwrap().external;
    (1..100)
        .find(|&id| set.get(id).is_some_and(|it| it.addr == ip(addr)))
        .unwrap()
}

#[test]
fn terminating_backends_serve_where_none_is_active() {
    use BackendState::{Maintenance, Quarantined, Terminating};
    let mut store = store();
    store
        .apply(vec![put(with_states(&[
            ("10.0.0.1", Quarantined),
            ("10.0.0.3", Terminating),
            ("10.0.0.2", Terminating),
        ]))])
        .unwrap();
    let now = snapshot(&store);
    let set = &find(&now, "172.20.0.1", 80).unwrap().external;
    assert_eq!((set.count, set.unusable), (2, 1));
    assert_eq!(active(set), ["10.0.0.2", "10.0.0.3"]);
    store
        .apply(vec![put(with_states(&[
            ("10.0.0.1", Quarantined),
            ("10.0.0.4", Maintenance),
        ]))])
        .unwrap();
    let now = snapshot(&store);
    let set = &find(&now, "172.20.0.1", 80).unwrap().external;
    assert_eq!((set.count, set.unusable), (0, 1));
    assert!(set.pick_random(7).is_none() && set.pick_maglev(7).is_none());
}

#[test]
fn scopes_have_the_backends_that_their_policy_allows() {
    use FrontendType::{ClusterIp, LoadBalancer};
    use TrafficPolicy::{Cluster, Local};
    let mut store = store();
    let all: &[&str] = &["10.0.0.1", "10.0.0.2"];
    let local: &[&str] = &["10.0.0.2"];
    for (external, internal, cluster_ip, load_balancer, inside) in [
        (Cluster, Cluster, all, all, all),
        (Local, Cluster, all, local, all),
        (Cluster, Local, local, all, local),
        (Local, Local, local, local, local),
    ] {
        let mut it = service("a", "172.20.0.1");
        it.frontends = vec![
            frontend("172.20.0.1", 80, ClusterIp),
            frontend("172.20.0.2", 80, LoadBalancer),
        ];
        it.backends[0].local = true;
        (it.external_policy, it.internal_policy) = (external, internal);
        store.apply(vec![put(it)]).unwrap();
        let now = snapshot(&store);
        let cluster = find(&now, "172.20.0.1", 80).unwrap();
        let balancer = find(&now, "172.20.0.2", 80).unwrap();
        assert_eq!(active(&cluster.external), cluster_ip, "{external:?} {internal:?}");
        assert_eq!(
            active(&balancer.external),
            load_balancer,
            "{external:?} {internal:?}"
        );
        assert_eq!(active(&cluster.internal), inside, "{external:?} {internal:?}");
        assert_eq!(active(&balancer.internal), inside, "{external:?} {internal:?}");
    }
}

#[test]
fn maglev_is_as_in_the_specification() {
    let mut store = store();
    let mut it = service("a", "172.20.0.1");
    it.algorithm = Algorithm::Maglev;
    it.frontends = vec![frontend("172.20.0.2", 80, FrontendType::LoadBalancer)];
    it.backends = ["10.0.0.3", "10.0.0.1", "10.0.0.2"]
        .map(|addr| backend(addr, 80))
        .to_vec();
    store.apply(vec![put(it.clone())]).unwrap();
    let pick = |store: &Store, src_port| {
        let now = snapshot(store);
        let hash = hash4(v4("192.0.2.10"), src_port, 80, TCP, Seed::DEFAULT);
        let set = &find(&now, "172.20.0.2", 80).unwrap().external;
        set.pick_maglev(hash).unwrap().addr.to_string()
    };
    assert_eq!(
        (&*pick(&store, 40_000), &*pick(&store, 0)),
        ("10.0.0.1", "10.0.0.3")
    );
    // A backend that is not active takes no part; what does not matter changes nothing.
    it.backends[1].state = BackendState::Terminating;
    it.affinity_seconds = 10;
    store.apply(vec![put(it.clone())]).unwrap();
    assert_ne!(pick(&store, 40_000), "10.0.0.1");
    it.backends[1].state = BackendState::Active;
    store.apply(vec![put(it.clone())]).unwrap();
    assert_eq!(pick(&store, 40_000), "10.0.0.1");
    // UDP has another table.
    it.protocol = Protocol::Udp;
    store.apply(vec![put(it)]).unwrap();
    let now = snapshot(&store);
    let set = &now.frontend4(v4("172.20.0.2"), 80, 17).unwrap().external;
    assert!((0..16_381).any(|hash| set.pick_maglev(hash).unwrap().addr == ip("10.0.0.1")));
    assert!(find(&now, "172.20.0.2", 80).is_none());
}

#[test]
fn numbers_stay_as_long_as_what_they_are_of() {
    let mut store = store();
    let mut a = service("a", "172.20.0.1");
    a.frontends
        .push(frontend("172.20.0.2", 80, FrontendType::ExternalIp));
    store
        .apply(vec![put(a.clone()), put(service("b", "172.20.0.9"))])
        .unwrap();
    let now = snapshot(&store);
    let (one, two) = (
        find(&now, "172.20.0.1", 80).unwrap(),
        find(&now, "172.20.0.2", 80).unwrap(),
    );
    let other = find(&now, "172.20.0.9", 80).unwrap();
    assert_ne!(one.id, two.id);
    let ids = |it: &Frontend| -> Vec<u32> { it.external.slots().iter().map(|it| it.id).collect() };
    assert_eq!(ids(one), ids(other), "shared between services");

    a.frontends.remove(0);
    a.frontends
        .push(frontend("172.20.0.3", 80, FrontendType::ExternalIp));
    a.backends.remove(0);
    a.backends.push(backend("10.0.0.3", 8080));
    store.apply(vec![put(a)]).unwrap();
    let later = snapshot(&store);
    let same = find(&later, "172.20.0.2", 80).unwrap();
    assert_eq!(same.id, two.id);
    assert!(find(&later, "172.20.0.1", 80).is_none());
    let new = find(&later, "172.20.0.3", 80).unwrap();
    assert!(![one.id, two.id, other.id].contains(&new.id), "numbers rest");
    assert_eq!(ids(same)[0], ids(one)[0], "10.0.0.1");
    assert!(
        same.external.get(ids(one)[1]).is_none(),
        "10.0.0.2 left this service"
    );
    let other = find(&later, "172.20.0.9", 80).unwrap();
    assert_eq!(ids(other), ids(one));
}

#[test]
fn node_ports_answer_on_the_addresses_of_the_node() {
    let mut store = store();
    let mut it = service("a", "172.20.0.1");
    it.frontends
        .push(frontend("0.0.0.0", 30_080, FrontendType::NodePort));
    it.frontends.push(frontend("::", 30_080, FrontendType::NodePort));
    it.backends.push(backend("fd00::1", 8080));
    store.apply(vec![put(it.clone())]).unwrap();
    let there = |store: &Store| -> Vec<&str> {
        let now = snapshot(store);
        let all = ["198.51.100.1", "198.51.100.2", "2001:db8:2::1", "0.0.0.0"];
        all.into_iter()
            .filter(|addr| find(&now, addr, 30_080).is_some())
            .collect()
    };
    assert!(there(&store).is_empty(), "no addresses yet");
    store
        .apply(vec![put_node(node(&["198.51.100.1", "2001:db8:2::1"]))])
        .unwrap();
    assert_eq!(there(&store), ["198.51.100.1", "2001:db8:2::1"]);
    let now = snapshot(&store);
    let (four, six) = (
        find(&now, "198.51.100.1", 30_080).unwrap(),
        find(&now, "2001:db8:2::1", 30_080).unwrap(),
    );
    assert!(four.routable && four.kind == FrontendType::NodePort);
    assert_eq!(active(&four.external), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(active(&six.external), ["fd00::1"]);

    store
        .apply(vec![put_node(node(&["198.51.100.1", "198.51.100.2"]))])
        .unwrap();
    assert_eq!(there(&store), ["198.51.100.1", "198.51.100.2"]);
    let later = snapshot(&store);
    assert_eq!(find(&later, "198.51.100.1", 30_080).unwrap().id, four.id);

    let narrowed = Node {
        nodeport_addresses: vec![ip("198.51.100.2")],
        ..node(&["198.51.100.1", "198.51.100.2"])
    };
    store.apply(vec![put_node(narrowed)]).unwrap();
    assert_eq!(there(&store), ["198.51.100.2"]);
    store.apply(vec![Change::RemoveNode]).unwrap();
    assert!(there(&store).is_empty());
    store
        .apply(vec![put_node(node(&["198.51.100.1"])), remove("a")])
        .unwrap();
    assert!(there(&store).is_empty());
    let frontends = store
        .usage()
        .into_iter()
        .find(|it| it.table == "frontends")
        .unwrap();
    assert_eq!(frontends.used, 0);
}

#[test]
fn two_services_cannot_have_one_frontend() {
    let mut store = store();
    store
        .apply(vec![
            put_node(node(&["198.51.100.1"])),
            put(service("a", "172.20.0.1")),
        ])
        .unwrap();
    let error = store.apply(vec![put(service("b", "172.20.0.1"))]).unwrap_err();
    assert_eq!(error.error.kind(), ErrorKind::Conflict);
    assert_eq!(
        error.to_string(),
        "changes[0]: service \"b\": frontend 172.20.0.1:80/TCP belongs to service \"a\""
    );
    let udp = Service {
        protocol: Protocol::Udp,
        ..service("udp", "172.20.0.1")
    };
    // It may move within one transaction.
    store
        .apply(vec![put(udp), remove("a"), put(service("b", "172.20.0.1"))])
        .unwrap();
    assert_eq!(&*find(&snapshot(&store), "172.20.0.1", 80).unwrap().service, "b");

    let surrogate = Service {
        frontends: vec![frontend("0.0.0.0", 30_080, FrontendType::NodePort)],
        ..service("c", "172.20.0.1")
    };
    let exact = Service {
        frontends: vec![frontend("198.51.100.2", 30_080, FrontendType::NodePort)],
        ..service("d", "172.20.0.1")
    };
    store.apply(vec![put(surrogate), put(exact)]).unwrap();
    assert_eq!(
        refusal(&mut store, vec![put_node(node(&["198.51.100.2"]))]),
        "changes[0]: service \"c\": frontend 198.51.100.2:30080/TCP belongs to service \"d\""
    );
    assert!(find(&snapshot(&store), "198.51.100.1", 30_080).is_some());
}

#[test]
fn settings_reach_the_workers() {
    let mut store = store();
    let mut it = service("a", "172.20.0.1");
    it.affinity_seconds = 600;
    it.source_ranges = vec![prefix("192.0.2.0/24")];
    it.forwarding = Some(Forwarding::Dsr);
    it.proxy_port = 9000;
    store.apply(vec![put(it.clone())]).unwrap();
    let now = snapshot(&store);
    let found = find(&now, "172.20.0.1", 80).unwrap();
    assert_eq!(
        (found.affinity_seconds, found.forwarding, found.proxy_port),
        (600, Some(Forwarding::Dsr), 9000)
    );
    let ranges = found.source_ranges.as_ref().unwrap();
    assert!(ranges.admits(ip("192.0.2.1")) && !ranges.admits(ip("192.0.3.1")));
    it.source_ranges_deny = true;
    store.apply(vec![put(it)]).unwrap();
    let now = snapshot(&store);
    let ranges = find(&now, "172.20.0.1", 80)
        .unwrap()
        .source_ranges
        .clone()
        .unwrap();
    assert!(!ranges.admits(ip("192.0.2.1")) && ranges.admits(ip("192.0.3.1")));
}

#[test]
fn bad_services_are_refused() {
    let mut store = store_with(Capacity {
        services: 2,
        frontends: 2,
        backends: 3,
        ..Capacity::default()
    });
    let with = |change: &dyn Fn(&mut Service)| {
        let mut it = service("a", "172.20.0.1");
        change(&mut it);
        put(it)
    };
    let cases = [
        (
            with(&|it| it.name.clear()),
            "service \"\": name is 0 bytes long, expected 1 to 253",
        ),
        (
            with(&|it| it.frontends.clear()),
            "frontends has 0, expected 1 to 256",
        ),
        (
            with(&|it| it.frontends[0].port = 0),
            "frontends[0] port 0 is out of range, expected 1 to 65535",
        ),
        (
            with(&|it| it.frontends[0].addr = ip("0.0.0.0")),
            "frontends[0] address 0.0.0.0 is unspecified",
        ),
        (
            with(&|it| it.frontends[0].addr = ip("224.0.0.1")),
            "frontends[0] address 224.0.0.1 cannot be a service's: it is multicast",
        ),
        (
            with(&|it| it.frontends.push(it.frontends[0])),
            "frontends[1] 172.20.0.1:80 is given twice",
        ),
        (
            with(&|it| it.backends[1].port = 0),
            "backends[1] port 0 is out of range, expected 1 to 65535",
        ),
        (
            with(&|it| it.backends[1].weight = 0),
            "backends[1] weight 0 is out of range, expected 1 to 65535",
        ),
        (
            with(&|it| it.backends[1].addr = ip("fd00::1")),
            "backends[1] address fd00::1 is of the wrong family: no frontend is IPv6",
        ),
        (
            with(&|it| it.backends[1] = it.backends[0]),
            "backends[1] 10.0.0.2:8080 is given twice",
        ),
        (
            with(&|it| it.affinity_seconds = 1 << 24),
            "affinity_seconds 16777216 is out of range, expected 0 to 16777215",
        ),
        (
            with(&|it| it.source_ranges = vec![prefix("10.0.0.0/8"); 2]),
            "source_ranges holds 10.0.0.0/8 twice",
        ),
        (
            with(&|it| {
                let ports = 1..=3;
                it.frontends = ports
                    .map(|port| frontend("172.20.0.1", port, FrontendType::ClusterIp))
                    .collect();
            }),
            "table frontends is full: 2 entries",
        ),
        (
            with(&|it| it.backends = (1..=4).map(|port| backend("10.0.0.1", port)).collect()),
            "table backends is full: 3 entries",
        ),
        (remove("z"), "service \"z\": not found"),
    ];
    for (change, expected) in cases {
        let first = put(service("first", "172.20.9.9"));
        let error = refusal(&mut store, vec![first, change]);
        assert!(error.contains(expected), "{error}");
    }
    assert!(find(&snapshot(&store), "172.20.9.9", 80).is_none());
    let three = ["a", "b", "c"];
    let three = three.map(|name| put(service(name, &format!("172.20.0.{}", name.as_bytes()[0]))));
    assert!(refusal(&mut store, three.to_vec()).contains("table services is full: 2 entries"));
}
