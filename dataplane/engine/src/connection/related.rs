//! ICMP errors about packets of connections (specification, 2.3 "RELATED", 2.4): they pass without policy, and what they
//! quote is translated back to what its sender knows.

use octoplane_flow::{FlowRef, Tuple};
use octoplane_packet::BufPool;
use octoplane_packet::checksum::{fold, sum};
use octoplane_packet::headers::{IPV4_LEN, IPV6_LEN, icmp4, icmp6, protocol};
use octoplane_tables::model::DsrDispatch;

use super::place::Place;
use super::translate::{adjust, translate_at};
use super::{Leaving, Packet, Part, Sender, Upper, way};
use crate::drop_reason::DropReason;
use crate::dsr::Note;
use crate::engine::{Core, Rx};
use crate::verdict::Verdict;

/// ICMP type, code, checksum and a word.
const ICMP_LEN: usize = 8;
/// Most extension headers with options in a quoted packet.
const MAX_OPTIONS: usize = 8;

impl<P: BufPool> Core<P> {
    /// The direction in which an ICMP error travels, and the packet that it quotes; `None` if it is no error, or about
    /// nothing that is known.
    pub(super) fn related(&self, frame: &[u8], packet: &Packet) -> Option<(FlowRef, Packet)> {
        if !matches!(packet.upper, Upper::IcmpError | Upper::TooBig) || packet.part != Part::Whole {
            return None;
        }
        let quoted = quoted(
            frame.get(..packet.end)?,
            packet.l4 + ICMP_LEN,
            packet.tuple.is_v6(),
        )?;
        // It was about to leave, as we had made it: answers to it arrive with its tuple turned round.
        let back = quoted.tuple.reverse();
        let table = self.flows.table();
        Some((table.find(table.hash(&back), &back)?, quoted))
    }

    /// Sends an ICMP error to whom the packet that it is about came from.
    pub(super) fn pass_on(
        &self,
        rx: &Rx<'_>,
        buf: &mut P::Buf,
        packet: &Packet,
        flow: FlowRef,
        quoted: &Packet,
        sender: Sender,
    ) -> Verdict {
        let table = self.flows.table();
        let Some(original) = table.half(flow.other()).map(|half| half.tuple()) else {
            return Verdict::Drop(DropReason::CtInsertion);
        };
        // Who was talked to is known by the name that was used; a router on the way by its own.
        let src = match packet.tuple.src() == quoted.tuple.dst() {
            true => original.dst(),
            false => packet.tuple.src(),
        };
        let out = Tuple::new(
            src,
            original.src(),
            0,
            0,
            packet.tuple.protocol(),
            packet.tuple.zone(),
        );
        let ip = packet.l4 + ICMP_LEN;
        let place = Place::of(rx.snapshot, out.dst());
        let way = match way(rx, &out, &place, false, sender.identity) {
            Ok((way, _)) => way,
            Err(reason) => return Verdict::Drop(reason),
        };
        if self.is_direct(flow) && rx.snapshot.node().dsr.dispatch == DsrDispatch::Ipip {
            // The backend's node knows the connection as the client does.
            let leaving = Leaving {
                out: &out,
                way,
                identity: sender.identity,
                note: Note::Ipip(out.dst()),
                hop: false,
            };
            return self.leave(rx, buf, packet, leaving, |_| Ok(()));
        }
        let leaving = Leaving {
            out: &out,
            way,
            identity: sender.identity,
            note: Note::None,
            hop: false,
        };
        self.leave(rx, buf, packet, leaving, |frame| {
            let whole = packet.l4..packet.end;
            let message = frame.get(whole.clone()).ok_or(DropReason::InvalidPacket)?;
            let before = fold(sum(message));
            translate_at(frame, ip, quoted, &original)?;
            let message = frame.get_mut(whole).ok_or(DropReason::InvalidPacket)?;
            let after = fold(sum(message));
            adjust(message, 2, u64::from(!before) + u64::from(after))?;
            super::translate(frame, packet, &out)
        })
    }
}

/// Where the upper layer of a quoted IPv6 packet begins, and its protocol: behind options, which a load balancer may have put
/// there (specification, 3.6).
fn upper6(packet: &[u8]) -> Option<(usize, u8)> {
    let (mut at, mut next) = (IPV6_LEN, *packet.get(6)?);
    // Hop-by-hop and destination options.
    for _ in 0..MAX_OPTIONS {
        if !matches!(next, 0 | 60) {
            break;
        }
        let &[following, units] = packet.get(at..)?.first_chunk()?;
        next = following;
        at += usize::from(units) * 8 + 8;
    }
    Some((at, next))
}

/// The packet that an ICMP error quotes, of which at least the first eight bytes of its upper layer are there (RFC 792,
/// RFC 4443). Of fragments only the first can be told.
fn quoted(frame: &[u8], ip: usize, v6: bool) -> Option<Packet> {
    let packet = frame.get(ip..)?;
    let byte = |at: usize| packet.get(at).copied();
    let (len, protocol) = if v6 {
        upper6(packet)?
    } else {
        let len = usize::from(byte(0)? & 0xf) * 4;
        let offset = u16::from_be_bytes([byte(6)?, byte(7)?]) & 0x1fff;
        if offset != 0 || len < IPV4_LEN {
            return None;
        }
        (len, byte(9)?)
    };
    let upper: [u8; 8] = *packet.get(len..)?.first_chunk()?;
    let word = |at: usize| u16::from_be_bytes([upper[at], upper[at + 1]]);
    let (kind, sport, dport) = match (protocol, v6, upper[0]) {
        (protocol::TCP, ..) => (Upper::Tcp(0), word(0), word(2)),
        (protocol::UDP, ..) => (Upper::Udp, word(0), word(2)),
        (protocol::SCTP, ..) => (Upper::Sctp, word(0), word(2)),
        (protocol::ICMP, false, icmp4::ECHO_REQUEST) | (protocol::ICMPV6, true, icmp6::ECHO_REQUEST) => {
            (Upper::Echo, 0, word(4))
        }
        (protocol::ICMP, false, icmp4::ECHO_REPLY) | (protocol::ICMPV6, true, icmp6::ECHO_REPLY) => {
            (Upper::Echo, word(4), 0)
        }
        _ => (Upper::Other, 0, 0),
    };
    let addr4 = |at: usize| {
        let addr = packet.get(at..)?.first_chunk()?;
        Some(u32::from_be_bytes(*addr))
    };
    let half = |at: usize| {
        let half = packet.get(at..)?.first_chunk()?;
        Some(u64::from_be_bytes(*half))
    };
    let tuple = if v6 {
        let (src, dst) = ([half(8)?, half(16)?], [half(24)?, half(32)?]);
        Tuple::v6(src, dst, sport, dport, protocol, 0)
    } else {
        Tuple::v4(addr4(12)?, addr4(16)?, sport, dport, protocol, 0)
    };
    Some(Packet {
        fragment: None,
        tuple,
        upper: kind,
        part: Part::Whole,
        l4: ip + len,
        end: frame.len(),
        port: dport,
    })
}
