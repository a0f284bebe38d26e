//! What becomes of a packet that the slow path looked at, and having it come about.

use octoplane_esp::SaId;
use octoplane_packet::headers::Ethernet;
use octoplane_packet::{BufPool, PacketBuf};
use octoplane_tables::Target;
use octoplane_tables::model::PortId;
use zerocopy::{FromBytes, IntoBytes};

use Verdict::{Drop, Punt, Refuse};

use crate::connection;
use crate::drop_reason::DropReason;
use crate::engine::{Core, Rx};
use crate::icmp::{Error, is_unwrapped};
use crate::output::{Output, ToSeal};
use crate::parking::Awaited;

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Sent, as it is now, out of a port.
    Send(PortId),
    /// Encrypted, and then sent.
    Seal(Seal),
    /// The same, in fragments of this size.
    SealInPieces(Seal, u16),
    /// Decrypted, and then looked at again.
    Open,
    /// Sent, as it is now, in fragments of this size.
    SendInPieces(PortId, u16),
    /// Dropped and counted.
    Drop(DropReason),
    /// Dropped and counted, and its sender is told.
    Refuse(DropReason, Error),
    /// The same for a packet that came in a tunnel: its sender is told through that.
    RefuseInner(DropReason, Error),
    /// For the kernel; dropped for this reason if there is no way to it.
    Punt(DropReason),
    /// It ends here as it should.
    Consumed,
    /// An answer was made of it.
    Answer,
    /// It waits for something.
    Park(Awaited),
    /// The same for one that came out of a tunnel, from a sender of this identity.
    ParkInner(Awaited, u32),
}

/// How a frame is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seal {
    /// With which security association.
    pub(crate) sa: SaId,
    /// The port it leaves by.
    pub(crate) port: PortId,
    /// Bytes in front of what is encrypted.
    pub(crate) front: u16,
}

impl<P: BufPool> Core<P> {
    /// Does with a packet what was decided.
    pub(crate) fn finish(
        &mut self,
        rx: &Rx<'_>,
        mut verdict: Verdict,
        mut buf: P::Buf,
        out: &mut Output<P::Buf>,
    ) {
        let host = matches!(verdict, Punt(_));
        if let Punt(otherwise) = verdict {
            verdict = self.punt(rx, &mut buf, otherwise);
        }
        self.note_fate(verdict, host);
        let port = match verdict {
            Verdict::Send(port) => port,
            Verdict::Seal(seal) => return self.seal(rx, buf, seal, out),
            Verdict::SealInPieces(seal, mtu) => return self.seal_in_pieces(rx, seal, mtu, buf, out),
            Verdict::Open => return self.open(rx, buf, out),
            Verdict::Answer => {
                self.stats.answered.add(1);
                // Its Ethernet header has been turned round.
                let back = buf.data().first_chunk().copied().unwrap_or_default();
                if is_unwrapped(rx, back) {
                    let Some(asker) = connection::destination(buf.data()) else {
                        return out.discard(buf);
                    };
                    self.send_routed(rx, buf, asker, out);
                    return;
                }
                rx.port
            }
            Refuse(reason, error) => {
                self.icmp_error(rx, buf.data(), error, false, out);
                return self.discard(rx, reason, buf, out);
            }
            Verdict::RefuseInner(reason, error) => {
                self.icmp_error(rx, buf.data(), error, true, out);
                return self.discard(rx, reason, buf, out);
            }
            Drop(reason) | Punt(reason) => return self.discard(rx, reason, buf, out),
            Verdict::Consumed => {
                self.stats.consumed.add(1);
                return out.discard(buf);
            }
            Verdict::SendInPieces(port, mtu) => return self.send_in_pieces(rx, port, mtu, buf, out),
            Verdict::Park(awaited) => return self.park(rx, awaited, None, buf, out),
            Verdict::ParkInner(awaited, identity) => {
                return self.park(rx, awaited, Some(identity), buf, out);
            }
        };
        if let Err(buf) = out.send(port, buf) {
            self.discard(rx, DropReason::TxFull, buf, out);
        }
    }

    /// Leaves a frame to be encrypted.
    pub(crate) fn seal(&self, rx: &Rx<'_>, buf: P::Buf, seal: Seal, out: &mut Output<P::Buf>) {
        let Seal { sa, port, front } = seal;
        if let Err(full) = out.seal.try_push(ToSeal { buf, sa, port, front }) {
            self.discard(rx, DropReason::TxFull, full.element().buf, out);
        }
    }

    /// Leaves a frame to be decrypted.
    pub(crate) fn open(&self, rx: &Rx<'_>, buf: P::Buf, out: &mut Output<P::Buf>) {
        if let Err(full) = out.open.try_push((rx.port, buf)) {
            self.discard(rx, DropReason::TxFull, full.element().1, out);
        }
    }

    /// Hands a packet to the kernel: as many a second as the configuration allows, so that a flood of them cannot
    /// starve forwarding.
    fn punt(&mut self, rx: &Rx<'_>, buf: &mut P::Buf, otherwise: DropReason) -> Verdict {
        let Some((id, port)) = rx
            .snapshot
            .host_port()
            .and_then(|id| rx.snapshot.port(id).map(|port| (id, port)))
        else {
            return Drop(otherwise);
        };
        if !port.admin_up {
            return Drop(DropReason::NoDevice);
        }
        if !self.exceptions.allow(rx.now) {
            return Drop(DropReason::RateLimited);
        }
        let kernel = self.host_mac.get().unwrap_or(port.mac);
        if let Ok((ethernet, _)) = Ethernet::mut_from_prefix(buf.data_mut())
            && ethernet.dst[0] & 1 == 0
        {
            ethernet.dst.as_mut_bytes().copy_from_slice(&kernel.0);
        }
        self.stats.punted.add(1);
        Verdict::Send(id)
    }
}

/// Sends a packet of `size` bytes that is ready to its target, in pieces if it is too large.
pub(crate) fn send(target: &Target, size: usize) -> Verdict {
    if size > usize::from(target.mtu) {
        Verdict::SendInPieces(target.port, target.mtu)
    } else {
        Verdict::Send(target.port)
    }
}
