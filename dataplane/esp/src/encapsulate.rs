//! How a packet becomes ESP: what can be decided before it has a sequence number, and what is written when it has.

use octoplane_packet::headers::protocol;
use octoplane_packet::{PacketBuf, checksum};

use crate::cause::Cause;
use crate::groups::Groups;
use crate::ip::{self, Inner};
use crate::outbound::ToEncrypt;
use crate::provider::Span;
use crate::sa::{Direction, ESP_HEADER_LEN, Mode, Sa, TRAILER_LEN, UDP_LEN, Used, udp_header};
use crate::sequence::NoNumbers;

/// What the first look at a packet found.
pub(crate) struct Plan {
    group: u8,
    /// For the trailer.
    next_header: u8,
    padding: u8,
    inner: Inner,
    /// Bytes before what is encrypted: 0 in tunnel mode, the headers in transport mode.
    kept: u16,
    /// The byte that names the protocol behind those.
    named_at: u16,
}

/// A group's share of what all workers share.
pub(crate) struct Share<'a> {
    pub(crate) sa: &'a Sa,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) sequence: std::ops::Range<u64>,
    /// Bytes used before this burst, then before the next packet of it.
    pub(crate) used: u64,
}

/// In [`Job::esp_state`]: the UDP checksum has to be made. IPv6 knows no UDP without one, and Linux insists.
pub(crate) const UDP_CHECKSUM: u64 = 1;

/// The first look: everything that does not need a sequence number.
#[inline]
pub(crate) fn plan<'a, B: PacketBuf>(
    sa: Option<&'a Sa>,
    now: u64,
    packet: &ToEncrypt<B>,
    groups: &mut Groups<Share<'a>>,
) -> Result<Plan, Cause> {
    let sa = sa.ok_or(Cause::NoSa)?;
    if sa.direction != Direction::Outbound {
        return Err(Cause::NoSa);
    }
    if now >= sa.deadline {
        return Err(Cause::Expired);
    }
    let data = packet.buf.data();
    let inner = ip::parse(data)?;
    // With an outer header it must not be above 65,535 bytes, and an IPv6 packet may be.
    if inner.len > usize::from(u16::MAX) {
        return Err(Cause::TooLarge);
    }
    let (kept, named_at, next_header) = match sa.mode {
        Mode::Tunnel if inner.version == 4 => (0, 0, ip::IPV4),
        Mode::Tunnel => (0, 0, ip::IPV6),
        Mode::Transport => {
            let upper = ip::upper(data, &inner, false)?;
            (upper.offset, upper.named_at, upper.protocol)
        }
    };
    let text = inner.len - kept + TRAILER_LEN;
    let padded = text.next_multiple_of(sa.alignment.into());
    let new = || Share {
        sa,
        packets: 0,
        bytes: 0,
        sequence: 0..0,
        used: 0,
    };
    let group = groups.of(packet.sa, new).ok_or(Cause::Malformed)?;
    let share = groups.get_mut(group).ok_or(Cause::Malformed)?;
    share.packets += 1;
    share.bytes += padded as u64;
    Ok(Plan {
        group: group as u8,
        next_header,
        padding: (padded - text) as u8,
        inner: Inner {
            version: inner.version,
            class: inner.class,
            flags_fragment: inner.flags_fragment,
            len: inner.len as u16,
        },
        kept: kept as u16,
        named_at: named_at as u16,
    })
}

/// The parts of a job that the packet determines.
pub(crate) struct Built {
    pub(crate) esp: u16,
    pub(crate) cipher: Span,
    pub(crate) nonce: [u8; 16],
    pub(crate) aad: [u8; 12],
    pub(crate) esn_high: Option<u32>,
    pub(crate) sequence: u64,
    pub(crate) state: u64,
}

#[inline]
pub(crate) fn build<B: PacketBuf>(
    buf: &mut B,
    plan: Result<Plan, Cause>,
    groups: &mut Groups<Share<'_>>,
) -> Result<Built, Cause> {
    let plan = plan?;
    let share = groups.get_mut(plan.group.into()).ok_or(Cause::NoSa)?;
    let sa = share.sa;
    let (inner_len, kept, padding) = (
        usize::from(plan.inner.len),
        usize::from(plan.kept),
        usize::from(plan.padding),
    );
    let cipher_len = inner_len - kept + padding + TRAILER_LEN;
    // Each packet has its own place in the count, whatever other workers do: hard limits are exact.
    let bytes = share.used;
    share.used += cipher_len as u64;
    let sequence = share
        .sequence
        .next()
        .ok_or_else(|| match sa.state.sequence.why_none() {
            NoNumbers::Exhausted => Cause::SequenceExhausted,
            NoNumbers::NotReserved => Cause::SequenceNotReserved,
        })?;
    let packets = sa.state.given(sequence);
    if sa.over(Used { bytes, packets }) {
        return Err(Cause::Expired);
    }

    let (outer_len, udp_len) = match (&sa.outer, sa.in_udp) {
        (Some(outer), _) => (outer.len(), 0),
        (None, true) => (kept, UDP_LEN),
        (None, false) => (kept, 0),
    };
    let (iv_len, icv_len) = (usize::from(sa.iv_len), usize::from(sa.icv_len));
    let esp = outer_len + udp_len;
    let text = esp + ESP_HEADER_LEN + iv_len;
    let icv = text + cipher_len;
    let total = icv + icv_len;
    if total > usize::from(u16::MAX) {
        return Err(Cause::TooLarge);
    }
    let room = |_| Cause::NoRoom;
    let excess = buf.len() - inner_len;
    if excess > 0 {
        buf.trim_back(excess).map_err(room)?;
    }
    buf.prepend(text - kept).map_err(room)?;
    let tail = padding + TRAILER_LEN + icv_len;
    buf.append(tail).map_err(room)?;
    let (aad, esn_high) = sa.aad(sequence);
    if esn_high.is_some() && buf.tailroom() < 4 {
        return Err(Cause::NoRoom);
    }

    let data = buf.data_mut();
    let mut state = 0;
    if let Some(outer) = &sa.outer {
        outer.write(data, &plan.inner, sequence as u16)?;
        if sa.in_udp && outer.is_ipv6() {
            state |= UDP_CHECKSUM;
        }
    } else {
        let front = text - kept;
        data.copy_within(front..front + kept, 0);
        let next = if sa.in_udp { protocol::UDP } else { ip::ESP };
        ip::rewrite(data, kept, plan.named_at.into(), next)?;
        if let Some(ports) = sa.config().nat_traversal {
            let mut header = udp_header(ports);
            header[4..6].copy_from_slice(&((total - kept) as u16).to_be_bytes());
            data.get_mut(kept..esp)
                .ok_or(Cause::NoRoom)?
                .copy_from_slice(&header);
            if plan.inner.version == 6 {
                state |= UDP_CHECKSUM;
            }
        }
    }
    let iv = sa.iv(sequence);
    let header = data.get_mut(esp..text).ok_or(Cause::NoRoom)?;
    header[..4].copy_from_slice(&sa.spi.to_be_bytes());
    header[4..8].copy_from_slice(&(sequence as u32).to_be_bytes());
    // Lengths that the compiler knows are two stores, others a call.
    if let Some(short) = header[8..].first_chunk_mut::<8>().filter(|_| iv_len == 8) {
        short.copy_from_slice(&iv[..8]);
    } else if let Some(long) = header[8..].first_chunk_mut::<16>() {
        *long = iv;
    }
    let trailer = data
        .get_mut(icv - TRAILER_LEN - padding..icv)
        .ok_or(Cause::NoRoom)?;
    for (byte, value) in trailer.iter_mut().zip(1..=plan.padding) {
        *byte = value;
    }
    trailer[padding] = plan.padding;
    trailer[padding + 1] = plan.next_header;
    Ok(Built {
        esp: esp as u16,
        cipher: Span {
            offset: text as u16,
            len: cipher_len as u16,
        },
        nonce: sa.nonce_for(&iv),
        aad,
        esn_high,
        sequence,
        state,
    })
}

/// Makes the checksum of an IPv6 packet's UDP datagram, once all of it is there.
pub(crate) fn udp6_checksum(data: &mut [u8]) -> Result<(), Cause> {
    let packet = ip::parse(data)?;
    let upper = ip::upper(data, &packet, false)?;
    let (src, dst) = (packet.src.to_be_bytes(), packet.dst.to_be_bytes());
    let datagram = data.get_mut(upper.offset..packet.len).ok_or(Cause::Malformed)?;
    let pseudo = checksum::pseudo_header(&src, &dst, protocol::UDP, datagram.len());
    let sum = match !checksum::fold(pseudo + checksum::sum(datagram)) {
        0 => 0xffff,
        sum => sum,
    };
    let field = datagram.get_mut(6..8).ok_or(Cause::Malformed)?;
    field.copy_from_slice(&sum.to_be_bytes());
    Ok(())
}
