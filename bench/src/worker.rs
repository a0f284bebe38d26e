//! The data plane itself, as the daemon runs it.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, ensure};
use octoplane_engine::{Direction, DropReason, EngineConfig, Memory, Stage, WorkerStats};
use octoplane_tables::Capacity;
use octoplane_worker::{Dataplane, Plan, Poll, PortPlan};

use crate::churn::Churn;
use crate::job::Setup;
use crate::measure::{Totals, measure};
use crate::prime::prime;
use crate::sample::Sample;
use crate::scenario::{GATEWAYS, port_mac};

/// Room for what the scenarios program.
pub(crate) const CAPACITY: Capacity = Capacity {
    endpoints: 2048,
    routes: 8192,
    neighbours: 2048,
    fib_nodes_v4: 16_384,
    fib_nodes_v6: 16_384,
    // A million of each family, and those that are used.
    ipcache: 2_200_000,
    ..Capacity::DEFAULT
};

/// Measures the worker loop on real devices.
pub(crate) fn run(setup: &Setup) -> anyhow::Result<Sample> {
    let eal = setup.eal()?;
    let dataplane = Dataplane::start(&eal, &plan(setup)).context("the data plane does not start")?;
    setup.program(&dataplane.store)?;
    let memory = Memory::new(Arc::clone(&dataplane.flows))?;
    prime(
        setup.questions(),
        dataplane.store.reader(),
        &memory,
        setup.workers.len(),
        dataplane.clock.now(),
    )?;
    let churn = (setup.churn > 0).then(|| {
        Churn::start(
            dataplane.store.clone(),
            setup.scenario,
            setup.churn,
            setup.control,
        )
    });
    let mut sample = measure(setup, || Totals {
        transactions: churn.as_ref().map_or(0, Churn::made),
        ..totals(&dataplane)
    });
    sample.connections = Some(dataplane.flows.len());
    if let Some(churn) = churn {
        churn.stop()?;
    }
    for error in dataplane.stop() {
        eprintln!("octobench: {error}");
    }
    ensure!(sample.packets > 0, "no packet came through");
    Ok(sample)
}

fn plan(setup: &Setup) -> Plan {
    let ports = setup
        .scenario
        .roles()
        .into_iter()
        .enumerate()
        .map(|(port, role)| PortPlan {
            name: format!("port{port}"),
            role,
            device: setup.device(port),
            rx_queues: None,
            tx_queues: None,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: 1500,
            mac: Some(port_mac(port)),
            addresses: setup.scenario.link(port),
            promiscuous: true,
        })
        .collect();
    Plan {
        ports,
        cores: setup.workers.clone(),
        poll: Poll::Busy,
        burst: setup.burst.into(),
        mbufs: setup.mbufs,
        mbuf_cache: setup.mbuf_cache,
        data_room: dpdk::mempool::DEFAULT_DATA_ROOM,
        gateways: GATEWAYS,
        capacity: CAPACITY,
        connections: 1 << 21,
        engine: EngineConfig::default(),
        ipsec: None,
    }
}

fn totals(dataplane: &Dataplane) -> Totals {
    let mut totals = Totals::default();
    for worker in &dataplane.workers {
        totals.received += worker.loop_stats.packets.get();
        totals.bursts += worker.loop_stats.bursts.get();
        totals.busy_cycles += worker.loop_stats.busy_cycles.get();
        for port in 0..2 {
            totals.sent += worker.stats.port(port).tx_packets.get();
        }
        totals.slow += worker.stats.stage(Stage::Slow).packets.get();
        add_drops(&worker.stats, &mut totals.drops);
    }
    totals
}

/// Adds an engine's drops by reason.
pub(crate) fn add_drops(stats: &WorkerStats, drops: &mut BTreeMap<String, u64>) {
    for &reason in DropReason::ALL {
        let packets: u64 = Direction::ALL
            .iter()
            .map(|&direction| stats.drops(reason, direction).packets.get())
            .sum();
        if packets > 0 {
            *drops.entry(reason.text().to_owned()).or_default() += packets;
        }
    }
}
