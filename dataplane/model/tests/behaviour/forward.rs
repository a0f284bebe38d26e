//! Forwarding without state: RFC 1812, RFC 8200, specification 1.2, 1.4, 5.3.

use serde_json::json;

use crate::bytes::*;
use crate::lab::*;

#[test]
fn pods_reach_each_other_and_the_world() {
    let mut lab = Lab::new(json!({}));
    for (dst, port, mac) in [
        ("10.0.0.2", "pod2", EP2),
        ("198.51.100.7", "uplink", ROUTER),
        ("192.0.2.254", "uplink", ROUTER),
    ] {
        let outcome = lab.send("pod1", &packet("10.0.0.1", dst, udp(1000, 53)));
        let (out, seen) = only(&outcome);
        assert_eq!((out.as_str(), seen.ttl), (port, 63));
        assert_eq!(outcome.sent[0].1[..12], [mac, OURS].concat());
    }
    let (port, seen) = lab.through("uplink", &packet("2001:db8:7::7", "fd00::2", tcp(5, 6, SYN)));
    assert_eq!((port.as_str(), seen.ttl), ("pod2", 63));
}

#[test]
fn drops() {
    let mut lab = Lab::new(json!({}));
    for (port, src, dst, code) in [
        ("pod1", "10.0.0.2", "10.0.0.1", 132),
        ("pod1", "fd00::9", "fd00::2", 132),
        ("pod1", "10.0.0.1", "10.9.0.1", 151),
        ("pod1", "10.0.0.1", "127.0.0.1", 151),
        ("uplink", "127.0.0.1", "10.0.0.1", 134),
        ("uplink", "ff02::1", "fd00::1", 134),
        ("host", "192.0.2.1", "192.0.2.1", 151),
    ] {
        assert_eq!(
            lab.dropped(port, &packet(src, dst, udp(1, 2))),
            code,
            "{src} {dst}"
        );
    }
    let mut bad = packet("10.0.0.1", "10.0.0.2", udp(1, 2));
    bad[10] ^= 1;
    let frame = ethernet(OURS, EP1, &bad);
    assert_eq!(lab.model.receive("pod1", &frame).drops[0].0, 153);
    let mut foreign = ethernet(OURS, ROUTER, &packet("198.51.100.7", "10.0.0.1", udp(1, 2)));
    foreign[5] ^= 1;
    assert_eq!(lab.model.receive("uplink", &foreign).drops[0].0, 1001);
    let outcome = lab.send("pod1", &packet("10.0.0.1", "192.0.2.77", udp(1, 2)));
    assert_eq!(outcome.waits, [("uplink".to_owned(), ip("192.0.2.77"))]);
}

#[test]
fn ttl_and_mtu_errors() {
    let mut lab = Lab::new(json!({}));
    let mut old = packet("10.0.0.1", "198.51.100.7", udp(1, 2));
    patch4(&mut old, 8, &[1]);
    let outcome = lab.send("pod1", &old);
    assert_eq!(outcome.drops[0].0, 196);
    let seen = dissect(&outcome.sent[0].1[14..]);
    assert_eq!((seen.src.as_str(), seen.payload[0]), ("10.0.0.254", 11));
    assert_eq!(seen.payload[8..], old);
    let big = Segment(17, vec![0; 1500], None);
    let outcome = lab.send("pod1", &packet("10.0.0.1", "198.51.100.7", big.clone()));
    let seen = dissect(&outcome.sent[0].1[14..]);
    assert_eq!(
        (outcome.drops[0].0, seen.payload[..2].to_vec()),
        (136, vec![3, 4])
    );
    assert_eq!(be16(&seen.payload, 6), 1500);
    let outcome = lab.send("uplink", &packet("2001:db8:7::7", "fd00::1", big));
    let seen = dissect(&outcome.sent[0].1[14..]);
    assert_eq!((seen.src.as_str(), seen.payload[0]), ("2001:db8::1", 2));
}

#[test]
fn the_gateway_answers_pings_and_the_kernel_gets_the_rest() {
    let mut lab = Lab::new(json!({}));
    for (src, gateway, request, reply) in [
        ("10.0.0.1", "10.0.0.254", 8, 0),
        ("fd00::1", "fd00::fe", 128, 129),
    ] {
        let (port, seen) = lab.through("pod1", &packet(src, gateway, icmp(request, 0, 7 << 16, b"hello")));
        assert_eq!((port.as_str(), seen.payload[0]), ("pod1", reply));
        let outcome = lab.send("pod1", &packet(src, gateway, udp(7, 53)));
        assert_eq!((outcome.sent[0].0.as_str(), outcome.punts.len()), ("host", 1));
        assert_eq!(outcome.punts[0].identity, 1001);
    }
}

#[test]
fn arp_and_neighbour_discovery() {
    let mut lab = Lab::new(json!({}));
    let mut arp = [&[0xff; 6][..], &EP1, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &EP1].concat();
    arp.extend(raw("10.0.0.1"));
    arp.extend([0; 6]);
    arp.extend(raw("10.0.0.77"));
    let outcome = lab.model.receive("pod1", &arp);
    let reply = &outcome.sent[0].1;
    assert_eq!(reply[..12], [EP1, OURS].concat());
    assert_eq!(
        (reply[21], &reply[22..28], &reply[28..32]),
        (2, &OURS[..], &raw("10.0.0.77")[..])
    );
    arp[38..42].copy_from_slice(&raw("10.0.0.1"));
    assert_eq!(lab.model.receive("pod1", &arp).consumed, 1);
    let mut question = raw("fd00::fe");
    question.extend([1, 1]);
    question.extend(EP1);
    let mut ask = packet("fd00::1", "ff02::1:ff00:fe", icmp(135, 0, 0, &question));
    ask[7] = 255;
    let outcome = lab.send("pod1", &ask);
    let seen = dissect(&outcome.sent[0].1[14..]);
    assert_eq!((seen.payload[0], seen.payload[4]), (136, 0xc0));
    assert_eq!(seen.payload[26..32], OURS);
}
