//! ICMP and ICMPv6: pings of our addresses, and errors to senders (RFC 792, 1122, 1812, 4443).

use std::net::IpAddr;

use crate::config::Role;
use crate::fib::identity;
use crate::model::{Model, Rx};
use crate::outcome::{Flow, Told, code};
use crate::wire::{ICMP, ICMP6, Packet, build4, build6, byte, l4_checksum, put, sum};

/// Token bucket: `rate` a second, `burst` at once.
#[derive(Debug, Clone)]
pub(crate) struct Limiter {
    /// Nanoseconds that one costs, and most that can be saved.
    limits: Option<(u64, u64)>,
    saved: u64,
    last: u64,
}

impl Limiter {
    pub(crate) fn new(rate: Option<(u32, u32)>) -> Self {
        let limits = rate.map(|(rate, burst)| {
            let cost = 1_000_000_000u64.checked_div(rate.into()).unwrap_or(u64::MAX);
            (cost, cost.saturating_mul(burst.max(1).into()))
        });
        Self {
            saved: limits.map_or(0, |(_, most)| most),
            limits,
            last: 0,
        }
    }

    pub(crate) fn allow(&mut self, now: u64) -> bool {
        let Some((cost, most)) = self.limits else {
            return true;
        };
        self.saved = self.saved.saturating_add(now.saturating_sub(self.last)).min(most);
        self.last = now;
        if cost == u64::MAX || self.saved < cost {
            return false;
        }
        self.saved -= cost;
        true
    }
}

impl Model {
    /// Answers a ping of one of our addresses.
    pub(crate) fn answer_echo(&self, rx: &mut Rx<'_>, pkt: &Packet) -> Flow {
        // Behind extension headers the request would have to be looked for; those are dropped as they are.
        let mut reply = pkt.clone();
        let (src, dst) = (pkt.src(), pkt.dst());
        let message = pkt.payload();
        if message.len() < 8 {
            return Err(rx.drop(code::INVALID));
        }
        let right = if pkt.v6 {
            l4_checksum(src, dst, ICMP6, message) == 0
        } else {
            sum(&[message]) == 0xffff
        };
        if !right {
            return Err(rx.drop(code::L4_CHECKSUM));
        }
        let l4 = reply.l4;
        put(&mut reply.bytes, l4, &[if pkt.v6 { 129 } else { 0 }]);
        put(&mut reply.bytes, l4 + 2, &[0, 0]);
        let (at, bytes) = if pkt.v6 {
            (8, [crate::wire::octets(dst), crate::wire::octets(src)].concat())
        } else {
            (12, [crate::wire::octets(dst), crate::wire::octets(src)].concat())
        };
        put(&mut reply.bytes, at, &bytes);
        reply.set_ttl(64);
        let message = reply.payload();
        let checksum = if pkt.v6 {
            l4_checksum(dst, src, ICMP6, message)
        } else {
            !sum(&[message])
        };
        put(&mut reply.bytes, l4 + 2, &checksum.to_be_bytes());
        self.back(rx, &reply);
        Ok(())
    }

    /// Sends a packet back to where the received frame came from.
    fn back(&self, rx: &mut Rx<'_>, pkt: &Packet) {
        if rx.tunnel.is_some() {
            // To where its sender is known to be, not to whoever says so.
            let Some(peer) = self.ipcache(pkt.dst()).and_then(|entry| entry.tunnel_endpoint) else {
                return;
            };
            // An answer that cannot be sent is none, and does not wait.
            let waiting = (rx.out.waits.len(), rx.out.waiting.len());
            let _ = self.encapsulate(rx, pkt, peer, identity::HOST, rx.direction());
            rx.out.waits.truncate(waiting.0);
            rx.out.waiting.truncate(waiting.1);
            return;
        }
        let mut frame = rx.frame.get(6..12).unwrap_or_default().to_vec();
        frame.extend(rx.port.mac.0);
        frame.extend(pkt.ethertype().to_be_bytes());
        frame.extend(&pkt.bytes);
        frame.extend(&pkt.tail);
        rx.out.sent.push((rx.port.name.clone(), frame));
    }

    /// Our address that a sender behind the port knows.
    fn own_address(&self, rx: &Rx<'_>, v6: bool) -> Option<IpAddr> {
        let node = &self.state.node;
        if rx.port.role != Role::Uplink || rx.tunnel.is_some() {
            return if v6 {
                node.router6.map(IpAddr::V6)
            } else {
                node.router4.map(IpAddr::V4)
            };
        }
        let mut own = rx
            .port
            .addresses
            .iter()
            .map(|own| own.addr)
            .filter(|addr| addr.is_ipv6() == v6);
        if !v6 {
            return own.next();
        }
        // A link-local address is no use behind a router.
        own.min_by_key(|addr| matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local()))
    }

    /// Tells the sender of the received packet about an error, unless that is not allowed or too many were told.
    pub(crate) fn tell(&mut self, rx: &mut Rx<'_>, told: Told) {
        if rx.group() {
            return;
        }
        let v6 = crate::wire::be16(&rx.frame, 12) == 0x86dd;
        let Ok(pkt) = Packet::parse(v6, rx.frame.get(14..).unwrap_or_default()) else {
            return;
        };
        if !may_report(&pkt) {
            return;
        }
        // The specification limits IPv6 answers; errors of a router are limited in both families (RFC 1812, 4.3.2.8).
        let of_router = matches!(told, Told::TimeExceeded | Told::TooBig(_) | Told::HostUnreachable);
        let allowed = match (v6, of_router) {
            (true, _) => self.icmp6.allow(self.now),
            (false, true) => self.icmp4.allow(self.now),
            (false, false) => true,
        };
        if !allowed {
            return;
        }
        let (kind, code, rest): (u8, u8, u32) = match (told, v6) {
            (Told::TimeExceeded, false) => (11, 0, 0),
            (Told::TooBig(mtu), false) => (3, 4, mtu.into()),
            (Told::HostUnreachable, false) => (3, 1, 0),
            (Told::HostUnreachable, true) => (1, 3, 0),
            (Told::Prohibited, false) => (3, 13, 0),
            (Told::PortUnreachable, false) => (3, 3, 0),
            (Told::TimeExceeded, true) => (3, 0, 0),
            (Told::TooBig(mtu), true) => (2, 0, mtu.into()),
            (Told::Prohibited, true) => (1, 1, 0),
            (Told::PortUnreachable, true) => (1, 4, 0),
        };
        // A router speaks for itself, the others in the name of who was addressed (specification, 3.7).
        let from = if of_router {
            self.own_address(rx, v6)
        } else {
            Some(pkt.dst())
        };
        let most = match (v6, of_router) {
            (false, true) => 576 - 28,
            (false, false) => 64,
            (true, _) => 1280 - 48,
        };
        let sample = pkt.bytes.get(..most.min(pkt.bytes.len())).unwrap_or_default();
        let mut message = vec![kind, code, 0, 0];
        message.extend(rest.to_be_bytes());
        message.extend(sample);
        let bytes = match (from, pkt.src()) {
            (Some(IpAddr::V4(from)), IpAddr::V4(to)) => {
                let checksum = !sum(&[&message]);
                put(&mut message, 2, &checksum.to_be_bytes());
                // Network control (RFC 1812, 4.3.2.5).
                build4(from, to, ICMP, if of_router { 0xc0 } else { 0 }, 0, &message)
            }
            (Some(IpAddr::V6(from)), IpAddr::V6(to)) => {
                let checksum = l4_checksum(from.into(), to.into(), ICMP6, &message);
                put(&mut message, 2, &checksum.to_be_bytes());
                build6(from, to, ICMP6, 0, &message)
            }
            _ => return,
        };
        if let Ok(error) = Packet::parse(v6, &bytes) {
            self.back(rx, &error);
        }
    }
}

/// Whether an error may be sent about a packet (RFC 1122, 3.2.2; RFC 4443, 2.4 e).
fn may_report(pkt: &Packet) -> bool {
    if pkt.later_fragment() || pkt.bad_extensions.is_some() {
        return false;
    }
    let message = pkt.payload();
    match (pkt.src(), pkt.dst()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let one = |addr: std::net::Ipv4Addr| {
                !(addr.is_multicast() || addr.is_broadcast() || byte(&addr.octets(), 0) == 0)
            };
            let about_error = pkt.protocol == ICMP
                && (message.is_empty() || matches!(byte(message, 0), 3 | 4 | 5 | 11 | 12));
            one(src) && one(dst) && !src.is_loopback() && !about_error
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let about_error =
                pkt.protocol == ICMP6 && (message.is_empty() || matches!(byte(message, 0), 0..128 | 137));
            let many = src.is_multicast() || dst.is_multicast();
            !(src.is_unspecified() || src.is_loopback() || many || about_error)
        }
        _ => false,
    }
}
