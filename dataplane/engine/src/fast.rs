//! The fast path: plain IPv4 and IPv6 packets for known neighbours and endpoints.
//!
//! One pass over a burst checks headers, looks destinations up, rewrites and sorts by output port. A packet that is not
//! plain is left as it was to the slow path, which starts over with it: the fast path decides nothing that the slow path
//! would decide differently.

use std::mem;
use std::net::IpAddr;

use arrayvec::ArrayVec;
use octoplane_flow::Tuple;
use octoplane_packet::checksum::ipv4_words_ok;
use octoplane_packet::headers::{ETHERNET_LEN, ethertype, icmp6, protocol};
use octoplane_packet::{BufPool, ChecksumStatus, PacketBuf};
use octoplane_tables::{Action, Target};

use crate::address::{routable4, routable6};
use crate::connection::{FROM_TUNNEL, Upper};
use crate::door::Door;
use crate::drop_reason::DropReason;
use crate::engine::{BURST, Core, Rx};
use crate::ipsec;
use crate::known::{Arrival, Pending};
use crate::output::Output;
use crate::sealed::Sealing;
use crate::slow::{esp, plain_refused};
use crate::stats::Stage;
use crate::verdict::Verdict;

/// How many packets ahead data is asked for.
const AHEAD: usize = 6;

/// Ethernet and IPv4 without options.
pub(crate) const V4: usize = 34;
/// Ethernet and IPv6.
pub(crate) const V6: usize = 54;

/// In place of a port: not for the fast path.
pub(crate) const SLOW: u16 = u16::MAX;
/// In place of a port: waits for its connection to be found.
pub(crate) const PENDING: u16 = u16::MAX - 1;
/// In place of a port: is to be encrypted.
pub(crate) const SEAL: u16 = u16::MAX - 2;
/// In place of a port: is to be decrypted. Ports are below.
const OPEN: u16 = u16::MAX - 3;

/// Ethernet type, version and header length as they stand in a frame, read with the least significant byte first.
pub(crate) const TYPE_V4: u32 = (ethertype::IPV4.swap_bytes() as u32) | 0x45 << 16;
pub(crate) const TYPE_V6: u32 = (ethertype::IPV6.swap_bytes() as u32) | 0x60 << 16;

impl<P: BufPool> Core<P> {
    /// Forwards and delivers what is plain, and hands the rest to the slow path.
    #[inline(always)]
    pub(crate) fn forward<const POD: bool>(
        &mut self,
        rx: &Rx<'_>,
        burst: &mut ArrayVec<P::Buf, BURST>,
        out: &mut Output<P::Buf>,
    ) {
        self.routes.follow(rx.snapshot);
        for buf in burst.iter().take(AHEAD) {
            buf.prefetch();
        }
        // First eight bytes of a frame to us, as the loop compares them.
        let [a, b, c, d, e, f] = rx.view.mac.0;
        let ours = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]) << 16;
        let door = if POD { Door::SHUT } else { Door::of(rx) };
        let packets = burst.len();
        let mut ports = [SLOW; BURST];
        let mut sealing = Sealing::default();
        let mut bytes = 0;
        let mut pending = mem::take(&mut self.pending);
        for (index, (way, pending)) in ports.iter_mut().zip(&mut pending).enumerate().take(packets) {
            if let Some(next) = burst.get(index + AHEAD) {
                next.prefetch();
            }
            let Some(buf) = burst.get_mut(index) else { break };
            bytes += buf.len();
            *way = self.one::<POD>(rx, &door, buf, pending, ours);
        }
        // Behind the packets no place is taken.
        if ports.iter().fold(false, |some, way| some | (*way == PENDING)) {
            self.established::<POD>(rx, burst, &mut ports, &mut pending, &mut sealing);
        }
        self.pending = pending;
        let first = ports[0];
        let others = ports
            .iter()
            .take(packets)
            .fold(0, |others, port| others | port ^ first);
        self.stats.port(rx.port).rx_bytes.add(bytes as u64);
        if others == 0 && first < OPEN {
            self.stats.fast.packets.add(packets as u64);
            self.stats.fast.bytes.add(bytes as u64);
            out.send_all(first, burst);
        }
        // What is left if there was more than one way, or no room.
        if !burst.is_empty() {
            self.fetch_services(rx, burst, &ports);
            self.one_by_one(rx, burst, &ports, &sealing, out);
        }
    }

    #[inline(never)]
    fn one_by_one(
        &mut self,
        rx: &Rx<'_>,
        burst: &mut ArrayVec<P::Buf, BURST>,
        ports: &[u16; BURST],
        sealing: &Sealing<'_>,
        out: &mut Output<P::Buf>,
    ) {
        let mut sealing = sealing.them.iter();
        let (mut slow, mut fast, mut bytes) = (0, 0, 0);
        for (buf, &port) in burst.drain(..).zip(ports) {
            if port == SLOW {
                slow += 1;
                self.slow(rx, buf, out);
                continue;
            }
            fast += 1;
            bytes += buf.len() as u64;
            if port == OPEN {
                self.open(rx, buf, out);
                continue;
            }
            if port == SEAL {
                match sealing.next() {
                    Some(seal) => self.seal(rx, buf, *seal, out),
                    // There are as many as have this in place of a port.
                    None => self.discard(rx, DropReason::NotEncrypted, buf, out),
                }
                continue;
            }
            if let Err(buf) = out.send(port, buf) {
                self.discard(rx, DropReason::TxFull, buf, out);
            }
        }
        self.stats.fast.packets.add(fast);
        self.stats.fast.bytes.add(bytes);
        if slow > 0 {
            let stats = self.stats.stage(Stage::Slow);
            stats.calls.add(1);
            stats.packets.add(slow);
        }
    }

    /// Rewrites one packet if it is plain, and says by which port it leaves.
    #[inline(always)]
    fn one<const POD: bool>(
        &mut self,
        rx: &Rx<'_>,
        door: &Door,
        buf: &mut P::Buf,
        pending: &mut Pending,
        ours: u64,
    ) -> u16 {
        if !buf.is_contiguous() {
            return SLOW;
        }
        let status = buf.ip_checksum_status();
        let data = buf.data_mut();
        let Some(header) = data.first_chunk_mut::<V4>() else {
            return SLOW;
        };
        // Towards pods every frame is for us: their one route is the gateway. Elsewhere the address decides.
        if !POD && le64(header, 0) << 16 != ours {
            return SLOW;
        }
        let kind = le32(header, 12);
        if kind & 0x00ff_ffff == TYPE_V4 {
            self.forward4::<POD>(rx, door, status, data, pending)
        } else if kind & 0x00f0_ffff == TYPE_V6 {
            self.forward6::<POD>(rx, data, pending)
        } else {
            SLOW
        }
    }

    #[inline(always)]
    fn forward4<const POD: bool>(
        &mut self,
        rx: &Rx<'_>,
        door: &Door,
        status: ChecksumStatus,
        data: &mut [u8],
        pending: &mut Pending,
    ) -> u16 {
        let len = data.len();
        let Some(header) = data.first_chunk_mut::<V4>() else {
            return SLOW;
        };
        // The header as the checksum adds it up; the second word begins with TTL, protocol and checksum.
        let (first, second, third) = (le64(header, 14), le64(header, 22), le32(header, 30));
        let total = usize::from(((first >> 16) as u16).swap_bytes());
        if total < 20 || total + ETHERNET_LEN > len || second & 0xff < 2 {
            return SLOW;
        }
        if status != ChecksumStatus::Good
            && (status == ChecksumStatus::Bad || !ipv4_words_ok(first, second, third))
        {
            return SLOW;
        }
        let (src, dst) = (((second >> 32) as u32).swap_bytes(), third.swap_bytes());
        let arrival = Arrival::by(rx.port, total + ETHERNET_LEN != len);
        if POD {
            // Fragments have no ports, or not all of them.
            let fragment = (first >> 48) as u16 & FRAGMENT != 0;
            let protocol = (second >> 8) as u8;
            if fragment {
                return SLOW;
            }
            let Some(flags) = upper(data, protocol, V4, total + ETHERNET_LEN) else {
                return SLOW;
            };
            let Some(&ports) = data.get(V4..).and_then(|upper| upper.first_chunk()) else {
                return SLOW;
            };
            let [sport, dport] = pair(ports);
            return self.look_up(
                pending,
                Tuple::v4(src, dst, sport, dport, protocol, 0),
                flags,
                arrival,
            );
        }
        if !routable4(src) {
            return SLOW;
        }
        if third == door.addr {
            return match door.look_in(data, first, (second >> 8) as u8) {
                Some(inner) => self.look_up(
                    pending,
                    inner.tuple,
                    inner.upper,
                    Arrival {
                        identity: inner.identity,
                        port: FROM_TUNNEL,
                        // Nothing stands behind the tunnel packet, but inside it may.
                        padded: true,
                    },
                ),
                None => SLOW,
            };
        }
        let target = rx.snapshot.target(self.routes.find4(rx.snapshot, dst));
        if target.action == Action::Deliver {
            if rx.ipsec.is_some() && plain_refused(rx, IpAddr::from(src.to_be_bytes())) {
                return SLOW;
            }
            let fragment = (first >> 48) as u16 & FRAGMENT != 0;
            let protocol = (second >> 8) as u8;
            if fragment {
                return SLOW;
            }
            let Some(flags) = upper(data, protocol, V4, total + ETHERNET_LEN) else {
                return SLOW;
            };
            let Some(&ports) = data.get(V4..).and_then(|upper| upper.first_chunk()) else {
                return SLOW;
            };
            let [sport, dport] = pair(ports);
            return self.look_up(
                pending,
                Tuple::v4(src, dst, sport, dport, protocol, 0),
                flags,
                arrival,
            );
        }
        if rx.decrypted {
            // What comes out of ESP only goes on by itself to endpoints.
            return special(rx, target, (second >> 8) as u8, data);
        }
        if !fits(target, len) {
            let (protocol, fragment) = ((second >> 8) as u8, (first >> 48) as u16 & FRAGMENT != 0);
            return match ports(target, data, protocol, V4, total + ETHERNET_LEN).filter(|_| !fragment) {
                Some(([sport, dport], flags)) => self.look_up(
                    pending,
                    Tuple::v4(src, dst, sport, dport, protocol, 0),
                    flags,
                    arrival,
                ),
                None => special(rx, target, protocol, data),
            };
        }
        let Some(header) = data.first_chunk_mut::<V4>() else {
            return SLOW;
        };
        let second = older(second);
        header[22..30].copy_from_slice(&second.to_le_bytes());
        header[..12].copy_from_slice(&target.macs);
        target.port
    }

    #[inline(always)]
    fn forward6<const POD: bool>(&mut self, rx: &Rx<'_>, data: &mut [u8], pending: &mut Pending) -> u16 {
        let len = data.len();
        let next = data.get(V6).copied();
        let Some(header) = data.first_chunk_mut::<V6>() else {
            return SLOW;
        };
        let end = usize::from(be16(header, 18)) + V6;
        if !(end <= len && header[21] > 1) {
            return SLOW;
        }
        // Neighbour discovery is never forwarded, whatever its destination.
        let protocol = header[20];
        if protocol == protocol::ICMPV6
            && let Some(icmp6::NEIGHBOUR_SOLICITATION | icmp6::NEIGHBOUR_ADVERTISEMENT) = next
        {
            return SLOW;
        }
        let (src, dst) = (
            [be64(header, 22), be64(header, 30)],
            [be64(header, 38), be64(header, 46)],
        );
        let arrival = Arrival::by(rx.port, end != len);
        let target = if POD {
            None
        } else {
            if !routable6(u128::from(src[0]) << 64 | u128::from(src[1])) {
                return SLOW;
            }
            Some(rx.snapshot.target(self.routes.find6(rx.snapshot, dst[0], dst[1])))
        };
        match target {
            Some(target) if target.action != Action::Deliver => {
                if rx.decrypted {
                    return special(rx, target, protocol, data);
                }
                if !fits(target, len) {
                    return match ports(target, data, protocol, V6, end) {
                        Some(([sport, dport], flags)) => self.look_up(
                            pending,
                            Tuple::v6(src, dst, sport, dport, protocol, 0),
                            flags,
                            arrival,
                        ),
                        None => special(rx, target, protocol, data),
                    };
                }
                header[21] -= 1;
                header[..12].copy_from_slice(&target.macs);
                target.port
            }
            _ => {
                if !POD && rx.ipsec.is_some() {
                    let addr = u128::from(src[0]) << 64 | u128::from(src[1]);
                    if plain_refused(rx, IpAddr::from(addr.to_be_bytes())) {
                        return SLOW;
                    }
                }
                let Some(&ports) = data.get(V6..).and_then(|upper| upper.first_chunk()) else {
                    return SLOW;
                };
                let Some(flags) = upper(data, protocol, V6, end) else {
                    return SLOW;
                };
                let [sport, dport] = pair(ports);
                self.look_up(
                    pending,
                    Tuple::v6(src, dst, sport, dport, protocol, 0),
                    flags,
                    arrival,
                )
            }
        }
    }
}

/// Ports of a packet that no route forwards: one to a service, or the reply to what left under our address. `None` where there is
/// a route, and it is too large for that.
#[inline(never)]
fn ports(target: &Target, data: &[u8], protocol: u8, at: usize, end: usize) -> Option<([u16; 2], Upper)> {
    if target.limit != 0 {
        return None;
    }
    let ports = data.get(at..)?.first_chunk()?;
    Some((pair(*ports), upper(data, protocol, at, end)?))
}

/// What becomes of a packet that is not sent on: one from another node is decrypted here.
#[inline(always)]
fn special(rx: &Rx<'_>, target: &Target, protocol: u8, frame: &[u8]) -> u16 {
    if rx.ipsec.is_none() || protocol != ipsec::ESP {
        return SLOW;
    }
    match frame
        .get(ETHERNET_LEN..)
        .and_then(|packet| esp(rx, packet, target))
    {
        Some(Verdict::Open) => OPEN,
        _ => SLOW,
    }
}

/// Fragment bits in the header word with flags and offset as it stands in the packet: all but "don't fragment".
pub(crate) const FRAGMENT: u16 = 0xff3f;

/// What the upper layer is, if its ports are the first four bytes and the fast path needs to know no more of it.
#[inline(always)]
pub(crate) fn upper(data: &[u8], protocol: u8, at: usize, end: usize) -> Option<Upper> {
    match protocol {
        protocol::TCP if end >= at + 20 => data.get(at + 13).map(|&flags| Upper::Tcp(flags)),
        protocol::UDP if end >= at + 8 => Some(Upper::Udp),
        _ => None,
    }
}

#[inline(always)]
pub(crate) fn pair(bytes: [u8; 4]) -> [u16; 2] {
    let both = u32::from_be_bytes(bytes);
    [(both >> 16) as u16, both as u16]
}

/// The word of an IPv4 header that begins with the TTL, with that one less, and the checksum over it (RFC 1624,
/// equation 3): the lower byte of a word is one less, so the complement of their sum is one more, with the carry coming
/// back at the other end.
#[inline(always)]
pub(crate) fn older(word: u64) -> u64 {
    let sum = (word >> 16 & 0xffff) + 1;
    let sum = (sum + u64::from(sum >= 0xffff)) & 0xffff;
    ((word & !0xffff_0000) - 1) | (sum << 16)
}

/// Whether a frame of this length fits through the target's path. None fits where there is more to do than to send it on.
#[inline(always)]
pub(crate) fn fits(target: &Target, len: usize) -> bool {
    len - ETHERNET_LEN <= usize::from(target.limit)
}

#[inline(always)]
pub(crate) fn le32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    bytes[at..]
        .first_chunk()
        .map_or(0, |word| u32::from_le_bytes(*word))
}

#[inline(always)]
pub(crate) fn le64<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    bytes[at..]
        .first_chunk()
        .map_or(0, |word| u64::from_le_bytes(*word))
}

#[inline(always)]
pub(crate) fn be16<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline(always)]
pub(crate) fn be64<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    le64(bytes, at).swap_bytes()
}
