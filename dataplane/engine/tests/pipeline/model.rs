//! Plain packets against a model of a router: what the RFCs say becomes of a packet, in the fewest words. The same
//! packet with IPv4 options or a priority tag takes the slow path and must fare the same.

use std::net::IpAddr;

use octoplane_packet::HeapPool;
use octoplane_tables::model::PortId;
use proptest::prelude::*;
use proptest::sample::select;

use crate::common::bytes::{Ip4, Ip6, Mac, ip, ip4, ip6, tagged};
use crate::common::*;

/// Where packets come from: port, our address there, the sender's.
const INPUTS: [(PortId, Mac, Mac); 4] = [
    (POD0, OURS[0], EP1),
    (POD1, OURS[1], EP2),
    (UPLINK, OURS[2], ROUTER),
    (HOST, OURS[3], KERNEL),
];

const MTU: [u16; 4] = [1500, 1400, 1300, 1500];

#[derive(Debug, PartialEq)]
enum Fate {
    /// Out of a port, to a station.
    Out(PortId, Mac),
    /// To the kernel as it is.
    Kernel,
    /// For this reason; the sender is told or not.
    Dropped(u16, bool),
    Waits,
}

/// Port behind which an endpoint lives, and its Ethernet address.
fn owner(addr: IpAddr) -> Option<(PortId, Mac)> {
    [
        ("10.0.0.1", "fd00::1", POD0, EP1),
        ("10.0.0.2", "fd00::2", POD1, EP2),
        ("10.0.0.3", "fd00::3", POD1, EP3),
    ]
    .into_iter()
    .find(|(v4, v6, ..)| addr == ip(v4) || addr == ip(v6))
    .map(|(_, _, port, mac)| (port, mac))
}

fn model(from: PortId, src: IpAddr, dst: IpAddr, ttl: u8, size: usize, df: bool) -> Fate {
    let pod = from == POD0 || from == POD1;
    if pod && owner(src).is_none_or(|(port, _)| port != from) {
        return Fate::Dropped(132, false);
    }
    let kernel = |code| {
        if from == HOST {
            Fate::Dropped(code, false)
        } else {
            Fate::Kernel
        }
    };
    let within = |prefix: &str, len: u32| {
        let bits = |addr: IpAddr| match addr {
            IpAddr::V4(addr) => u128::from(addr.to_bits()) << 96,
            IpAddr::V6(addr) => addr.to_bits(),
        };
        dst.is_ipv4() == ip(prefix).is_ipv4() && (bits(dst) ^ bits(ip(prefix))) >> (128 - len) == 0
    };
    let (port, mac) = if let Some((port, mac)) = owner(dst) {
        (port, Some(mac))
    } else if [OWN4, OWN6, GATEWAY4].iter().any(|own| dst == ip(own)) {
        return kernel(151);
    } else if within("10.9.0.0", 16) || within("fd09::", 16) {
        return Fate::Dropped(151, false);
    } else if within("192.0.2.0", 24) || within("2001:db8::", 64) {
        (UPLINK, None)
    } else if within("198.51.100.0", 24) || within("2001:db8:7::", 48) {
        (UPLINK, Some(ROUTER))
    } else {
        return kernel(151);
    };
    if ttl <= 1 {
        return Fate::Dropped(196, true);
    }
    if size > usize::from(MTU[usize::from(port)]) {
        return Fate::Dropped(136, df);
    }
    match mac {
        Some(mac) => Fate::Out(port, mac),
        None => Fate::Waits,
    }
}

fn check(
    lab: &mut Lab<HeapPool>,
    from: PortId,
    frame: &[u8],
    plain: &[u8],
    fate: &Fate,
) -> Result<u64, TestCaseError> {
    let outcome = lab.one(from, frame);
    match *fate {
        Fate::Out(port, mac) => {
            prop_assert_eq!(
                &outcome.sent,
                &[(port, forwarded(plain, mac, OURS[usize::from(port)]))]
            );
            prop_assert_eq!(outcome.freed + outcome.drop_count(), 0);
        }
        Fate::Kernel => {
            prop_assert_eq!(outcome.sent.len(), 1);
            prop_assert_eq!((outcome.sent[0].0, &outcome.sent[0].1[6..]), (HOST, &plain[6..]));
            prop_assert_eq!(outcome.freed + outcome.drop_count(), 0);
        }
        Fate::Dropped(code, told) => {
            prop_assert_eq!((outcome.drops.len(), outcome.freed), (1, 1));
            prop_assert_eq!((outcome.drops[0].0, outcome.drops[0].2), (code, 1));
            prop_assert_eq!(outcome.sent.len(), usize::from(told));
            prop_assert!(outcome.sent.iter().all(|sent| sent.0 == from));
        }
        Fate::Waits => {
            prop_assert_eq!((outcome.parked, outcome.sent.len(), outcome.freed), (1, 0, 0));
            lab.engine.clear();
        }
    }
    Ok(outcome.fast)
}

fn new_lab() -> Lab<HeapPool> {
    let mut lab = Plan {
        host: true,
        default_routes: false,
        mtu: MTU,
        ..Plan::default()
    }
    .lab();
    lab.apply(vec![
        route("198.51.100.0/24", via("192.0.2.254"), None),
        route("2001:db8:7::/48", via("2001:db8::fe"), None),
        neighbour("192.0.2.254", Some(ROUTER)),
        neighbour("2001:db8::fe", Some(ROUTER)),
    ]);
    lab
}

fn ttls() -> impl Strategy<Value = u8> {
    prop_oneof![1 => 0..3u8, 4 => any::<u8>()]
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![2 => 60..200usize, 1 => select(vec![1300, 1301, 1400, 1401, 1500, 1501, 4000])]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn ipv4(
        input in 0..4usize,
        src in select(vec!["10.0.0.1", "10.0.0.2", "10.0.0.3", "198.51.100.7", "192.0.2.1"]),
        dst in select(vec![
            "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", OWN4, GATEWAY4, "10.9.3.3", "192.0.2.9",
            "198.51.100.7", "198.51.101.7",
        ]),
        (ttl, size, id, tos) in (ttls(), sizes(), any::<u16>(), any::<u8>()),
        df: bool,
        tag in prop_oneof![Just(None), (0..8u16).prop_map(|priority| Some(priority << 13))],
    ) {
        let mut lab = new_lab();
        // Pieces are looked at elsewhere (mtu.rs).
        let df = df || size > usize::from(MTU.into_iter().min().unwrap());
        let (port, ours, mac) = INPUTS[input];
        let packet = Ip4 { id, tos, ..ip4(src, dst).ttl(ttl).flags(if df { 0x4000 } else { 0 }).size(size) };
        let fate = model(port, ip(src), ip(dst), ttl, size, df);
        let frame = packet.frame(ours, mac);
        check(&mut lab, port, &frame, &frame, &fate)?;
        // The second of a connection, if it is one.
        let fast = check(&mut lab, port, &frame, &frame, &fate)?;
        let plain = matches!(fate, Fate::Out(..));
        prop_assert_eq!(fast == 1, plain, "plain packets take the fast path");
        // The same size with options instead of the payload's last bytes.
        let slow = packet.options(&[1; 8]).size(size).frame(ours, mac);
        prop_assert_eq!(check(&mut lab, port, &slow, &slow, &fate)?, 0);
        if let (Some(tci), false) = (tag, port == POD0 || port == POD1) {
            prop_assert_eq!(check(&mut lab, port, &tagged(&frame, 0x8100, tci), &frame, &fate)?, 0);
        }
    }

    #[test]
    fn ipv6(
        input in 0..4usize,
        src in select(vec!["fd00::1", "fd00::2", "fd00::3", "2001:db8:7::7", OWN6]),
        dst in select(vec![
            "fd00::1", "fd00::2", "fd00::3", "fd00::4", OWN6, "fd09::3", "2001:db8::9", "2001:db8:7::7",
            "2001:db8:8::7",
        ]),
        (ttl, size) in (ttls(), sizes()),
        next in select(vec![6u8, 17, 132, 59]),
        tag in prop_oneof![Just(None), (0..8u16).prop_map(|priority| Some(priority << 13))],
    ) {
        let mut lab = new_lab();
        let (port, ours, mac) = INPUTS[input];
        let packet = Ip6 { next, ..ip6(src, dst).ttl(ttl).size(size) };
        let fate = model(port, ip(src), ip(dst), ttl, size, true);
        let frame = packet.frame(ours, mac);
        check(&mut lab, port, &frame, &frame, &fate)?;
        let fast = check(&mut lab, port, &frame, &frame, &fate)?;
        let transit = port > POD1 && !dst.starts_with("fd00::");
        let plain = matches!(fate, Fate::Out(..)) && (transit || matches!(next, 6 | 17));
        prop_assert_eq!(fast == 1, plain, "plain packets take the fast path");
        if let (Some(tci), false) = (tag, port == POD0 || port == POD1) {
            prop_assert_eq!(check(&mut lab, port, &tagged(&frame, 0x8100, tci), &frame, &fate)?, 0);
        }
    }
}
