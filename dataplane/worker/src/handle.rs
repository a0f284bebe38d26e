//! Starting and holding a worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

use core_affinity::CoreId;
use crossbeam::queue::ArrayQueue;
use dpdk::{Eal, Mempool, lcore};
use octoplane_engine::{
    Engine, EngineConfig, HostMac, IpsecConfig, MemoryPart, Monitor, NeighbourEvent, PolicyOptions,
    WorkerStats,
};
use octoplane_tables::Reader;

use crate::backoff::{Backoff, Poll};
use crate::clock::Clock;
use crate::command::Command;
use crate::crypto::CryptoProvider;
use crate::handoff::Handoff;
use crate::ipsec::{IpsecStage, IpsecStats};
use crate::poll::PollLoop;
use crate::ports::PortQueues;
use crate::stats::LoopStats;

/// Commands that may wait for a worker.
const COMMANDS: usize = 1024;

/// A worker that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The operating system makes no thread.
    #[error("worker {worker}: no thread: {error}")]
    Thread {
        /// Number of the worker.
        worker: usize,
        /// What the system said.
        error: std::io::Error,
    },
    /// The thread cannot run on its CPU.
    #[error("worker {worker}: workers.cores: cannot run on CPU {core}")]
    Pin {
        /// Number of the worker.
        worker: usize,
        /// The CPU.
        core: usize,
    },
    /// The EAL does not take the thread.
    #[error("worker {worker}: {error}")]
    Register {
        /// Number of the worker.
        worker: usize,
        /// What the EAL said.
        error: lcore::LcoreError,
    },
}

/// What a worker is made of.
pub struct Worker {
    /// Its number.
    pub number: usize,
    /// The CPU it is pinned to.
    pub core: usize,
    /// How it waits for packets.
    pub poll: Poll,
    /// Most packets it takes from a queue at a time.
    pub burst: usize,
    /// Its view of the tables.
    pub reader: Reader,
    /// Where it takes buffers for packets of its own.
    pub pool: Mempool,
    /// The kernel's Ethernet address, shared by all workers.
    pub host_mac: Arc<HostMac>,
    /// Its part of what all workers remember.
    pub memory: MemoryPart,
    /// What the engine is told.
    pub engine: EngineConfig,
    /// How packets between nodes are encrypted, if they are, and by whom.
    pub ipsec: Option<WorkerIpsec>,
    /// Its queues.
    pub ports: Vec<PortQueues>,
    /// Its inbox of packets from other workers.
    pub inbox: Arc<Handoff>,
    /// Where it puts news for the control plane.
    pub events: Arc<ArrayQueue<NeighbourEvent>>,
}

/// How a worker encrypts.
pub struct WorkerIpsec {
    /// Security associations, and what the engine is told.
    pub config: IpsecConfig,
    /// Whether the engine encrypts for other nodes.
    pub nodes: bool,
    /// What policies say besides what is programmed, if there may be any.
    pub policies: Option<PolicyOptions>,
    /// Who encrypts.
    pub provider: CryptoProvider,
}

/// A running worker. Dropping it stops the worker and waits for it.
pub struct Handle {
    /// Its number.
    pub number: usize,
    /// The CPU it is pinned to.
    pub core: usize,
    /// How it waits for packets.
    pub poll: Poll,
    /// The engine's counters.
    pub stats: Arc<WorkerStats>,
    /// What it tells of verdicts and drops.
    pub monitor: Arc<Monitor>,
    /// The loop's counters.
    pub loop_stats: Arc<LoopStats>,
    /// What it counts of encryption, if there is any.
    pub ipsec: Option<IpsecStats>,
    commands: Arc<ArrayQueue<Command>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread, and returns once it polls.
    pub fn start(self, eal: &Eal, clock: Clock) -> Result<Handle, StartError> {
        let (number, core, poll) = (self.number, self.core, self.poll);
        let stats = Arc::new(WorkerStats::default());
        let loop_stats = Arc::new(LoopStats::default());
        let commands = Arc::new(ArrayQueue::new(COMMANDS));
        let stop = Arc::new(AtomicBool::new(false));
        let mut engine = Engine::new(
            self.reader,
            self.pool.allocator(),
            Arc::clone(&stats),
            self.host_mac,
            self.memory,
            &EngineConfig {
                cycles: dpdk::cycles::now,
                ..self.engine
            },
        );
        let monitor = Arc::clone(engine.monitor());
        let ipsec = self.ipsec.map(|it| {
            let mut stage = IpsecStage::new(&it.config, it.provider);
            if let Some(options) = it.policies {
                stage.follow_policies(options);
            }
            if it.nodes {
                engine.set_ipsec(it.config);
            }
            stage
        });
        let ipsec_stats = ipsec.as_ref().map(IpsecStage::stats);
        let poll_loop = PollLoop {
            engine,
            ports: self.ports,
            ipsec,
            inbox: self.inbox,
            commands: Arc::clone(&commands),
            events: self.events,
            stats: Arc::clone(&loop_stats),
            stop: Arc::clone(&stop),
            backoff: Backoff::new(poll),
            clock,
            burst: self.burst,
            rounds: 0,
        };
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let eal = eal.clone();
        let body = move || {
            if !core_affinity::set_for_current(CoreId { id: core }) {
                let _ = ready.send(Err(StartError::Pin { worker: number, core }));
                return;
            }
            // Sleeps of an adaptive worker end when they should, not up to 50 microseconds later. Without it they are
            // only longer.
            let _ = nix::sys::prctl::set_timerslack(1);
            // Transmit and crypto paths of cnxk are found by the lcore id; mempool caches, too.
            let lcore = match lcore::register_thread(&eal) {
                Ok(lcore) => lcore,
                Err(error) => {
                    let _ = ready.send(Err(StartError::Register {
                        worker: number,
                        error,
                    }));
                    return;
                }
            };
            let _ = ready.send(Ok(()));
            poll_loop.run();
            drop(lcore);
        };
        let thread = thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(body)
            .map_err(|error| StartError::Thread {
                worker: number,
                error,
            })?;
        if let Ok(result) = started.recv() {
            result?;
        }
        Ok(Handle {
            number,
            core,
            poll,
            stats,
            monitor,
            loop_stats,
            ipsec: ipsec_stats,
            commands,
            stop,
            thread: Some(thread),
        })
    }
}

impl Handle {
    /// Asks for something; gives it back when too much waits already.
    pub fn command(&self, command: Command) -> Result<(), Command> {
        self.commands.push(command)
    }

    /// Tells the worker to stop; [`Handle::join`] waits for it.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Stops the worker and waits until it has given its queues and buffers back.
    pub fn join(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // A worker that panicked has ended the process already (panic = abort), or was a test.
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end();
    }
}
