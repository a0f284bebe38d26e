//! The engine of one worker: its tables, counters and what it keeps between bursts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arrayvec::ArrayVec;
use octoplane_flow::FlowHandle;
use octoplane_packet::{BufPool, MacAddr, PacketBuf};
use octoplane_tables::model::{HOST_ENDPOINT, PortId, Role, Routing};
use octoplane_tables::{PortView, Reader, Snapshot};

use crate::connection::{self, Timeouts};
use crate::drop_reason::{Direction, DropReason};
use crate::event::NeighbourEvent;
use crate::ipsec::{Ipsec, IpsecConfig};
use crate::known::Pending;
use crate::limiter::Limiter;
use crate::memory::MemoryPart;
use crate::observe::{Monitor, Onlookers};
use crate::output::Output;
use crate::parking::ParkingLot;
use crate::route_cache::RouteCache;
use crate::stats::{Stage, WorkerStats};

/// Most packets that go through the pipeline together.
pub const BURST: usize = 64;

/// One run in this many is timed.
const TIMED: u32 = 64;

/// The kernel's Ethernet address behind the host port, as learned from its frames; one for all workers.
#[derive(Debug, Default)]
pub struct HostMac(AtomicU64);

impl HostMac {
    /// The address, once a frame from the kernel was seen.
    pub fn get(&self) -> Option<MacAddr> {
        let [_, _, mac @ ..] = self.0.load(Relaxed).to_be_bytes();
        Some(MacAddr(mac)).filter(|mac| mac.is_unicast())
    }

    fn learn(&self, mac: MacAddr) {
        if mac.is_unicast() && self.get() != Some(mac) {
            let [a, b, c, d, e, f] = mac.0;
            self.0
                .store(u64::from_be_bytes([0, 0, a, b, c, d, e, f]), Relaxed);
        }
    }
}

/// What an engine is told once. Rates are per worker.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// ICMP errors a second and at once, each family.
    pub icmp_errors: (u32, u32),
    /// Packets for the kernel a second and at once.
    pub exceptions: (u32, u32),
    /// Packets that may wait for neighbours.
    pub max_parked: usize,
    /// How long a packet waits for a neighbour, in nanoseconds.
    pub park_ns: u64,
    /// How long connections are kept.
    pub timeouts: Timeouts,
    /// What the numbers that backends and ports are chosen with begin from; `None`: something different in each engine.
    pub seed: Option<u64>,
    /// Verdicts and drops that may wait for whoever looks at them, and how many there may be a second.
    pub events: (usize, u32),
    /// Reads the cycle counter that stages are timed with.
    pub cycles: fn() -> u64,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            icmp_errors: (100, 1000),
            exceptions: (100_000, 1024),
            max_parked: 256,
            park_ns: 3_000_000_000,
            timeouts: Timeouts::default(),
            seed: None,
            events: (1024, 20_000),
            cycles: || 0,
        }
    }
}

/// The pipeline of one worker.
pub struct Engine<P: BufPool> {
    pub(crate) reader: Reader,
    pub(crate) ipsec: Option<IpsecConfig>,
    pub(crate) core: Core<P>,
}

/// The engine without its way to the tables, so that both can be borrowed at once.
pub(crate) struct Core<P: BufPool> {
    pub(crate) pool: P,
    pub(crate) stats: Arc<WorkerStats>,
    pub(crate) icmp4: Limiter,
    pub(crate) icmp6: Limiter,
    pub(crate) exceptions: Limiter,
    pub(crate) parking: ParkingLot<P::Buf>,
    pub(crate) events: ArrayVec<NeighbourEvent, BURST>,
    pub(crate) host_mac: Arc<HostMac>,
    pub(crate) routes: RouteCache,
    pub(crate) flows: FlowHandle,
    /// Which backend clients stay with.
    pub(crate) affinities: FlowHandle,
    /// Ports of fragmented packets.
    pub(crate) fragments: FlowHandle,
    /// Packets of the burst whose connections are being looked up.
    pub(crate) pending: Vec<Pending>,
    pub(crate) timeouts: Timeouts,
    /// State of the generator of random numbers; never 0.
    pub(crate) seed: u64,
    pub(crate) onlookers: Onlookers,
    cycles: fn() -> u64,
    runs: u32,
}

/// Where and when a packet came in.
#[derive(Clone, Copy)]
pub(crate) struct Rx<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) port: PortId,
    pub(crate) view: &'a PortView,
    /// Nanoseconds of a monotonic clock, now.
    pub(crate) now: u64,
    /// The same in the unit in which connections age.
    pub(crate) second: u32,
    /// The same when the packet arrived.
    pub(crate) born: u64,
    /// Encryption between nodes, if there is any.
    pub(crate) ipsec: Option<Ipsec<'a>>,
    /// Whether the packet came encrypted.
    pub(crate) decrypted: bool,
}

impl Rx<'_> {
    pub(crate) fn direction(&self) -> Direction {
        if self.view.role == Role::Pod {
            Direction::Egress
        } else {
            Direction::Ingress
        }
    }
}

impl<P: BufPool> Engine<P> {
    /// An engine that reads `reader`'s tables, keeps its state in `memory`, makes packets from `pool` and counts in `stats`.
    pub fn new(
        reader: Reader,
        pool: P,
        stats: Arc<WorkerStats>,
        host_mac: Arc<HostMac>,
        memory: MemoryPart,
        config: &EngineConfig,
    ) -> Self {
        let (rate, burst) = config.icmp_errors;
        let (room, events) = config.events;
        let core = Core {
            pool,
            stats,
            icmp4: Limiter::new(rate, burst),
            icmp6: Limiter::new(rate, burst),
            exceptions: Limiter::new(config.exceptions.0, config.exceptions.1),
            parking: ParkingLot::new(config.max_parked, config.park_ns),
            events: ArrayVec::new(),
            host_mac,
            routes: RouteCache::new(),
            flows: memory.flows,
            affinities: memory.affinities,
            fragments: memory.fragments,
            pending: std::iter::repeat_with(Pending::default).take(BURST).collect(),
            timeouts: config.timeouts,
            seed: config.seed.unwrap_or_else(seed) | 1,
            onlookers: Onlookers::new(Arc::new(Monitor::new(room, events))),
            cycles: config.cycles,
            runs: 0,
        };
        Self {
            reader,
            ipsec: None,
            core,
        }
    }

    /// Encrypts between nodes from now on.
    pub fn set_ipsec(&mut self, ipsec: IpsecConfig) {
        self.ipsec = Some(ipsec);
    }

    /// Takes a burst that `port` received at `now` (nanoseconds of a monotonic clock) through the pipeline. The burst
    /// is empty afterwards; its packets are in `out`, or wait for a neighbour.
    pub fn process(
        &mut self,
        now: u64,
        port: PortId,
        burst: &mut ArrayVec<P::Buf, BURST>,
        out: &mut Output<P::Buf>,
    ) {
        self.core.stats.port(port).rx_packets.add(burst.len() as u64);
        self.pass(now, port, burst, out, false);
    }

    /// The same for frames that `port` received encrypted: each starts with an Ethernet header, of which type and
    /// destination (the port's address) count, in front of the packet that was inside.
    pub fn decrypted(
        &mut self,
        now: u64,
        port: PortId,
        burst: &mut ArrayVec<P::Buf, BURST>,
        out: &mut Output<P::Buf>,
    ) {
        self.pass(now, port, burst, out, true);
    }

    #[inline(always)]
    fn pass(
        &mut self,
        now: u64,
        port: PortId,
        burst: &mut ArrayVec<P::Buf, BURST>,
        out: &mut Output<P::Buf>,
        decrypted: bool,
    ) {
        let snapshot: &Snapshot = self.reader.load();
        let ipsec = Ipsec::load(self.ipsec.as_mut());
        let core = &mut self.core;
        if !core.parking.is_empty() {
            // With these tables a packet of the burst may be sent at once: not before those that waited.
            core.retry(snapshot, ipsec, now, out);
        }
        let Some(view) = snapshot.port(port).filter(|view| view.admin_up) else {
            let bytes: usize = burst.iter().map(PacketBuf::len).sum();
            core.stats.port(port).rx_bytes.add(bytes as u64);
            core.stats.count_drop(
                DropReason::NoDevice,
                Direction::Ingress,
                burst.len() as u64,
                bytes as u64,
            );
            burst.drain(..).for_each(|buf| out.discard(buf));
            return;
        };
        let rx = Rx {
            snapshot,
            port,
            view,
            now,
            second: connection::second(now),
            born: now,
            ipsec,
            decrypted,
        };
        match view.role {
            Role::Pod => core.burst::<true>(&rx, burst, out),
            Role::Uplink => core.burst::<false>(&rx, burst, out),
            Role::Host => {
                if let Some(frame) = burst.first().and_then(|buf| buf.data().first_chunk::<12>()) {
                    let [.., a, b, c, d, e, f] = *frame;
                    core.host_mac.learn(MacAddr([a, b, c, d, e, f]));
                }
                // Where the kernel's packets may belong to connections, they are looked up like endpoints'.
                let node = snapshot.node();
                // Its ports are kept for it where its address is others', too: that of masquerading, or the first one.
                let masquerade = node.masquerade4.is_some()
                    || node.masquerade6.is_some()
                    || node.first4.is_some()
                    || node.first6.is_some();
                let tunnel = node.routing == Routing::Tunnel;
                match tunnel || masquerade || snapshot.policy(HOST_ENDPOINT).is_some() {
                    true => {
                        // Unlike those of endpoints, its frames may be for others.
                        let others = |buf: &P::Buf| !buf.data().starts_with(&view.mac.0);
                        let mut at = 0;
                        while let Some(buf) = burst.get(at) {
                            if others(buf) {
                                core.slow(&rx, burst.remove(at), out);
                            } else {
                                at += 1;
                            }
                        }
                        core.burst::<true>(&rx, burst, out);
                    }
                    false => core.burst::<false>(&rx, burst, out),
                }
            }
        }
    }

    /// Looks after the packets that wait for neighbours. Call it once in each round of the poll loop.
    pub fn tick(&mut self, now: u64, out: &mut Output<P::Buf>) {
        if !self.core.parking.is_empty() {
            let ipsec = Ipsec::load(self.ipsec.as_mut());
            self.core.retry(self.reader.load(), ipsec, now, out);
        }
        self.core.flows.quiesce();
        self.core.affinities.quiesce();
        self.core.fragments.quiesce();
    }

    /// Ends connections whose time is over at `now`, looking at `records` of them at most.
    pub fn expire(&mut self, now: u64, records: usize) {
        self.core.expire(now, records);
    }

    /// Lets go of old tables. [`Engine::process`] does it by itself; an idle worker must, too, or their memory cannot be
    /// used again.
    pub fn refresh(&mut self) {
        self.reader.load();
        let _ = Ipsec::load(self.ipsec.as_mut());
    }

    /// What happened since the last call that the control plane has to know.
    pub fn events(&mut self) -> impl Iterator<Item = NeighbourEvent> + '_ {
        self.core.events.drain(..)
    }

    /// Counts packets that the worker could not send.
    pub fn count_unsent(&mut self, port: PortId, reason: DropReason, packets: u64, bytes: u64) {
        self.core.stats.port(port).tx_full.add(packets);
        let direction = match self.reader.load().port(port) {
            Some(view) if view.role == Role::Pod => Direction::Ingress,
            _ => Direction::Egress,
        };
        self.core.stats.count_drop(reason, direction, packets, bytes);
    }

    /// Counts packets that were lost between the engine and `port`, or before they came back from there.
    pub fn count_lost(&mut self, reason: DropReason, direction: Direction, packets: u64, bytes: u64) {
        self.core.stats.count_drop(reason, direction, packets, bytes);
    }

    /// The address of a port, as frames from there have to be addressed.
    pub fn mac(&mut self, port: PortId) -> Option<MacAddr> {
        self.reader.load().port(port).map(|view| view.mac)
    }

    /// Frees everything that waits, before the buffers' pool goes away.
    pub fn clear(&mut self) {
        self.core.parking.clear();
        self.core.stats.parked.set(0);
    }

    /// The counters.
    pub fn stats(&self) -> &Arc<WorkerStats> {
        &self.core.stats
    }

    /// Where those who want to know of verdicts and drops say so, and find them.
    pub fn monitor(&self) -> &Arc<Monitor> {
        &self.core.onlookers.monitor
    }

    /// The pool new packets are made from.
    pub fn pool(&mut self) -> &mut P {
        &mut self.core.pool
    }
}

impl<P: BufPool> Core<P> {
    #[inline(always)]
    pub(crate) fn burst<const POD: bool>(
        &mut self,
        rx: &Rx<'_>,
        burst: &mut ArrayVec<P::Buf, BURST>,
        out: &mut Output<P::Buf>,
    ) {
        let packets = burst.len() as u64;
        self.runs = self.runs.wrapping_add(1);
        let timed = self.runs.is_multiple_of(TIMED);
        let start = if timed { (self.cycles)() } else { 0 };
        self.forward::<POD>(rx, burst, out);
        let stats = self.stats.stage(Stage::Forward);
        stats.calls.add(1);
        stats.packets.add(packets);
        if timed {
            stats.timed_packets.add(packets);
            stats.timed_cycles.add((self.cycles)().wrapping_sub(start));
        }
    }

    /// A number to choose with (xorshift64*): which backend, which port. Nothing secret depends on it.
    pub(crate) fn random(&mut self) -> u32 {
        next_random(&mut self.seed)
    }

    /// Drops a packet and says why.
    pub(crate) fn discard(&self, rx: &Rx<'_>, reason: DropReason, buf: P::Buf, out: &mut Output<P::Buf>) {
        self.stats.count_drop(reason, rx.direction(), 1, buf.len() as u64);
        self.tell_drop(rx, reason, buf.data());
        out.discard(buf);
    }
}

/// The next number that follows from `seed`, which is never 0.
pub(crate) fn next_random(seed: &mut u64) -> u32 {
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    (seed.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
}

/// Different in each engine.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}
