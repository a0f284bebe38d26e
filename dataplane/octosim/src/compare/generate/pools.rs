//! What addresses and ports are drawn from.

use proptest::prelude::*;
use proptest::sample::select;
use std::net::IpAddr;

/// Endpoints' addresses: two have both families, one has IPv4 only.
pub(super) const PODS4: [&str; 3] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
pub(super) const PODS6: [&str; 2] = ["fd00::1", "fd00::2"];
/// Endpoints on other nodes.
pub(super) const FAR4: [&str; 2] = ["10.0.2.1", "10.0.2.2"];
pub(super) const FAR6: [&str; 2] = ["fd00:2::1", "fd00:2::2"];
/// Other nodes.
pub(super) const NODES4: [&str; 2] = ["192.0.2.2", "192.0.2.3"];
pub(super) const NODES6: [&str; 2] = ["2001:db8::2", "2001:db8::3"];
/// This node's own.
pub(super) const OWN4: [&str; 3] = ["192.0.2.1", "203.0.113.1", "198.18.0.1"];
pub(super) const OWN6: [&str; 2] = ["2001:db8::1", "2001:db8:113::1"];
/// Elsewhere.
pub(super) const WORLD4: [&str; 3] = ["198.51.100.1", "198.51.100.200", "8.8.8.8"];
pub(super) const WORLD6: [&str; 2] = ["2001:db8:100::1", "2001:db8:200::1"];
/// Services'.
pub(super) const VIPS4: [&str; 4] = ["10.96.0.1", "10.96.0.2", "203.0.113.80", "198.51.100.80"];
pub(super) const VIPS6: [&str; 2] = ["fd00:96::1", "2001:db8:113::80"];
/// What nobody has, or what means something special.
pub(super) const ODD4: [&str; 12] = [
    "10.0.0.9",
    "10.9.0.1",
    "192.0.2.77",
    "192.0.2.254",
    "169.254.1.1",
    "169.254.42.1",
    "127.0.0.1",
    "224.0.0.5",
    "255.255.255.255",
    "0.0.0.0",
    "240.0.0.1",
    "198.18.0.2",
];
pub(super) const ODD6: [&str; 8] = [
    "fd00::9",
    "2001:db8::77",
    "2001:db8::fe",
    "fe80::1",
    "fe80::9",
    "ff02::1",
    "::1",
    "::",
];

/// An address of one of these pools.
pub(super) fn of(pools: &[&[&'static str]]) -> BoxedStrategy<IpAddr> {
    let all: Vec<IpAddr> = pools
        .iter()
        .copied()
        .flatten()
        .filter_map(|text| text.parse().ok())
        .collect();
    select(all).boxed()
}

/// The text of an address of one of these pools.
pub(super) fn text(pools: &[&[&'static str]]) -> BoxedStrategy<String> {
    of(pools).prop_map(|addr| addr.to_string()).boxed()
}

/// A destination, mostly one that something is known of.
pub(super) fn destination(v6: bool) -> BoxedStrategy<IpAddr> {
    if v6 {
        prop_oneof![
            4 => of(&[&PODS6]), 2 => of(&[&FAR6]), 1 => of(&[&NODES6]), 2 => of(&[&OWN6]), 2 => of(&[&WORLD6]),
            4 => of(&[&VIPS6]), 1 => of(&[&ODD6]),
        ]
        .boxed()
    } else {
        prop_oneof![
            4 => of(&[&PODS4]), 2 => of(&[&FAR4]), 1 => of(&[&NODES4]), 2 => of(&[&OWN4]), 2 => of(&[&WORLD4]),
            4 => of(&[&VIPS4]), 1 => of(&[&ODD4]),
        ]
        .boxed()
    }
}

/// A port that clients use: low ones, and those at the edges of what masquerading may use.
pub(super) fn client_port() -> BoxedStrategy<u16> {
    select(vec![40000, 40001, 5000, 30080, 32768, 65533, 65534, 65535, 0]).boxed()
}

/// A port that servers use.
pub(super) fn server_port() -> BoxedStrategy<u16> {
    prop_oneof![6 => select(vec![80u16, 81, 8080]), 2 => select(vec![30080u16, 30081]), 1 => select(vec![53u16, 8472, 6081, 0])].boxed()
}
