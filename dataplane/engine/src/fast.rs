//! The fast path: plain IPv4 and IPv6 packets for known neighbours and endpoints.
//!
//! Two passes over a burst. `classify` checks headers and looks destinations up, with the loads of many packets in
//! flight; `rewrite` changes headers and sorts by output port. A packet that is not plain is left to the slow path,
//! which starts over with it: the fast path decides nothing that the slow path would decide differently.

use arrayvec::ArrayVec;
use octoplane_packet::checksum::ipv4_header_ok;
use octoplane_packet::headers::{ETHERNET_LEN, ethertype, icmp6, protocol};
use octoplane_packet::{BufPool, ChecksumStatus, PacketBuf};
use octoplane_tables::{Action, Snapshot, Target};

use crate::drop_reason::DropReason;
use crate::engine::{BURST, Core, Rx};
use crate::output::Output;

/// How many packets ahead data is asked for.
const AHEAD: usize = 6;

/// Ethernet and IPv4 without options.
const V4: usize = 34;
/// Ethernet and IPv6.
const V6: usize = 54;

/// What the fast path knows of a packet between its passes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Meta {
    /// Number of the target; 0 (no target) leaves the packet to the slow path.
    target: u32,
    /// Source and destination of an IPv4 packet.
    src: u32,
    dst: u32,
    /// Bytes behind the Ethernet header: the IP packet, and what the sender padded it with.
    size: u16,
    kind: Kind,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Slow,
    V4,
    V6,
}

impl<P: BufPool> Core<P> {
    /// Checks headers and looks destinations up.
    #[inline(always)]
    pub(crate) fn classify<const POD: bool>(&mut self, rx: &Rx<'_>, burst: &ArrayVec<P::Buf, BURST>) -> u64 {
        for buf in burst.iter().take(AHEAD) {
            buf.prefetch();
        }
        // First eight bytes of a frame to us, as the loop compares them.
        let [a, b, c, d, e, f] = rx.view.mac.0;
        let ours = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        let mut bytes = 0;
        for (index, (buf, meta)) in burst.iter().zip(&mut self.metas).enumerate() {
            if let Some(next) = burst.get(index + AHEAD) {
                next.prefetch();
            }
            bytes += buf.len() as u64;
            *meta = one::<POD, P::Buf>(buf, ours);
        }
        // A loop of its own: with nothing between them, the lookups of many packets are in flight at once.
        for (buf, meta) in burst.iter().zip(&mut self.metas) {
            meta.target = find::<POD, P::Buf>(rx, buf, meta);
        }
        bytes
    }

    /// Rewrites what `classify` found plain and hands the rest to the slow path. Returns how many those were.
    #[inline(always)]
    pub(crate) fn rewrite(
        &mut self,
        rx: &Rx<'_>,
        burst: &mut ArrayVec<P::Buf, BURST>,
        out: &mut Output<P::Buf>,
    ) -> u64 {
        let (mut fast, mut bytes) = (0, 0);
        let mut ports = [SLOW; BURST];
        let mut first = None;
        let mut same = true;
        for ((buf, meta), way) in burst.iter_mut().zip(&self.metas).zip(&mut ports) {
            let target = rx.snapshot.target(meta.target);
            let usable =
                matches!(target.action, Action::Forward | Action::Deliver) && meta.size <= target.mtu;
            if !usable {
                same = false;
                continue;
            }
            let data = buf.data_mut();
            bytes += data.len() as u64;
            if meta.kind == Kind::V4 {
                let Some(header) = data.first_chunk_mut::<V4>() else {
                    continue;
                };
                decrement_ttl(header);
                set_macs(header, target);
            } else {
                let Some(header) = data.first_chunk_mut::<V6>() else {
                    continue;
                };
                header[21] -= 1;
                set_macs(header, target);
            }
            fast += 1;
            *way = target.port;
            same &= target.port == *first.get_or_insert(target.port);
        }
        self.stats.fast.packets.add(fast);
        self.stats.fast.bytes.add(bytes);
        let slow = burst.len() as u64 - fast;
        if let Some(port) = first
            && same
        {
            out.send_all(port, burst);
        }
        for (buf, port) in burst.drain(..).zip(ports) {
            if port == SLOW {
                self.slow(rx, buf, out);
            } else if let Err(buf) = out.send(port, buf) {
                self.discard(rx, DropReason::TxFull, buf, out);
            }
        }
        slow
    }
}

/// In place of a port: not for the fast path.
const SLOW: u16 = u16::MAX;

#[inline(always)]
fn set_macs<const N: usize>(header: &mut [u8; N], target: &Target) {
    if let Some(macs) = header.first_chunk_mut::<12>() {
        *macs = target.macs;
    }
}

/// The TTL and the checksum over it (RFC 1624); TTL is the upper byte of its 16-bit word.
#[inline(always)]
fn decrement_ttl(header: &mut [u8; V4]) {
    header[22] = header[22].wrapping_sub(1);
    // Equation 3 with ~m + m' = 0xffff - 0x0100, whatever the TTL was.
    let sum = u16::from_be_bytes([header[24], header[25]]);
    let (sum, carry) = (!sum).overflowing_add(0xfeff);
    let [high, low] = (!(sum + u16::from(carry))).to_be_bytes();
    header[24] = high;
    header[25] = low;
}

#[inline(always)]
fn find<const POD: bool, B: PacketBuf>(rx: &Rx<'_>, buf: &B, meta: &Meta) -> u32 {
    match meta.kind {
        Kind::V4 if !POD || may_send4(rx.snapshot, meta.src, rx) => rx.snapshot.find4(meta.dst),
        Kind::V6 => match buf.data().first_chunk::<V6>() {
            Some(header) if !POD || may_send6(rx.snapshot, be128(header, 22), rx) => {
                rx.snapshot.find6(be128(header, 38))
            }
            _ => 0,
        },
        _ => 0,
    }
}

#[inline(always)]
fn one<const POD: bool, B: PacketBuf>(buf: &B, ours: u64) -> Meta {
    let data = buf.data();
    let Some(header) = data.first_chunk::<V4>() else {
        return Meta::default();
    };
    // Towards pods every frame is for us: their one route is the gateway. Elsewhere the address decides.
    let for_us = POD || le64(header, 0) << 16 == ours << 16;
    if !(for_us && buf.is_contiguous()) {
        return Meta::default();
    }
    let kind = le32(header, 12);
    if kind & 0x00ff_ffff == TYPE_V4 {
        plain4::<POD, B>(buf, header)
    } else if kind & 0x00f0_ffff == TYPE_V6 {
        let Some(header) = data.first_chunk::<V6>() else {
            return Meta::default();
        };
        plain6::<POD, B>(buf, header)
    } else {
        Meta::default()
    }
}

/// Ethernet type, version and header length as they stand in a frame, read with the least significant byte first.
const TYPE_V4: u32 = (ethertype::IPV4.swap_bytes() as u32) | 0x45 << 16;
const TYPE_V6: u32 = (ethertype::IPV6.swap_bytes() as u32) | 0x60 << 16;

#[inline(always)]
fn plain4<const POD: bool, B: PacketBuf>(buf: &B, header: &[u8; V4]) -> Meta {
    let total = be16(header, 16);
    let Some(ip) = header.last_chunk::<20>() else {
        return Meta::default();
    };
    let status = buf.ip_checksum_status();
    let sum = status == ChecksumStatus::Good || (status != ChecksumStatus::Bad && ipv4_header_ok(ip));
    let (src, dst) = (be32(header, 26), be32(header, 30));
    // A pod's own addresses were checked when it got them.
    let routable = (POD || routable4(src)) && routable4(dst);
    if sum && routable && total >= 20 && usize::from(total) + 14 <= buf.len() && header[22] > 1 {
        Meta {
            target: 0,
            src,
            dst,
            size: behind_ethernet(buf),
            kind: Kind::V4,
        }
    } else {
        Meta::default()
    }
}

#[inline(always)]
fn plain6<const POD: bool, B: PacketBuf>(buf: &B, header: &[u8; V6]) -> Meta {
    let payload = be16(header, 18);
    let fits = usize::from(payload) + V6 <= buf.len();
    if !(fits && header[21] > 1) {
        return Meta::default();
    }
    // Neighbour discovery is never forwarded, whatever its destination.
    if header[20] == protocol::ICMPV6
        && let Some(&(icmp6::NEIGHBOUR_SOLICITATION | icmp6::NEIGHBOUR_ADVERTISEMENT)) = buf.data().get(V6)
    {
        return Meta::default();
    }
    if !((POD || routable6(be128(header, 22))) && routable6(be128(header, 38))) {
        return Meta::default();
    }
    Meta {
        target: 0,
        src: 0,
        dst: 0,
        size: behind_ethernet(buf),
        kind: Kind::V6,
    }
}

#[inline(always)]
fn behind_ethernet<B: PacketBuf>(buf: &B) -> u16 {
    u16::try_from(buf.len() - ETHERNET_LEN).unwrap_or(u16::MAX)
}

/// Whether packets from or to this address are forwarded: not "this network", loopback, multicast, reserved or
/// broadcast (RFC 1812, sections 4.2.2.11 and 5.3.7), even if a default route covers it.
#[inline(always)]
pub(crate) fn routable4(addr: u32) -> bool {
    let net = addr >> 24;
    net.wrapping_sub(1) < 223 && net != 127
}

/// The same for IPv6: not multicast, link-local, unspecified or loopback (RFC 4291, section 2).
#[inline(always)]
pub(crate) fn routable6(addr: u128) -> bool {
    addr >> 120 != 0xff && addr >> 118 != 0x3fa && addr > 1
}

/// Whether an endpoint behind the receiving port owns this source address (specification, 1.2 step 7).
#[inline(always)]
pub(crate) fn may_send4(snapshot: &Snapshot, src: u32, rx: &Rx<'_>) -> bool {
    let owner = snapshot.route4(src);
    owner.endpoint != 0 && owner.port == rx.port
}

/// The same for IPv6.
#[inline(always)]
pub(crate) fn may_send6(snapshot: &Snapshot, src: u128, rx: &Rx<'_>) -> bool {
    let owner = snapshot.route6(src);
    owner.endpoint != 0 && owner.port == rx.port
}

#[inline(always)]
fn be16<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline(always)]
fn be32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline(always)]
fn le32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline(always)]
fn le64<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from_le_bytes([
        bytes[at],
        bytes[at + 1],
        bytes[at + 2],
        bytes[at + 3],
        bytes[at + 4],
        bytes[at + 5],
        bytes[at + 6],
        bytes[at + 7],
    ])
}

#[inline(always)]
fn be64<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from(be32(bytes, at)) << 32 | u64::from(be32(bytes, at + 4))
}

#[inline(always)]
fn be128<const N: usize>(bytes: &[u8; N], at: usize) -> u128 {
    u128::from(be64(bytes, at)) << 64 | u128::from(be64(bytes, at + 8))
}
