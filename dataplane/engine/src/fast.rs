//! The fast path: plain IPv4 and IPv6 packets for known neighbours and endpoints.
//!
//! One pass over a burst checks headers, looks destinations up, rewrites and sorts by output port. A packet that is not
//! plain is left as it was to the slow path, which starts over with it: the fast path decides nothing that the slow path
//! would decide differently.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use octoplane_esp::view::NodeDecision;
use octoplane_esp::{Sa, SaId};
use octoplane_flow::{FlowRef, Tuple};
use octoplane_packet::checksum::ipv4_words_ok;
use octoplane_packet::headers::{ETHERNET_LEN, ethertype, icmp6, protocol};
use octoplane_packet::{BufPool, ChecksumStatus, PacketBuf};
use octoplane_tables::{Action, Target};

use crate::address::{routable4, routable6};
use crate::connection::{self, Progress, Upper, flag, progress};
use crate::drop_reason::DropReason;
use crate::engine::{BURST, Core, Rx};
use crate::ipsec::{self, Ipsec};
use crate::output::Output;
use crate::overlay;
use crate::rate;
use crate::slow::{Seal, Verdict, esp, plain_refused};
use crate::stats::Stage;

/// How many packets ahead data is asked for.
const AHEAD: usize = 6;

/// Ethernet and IPv4 without options.
const V4: usize = 34;
/// Ethernet and IPv6.
const V6: usize = 54;

/// In place of a port: not for the fast path.
const SLOW: u16 = u16::MAX;
/// In place of a port: waits for its connection to be found.
const PENDING: u16 = u16::MAX - 1;
/// In place of a port: is to be encrypted.
const SEAL: u16 = u16::MAX - 2;
/// In place of a port: is to be decrypted. Ports are below.
const OPEN: u16 = u16::MAX - 3;

/// How those of a burst are encrypted that have [`SEAL`] in place of a port, in their order, and by which ports they leave.
#[derive(Default)]
struct Sealing<'a> {
    them: ArrayVec<Seal, BURST>,
    /// What was decided for the last one, by its other node, whether there is a tunnel to it, and its sender: neighbours mostly
    /// have that in common.
    last: Option<Decided<'a>>,
}

/// With what packets are encrypted that have something in common.
#[derive(Clone, Copy)]
struct Decided<'a> {
    whose: (u32, bool, u32),
    sa: Option<(Ipsec<'a>, &'a Sa)>,
}

/// A packet whose connection is being looked up.
pub(crate) struct Pending {
    /// Its place in the burst.
    index: usize,
    hash: u64,
    tuple: Tuple,
    upper: Upper,
    candidate: Option<FlowRef>,
}

/// Ethernet type, version and header length as they stand in a frame, read with the least significant byte first.
const TYPE_V4: u32 = (ethertype::IPV4.swap_bytes() as u32) | 0x45 << 16;
const TYPE_V6: u32 = (ethertype::IPV6.swap_bytes() as u32) | 0x60 << 16;

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
        let packets = burst.len();
        let mut ports = [SLOW; BURST];
        let mut sealing = Sealing::default();
        let (mut bytes, mut others, mut first) = (0, 0, None);
        for (index, way) in ports.iter_mut().enumerate().take(packets) {
            if let Some(next) = burst.get(index + AHEAD) {
                next.prefetch();
            }
            let Some(buf) = burst.get_mut(index) else { break };
            bytes += buf.len();
            let port = self.one::<POD>(rx, buf, index, ours);
            others |= port ^ *first.get_or_insert(port);
            *way = port;
        }
        if !self.pending.is_empty() {
            self.established(rx, burst, &mut ports, &mut sealing);
            let ways = ports.iter().take(packets);
            first = ports.first().copied();
            others = ways.fold(0, |others, port| others | port ^ ports[0]);
        }
        let first = first.unwrap_or(SLOW);
        self.stats.port(rx.port).rx_bytes.add(bytes as u64);
        if others == 0 && first < OPEN {
            self.stats.fast.packets.add(packets as u64);
            self.stats.fast.bytes.add(bytes as u64);
            out.send_all(first, burst);
        }
        // What is left if there was more than one way, or no room.
        if !burst.is_empty() {
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
    fn one<const POD: bool>(&mut self, rx: &Rx<'_>, buf: &mut P::Buf, index: usize, ours: u64) -> u16 {
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
            self.forward4::<POD>(rx, status, data, index)
        } else if kind & 0x00f0_ffff == TYPE_V6 {
            self.forward6::<POD>(rx, data, index)
        } else {
            SLOW
        }
    }

    #[inline(always)]
    fn forward4<const POD: bool>(
        &mut self,
        rx: &Rx<'_>,
        status: ChecksumStatus,
        data: &mut [u8],
        index: usize,
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
        if POD {
            // Fragments have no ports, or not all of them.
            let fragment = (first >> 48) as u16 & FRAGMENT != 0;
            let protocol = (second >> 8) as u8;
            let Some(&ports) = data.get(V4..).and_then(|upper| upper.first_chunk()) else {
                return SLOW;
            };
            let Some(flags) = (if fragment {
                None
            } else {
                upper(data, protocol, V4, total + ETHERNET_LEN)
            }) else {
                return SLOW;
            };
            let [sport, dport] = pair(ports);
            return self.look_up(index, Tuple::v4(src, dst, sport, dport, protocol, 0), flags);
        }
        if !routable4(src) {
            return SLOW;
        }
        let target = rx.snapshot.target(self.routes.find4(rx.snapshot, dst));
        if target.action == Action::Deliver {
            if rx.ipsec.is_some() && plain_refused(rx, IpAddr::from(src.to_be_bytes())) {
                return SLOW;
            }
            let fragment = (first >> 48) as u16 & FRAGMENT != 0;
            let protocol = (second >> 8) as u8;
            let Some(&ports) = data.get(V4..).and_then(|upper| upper.first_chunk()) else {
                return SLOW;
            };
            let Some(flags) = (if fragment {
                None
            } else {
                upper(data, protocol, V4, total + ETHERNET_LEN)
            }) else {
                return SLOW;
            };
            let [sport, dport] = pair(ports);
            return self.look_up(index, Tuple::v4(src, dst, sport, dport, protocol, 0), flags);
        }
        if rx.decrypted || !fits(target, len) {
            // What comes out of ESP only goes on by itself to endpoints.
            return special(rx, target, (second >> 8) as u8, data);
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
    fn forward6<const POD: bool>(&mut self, rx: &Rx<'_>, data: &mut [u8], index: usize) -> u16 {
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
                if rx.decrypted || !fits(target, len) {
                    return special(rx, target, protocol, data);
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
                self.look_up(index, Tuple::v6(src, dst, sport, dport, protocol, 0), flags)
            }
        }
    }

    /// Begins to look up the connection of a packet.
    #[inline(always)]
    fn look_up(&mut self, index: usize, tuple: Tuple, upper: Upper) -> u16 {
        let hash = self.flows.table().hash(&tuple);
        let pending = Pending {
            index,
            hash,
            tuple,
            upper,
            candidate: None,
        };
        // As many as a burst has.
        match self.pending.try_push(pending) {
            Ok(()) => PENDING,
            Err(_) => SLOW,
        }
    }

    /// Sends on packets of connections that are known and were decided by the tables as they are. Three passes: what each
    /// reads of the table, the one before has fetched, for many packets at once.
    #[inline(always)]
    fn established<'a>(
        &mut self,
        rx: &Rx<'a>,
        burst: &mut ArrayVec<P::Buf, BURST>,
        ports: &mut [u16; BURST],
        sealing: &mut Sealing<'a>,
    ) {
        let table = self.flows.table();
        let touched = self
            .pending
            .iter()
            .fold(0, |touched, pending| touched ^ table.touch(pending.hash));
        std::hint::black_box(touched);
        let mut touched = 0;
        for pending in &mut self.pending {
            pending.candidate = table.candidate(pending.hash);
            if let Some(half) = pending.candidate.and_then(|flow| table.half(flow)) {
                touched ^= half.word::<2>();
            }
        }
        std::hint::black_box(touched);
        if let Some(ipsec) = rx.ipsec {
            self.fetch_nodes(rx, ipsec);
        }
        for pending in &self.pending {
            if let (Some(buf), Some(way)) = (burst.get_mut(pending.index), ports.get_mut(pending.index)) {
                *way = self.follow_known(rx, buf, pending, sealing);
            }
        }
        self.pending.clear();
    }

    /// Has what is known of other nodes, and with what packets for them are encrypted, fetched side by side where the packets of
    /// a burst are for many of them. Each loop does so little that the processor is in several rounds of it at once.
    #[inline(never)]
    fn fetch_nodes(&self, rx: &Rx<'_>, ipsec: Ipsec<'_>) {
        let table = self.flows.table();
        let mut targets = ArrayVec::<u32, BURST>::new();
        for pending in &self.pending {
            let Some(half) = pending.candidate.and_then(|flow| table.half(flow)) else {
                continue;
            };
            let action = connection::Action::of(&half);
            if action.flags & (flag::ENCAPSULATE | flag::ENCRYPT) != 0 {
                let _ = targets.try_push(action.target);
            }
        }
        if targets.array_windows().all(|[one, other]| one == other) {
            return;
        }
        let nodes = targets
            .iter()
            .filter_map(|target| rx.snapshot.tunnel_end(*target).addr);
        let nodes: ArrayVec<IpAddr, BURST> = nodes.collect();
        let touched = nodes.iter().filter(|node| ipsec.snapshot.touch_node(**node));
        std::hint::black_box(touched.count());
        let sas: ArrayVec<SaId, BURST> = nodes
            .iter()
            .filter_map(|node| match ipsec.snapshot.node(*node) {
                NodeDecision::Encrypt(sa) => Some(sa),
                _ => None,
            })
            .collect();
        let sas: ArrayVec<&Sa, BURST> = sas
            .iter()
            .filter_map(|sa| ipsec.snapshot.sa(*sa).map(|sa| &**sa))
            .collect();
        let touched = sas.iter().fold(0, |touched, sa| touched ^ sa.max_len(0));
        std::hint::black_box(touched);
    }

    #[inline(always)]
    fn follow_known<'a>(
        &self,
        rx: &Rx<'a>,
        buf: &mut P::Buf,
        pending: &Pending,
        sealing: &mut Sealing<'a>,
    ) -> u16 {
        let Pending {
            hash,
            ref tuple,
            upper,
            candidate,
            ..
        } = *pending;
        let table = self.flows.table();
        let Some(flow) = table.confirm(candidate, hash, tuple) else {
            return SLOW;
        };
        let Some(half) = table.half(flow) else { return SLOW };
        let action = connection::Action::of(&half);
        if action.flags & flag::COMPILED == 0 || action.port != rx.port {
            return SLOW;
        }
        if action.flags != flag::COMPILED {
            return self.follow_changed(rx, buf, pending, flow, action, sealing);
        }
        let target = rx.snapshot.target(action.target);
        let revision = rx.snapshot.revision();
        if !action.still_holds(rx.snapshot.last_changed(), revision, tuple, tuple) {
            return SLOW;
        }
        action.refresh(&half, revision, rx.second);
        let data = buf.data_mut();
        if !fits(target, data.len()) {
            return SLOW;
        }
        if progress(table, flow, &half, upper, rx.second) != Progress::Known {
            return SLOW;
        }
        if tuple.is_v6() {
            let Some(header) = data.first_chunk_mut::<V6>() else {
                return SLOW;
            };
            header[21] -= 1;
            header[..12].copy_from_slice(&target.macs);
        } else {
            let Some(header) = data.first_chunk_mut::<V4>() else {
                return SLOW;
            };
            let second = older(le64(header, 22));
            header[22..30].copy_from_slice(&second.to_le_bytes());
            header[..12].copy_from_slice(&target.macs);
        }
        target.port
    }

    /// The same for connections that are translated, encrypted, or go through a tunnel.
    #[inline(never)]
    #[allow(clippy::too_many_arguments, reason = "all of it is known in one place only")]
    fn follow_changed<'a>(
        &self,
        rx: &Rx<'a>,
        buf: &mut P::Buf,
        pending: &Pending,
        flow: FlowRef,
        action: connection::Action,
        sealing: &mut Sealing<'a>,
    ) -> u16 {
        let Pending { ref tuple, upper, .. } = *pending;
        if connection::begins(upper) && flow.is_forward() {
            // Its backend may take no new connections.
            return SLOW;
        }
        let v6 = tuple.is_v6();
        let out = self.outgoing(flow);
        let revision = rx.snapshot.revision();
        if !action.still_holds(rx.snapshot.last_changed(), revision, tuple, &out) {
            return SLOW;
        }
        // The node at the other end, of a tunnel or without one.
        let node = match action.flags & (flag::ENCAPSULATE | flag::ENCRYPT) != 0 {
            true => Some(rx.snapshot.tunnel_end(action.target)),
            false => None,
        };
        let tunnel = node.filter(|_| action.flags & flag::ENCAPSULATE != 0);
        let target = rx.snapshot.target(node.map_or(action.target, |end| end.target));
        let overhead = tunnel.map_or(0, |end| end.len);
        let whose = (action.target, tunnel.is_some(), action.identity);
        let sa = match sealing.last {
            _ if node.is_none() => None,
            Some(last) if last.whose == whose => last.sa,
            _ => {
                let Ok(sa) = connection::sealing(rx, node, tunnel.is_some(), action.identity) else {
                    return SLOW;
                };
                sealing.last = Some(Decided { whose, sa });
                sa
            }
        };
        let fits = match sa {
            None => fits(target, buf.len() + usize::from(overhead)),
            Some((ipsec, sa)) => {
                let room = ipsec.room(sa, target.limit, overhead);
                buf.len() <= usize::from(room) + ETHERNET_LEN
            }
        };
        let table = self.flows.table();
        let (Some(half), true) = (table.half(flow), fits) else {
            return SLOW;
        };
        if action.flags & flag::LIMITED != 0 && rate::admit(rx, tuple, target, buf.len()).is_err() {
            // It will be told apart from what is dropped for other reasons there.
            return SLOW;
        }
        action.refresh(&half, revision, rx.second);
        let frame = buf.data_mut();
        let (l4, end) = match (v6, frame.first_chunk::<V4>()) {
            (true, Some(header)) => (V6, V6 + usize::from(be16(header, 18))),
            (false, Some(header)) => (V4, ETHERNET_LEN + usize::from(be16(header, 16))),
            (_, None) => return SLOW,
        };
        let packet = connection::Packet {
            tuple: *tuple,
            fragment: None,
            upper,
            part: connection::Part::Whole,
            l4,
            end,
            port: tuple.dport(),
        };
        if action.flags & flag::AFFINE != 0 && !connection::seen_in(&half, rx.second) {
            connection::refresh(&self.affinities, tuple, rx.second);
        }
        if progress(table, flow, &half, upper, rx.second) != Progress::Known {
            return SLOW;
        }
        // What the fast path has looked at so far leaves nothing that could fail here.
        if connection::translate(frame, &packet, &out).is_err() {
            return SLOW;
        }
        match tunnel {
            None => {
                connection::one_hop_further(frame, v6);
                frame[..12].copy_from_slice(&target.macs);
            }
            Some(end) => {
                if overlay::encapsulate(buf, end, target, action.identity, pending.hash).is_err() {
                    return SLOW;
                }
            }
        }
        match sa {
            None => target.port,
            Some((ipsec, sa)) => {
                // There is room: a burst has no more packets than that.
                let _ = sealing.them.try_push(Seal {
                    sa: sa.id(),
                    port: target.port,
                    front: ipsec.front(overhead),
                });
                SEAL
            }
        }
    }
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
const FRAGMENT: u16 = 0xff3f;

/// What the upper layer is, if its ports are the first four bytes and the fast path needs to know no more of it.
#[inline(always)]
fn upper(data: &[u8], protocol: u8, at: usize, end: usize) -> Option<Upper> {
    match protocol {
        protocol::TCP if end >= at + 20 => data.get(at + 13).map(|&flags| Upper::Tcp(flags)),
        protocol::UDP if end >= at + 8 => Some(Upper::Udp),
        _ => None,
    }
}

#[inline(always)]
fn pair([a, b, c, d]: [u8; 4]) -> [u16; 2] {
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
}

/// The word of an IPv4 header that begins with the TTL, with that one less, and the checksum over it (RFC 1624,
/// equation 3): the lower byte of a word is one less, so the complement of their sum is one more, with the carry coming
/// back at the other end.
#[inline(always)]
fn older(word: u64) -> u64 {
    let sum = (word >> 16 & 0xffff) + 1;
    let sum = (sum + u64::from(sum >= 0xffff)) & 0xffff;
    ((word & !0xffff_0000) - 1) | (sum << 16)
}

/// Whether a frame of this length fits through the target's path. None fits where there is more to do than to send it on.
#[inline(always)]
fn fits(target: &Target, len: usize) -> bool {
    len - ETHERNET_LEN <= usize::from(target.limit)
}

#[inline(always)]
fn le32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    bytes[at..]
        .first_chunk()
        .map_or(0, |word| u32::from_le_bytes(*word))
}

#[inline(always)]
fn le64<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    bytes[at..]
        .first_chunk()
        .map_or(0, |word| u64::from_le_bytes(*word))
}

#[inline(always)]
fn be16<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline(always)]
fn be64<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    le64(bytes, at).swap_bytes()
}
