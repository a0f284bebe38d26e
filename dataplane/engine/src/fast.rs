//! The fast path: plain IPv4 and IPv6 packets for known neighbours and endpoints.
//!
//! One pass over a burst checks headers, looks destinations up, rewrites and sorts by output port. A packet that is not
//! plain is left as it was to the slow path, which starts over with it: the fast path decides nothing that the slow path
//! would decide differently.

use arrayvec::ArrayVec;
use octoplane_packet::checksum::ipv4_words_ok;
use octoplane_packet::headers::{ETHERNET_LEN, ethertype, icmp6, protocol};
use octoplane_packet::{BufPool, ChecksumStatus, PacketBuf};
use octoplane_tables::Target;

use crate::address::{routable4, routable6};
use crate::drop_reason::DropReason;
use crate::engine::{BURST, Core, Rx};
use crate::output::Output;
use crate::route_cache::RouteCache;
use crate::stats::Stage;

/// How many packets ahead data is asked for.
const AHEAD: usize = 6;

/// Ethernet and IPv4 without options.
const V4: usize = 34;
/// Ethernet and IPv6.
const V6: usize = 54;

/// In place of a port: not for the fast path.
const SLOW: u16 = u16::MAX;

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
        let (mut bytes, mut others, mut first) = (0, 0, None);
        for (index, way) in ports.iter_mut().enumerate().take(packets) {
            if let Some(next) = burst.get(index + AHEAD) {
                next.prefetch();
            }
            let Some(buf) = burst.get_mut(index) else { break };
            bytes += buf.len();
            let port = one::<POD, P::Buf>(rx, &mut self.routes, buf, ours);
            others |= port ^ *first.get_or_insert(port);
            *way = port;
        }
        let first = first.unwrap_or(SLOW);
        self.stats.port(rx.port).rx_bytes.add(bytes as u64);
        if others == 0 && first != SLOW {
            self.stats.fast.packets.add(packets as u64);
            self.stats.fast.bytes.add(bytes as u64);
            out.send_all(first, burst);
        }
        // What is left if there was more than one way, or no room.
        if !burst.is_empty() {
            self.one_by_one(rx, burst, &ports, out);
        }
    }

    #[inline(never)]
    fn one_by_one(
        &mut self,
        rx: &Rx<'_>,
        burst: &mut ArrayVec<P::Buf, BURST>,
        ports: &[u16; BURST],
        out: &mut Output<P::Buf>,
    ) {
        let (mut slow, mut fast, mut bytes) = (0, 0, 0);
        for (buf, &port) in burst.drain(..).zip(ports) {
            if port == SLOW {
                slow += 1;
                self.slow(rx, buf, out);
                continue;
            }
            fast += 1;
            bytes += buf.len() as u64;
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
}

/// Rewrites one packet if it is plain, and says by which port it leaves.
#[inline(always)]
fn one<const POD: bool, B: PacketBuf>(rx: &Rx<'_>, routes: &mut RouteCache, buf: &mut B, ours: u64) -> u16 {
    if !buf.is_contiguous() {
        return SLOW;
    }
    let status = buf.ip_checksum_status();
    let data = buf.data_mut();
    let len = data.len();
    let Some(header) = data.first_chunk_mut::<V4>() else {
        return SLOW;
    };
    // Towards pods every frame is for us: their one route is the gateway. Elsewhere the address decides.
    if !POD && le64(header, 0) << 16 != ours {
        return SLOW;
    }
    let kind = le32(header, 12);
    if kind & 0x00ff_ffff == TYPE_V4 {
        forward4::<POD>(rx, routes, status, header, len)
    } else if kind & 0x00f0_ffff == TYPE_V6 {
        forward6::<POD>(rx, routes, data)
    } else {
        SLOW
    }
}

#[inline(always)]
fn forward4<const POD: bool>(
    rx: &Rx<'_>,
    routes: &mut RouteCache,
    status: ChecksumStatus,
    header: &mut [u8; V4],
    len: usize,
) -> u16 {
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
    let src = ((second >> 32) as u32).swap_bytes();
    if POD {
        let owner = rx.snapshot.target(routes.find4(rx.snapshot, src));
        if owner.endpoint == 0 || owner.port != rx.port {
            return SLOW;
        }
    } else if !routable4(src) {
        return SLOW;
    }
    let target = rx.snapshot.target(routes.find4(rx.snapshot, third.swap_bytes()));
    if !fits(target, len) {
        return SLOW;
    }
    // Less the TTL, and the checksum over it (RFC 1624, equation 3): the lower byte of a word is one less, so the
    // complement of their sum is one more, with the carry coming back at the other end.
    let sum = (second >> 16 & 0xffff) + 1;
    let sum = (sum + u64::from(sum >= 0xffff)) & 0xffff;
    let second = ((second & !0xffff_0000) - 1) | (sum << 16);
    header[22..30].copy_from_slice(&second.to_le_bytes());
    header[..12].copy_from_slice(&target.macs);
    target.port
}

#[inline(always)]
fn forward6<const POD: bool>(rx: &Rx<'_>, routes: &mut RouteCache, data: &mut [u8]) -> u16 {
    let len = data.len();
    let next = data.get(V6).copied();
    let Some(header) = data.first_chunk_mut::<V6>() else {
        return SLOW;
    };
    let fits_in_frame = usize::from(be16(header, 18)) + V6 <= len;
    if !(fits_in_frame && header[21] > 1) {
        return SLOW;
    }
    // Neighbour discovery is never forwarded, whatever its destination.
    if header[20] == protocol::ICMPV6
        && let Some(icmp6::NEIGHBOUR_SOLICITATION | icmp6::NEIGHBOUR_ADVERTISEMENT) = next
    {
        return SLOW;
    }
    let (high, low) = (be64(header, 22), be64(header, 30));
    if POD {
        let owner = rx.snapshot.target(routes.find6(rx.snapshot, high, low));
        if owner.endpoint == 0 || owner.port != rx.port {
            return SLOW;
        }
    } else if !routable6(u128::from(high) << 64 | u128::from(low)) {
        return SLOW;
    }
    let target = rx
        .snapshot
        .target(routes.find6(rx.snapshot, be64(header, 38), be64(header, 46)));
    if !fits(target, len) {
        return SLOW;
    }
    header[21] -= 1;
    header[..12].copy_from_slice(&target.macs);
    target.port
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
