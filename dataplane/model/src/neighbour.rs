//! ARP (RFC 826) and neighbour discovery (RFC 4861; specification, 5.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::{Mac, Role};
use crate::fib::Target;
use crate::model::{Model, Rx};
use crate::outcome::{Flow, code};
use crate::wire::{ICMP6, Packet, be16, build6, byte, l4_checksum, put};

impl Model {
    pub(crate) fn arp(&self, rx: &mut Rx<'_>) -> Flow {
        let Some(arp) = rx.frame.get(14..42).map(<[u8]>::to_vec) else {
            return Err(rx.drop(code::INVALID));
        };
        let four = |at: usize| Ipv4Addr::from(std::array::from_fn(|index| byte(&arp, at + index)));
        let sender = Mac(std::array::from_fn(|index| byte(&arp, 8 + index)));
        if !arp.starts_with(&[0, 1, 8, 0, 6, 4]) || !sender.is_unicast() {
            return Err(rx.drop(code::INVALID));
        }
        let (from, to) = (four(14), four(24));
        let asked: IpAddr = to.into();
        let taken = matches!(self.target(asked), Target::Endpoint(_) | Target::Gateway);
        let its_own = self
            .owner(asked)
            .is_some_and(|endpoint| endpoint.port == rx.port.name);
        let mine = match rx.port.role {
            Role::Pod => from != to && !its_own,
            Role::Host => from != to && (!from.is_unspecified() || taken),
            Role::Uplink => rx.port.addresses.iter().any(|own| own.addr == asked),
        };
        if be16(&arp, 6) != 1 || !mine {
            rx.out.consumed += 1;
            return Ok(());
        }
        let mut reply = rx.frame.clone();
        put(&mut reply, 0, &sender.0);
        put(&mut reply, 6, &rx.port.mac.0);
        put(&mut reply, 20, &[0, 2]);
        put(&mut reply, 22, &rx.port.mac.0);
        put(&mut reply, 28, &to.octets());
        put(&mut reply, 32, &sender.0);
        put(&mut reply, 38, &from.octets());
        rx.out.sent.push((rx.port.name.clone(), reply));
        Ok(())
    }

    /// Whether a packet is a neighbour solicitation or advertisement that must be looked at here.
    pub(crate) fn is_neighbour_discovery(&self, _: &Rx<'_>, pkt: &Packet) -> bool {
        byte(&pkt.bytes, 6) == ICMP6
            && !pkt.src().is_multicast()
            && pkt.bytes.get(40).is_some_and(|kind| matches!(kind, 135 | 136))
    }

    pub(crate) fn neighbour_discovery(&self, rx: &mut Rx<'_>, pkt: &Packet) -> Flow {
        let message = pkt.payload();
        let (src, dst) = (pkt.src(), pkt.dst());
        let Some(target) = message.get(8..24) else {
            return Err(rx.drop(code::INVALID));
        };
        let target: [u8; 16] = std::array::from_fn(|at| byte(target, at));
        let target = Ipv6Addr::from(target);
        if pkt.ttl() != 255 || byte(message, 1) != 0 || target.is_multicast() {
            return Err(rx.drop(code::INVALID));
        }
        if l4_checksum(src, dst, ICMP6, message) != 0 {
            return Err(rx.drop(code::L4_CHECKSUM));
        }
        let Some(has_source) = options(message.get(24..).unwrap_or_default()) else {
            return Err(rx.drop(code::INVALID));
        };
        if byte(message, 0) == 136 {
            if dst.is_multicast() && byte(message, 4) & 0x40 != 0 {
                return Err(rx.drop(code::INVALID));
            }
            rx.out.consumed += 1;
            return Ok(());
        }
        let nobody = src.is_unspecified();
        let solicited_node = matches!(dst, IpAddr::V6(dst) if
            dst.to_bits() >> 24 == 0xff02_0000_0000_0000_0000_0001_ff00_0000 >> 24);
        if nobody && (has_source || !solicited_node) {
            return Err(rx.drop(code::INVALID));
        }
        const ROUTER: u8 = 0x80;
        const OVERRIDE: u8 = 0x20;
        let known = self.target(target.into());
        let its_own = self
            .owner(target.into())
            .is_some_and(|endpoint| endpoint.port == rx.port.name);
        let flags = match rx.port.role {
            Role::Uplink => rx
                .port
                .addresses
                .iter()
                .any(|own| own.addr == target)
                .then_some(ROUTER | OVERRIDE),
            Role::Host if nobody && !matches!(known, Target::Endpoint(_) | Target::Gateway) => None,
            Role::Host => Some(ROUTER),
            Role::Pod if self.state.node.router6 == Some(target) => Some(ROUTER),
            Role::Pod if its_own => None,
            Role::Pod if matches!(known, Target::Endpoint(_)) => Some(OVERRIDE),
            Role::Pod if target.is_unicast_link_local() => None,
            Role::Pod => return Err(rx.drop(code::UNKNOWN_L3_TARGET)),
        };
        let Some(flags) = flags else {
            rx.out.consumed += 1;
            return Ok(());
        };
        // Who asks without an address is answered through all nodes.
        let (to, mac, flags) = match src {
            IpAddr::V6(src) if !nobody => (
                src,
                rx.frame.get(6..12).unwrap_or_default().to_vec(),
                flags | 0x40,
            ),
            _ => (
                Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
                vec![0x33, 0x33, 0, 0, 0, 1],
                flags,
            ),
        };
        let mut answer = vec![136, 0, 0, 0, flags, 0, 0, 0];
        answer.extend(target.octets());
        answer.extend([2, 1]);
        answer.extend(rx.port.mac.0);
        let checksum = l4_checksum(target.into(), to.into(), ICMP6, &answer);
        put(&mut answer, 2, &checksum.to_be_bytes());
        let mut packet = build6(target, to, ICMP6, 0, &answer);
        // Traffic class and flow label are the question's; the hop limit is never less than 255.
        let start = pkt.bytes.get(..4).unwrap_or_default().to_vec();
        put(&mut packet, 0, &start);
        put(&mut packet, 7, &[255]);
        let mut frame = mac;
        frame.extend(rx.port.mac.0);
        frame.extend([0x86, 0xdd]);
        frame.extend(packet);
        rx.out.sent.push((rx.port.name.clone(), frame));
        Ok(())
    }
}

/// Whether there is a source link-layer address among the options; `None` if they do not parse.
fn options(mut rest: &[u8]) -> Option<bool> {
    let mut found = false;
    while let [kind, units, ..] = *rest {
        let len = usize::from(units) * 8;
        if len == 0 || len > rest.len() {
            return None;
        }
        found |= kind == 1 && len == 8;
        rest = rest.get(len..)?;
    }
    rest.is_empty().then_some(found)
}
