//! Questions for Ethernet addresses: ARP (RFC 826) and neighbour solicitations (RFC 4861).

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::select;

use super::frame::{ICMP6, Ip, Mac, ethernet, fix_upper, octets, packet};
use crate::setup::Setup;

/// A question, or an answer to one that nobody asked.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) port: &'static str,
    from: IpAddr,
    target: IpAddr,
    answer: bool,
    to_all: bool,
    with_option: bool,
}

pub(crate) fn question(kernel: bool) -> impl Strategy<Value = Question> {
    let parse = |texts: &[&str]| {
        let all: Vec<IpAddr> = texts.iter().filter_map(|text| text.parse().ok()).collect();
        select(all)
    };
    let four = [
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.9",
        "169.254.1.1",
        "192.0.2.1",
        "192.0.2.254",
        "0.0.0.0",
        "10.96.0.1",
    ];
    let six = [
        "fd00::1",
        "fd00::2",
        "fd00::9",
        "fe80::1",
        "fe80::7",
        "2001:db8::1",
        "2001:db8::fe",
        "::",
    ];
    let ports = if kernel {
        vec!["pod1", "pod2", "up0", "host"]
    } else {
        vec!["pod1", "pod2", "up0"]
    };
    let ends = prop_oneof![(parse(&four), parse(&four)), (parse(&six), parse(&six))];
    (
        select(ports),
        ends,
        proptest::bool::weighted(0.3),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(port, (from, target), answer, to_all, with_option)| Question {
            port,
            from,
            target,
            answer,
            to_all,
            with_option,
        })
}

impl Question {
    /// The frame.
    pub(crate) fn frame(&self, setup: &Setup) -> Vec<u8> {
        let port = setup.ports.iter().find(|port| port.name == self.port);
        let ours: Mac = port.map_or([0; 6], |port| port.mac.0);
        let from: Mac = [2, 0, 0, 0, 0, 0x11];
        match (self.from, self.target) {
            (IpAddr::V4(src), IpAddr::V4(target)) => {
                let to = if self.to_all { [0xff; 6] } else { ours };
                let mut frame = [&to[..], &from, &[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0]].concat();
                frame.push(if self.answer { 2 } else { 1 });
                frame.extend(from);
                frame.extend(src.octets());
                frame.extend(if self.answer { ours } else { [0; 6] });
                frame.extend(target.octets());
                frame
            }
            (src, target) => {
                let end = octets(target);
                let (to, dst) = match (self.to_all, end.as_slice()) {
                    (true, [.., a, b, c]) => {
                        let dst = [
                            0xff02,
                            0,
                            0,
                            0,
                            0,
                            1,
                            0xff00 | u16::from(*a),
                            u16::from(*b) << 8 | u16::from(*c),
                        ];
                        ([0x33, 0x33, 0xff, *a, *b, *c], IpAddr::from(dst))
                    }
                    _ => (ours, target),
                };
                let mut message = vec![if self.answer { 136 } else { 135 }, 0, 0, 0];
                message.extend([if self.answer { 0x60 } else { 0 }, 0, 0, 0]);
                message.extend(&end);
                if self.with_option {
                    message.extend([if self.answer { 2 } else { 1 }, 1]);
                    message.extend(from);
                }
                fix_upper(src, dst, ICMP6, &mut message);
                let ip = Ip {
                    src,
                    dst,
                    ttl: 255,
                    class: 0,
                    id: 0,
                    df: false,
                };
                ethernet(to, from, &packet(&ip, ICMP6, &message, None, None))
            }
        }
    }
}
