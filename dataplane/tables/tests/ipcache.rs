//! What is known of remote addresses, seen from a worker's side.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::{
    UPLINK, endpoint, entry, ip, neighbour, node, prefix, put_node, refusal, route, snapshot, store,
    store_with, v4, v6,
};
use octoplane_packet::Prefix;
use octoplane_tables::model::{Change, IpcacheEntry, RouteTarget};
use octoplane_tables::{Capacity, Object, Remote, Store, identity};
use proptest::prelude::*;

fn identity_of(store: &Store, addr: &str) -> u32 {
    match ip(addr) {
        IpAddr::V4(addr) => snapshot(store).remote4(addr.to_bits()).identity,
        IpAddr::V6(addr) => snapshot(store).remote6(addr.to_bits()).identity,
    }
}

#[test]
fn unknown_addresses_are_the_world() {
    let mut store = store();
    assert_eq!(identity_of(&store, "8.8.8.8"), identity::WORLD);
    assert_eq!(identity_of(&store, "2001:db8:1::1"), identity::WORLD);
    store.apply(vec![put_node(node(&["198.51.100.1"]))]).unwrap();
    assert_eq!(identity_of(&store, "8.8.8.8"), identity::WORLD);
    store
        .apply(vec![put_node(node(&["198.51.100.1", "2001:db8:2::1"]))])
        .unwrap();
    assert_eq!(identity_of(&store, "8.8.8.8"), identity::WORLD_IPV4);
    assert_eq!(identity_of(&store, "2001:db8:1::1"), identity::WORLD_IPV6);
    store.apply(vec![Change::RemoveNode]).unwrap();
    assert_eq!(identity_of(&store, "8.8.8.8"), identity::WORLD);
}

#[test]
fn own_addresses_win_over_endpoints_and_those_over_entries() {
    let mut store = store();
    store
        .apply(vec![
            put_node(node(&["198.51.100.1"])),
            Change::PutEndpoint(endpoint(7, &["10.0.0.7", "fd00::7"])),
            Change::PutIpcache(entry("10.0.0.7/32", 500, None)),
            Change::PutIpcache(entry("198.51.100.1/32", 501, None)),
            Change::PutIpcache(entry("10.0.0.0/24", 502, None)),
            Change::PutIpcache(entry("0.0.0.0/0", 503, None)),
        ])
        .unwrap();
    assert_eq!(identity_of(&store, "198.51.100.1"), identity::HOST);
    assert_eq!(identity_of(&store, "192.0.2.1"), identity::HOST, "a port's");
    assert_eq!(identity_of(&store, "169.254.1.1"), identity::HOST, "the gateway");
    assert_eq!(identity_of(&store, "10.0.0.7"), 1007);
    assert_eq!(identity_of(&store, "fd00::7"), 1007);
    assert_eq!(identity_of(&store, "10.0.0.8"), 502);
    assert_eq!(identity_of(&store, "1.1.1.1"), 503);
    // What was hidden comes to light again.
    store
        .apply(vec![Change::RemoveEndpoint { id: 7 }, Change::RemoveNode])
        .unwrap();
    assert_eq!(identity_of(&store, "10.0.0.7"), 500);
    assert_eq!(identity_of(&store, "198.51.100.1"), 501);
    assert_eq!(identity_of(&store, "fd00::7"), identity::WORLD);
    let gone = ["10.0.0.7/32", "198.51.100.1/32", "10.0.0.0/24", "0.0.0.0/0"];
    store
        .apply(
            gone.map(|text| Change::RemoveIpcache { prefix: prefix(text) })
                .to_vec(),
        )
        .unwrap();
    assert_eq!(identity_of(&store, "10.0.0.7"), identity::WORLD);
    assert_eq!(store.state().ipcache_count(), 0);
}

#[test]
fn an_endpoint_that_changes_its_identity_is_known_by_the_new_one() {
    let mut store = store();
    let mut pod = endpoint(7, &["10.0.0.7"]);
    store.apply(vec![Change::PutEndpoint(pod.clone())]).unwrap();
    pod.identity = 4711;
    store.apply(vec![Change::PutEndpoint(pod)]).unwrap();
    assert_eq!(identity_of(&store, "10.0.0.7"), 4711);
}

#[test]
fn tunnels_follow_the_routes_to_their_ends() {
    let mut store = store();
    let peer = IpcacheEntry {
        key: 3,
        skip_tunnel: true,
        ..entry("10.5.0.0/24", 600, Some("192.0.2.5"))
    };
    let far = entry("10.6.0.0/24", 601, Some("203.0.113.6"));
    store
        .apply(vec![Change::PutIpcache(peer), Change::PutIpcache(far)])
        .unwrap();
    let now = snapshot(&store);
    let remote = *now.remote4(v4("10.5.0.9"));
    assert_eq!(
        (remote.identity, remote.tunnel, remote.key, remote.skip_tunnel),
        (600, Some(ip("192.0.2.5")), 3, true)
    );
    let target = |remote: &Remote| now.tunnel_end(remote.tunnel_end).target;
    assert_eq!(target(&remote), now.find4(v4("192.0.2.5")), "the link");
    assert_ne!(target(&remote), 0);
    assert_eq!(target(now.remote4(v4("10.6.0.1"))), 0, "no route");

    let via = RouteTarget::Gateway {
        port: UPLINK,
        gateway: ip("192.0.2.254"),
    };
    let steps = [
        vec![neighbour("192.0.2.5", 5)],
        vec![route("203.0.113.0/24", via)],
        vec![route("203.0.113.6/32", RouteTarget::Blackhole)],
        vec![neighbour("192.0.2.254", 1)],
        vec![Change::RemoveRoute {
            prefix: prefix("203.0.113.6/32"),
        }],
        vec![Change::PutIpcache(entry("10.7.0.0/24", 602, Some("203.0.113.6")))],
        vec![Change::RemoveRoute {
            prefix: prefix("203.0.113.0/24"),
        }],
        vec![Change::RemoveIpcache {
            prefix: prefix("10.6.0.0/24"),
        }],
        vec![Change::RemoveIpcache {
            prefix: prefix("10.7.0.0/24"),
        }],
        vec![Change::PutIpcache(entry("10.7.0.0/24", 602, Some("192.0.2.5")))],
    ];
    for step in steps {
        store.apply(step.clone()).unwrap();
        let now = snapshot(&store);
        for addr in ["10.5.0.9", "10.6.0.1", "10.7.0.1"] {
            let remote = now.remote4(v4(addr));
            let expected = match remote.tunnel {
                Some(IpAddr::V4(tunnel)) => now.find4(tunnel.to_bits()),
                _ => 0,
            };
            let end = now.tunnel_end(remote.tunnel_end);
            assert_eq!(
                (end.target, end.addr),
                (expected, remote.tunnel),
                "{addr} after {step:?}"
            );
        }
    }
}

#[test]
fn tunnels_have_what_their_packets_need_of_the_way_there() {
    let mut store = store();
    let mut settings = node(&["192.0.2.1"]);
    settings.tunnel.local4 = Some([192, 0, 2, 1].into());
    let set = |mtu, admin_up| Change::SetPort {
        id: UPLINK,
        mtu,
        admin_up,
    };
    let via = |gateway: &str| RouteTarget::Gateway {
        port: UPLINK,
        gateway: ip(gateway),
    };
    // Bytes of a frame that fit after each step: 50 more than its IP packet are not above the MTU.
    let steps = [
        (put_node(settings), 0),
        (
            Change::PutIpcache(entry("10.5.0.0/24", 600, Some("203.0.113.6"))),
            0,
        ),
        (route("203.0.113.0/24", via("192.0.2.253")), 0),
        (neighbour("192.0.2.253", 1), 1464),
        (neighbour("192.0.2.253", 2), 1464),
        (set(Some(1400), None), 1364),
        (set(None, Some(false)), 0),
        (set(None, Some(true)), 1364),
        (route("203.0.113.0/24", via("192.0.2.254")), 0),
        (neighbour("192.0.2.254", 3), 1364),
        (route("203.0.113.6/32", RouteTarget::Blackhole), 0),
    ];
    for (step, room) in steps {
        store.apply(vec![step.clone()]).unwrap();
        let now = snapshot(&store);
        let end = now.tunnel_end(now.remote4(v4("10.5.0.9")).tunnel_end);
        assert_eq!(end.room, room, "after {step:?}");
        let target = now.route4(v4("203.0.113.6"));
        if room != 0 {
            assert_eq!((&end.headers[..12], end.port), (&target.macs[..], target.port));
        }
    }
}

#[test]
fn ipv6_entries_have_tunnels_of_either_family() {
    let mut store = store();
    store
        .apply(vec![
            Change::PutIpcache(entry("fd00:5::/64", 600, Some("192.0.2.5"))),
            Change::PutIpcache(entry("fd00:6::/64", 601, Some("2001:db8::6"))),
        ])
        .unwrap();
    let now = snapshot(&store);
    assert_eq!(
        now.tunnel_end(now.remote6(v6("fd00:5::1")).tunnel_end).target,
        now.find4(v4("192.0.2.5"))
    );
    assert_eq!(
        now.tunnel_end(now.remote6(v6("fd00:6::1")).tunnel_end).target,
        now.find6(v6("2001:db8::6"))
    );
}

#[test]
fn bad_entries_are_refused_whole() {
    let mut store = store_with(Capacity {
        ipcache: 2,
        ..Capacity::default()
    });
    let good = Change::PutIpcache(entry("10.1.0.0/16", 300, None));
    for (bad, expected) in [
        (
            Change::PutIpcache(entry("10.0.0.0/8", 0, None)),
            "changes[1]: ipcache 10.0.0.0/8: identity 0 is out of range, expected 1 to 50331647",
        ),
        (
            Change::PutIpcache(entry("10.0.0.0/8", 5, Some("224.0.0.1"))),
            "changes[1]: ipcache 10.0.0.0/8: tunnel_endpoint 224.0.0.1 is not the address of a node: it is multicast",
        ),
        (
            Change::RemoveIpcache {
                prefix: prefix("10.0.0.0/8"),
            },
            "changes[1]: ipcache 10.0.0.0/8: not found",
        ),
    ] {
        assert_eq!(refusal(&mut store, vec![good.clone(), bad]), expected);
        assert_eq!(identity_of(&store, "10.1.0.1"), identity::WORLD);
    }
    let three = ["10.1.0.0/16", "10.2.0.0/16", "fd00::/8"];
    let three = three
        .map(|text| Change::PutIpcache(entry(text, 300, None)))
        .to_vec();
    assert_eq!(
        refusal(&mut store, three),
        "changes[2]: table ipcache is full: 2 entries (capacity.ipcache in the configuration)"
    );
    assert_eq!(store.state().ipcache_count(), 0);
}

#[test]
fn a_tree_without_room_refuses_and_forgets() {
    let mut store = store_with(Capacity {
        fib_nodes_v4: 4096,
        ipcache_nodes_v4: 16,
        ..Capacity::default()
    });
    let many = (0..32)
        .map(|n| Change::PutIpcache(entry(&format!("{}.{n}.{n}.1/32", 20 + n), 300 + n, None)))
        .collect();
    let before = store.usage();
    assert!(refusal(&mut store, many).contains("table ipcache_nodes_v4 is full: 16 entries"));
    assert_eq!(store.usage(), before);
    store
        .apply(vec![Change::PutIpcache(entry("20.1.1.1/32", 300, None))])
        .unwrap();
    assert_eq!(identity_of(&store, "20.1.1.1"), 300);
}

#[test]
fn putting_what_is_there_is_no_event() {
    let mut store = store();
    let put = || vec![Change::PutIpcache(entry("10.1.0.0/16", 300, Some("192.0.2.5")))];
    let events = store.apply(put()).unwrap().events;
    assert_eq!(
        events[0].object,
        Object::Ipcache(entry("10.1.0.0/16", 300, Some("192.0.2.5")))
    );
    assert!(store.apply(put()).unwrap().events.is_empty());
    let listed: Vec<_> = store.state().ipcache().collect();
    assert_eq!(listed, [entry("10.1.0.0/16", 300, Some("192.0.2.5"))]);
}

#[derive(Debug, Clone)]
enum Step {
    Put(Prefix, u32, Option<u8>),
    Remove(Prefix),
    PutEndpoint(u32, Vec<IpAddr>),
    RemoveEndpoint(u32),
}

fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = (0..3u32, 0..3u32).prop_map(|(a, b)| Ipv4Addr::from_bits(0x0a00_0000 | a << 16 | b << 4).into());
    let v6 =
        (0..3u128, 0..3u128).prop_map(|(a, b)| Ipv6Addr::from_bits(0xfd00 << 112 | a << 64 | b << 4).into());
    prop_oneof![v4, v6]
}

fn a_prefix() -> impl Strategy<Value = Prefix> {
    (
        address(),
        prop_oneof![Just(0u8), Just(8), Just(20), Just(32), Just(100), Just(128)],
    )
        .prop_map(|(addr, len)| Prefix::containing(addr, len))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (a_prefix(), 300..304u32, proptest::option::of(1..4u8)).prop_map(|(p, i, t)| Step::Put(p, i, t)),
        a_prefix().prop_map(Step::Remove),
        (1..4u32, proptest::collection::btree_set(address(), 1..3))
            .prop_map(|(id, addrs)| Step::PutEndpoint(id, addrs.into_iter().collect())),
        (1..4u32).prop_map(Step::RemoveEndpoint),
    ]
}

proptest! {
    /// Against a list that is searched from end to end.
    #[test]
    fn the_longest_prefix_wins(
        steps in proptest::collection::vec(step(), 1..40),
        probes in proptest::collection::vec(address(), 1..10),
    ) {
        let mut store = store();
        let mut entries = BTreeMap::<Prefix, (u32, Option<u8>)>::new();
        let mut owners = BTreeMap::<IpAddr, u32>::new();
        for step in steps {
            match step {
                Step::Put(prefix, identity, tunnel) => {
                    let tunnel_text = tunnel.map(|n| format!("192.0.2.{}", 10 + n));
                    let put = entry(&prefix.to_string(), identity, tunnel_text.as_deref());
                    store.apply(vec![Change::PutIpcache(put)]).unwrap();
                    entries.insert(prefix, (identity, tunnel));
                }
                Step::Remove(prefix) => {
                    let there = entries.remove(&prefix).is_some();
                    prop_assert_eq!(store.apply(vec![Change::RemoveIpcache { prefix }]).is_ok(), there);
                }
                Step::PutEndpoint(id, addresses) => {
                    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                    let taken = addresses.iter().any(|a| owners.get(a).is_some_and(|&owner| owner != id));
                    let done = store.apply(vec![Change::PutEndpoint(endpoint(id, &texts))]).is_ok();
                    prop_assert_eq!(done, !taken);
                    if done {
                        owners.retain(|_, owner| *owner != id);
                        owners.extend(addresses.into_iter().map(|addr| (addr, id)));
                    }
                }
                Step::RemoveEndpoint(id) => {
                    let there = owners.values().any(|&owner| owner == id);
                    prop_assert_eq!(store.apply(vec![Change::RemoveEndpoint { id }]).is_ok(), there);
                    owners.retain(|_, owner| *owner != id);
                }
            }
            let now = snapshot(&store);
            for &probe in &probes {
                let expected = match owners.get(&probe) {
                    Some(id) => (1000 + id, None),
                    None => entries
                        .iter()
                        .filter(|(prefix, _)| prefix.contains(probe))
                        .max_by_key(|(prefix, _)| prefix.len())
                        .map_or((identity::WORLD, None), |(_, &known)| known),
                };
                let remote = match probe {
                    IpAddr::V4(addr) => now.remote4(addr.to_bits()),
                    IpAddr::V6(addr) => now.remote6(addr.to_bits()),
                };
                let tunnel = expected.1.map(|n| ip(&format!("192.0.2.{}", 10 + n)));
                prop_assert_eq!((remote.identity, remote.tunnel), (expected.0, tunnel));
            }
        }
    }
}
