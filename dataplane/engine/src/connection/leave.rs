//! What is done to a packet on its way out: translated, cut to size, put into a tunnel, left to be encrypted.

use octoplane_flow::Tuple;
use octoplane_packet::headers::ETHERNET_LEN;
use octoplane_packet::{BufPool, PacketBuf};
use octoplane_tables::model::Role;
use octoplane_tables::{Action as Way, Target};

use super::state::{Action, flag};
use super::way::{Path, sealing};
use super::{Packet, direct, translate};
use crate::drop_reason::DropReason;
use crate::dsr::{self, Note};
use crate::engine::{Core, Rx};
use crate::observe::Step;
use crate::overlay;
use crate::rate;
use crate::verdict::{Seal, Verdict, send};

/// What a packet is when it leaves, and how it goes.
pub(super) struct Leaving<'a> {
    /// Its addresses and ports.
    pub(super) out: &'a Tuple,
    pub(super) way: Path,
    /// Its sender's identity.
    pub(super) identity: u32,
    /// What goes with it.
    pub(super) note: Note,
    /// Whether it goes one hop further in front of a tunnel.
    pub(super) hop: bool,
}

impl<P: BufPool> Core<P> {
    /// Does with a packet what its connection says.
    pub(super) fn carry_out(
        &self,
        rx: &Rx<'_>,
        buf: &mut P::Buf,
        packet: &Packet,
        out: &Tuple,
        action: Action,
    ) -> Verdict {
        let way = Path {
            number: action.target,
            tunnel: action.flags & flag::ENCAPSULATE != 0,
            encrypt: action.flags & flag::ENCRYPT != 0,
            hop: action.flags & flag::HOP != 0,
        };
        if action.flags & flag::LIMITED != 0 {
            let (target, _) = way.resolve(rx.snapshot);
            if self.explains() {
                self.note_rate(rx, packet, target);
            } else if let Err(reason) = rate::admit(rx, &packet.tuple, target, buf.len()) {
                return Verdict::Drop(reason);
            }
        }
        let note = match action.flags & flag::DIRECT {
            0 => Note::None,
            _ => direct::note(rx.snapshot, packet, out),
        };
        let leaving = Leaving {
            out,
            way,
            identity: action.identity,
            note,
            hop: action.flags & flag::HOP != 0,
        };
        self.leave(rx, buf, packet, leaving, |frame| match note {
            Note::Ipip(_) => Ok(()),
            _ => translate(frame, packet, out),
        })
    }

    /// Sends a packet that `change` makes ready on its way.
    pub(super) fn leave(
        &self,
        rx: &Rx<'_>,
        buf: &mut P::Buf,
        packet: &Packet,
        leaving: Leaving<'_>,
        change: impl FnOnce(&mut [u8]) -> Result<(), DropReason>,
    ) -> Verdict {
        let Leaving {
            out,
            way,
            identity,
            note,
            hop: ages,
        } = leaving;
        let (target, end) = way.resolve(rx.snapshot);
        if way.tunnel && end.is_none_or(|end| end.len == 0) {
            // Without an address of ours there is no tunnel.
            return Verdict::Drop(DropReason::NoTunnelEndpoint);
        }
        let mut target: Target = *target;
        let local = matches!(target.action, Way::None | Way::Local | Way::Host | Way::Gateway);
        if way.encrypt && local {
            // Not by way of the kernel, which would send it as it is.
            return Verdict::Drop(DropReason::Unroutable);
        }
        if !way.tunnel && local {
            // This machine's kernel has it. It is no hop, and takes any size.
            return match change(buf.data_mut()) {
                Err(reason) => Verdict::Drop(reason),
                Ok(()) if rx.view.role == Role::Host => Verdict::Drop(DropReason::Unroutable),
                Ok(()) if target.action == Way::None => Verdict::Punt(DropReason::Unroutable),
                Ok(()) => Verdict::Punt(DropReason::LocalHostUnreachable),
            };
        }
        let size = packet.end - ETHERNET_LEN;
        let around = matches!(note, Note::Ipip(_));
        // A tunnel is no hop by itself.
        let ttl = if way.tunnel && !ages || around {
            u8::MAX
        } else {
            ttl(buf.data(), out.is_v6())
        };
        let sa = match sealing(rx, end, way.tunnel, identity) {
            Ok(sa) => sa,
            Err(reason) => return Verdict::Drop(reason),
        };
        if let Some(((_, sa), node)) = sa.zip(end.and_then(|end| end.addr)) {
            self.note(|| Step::Encrypt {
                node,
                spi: sa.config().spi,
            });
        }
        let tunnel = end.filter(|_| way.tunnel);
        let overhead = tunnel.map_or(0, |end| end.len);
        target.mtu = match sa {
            Some((ipsec, sa)) => ipsec.room(sa, target.mtu, overhead),
            None => target.mtu.saturating_sub(overhead),
        };
        target.mtu = target.mtu.saturating_sub(note.len());
        let seal = sa.map(|(ipsec, sa)| Seal {
            sa: sa.id(),
            port: target.port,
            front: ipsec.front(overhead),
        });
        // Who allows fragments is not told, but cut (RFC 1191).
        let df = buf
            .data()
            .get(ETHERNET_LEN + 6)
            .is_none_or(|flags| flags & 0x40 != 0);
        let may_cut = !out.is_v6() && !df && !way.tunnel && !around && sa.is_none_or(|(ipsec, _)| ipsec.cut);
        // On a link, it is the tunnel's end whose Ethernet address is wanted.
        let hop = end.and_then(|end| end.addr).unwrap_or_else(|| out.dst());
        match self.route(rx, &target, hop, size, ttl, may_cut) {
            Ok(()) => {}
            // It does not wait in vain.
            Err(Verdict::Park(_)) if !around && !translate::is_possible(buf.data(), packet, out) => {
                return Verdict::Drop(DropReason::L4Checksum);
            }
            Err(verdict) => return verdict,
        }
        if !matches!(target.action, Way::Forward | Way::Deliver) {
            return Verdict::Punt(DropReason::LocalHostUnreachable);
        }
        // What stands behind the IP packet need not fit, and is not taken to another node.
        let padding = buf.len() - packet.end;
        let too_large = buf.len() - ETHERNET_LEN > usize::from(target.mtu);
        if (too_large || tunnel.is_some()) && buf.trim_back(padding).is_err() {
            return Verdict::Drop(DropReason::InvalidPacket);
        }
        let changed = change(buf.data_mut()).and_then(|()| match &note {
            Note::None | Note::Geneve(_) => Ok(()),
            Note::Option(front) => dsr::option::insert(buf, front),
            Note::Ipip(dst) => dsr::ipip::encapsulate(buf, size, rx.snapshot.node(), &packet.tuple, *dst),
        });
        if let Err(reason) = changed {
            return Verdict::Drop(reason);
        }
        if let Some(end) = tunnel {
            if ages {
                one_hop_further(buf.data_mut(), out.is_v6());
            }
            let hash = self.flows.table().hash(&packet.tuple);
            let ecn = overlay::traffic_class(buf.data()) & 3;
            let done = match &note {
                Note::Geneve(front) => overlay::encapsulate_direct(buf, end, identity, hash, ecn, front),
                _ => overlay::encapsulate(buf, end, identity, hash, ecn),
            };
            return match done {
                Ok(()) => seal.map_or(Verdict::Send(target.port), Verdict::Seal),
                Err(reason) => Verdict::Drop(reason),
            };
        }
        let frame = buf.data_mut();
        if !around {
            one_hop_further(frame, out.is_v6());
        }
        frame[..12].copy_from_slice(&target.macs);
        match seal {
            Some(seal) if size > usize::from(target.mtu) => Verdict::SealInPieces(seal, target.mtu),
            Some(seal) => Verdict::Seal(seal),
            None => {
                target.mtu = target.mtu.saturating_add(note.len());
                send(&target, size + usize::from(note.len()))
            }
        }
    }
}

fn ttl(frame: &[u8], v6: bool) -> u8 {
    let at = ETHERNET_LEN + if v6 { 7 } else { 8 };
    frame.get(at).copied().unwrap_or(0)
}

/// One less TTL or hop limit.
pub(crate) fn one_hop_further(frame: &mut [u8], v6: bool) {
    let Some(ip) = frame.get_mut(ETHERNET_LEN..) else {
        return;
    };
    if v6 {
        if let Some(hops) = ip.get_mut(7) {
            *hops = hops.wrapping_sub(1);
        }
    } else if let Some([ttl, _, high, low]) = ip.get_mut(8..12) {
        // TTL is the upper byte of its word.
        *ttl = ttl.wrapping_sub(1);
        let sum = octoplane_packet::checksum::update(u16::from_be_bytes([*high, *low]), 0x0100, 0);
        [*high, *low] = sum.to_be_bytes();
    }
}
