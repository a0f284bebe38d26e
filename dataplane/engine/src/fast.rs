//! The fast path: plain IPv4 and IPv6 packets for known neighbours and endpoints.
//!
//! Two passes over a burst. `classify` checks headers and looks destinations up, with the loads of many packets in
//! flight; `rewrite` changes headers and sorts by output port. A packet that is not plain is left to the slow path,
//! which starts over with it: the fast path decides nothing that the slow path would decide differently.

use arrayvec::ArrayVec;
use octoplane_packet::checksum::{ipv4_header_ok, update};
use octoplane_packet::headers::{ETHERNET_LEN, ethertype, icmp6, protocol};
use octoplane_packet::{BufPool, ChecksumStatus, PacketBuf};
use octoplane_tables::{Action, Snapshot};

use crate::drop_reason::DropReason;
use crate::engine::{BURST, Core, Rx};
use crate::output::Output;

/// How many packets ahead data is asked for.
const AHEAD: usize = 6;

/// Ethernet and IPv4 without options.
const V4: usize = 34;
/// Ethernet and IPv6.
const V6: usize = 54;

/// What the fast path knows of a packet between its two passes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Meta {
    /// Number of the target; 0 (no target) leaves the packet to the slow path.
    target: u32,
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
    pub(crate) fn classify<const POD: bool>(&mut self, rx: &Rx<'_>, burst: &ArrayVec<P::Buf, BURST>) {
        for buf in burst.iter().take(AHEAD) {
            buf.prefetch();
        }
        // First eight bytes of a frame to us, as the loop compares them.
        let ours = u64::from_be_bytes([
            rx.view.mac.0[0],
            rx.view.mac.0[1],
            rx.view.mac.0[2],
            rx.view.mac.0[3],
            rx.view.mac.0[4],
            rx.view.mac.0[5],
            0,
            0,
        ]);
        for (index, (buf, meta)) in burst.iter().zip(&mut self.metas).enumerate() {
            if let Some(next) = burst.get(index + AHEAD) {
                next.prefetch();
            }
            *meta = one::<POD, P::Buf>(rx, buf, ours);
        }
    }

    /// Rewrites what `classify` found plain and hands the rest to the slow path. Returns how many those were.
    #[inline(always)]
    pub(crate) fn rewrite(
        &mut self,
        rx: &Rx<'_>,
        burst: &mut ArrayVec<P::Buf, BURST>,
        out: &mut Output<P::Buf>,
    ) -> u64 {
        let (mut fast, mut bytes, mut slow) = (0, 0, 0);
        for (index, mut buf) in burst.drain(..).enumerate() {
            let meta = self.metas[index % BURST];
            let target = rx.snapshot.target(meta.target);
            let usable =
                matches!(target.action, Action::Forward | Action::Deliver) && meta.size <= target.mtu;
            if !usable {
                slow += 1;
                self.slow(rx, buf, out);
                continue;
            }
            let data = buf.data_mut();
            bytes += data.len() as u64;
            match meta.kind {
                Kind::V4 => {
                    let Some(header) = data.first_chunk_mut::<V4>() else {
                        continue;
                    };
                    decrement_ttl(header);
                }
                Kind::V6 => {
                    let Some(header) = data.first_chunk_mut::<V6>() else {
                        continue;
                    };
                    header[21] -= 1;
                }
                Kind::Slow => {}
            }
            if let Some(macs) = data.first_chunk_mut::<12>() {
                *macs = target.macs;
            }
            fast += 1;
            if let Err(buf) = out.send(target.port, buf) {
                self.discard(rx, DropReason::TxFull, buf, out);
            }
        }
        self.stats.fast.packets.add(fast);
        self.stats.fast.bytes.add(bytes);
        slow
    }
}

/// The TTL and the checksum over it (RFC 1624); TTL is the upper byte of its 16-bit word.
#[inline(always)]
fn decrement_ttl(header: &mut [u8; V4]) {
    let old = u16::from_be_bytes([header[22], header[23]]);
    let sum = u16::from_be_bytes([header[24], header[25]]);
    let new = old.wrapping_sub(0x0100);
    header[22] = header[22].wrapping_sub(1);
    let [high, low] = update(sum, old, new).to_be_bytes();
    header[24] = high;
    header[25] = low;
}

#[inline(always)]
fn one<const POD: bool, B: PacketBuf>(rx: &Rx<'_>, buf: &B, ours: u64) -> Meta {
    let data = buf.data();
    let Some(header) = data.first_chunk::<V4>() else {
        return Meta::default();
    };
    // Towards pods every frame is for us: their one route is the gateway. Elsewhere the address decides.
    let for_us = POD || be64(header, 0) & !0xffff == ours;
    let kind = be32(header, 12);
    if kind >> 8 == u32::from(ethertype::IPV4) << 8 | 0x45 && for_us {
        plain4::<POD, B>(rx, buf, header)
    } else if kind >> 12 == u32::from(ethertype::IPV6) << 4 | 6 && for_us {
        let Some(header) = data.first_chunk::<V6>() else {
            return Meta::default();
        };
        plain6::<POD, B>(rx, buf, header)
    } else {
        Meta::default()
    }
}

#[inline(always)]
fn plain4<const POD: bool, B: PacketBuf>(rx: &Rx<'_>, buf: &B, header: &[u8; V4]) -> Meta {
    let total = be16(header, 16);
    let fits = total >= 20 && usize::from(total) + 14 <= buf.len();
    let ttl = header[22] > 1;
    let Some(ip) = header.last_chunk::<20>() else {
        return Meta::default();
    };
    let sum = match buf.ip_checksum_status() {
        ChecksumStatus::Good => true,
        ChecksumStatus::Unknown => ipv4_header_ok(ip),
        ChecksumStatus::Bad => false,
    };
    if !(fits && ttl && sum && buf.is_contiguous()) {
        return Meta::default();
    }
    let (src, dst) = (be32(header, 26), be32(header, 30));
    // A pod's own addresses were checked when it got them.
    let may_send = if POD {
        may_send4(rx.snapshot, src, rx)
    } else {
        routable4(src)
    };
    if !(may_send && routable4(dst)) {
        return Meta::default();
    }
    Meta {
        target: rx.snapshot.find4(dst),
        size: behind_ethernet(buf),
        kind: Kind::V4,
    }
}

#[inline(always)]
fn plain6<const POD: bool, B: PacketBuf>(rx: &Rx<'_>, buf: &B, header: &[u8; V6]) -> Meta {
    let payload = be16(header, 18);
    let fits = usize::from(payload) + V6 <= buf.len();
    if !(fits && header[21] > 1 && buf.is_contiguous()) {
        return Meta::default();
    }
    // Neighbour discovery is never forwarded, whatever its destination.
    if header[20] == protocol::ICMPV6
        && let Some(&(icmp6::NEIGHBOUR_SOLICITATION | icmp6::NEIGHBOUR_ADVERTISEMENT)) = buf.data().get(V6)
    {
        return Meta::default();
    }
    let (src, dst) = (be128(header, 22), be128(header, 38));
    let may_send = if POD {
        may_send6(rx.snapshot, src, rx)
    } else {
        routable6(src)
    };
    if !(may_send && routable6(dst)) {
        return Meta::default();
    }
    Meta {
        target: rx.snapshot.find6(dst),
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
fn be64<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from(be32(bytes, at)) << 32 | u64::from(be32(bytes, at + 4))
}

#[inline(always)]
fn be128<const N: usize>(bytes: &[u8; N], at: usize) -> u128 {
    u128::from(be64(bytes, at)) << 64 | u128::from(be64(bytes, at + 8))
}
