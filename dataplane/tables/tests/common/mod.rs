//! A store with three ports, and short ways to say things.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests")]

pub(crate) mod scale;

use std::net::IpAddr;
use std::sync::Arc;

use octoplane_packet::{MacAddr, Prefix};
use octoplane_tables::model::{
    Change, Endpoint, IpcacheEntry, Neighbour, Node, Origin, Port, PortId, Role, Route, RouteTarget,
};
use octoplane_tables::{Capacity, Gateways, Snapshot, Store};

pub(crate) const POD: PortId = 0;
pub(crate) const UPLINK: PortId = 1;
pub(crate) const HOST: PortId = 2;

pub(crate) fn port(id: PortId, name: &str, role: Role, addresses: &[(&str, u8)]) -> Port {
    Port {
        id,
        name: name.into(),
        role,
        mac: MacAddr([2, 0, 0, 0, 0xff, id as u8]),
        mtu: 1500,
        admin_up: true,
        addresses: addresses.iter().map(|&(addr, len)| (ip(addr), len)).collect(),
    }
}

pub(crate) fn store_with(capacity: Capacity) -> Store {
    let ports = vec![
        port(POD, "pod0", Role::Pod, &[]),
        port(
            UPLINK,
            "uplink0",
            Role::Uplink,
            &[("192.0.2.1", 24), ("2001:db8::1", 64)],
        ),
        port(HOST, "host", Role::Host, &[]),
    ];
    let gateways = Gateways {
        ipv4: "169.254.1.1".parse().unwrap(),
        ipv6: "fe80::1".parse().unwrap(),
    };
    Store::new(ports, gateways, capacity).unwrap()
}

pub(crate) fn store() -> Store {
    store_with(Capacity {
        fib_nodes_v4: 4096,
        fib_nodes_v6: 4096,
        ..Capacity::default()
    })
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn endpoint(id: u32, addresses: &[&str]) -> Endpoint {
    Endpoint {
        id,
        name: format!("default/pod-{id}"),
        port: POD,
        mac: MacAddr([2, 0, 0, 0, 0, id as u8]),
        identity: 1000 + id,
        addresses: addresses.iter().map(|addr| ip(addr)).collect(),
        ingress_rate: 0,
        egress_rate: 0,
    }
}

pub(crate) fn route(prefix: &str, target: RouteTarget) -> Change {
    Change::PutRoute(Route {
        prefix: prefix.parse().unwrap(),
        target,
        mtu: None,
    })
}

pub(crate) fn neighbour(addr: &str, mac: u8) -> Change {
    let mac = Some(MacAddr([2, 0, 0, 0, 1, mac]));
    Change::PutNeighbour(Neighbour {
        port: UPLINK,
        addr: ip(addr),
        mac,
        origin: Origin::Learned,
    })
}

/// What a worker sees now.
pub(crate) fn snapshot(store: &Store) -> Arc<Snapshot> {
    Arc::clone(store.reader().load())
}

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

pub(crate) fn v4(text: &str) -> u32 {
    text.parse::<std::net::Ipv4Addr>().unwrap().to_bits()
}

pub(crate) fn v6(text: &str) -> u128 {
    text.parse::<std::net::Ipv6Addr>().unwrap().to_bits()
}

pub(crate) fn entry(text: &str, identity: u32, tunnel: Option<&str>) -> IpcacheEntry {
    IpcacheEntry {
        prefix: prefix(text),
        identity,
        tunnel: tunnel.map(ip),
        key: 0,
        skip_tunnel: false,
    }
}

pub(crate) fn node(addresses: &[&str]) -> Node {
    Node {
        addresses: addresses.iter().map(|addr| ip(addr)).collect(),
        ..Node::default()
    }
}

pub(crate) fn put_node(node: Node) -> Change {
    Change::PutNode(Box::new(node))
}

/// The text of the error that refuses these changes.
pub(crate) fn refusal(store: &mut Store, changes: Vec<Change>) -> String {
    let before = store.state().revision();
    let error = store.apply(changes).unwrap_err().to_string();
    assert_eq!(store.state().revision(), before);
    error
}
