//! What becomes of a packet once it was verified and decrypted (RFC 4303, section 3.4.4.1).

use octoplane_packet::headers::protocol;
use octoplane_packet::{PacketBuf, checksum};

use crate::cause::Cause;
use crate::examine::NAMED_AT;
use crate::provider::Span;
use crate::sa::{Mode, Sa};
use crate::{ecn, ip};

/// Turns the decrypted packet into the one that was protected.
#[inline]
pub(crate) fn decapsulate<B: PacketBuf>(
    buf: &mut B,
    sa: &Sa,
    esp: u16,
    cipher: Span,
    state: u64,
) -> Result<(), Cause> {
    let data = buf.data();
    let start = usize::from(cipher.offset);
    let text = data.get(start..cipher.end()).ok_or(Cause::TooShort)?;
    let [payload @ .., padding, next_header] = text else {
        return Err(Cause::TooShort);
    };
    let (padding, next_header) = (usize::from(*padding), *next_header);
    let payload_len = payload.len().checked_sub(padding).ok_or(Cause::Padding)?;
    let (_, padding) = payload.split_at(payload_len);
    if !padding
        .iter()
        .zip(1..=u8::MAX)
        .all(|(byte, expected)| *byte == expected)
    {
        return Err(Cause::Padding);
    }
    match (sa.mode, next_header) {
        (_, ip::NO_NEXT) => Err(Cause::Dummy),
        (Mode::Tunnel, ip::IPV4 | ip::IPV6) => tunnel(buf, sa, start, payload_len, next_header),
        (Mode::Tunnel, _) => Err(Cause::WrongMode),
        (Mode::Transport, _) => transport(buf, sa, esp.into(), start, payload_len, next_header, state),
    }
}

#[inline]
fn tunnel<B: PacketBuf>(
    buf: &mut B,
    sa: &Sa,
    start: usize,
    payload_len: usize,
    next_header: u8,
) -> Result<(), Cause> {
    let data = buf.data();
    let outer_class = ip::class(data).ok_or(Cause::TooShort)?;
    let payload = data.get(start..start + payload_len).ok_or(Cause::TooShort)?;
    let inner = ip::parse(payload).map_err(|_| Cause::Malformed)?;
    if (inner.version == 4) != (next_header == ip::IPV4) {
        return Err(Cause::WrongMode);
    }
    allowed(sa, &inner)?;
    let ecn = match sa.ecn {
        true => ecn::decapsulate(inner.class, outer_class).ok_or(Cause::Ecn)?,
        false => inner.class & ecn::MASK,
    };
    // What is behind the packet inside is padding for traffic flow confidentiality (RFC 4303, section 2.7).
    let behind = data.len() - start - inner.len;
    buf.trim_back(behind).map_err(|_| Cause::Malformed)?;
    buf.trim_front(start).map_err(|_| Cause::Malformed)?;
    if ecn != inner.class & ecn::MASK {
        ip::set_ecn(buf.data_mut(), ecn);
    }
    Ok(())
}

fn transport<B: PacketBuf>(
    buf: &mut B,
    sa: &Sa,
    esp: usize,
    start: usize,
    payload_len: usize,
    next_header: u8,
    state: u64,
) -> Result<(), Cause> {
    let in_udp = sa.in_udp;
    let kept = if in_udp { esp - crate::sa::UDP_LEN } else { esp };
    let behind = buf.len() - start - payload_len;
    buf.trim_back(behind).map_err(|_| Cause::Malformed)?;
    let data = buf.data_mut();
    data.copy_within(..kept, start - kept);
    buf.trim_front(start - kept).map_err(|_| Cause::Malformed)?;
    let data = buf.data_mut();
    ip::rewrite(data, kept, (state & NAMED_AT) as usize, next_header)?;
    let packet = ip::parse(data)?;
    allowed(sa, &packet)?;
    if in_udp {
        fix_checksum(data, &packet, kept, next_header);
    }
    Ok(())
}

/// Whether the packet inside is one that this security association may carry (RFC 4301, section 5.2).
#[inline]
fn allowed(sa: &Sa, inner: &ip::Packet) -> Result<(), Cause> {
    if sa.any_inner || sa.inner.iter().any(|selector| selector.matches(inner)) {
        return Ok(());
    }
    Err(Cause::Selector)
}

/// Translators on the way change the addresses under a checksum that they cannot see: it is made anew, which the integrity
/// check allows (RFC 3948, section 3.1.2).
fn fix_checksum(data: &mut [u8], packet: &ip::Packet, upper: usize, protocol: u8) {
    let at = match protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        _ => return,
    };
    let (src, dst) = (packet.src.to_be_bytes(), packet.dst.to_be_bytes());
    // The mapped form of an IPv4 address has 0xffff in front: only the address itself counts.
    let skip = if packet.version == 4 { 12 } else { 0 };
    let Some(segment) = data.get_mut(upper..packet.len) else {
        return;
    };
    let len = segment.len();
    let Some(field) = segment.get_mut(at..at + 2) else {
        return;
    };
    if protocol == protocol::UDP && field == [0, 0] {
        return;
    }
    field.fill(0);
    let pseudo = checksum::pseudo_header(&src[skip..], &dst[skip..], protocol, len);
    let sum = match !checksum::fold(pseudo + checksum::sum(segment)) {
        0 if protocol == protocol::UDP => 0xffff,
        sum => sum,
    };
    if let Some(field) = segment.get_mut(at..at + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}
