//! The poll loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crossbeam::queue::ArrayQueue;
use dpdk::{ArrayVec, Mbuf, cycles, free_all, mempool::MbufAllocator};
use octoplane_engine::{BURST, DropReason, Engine, NeighbourEvent, Output, PORT_QUEUE, Stage};
use octoplane_packet::{BufPool, PacketBuf};
use octoplane_tables::model::{MAX_PORTS, PortId};

use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::command::Command;
use crate::handoff::Handoff;
use crate::ipsec::IpsecStage;
use crate::ports::{PortQueues, Transmit};
use crate::stats::LoopStats;

/// Packets taken from the kernel in one round: it gets a quarter of what a device gets, and cannot crowd others out.
const EXCEPTION_BURST: usize = 16;
/// Packets that wait to be sent before a round is over: an output queue holds this many and another burst, with room
/// for the errors it may cause.
const FLUSH: usize = PORT_QUEUE - 2 * BURST;
/// Rounds between looks at the command queue.
const HOUSEKEEPING: u64 = 64;
/// Connections looked at in one housekeeping: a table of a million is gone through in a second or less.
const EXPIRED: usize = 256;
/// One round in this many is timed.
const TIMED: u64 = 64;
/// How long to wait for packets that are being encrypted before a port goes, in nanoseconds: longer than a device may take.
const SETTLE_NS: u64 = 50_000_000;
/// Frames of the control plane sent in one round.
const COMMANDS: usize = 32;

/// Everything a worker thread works with.
pub(crate) struct PollLoop {
    pub(crate) engine: Engine<MbufAllocator>,
    pub(crate) ports: Vec<PortQueues>,
    /// Encryption, if there is any.
    pub(crate) ipsec: Option<IpsecStage>,
    /// Packets other workers want sent by this one.
    pub(crate) inbox: Arc<Handoff>,
    pub(crate) commands: Arc<ArrayQueue<Command>>,
    pub(crate) events: Arc<ArrayQueue<NeighbourEvent>>,
    pub(crate) stats: Arc<LoopStats>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) backoff: Backoff,
    pub(crate) clock: Clock,
    /// Most packets taken from a queue at a time.
    pub(crate) burst: usize,
    /// Rounds so far; one in [`TIMED`] is timed.
    pub(crate) rounds: u64,
}

impl PollLoop {
    /// Polls until told to stop, then gives all buffers back.
    pub(crate) fn run(mut self) {
        let mut out = Output::new(MAX_PORTS);
        let mut last = cycles::now();
        while !self.stop.load(Relaxed) {
            let packets = self.round(last, &mut out);
            self.rounds += 1;
            if self.rounds.is_multiple_of(HOUSEKEEPING) || packets == 0 {
                self.housekeeping(&mut out);
            }
            let slept = if packets > 0 {
                self.backoff.busy();
                false
            } else {
                self.backoff.idle()
            };
            let now = cycles::now();
            let spent = now.wrapping_sub(last);
            last = now;
            self.stats.rounds.set(self.rounds);
            if packets > 0 {
                &self.stats.busy_cycles
            } else {
                &self.stats.idle_cycles
            }
            .add(spent);
            if slept {
                self.stats.sleeps.add(1);
            }
        }
        self.engine.clear();
        while self.inbox.pop().is_some() {}
    }

    /// One look at every queue. Returns how many packets there were.
    #[inline(always)]
    fn round(&mut self, start: u64, out: &mut Output<Mbuf>) -> usize {
        let now = self.clock.ns(start);
        let timed = self.rounds.is_multiple_of(TIMED);
        let (mut total, mut pending) = (0, 0);
        let mut burst = ArrayVec::<Mbuf, BURST>::new();
        for index in 0..self.ports.len() {
            for queue in 0..self.ports.get(index).map_or(0, |port| port.rx.len()) {
                let Some(port) = self.ports.get_mut(index) else {
                    break;
                };
                let Some(rx) = port.rx.get_mut(queue) else { break };
                let most = if port.exception { EXCEPTION_BURST } else { BURST };
                let before = if timed { cycles::now() } else { 0 };
                let packets = rx.burst_up_to(&mut burst, most.min(self.burst));
                if packets == 0 {
                    continue;
                }
                let id = port.port;
                count(&self.engine, Stage::Receive, packets, timed.then_some(before));
                self.stats.burst(packets);
                total += packets;
                pending += packets;
                if let Some(ipsec) = &mut self.ipsec
                    && ipsec.looks_at_received()
                {
                    ipsec.receive(id, &mut burst, &mut self.engine, out);
                }
                if !burst.is_empty() {
                    self.engine.process(now, id, &mut burst, out);
                }
                // Also when nothing is left for the engine: what waits to be decrypted has no more room than a port's queue.
                if pending > FLUSH - BURST {
                    self.flush(out);
                    pending = 0;
                }
            }
        }
        if !self.inbox.is_empty() {
            total += self.take_over(out);
        }
        self.engine.tick(now, out);
        self.flush(out);
        match &self.ipsec {
            // The worker has something to do, and must not sleep.
            Some(ipsec) if ipsec.is_busy() => total.max(1),
            _ => total,
        }
    }

    /// Queues what other workers want sent.
    fn take_over(&mut self, out: &mut Output<Mbuf>) -> usize {
        let policies = self.ipsec.as_mut().is_some_and(IpsecStage::looks_at_sent);
        if policies {
            // The others have asked the policies about theirs: here it is about what comes before them.
            self.flush(out);
        }
        let taken = self.queue_inbox(out);
        if let Some(ipsec) = self.ipsec.as_mut().filter(|_| policies) {
            ipsec.is_settled(out);
        }
        taken
    }

    fn queue_inbox(&mut self, out: &mut Output<Mbuf>) -> usize {
        for taken in 0..BURST {
            let Some((port, packet)) = self.inbox.pop() else {
                return taken;
            };
            if let Err(packet) = out.send(port, packet) {
                self.engine
                    .count_unsent(port, DropReason::TxFull, 1, packet.len() as u64);
            }
        }
        BURST
    }

    /// Gives everything that waits to the devices. What a device does not take is dropped and counted: waiting for it
    /// would make all others wait.
    #[inline(always)]
    fn flush(&mut self, out: &mut Output<Mbuf>) {
        let timed = self.rounds.is_multiple_of(TIMED);
        if let Some(ipsec) = &mut self.ipsec
            && (ipsec.is_busy()
                || !out.seal.is_empty()
                || !out.open.is_empty()
                || out.is_touched() && ipsec.looks_at_sent())
        {
            let now = self.clock.ns(cycles::now());
            ipsec.run(now, &mut self.engine, out);
        }
        for id in out.take_touched() {
            let Some(queue) = out.queue(id) else { continue };
            let Some(port) = self.ports.iter_mut().find(|port| port.port == id) else {
                unsent(&mut self.engine, id, DropReason::NoDevice, queue);
                continue;
            };
            let asked = queue.len() as u64;
            match &mut port.tx {
                Transmit::Queue(tx) => {
                    let before = if timed { cycles::now() } else { 0 };
                    let sent = tx.burst(queue);
                    self.engine.stats().port(id).tx_packets.add(sent as u64);
                    count(
                        &self.engine,
                        Stage::Transmit,
                        asked as usize,
                        timed.then_some(before),
                    );
                    if !queue.is_empty() {
                        unsent(&mut self.engine, id, DropReason::TxFull, queue);
                    }
                }
                Transmit::Handoff(inbox) => {
                    let mut rest = ArrayVec::<Mbuf, PORT_QUEUE>::new();
                    for packet in queue.drain(..) {
                        if let Err(packet) = inbox.push(id, packet) {
                            // As many fit here as came from a queue of the same size.
                            rest.push(packet);
                        }
                    }
                    self.stats.handed_off.add(asked - rest.len() as u64);
                    if !rest.is_empty() {
                        unsent(&mut self.engine, id, DropReason::HandoffFull, &mut rest);
                    }
                }
                Transmit::None => unsent(&mut self.engine, id, DropReason::NoDevice, queue),
            }
        }
        if !out.free.is_empty() {
            free_all(&mut out.free);
        }
    }

    /// What need not be done for every burst.
    fn housekeeping(&mut self, out: &mut Output<Mbuf>) {
        // Even a worker without packets must let go of old tables.
        self.engine.refresh();
        if let Some(ipsec) = &mut self.ipsec {
            ipsec.refresh();
        }
        self.engine.expire(self.clock.ns(cycles::now()), EXPIRED);
        for event in self.engine.events() {
            if self.events.push(event).is_err() {
                self.stats.lost_events.add(1);
            }
        }
        for _ in 0..COMMANDS {
            let Some(command) = self.commands.pop() else { break };
            match command {
                Command::Send { port, frame } => self.send(port, &frame, out),
                Command::Attach(queues) => self.attach(queues),
                // Who asked may have gone: nobody has to be there to hear the answer.
                Command::Detach { port, back } => drop(back.send(self.detach(port, out))),
                Command::Fence(done) => {
                    // The tables may have changed since the refresh above.
                    self.engine.refresh();
                    self.settle(out);
                    let _ = done.send(());
                }
            }
        }
        self.flush(out);
    }

    fn attach(&mut self, queues: PortQueues) {
        // The number may have been another port's, whose counters are nobody's now.
        let stats = self.engine.stats().port(queues.port);
        for counter in [
            &stats.rx_packets,
            &stats.rx_bytes,
            &stats.tx_packets,
            &stats.tx_full,
        ] {
            counter.set(0);
        }
        self.ports.push(queues);
    }

    fn detach(&mut self, id: PortId, out: &mut Output<Mbuf>) -> Option<PortQueues> {
        self.settle(out);
        // What others handed over by now goes out first. More may come in meanwhile, but not for this port.
        for _ in 0..self.inbox.len().div_ceil(BURST) {
            self.take_over(out);
            self.flush(out);
        }
        let index = self.ports.iter().position(|port| port.port == id)?;
        Some(self.ports.remove(index))
    }

    /// Sends everything, what is being encrypted included, as far as that comes back in time.
    fn settle(&mut self, out: &mut Output<Mbuf>) {
        let begin = self.clock.ns(cycles::now());
        self.flush(out);
        while self.ipsec.as_ref().is_some_and(IpsecStage::is_busy)
            && self.clock.ns(cycles::now()).saturating_sub(begin) < SETTLE_NS
        {
            self.flush(out);
        }
    }

    fn send(&mut self, port: PortId, frame: &[u8], out: &mut Output<Mbuf>) {
        let Some(mut packet) = self.engine.pool().alloc() else {
            return self.stats.no_buffer.add(1);
        };
        match packet.append(frame.len()) {
            Ok(data) => data.copy_from_slice(frame),
            Err(_) => return self.stats.no_buffer.add(1),
        }
        if let Err(packet) = out.send(port, packet) {
            self.engine
                .count_unsent(port, DropReason::TxFull, 1, packet.len() as u64);
        }
    }
}

/// Counts a stage, and the time since `before` if it was taken.
#[inline(always)]
fn count(engine: &Engine<MbufAllocator>, stage: Stage, packets: usize, before: Option<u64>) {
    let stage = engine.stats().stage(stage);
    stage.calls.add(1);
    stage.packets.add(packets as u64);
    if let Some(before) = before {
        stage.timed_packets.add(packets as u64);
        stage.timed_cycles.add(cycles::now().wrapping_sub(before));
    }
}

/// Drops and counts what could not be sent.
fn unsent(
    engine: &mut Engine<MbufAllocator>,
    port: PortId,
    reason: DropReason,
    queue: &mut ArrayVec<Mbuf, PORT_QUEUE>,
) {
    let bytes: usize = queue.iter().map(PacketBuf::len).sum();
    engine.count_unsent(port, reason, queue.len() as u64, bytes as u64);
    free_all(queue);
}
