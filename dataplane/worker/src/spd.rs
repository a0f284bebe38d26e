//! Policies (RFC 4301, section 5), between the engine and the uplinks: what leaves by them is encrypted, dropped or let go as the
//! outbound ones say, and what comes in has to have come as the inbound ones say. Packets are looked at as they are on the wire:
//! routed, translated, in tunnels.

use dpdk::mempool::MbufAllocator;
use dpdk::{ArrayVec, Mbuf};
use octoplane_engine::{
    BURST, Counter, Departure, Direction, DropReason, Engine, MAX_PIECES, Output, PORT_QUEUE, PolicyOptions,
    WayOut,
};
use octoplane_esp::view::{Action, Selected};
use octoplane_esp::{Snapshot, ToEncrypt};
use octoplane_packet::PacketBuf;
use octoplane_packet::headers::{ETHERNET_LEN, ethertype};
use octoplane_tables::model::{MAX_PORTS, PortId, Role};

use crate::ipsec::{IpsecStage, cookie, ethernet};

/// In the last word of a cookie: the packet is encrypted because of a policy, and finds its way by its new header.
const BY_POLICY: u64 = 1 << 32;
/// Errors about packets that were too large, at a time: more are not told.
const ERRORS: usize = 64;

/// What a worker needs to follow policies.
pub(crate) struct Protection {
    options: PolicyOptions,
    /// Packets in each port's queue that need not be looked at any more.
    settled: [u16; MAX_PORTS],
    /// Errors to send, with the ports that packets would have left by.
    errors: ArrayVec<(PortId, Mbuf), ERRORS>,
    // Empty between calls.
    frames: ArrayVec<Mbuf, PORT_QUEUE>,
    pieces: ArrayVec<Mbuf, MAX_PIECES>,
}

impl Protection {
    pub(crate) fn is_busy(&self) -> bool {
        !self.errors.is_empty()
    }

    /// The queues will be empty.
    pub(crate) fn start_over(&mut self) {
        self.settled.fill(0);
    }
}

/// Where the IP packet in a frame begins, behind VLAN tags, too; `None` if there is none.
fn ip_at(frame: &[u8]) -> Option<usize> {
    let mut at = ETHERNET_LEN;
    loop {
        let kind = frame.get(at - 2..at)?.first_chunk::<2>()?;
        match u16::from_be_bytes(*kind) {
            ethertype::IPV4 | ethertype::IPV6 => return Some(at),
            ethertype::VLAN | ethertype::QINQ => at += 4,
            _ => return None,
        }
    }
}

/// Whether a policy is the reason for a packet to be encrypted.
pub(crate) fn is_by_policy([_, _, last]: [u64; 3]) -> bool {
    last & BY_POLICY != 0
}

/// Whether a packet may have come by a security association that policies name so (RFC 4301, section 5.2, step 4).
pub(crate) fn allowed(snapshot: &Snapshot, reqid: u32, packet: &[u8]) -> Result<(), DropReason> {
    if snapshot.spd_inbound.is_empty() {
        return Ok(());
    }
    let selected = Selected::of(packet).ok_or(DropReason::InvalidPacket)?;
    match snapshot.spd_inbound.lookup(&selected.query).map(|it| it.action) {
        None | Some(Action::Bypass) => Ok(()),
        Some(Action::Protect(wanted)) if wanted == reqid => Ok(()),
        Some(Action::Protect(_) | Action::Discard) => Err(DropReason::IpsecPolicy),
    }
}

/// Packets that find their way by their headers, as if they had just been received.
#[derive(Default)]
pub(crate) struct Routed {
    burst: ArrayVec<Mbuf, BURST>,
    port: PortId,
}

impl Routed {
    /// Adds an IP packet that left by, or came by, `port`.
    pub(crate) fn add(
        &mut self,
        mut buf: Mbuf,
        port: PortId,
        now: u64,
        engine: &mut Engine<MbufAllocator>,
        out: &mut Output<Mbuf>,
        count: &Counter,
    ) {
        if self.burst.is_full() || self.port != port {
            self.flush(now, engine, out);
            self.port = port;
        }
        let mut macs = [0; 12];
        if let Some(mac) = engine.mac(port) {
            macs[..6].copy_from_slice(&mac.0);
        }
        if let Err(reason) = ethernet(&mut buf, macs) {
            engine.count_lost(reason, Direction::Egress, 1, buf.len() as u64);
            return out.discard(buf);
        }
        count.add(1);
        // There is room: a full burst was sent.
        if let Err(full) = self.burst.try_push(buf) {
            out.discard(full.element());
        }
    }

    /// Sends them on their way.
    pub(crate) fn flush(&mut self, now: u64, engine: &mut Engine<MbufAllocator>, out: &mut Output<Mbuf>) {
        if !self.burst.is_empty() {
            engine.forward(now, self.port, &mut self.burst, out);
        }
    }
}

impl IpsecStage {
    /// Has policies followed from now on.
    pub fn follow_policies(&mut self, options: PolicyOptions) {
        self.spd = Some(Box::new(Protection {
            options,
            settled: [0; MAX_PORTS],
            errors: ArrayVec::new(),
            frames: ArrayVec::new(),
            pieces: ArrayVec::new(),
        }));
    }

    /// Whether there are policies about what leaves.
    #[inline]
    pub fn looks_at_sent(&mut self) -> bool {
        self.spd
            .as_ref()
            .is_some_and(|spd| !spd.options.strict.is_empty() || !self.reader.load().spd.is_empty())
    }

    /// Whether there is something to find in what comes in: packets that policies are about, or that security associations of
    /// theirs are for.
    #[inline]
    pub fn looks_at_received(&mut self) -> bool {
        self.spd.is_some() && {
            let snapshot = self.reader.load();
            snapshot.sad.has_named_inbound() || !snapshot.spd_inbound.is_empty()
        }
    }

    /// What is queued by now need not be looked at.
    pub(crate) fn is_settled(&mut self, out: &mut Output<Mbuf>) {
        let Some(spd) = &mut self.spd else { return };
        for port in out.touched() {
            let queued = out.queue(port).map_or(0, |queue| queue.len());
            if let Some(settled) = spd.settled.get_mut(usize::from(port)) {
                *settled = queued as u16;
            }
        }
    }

    /// Takes what is to be decrypted, and drops what should have come otherwise, out of a burst that `port` received.
    #[inline(never)]
    pub fn receive(
        &mut self,
        port: PortId,
        burst: &mut ArrayVec<Mbuf, BURST>,
        engine: &mut Engine<MbufAllocator>,
        out: &mut Output<Mbuf>,
    ) {
        let (Some(Role::Uplink), Some(mac)) = (engine.role(port), engine.mac(port)) else {
            return;
        };
        let snapshot = self.reader.load();
        let mut rest = ArrayVec::<Mbuf, BURST>::new();
        for mut buf in burst.drain(..) {
            let fate = match buf.is_contiguous() && buf.data().starts_with(&mac.0) {
                true => arrival(snapshot, buf.data()),
                // The engine drops it, or it is for many.
                false => Arrival::Plain,
            };
            let reason = match fate {
                Arrival::Plain => {
                    // As many as there were.
                    let _ = rest.try_push(buf);
                    continue;
                }
                Arrival::Esp(at) => {
                    engine.count_received(port, 1, buf.len() as u64);
                    match buf.trim_front(at - ETHERNET_LEN) {
                        Ok(()) => match out.open.try_push((port, buf)) {
                            Ok(()) => continue,
                            Err(full) => {
                                buf = full.element().1;
                                DropReason::TxFull
                            }
                        },
                        Err(_) => DropReason::InvalidPacket,
                    }
                }
                Arrival::Drop(reason) => {
                    engine.count_received(port, 1, buf.len() as u64);
                    reason
                }
            };
            engine.count_lost(reason, Direction::Ingress, 1, buf.len() as u64);
            out.discard(buf);
        }
        *burst = rest;
    }

    /// Sends errors about packets that were too large.
    pub(crate) fn send_errors(
        &mut self,
        now: u64,
        engine: &mut Engine<MbufAllocator>,
        out: &mut Output<Mbuf>,
    ) {
        let Some(spd) = &mut self.spd else { return };
        for (port, buf) in spd.errors.drain(..) {
            let mut burst = ArrayVec::new();
            burst.push(buf);
            engine.forward(now, port, &mut burst, out);
        }
    }

    /// Has the policies decide about what is queued for uplinks.
    pub(crate) fn protect(&mut self, now: u64, engine: &mut Engine<MbufAllocator>, out: &mut Output<Mbuf>) {
        let mut room = self.room();
        let Some(spd) = &mut self.spd else { return };
        let snapshot = self.reader.load();
        if snapshot.spd.is_empty() && spd.options.strict.is_empty() {
            return;
        }
        let mut way = WayOut::default();
        for port in out.touched() {
            let settled = spd.settled.get_mut(usize::from(port));
            let (Some(settled), Some(Role::Uplink)) = (settled, engine.role(port)) else {
                continue;
            };
            let Some(queue) = out.queue(port) else { continue };
            let from = usize::from(*settled).min(queue.len());
            spd.frames.extend(queue.drain(from..));
            for mut buf in spd.frames.drain(..) {
                let cookie = match buf.data().first_chunk() {
                    Some(macs) => {
                        let [first, second, port] = cookie(macs, port);
                        [first, second, port | BY_POLICY]
                    }
                    None => [0; 3],
                };
                let mut encrypt = |mut buf: Mbuf, sa, out: &mut Output<Mbuf>, engine: &mut Engine<_>| {
                    if room == 0 || buf.trim_front(ETHERNET_LEN).is_err() {
                        self.stats.counts.full.add(1);
                        engine.count_lost(DropReason::NotEncrypted, Direction::Egress, 1, buf.len() as u64);
                        return out.discard(buf);
                    }
                    room -= 1;
                    self.seal.push(ToEncrypt { buf, sa, cookie });
                };
                let reason = match departure(snapshot, buf.data(), &spd.options, engine, &mut way) {
                    Departure::Plain => match out.send(port, buf) {
                        Ok(()) => continue,
                        Err(back) => {
                            buf = back;
                            DropReason::TxFull
                        }
                    },
                    Departure::Drop(reason) => reason,
                    Departure::Encrypt(sa) => {
                        encrypt(buf, sa, out, engine);
                        continue;
                    }
                    Departure::EncryptPieces(sa, size) => match engine.cut(buf.data(), size, &mut spd.pieces)
                    {
                        Ok(()) => {
                            for piece in spd.pieces.drain(..) {
                                encrypt(piece, sa, out, engine);
                            }
                            out.discard(buf);
                            continue;
                        }
                        Err(reason) => {
                            spd.pieces.drain(..).for_each(|piece| out.discard(piece));
                            reason
                        }
                    },
                    Departure::Refuse(size) => {
                        if !spd.errors.is_full()
                            && let Some(error) = engine.too_big(now, port, buf.data(), size, out)
                        {
                            spd.errors.push((port, error));
                        }
                        DropReason::FragmentationNeeded
                    }
                };
                engine.count_lost(reason, Direction::Egress, 1, buf.len() as u64);
                out.discard(buf);
            }
            *settled = out.queue(port).map_or(0, |queue| queue.len()) as u16;
        }
    }
}

/// What came in.
enum Arrival {
    Plain,
    /// For a security association that policies name; where the IP packet begins.
    Esp(usize),
    Drop(DropReason),
}

fn arrival(snapshot: &Snapshot, frame: &[u8]) -> Arrival {
    let Some((at, packet)) = ip_at(frame).and_then(|at| Some((at, frame.get(at..)?))) else {
        return Arrival::Plain;
    };
    let Some(selected) = Selected::of(packet) else {
        return match snapshot.spd_inbound.is_empty() {
            true => Arrival::Plain,
            // What cannot be read cannot be allowed.
            false => Arrival::Drop(DropReason::InvalidPacket),
        };
    };
    if selected.may_be_esp() && snapshot.arrives_by(packet).is_some() {
        return Arrival::Esp(at);
    }
    if snapshot.spd_inbound.is_empty() || selected.is_neighbour_discovery {
        return Arrival::Plain;
    }
    match snapshot.spd_inbound.lookup(&selected.query).map(|it| it.action) {
        None | Some(Action::Bypass) => Arrival::Plain,
        Some(Action::Protect(_)) => Arrival::Drop(DropReason::Unencrypted),
        Some(Action::Discard) => Arrival::Drop(DropReason::IpsecPolicy),
    }
}

/// What is to be done with a frame that is about to leave.
#[inline]
fn departure(
    snapshot: &Snapshot,
    frame: &[u8],
    options: &PolicyOptions,
    engine: &mut Engine<MbufAllocator>,
    way: &mut WayOut,
) -> Departure {
    let packet = ip_at(frame)
        .filter(|at| *at == ETHERNET_LEN)
        .and_then(|at| frame.get(at..));
    packet.map_or(Departure::Plain, |packet| {
        engine.departs(snapshot, packet, options, way).1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_found_behind_tags() {
        let mut frame = vec![0; 12];
        frame.extend([0x81, 0x00, 0, 0, 0x88, 0xa8, 0, 0, 0x08, 0x00, 0x45]);
        assert_eq!(ip_at(&frame), Some(22));
        assert_eq!(ip_at(&frame[..14]), None);
        frame[12..14].copy_from_slice(&[0x08, 0x06]);
        assert_eq!(ip_at(&frame), None);
    }
}
