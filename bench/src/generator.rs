//! Packets made in process, for more flows than a device can hold: the engine in a loop of the harness, without devices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::thread;

use anyhow::{anyhow, ensure};
use dpdk::mempool::MbufAllocator;
use dpdk::{ArrayVec, Eal, Mbuf, Mempool, PacketBuf, cycles, free_all, lcore};
use octoplane_engine::{BURST, Engine, EngineConfig, HostMac, Memory, Output, WorkerStats};
use octoplane_flow::FlowTable;
use octoplane_tables::Store;
use octoplane_tables::model::{MAX_PORTS, Port};
use octoplane_worker::Clock;

use crate::cpus;
use crate::frames::Frame;
use crate::job::{Setup, Subject};
use crate::macswap::{LoopCounters, swap_all};
use crate::measure::{Totals, measure};
use crate::ports::pool;
use crate::sample::Sample;
use crate::scenario::{GATEWAYS, Scenario, port_mac};
use crate::worker::{CAPACITY, add_drops};

/// What is done to the packets.
trait Stage {
    /// Uses up a burst; returns how many packets came out.
    fn pass(&mut self, port: u16, start: u64, burst: &mut ArrayVec<Mbuf, BURST>) -> usize;
}

/// The pipeline.
struct Pipeline {
    engine: Engine<MbufAllocator>,
    out: Output<Mbuf>,
    clock: Clock,
}

impl Stage for Pipeline {
    #[inline(always)]
    fn pass(&mut self, port: u16, start: u64, burst: &mut ArrayVec<Mbuf, BURST>) -> usize {
        let now = self.clock.ns(start);
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
    let mut store = Store::new(model_ports(setup.scenario), GATEWAYS, CAPACITY)?;
    store.apply(setup.scenario.changes(setup.flows))?;
    let frames: Arc<[Vec<Frame>]> = (0..setup.scenario.sources())
        .map(|port| setup.frames(port))
        .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let memory = Memory::new(Arc::new(FlowTable::new(1 << 21)?))?;
    let (mut threads, mut counters, mut stats) = (Vec::new(), Vec::new(), Vec::new());
    for &cpu in &setup.workers {
        let shared = Arc::new(LoopCounters::default());
        counters.push(Arc::clone(&shared));
        let source = Generator {
            eal: eal.clone(),
            cpu,
            pool: pool.clone(),
            frames: Arc::clone(&frames),
            burst: setup.burst.into(),
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
                };
                thread::spawn(move || source.run(pipeline, ready))
            }
        });
        // Returns when the thread lets go of its end: it runs, or has failed.
        let _: Result<(), _> = started.recv();
    }
    let sample = measure(setup, || {
        let mut totals = Totals::default();
        counters.iter().for_each(|counters| counters.add_to(&mut totals));
        stats.iter().for_each(|stats| add_drops(stats, &mut totals.drops));
        totals
    });
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
    frames: Arc<[Vec<Frame>]>,
    burst: usize,
    counters: Arc<LoopCounters>,
    stop: Arc<AtomicBool>,
}

impl Generator {
    fn run(self, mut stage: impl Stage, ready: impl FnOnce()) -> anyhow::Result<()> {
        cpus::pin(self.cpu)?;
        let _lcore = lcore::register_thread(&self.eal)?;
        ready();
        let mut sources: Vec<_> = self.frames.iter().map(|frames| frames.iter().cycle()).collect();
        let mut burst = ArrayVec::<Mbuf, BURST>::new();
        let mut last = cycles::now();
        while !self.stop.load(Relaxed) {
            for (port, source) in sources.iter_mut().enumerate() {
                let packets = self.pool.alloc_bulk(&mut burst, self.burst);
                for (buf, frame) in burst.iter_mut().zip(source) {
                    // What lies behind the headers does not matter and is left as it was.
                    if let Ok(data) = buf.append(frame.len())
                        && let Some(start) = data.get_mut(..frame.header().len())
                    {
                        start.copy_from_slice(frame.header());
                    }
                }
                let sent = stage.pass(port as u16, last, &mut burst);
                self.counters.received.add(packets as u64);
                self.counters.bursts.add(1);
                self.counters.sent.add(sent as u64);
            }
            let now = cycles::now();
            self.counters.busy_cycles.add(now.wrapping_sub(last));
            last = now;
        }
        Ok(())
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
