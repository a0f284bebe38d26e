//! The yardstick: receive, swap Ethernet addresses, send. What no data plane on the same devices can beat.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::thread;

use anyhow::{Context, anyhow, ensure};
use dpdk::{ArrayVec, Mbuf, PacketBuf, RxQueue, TxQueue, cycles, free_all, lcore};
use octoplane_engine::Counter;

use crate::cpus;
use crate::job::Setup;
use crate::measure::{PLACES, Times, Totals, measure};
use crate::ports::{bind, pool};
use crate::sample::Sample;

/// What a loop of the harness counts.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct LoopCounters {
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
    pub(crate) unsent: Counter,
    pub(crate) bursts: Counter,
    pub(crate) busy_cycles: Counter,
    /// What each burst took, if that is measured: see [`Times`].
    pub(crate) times: Vec<Counter>,
}

impl LoopCounters {
    /// Adds these counters to others.
    pub(crate) fn add_to(&self, totals: &mut Totals) {
        totals.received += self.received.get();
        totals.sent += self.sent.get();
        totals.bursts += self.bursts.get();
        totals.busy_cycles += self.busy_cycles.get();
        if !self.times.is_empty() {
            let times = totals.times.get_or_insert_with(|| Times(vec![0; PLACES]));
            for (sum, count) in times.0.iter_mut().zip(&self.times) {
                *sum += count.get();
            }
        }
        *totals.drops.entry("Transmit queue full".to_owned()).or_default() += self.unsent.get();
    }
}

/// Measures the bare loop.
pub(crate) fn run(setup: &Setup) -> anyhow::Result<Sample> {
    let eal = setup.eal()?;
    let pool = pool(&eal, setup)?;
    let mut ports = bind(&eal, setup, &pool)?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    let mut counters = Vec::new();
    for &cpu in &setup.workers {
        let mut queues = Vec::new();
        for port in 0..2 {
            let rx = ports[port].rx.pop().context("too few receive queues")?;
            let tx = ports[1 - port].tx.pop().context("too few send queues")?;
            queues.push((rx, tx));
        }
        let shared = Arc::new(LoopCounters::default());
        counters.push(Arc::clone(&shared));
        let (eal, stop, burst) = (eal.clone(), Arc::clone(&stop), usize::from(setup.burst));
        let (ready, started) = sync_channel(1);
        threads.push(thread::spawn(move || -> anyhow::Result<()> {
            cpus::pin(cpu)?;
            let _lcore = lcore::register_thread(&eal)?;
            let _ = ready.send(());
            forward(queues, burst, &shared, &stop);
            Ok(())
        }));
        // An error ends the channel; joining tells which.
        let _ = started.recv();
    }
    let sample = measure(setup, || {
        let mut totals = Totals::default();
        counters.iter().for_each(|counters| counters.add_to(&mut totals));
        totals
    });
    stop.store(true, Relaxed);
    for thread in threads {
        thread.join().map_err(|_| anyhow!("a thread panicked"))??;
    }
    ensure!(sample.packets > 0, "no packet came through");
    Ok(sample)
}

fn forward(mut queues: Vec<(RxQueue, TxQueue)>, max: usize, counters: &LoopCounters, stop: &AtomicBool) {
    let mut burst = ArrayVec::<Mbuf, 64>::new();
    let mut last = cycles::now();
    while !stop.load(Relaxed) {
        let mut total = 0;
        for (rx, tx) in &mut queues {
            let packets = rx.burst_up_to(&mut burst, max);
            if packets == 0 {
                continue;
            }
            total += packets;
            swap_all(&mut burst);
            let sent = tx.burst(&mut burst);
            counters.received.add(packets as u64);
            counters.bursts.add(1);
            counters.sent.add(sent as u64);
            if !burst.is_empty() {
                counters.unsent.add(burst.len() as u64);
                free_all(&mut burst);
            }
        }
        let now = cycles::now();
        if total > 0 {
            counters.busy_cycles.add(now.wrapping_sub(last));
        }
        last = now;
    }
}

/// Swaps source and destination address of every packet.
#[inline(always)]
pub(crate) fn swap_all(burst: &mut ArrayVec<Mbuf, 64>) {
    for packet in burst.iter().take(4) {
        packet.prefetch();
    }
    for index in 0..burst.len() {
        if let Some(next) = burst.get(index + 4) {
            next.prefetch();
        }
        if let Some([dst @ .., a, b, c, d, e, f]) = burst
            .get_mut(index)
            .and_then(|packet| packet.data_mut().first_chunk_mut::<12>())
        {
            let src = [*a, *b, *c, *d, *e, *f];
            let [g, h, i, j, k, l] = *dst;
            (*a, *b, *c, *d, *e, *f) = (g, h, i, j, k, l);
            *dst = src;
        }
    }
}
