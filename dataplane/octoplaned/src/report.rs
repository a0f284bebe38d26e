//! What the daemon prints of itself: who has which queue at the start, what was counted at the end.

use std::fmt::Write as _;

use octoplane_engine::{Direction, DropReason};
use octoplane_worker::{BoundPort, Dataplane, Handle};
use tracing::warn;

/// One line a port: device, queues, and which worker has which.
pub(crate) fn port(bound: &BoundPort) -> String {
    let mut line = format!(
        "port {} ({}) {}, driver {}, {}, mtu {}: ",
        bound.plan.name,
        bound.plan.role.name(),
        bound.plan.device,
        bound.info.driver,
        bound.mac,
        bound.plan.mtu.min(bound.applied.mtu),
    );
    if bound.assignment.is_even() {
        let _ = write!(line, "one receive and one send queue for each worker");
        return line;
    }
    let _ = write!(
        line,
        "{} receive and {} send queues",
        bound.applied.rx_queues, bound.applied.tx_queues
    );
    for (worker, queues) in bound.assignment.rx.iter().enumerate() {
        let _ = write!(line, "; worker {worker} polls {}", list(queues));
        match bound.assignment.tx[worker] {
            Some(queue) => {
                let _ = write!(line, ", sends by {queue}");
            }
            None => {
                let _ = write!(
                    line,
                    ", sends through worker {}",
                    bound.assignment.tx_owner[worker]
                );
            }
        }
    }
    line
}

/// Says so where the device does not do the configured MTU.
pub(crate) fn warn_of_mtu(bound: &BoundPort) {
    if bound.applied.mtu < bound.plan.mtu {
        warn!(
            "ports.{}.mtu: the device stays at {} bytes, {} were configured",
            bound.plan.name, bound.applied.mtu, bound.plan.mtu
        );
    }
}

fn list(queues: &[u16]) -> String {
    if queues.is_empty() {
        return "none".into();
    }
    queues
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("+")
}

/// All counters that are not zero, a line each.
pub(crate) fn counters(dataplane: &Dataplane) -> Vec<String> {
    let mut lines = Vec::new();
    for bound in dataplane.ports() {
        let sum = |get: fn(&octoplane_engine::PortStats) -> u64| -> u64 {
            dataplane
                .workers
                .iter()
                .map(|worker| get(worker.stats.port(bound.id)))
                .sum()
        };
        lines.push(format!(
            "port {}: received {} packets, {} bytes; sent {} packets, {} dropped with the queue full",
            bound.plan.name,
            sum(|port| port.rx_packets.get()),
            sum(|port| port.rx_bytes.get()),
            sum(|port| port.tx_packets.get()),
            sum(|port| port.tx_full.get()),
        ));
    }
    for &reason in DropReason::ALL {
        for direction in Direction::ALL {
            let drops = |worker: &Handle| worker.stats.drops(reason, direction).packets.get();
            let packets: u64 = dataplane.workers.iter().map(drops).sum();
            if packets > 0 {
                lines.push(format!(
                    "dropped {packets} packets, {}: {} ({})",
                    direction.name(),
                    reason.text(),
                    reason.code()
                ));
            }
        }
    }
    for worker in &dataplane.workers {
        let stats = &worker.loop_stats;
        let (busy, idle) = (stats.busy_cycles.get(), stats.idle_cycles.get());
        lines.push(format!(
            "worker {} on CPU {}: {} packets in {} bursts, {:.1} % of its cycles busy",
            worker.number,
            worker.core,
            stats.packets.get(),
            stats.bursts.get(),
            100.0 * busy as f64 / (busy + idle).max(1) as f64,
        ));
    }
    lines
}
