//! Table transactions that have nothing to do with the traffic, so many a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use octoplane_packet::{MacAddr, Prefix};
use octoplane_tables::SharedStore;
use octoplane_tables::model::{
    BackendState, Change, Direction, Endpoint, FrontendType, Neighbour, Origin, Policy, PolicyEntry,
    PolicyKey, PolicyValue, PortId, Protocol, Role, Route, RouteTarget, Service, ServiceBackend,
    ServiceFrontend,
};

use crate::cpus;
use crate::scenario::{Scenario, bystander, known};

/// Objects of each kind that come and go by turns.
const OBJECTS: u32 = 250;
/// Endpoint ids from here on are nobody's.
const FIRST_ENDPOINT: u32 = 10_000;
/// Number of the first address that nothing else of the harness uses.
const FIRST_ADDRESS: u32 = 4 << 20;

/// A thread that makes transactions until it is stopped.
pub(crate) struct Churn {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Churn {
    /// Starts to make `rate` transactions a second on CPU `cpu`.
    pub(crate) fn start(store: SharedStore, scenario: Scenario, rate: u32, cpu: usize) -> Self {
        let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&made));
        let thread = thread::spawn(move || {
            cpus::pin(cpu)?;
            let start = Instant::now();
            for number in 0_u64.. {
                let due = Duration::from_secs_f64(number as f64 / f64::from(rate));
                while start.elapsed() < due {
                    if stopped.load(Relaxed) {
                        return Ok(());
                    }
                    thread::sleep((due - start.elapsed().min(due)).min(Duration::from_millis(10)));
                }
                if stopped.load(Relaxed) {
                    break;
                }
                store
                    .apply(vec![change(scenario, number as u32)])
                    .context("a transaction of the churn failed")?;
                count.fetch_add(1, Relaxed);
            }
            Ok(())
        });
        Self { stop, made, thread }
    }

    /// Transactions made until now.
    pub(crate) fn made(&self) -> u64 {
        self.made.load(Relaxed)
    }

    /// Stops.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.stop.store(true, Relaxed);
        self.thread.join().map_err(|_| anyhow!("the churn panicked"))?
    }
}

/// Transaction number `number`: the kinds of objects by turns, each changed in every round.
fn change(scenario: Scenario, number: u32) -> Change {
    const KINDS: u32 = 6;
    let (kind, round) = (number % KINDS, number / KINDS / OBJECTS);
    let index = number / KINDS % OBJECTS;
    let roles = scenario.roles();
    let pod = roles.iter().position(|role| *role == Role::Pod);
    let uplink = roles.iter().position(|role| *role == Role::Uplink);
    let addr = |block: u32| bystander(false, FIRST_ADDRESS + block * OBJECTS + index);
    let (there, step) = (round % 2 == 0, round as u8);
    match (kind, pod, uplink) {
        (1, Some(pod), _) => Change::PutEndpoint(Endpoint {
            id: FIRST_ENDPOINT + index,
            name: format!("bench/passing-{index}"),
            port: pod as PortId,
            mac: MacAddr([2, 0, 0, 3, step, index as u8]),
            identity: 70_000 + index,
            addresses: vec![addr(0), bystander(true, FIRST_ADDRESS + index)],
            ingress_rate: 0,
            egress_rate: 0,
        }),
        (2, _, Some(uplink)) => Change::PutNeighbour(Neighbour {
            port: uplink as PortId,
            addr: addr(1),
            mac: Some(MacAddr([2, 0, 0, 4, step, index as u8])),
            origin: Origin::Learned,
        }),
        (3, ..) => policy(index, there),
        (4, ..) => service(index, there, addr(2)),
        (5, _, Some(uplink)) => Change::PutRoute(Route {
            prefix: Prefix::containing(bystander(false, FIRST_ADDRESS + (index << 8)), 24),
            target: match there {
                true => RouteTarget::Blackhole,
                false => RouteTarget::Link {
                    port: uplink as PortId,
                },
            },
            mtu: None,
        }),
        _ => known(
            Prefix::host(addr(3)),
            80_000 + index + round % 2,
            bystander(false, FIRST_ADDRESS),
        ),
    }
}

fn policy(index: u32, there: bool) -> Change {
    Change::PutPolicy(Policy {
        endpoint: FIRST_ENDPOINT + index,
        enforce_ingress: true,
        enforce_egress: there,
        audit: false,
        entries: vec![PolicyEntry {
            key: PolicyKey {
                direction: Direction::Ingress,
                identity: 80_000 + index,
                protocol: 6,
                port: 80,
                port_prefix_len: 16,
            },
            value: PolicyValue {
                precedence: 0xffff_ff01,
                ..PolicyValue::default()
            },
        }],
    })
}

fn service(index: u32, there: bool, backend: std::net::IpAddr) -> Change {
    let mut service = Service::new(format!("bench/passing-{index}"), Protocol::Tcp);
    service.frontends.push(ServiceFrontend {
        addr: bystander(false, FIRST_ADDRESS + 5 * OBJECTS + index),
        port: 80,
        kind: FrontendType::ClusterIp,
    });
    service.backends.push(ServiceBackend {
        addr: backend,
        port: if there { 80 } else { 8080 },
        weight: 1,
        state: BackendState::Active,
        local: false,
    });
    Change::PutService(Box::new(service))
}
