//! ARP: RFC 826, RFC 5227, and the specification's 1.2 step 3 and 5.4.

use octoplane_engine::NeighbourEvent;
use octoplane_packet::{HeapBuf, MacAddr};
use octoplane_tables::model::PortId;

use crate::common::bytes::{BROADCAST, Mac, arp, ethernet, ip};
use crate::common::*;

const ZERO: Mac = [0; 6];
const STATION: Mac = [2, 0, 0, 0, 1, 9];

fn request(sender: (Mac, &str), target: &str) -> Vec<u8> {
    ethernet(BROADCAST, sender.0, 0x0806, &arp(1, sender, (ZERO, target)))
}

fn heard(addr: &str, mac: Mac, addressed: bool) -> NeighbourEvent {
    NeighbourEvent::Heard {
        port: UPLINK,
        addr: ip(addr),
        mac: MacAddr(mac),
        addressed,
    }
}

/// The reply to `asker`, with our address in the frame and in the packet.
fn reply(port: PortId, asker: (Mac, &str), target: &str) -> Vec<u8> {
    let ours = OURS[usize::from(port)];
    ethernet(asker.0, ours, 0x0806, &arp(2, (ours, target), asker))
}

#[test]
fn pods_are_answered_for_whatever_they_ask() {
    let mut lab = lab();
    let asker = (EP1, "10.0.0.1");
    for target in [
        GATEWAY4,
        "10.0.0.2",
        "10.0.0.77",
        "198.51.100.7",
        OWN4,
        "10.9.0.1",
    ] {
        let outcome = lab.one(POD0, &request(asker, target));
        assert_eq!(outcome.only(), (POD0, &*reply(POD0, asker, target)));
        assert_eq!(outcome.answered, 1);
        assert!(outcome.events.is_empty(), "nothing is learned from pods");
    }
    // Asked of our address alone, and in a padded frame: RFC 826 leaves what is behind the packet alone.
    let mut frame = ethernet(OURS[0], EP1, 0x0806, &arp(1, asker, (ZERO, GATEWAY4)));
    frame.resize(60, 0);
    let outcome = lab.one(POD0, &frame);
    let (port, sent) = outcome.only();
    assert_eq!((port, &sent[..42]), (POD0, &*reply(POD0, asker, GATEWAY4)));
}

#[test]
fn a_pods_own_addresses_are_never_answered() {
    let mut lab = lab();
    // Probe (RFC 5227), announcement, and announcement as a reply.
    lab.one(POD0, &request((EP1, "0.0.0.0"), "10.0.0.1")).silent();
    lab.one(POD0, &request((EP1, "10.0.0.1"), "10.0.0.1")).silent();
    let announcement = arp(2, (EP1, "10.0.0.1"), (EP1, "10.0.0.1"));
    lab.one(POD0, &ethernet(BROADCAST, EP1, 0x0806, &announcement))
        .silent();
    // Both endpoints of one port are on the same side of it.
    lab.one(POD1, &request((EP2, "10.0.0.2"), "10.0.0.3")).silent();
    // Somebody else's address is in use: the probe is answered.
    let outcome = lab.one(POD0, &request((EP1, "0.0.0.0"), "10.0.0.2"));
    assert_eq!(outcome.only().1, reply(POD0, (EP1, "0.0.0.0"), "10.0.0.2"));
}

#[test]
fn replies_from_pods_end_here() {
    let mut lab = lab_with_host();
    let frame = ethernet(
        OURS[0],
        EP1,
        0x0806,
        &arp(2, (EP1, "10.0.0.1"), (OURS[0], GATEWAY4)),
    );
    lab.one(POD0, &frame).silent();
}

#[test]
fn what_is_not_ipv4_over_ethernet() {
    let mut lab = lab();
    let good = request((EP1, "10.0.0.1"), GATEWAY4);
    lab.one(POD0, &good).only();
    // Hardware, protocol and their lengths.
    for at in 14..20 {
        for value in [0xff, 0x12, 0] {
            let mut frame = good.clone();
            if frame[at] == value {
                continue;
            }
            frame[at] = value;
            assert_eq!(lab.one(POD0, &frame).dropped(), 134, "byte {at}");
        }
    }
    // No station has such an address.
    for mac in [ZERO, BROADCAST, [1, 0, 0x5e, 0, 0, 1]] {
        let packet = arp(1, (mac, "10.0.0.1"), (ZERO, GATEWAY4));
        let frame = ethernet(BROADCAST, EP1, 0x0806, &packet);
        assert_eq!(lab.one(POD0, &frame).dropped(), 134);
    }
    // An unknown operation is no error, and no question.
    for operation in [0, 3, 4, 8, 0x0100, 0xffff] {
        let packet = arp(operation, (EP1, "10.0.0.1"), (ZERO, GATEWAY4));
        lab.one(POD0, &ethernet(BROADCAST, EP1, 0x0806, &packet)).silent();
    }
}

#[test]
fn uplinks_answer_for_their_own_addresses() {
    let mut lab = lab_with_host();
    let asker = (STATION, "192.0.2.9");
    let outcome = lab.one(UPLINK, &request(asker, OWN4));
    assert_eq!(outcome.only(), (UPLINK, &*reply(UPLINK, asker, OWN4)));
    assert_eq!(outcome.events, [heard("192.0.2.9", STATION, true)]);
    // Not for the gateway that pods see, nor for pods, nor for anybody else.
    for target in [GATEWAY4, "10.0.0.1", "192.0.2.33", "198.51.100.1"] {
        let outcome = lab.one(UPLINK, &request(asker, target));
        outcome.silent();
        assert_eq!(outcome.events, [heard("192.0.2.9", STATION, false)]);
    }
    // A probe for our address is defended; its sender has no address to learn.
    let outcome = lab.one(UPLINK, &request((STATION, "0.0.0.0"), OWN4));
    assert_eq!(outcome.only().1, reply(UPLINK, (STATION, "0.0.0.0"), OWN4));
    assert_eq!(outcome.events, []);
}

#[test]
fn uplinks_learn_from_replies_and_announcements() {
    let mut lab = lab();
    let answer = arp(2, (STATION, "192.0.2.9"), (OURS[2], OWN4));
    let outcome = lab.one(UPLINK, &ethernet(OURS[2], STATION, 0x0806, &answer));
    outcome.silent();
    assert_eq!(outcome.events, [heard("192.0.2.9", STATION, true)]);
    for operation in [1, 2] {
        let moved = arp(operation, (STATION, "192.0.2.9"), (ZERO, "192.0.2.9"));
        let outcome = lab.one(UPLINK, &ethernet(BROADCAST, STATION, 0x0806, &moved));
        outcome.silent();
        assert_eq!(outcome.events, [heard("192.0.2.9", STATION, false)]);
    }
    // Another station's frame, seen by a device that receives everything.
    let frame = ethernet([2, 0, 0, 0, 9, 9], STATION, 0x0806, &answer);
    let outcome = lab.one(UPLINK, &frame);
    assert_eq!(outcome.dropped(), 1001);
    assert_eq!(outcome.events, []);
}

#[test]
fn more_news_than_fit_are_lost_without_harm() {
    let mut lab = lab();
    let frames: Vec<_> = (0..64u8)
        .map(|n| request(([2, 0, 0, 0, 3, n], &format!("192.0.2.{}", n + 100)), OWN4))
        .collect();
    for _ in 0..2 {
        let mut burst = frames.iter().map(|frame| HeapBuf::new(frame)).collect();
        lab.engine.process(lab.now, UPLINK, &mut burst, &mut lab.out);
    }
    assert_eq!(lab.out.queue(UPLINK).unwrap().len(), 128, "all are answered");
    assert_eq!(lab.engine.events().count(), 64);
}

#[test]
fn the_kernel_is_answered_for_everything_but_its_own() {
    let mut lab = lab_with_host();
    let asker = (KERNEL, "192.0.2.1");
    for target in ["10.0.0.1", GATEWAY4, "192.0.2.254", "198.51.100.7"] {
        let outcome = lab.one(HOST, &request(asker, target));
        assert_eq!(outcome.only(), (HOST, &*reply(HOST, asker, target)));
        assert_eq!(outcome.events, []);
    }
    lab.one(HOST, &request(asker, "192.0.2.1")).silent();
    // When the kernel probes for an address that it is to get (RFC 5227), an answer would take it away.
    for target in ["192.0.2.1", "192.0.2.77"] {
        lab.one(HOST, &request((KERNEL, "0.0.0.0"), target)).silent();
    }
    for taken in ["10.0.0.1", GATEWAY4] {
        let probe = (KERNEL, "0.0.0.0");
        let outcome = lab.one(HOST, &request(probe, taken));
        assert_eq!(outcome.only(), (HOST, &*reply(HOST, probe, taken)));
    }
}
