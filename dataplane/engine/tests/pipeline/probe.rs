//! Questions for neighbours: RFC 826 and RFC 4861, section 7.2.2.

use octoplane_engine::probe::question;
use octoplane_packet::MacAddr;

use crate::common::bytes::{BROADCAST, arp, be16, ethernet, icmp6_checksum, ip, lla, solicited_node, v6};
use crate::common::{OURS, OWN4, OWN6, ROUTER};

#[test]
fn arp_requests() {
    for (known, dst) in [(None, BROADCAST), (Some(MacAddr(ROUTER)), ROUTER)] {
        let frame = question(MacAddr(OURS[2]), ip(OWN4), ip("192.0.2.254"), known).unwrap();
        let want = arp(1, (OURS[2], OWN4), ([0; 6], "192.0.2.254"));
        assert_eq!(frame, ethernet(dst, OURS[2], 0x0806, &want));
    }
}

#[test]
fn neighbour_solicitations() {
    let target = "2001:db8::12:3456";
    let (group, group_mac) = solicited_node(target);
    for (known, to, mac) in [
        (None, group, group_mac),
        (Some(MacAddr(ROUTER)), v6(target), ROUTER),
    ] {
        let frame = question(MacAddr(OURS[2]), ip(OWN6), ip(target), known).unwrap();
        assert_eq!(frame[..14], ethernet(mac, OURS[2], 0x86dd, &[]));
        let packet = &frame[14..];
        assert_eq!(packet[0] >> 4, 6);
        assert_eq!((be16(packet, 4), packet[6], packet[7]), (32, 58, 255));
        assert_eq!(
            (&packet[8..24], &packet[24..40]),
            (&v6(OWN6).octets()[..], &to.octets()[..])
        );
        let message = &packet[40..];
        assert_eq!(icmp6_checksum(v6(OWN6), to, message), 0);
        assert_eq!((&message[..2], &message[4..8]), (&[135, 0][..], &[0; 4][..]));
        assert_eq!(
            message[8..],
            [&v6(target).octets()[..], &lla(1, OURS[2])].concat()
        );
    }
}

#[test]
fn families_do_not_mix() {
    assert_eq!(question(MacAddr(OURS[2]), ip(OWN4), ip("fe80::1"), None), None);
    assert_eq!(question(MacAddr(OURS[2]), ip(OWN6), ip("192.0.2.9"), None), None);
}
