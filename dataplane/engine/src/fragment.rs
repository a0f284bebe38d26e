//! IPv4 packets that are too large for the way out, and whose senders allow to cut them (RFC 791, section 3.2).

use octoplane_packet::checksum::checksum;
use octoplane_packet::headers::{ETHERNET_LEN, Ipv4};
use octoplane_packet::{BufPool, PacketBuf};
use octoplane_tables::model::PortId;
use zerocopy::FromBytes;

use crate::drop_reason::DropReason;
use crate::engine::{Core, Rx};
use crate::output::Output;
use crate::verdict::Seal;

/// Room for an IPv4 header with options.
const MAX_HEADER: usize = 60;

impl<P: BufPool> Core<P> {
    /// Sends the packet in `buf`, ready but for its size, out of `port` in fragments of at most `mtu` bytes each, or not
    /// at all.
    pub(crate) fn send_in_pieces(
        &mut self,
        rx: &Rx<'_>,
        port: PortId,
        mtu: u16,
        buf: P::Buf,
        out: &mut Output<P::Buf>,
    ) {
        let mut pieces = arrayvec::ArrayVec::<P::Buf, MAX_PIECES>::new();
        match self.cut(buf.data(), mtu, &mut pieces) {
            Ok(()) if out.room(port) >= pieces.len() => {
                self.stats.fragmented.add(1);
                for piece in pieces {
                    if let Err(piece) = out.send(port, piece) {
                        out.discard(piece);
                    }
                }
                out.discard(buf);
            }
            outcome => {
                pieces.into_iter().for_each(|piece| out.discard(piece));
                let reason = outcome.err().unwrap_or(DropReason::TxFull);
                self.discard(rx, reason, buf, out);
            }
        }
    }

    /// The same for a packet to be encrypted: each fragment is.
    pub(crate) fn seal_in_pieces(
        &mut self,
        rx: &Rx<'_>,
        seal: Seal,
        mtu: u16,
        buf: P::Buf,
        out: &mut Output<P::Buf>,
    ) {
        let mut pieces = arrayvec::ArrayVec::<P::Buf, MAX_PIECES>::new();
        match self.cut(buf.data(), mtu, &mut pieces) {
            Ok(()) if out.seal.remaining_capacity() >= pieces.len() => {
                self.stats.fragmented.add(1);
                pieces
                    .into_iter()
                    .for_each(|piece| self.seal(rx, piece, seal, out));
                out.discard(buf);
            }
            outcome => {
                pieces.into_iter().for_each(|piece| out.discard(piece));
                let reason = outcome.err().unwrap_or(DropReason::TxFull);
                self.discard(rx, reason, buf, out);
            }
        }
    }

    pub(crate) fn cut(
        &mut self,
        frame: &[u8],
        mtu: u16,
        pieces: &mut arrayvec::ArrayVec<P::Buf, MAX_PIECES>,
    ) -> Result<(), DropReason> {
        let (ethernet, packet) = frame
            .split_at_checked(ETHERNET_LEN)
            .ok_or(DropReason::InvalidPacket)?;
        let (header, _) = Ipv4::ref_from_prefix(packet).map_err(|_| DropReason::InvalidPacket)?;
        let total = usize::from(header.total_len.get());
        let first = packet
            .get(..header.header_len())
            .ok_or(DropReason::InvalidPacket)?;
        let payload = packet.get(first.len()..total).ok_or(DropReason::InvalidPacket)?;
        let mut later = [0; MAX_HEADER];
        let later = later_header(first, &mut later);
        let fragment = header.flags_fragment.get();
        let mut at = 0;
        while at < payload.len() {
            let head = if at == 0 { first } else { &*later };
            // All but the last hold a multiple of eight bytes.
            let most = usize::from(mtu).saturating_sub(head.len()) & !7;
            let size = most.min(payload.len() - at);
            let last = at + size == payload.len();
            if size == 0 {
                return Err(DropReason::FragmentationNeeded);
            }
            let mut buf = self.pool.alloc().ok_or(DropReason::NoBuffer)?;
            let whole = buf
                .append(ETHERNET_LEN + head.len() + size)
                .map_err(|_| DropReason::FragmentationNeeded)?;
            let (link, rest) = whole.split_at_mut(ETHERNET_LEN);
            let (ip, data) = rest.split_at_mut(head.len());
            link.copy_from_slice(ethernet);
            ip.copy_from_slice(head);
            data.copy_from_slice(&payload[at..at + size]);
            if let Ok((header, _)) = Ipv4::mut_from_prefix(&mut *ip) {
                let more = if last { fragment & Ipv4::MF } else { Ipv4::MF };
                let offset = (fragment & Ipv4::OFFSET) + (at / 8) as u16;
                header.flags_fragment.set(more | offset);
                header.total_len.set((head.len() + size) as u16);
                header.checksum.set(0);
            }
            let sum = checksum(ip);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            pieces
                .try_push(buf)
                .map_err(|_| DropReason::FragmentationNeeded)?;
            at += size;
        }
        Ok(())
    }
}

/// Most fragments of one packet: those of a jumbo frame on a path with the smallest MTU of IPv6.
pub const MAX_PIECES: usize = 64;

/// The header of fragments behind the first: only options that say so are copied (RFC 791, section 3.1).
fn later_header<'a>(first: &[u8], later: &'a mut [u8; MAX_HEADER]) -> &'a mut [u8] {
    let fixed = first.len().min(20);
    later[..fixed].copy_from_slice(&first[..fixed]);
    let (mut from, mut to) = (20, 20);
    while let Some(&kind) = first.get(from) {
        let len = match kind {
            0 => break,
            1 => 1,
            _ => first.get(from + 1).map_or(0, |&len| usize::from(len)),
        };
        let Some(option) = first.get(from..from + len).filter(|option| !option.is_empty()) else {
            break;
        };
        if kind & 0x80 != 0 {
            later[to..to + len].copy_from_slice(option);
            to += len;
        }
        from += len;
    }
    let end = to.next_multiple_of(4);
    later[to..end].fill(0);
    later[0] = 0x40 | (end / 4) as u8;
    &mut later[..end]
}
