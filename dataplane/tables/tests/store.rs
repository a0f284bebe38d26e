//! Transactions, precedence and publication, seen from a worker's side.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::net::IpAddr;

use common::{HOST, POD, UPLINK, endpoint, ip, neighbour, port, route, store, store_with};
use octoplane_packet::{MacAddr, Prefix};
use octoplane_tables::model::{Change, Endpoint, Neighbour, Origin, Role, RouteTarget};
use octoplane_tables::{Action, Capacity, ErrorKind, Store, Target};

fn look(store: &Store, addr: &str) -> Target {
    let mut reader = store.reader();
    let snapshot = reader.load();
    match ip(addr) {
        IpAddr::V4(addr) => *snapshot.route4(addr.to_bits()),
        IpAddr::V6(addr) => *snapshot.route6(addr.to_bits()),
    }
}

#[test]
fn own_addresses_are_there_from_the_start() {
    let store = store();
    assert_eq!(look(&store, "169.254.1.1").action, Action::Gateway);
    assert_eq!(look(&store, "fe80::1").action, Action::Gateway);
    assert_eq!(look(&store, "192.0.2.1").action, Action::Local);
    assert_eq!(look(&store, "192.0.2.7").action, Action::Glean);
    assert_eq!(look(&store, "2001:db8::7").action, Action::Glean);
    assert_eq!(look(&store, "10.0.0.1").action, Action::None);
}

#[test]
fn endpoints_of_both_families_are_delivered_and_removed() {
    let mut store = store();
    let committed = store
        .apply(vec![Change::PutEndpoint(endpoint(7, &["10.0.0.7", "fd00::7"]))])
        .unwrap();
    assert_eq!((committed.revision, committed.events.len()), (1, 1));
    for addr in ["10.0.0.7", "fd00::7"] {
        let target = look(&store, addr);
        assert_eq!(
            (target.action, target.port, target.endpoint, target.identity),
            (Action::Deliver, POD, 7, 1007)
        );
        assert_eq!(target.macs, [2, 0, 0, 0, 0, 7, 2, 0, 0, 0, 0xff, 0]);
    }
    // One address goes, another comes.
    store
        .apply(vec![Change::PutEndpoint(endpoint(7, &["10.0.0.8", "fd00::7"]))])
        .unwrap();
    assert_eq!(look(&store, "10.0.0.7").action, Action::None);
    assert_eq!(look(&store, "10.0.0.8").endpoint, 7);
    store.apply(vec![Change::RemoveEndpoint { id: 7 }]).unwrap();
    assert_eq!(look(&store, "10.0.0.8").action, Action::None);
    assert_eq!(look(&store, "fd00::7").action, Action::None);
}

#[test]
fn a_route_waits_for_its_neighbour_and_follows_it() {
    let mut store = store();
    let gateway = RouteTarget::Gateway {
        port: UPLINK,
        gateway: ip("192.0.2.254"),
    };
    store
        .apply(vec![route("0.0.0.0/0", gateway), route("10.2.0.0/16", gateway)])
        .unwrap();
    let target = look(&store, "10.2.3.4");
    assert_eq!(
        (target.action, target.next_hop),
        (Action::Resolve, Some(ip("192.0.2.254")))
    );
    store.apply(vec![neighbour("192.0.2.254", 1)]).unwrap();
    for addr in ["10.2.3.4", "8.8.8.8", "192.0.2.254"] {
        let target = look(&store, addr);
        assert_eq!((target.action, target.port), (Action::Forward, UPLINK), "{addr}");
        assert_eq!(target.macs, [2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0xff, 1]);
    }
    store.apply(vec![neighbour("192.0.2.254", 2)]).unwrap();
    assert_eq!(look(&store, "8.8.8.8").macs[5], 2);
    store
        .apply(vec![Change::RemoveNeighbour {
            port: UPLINK,
            addr: ip("192.0.2.254"),
        }])
        .unwrap();
    assert_eq!(look(&store, "8.8.8.8").action, Action::Resolve);
    assert_eq!(look(&store, "192.0.2.254").action, Action::Glean);
}

#[test]
fn the_longest_prefix_wins_and_endpoints_win_over_routes() {
    let mut store = store();
    store
        .apply(vec![
            route("10.0.0.0/8", RouteTarget::Host),
            route("10.1.0.0/16", RouteTarget::Blackhole),
            route("10.1.2.3/32", RouteTarget::Host),
            Change::PutEndpoint(endpoint(1, &["10.1.2.3"])),
        ])
        .unwrap();
    assert_eq!(look(&store, "10.2.0.1").action, Action::Host);
    assert_eq!(look(&store, "10.1.0.1").action, Action::Blackhole);
    assert_eq!(look(&store, "10.1.2.3").action, Action::Deliver);
    store.apply(vec![Change::RemoveEndpoint { id: 1 }]).unwrap();
    assert_eq!(look(&store, "10.1.2.3").action, Action::Host);
    let prefix: Prefix = "10.1.2.3/32".parse().unwrap();
    store.apply(vec![Change::RemoveRoute { prefix }]).unwrap();
    assert_eq!(look(&store, "10.1.2.3").action, Action::Blackhole);
}

#[test]
fn a_neighbour_has_an_entry_only_while_a_link_route_covers_it() {
    let mut store = store();
    store.apply(vec![neighbour("198.51.100.9", 9)]).unwrap();
    assert_eq!(
        look(&store, "198.51.100.9").action,
        Action::None,
        "not on any link"
    );
    store
        .apply(vec![route("198.51.100.0/24", RouteTarget::Link { port: UPLINK })])
        .unwrap();
    assert_eq!(look(&store, "198.51.100.9").action, Action::Forward);
    assert_eq!(look(&store, "198.51.100.8").action, Action::Glean);
    store
        .apply(vec![route("198.51.100.0/25", RouteTarget::Blackhole)])
        .unwrap();
    assert_eq!(look(&store, "198.51.100.9").action, Action::Blackhole);
}

#[test]
fn one_bad_change_refuses_the_transaction() {
    let mut store = store();
    let mut changes: Vec<_> = (1..=5000u32)
        .map(|id| Change::PutEndpoint(endpoint(id, &[&format!("10.8.{}.{}", id >> 8, id & 255)])))
        .collect();
    changes[4711] = Change::PutEndpoint(endpoint(9999, &["10.8.0.1"]));
    let error = store.apply(changes).unwrap_err();
    assert_eq!(error.index, 4711);
    assert_eq!(error.error.kind(), ErrorKind::Conflict);
    assert_eq!(
        error.to_string(),
        "changes[4711]: endpoint 9999: address 10.8.0.1 belongs to endpoint 1"
    );
    assert_eq!((store.state().revision(), store.state().endpoint_count()), (0, 0));
    assert_eq!(look(&store, "10.8.0.1").action, Action::None);
}

#[test]
fn bad_fields_are_named() {
    let mut store = store();
    let cases: Vec<(Change, &str)> = vec![
        (
            Change::PutEndpoint(Endpoint {
                id: 0,
                ..endpoint(1, &["10.0.0.1"])
            }),
            "endpoint id: 0 is reserved",
        ),
        (
            Change::PutEndpoint(Endpoint {
                identity: 0,
                ..endpoint(1, &["10.0.0.1"])
            }),
            "identity 0 is out of range",
        ),
        (
            Change::PutEndpoint(Endpoint {
                mac: MacAddr::BROADCAST,
                ..endpoint(1, &["10.0.0.1"])
            }),
            "mac ff:ff",
        ),
        (
            Change::PutEndpoint(Endpoint {
                port: UPLINK,
                ..endpoint(1, &["10.0.0.1"])
            }),
            "expected pod",
        ),
        (
            Change::PutEndpoint(Endpoint {
                port: 99,
                ..endpoint(1, &["10.0.0.1"])
            }),
            "no port number 99",
        ),
        (
            Change::PutEndpoint(endpoint(1, &[])),
            "0 addresses, expected 1 to 16",
        ),
        (
            Change::PutEndpoint(endpoint(1, &["10.0.0.1", "10.0.0.1"])),
            "given twice",
        ),
        (Change::PutEndpoint(endpoint(1, &["127.0.0.1"])), "loopback"),
        (Change::PutEndpoint(endpoint(1, &["ff02::1"])), "multicast"),
        (
            Change::PutEndpoint(endpoint(1, &["169.254.1.1"])),
            "data plane's own",
        ),
        (
            Change::PutEndpoint(endpoint(1, &["192.0.2.1"])),
            "data plane's own",
        ),
        (Change::RemoveEndpoint { id: 5 }, "endpoint 5: not found"),
        (
            route(
                "0.0.0.0/0",
                RouteTarget::Gateway {
                    port: UPLINK,
                    gateway: ip("2001:db8::2"),
                },
            ),
            "other address family",
        ),
        (
            route(
                "0.0.0.0/0",
                RouteTarget::Gateway {
                    port: POD,
                    gateway: ip("192.0.2.2"),
                },
            ),
            "expected uplink",
        ),
        (
            route("224.0.0.0/4", RouteTarget::Blackhole),
            "multicast is not routed",
        ),
        (
            Change::SetPort {
                id: POD,
                mtu: Some(9000),
                admin_up: None,
            },
            "expected 1280 to 1500",
        ),
        (
            Change::SetPort {
                id: 9,
                mtu: None,
                admin_up: None,
            },
            "no port number 9",
        ),
    ];
    for (change, expected) in cases {
        let error = store.apply(vec![change.clone()]).unwrap_err().to_string();
        assert!(error.contains(expected), "{change:?}: {error}");
    }
    assert_eq!(store.state().revision(), 0);
}

#[test]
fn full_tables_are_named_and_nothing_is_lost() {
    let mut store = store_with(Capacity {
        endpoints: 2,
        routes: 1,
        neighbours: 1,
        fib_nodes_v4: 64,
        fib_nodes_v6: 64,
        ..Capacity::default()
    });
    let three = (1..=3)
        .map(|id| Change::PutEndpoint(endpoint(id, &[&format!("10.0.0.{id}")])))
        .collect();
    assert!(
        store
            .apply(three)
            .unwrap_err()
            .to_string()
            .contains("table endpoints is full: 2 entries")
    );
    let two = (1..=2)
        .map(|id| Change::PutEndpoint(endpoint(id, &[&format!("10.0.0.{id}")])))
        .collect();
    store.apply(two).unwrap();
    // Every prefix far from the others: the forwarding table runs out of nodes.
    let scattered: Vec<String> = (0..16).map(|n| format!("{}.{n}.{n}.{n}", 20 + n)).collect();
    let scattered: Vec<&str> = scattered.iter().map(String::as_str).collect();
    for _ in 0..100 {
        let mut changes = vec![Change::RemoveEndpoint { id: 2 }];
        changes.push(Change::PutEndpoint(endpoint(2, &scattered)));
        store.apply(changes).unwrap();
        store
            .apply(vec![Change::PutEndpoint(endpoint(2, &["10.0.0.2"]))])
            .unwrap();
    }
    assert_eq!(look(&store, "10.0.0.2").endpoint, 2);
    let mut tiny = store_with(Capacity {
        fib_nodes_v4: 12,
        fib_nodes_v6: 12,
        ..Capacity::default()
    });
    let error = tiny
        .apply(vec![Change::PutEndpoint(endpoint(2, &scattered))])
        .unwrap_err();
    assert_eq!(error.error.kind(), ErrorKind::Full);
    assert!(error.to_string().contains("fib_nodes_v4"), "{error}");
    assert_eq!(tiny.state().revision(), 0);
    tiny.apply(vec![Change::PutEndpoint(endpoint(2, &["10.0.0.2"]))])
        .unwrap();
}

#[test]
fn a_worker_that_holds_a_snapshot_sees_it_unchanged() {
    let mut store = store();
    store
        .apply(
            (1..=200)
                .map(|id| Change::PutEndpoint(endpoint(id, &[&format!("10.0.0.{id}")])))
                .collect(),
        )
        .unwrap();
    let mut reader = store.reader();
    let held = std::sync::Arc::clone(reader.load());
    for round in 0..50 {
        let id = 1 + round % 200;
        store.apply(vec![Change::RemoveEndpoint { id }]).unwrap();
        store
            .apply(vec![Change::PutEndpoint(endpoint(
                id,
                &[&format!("10.9.0.{id}")],
            ))])
            .unwrap();
    }
    for id in 1..=200u32 {
        assert_eq!(held.route4(0x0a00_0000 + id).endpoint, id);
        assert_eq!(held.route4(0x0a09_0000 + id).action, Action::None);
    }
    let used = store
        .usage()
        .iter()
        .find(|usage| usage.table == "fib_nodes_v4")
        .unwrap()
        .used;
    drop(held);
    reader.load();
    store.reclaim();
    let freed = store
        .usage()
        .iter()
        .find(|usage| usage.table == "fib_nodes_v4")
        .unwrap()
        .used;
    assert!(freed < used, "{freed} < {used}");
}

#[test]
fn putting_what_is_there_changes_nothing() {
    let mut store = store();
    let changes = vec![
        Change::PutEndpoint(endpoint(1, &["10.0.0.1"])),
        route(
            "0.0.0.0/0",
            RouteTarget::Gateway {
                port: UPLINK,
                gateway: ip("192.0.2.254"),
            },
        ),
    ];
    assert_eq!(store.check(changes.clone()).unwrap().events.len(), 2);
    assert_eq!(store.state().revision(), 0);
    assert_eq!(store.apply(changes.clone()).unwrap().revision, 1);
    let again = store.apply(changes).unwrap();
    assert_eq!((again.revision, again.events.len()), (1, 0));
}

#[test]
fn what_was_heard_never_overwrites_what_was_said() {
    let mut store = store();
    let said = Neighbour {
        port: UPLINK,
        addr: ip("192.0.2.9"),
        mac: Some(MacAddr([2, 0, 0, 0, 9, 9])),
        origin: Origin::Static,
    };
    store.apply(vec![Change::PutNeighbour(said)]).unwrap();
    store.apply(vec![neighbour("192.0.2.9", 1)]).unwrap();
    assert_eq!(look(&store, "192.0.2.9").macs[4..6], [9, 9]);
}

#[test]
fn a_port_that_is_down_takes_its_destinations_along() {
    let mut store = store();
    store
        .apply(vec![Change::PutEndpoint(endpoint(1, &["10.0.0.1"]))])
        .unwrap();
    store
        .apply(vec![Change::SetPort {
            id: POD,
            mtu: Some(1400),
            admin_up: Some(false),
        }])
        .unwrap();
    assert_eq!(
        (look(&store, "10.0.0.1").action, look(&store, "10.0.0.1").mtu),
        (Action::PortDown, 1400)
    );
    store
        .apply(vec![Change::SetPort {
            id: POD,
            mtu: None,
            admin_up: Some(true),
        }])
        .unwrap();
    assert_eq!(look(&store, "10.0.0.1").action, Action::Deliver);
}

#[test]
fn a_hundred_thousand_endpoints_are_one_transaction() {
    let mut store = store();
    let changes: Vec<_> = (0..100_000u32)
        .map(|n| {
            let v4 = std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).to_string();
            let v6 = std::net::Ipv6Addr::from_bits((0xfd00 << 112) + u128::from(n)).to_string();
            Change::PutEndpoint(endpoint(n + 1, &[&v4, &v6]))
        })
        .collect();
    assert_eq!(store.apply(changes).unwrap().events.len(), 100_000);
    assert_eq!(look(&store, "10.1.134.159").endpoint, 100_000);
    assert_eq!(look(&store, "fd00::1:869f").endpoint, 100_000);
    store.apply(vec![Change::RemoveEndpoint { id: 5 }]).unwrap();
    assert_eq!(look(&store, "10.0.0.4").action, Action::None);
    assert_eq!(look(&store, "10.0.0.5").endpoint, 6);
}

#[test]
fn a_port_brings_its_link_and_takes_it_along() {
    let mut store = store();
    let second = port(3, "uplink1", Role::Uplink, &[("198.51.100.1", 24)]);
    let committed = store.apply(vec![Change::AddPort(second.clone())]).unwrap();
    assert_eq!(
        (committed.revision, committed.events.len(), committed.ports.len()),
        (1, 1, 4)
    );
    assert_eq!(look(&store, "198.51.100.1").action, Action::Local);
    assert_eq!(
        (
            look(&store, "198.51.100.7").action,
            look(&store, "198.51.100.7").port
        ),
        (Action::Glean, 3)
    );
    let learned = |addr: &str, origin| {
        Change::PutNeighbour(Neighbour {
            port: 3,
            addr: ip(addr),
            mac: Some(MacAddr([2, 0, 0, 0, 1, 7])),
            origin,
        })
    };
    store
        .apply(vec![learned("198.51.100.7", Origin::Learned)])
        .unwrap();
    assert_eq!(look(&store, "198.51.100.7").action, Action::Forward);

    // Whoever was named by the control plane keeps the port.
    store
        .apply(vec![learned("198.51.100.8", Origin::Static)])
        .unwrap();
    let refused = store.apply(vec![Change::RemovePort { id: 3 }]).unwrap_err().error;
    assert_eq!(refused.kind(), ErrorKind::InUse);
    assert_eq!(
        refused.to_string(),
        "port uplink1 is in use by neighbour 198.51.100.8: remove these first"
    );
    store
        .apply(vec![Change::RemoveNeighbour {
            port: 3,
            addr: ip("198.51.100.8"),
        }])
        .unwrap();

    // What was learned goes along, and is told under the name that the port had.
    let committed = store.apply(vec![Change::RemovePort { id: 3 }]).unwrap();
    assert!(committed.events.iter().all(|event| event.removed));
    assert_eq!(committed.events.len(), 2);
    assert_eq!(committed.ports.name(3), "uplink1");
    assert_eq!(store.state().neighbour_count(), 0);
    for addr in ["198.51.100.1", "198.51.100.7"] {
        assert_eq!(look(&store, addr).action, Action::None, "{addr}");
    }
    let mut reader = store.reader();
    assert!(reader.load().port(3).is_none() && reader.load().port(2).is_some());
    assert!(store.apply(vec![Change::RemovePort { id: 3 }]).is_err());
    store.apply(vec![Change::AddPort(second)]).unwrap();
    assert_eq!(look(&store, "198.51.100.7").action, Action::Glean);
}

#[test]
fn a_gap_in_the_numbers_is_no_port() {
    let mut store = store();
    store
        .apply(vec![
            Change::AddPort(port(9, "pod9", Role::Pod, &[])),
            Change::RemovePort { id: POD },
        ])
        .unwrap();
    let names: Vec<String> = store.state().ports().map(|it| it.name.clone()).collect();
    assert_eq!(names, ["uplink0", "host", "pod9"]);
    let mut reader = store.reader();
    let snapshot = reader.load();
    assert!(snapshot.port(POD).is_none() && snapshot.port(5).is_none() && snapshot.port(9).is_some());
    let on_nothing = store
        .apply(vec![Change::PutEndpoint(endpoint(1, &["10.0.0.1"]))])
        .unwrap_err();
    assert_eq!(on_nothing.error.kind(), ErrorKind::NotFound);
    // Its MTU is limited by what it came with.
    let set = |mtu| Change::SetPort {
        id: 9,
        mtu: Some(mtu),
        admin_up: None,
    };
    assert!(store.apply(vec![set(1501)]).is_err());
    assert!(store.apply(vec![set(1400)]).is_ok());
}

#[test]
fn routes_to_the_kernel_keep_the_host_port() {
    let mut store = store();
    store
        .apply(vec![route("203.0.113.0/24", RouteTarget::Host)])
        .unwrap();
    let refused = store.apply(vec![Change::RemovePort { id: HOST }]).unwrap_err();
    assert!(refused.to_string().contains("route 203.0.113.0/24"), "{refused}");
    for id in 1..=5 {
        store
            .apply(vec![Change::PutEndpoint(endpoint(
                id,
                &[&format!("10.0.0.{id}")],
            ))])
            .unwrap();
    }
    let refused = store.apply(vec![Change::RemovePort { id: POD }]).unwrap_err();
    assert_eq!(
        refused.error.to_string(),
        "port pod0 is in use by endpoint 1 (default/pod-1), endpoint 2 (default/pod-2), endpoint 3 (default/pod-3) \
         and 2 more: remove these first"
    );
}
