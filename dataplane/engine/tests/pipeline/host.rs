//! The exception path: packets for the kernel, and from it.

use octoplane_engine::EngineConfig;
use octoplane_tables::model::RouteTarget;

use crate::common::bytes::{icmp4, ip4, ip6, tagged};
use crate::common::*;

/// The frame as the kernel gets it: only the destination address may differ.
fn for_kernel(frame: &[u8], mac: [u8; 6]) -> Vec<u8> {
    [&mac, &frame[6..]].concat()
}

#[test]
fn unknown_destinations_go_to_the_kernel_unchanged() {
    let mut lab = lab_with_host();
    let frames = [
        (POD0, ip4("10.0.0.1", "198.51.100.7").frame(OURS[0], EP1)),
        (POD0, ip4("10.0.0.1", "198.51.100.7").ttl(1).frame(OURS[0], EP1)),
        (
            POD0,
            ip4("10.0.0.1", "198.51.100.7")
                .options(&[1; 4])
                .frame(OURS[0], EP1),
        ),
        (POD0, ip6("fd00::1", "2001:db8:7::7").frame(OURS[0], EP1)),
        (UPLINK, ip4("203.0.113.1", "10.77.0.1").frame(OURS[2], ROUTER)),
    ];
    for (port, frame) in &frames {
        // Before its address is known the port's own stands for the kernel.
        let outcome = lab.one(*port, frame);
        assert_eq!(outcome.only(), (HOST, &*for_kernel(frame, OURS[3])));
        assert_eq!(outcome.punted, 1);
    }
    // The kernel says something, and is known from then on.
    let said = ip4("192.0.2.1", "10.0.0.1").frame(OURS[3], KERNEL);
    lab.one(HOST, &said).only();
    for (port, frame) in &frames {
        assert_eq!(lab.one(*port, frame).only(), (HOST, &*for_kernel(frame, KERNEL)));
    }
}

#[test]
fn what_is_no_station_is_not_learned_as_the_kernel() {
    let mut lab = lab_with_host();
    let frame = ip4("10.0.0.1", "198.51.100.7").frame(OURS[0], EP1);
    for mac in [[0; 6], [0xff; 6], [1, 0, 0, 0, 0, 1]] {
        lab.one(HOST, &ip4("192.0.2.1", "10.0.0.1").frame(OURS[3], mac));
        assert_eq!(lab.one(POD0, &frame).only().1[..6], OURS[3]);
    }
}

#[test]
fn without_a_host_port_they_are_dropped() {
    let mut lab = Plan {
        default_routes: false,
        ..Plan::default()
    }
    .lab();
    for (code, frame) in [
        (151, ip4("10.0.0.1", "198.51.100.7").frame(OURS[0], EP1)),
        (151, ip6("fd00::1", "2001:db8:7::7").frame(OURS[0], EP1)),
        (164, ip4("10.0.0.1", OWN4).frame(OURS[0], EP1)),
        (164, ip6("fd00::1", OWN6).frame(OURS[0], EP1)),
        (164, ip4("10.0.0.1", GATEWAY4).frame(OURS[0], EP1)),
        (164, ip6("fd00::1", GATEWAY6).frame(OURS[0], EP1)),
    ] {
        assert_eq!(lab.one(POD0, &frame).dropped(), code);
    }
}

#[test]
fn our_addresses_are_the_kernels() {
    let mut lab = lab_with_host();
    let ping = icmp4(8, 0, [0; 4], &[]);
    for frame in [
        ip4("10.0.0.1", OWN4).frame(OURS[0], EP1),
        ip6("fd00::1", OWN6).frame(OURS[0], EP1),
        // Pings of them as well: the kernel knows better whether it is alive.
        ip4("10.0.0.1", OWN4).payload(1, ping).frame(OURS[0], EP1),
        // Of the gateway, all but pings.
        ip4("10.0.0.1", GATEWAY4).frame(OURS[0], EP1),
        ip6("fd00::1", GATEWAY6).frame(OURS[0], EP1),
    ] {
        assert_eq!(
            lab.one(POD0, &frame).only(),
            (HOST, &*for_kernel(&frame, OURS[3]))
        );
    }
    let frame = ip4("198.51.100.7", OWN4).frame(OURS[2], ROUTER);
    let want = for_kernel(&frame, OURS[3]);
    assert_eq!(lab.one(UPLINK, &frame).only(), (HOST, &*want));
    // A priority tag is gone by then, as in all other ways.
    assert_eq!(lab.one(UPLINK, &tagged(&frame, 0x8100, 0)).only(), (HOST, &*want));
}

#[test]
fn host_routes_lead_to_the_kernel() {
    let mut lab = lab_with_host();
    lab.apply(vec![route("203.0.113.0/24", RouteTarget::Host, None)]);
    let frame = ip4("10.0.0.1", "203.0.113.9").frame(OURS[0], EP1);
    assert_eq!(
        lab.one(POD0, &frame).only(),
        (HOST, &*for_kernel(&frame, OURS[3]))
    );
    // Not back to it.
    let frame = ip4("192.0.2.1", "203.0.113.9").frame(OURS[3], KERNEL);
    assert_eq!(lab.one(HOST, &frame).dropped(), 151);
}

#[test]
fn packets_to_many_are_the_kernels() {
    let mut lab = lab_with_host();
    for (port, frame) in [
        (
            POD0,
            ip4("10.0.0.1", "224.0.0.251").frame([1, 0, 0x5e, 0, 0, 0xfb], EP1),
        ),
        (
            POD0,
            ip6("fd00::1", "ff02::fb").frame([0x33, 0x33, 0, 0, 0, 0xfb], EP1),
        ),
        (
            UPLINK,
            ip4("192.0.2.9", "255.255.255.255").frame([0xff; 6], ROUTER),
        ),
        (
            UPLINK,
            ip4("192.0.2.9", "224.0.0.5").frame([1, 0, 0x5e, 0, 0, 5], ROUTER),
        ),
        // A station without an address asks for one (RFC 2131).
        (UPLINK, ip4("0.0.0.0", "255.255.255.255").frame([0xff; 6], ROUTER)),
        // Routing protocols between routers of a link.
        (
            UPLINK,
            ip6("fe80::9", "ff02::5")
                .ttl(1)
                .frame([0x33, 0x33, 0, 0, 0, 5], ROUTER),
        ),
    ] {
        // Group addresses stay: the kernel must see that it was sent to many.
        assert_eq!(lab.one(port, &frame).only(), (HOST, &*frame));
    }
    // From the kernel they end here.
    for frame in [
        ip4("192.0.2.1", "224.0.0.22").frame([1, 0, 0x5e, 0, 0, 0x16], KERNEL),
        ip6("fe80::9", "ff02::16").frame([0x33, 0x33, 0, 0, 0, 0x16], KERNEL),
        ip6("::", "ff02::16").frame([0x33, 0x33, 0, 0, 0, 0x16], KERNEL),
    ] {
        lab.one(HOST, &frame).silent();
    }
}

#[test]
fn the_kernel_reaches_pods_and_the_network() {
    let mut lab = Plan {
        host: true,
        ..Plan::default()
    }
    .lab();
    for (frame, port, mac) in [
        (ip4(OWN4, "10.0.0.1").frame(OURS[3], KERNEL), POD0, EP1),
        (ip6(OWN6, "fd00::2").frame(OURS[3], KERNEL), POD1, EP2),
        (ip4(OWN4, "198.51.100.7").frame(OURS[3], KERNEL), UPLINK, ROUTER),
        (ip6(OWN6, "2001:db8:7::7").frame(OURS[3], KERNEL), UPLINK, ROUTER),
    ] {
        let want = forwarded(&frame, mac, OURS[usize::from(port)]);
        assert_eq!(lab.one(HOST, &frame).only(), (port, &*want));
    }
}

#[test]
fn the_kernels_unknown_destinations_do_not_come_back_to_it() {
    let mut lab = lab_with_host();
    for frame in [
        ip4(OWN4, "198.51.100.7").frame(OURS[3], KERNEL),
        ip6(OWN6, "2001:db8:7::7").frame(OURS[3], KERNEL),
        ip4(OWN4, OWN4).frame(OURS[3], KERNEL),
        ip4(OWN4, GATEWAY4).frame(OURS[3], KERNEL),
    ] {
        let outcome = lab.one(HOST, &frame);
        assert_eq!(outcome.dropped(), 151);
        assert_eq!(outcome.drops[0].1, octoplane_engine::Direction::Ingress);
    }
}

#[test]
fn a_flood_for_the_kernel_is_limited() {
    let mut lab = Plan {
        host: true,
        default_routes: false,
        config: EngineConfig {
            exceptions: (100, 10),
            ..EngineConfig::default()
        },
        ..Plan::default()
    }
    .lab();
    let frame = ip4("10.0.0.1", "198.51.100.7").frame(OURS[0], EP1);
    let outcome = lab.burst(POD0, &[&frame; 60]);
    assert_eq!((outcome.sent.len(), outcome.freed, outcome.punted), (10, 50, 10));
    assert_eq!(outcome.drops, [(198, octoplane_engine::Direction::Egress, 50)]);
    // Forwarding goes on.
    lab.one(POD0, &ip4("10.0.0.1", "10.0.0.2").frame(OURS[0], EP1))
        .only();
    lab.now += SECOND / 20;
    assert_eq!(lab.burst(POD0, &[&frame; 60]).sent.len(), 5);
}

#[test]
fn a_host_port_that_is_down() {
    let mut lab = lab_with_host();
    lab.apply(vec![admin(HOST, false)]);
    let frame = ip4("10.0.0.1", "198.51.100.7").frame(OURS[0], EP1);
    assert_eq!(lab.one(POD0, &frame).dropped(), 206);
}
