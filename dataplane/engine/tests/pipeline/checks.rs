//! What is checked before a packet goes anywhere.

use octoplane_engine::Direction;

use crate::common::bytes::{BROADCAST, arp, be16, ethernet, internet_checksum, ip4, ip6, put16, tagged, udp};
use crate::common::*;

#[test]
fn a_pod_sends_from_its_own_addresses_only() {
    let mut lab = lab();
    for src in [
        "10.0.0.2",
        "10.0.0.9",
        "198.51.100.7",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        GATEWAY4,
        OWN4,
    ] {
        let packet = ip4(src, "10.0.0.3");
        for packet in [packet.clone(), packet.options(&[1; 4])] {
            let outcome = lab.one(POD0, &packet.frame(OURS[0], EP1));
            assert_eq!(outcome.dropped(), 132, "{src}");
            assert_eq!(outcome.drops[0].1, Direction::Egress);
        }
    }
    for src in ["fd00::2", "fd00::9", "2001:db8:7::7", "::", "::1", OWN6] {
        let outcome = lab.one(POD0, &ip6(src, "fd00::3").frame(OURS[0], EP1));
        assert_eq!(outcome.dropped(), 132, "{src}");
    }
    // The right address on the wrong port; each port has its own.
    assert_eq!(
        lab.one(POD1, &ip4("10.0.0.1", "10.0.0.3").frame(OURS[1], EP2))
            .dropped(),
        132
    );
    for src in ["10.0.0.2", "10.0.0.3"] {
        lab.one(POD1, &ip4(src, "10.0.0.1").frame(OURS[1], EP2)).only();
    }
}

/// The order of the checks is part of the contract (specification, section 9): source before destination and TTL.
#[test]
fn the_source_is_checked_before_what_comes_later() {
    let mut lab = lab();
    for dst in ["10.9.0.1", GATEWAY4, "224.0.0.1", "10.0.0.2"] {
        let frame = ip4("10.0.0.9", dst).ttl(1).frame(OURS[0], EP1);
        assert_eq!(lab.one(POD0, &frame).dropped(), 132, "{dst}");
    }
    for dst in ["fd09::1", GATEWAY6, "ff02::2", "fd00::2"] {
        let frame = ip6("fd00::9", dst).ttl(1).frame(OURS[0], EP1);
        assert_eq!(lab.one(POD0, &frame).dropped(), 132, "{dst}");
    }
}

#[test]
fn truncated_at_every_length() {
    let mut lab = lab();
    let v4 = ip4("10.0.0.1", "10.0.0.2").frame(OURS[0], EP1);
    let options = ip4("10.0.0.1", "10.0.0.2").options(&[1; 40]).frame(OURS[0], EP1);
    let v6 = ip6("fd00::1", "fd00::2").frame(OURS[0], EP1);
    let question = ethernet(
        BROADCAST,
        EP1,
        0x0806,
        &arp(1, (EP1, "10.0.0.1"), ([0; 6], GATEWAY4)),
    );
    for frame in [v4, options, v6, question] {
        for len in 0..frame.len() {
            let outcome = lab.one(POD0, &frame[..len]);
            assert_eq!(outcome.dropped(), 134, "{len} bytes of {frame:02x?}");
            assert_eq!(outcome.drop_bytes, len as u64);
        }
        lab.one(POD0, &frame).only();
    }
    // On the uplink the same, tags included.
    let frame = tagged(&ip4("198.51.100.7", "10.0.0.1").frame(OURS[2], ROUTER), 0x8100, 0);
    for len in 0..frame.len() {
        assert_eq!(lab.one(UPLINK, &frame[..len]).dropped(), 134, "{len}");
    }
}

#[test]
fn headers_that_contradict_themselves() {
    let mut lab = lab();
    let good = ip4("10.0.0.1", "10.0.0.2").frame(OURS[0], EP1);
    let mut changed = |at: usize, value: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + value.len()].copy_from_slice(value);
        frame[24..26].fill(0);
        // Right for as long a header as it claims, so that nothing else is wrong.
        let claimed = (usize::from(frame[14] & 15) * 4).clamp(20, frame.len() - 14);
        let sum = internet_checksum(&frame[14..14 + claimed]);
        put16(&mut frame, 24, sum);
        lab.one(POD0, &frame).dropped()
    };
    for version in (0..16).filter(|version| *version != 4) {
        assert_eq!(changed(14, &[version << 4 | 5]), 134, "version {version}");
    }
    for ihl in 0..5 {
        assert_eq!(changed(14, &[0x40 | ihl]), 134, "header length {ihl}");
    }
    // 52 bytes: a header of 56 or more does not fit.
    for ihl in 14..16 {
        assert_eq!(changed(14, &[0x40 | ihl]), 134, "header length {ihl}");
    }
    for total in [0u16, 1, 19, 53, 54, 1500, 65535] {
        assert_eq!(changed(16, &total.to_be_bytes()), 134, "total length {total}");
    }
    let good = ip6("fd00::1", "fd00::2").frame(OURS[0], EP1);
    for version in (0..16u8).filter(|version| *version != 6) {
        let mut frame = good.clone();
        frame[14] = version << 4 | frame[14] & 15;
        assert_eq!(lab.one(POD0, &frame).dropped(), 134, "version {version}");
    }
    for payload in [33u16, 1500, 65495, 65496, 65535] {
        let mut frame = good.clone();
        put16(&mut frame, 18, payload);
        assert_eq!(lab.one(POD0, &frame).dropped(), 134, "payload length {payload}");
    }
}

#[test]
fn short_packets_in_padded_frames_pass() {
    let mut lab = lab();
    for mut frame in [
        ip4("10.0.0.1", "10.0.0.2")
            .payload(253, Vec::new())
            .frame(OURS[0], EP1),
        ip4("10.0.0.1", "10.0.0.2")
            .payload(17, udp(9))
            .options(&[1; 4])
            .frame(OURS[0], EP1),
        ip6("fd00::1", "fd00::2")
            .payload(59, Vec::new())
            .frame(OURS[0], EP1),
    ] {
        let want = forwarded(&frame, EP2, OURS[1]);
        frame.resize(frame.len().max(60), 0);
        let outcome = lab.one(POD0, &frame);
        assert_eq!(outcome.only().1[..want.len()], want);
    }
}

#[test]
fn a_wrong_header_checksum() {
    let mut lab = lab();
    for options in [0, 4, 40] {
        let good = ip4("10.0.0.1", "10.0.0.2")
            .options(&vec![1; options])
            .frame(OURS[0], EP1);
        for bit in 0..16 {
            let mut frame = good.clone();
            let sum = be16(&frame, 24) ^ 1 << bit;
            put16(&mut frame, 24, sum);
            assert_eq!(lab.one(POD0, &frame).dropped(), 153, "bit {bit}");
        }
        lab.one(POD0, &good).only();
    }
    // It is the first thing to be checked once the lengths are right: the source below is not the pod's.
    let mut frame = ip4("10.0.0.9", "10.0.0.2").frame(OURS[0], EP1);
    frame[24] ^= 1;
    assert_eq!(lab.one(POD0, &frame).dropped(), 153);
}

#[test]
fn vlan_tags() {
    let mut lab = lab();
    let from_pod = ip4("10.0.0.1", "10.0.0.2").frame(OURS[0], EP1);
    let from_network = ip4("198.51.100.7", "10.0.0.1").frame(OURS[2], ROUTER);
    for tpid in [0x8100, 0x88a8] {
        for id in [0, 1, 100, 4094, 4095] {
            let frame = tagged(&from_pod, tpid, id);
            assert_eq!(lab.one(POD0, &frame).dropped(), 139, "from a pod, {id}");
            let outcome = lab.one(UPLINK, &tagged(&from_network, tpid, 0x2000 | id));
            if id == 0 {
                outcome.only();
            } else {
                assert_eq!(outcome.dropped(), 182, "on the uplink, {id}");
                assert_eq!(outcome.drops[0].1, Direction::Ingress);
            }
        }
        // Two tags: the second counts.
        let two = tagged(&tagged(&from_network, 0x8100, 7), tpid, 0);
        assert_eq!(lab.one(UPLINK, &two).dropped(), 182);
        // The filter comes first, before anyone looks inside.
        let mut broken = tagged(&from_network, tpid, 7);
        broken[18] = 0x99;
        assert_eq!(lab.one(UPLINK, &broken).dropped(), 182);
    }
}

/// What each EtherType from a pod and from the network becomes, without a host port.
#[test]
fn every_ethertype() {
    let mut lab = lab();
    let body = ip4("10.0.0.1", "10.0.0.2").bytes();
    for ethertype in 0..=0xffff {
        let outcome = lab.one(POD0, &ethernet(OURS[0], EP1, ethertype, &body));
        match ethertype {
            0x0800 => drop(outcome.only()),
            // IPv4 bytes are no good ARP or IPv6.
            0x0806 | 0x86dd => assert_eq!(outcome.dropped(), 134),
            0..0x0600 => assert_eq!(outcome.dropped(), 166, "{ethertype:#x}"),
            _ => assert_eq!(outcome.dropped(), 139, "{ethertype:#x}"),
        }
        let outcome = lab.one(UPLINK, &ethernet(OURS[2], ROUTER, ethertype, &body));
        match ethertype {
            0x0800 => drop(outcome.only()),
            0x0806 | 0x86dd => assert_eq!(outcome.dropped(), 134),
            // The body's first bytes, 0x4500, are tag 0x500.
            0x8100 | 0x88a8 => assert_eq!(outcome.dropped(), 182),
            0..0x0600 => assert_eq!(outcome.dropped(), 166, "{ethertype:#x}"),
            _ => assert_eq!(outcome.dropped(), 139, "{ethertype:#x}"),
        }
    }
}

/// Other protocols on the uplink are the kernel's (specification, 1.5 step 2).
#[test]
fn other_ethertypes_on_the_uplink_go_to_the_host() {
    let mut lab = lab_with_host();
    for ethertype in [0x0026, 0x0600, 0x0842, 0x8847, 0x88cc, 0xffff] {
        for dst in [OURS[2], [1, 0x80, 0xc2, 0, 0, 0x0e]] {
            let frame = ethernet(dst, ROUTER, ethertype, &[0; 46]);
            let outcome = lab.one(UPLINK, &frame);
            let (port, sent) = outcome.only();
            assert_eq!((port, &sent[6..]), (HOST, &frame[6..]));
        }
        let frame = ethernet(OURS[0], EP1, ethertype, &[0; 46]);
        let code = if ethertype < 0x0600 { 166 } else { 139 };
        assert_eq!(lab.one(POD0, &frame).dropped(), code, "not a pod's");
    }
}

#[test]
fn frames_for_other_stations() {
    let mut lab = lab_with_host();
    for dst in [[2, 0, 0, 0, 0xff, 9], EP1, ROUTER, [0; 6], OURS[0]] {
        for frame in [
            ip4("198.51.100.7", "10.0.0.1").frame(dst, ROUTER),
            ip6("2001:db8:7::7", "fd00::1").frame(dst, ROUTER),
            ip4("198.51.100.7", "10.0.0.1")
                .options(&[1; 4])
                .frame(dst, ROUTER),
            ethernet(dst, ROUTER, 0x88cc, &[0; 46]),
        ] {
            assert_eq!(lab.one(UPLINK, &frame).dropped(), 1001);
            assert_eq!(lab.one(HOST, &frame).dropped(), 1001);
        }
    }
    // A pod's frames are for us whatever address is on them: there is nobody else on its link.
    let frame = ip4("10.0.0.1", "10.0.0.2").frame([2, 9, 9, 9, 9, 9], EP1);
    assert_eq!(lab.one(POD0, &frame).only().0, POD1);
}

#[test]
fn jumbo_frames_pass_where_the_mtu_allows() {
    let mut lab = Plan {
        mtu: [9216; 4],
        ..Plan::default()
    }
    .lab();
    for frame in [
        ip4("10.0.0.1", "10.0.0.2").size(9216).frame(OURS[0], EP1),
        ip6("fd00::1", "fd00::2").size(9216).frame(OURS[0], EP1),
    ] {
        let outcome = lab.one(POD0, &frame);
        assert_eq!(outcome.only(), (POD1, &*forwarded(&frame, EP2, OURS[1])));
    }
}
