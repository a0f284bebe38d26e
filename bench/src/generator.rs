//! Packets made in process, for more flows than a device can hold: the engine in a loop of the harness, without devices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use anyhow::{anyhow, ensure};
use dpdk::mempool::MbufAllocator;
use dpdk::{ArrayVec, Eal, Mbuf, Mempool, PacketBuf, cycles, free_all, lcore};
use octoplane_engine as engine;
use octoplane_engine::{BURST, Counter, Engine, EngineConfig, HostMac, Memory, Output, WorkerStats};
use octoplane_flow::FlowTable;
use octoplane_tables::model::{MAX_PORTS, Port};
use octoplane_tables::{SharedStore, Store};
use octoplane_worker::Clock;

use crate::churn::Churn;
use crate::cpus;
use crate::dip::dips;
use crate::frames::Packed;
use crate::job::{Setup, Subject};
use crate::macswap::{LoopCounters, swap_all};
use crate::measure::{PLACES, Totals, measure};
use crate::ports::pool;
use crate::prime::prime;
use crate::sample::Sample;
use crate::scenario::{GATEWAYS, Scenario, port_mac};
use crate::worker::{CAPACITY, add_drops};

/// How many packets ahead buffers are asked for.
const AHEAD: usize = 4;

/// What is done to the packets.
trait Stage {
    /// Uses up a burst; returns how many packets came out.
    fn pass(&mut self, port: u16, start: u64, burst: &mut ArrayVec<Mbuf, BURST>) -> usize;

    /// What need not be done for every burst.
    fn housekeeping(&mut self) {}
}

/// Nanoseconds that a connection of the scenarios is kept: the timeout of UDP.
const KEPT: u64 = 60_000_000_000;
/// Places of the table that are looked at for each new connection.
const EXPIRED: usize = 4;
/// Bursts between housekeeping, as in the worker.
const HOUSEKEEPING: u64 = 64;
/// Places of the table of connections.
const CONNECTIONS: u32 = 1 << 21;
/// Different source ports of one new connection after the other.
const PORTS: u16 = 60_000;

/// The pipeline.
struct Pipeline {
    engine: Engine<MbufAllocator>,
    out: Output<Mbuf>,
    clock: Clock,
    /// The time of a clock that goes by packets: it is set where each packet begins a connection.
    time: Option<PacketTime>,
}

/// Time that passes with packets.
struct PacketTime {
    now: u64,
    /// Nanoseconds a packet.
    step: u64,
}

impl Stage for Pipeline {
    #[inline(always)]
    fn pass(&mut self, port: u16, start: u64, burst: &mut ArrayVec<Mbuf, BURST>) -> usize {
        let now = match &mut self.time {
            None => self.clock.ns(start),
            Some(time) => {
                time.now += time.step * burst.len() as u64;
                self.engine.expire(time.now, EXPIRED * burst.len());
                time.now
            }
        };
        self.engine.process(now, port, burst, &mut self.out);
        self.engine.tick(now, &mut self.out);
        let mut sent = 0;
        for id in self.out.take_touched() {
            if let Some(queue) = self.out.queue(id) {
                sent += queue.len();
                free_all(queue);
            }
        }
        free_all(&mut self.out.free);
        sent
    }

    fn housekeeping(&mut self) {
        self.engine.refresh();
    }
}

/// The yardstick.
struct Swap;

impl Stage for Swap {
    #[inline(always)]
    fn pass(&mut self, _port: u16, _start: u64, burst: &mut ArrayVec<Mbuf, BURST>) -> usize {
        swap_all(burst);
        let sent = burst.len();
        free_all(burst);
        sent
    }
}

/// Measures the engine or the bare loop.
pub(crate) fn run(setup: &Setup, subject: Subject) -> anyhow::Result<Sample> {
    let eal = setup.eal()?;
    let pool = pool(&eal, setup)?;
    let clock = Clock::start();
    let store = SharedStore::new(Store::new(model_ports(setup.scenario), GATEWAYS, CAPACITY)?);
    let memory = Memory::new(Arc::new(FlowTable::new(CONNECTIONS)?))?;
    if subject == Subject::Octoplane {
        setup.program(&store)?;
        prime(
            setup.questions(),
            store.reader(),
            &memory,
            setup.workers.len(),
            clock.now(),
        )?;
    }
    let frames: Arc<[Packed]> = (0..setup.scenario.sources())
        .map(|port| Packed::new(&setup.frames(port)))
        .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let (mut threads, mut counters, mut stats) = (Vec::new(), Vec::new(), Vec::new());
    for &cpu in &setup.workers {
        let shared = Arc::new(LoopCounters {
            times: (0..PLACES).map(|_| Counter::default()).collect(),
            ..LoopCounters::default()
        });
        counters.push(Arc::clone(&shared));
        let source = Generator {
            eal: eal.clone(),
            cpu,
            pool: pool.clone(),
            frames: Arc::clone(&frames),
            burst: setup.burst.into(),
            fresh: setup.hold.map(|_| if setup.ipv6 { 54 } else { 34 }),
            counters: shared,
            stop: Arc::clone(&stop),
        };
        let (ready, started) = sync_channel(1);
        let ready = move || drop(ready);
        threads.push(match subject {
            Subject::Macswap => thread::spawn(move || source.run(Swap, ready)),
            Subject::Octoplane => {
                let worker_stats = Arc::new(WorkerStats::default());
                stats.push(Arc::clone(&worker_stats));
                let config = EngineConfig {
                    cycles: cycles::now,
                    ..EngineConfig::default()
                };
                let pipeline = Pipeline {
                    engine: Engine::new(
                        store.reader(),
                        pool.allocator(),
                        worker_stats,
                        Arc::new(HostMac::default()),
                        memory.part(threads.len(), setup.workers.len())?,
                        &config,
                    ),
                    out: Output::new(MAX_PORTS),
                    clock,
                    time: setup.hold.map(|hold| PacketTime {
                        now: clock.now(),
                        step: KEPT / u64::from(hold),
                    }),
                };
                thread::spawn(move || source.run(pipeline, ready))
            }
        });
        // Returns when the thread lets go of its end: it runs, or has failed.
        let _: Result<(), _> = started.recv();
    }
    let churn = (subject == Subject::Octoplane && setup.churn > 0)
        .then(|| Churn::start(store.clone(), setup.scenario, setup.churn, setup.control));
    let read = || {
        let mut totals = Totals {
            transactions: churn.as_ref().map_or(0, Churn::made),
            ..Totals::default()
        };
        counters.iter().for_each(|counters| counters.add_to(&mut totals));
        for stats in &stats {
            totals.slow += stats.stage(engine::Stage::Slow).packets.get();
            add_drops(stats, &mut totals.drops);
        }
        totals
    };
    // Until as many connections end as begin.
    let full = setup.hold.map_or(0, |hold| u64::from(hold) * 3);
    while read().received < full && !threads.iter().any(JoinHandle::is_finished) {
        sleep(Duration::from_millis(20));
    }
    let mut sample = measure(setup, read);
    if subject == Subject::Octoplane {
        sample.connections = Some(memory.flows.len());
        sample.connection_bytes = Some(memory.flows.bytes() as f64 / f64::from(memory.flows.capacity()));
        sample.dips = dips(setup, &store, || read().sent)?;
    }
    if let Some(churn) = churn {
        churn.stop()?;
    }
    stop.store(true, Relaxed);
    for thread in threads {
        thread.join().map_err(|_| anyhow!("a thread panicked"))??;
    }
    ensure!(sample.packets > 0, "no packet came through");
    Ok(sample)
}

/// One thread's source.
struct Generator {
    eal: Eal,
    cpu: usize,
    pool: Mempool,
    frames: Arc<[Packed]>,
    burst: usize,
    /// Where the source port is in frames that all begin new connections.
    fresh: Option<usize>,
    counters: Arc<LoopCounters>,
    stop: Arc<AtomicBool>,
}

impl Generator {
    fn run(self, mut stage: impl Stage, ready: impl FnOnce()) -> anyhow::Result<()> {
        cpus::pin(self.cpu)?;
        let _lcore = lcore::register_thread(&self.eal)?;
        ready();
        let mut sources: Vec<_> = self.frames.iter().map(Packed::cycle).collect();
        let (all, mut made, mut bursts) = (self.frames[0].len(), 0, 0_u64);
        let mut burst = ArrayVec::<Mbuf, BURST>::new();
        let mut last = cycles::now();
        while !self.stop.load(Relaxed) {
            for (port, source) in sources.iter_mut().enumerate() {
                let packets = self.pool.alloc_bulk(&mut burst, self.burst);
                fill(&mut burst, source);
                if let Some(at) = self.fresh {
                    for buf in &mut burst {
                        let port = 1024 + (made / all % usize::from(PORTS)) as u16;
                        if let Some(field) = buf.data_mut().get_mut(at..at + 2) {
                            field.copy_from_slice(&port.to_be_bytes());
                        }
                        made += 1;
                    }
                }
                let sent = stage.pass(port as u16, last, &mut burst);
                self.counters.received.add(packets as u64);
                self.counters.bursts.add(1);
                self.counters.sent.add(sent as u64);
                let now = cycles::now();
                let spent = now.wrapping_sub(last);
                self.counters.busy_cycles.add(spent);
                let place = (spent as usize * 4 / packets.max(1)).min(PLACES - 1);
                self.counters.times[place].add(1);
                last = now;
            }
            bursts += 1;
            if bursts.is_multiple_of(HOUSEKEEPING) {
                stage.housekeeping();
            }
        }
        Ok(())
    }
}

/// Writes frames into empty buffers. What lies behind the headers does not matter and is left as it was.
#[inline(always)]
fn fill<'a>(burst: &mut ArrayVec<Mbuf, BURST>, source: &mut impl Iterator<Item = (&'a [u8], usize)>) {
    for buf in burst.iter().take(AHEAD) {
        buf.prefetch();
    }
    for index in 0..burst.len() {
        if let Some(next) = burst.get(index + AHEAD) {
            next.prefetch();
        }
        let (Some(buf), Some((bytes, len))) = (burst.get_mut(index), source.next()) else {
            return;
        };
        let Ok(data) = buf.append(len) else { continue };
        // Pieces of a fixed size are copied without a call.
        for (to, from) in data.chunks_mut(32).zip(bytes.chunks(32)) {
            match (to.first_chunk_mut::<32>(), from.first_chunk::<32>()) {
                (Some(to), Some(from)) => *to = *from,
                _ => to.copy_from_slice(&from[..to.len()]),
            }
        }
    }
}

/// The ports of a scenario, for tables without devices.
pub(crate) fn model_ports(scenario: Scenario) -> Vec<Port> {
    scenario
        .roles()
        .into_iter()
        .enumerate()
        .map(|(port, role)| Port {
            id: port as u16,
            name: format!("port{port}"),
            role,
            mac: port_mac(port),
            mtu: 1500,
            admin_up: true,
            addresses: scenario.link(port),
        })
        .collect()
}
