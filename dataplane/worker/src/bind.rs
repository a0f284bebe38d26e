//! One port: from its plan and its device to queues for every worker.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, MutexGuard, PoisonError};

use dpdk::port::{Applied, PortInfo};
use dpdk::{Mempool, Port, PortConfig};
use octoplane_packet::MacAddr;
use octoplane_tables::model::{self, PortId, Role};

use crate::assign::{Assignment, assign};
use crate::bringup::BringupError;
use crate::handoff::Handoff;
use crate::ports::{PortQueues, Transmit};

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

/// A port that is up.
pub struct BoundPort {
    /// Its number.
    pub id: PortId,
    /// Its plan.
    pub plan: PortPlan,
    /// What the device is.
    pub info: PortInfo,
    /// What was configured.
    pub applied: Applied,
    /// The address it uses.
    pub mac: MacAddr,
    /// Who has its queues.
    pub assignment: Assignment,
    /// The device, which one thread at a time may ask; `None` once it is gone.
    device: Mutex<Option<Port>>,
    /// Whether the tables have it: not before everything is ready, and not after its removal began.
    listed: AtomicBool,
}

impl BoundPort {
    /// The device, for one thread at a time; `None` once the port is removed.
    pub fn device(&self) -> MutexGuard<'_, Option<Port>> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_listed(&self) -> bool {
        self.listed.load(Relaxed)
    }

    pub(crate) fn list(&self, listed: bool) {
        self.listed.store(listed, Relaxed);
    }

    /// The port as the tables see it.
    pub(crate) fn model(&self) -> model::Port {
        model::Port {
            mac: self.mac,
            mtu: self.plan.mtu.min(self.applied.mtu),
            ..planned(self.id, &self.plan)
        }
    }
}

/// The port as the tables will see it, as far as that is known without the device.
pub(crate) fn planned(id: PortId, plan: &PortPlan) -> model::Port {
    model::Port {
        id,
        name: plan.name.clone(),
        role: plan.role,
        mac: plan.mac.unwrap_or_default(),
        mtu: plan.mtu,
        admin_up: true,
        addresses: plan.addresses.clone(),
    }
}

/// The worker with the fewest receive queues: where the first queue of another port goes, so that ports with one queue
/// do not all end up with one worker.
pub(crate) fn least_loaded(workers: usize, ports: &[Arc<BoundPort>]) -> usize {
    let queues = |worker: &usize| -> usize {
        let of = |port: &Arc<BoundPort>| port.assignment.rx.get(*worker).map_or(0, Vec::len);
        ports.iter().map(of).sum()
    };
    (0..workers).min_by_key(queues).unwrap_or(0)
}

/// Who the workers are, as far as a port has to know.
#[derive(Clone, Copy)]
pub(crate) struct Crew<'a> {
    /// The inbox of each worker.
    pub(crate) inboxes: &'a [Arc<Handoff>],
    /// The worker that gets queue 0 where there are fewer queues than workers.
    pub(crate) first: usize,
    /// Where packets are received into.
    pub(crate) pool: &'a Mempool,
}

/// A port that did not come up, with its device as far as it came.
pub(crate) struct BindFailed {
    pub(crate) device: Port,
    pub(crate) error: BringupError,
}

/// Configures and starts a device. The second result has the queues of each worker.
pub(crate) fn bind(
    id: PortId,
    plan: &PortPlan,
    mut device: Port,
    crew: Crew<'_>,
) -> Result<(BoundPort, Vec<PortQueues>), Box<BindFailed>> {
    match start(id, plan, &mut device, crew) {
        Ok(Started {
            info,
            applied,
            assignment,
            queues,
        }) => {
            let bound = BoundPort {
                id,
                plan: plan.clone(),
                mac: plan.mac.unwrap_or(MacAddr(info.mac)),
                info,
                applied,
                assignment,
                device: Mutex::new(Some(device)),
                listed: AtomicBool::new(false),
            };
            Ok((bound, queues))
        }
        Err(error) => Err(Box::new(BindFailed { device, error })),
    }
}

struct Started {
    info: PortInfo,
    applied: Applied,
    assignment: Assignment,
    queues: Vec<PortQueues>,
}

fn start(id: PortId, plan: &PortPlan, device: &mut Port, crew: Crew<'_>) -> Result<Started, BringupError> {
    let name = &plan.name;
    let failed = |error| BringupError::Port {
        port: name.clone(),
        error,
    };
    let workers = crew.inboxes.len();
    let info = device.info().map_err(failed)?;
    let count = |key, asked: Option<u16>, most: u16| match asked {
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
        rx_queues: count("rx_queues", plan.rx_queues, info.max_rx_queues)?,
        tx_queues: count("tx_queues", plan.tx_queues, info.max_tx_queues)?,
        rx_desc: plan.rx_descriptors,
        tx_desc: plan.tx_descriptors,
        mtu: Some(plan.mtu),
        promiscuous: plan.promiscuous,
        rx_checksum_offload: true,
        rss: true,
        single_pool: true,
    };
    let applied = device
        .configure(&config, std::slice::from_ref(crew.pool))
        .map_err(failed)?;
    let assignment = assign(workers, applied.rx_queues, applied.tx_queues, crew.first);
    let (rx, tx) = device.start().map_err(failed)?;
    let mut rx: Vec<_> = rx.into_iter().map(Some).collect();
    let mut tx: Vec<_> = tx.into_iter().map(Some).collect();
    let mut queues = Vec::with_capacity(workers);
    for worker in 0..workers {
        let own = assignment.tx[worker].and_then(|queue| tx.get_mut(usize::from(queue))?.take());
        let owner = assignment.tx_owner[worker];
        queues.push(PortQueues {
            port: id,
            rx: assignment.rx[worker]
                .iter()
                .filter_map(|queue| rx.get_mut(usize::from(*queue))?.take())
                .collect(),
            tx: match (own, crew.inboxes.get(owner)) {
                (Some(queue), _) => Transmit::Queue(queue),
                (None, Some(inbox)) if owner != worker => Transmit::Handoff(Arc::clone(inbox)),
                (None, _) => Transmit::None,
            },
            exception: plan.role == Role::Host,
        });
    }
    Ok(Started {
        info,
        applied,
        assignment,
        queues,
    })
}
