//! ESP with a provider, on threads as the data plane's workers are.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use dpdk::{Eal, Mempool, cycles, lcore};
use octoplane_engine::Counter;
use octoplane_esp::Direction;
use octoplane_esp::software::{Library, Plan, Software};
use octoplane_worker::crypto::{Crypto, CryptoOptions, CryptoProvider, Why};

use super::engine::{self, EnginePath, Node, Source};
use super::path::{Decrypting, Encrypting, Path, With, inner};
use super::sas::{End, end};
use super::setup::{Operation, PathKind, Provider, ROUND, Setup};
use crate::cpus;
use crate::sample::{Sample, tenth};

/// How long a device may take to get ready, sessions included.
const PATIENCE: Duration = Duration::from_secs(120);

/// Rounds that are remembered one by one.
const SAMPLES: usize = 1 << 18;

/// What a thread counts.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counters {
    packets: Counter,
    cycles: Counter,
    bursts: Counter,
    /// Cycles of the round that a tenth of all was not slower than, when it is over.
    quiet: Counter,
}

/// Everything at one moment.
struct Totals {
    threads: Vec<(u64, u64)>,
    bursts: u64,
    other: BTreeMap<String, u64>,
}

/// Measures.
pub(super) fn run(setup: &Setup) -> anyhow::Result<Sample> {
    let eal = setup.eal()?;
    let pool = setup.pool(&eal)?;
    let mut sender = end(Direction::Outbound, setup.sas)?;
    let mut receiver = end(Direction::Inbound, setup.sas)?;
    let node = match setup.path {
        PathKind::Esp => None,
        PathKind::Engine => Some(Node::new(
            setup,
            match setup.operation {
                Operation::Encrypt => &mut sender,
                Operation::Decrypt => &mut receiver,
            },
        )?),
    };
    let options = CryptoOptions {
        devices: match &setup.provider {
            Provider::Software => Vec::new(),
            Provider::Cryptodev(device) => vec![device.clone()],
        },
        required: true,
        library: setup.library.as_deref().map(str::parse).transpose()?,
        ..CryptoOptions::default()
    };
    let (crypto, providers) = Crypto::open(&eal, options, setup.workers.len(), &pool)?;
    let subject = match setup.operation {
        Operation::Encrypt => &sender,
        Operation::Decrypt => &receiver,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let refused = Arc::<Mutex<BTreeMap<String, u64>>>::default();
    let (mut threads, mut counters, mut ready) = (Vec::new(), Vec::new(), Vec::new());
    for (index, (&cpu, provider)) in setup.workers.iter().zip(providers).enumerate() {
        let shared = Arc::new(Counters::default());
        counters.push(Arc::clone(&shared));
        let (started, is_ready) = sync_channel(1);
        let ends = (&sender, &receiver);
        let path = path(setup, ends, node.as_ref(), index, provider, &pool)?;
        let work = Work {
            cpu,
            path,
            counters: shared,
            stop: Arc::clone(&stop),
            refused: Arc::clone(&refused),
        };
        let eal = eal.clone();
        threads.push(thread::spawn(move || work.run(&eal, || _ = started.send(()))));
        ready.push(is_ready);
    }
    get_ready(setup, &crypto, subject, &ready)?;
    let read = || Totals {
        threads: counters
            .iter()
            .map(|it| (it.packets.get(), it.cycles.get()))
            .collect(),
        bursts: counters.iter().map(|it| it.bursts.get()).sum(),
        other: other(setup, &crypto, &refused),
    };
    sleep(setup.warmup());
    let before = read();
    let start = Instant::now();
    sleep(setup.duration());
    let (after, seconds) = (read(), start.elapsed().as_secs_f64());
    stop.store(true, Relaxed);
    for thread in threads {
        thread.join().map_err(|_| anyhow!("a thread panicked"))??;
    }
    let mut sample = sample(&before, &after, seconds);
    let hz = cycles::hz() as f64;
    let rates = counters.iter().map(|it| match it.quiet.get() {
        0 => 0.0,
        cycles => hz * ROUND as f64 / cycles as f64 / 1e6,
    });
    sample.quiet = Some(rates.sum());
    ensure!(
        sample.packets > 0,
        "no packet came through: {}",
        other(setup, &crypto, &refused)
            .iter()
            .map(|(why, n)| format!("{n} {why}"))
            .collect::<Vec<_>>()
            .join(", ")
    );
    Ok(sample)
}

fn path(
    setup: &Setup,
    (sender, receiver): (&End, &End),
    node: Option<&Node>,
    worker: usize,
    provider: CryptoProvider,
    pool: &Mempool,
) -> anyhow::Result<Box<dyn Path + Send>> {
    // Workers start at different places, as flows would.
    let first = worker * sender.ids.len() / setup.workers.len();
    let frames = match node {
        Some(node) => node.frames().to_vec(),
        None => vec![inner(setup.size)?],
    };
    let encrypting = || {
        Encrypting::new(
            setup,
            sender.db.reader(),
            &sender.ids,
            first,
            frames,
            pool.allocator(),
        )
    };
    Ok(match (setup.operation, node) {
        (Operation::Encrypt, None) => Box::new(With(encrypting()?, provider)),
        (Operation::Decrypt, None) => {
            let sealer = Software::new(Arc::new(Plan::only(Library::AwsLc)), 2 * ROUND);
            let decrypting = Decrypting::new(encrypting()?, sealer, receiver.db.reader());
            Box::new(With(decrypting, provider))
        }
        (operation, Some(node)) => {
            let source = match operation {
                Operation::Encrypt => Source::Pods(
                    pool.allocator(),
                    worker * node.frames().len() / setup.workers.len(),
                ),
                Operation::Decrypt => engine::peer(encrypting()?),
            };
            Box::new(EnginePath::new(setup, node, worker, source, provider, pool)?)
        }
    })
}

/// Waits until all threads run and all devices have all sessions.
fn get_ready(setup: &Setup, crypto: &Crypto, subject: &End, ready: &[Receiver<()>]) -> anyhow::Result<()> {
    for thread in ready {
        // An error ends the channel; joining tells which.
        let _ = thread.recv();
    }
    if setup.provider == Provider::Software {
        return Ok(());
    }
    let start = Instant::now();
    let snapshot = subject.db.snapshot();
    for sa in snapshot.sad.iter() {
        while !crypto.prepare(sa.session()) {
            ensure!(start.elapsed() < PATIENCE, "the device makes no sessions");
            sleep(Duration::from_millis(1));
        }
    }
    let all = u64::from(setup.sas);
    while crypto
        .stats()
        .any(|stats| stats.unused().is_some() || stats.sessions.get() < all)
    {
        let failed = crypto.report().into_iter().find_map(|it| it.failed_sessions.1);
        ensure!(failed.is_none(), "a session: {}", failed.unwrap_or_default());
        ensure!(start.elapsed() < PATIENCE, "the device does not get to work");
        sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// What is not as it should be.
fn other(setup: &Setup, crypto: &Crypto, refused: &Mutex<BTreeMap<String, u64>>) -> BTreeMap<String, u64> {
    let mut all = refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if setup.provider != Provider::Software {
        for stats in crypto.stats() {
            for why in Why::ALL {
                *all.entry(format!("in software ({})", why.name())).or_default() += stats.software(why);
            }
        }
    }
    all
}

struct Work {
    cpu: usize,
    path: Box<dyn Path + Send>,
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
    refused: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Work {
    fn run(mut self, eal: &Eal, ready: impl FnOnce()) -> anyhow::Result<()> {
        cpus::pin(self.cpu)?;
        let _lcore = lcore::register_thread(eal)?;
        ready();
        // Two rounds ahead of the clock: the device is found, and its sessions are taken.
        let mut known = 0;
        let mut rounds = Vec::<f64>::with_capacity(SAMPLES);
        while !self.stop.load(Relaxed) {
            self.path.fill()?;
            let start = cycles::now();
            self.path.run();
            let spent = cycles::now().wrapping_sub(start);
            if rounds.len() < SAMPLES {
                rounds.push(spent as f64);
            }
            let (through, refused) = self.path.counts();
            self.counters.packets.set(through);
            self.counters.cycles.add(spent);
            self.counters.bursts.add(1);
            let now: u64 = refused.values().sum();
            if now != known {
                known = now;
                let mut all = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
                *all = refused.clone();
            }
        }
        self.counters.quiet.set(tenth(rounds) as u64);
        self.path.finish();
        Ok(())
    }
}

fn sample(before: &Totals, after: &Totals, seconds: f64) -> Sample {
    let hz = cycles::hz() as f64;
    let (mut mpps, mut packets, mut spent) = (0.0, 0, 0);
    for (before, after) in before.threads.iter().zip(&after.threads) {
        let (n, cycles) = (after.0.wrapping_sub(before.0), after.1.wrapping_sub(before.1));
        if cycles > 0 {
            mpps += n as f64 * hz / cycles as f64 / 1e6;
        }
        packets += n;
        spent += cycles;
    }
    let rounds = after.bursts - before.bursts;
    Sample {
        mpps,
        packets,
        seconds,
        cycles_per_packet: (packets > 0).then(|| spent as f64 / packets as f64),
        mean_burst: (rounds > 0).then(|| packets as f64 / rounds as f64),
        drops: after
            .other
            .iter()
            .map(|(why, n)| {
                let old = before.other.get(why).copied().unwrap_or(0);
                (why.clone(), n.wrapping_sub(old))
            })
            .filter(|(_, n)| *n > 0)
            .collect(),
        ..Sample::default()
    }
}
