//! Brings a data plane up from a plan, and down again in order.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use crossbeam::queue::ArrayQueue;
use dpdk::mempool::MempoolError;
use dpdk::port::port_by_name;
use dpdk::{Eal, Mempool, Port, PortError};
use octoplane_engine::{EngineConfig, HostMac, IpsecConfig, Memory, NeighbourEvent, PolicyOptions};
use octoplane_flow::{FlowError, FlowTable, Kept, SegmentError};
use octoplane_tables::model::PortId;
use octoplane_tables::{Capacity, Gateways, SharedStore, Store, StoreError};

use crate::backoff::Poll;
use crate::bind::{BindFailed, BoundPort, Crew, PortPlan, bind, least_loaded};
use crate::clock::Clock;
use crate::crypto::{Crypto, CryptoOptions, CryptoSetupError};
use crate::handle::{Handle, StartError, Worker, WorkerIpsec};
use crate::handoff::Handoff;
use crate::hotplug::attach;
use crate::ports::PortQueues;
use crate::resume::{Connections, Missing, Remembered, Resume, ResumeError, remember, system_clock};

/// Packets that may wait in one worker's inbox.
const INBOX: usize = 1024;
/// News that may wait for the control plane.
const EVENTS: usize = 4096;

/// What a data plane consists of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Ports, in the order of their numbers.
    pub ports: Vec<PortPlan>,
    /// The CPU of each worker.
    pub cores: Vec<usize>,
    /// How workers wait for packets.
    pub poll: Poll,
    /// Most packets taken from a queue at a time, 1 to 64.
    pub burst: usize,
    /// Packet buffers.
    pub mbufs: u32,
    /// Free buffers that each worker keeps to itself.
    pub mbuf_cache: u32,
    /// Bytes of each buffer, headroom included.
    pub data_room: u16,
    /// Addresses that pods use as their gateway.
    pub gateways: Gateways,
    /// Sizes of the tables.
    pub capacity: Capacity,
    /// Connections there is room for.
    pub connections: u32,
    /// What the engines are told.
    pub engine: EngineConfig,
    /// How packets between nodes are encrypted, if they are.
    pub ipsec: Option<IpsecPlan>,
}

/// How packets between nodes are encrypted.
#[derive(Debug, Clone)]
pub struct IpsecPlan {
    /// What the engines are told.
    pub config: IpsecConfig,
    /// Whether there are nodes that packets are encrypted for, as Cilium does it.
    pub nodes: bool,
    /// What there is to say about what leaves by uplinks, and comes in by them, if there may be policies.
    pub policies: Option<PolicyOptions>,
    /// Who does the cryptography.
    pub crypto: CryptoOptions,
}

/// Why a data plane did not come up.
#[derive(Debug, thiserror::Error)]
pub enum BringupError {
    /// There is no table of connections.
    #[error("capacity.connections: {0}")]
    Flows(#[from] FlowError),
    /// The buffers could not be had.
    #[error("memory: {0}")]
    Pool(#[from] MempoolError),
    /// DPDK has no such device.
    #[error(
        "ports.{port}: device {device} was not found by DPDK: is the driver there, and the address right?"
    )]
    NoDevice {
        /// Name of the port.
        port: String,
        /// Its device.
        device: String,
    },
    /// The device has fewer queues than were asked for by number.
    #[error("ports.{port}.{key}: {asked} is more than the device has ({most})")]
    Queues {
        /// Name of the port.
        port: String,
        /// Key in the configuration.
        key: &'static str,
        /// What was asked for.
        asked: u16,
        /// What there is.
        most: u16,
    },
    /// The device refused something.
    #[error("ports.{port}: {error}")]
    Port {
        /// Name of the port.
        port: String,
        /// What it said.
        error: PortError,
    },
    /// The tables could not be set up.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The crypto devices could not be set up.
    #[error(transparent)]
    Crypto(#[from] CryptoSetupError),
    /// A worker could not be started.
    #[error(transparent)]
    Worker(#[from] StartError),
    /// What another process left behind cannot be used.
    #[error(transparent)]
    Resume(ResumeError),
    /// Another process has the memory of connections.
    #[error("state.connections: {0}")]
    Kept(SegmentError),
}

/// A data plane that is up.
pub struct Dataplane {
    /// The workers, in the order of their numbers.
    pub workers: Vec<Handle>,
    /// The tables.
    pub store: SharedStore,
    /// Who does the cryptography for the workers, if packets between nodes are encrypted. Ends before the buffers do.
    pub crypto: Option<Crypto>,
    /// The packet buffers.
    pub pool: Mempool,
    /// The connections of all workers.
    pub flows: Arc<FlowTable>,
    /// All that the workers remember, the connections among it.
    pub memory: Memory,
    /// What became of those of the process before.
    pub connections: Connections,
    /// Where they outlive the process.
    kept: Option<Kept>,
    /// News from the workers.
    pub events: Arc<ArrayQueue<NeighbourEvent>>,
    /// The clock all workers use.
    pub clock: Clock,
    /// When everything was up.
    pub started: Instant,
    pub(crate) eal: Eal,
    /// The inbox of each worker.
    pub(crate) inboxes: Vec<Arc<Handoff>>,
    /// In the order of their numbers; those that come and go among them.
    ports: RwLock<Vec<Arc<BoundPort>>>,
    /// Held by whoever adds or removes a port: one at a time.
    pub(crate) changing: Mutex<()>,
}

impl Dataplane {
    /// Sets up buffers, ports and tables, and starts the workers.
    ///
    /// # Errors
    /// [`BringupError`]
    pub fn start(eal: &Eal, plan: &Plan) -> Result<Self, BringupError> {
        Self::resume(eal, plan, Resume::default()).map(|(dataplane, _)| dataplane)
    }

    /// The same with what another process left behind. Says which ports are not there any more.
    ///
    /// # Errors
    /// [`BringupError`]
    pub fn resume(eal: &Eal, plan: &Plan, resume: Resume<'_>) -> Result<(Self, Vec<Missing>), BringupError> {
        let pool = Mempool::new(eal, "packets", plan.mbufs, plan.mbuf_cache, plan.data_room, None)?;
        let count = plan.cores.len();
        let inboxes: Vec<Arc<Handoff>> = (0..count).map(|_| Arc::new(Handoff::new(INBOX))).collect();
        let mut queues: Vec<Vec<PortQueues>> = (0..count).map(|_| Vec::new()).collect();
        let mut ports: Vec<Arc<BoundPort>> = Vec::new();
        for (id, port) in plan.ports.iter().enumerate() {
            let crew = Crew {
                inboxes: &inboxes,
                first: least_loaded(count, &ports),
                pool: &pool,
            };
            let device = open(eal, port)?;
            let (bound, shares) = bind(id as PortId, port, device, crew).map_err(|failed| {
                let BindFailed { error, .. } = *failed;
                error
            })?;
            for (queues, share) in queues.iter_mut().zip(shares) {
                queues.push(share);
            }
            bound.list(true);
            ports.push(Arc::new(bound));
        }
        let mut missing = Vec::new();
        for (port, devargs) in resume.ports {
            let crew = Crew {
                inboxes: &inboxes,
                first: least_loaded(count, &ports),
                pool: &pool,
            };
            match attach(eal, ports.len() as PortId, port, devargs, crew, &ports) {
                Ok((bound, shares)) => {
                    for (queues, share) in queues.iter_mut().zip(shares) {
                        queues.push(share);
                    }
                    bound.list(true);
                    ports.push(Arc::new(bound));
                }
                Err(error) => missing.push(Missing {
                    port: port.name.clone(),
                    error,
                }),
            }
        }
        let mut store = Store::new(
            ports.iter().map(|bound| bound.model()).collect(),
            plan.gateways,
            plan.capacity,
        )?;
        (resume.restore)(&mut store).map_err(BringupError::Resume)?;
        let events = Arc::new(ArrayQueue::new(EVENTS));
        let host_mac = Arc::new(HostMac::default());
        let Remembered {
            memory,
            clock,
            kept,
            connections,
        } = remember(
            resume.connections,
            plan.connections,
            plan.ipsec.as_ref().is_some_and(|ipsec| ipsec.nodes),
        )?;
        let (crypto, mut providers) = match &plan.ipsec {
            Some(ipsec) => {
                let (crypto, providers) = Crypto::open(eal, ipsec.crypto.clone(), count, &pool)?;
                (Some(crypto), providers)
            }
            None => (None, Vec::new()),
        };
        // The last worker's is the last.
        providers.reverse();
        let mut workers = Vec::new();
        for (number, (ports, &core)) in queues.into_iter().zip(&plan.cores).enumerate() {
            let worker = Worker {
                number,
                core,
                poll: plan.poll,
                burst: plan.burst,
                reader: store.reader(),
                pool: pool.clone(),
                host_mac: Arc::clone(&host_mac),
                engine: plan.engine.clone(),
                ipsec: plan
                    .ipsec
                    .as_ref()
                    .zip(providers.pop())
                    .map(|(it, provider)| WorkerIpsec {
                        config: it.config.clone(),
                        nodes: it.nodes,
                        policies: it.policies.clone(),
                        provider,
                    }),
                memory: memory.part(number, plan.cores.len())?,
                ports,
                inbox: Arc::clone(&inboxes[number]),
                events: Arc::clone(&events),
            };
            workers.push(worker.start(eal, clock)?);
        }
        let dataplane = Self {
            workers,
            store: SharedStore::new(store),
            crypto,
            pool,
            flows: Arc::clone(&memory.flows),
            memory,
            connections,
            kept,
            events,
            clock,
            started: Instant::now(),
            eal: eal.clone(),
            inboxes,
            ports: RwLock::new(ports),
            changing: Mutex::new(()),
        };
        Ok((dataplane, missing))
    }

    /// Takes note of the time, so that connections have their ages in the next process. To be called some times a second.
    pub fn beat(&self) {
        if let Some(kept) = &self.kept {
            kept.beat(self.clock.now(), system_clock());
        }
    }

    /// The ports that the tables have, in the order of their numbers.
    pub fn ports(&self) -> Vec<Arc<BoundPort>> {
        let mut ports = self.bound();
        ports.retain(|bound| bound.is_listed());
        ports
    }

    /// The port with this number, also while it comes or goes.
    pub fn port(&self, id: PortId) -> Option<Arc<BoundPort>> {
        self.bound().into_iter().find(|bound| bound.id == id)
    }

    /// The port with this name, also while it comes or goes.
    pub fn port_named(&self, name: &str) -> Option<Arc<BoundPort>> {
        self.bound().into_iter().find(|bound| bound.plan.name == name)
    }

    /// All ports, those that come and go among them.
    pub(crate) fn bound(&self) -> Vec<Arc<BoundPort>> {
        self.ports.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn enter(&self, bound: Arc<BoundPort>) {
        let mut ports = self.ports.write().unwrap_or_else(PoisonError::into_inner);
        let place = ports.partition_point(|other| other.id < bound.id);
        ports.insert(place, bound);
    }

    pub(crate) fn leave(&self, id: PortId) {
        self.ports
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|bound| bound.id != id);
    }

    /// Stops the workers, then the ports. Errors of single ports do not keep the others from being stopped.
    pub fn stop(self) -> Vec<BringupError> {
        for worker in &self.workers {
            worker.stop();
        }
        self.workers.into_iter().for_each(Handle::join);
        let mut errors = Vec::new();
        for bound in self.ports.into_inner().unwrap_or_else(PoisonError::into_inner) {
            let device = bound.device().take();
            if let Some(Err(error)) = device.map(Port::close) {
                errors.push(BringupError::Port {
                    port: bound.plan.name.clone(),
                    error,
                });
            }
        }
        errors
    }
}

/// Takes possession of the device of a port.
fn open(eal: &Eal, plan: &PortPlan) -> Result<Port, BringupError> {
    let found = port_by_name(eal, &plan.device).ok_or_else(|| BringupError::NoDevice {
        port: plan.name.clone(),
        device: plan.device.clone(),
    })?;
    Port::open(eal, found).map_err(|error| BringupError::Port {
        port: plan.name.clone(),
        error,
    })
}
