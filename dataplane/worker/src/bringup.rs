//! Brings a data plane up from a plan, and down again in order.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crossbeam::queue::ArrayQueue;
use dpdk::mempool::MempoolError;
use dpdk::port::{Applied, PortInfo, port_by_name};
use dpdk::{Eal, Mempool, Port, PortConfig, PortError};
use octoplane_engine::{EngineConfig, HostMac, NeighbourEvent};
use octoplane_packet::MacAddr;
use octoplane_tables::model::{self, PortId, Role};
use octoplane_tables::{Capacity, Gateways, SharedStore, Store, StoreError};

use crate::assign::{Assignment, assign};
use crate::backoff::Poll;
use crate::clock::Clock;
use crate::handle::{Handle, StartError, Worker};
use crate::handoff::Handoff;
use crate::ports::{PortQueues, Transmit};

/// Packets that may wait in one worker's inbox.
const INBOX: usize = 1024;
/// News that may wait for the control plane.
const EVENTS: usize = 4096;

/// One port of a plan.
#[derive(Debug, Clone)]
pub struct PortPlan {
    /// Unique name.
    pub name: String,
    /// What stands at its other end.
    pub role: Role,
    /// Name DPDK knows the device by: a PCI address, or a virtual device's name.
    pub device: String,
    /// Receive queues; `None` for one per worker, or as many as the device has.
    pub rx_queues: Option<u16>,
    /// Send queues; `None` for one per worker, or as many as the device has.
    pub tx_queues: Option<u16>,
    /// Descriptors of each receive queue.
    pub rx_descriptors: u16,
    /// Descriptors of each send queue.
    pub tx_descriptors: u16,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// Address to use instead of the device's.
    pub mac: Option<MacAddr>,
    /// Our addresses on the link, with the length of its prefix.
    pub addresses: Vec<(std::net::IpAddr, u8)>,
    /// Whether to receive frames for other stations.
    pub promiscuous: bool,
}

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
    /// What the engines are told.
    pub engine: EngineConfig,
}

/// Why a data plane did not come up.
#[derive(Debug, thiserror::Error)]
pub enum BringupError {
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
    /// A worker could not be started.
    #[error(transparent)]
    Worker(#[from] StartError),
}

/// A port that is up.
pub struct BoundPort {
    /// Its number.
    pub id: PortId,
    /// Its plan.
    pub plan: PortPlan,
    /// The device, which one thread at a time may ask.
    pub device: Mutex<Port>,
    /// What the device is.
    pub info: PortInfo,
    /// What was configured.
    pub applied: Applied,
    /// The address it uses.
    pub mac: MacAddr,
    /// Who has its queues.
    pub assignment: Assignment,
}

/// A data plane that is up.
pub struct Dataplane {
    /// The workers, in the order of their numbers.
    pub workers: Vec<Handle>,
    /// The ports, in the order of their numbers.
    pub ports: Vec<BoundPort>,
    /// The tables.
    pub store: SharedStore,
    /// The packet buffers.
    pub pool: Mempool,
    /// News from the workers.
    pub events: Arc<ArrayQueue<NeighbourEvent>>,
    /// The clock all workers use.
    pub clock: Clock,
    /// When everything was up.
    pub started: Instant,
}

impl Dataplane {
    /// Sets up buffers, ports and tables, and starts the workers.
    pub fn start(eal: &Eal, plan: &Plan) -> Result<Self, BringupError> {
        let pool = Mempool::new(eal, "packets", plan.mbufs, plan.mbuf_cache, plan.data_room, None)?;
        let count = plan.cores.len();
        let inboxes: Vec<Arc<Handoff>> = (0..count).map(|_| Arc::new(Handoff::new(INBOX))).collect();
        let mut queues: Vec<Vec<PortQueues>> = (0..count).map(|_| Vec::new()).collect();
        let mut ports = Vec::new();
        let mut uneven = 0;
        for (id, port) in plan.ports.iter().enumerate() {
            let id = id as PortId;
            let mut bound = configure(eal, id, port, count, uneven, &pool)?;
            if !bound.assignment.is_even() {
                uneven += 1;
            }
            share_out(&mut bound, &inboxes, &mut queues)?;
            ports.push(bound);
        }
        let store = Store::new(
            ports.iter().map(model_port).collect(),
            plan.gateways,
            plan.capacity,
        )?;
        let events = Arc::new(ArrayQueue::new(EVENTS));
        let host_mac = Arc::new(HostMac::default());
        let clock = Clock::start();
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
                ports,
                inbox: Arc::clone(&inboxes[number]),
                events: Arc::clone(&events),
            };
            workers.push(worker.start(eal, clock)?);
        }
        Ok(Self {
            workers,
            ports,
            store: SharedStore::new(store),
            pool,
            events,
            clock,
            started: Instant::now(),
        })
    }

    /// Stops the workers, then the ports. Errors of single ports do not keep the others from being stopped.
    pub fn stop(self) -> Vec<BringupError> {
        for worker in &self.workers {
            worker.stop();
        }
        self.workers.into_iter().for_each(Handle::join);
        let mut errors = Vec::new();
        for bound in self.ports {
            if let Err(error) = bound
                .device
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner)
                .close()
            {
                errors.push(BringupError::Port {
                    port: bound.plan.name,
                    error,
                });
            }
        }
        errors
    }
}

fn configure(
    eal: &Eal,
    id: PortId,
    plan: &PortPlan,
    workers: usize,
    first: usize,
    pool: &Mempool,
) -> Result<BoundPort, BringupError> {
    let name = &plan.name;
    let failed = |error| BringupError::Port {
        port: name.clone(),
        error,
    };
    let found = port_by_name(eal, &plan.device).ok_or_else(|| BringupError::NoDevice {
        port: name.clone(),
        device: plan.device.clone(),
    })?;
    let mut device = Port::open(eal, found).map_err(failed)?;
    let info = device.info().map_err(failed)?;
    let queues = |key, asked: Option<u16>, most: u16| match asked {
        Some(asked) if asked > most => Err(BringupError::Queues {
            port: name.clone(),
            key,
            asked,
            most,
        }),
        Some(asked) => Ok(asked),
        None => Ok(most.min(u16::try_from(workers).unwrap_or(u16::MAX)).max(1)),
    };
    let config = PortConfig {
        rx_queues: queues("rx_queues", plan.rx_queues, info.max_rx_queues)?,
        tx_queues: queues("tx_queues", plan.tx_queues, info.max_tx_queues)?,
        rx_desc: plan.rx_descriptors,
        tx_desc: plan.tx_descriptors,
        mtu: Some(plan.mtu),
        promiscuous: plan.promiscuous,
        rx_checksum_offload: true,
        rss: true,
        single_pool: true,
    };
    let applied = device
        .configure(&config, std::slice::from_ref(pool))
        .map_err(failed)?;
    let mac = plan.mac.unwrap_or(MacAddr(info.mac));
    let assignment = assign(workers, applied.rx_queues, applied.tx_queues, first);
    Ok(BoundPort {
        id,
        plan: plan.clone(),
        device: Mutex::new(device),
        info,
        applied,
        mac,
        assignment,
    })
}

/// Starts the port and gives each worker its queues.
fn share_out(
    bound: &mut BoundPort,
    inboxes: &[Arc<Handoff>],
    queues: &mut [Vec<PortQueues>],
) -> Result<(), BringupError> {
    let (rx, tx) = bound
        .device
        .get_mut()
        .unwrap_or_else(PoisonError::into_inner)
        .start()
        .map_err(|error| BringupError::Port {
            port: bound.plan.name.clone(),
            error,
        })?;
    let mut rx: Vec<_> = rx.into_iter().map(Some).collect();
    let mut tx: Vec<_> = tx.into_iter().map(Some).collect();
    for (worker, queues) in queues.iter_mut().enumerate() {
        let own = bound.assignment.tx[worker].and_then(|queue| tx.get_mut(usize::from(queue))?.take());
        let owner = bound.assignment.tx_owner[worker];
        queues.push(PortQueues {
            port: bound.id,
            rx: bound.assignment.rx[worker]
                .iter()
                .filter_map(|queue| rx.get_mut(usize::from(*queue))?.take())
                .collect(),
            tx: match (own, inboxes.get(owner)) {
                (Some(queue), _) => Transmit::Queue(queue),
                (None, Some(inbox)) if owner != worker => Transmit::Handoff(Arc::clone(inbox)),
                (None, _) => Transmit::None,
            },
            exception: bound.plan.role == Role::Host,
        });
    }
    Ok(())
}

fn model_port(bound: &BoundPort) -> model::Port {
    model::Port {
        id: bound.id,
        name: bound.plan.name.clone(),
        role: bound.plan.role,
        mac: bound.mac,
        mtu: bound.plan.mtu.min(bound.applied.mtu),
        admin_up: true,
        addresses: bound.plan.addresses.clone(),
    }
}
