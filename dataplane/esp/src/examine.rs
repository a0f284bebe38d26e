//! How an ESP packet is looked at before it is decrypted.

use octoplane_packet::PacketBuf;
use octoplane_packet::headers::protocol;

use crate::cause::Cause;
use crate::ip;
use crate::provider::Span;
use crate::replay::Replay;
use crate::sa::{ESP_HEADER_LEN, Sa, SaId, TRAILER_LEN, UDP_LEN};

/// In [`Job::esp_state`]: the byte that names ESP, and whether UDP is in between.
pub(crate) const UDP: u64 = 1 << 16;

pub(crate) const NAMED_AT: u64 = 0xffff;

/// The parts of a job that the packet determines.
pub(crate) struct Examined {
    pub(crate) session: SaId,
    pub(crate) esp: u16,
    pub(crate) cipher: Span,
    pub(crate) nonce: [u8; 16],
    pub(crate) aad: [u8; 12],
    pub(crate) esn_high: Option<u32>,
    pub(crate) sequence: u64,
    pub(crate) esp_state: u64,
}

/// What the headers in front of ESP say.
pub(crate) struct Outer {
    /// What the security association is found by: SPI, destination, source, mark.
    pub(crate) key: (u32, ip::Addr, ip::Addr, u32),
    /// Lower half of the sequence number.
    pub(crate) low: u32,
    /// Where the ESP header starts, and the ICV ends.
    pub(crate) esp: usize,
    pub(crate) end: usize,
    /// For [`Job::esp_state`].
    pub(crate) state: u64,
}

/// The first look: what the security association is found by.
#[inline]
pub(crate) fn outer(data: &[u8], mark: u32) -> Result<Outer, Cause> {
    let packet = ip::parse(data)?;
    let upper = ip::upper(data, &packet, true)?;
    let mut state = upper.named_at as u64;
    let (esp, end) = match upper.protocol {
        ip::ESP => (upper.offset, packet.len),
        protocol::UDP => {
            state |= UDP;
            in_udp(data, upper.offset, packet.len)?
        }
        _ => return Err(Cause::NotEsp),
    };
    let header: &[u8; ESP_HEADER_LEN] = data
        .get(esp..end)
        .and_then(|data| data.first_chunk())
        .ok_or(Cause::TooShort)?;
    let [s0, s1, s2, s3, n0, n1, n2, n3] = *header;
    let spi = u32::from_be_bytes([s0, s1, s2, s3]);
    Ok(Outer {
        key: (spi, packet.dst, packet.src, mark),
        low: u32::from_be_bytes([n0, n1, n2, n3]),
        esp,
        end,
        state,
    })
}

/// Everything else before the cryptography.
#[inline]
pub(crate) fn examine<B: PacketBuf>(
    sa: &Sa,
    now: u64,
    buf: &mut B,
    outer: &Outer,
) -> Result<Examined, Cause> {
    let Outer {
        low, esp, end, state, ..
    } = *outer;
    if sa.in_udp != (state & UDP != 0) {
        return Err(Cause::Encapsulation);
    }
    if now >= sa.deadline || (sa.limited && sa.over(sa.used())) {
        return Err(Cause::Expired);
    }
    let text = esp + ESP_HEADER_LEN + usize::from(sa.iv_len);
    let cipher_len = end
        .checked_sub(text + usize::from(sa.icv_len))
        .filter(|len| *len >= TRAILER_LEN)
        .ok_or(Cause::TooShort)?;
    if cipher_len % usize::from(sa.alignment) != 0 {
        return Err(Cause::Malformed);
    }
    let sequence = match sa.esn {
        true => sa.state.replay.infer(low).ok_or(Cause::ReplayOld)?,
        false => low.into(),
    };
    sa.state.replay.check(sequence).map_err(Replay::cause)?;
    let data = buf.data();
    let iv = data.get(esp + ESP_HEADER_LEN..text).ok_or(Cause::TooShort)?;
    let nonce = sa.nonce(iv).ok_or(Cause::TooShort)?;
    let excess = data.len() - end;
    if excess > 0 {
        buf.trim_back(excess).map_err(|_| Cause::Malformed)?;
    }
    let (aad, esn_high) = sa.aad(sequence);
    if esn_high.is_some() && buf.tailroom() < 4 {
        return Err(Cause::NoRoom);
    }
    Ok(Examined {
        session: sa.id(),
        esp: esp as u16,
        cipher: Span {
            offset: text as u16,
            len: cipher_len as u16,
        },
        nonce,
        aad,
        esn_high,
        sequence,
        esp_state: state,
    })
}

/// Where ESP starts and ends in a UDP datagram (RFC 3948, section 2).
fn in_udp(data: &[u8], at: usize, end: usize) -> Result<(usize, usize), Cause> {
    let datagram = data.get(at..end).ok_or(Cause::TooShort)?;
    let Some([_, _, _, _, len_high, len_low, _, _]) = datagram.first_chunk::<UDP_LEN>() else {
        return Err(Cause::TooShort);
    };
    let len = usize::from(u16::from_be_bytes([*len_high, *len_low]));
    let payload = datagram.get(UDP_LEN..len).ok_or(Cause::Malformed)?;
    match payload {
        [0xff] => Err(Cause::Keepalive),
        // IKE, behind the marker that no SPI looks like.
        [0, 0, 0, 0, ..] => Err(Cause::NotEsp),
        _ => Ok((at + UDP_LEN, at + len)),
    }
}
