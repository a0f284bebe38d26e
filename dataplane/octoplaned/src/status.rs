//! What the control services get to see of the data plane.

use std::sync::Arc;
use std::time::Duration;

use octoplane_api::v1;
use octoplane_cni_server::Attachments;
use octoplane_config::Port;
use octoplane_control::{Dataplane as Services, IpsecControl, Observer, PortRefusal, StateJournal};
use octoplane_engine::{Direction, DropReason, PortStats, Stage, Timeouts};
use octoplane_flow::{FlowRef, FlowTable};
use octoplane_tables::{SharedStore, State};
use octoplane_worker::{BoundPort, Dataplane, Handle, Poll};

use crate::ipsec::Service;
use crate::observe::Observed;
use crate::ports::PortChanges;

/// The data plane behind the control socket.
pub(crate) struct Daemon {
    dataplane: Arc<Dataplane>,
    ports: PortChanges,
    attachments: Arc<Attachments>,
    /// Those of the workers.
    timeouts: Timeouts,
    saved: Option<Arc<StateJournal>>,
    ipsec: Option<Arc<Service>>,
    observed: Arc<Observed>,
    startup: Duration,
}

impl Daemon {
    #[allow(clippy::too_many_arguments, reason = "all of it is made in one place")]
    /// `startup` is how long it took until the workers polled.
    pub(crate) fn new(
        dataplane: Arc<Dataplane>,
        ports: PortChanges,
        attachments: Arc<Attachments>,
        timeouts: Timeouts,
        saved: Option<Arc<StateJournal>>,
        ipsec: Option<Arc<Service>>,
        observed: Arc<Observed>,
        startup: Duration,
    ) -> Self {
        Self {
            dataplane,
            ports,
            attachments,
            timeouts,
            saved,
            ipsec,
            observed,
            startup,
        }
    }

    fn sum(&self, get: impl Fn(&Handle) -> u64) -> u64 {
        self.dataplane.workers.iter().map(get).sum()
    }

    /// `None` if the port has just been removed.
    fn port(&self, bound: &BoundPort, xstats: bool) -> Option<v1::PortStats> {
        let total = |get: fn(&PortStats) -> u64| self.sum(|worker| get(worker.stats.port(bound.id)));
        let device = bound.device();
        let driver = device.as_ref()?;
        // A device that does not count, or does not tell, shows zeros.
        let counted = driver.stats().unwrap_or_default();
        let xstats = if xstats {
            driver.xstats().unwrap_or_default()
        } else {
            Vec::new()
        };
        Some(v1::PortStats {
            name: bound.plan.name.clone(),
            driver: bound.info.driver.clone(),
            device: bound.plan.device.clone(),
            link_up: driver.link().is_ok_and(|link| link.up),
            rx_packets: total(|port| port.rx_packets.get()),
            rx_bytes: total(|port| port.rx_bytes.get()),
            tx_packets: total(|port| port.tx_packets.get()),
            tx_full: total(|port| port.tx_full.get()),
            device_stats: Some(v1::DeviceStats {
                rx_packets: counted.ipackets,
                rx_bytes: counted.ibytes,
                tx_packets: counted.opackets,
                tx_bytes: counted.obytes,
                rx_missed: counted.imissed,
                rx_errors: counted.ierrors,
                tx_errors: counted.oerrors,
                rx_no_buffer: counted.rx_nombuf,
            }),
            queues: queues(bound),
            xstats: xstats
                .into_iter()
                .map(|it| v1::Xstat {
                    name: it.name,
                    value: it.value,
                })
                .collect(),
        })
    }
}

fn queues(bound: &BoundPort) -> Vec<v1::WorkerQueues> {
    let assignment = &bound.assignment;
    let queues = |(worker, rx): (usize, &Vec<u16>)| v1::WorkerQueues {
        worker: worker as u32,
        rx: rx.iter().map(|queue| u32::from(*queue)).collect(),
        tx: assignment.tx[worker].map(u32::from),
        tx_owner: assignment.tx_owner[worker] as u32,
    };
    assignment.rx.iter().enumerate().map(queues).collect()
}

fn worker(it: &Handle) -> v1::Worker {
    let (stats, engine) = (&it.loop_stats, &it.stats);
    v1::Worker {
        number: it.number as u32,
        core: it.core as u32,
        poll: match it.poll {
            Poll::Busy => "busy",
            Poll::Adaptive { .. } => "adaptive",
        }
        .into(),
        rounds: stats.rounds.get(),
        busy_cycles: stats.busy_cycles.get(),
        idle_cycles: stats.idle_cycles.get(),
        sleeps: stats.sleeps.get(),
        bursts: stats.bursts.get(),
        packets: stats.packets.get(),
        burst_sizes: stats.sizes.iter().map(octoplane_engine::Counter::get).collect(),
        fast_packets: engine.fast.packets.get(),
        punted: engine.punted.get(),
        answered: engine.answered.get(),
        icmp_errors: engine.icmp_errors.get(),
        icmp_suppressed: engine.icmp_suppressed.get(),
        parked: engine.parked.get(),
        handed_off: stats.handed_off.get(),
    }
}

impl Services for Daemon {
    fn store(&self) -> &SharedStore {
        &self.dataplane.store
    }

    fn saved(&self) -> Option<&StateJournal> {
        self.saved.as_deref()
    }

    fn status(&self) -> v1::Status {
        v1::Status {
            version: env!("CARGO_PKG_VERSION").into(),
            dpdk: dpdk::eal::version().into(),
            uptime_ms: self.dataplane.started.elapsed().as_millis() as u64,
            startup_ms: self.startup.as_millis() as u64,
            workers: self.dataplane.workers.iter().map(worker).collect(),
            mbufs_in_use: self.dataplane.pool.in_use(),
            mbufs: self.dataplane.pool.size(),
            // Filled in by the service.
            revision: 0,
            tables: vec![v1::Table {
                name: "connections".into(),
                used: self.dataplane.flows.len().into(),
                capacity: self.dataplane.flows.capacity().into(),
            }],
        }
    }

    fn port_stats(&self, xstats: bool) -> Vec<v1::PortStats> {
        self.dataplane
            .ports()
            .iter()
            .filter_map(|bound| self.port(bound, xstats))
            .collect()
    }

    fn flows(&self) -> &FlowTable {
        &self.dataplane.flows
    }

    fn flow(&self, state: &State, flow: FlowRef) -> Option<v1::Flow> {
        let now = self.dataplane.clock.now();
        let view = octoplane_engine::describe(
            &self.dataplane.flows,
            flow,
            state.last_changed(),
            now,
            &self.timeouts,
        )?;
        Some(octoplane_observe::flow_message(state, &view))
    }

    fn add_port(&self, port: Port) -> Result<bool, PortRefusal> {
        self.ports.add(port)
    }

    fn remove_port(&self, name: &str) -> Result<(), PortRefusal> {
        self.ports.remove(name)
    }

    fn attachments(&self) -> Option<Arc<Attachments>> {
        Some(Arc::clone(&self.attachments))
    }

    fn ipsec(&self) -> Option<Arc<dyn IpsecControl>> {
        self.ipsec.clone().map(|ipsec| ipsec as _)
    }

    fn observer(&self) -> Option<Arc<dyn Observer>> {
        Some(Arc::clone(&self.observed) as _)
    }

    fn drops(&self) -> Vec<v1::Drop> {
        let all = DropReason::ALL
            .iter()
            .flat_map(|reason| Direction::ALL.map(|direction| (*reason, direction)));
        all.map(|(reason, direction)| v1::Drop {
            code: reason.code().into(),
            reason: reason.text().into(),
            direction: direction.name().into(),
            packets: self.sum(|worker| worker.stats.drops(reason, direction).packets.get()),
            bytes: self.sum(|worker| worker.stats.drops(reason, direction).bytes.get()),
        })
        .filter(|drop| drop.packets > 0)
        .collect()
    }

    fn stages(&self) -> Vec<v1::Stage> {
        let of = |worker: &Handle| {
            Stage::ALL
                .iter()
                .map(|stage| {
                    let stats = worker.stats.stage(*stage);
                    v1::Stage {
                        worker: worker.number as u32,
                        name: stage.name().into(),
                        calls: stats.calls.get(),
                        packets: stats.packets.get(),
                        timed_packets: stats.timed_packets.get(),
                        timed_cycles: stats.timed_cycles.get(),
                    }
                })
                .collect::<Vec<_>>()
        };
        self.dataplane.workers.iter().flat_map(of).collect()
    }
}
