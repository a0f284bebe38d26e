//! Encryption between the engine and the ports: what the engine leaves to be encrypted goes through ESP and a provider to
//! its port, what it leaves to be decrypted comes back to it.

use std::sync::Arc;

use dpdk::mempool::MbufAllocator;
use dpdk::{ArrayVec, Mbuf};
use octoplane_engine::{
    BURST, Counter, Direction, DropReason, Engine, IpsecConfig, MAX_FRONT, Output, PORT_QUEUE, refit,
};
use octoplane_esp::{
    Cause, CauseCounters, Inbound, Job, Operation, Outbound, Processed, Reader, ToDecrypt, ToEncrypt,
};
use octoplane_packet::PacketBuf;
use octoplane_packet::headers::{ETHERNET_LEN, ethertype};
use octoplane_tables::model::PortId;

use crate::crypto::CryptoProvider;
use crate::spd::{Protection, Routed, allowed, is_by_policy};

/// Packets that wait for a provider at most, those that it has among them: what comes on top is dropped.
pub(crate) const WAITING: usize = 4096;
/// Packets that a provider is asked for at a time. All go to one port at worst, whose queue has to hold them.
const DONE: usize = 2 * BURST;
/// Passes in a round: what is decrypted may have to be encrypted for somebody else.
const PASSES: usize = 3;

/// What a worker counts of encryption. Written by the worker, read by anybody.
#[derive(Debug, Clone, Default)]
pub struct IpsecStats {
    /// Why packets were not encrypted.
    pub outbound: CauseCounters,
    /// Why packets were not decrypted.
    pub inbound: CauseCounters,
    /// The rest.
    pub counts: Arc<IpsecCounts>,
}

/// Packets, and how many there are at the moment.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct IpsecCounts {
    /// Encrypted.
    pub encrypted: Counter,
    /// Decrypted.
    pub decrypted: Counter,
    /// Dropped because too many waited.
    pub full: Counter,
    /// Waiting for the provider, or with it, when last looked at.
    pub waiting: Counter,
}

/// One worker's encryption: between its engine and its ports.
pub struct IpsecStage {
    pub(crate) reader: Reader,
    /// The tables that the provider was told of last.
    revision: u64,
    provider: CryptoProvider,
    outbound: Outbound,
    inbound: Inbound,
    pub(crate) stats: IpsecStats,
    fronts: Fronts,
    /// Policies, if there may be any.
    pub(crate) spd: Option<Box<Protection>>,
    // Empty between calls, all but `jobs`: what the provider did not take.
    jobs: Vec<Job<Mbuf>>,
    pub(crate) seal: Vec<ToEncrypt<Mbuf>>,
    open: Vec<ToDecrypt<Mbuf>>,
    done: Vec<Job<Mbuf>>,
    encrypted: Vec<Job<Mbuf>>,
    decrypted: Vec<Job<Mbuf>>,
    processed: Vec<Processed<Mbuf>>,
}

impl IpsecStage {
    /// One for an engine that was given the same `config`.
    pub fn new(config: &IpsecConfig, provider: CryptoProvider) -> Self {
        let (outbound, inbound) = (Outbound::new(), Inbound::new());
        let stats = IpsecStats {
            outbound: outbound.counters(),
            inbound: inbound.counters(),
            counts: Arc::default(),
        };
        Self {
            reader: config.reader.clone(),
            revision: 0,
            provider,
            outbound,
            inbound,
            stats,
            fronts: Fronts::default(),
            spd: None,
            jobs: Vec::with_capacity(WAITING),
            seal: Vec::with_capacity(WAITING),
            open: Vec::with_capacity(WAITING),
            // All as large as `jobs`: a provider that is done at once exchanges the lists instead of moving jobs.
            done: Vec::with_capacity(WAITING),
            encrypted: Vec::with_capacity(WAITING),
            decrypted: Vec::with_capacity(WAITING),
            processed: Vec::with_capacity(WAITING),
        }
    }

    /// The counters.
    pub fn stats(&self) -> IpsecStats {
        self.stats.clone()
    }

    /// Whether packets are on their way: the worker must not sleep.
    pub fn is_busy(&self) -> bool {
        !self.jobs.is_empty()
            || !self.seal.is_empty()
            || self.provider.in_flight() > 0
            || self.spd.as_ref().is_some_and(|spd| spd.is_busy())
    }

    /// Takes what the engine left, and brings what is done on its way. Returns how many packets came back to the engine.
    pub fn run(&mut self, now: u64, engine: &mut Engine<MbufAllocator>, out: &mut Output<Mbuf>) -> usize {
        let mut packets = 0;
        self.send_errors(now, engine, out);
        for _ in 0..PASSES {
            self.protect(now, engine, out);
            if out.seal.is_empty() && out.open.is_empty() && !self.is_busy() {
                break;
            }
            let before = packets + out.seal.len() + out.open.len();
            packets += self.pass(now, engine, out);
            if packets == before && out.seal.is_empty() && out.open.is_empty() {
                // The rest is with a device.
                break;
            }
        }
        // What was decrypted may have been sent on.
        self.protect(now, engine, out);
        if let Some(spd) = &mut self.spd {
            spd.start_over();
        }
        packets
    }

    /// Lets go of old tables.
    pub fn refresh(&mut self) {
        let snapshot = self.reader.load();
        if snapshot.revision != self.revision {
            self.revision = snapshot.revision;
            self.provider.sessions_changed(&snapshot.sad);
        }
    }

    fn pass(&mut self, now: u64, engine: &mut Engine<MbufAllocator>, out: &mut Output<Mbuf>) -> usize {
        self.refresh();
        self.take(engine, out);
        let sad = &self.reader.load().sad;
        // No number is given to a packet that is not encrypted at once or in its turn: the order in `jobs` is that of numbers.
        self.outbound
            .prepare(sad, now, &mut self.seal, &mut self.jobs, &mut self.processed);
        refused(&self.processed, 0, Direction::Egress, engine);
        let prepared = self.processed.len();
        self.inbound
            .prepare(sad, now, &mut self.open, &mut self.jobs, &mut self.processed);
        refused(&self.processed, prepared, Direction::Ingress, engine);
        self.processed.drain(..).for_each(|it| out.discard(it.buf));
        if !self.jobs.is_empty() {
            self.provider.submit(sad, &mut self.jobs);
        }
        let done = self.provider.poll(&mut self.done, DONE);
        self.stats
            .counts
            .waiting
            .set((self.jobs.len() + self.provider.in_flight()) as u64);
        let mut operations = self.done.iter().map(|job| job.operation);
        let first = operations.next();
        match first.filter(|first| operations.all(|operation| operation == *first)) {
            // Mostly all are of one kind.
            Some(Operation::Encrypt) => std::mem::swap(&mut self.done, &mut self.encrypted),
            Some(Operation::Decrypt) => std::mem::swap(&mut self.done, &mut self.decrypted),
            None => {
                for job in self.done.drain(..) {
                    match job.operation {
                        Operation::Encrypt => self.encrypted.push(job),
                        Operation::Decrypt => self.decrypted.push(job),
                    }
                }
            }
        }
        if !self.encrypted.is_empty() {
            self.outbound
                .finish(sad, &mut self.encrypted, &mut self.processed);
            self.send(now, engine, out);
        }
        if !self.decrypted.is_empty() {
            let sad = &self.reader.load().sad;
            self.inbound.finish(sad, &mut self.decrypted, &mut self.processed);
            self.give_back(now, engine, out);
        }
        done
    }

    /// Packets that there is room for.
    pub(crate) fn room(&self) -> usize {
        WAITING.saturating_sub(self.jobs.len() + self.seal.len() + self.provider.in_flight())
    }

    /// Takes what the engine left, as far as there is room for it.
    fn take(&mut self, engine: &mut Engine<MbufAllocator>, out: &mut Output<Mbuf>) {
        let mut room = self.room();
        for it in out.seal.drain(..) {
            let mut buf = it.buf;
            let front = usize::from(it.front);
            if room == 0 {
                self.stats.counts.full.add(1);
                self.lose(
                    DropReason::NotEncrypted,
                    Direction::Egress,
                    buf,
                    engine,
                    &mut out.free,
                );
                continue;
            }
            let cookie = match (front, buf.data().first_chunk()) {
                (ETHERNET_LEN, Some(macs)) => Some(cookie(macs, it.port)),
                _ => buf
                    .data()
                    .get(..front)
                    .and_then(|front| self.fronts.keep(front, it.port)),
            };
            let Some(cookie) = cookie.filter(|_| buf.trim_front(front).is_ok()) else {
                self.lose(
                    DropReason::InvalidPacket,
                    Direction::Egress,
                    buf,
                    engine,
                    &mut out.free,
                );
                continue;
            };
            room -= 1;
            self.seal.push(ToEncrypt {
                buf,
                sa: it.sa,
                cookie,
            });
        }
        for (port, mut buf) in out.open.drain(..) {
            if room == 0 {
                self.stats.counts.full.add(1);
                self.lose(
                    DropReason::NotDecrypted,
                    Direction::Ingress,
                    buf,
                    engine,
                    &mut out.free,
                );
                continue;
            }
            if buf.trim_front(ETHERNET_LEN).is_err() {
                self.lose(
                    DropReason::InvalidPacket,
                    Direction::Ingress,
                    buf,
                    engine,
                    &mut out.free,
                );
                continue;
            }
            room -= 1;
            self.open.push(ToDecrypt {
                buf,
                mark: 0,
                cookie: cookie(&[0; 12], port),
            });
        }
    }

    fn lose(
        &self,
        reason: DropReason,
        direction: Direction,
        buf: Mbuf,
        engine: &mut Engine<MbufAllocator>,
        free: &mut ArrayVec<Mbuf, PORT_QUEUE>,
    ) {
        engine.count_lost(reason, direction, 1, buf.len() as u64);
        // When the list is full the buffer is freed on the spot: slower, never wrong.
        drop(free.try_push(buf));
    }

    /// Queues encrypted packets for their ports.
    fn send(&mut self, now: u64, engine: &mut Engine<MbufAllocator>, out: &mut Output<Mbuf>) {
        refused(&self.processed, 0, Direction::Egress, engine);
        let mut routed = Routed::default();
        for Processed {
            mut buf,
            cookie,
            outcome,
            ..
        } in self.processed.drain(..)
        {
            if outcome.is_err() {
                out.discard(buf);
                continue;
            }
            let (macs, port) = uncooked(cookie);
            if is_by_policy(cookie) {
                routed.add(buf, port, now, engine, out, &self.stats.counts.encrypted);
                continue;
            }
            let framed = match self.fronts.number(cookie) {
                None => ethernet(&mut buf, macs),
                Some(number) => match self.fronts.get(number) {
                    Some(front) => refit(&mut buf, front),
                    None => Err(DropReason::NotEncrypted),
                },
            };
            if let Err(reason) = framed {
                engine.count_lost(reason, Direction::Egress, 1, buf.len() as u64);
                out.discard(buf);
                continue;
            }
            self.stats.counts.encrypted.add(1);
            if let Err(buf) = out.send(port, buf) {
                engine.count_unsent(port, DropReason::TxFull, 1, buf.len() as u64);
                out.discard(buf);
            }
        }
        routed.flush(now, engine, out);
        // Nothing of this is for policies.
        self.is_settled(out);
    }

    /// Gives decrypted packets to the engine, in bursts of one port each.
    fn give_back(&mut self, now: u64, engine: &mut Engine<MbufAllocator>, out: &mut Output<Mbuf>) {
        refused(&self.processed, 0, Direction::Ingress, engine);
        let snapshot = self.reader.load();
        let policies = self.spd.is_some();
        let mut routed = Routed::default();
        let mut burst = ArrayVec::<Mbuf, BURST>::new();
        let mut last: Option<(PortId, [u8; 12])> = None;
        for Processed {
            mut buf,
            cookie,
            outcome,
            sa,
        } in self.processed.drain(..)
        {
            if outcome.is_err() {
                out.discard(buf);
                continue;
            }
            let (_, port) = uncooked(cookie);
            if policies && let Some(sa) = sa.and_then(|id| snapshot.sa(id)).filter(|sa| sa.reqid() != 0) {
                match allowed(snapshot, sa.reqid(), buf.data()) {
                    Ok(()) => routed.add(buf, port, now, engine, out, &self.stats.counts.decrypted),
                    Err(reason) => {
                        engine.count_lost(reason, Direction::Ingress, 1, buf.len() as u64);
                        out.discard(buf);
                    }
                }
                continue;
            }
            if burst.is_full() || last.is_none_or(|(last, _)| last != port) {
                if let Some((last, _)) = last
                    && !burst.is_empty()
                {
                    engine.decrypted(now, last, &mut burst, out);
                }
                let mut macs = [0; 12];
                if let Some(mac) = engine.mac(port) {
                    macs[..6].copy_from_slice(&mac.0);
                }
                last = Some((port, macs));
            }
            let macs = last.map_or([0; 12], |(_, macs)| macs);
            if let Err(reason) = ethernet(&mut buf, macs) {
                engine.count_lost(reason, Direction::Ingress, 1, buf.len() as u64);
                out.discard(buf);
                continue;
            }
            self.stats.counts.decrypted.add(1);
            // There is room: a full burst went to the engine.
            if let Err(full) = burst.try_push(buf) {
                out.discard(full.element());
            }
        }
        if let Some((last, _)) = last
            && !burst.is_empty()
        {
            engine.decrypted(now, last, &mut burst, out);
        }
        routed.flush(now, engine, out);
    }
}

/// Counts those that were refused, from the one with this number on. What is nobody's fault is no drop.
fn refused(
    processed: &[Processed<Mbuf>],
    from: usize,
    direction: Direction,
    engine: &mut Engine<MbufAllocator>,
) {
    for it in processed.iter().skip(from) {
        let reason = match (it.outcome, direction) {
            (Ok(()) | Err(Cause::Keepalive | Cause::Dummy), _) => continue,
            (Err(Cause::NoSa), Direction::Egress) => DropReason::NoSecurityAssociation,
            (Err(_), Direction::Egress) => DropReason::NotEncrypted,
            (Err(_), Direction::Ingress) => DropReason::NotDecrypted,
        };
        engine.count_lost(reason, direction, 1, it.buf.len() as u64);
    }
}

/// What goes with a packet: the Ethernet addresses in front of it, and its port.
pub(crate) fn cookie(macs: &[u8; 12], port: PortId) -> [u64; 3] {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *macs;
    [
        u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        u64::from_be_bytes([i, j, k, l, 0, 0, 0, 0]),
        port.into(),
    ]
}

/// Headers of tunnel packets while what is inside is encrypted: as many as there can be packets, one after the other. Those of
/// a packet that never came back are written over by a later one.
#[derive(Default)]
struct Fronts {
    /// With the number of the packet each belongs to. Empty until there is one.
    kept: Vec<(u64, [u8; MAX_FRONT], u8)>,
    /// The number of the last packet. None has 0.
    last: u64,
}

impl Fronts {
    /// Keeps headers. Returns what goes with the packet; `None` if these are too many bytes.
    fn keep(&mut self, front: &[u8], port: PortId) -> Option<[u64; 3]> {
        if self.kept.is_empty() {
            // Once: the first packet finds out that this is the framing.
            self.kept.resize(WAITING, (0, [0; MAX_FRONT], 0));
        }
        self.last += 1;
        let (number, bytes, len) = self.kept.get_mut(self.last as usize % WAITING)?;
        bytes.get_mut(..front.len())?.copy_from_slice(front);
        (*number, *len) = (self.last, front.len() as u8);
        Some([self.last, NO_MACS, port.into()])
    }

    /// The number of the packet that this goes with, if its headers are here.
    fn number(&self, [number, second, _]: [u64; 3]) -> Option<u64> {
        (second == NO_MACS).then_some(number)
    }

    /// The headers of a packet.
    fn get(&self, wanted: u64) -> Option<&[u8]> {
        let (number, bytes, len) = self.kept.get(wanted as usize % WAITING)?;
        bytes.get(..usize::from(*len)).filter(|_| *number == wanted)
    }
}

/// In place of the end of the Ethernet addresses, which zeros follow.
const NO_MACS: u64 = 1;

fn uncooked([first, second, port]: [u64; 3]) -> ([u8; 12], PortId) {
    let mut macs = [0; 12];
    macs[..8].copy_from_slice(&first.to_be_bytes());
    macs[8..].copy_from_slice(&second.to_be_bytes()[..4]);
    (macs, port as PortId)
}

/// Puts an Ethernet header in front of an IP packet.
pub(crate) fn ethernet(buf: &mut Mbuf, macs: [u8; 12]) -> Result<(), DropReason> {
    let kind = match buf.data().first().map(|first| first >> 4) {
        Some(4) => ethertype::IPV4,
        Some(6) => ethertype::IPV6,
        _ => return Err(DropReason::InvalidPacket),
    };
    let frame = buf.prepend(ETHERNET_LEN).map_err(|_| DropReason::NoBuffer)?;
    frame[..12].copy_from_slice(&macs);
    frame[12..ETHERNET_LEN].copy_from_slice(&kind.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_with_a_packet_comes_back() {
        let macs = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        assert_eq!(uncooked(cookie(&macs, 255)), (macs, 255));
        assert_eq!(Fronts::default().number(cookie(&macs, 255)), None);
    }

    #[test]
    fn headers_are_kept_for_as_many_packets_as_can_wait() {
        let mut fronts = Fronts::default();
        let front = |n: usize| vec![n as u8; if n.is_multiple_of(2) { 64 } else { MAX_FRONT }];
        let kept: Vec<_> = (0..WAITING + 1)
            .map(|n| fronts.keep(&front(n), 7).unwrap())
            .collect();
        for (n, cookie) in kept.into_iter().enumerate() {
            assert_eq!(uncooked(cookie).1, 7);
            let number = fronts.number(cookie).unwrap();
            // The first one's are gone, and are not taken for those of another packet.
            let expected = (n > 0).then(|| front(n));
            assert_eq!(fronts.get(number), expected.as_deref());
        }
        assert!(fronts.keep(&[0; MAX_FRONT + 1], 7).is_none());
    }
}
