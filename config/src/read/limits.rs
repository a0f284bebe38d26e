//! `[exception]`, `[icmp]`, `[neighbours]`, `[timeouts]` and `[capacity]`.

use std::time::Duration;

use super::Section;
use crate::{Capacity, Exception, Icmp, Neighbours, Timeouts};

/// Most entries a table may be given: beyond it a typing mistake is likelier than a need.
const MOST: usize = 1 << 24;

pub(super) fn exception(mut section: Section<'_>) -> Exception {
    let default = Exception::default();
    let rate_pps = section.integer(
        "rate_pps",
        1..=100_000_000,
        "packets per second",
        default.rate_pps,
    );
    let burst = section.integer("burst", 1..=1_000_000, "packets", default.burst);
    section.finish();
    Exception { rate_pps, burst }
}

pub(super) fn icmp(mut section: Section<'_>) -> Icmp {
    let default = Icmp::default();
    let rate = section.integer(
        "error_rate_pps",
        0..=1_000_000,
        "packets per second",
        default.error_rate_pps,
    );
    let burst = section.integer("error_burst", 0..=1_000_000, "packets", default.error_burst);
    section.finish();
    Icmp {
        error_rate_pps: rate,
        error_burst: burst,
    }
}

pub(super) fn neighbours(mut section: Section<'_>, capacity: &Capacity) -> Neighbours {
    let default = Neighbours::default();
    let max_parked = section.integer("max_parked", 0..=65_536, "packets", default.max_parked);
    let default_retry = u64::try_from(default.retry.as_millis()).unwrap_or(u64::MAX);
    let retry = section.integer("retry_ms", 10..=60_000, "milliseconds", default_retry);
    let reachable = section.integer("reachable_s", 1..=86_400, "seconds", default.reachable.as_secs());
    let max_learned = section.auto_integer("max_learned", 0..=MOST, "neighbours");
    if let Some(learned) = max_learned
        && learned > capacity.neighbours
    {
        section.place("max_learned").wrong(format!(
            "{learned} is more than the table holds, expected at most capacity.neighbours, {}",
            capacity.neighbours
        ));
    }
    section.finish();
    Neighbours {
        max_parked,
        retry: Duration::from_millis(retry),
        reachable: Duration::from_secs(reachable),
        max_learned: max_learned.unwrap_or(capacity.neighbours / 2),
    }
}

pub(super) fn timeouts(mut section: Section<'_>) -> Timeouts {
    const MONTH: u64 = 30 * 24 * 3600;
    let default = Timeouts::default();
    let mut seconds = |key, default: Duration| {
        Duration::from_secs(section.integer(key, 1..=MONTH, "seconds", default.as_secs()))
    };
    let timeouts = Timeouts {
        tcp: seconds("tcp_s", default.tcp),
        tcp_syn: seconds("tcp_syn_s", default.tcp_syn),
        tcp_closing: seconds("tcp_closing_s", default.tcp_closing),
        other: seconds("other_s", default.other),
    };
    section.finish();
    timeouts
}

pub(super) fn capacity(mut section: Section<'_>) -> Capacity {
    let default = Capacity::default();
    let endpoints = section.integer("endpoints", 1..=MOST, "endpoints", default.endpoints);
    let routes = section.integer("routes", 1..=MOST, "routes", default.routes);
    let neighbours = section.integer("neighbours", 1..=MOST, "neighbours", default.neighbours);
    let connections = section.integer("connections", 64..=MOST, "connections", default.connections);
    let fib_nodes_v4 = section.auto_integer("fib_nodes_v4", 64..=MOST, "nodes");
    let fib_nodes_v6 = section.auto_integer("fib_nodes_v6", 64..=MOST, "nodes");
    let ipcache = section.integer("ipcache", 1..=MOST, "prefixes", default.ipcache);
    let ipcache_nodes_v4 = section.auto_integer("ipcache_nodes_v4", 64..=MOST, "nodes");
    let ipcache_nodes_v6 = section.auto_integer("ipcache_nodes_v6", 64..=MOST, "nodes");
    let services = section.integer("services", 1..=MOST, "services", default.services);
    let frontends = section.integer("frontends", 1..=65_535, "frontends", default.frontends);
    let backends = section.integer("backends", 1..=MOST, "backends", default.backends);
    let policies = section.integer("policies", 1..=MOST, "policies", default.policies);
    let policy_entries = section.integer("policy_entries", 1..=1 << 20, "entries", default.policy_entries);
    let egress_gateways = section.integer("egress_gateways", 1..=MOST, "rules", default.egress_gateways);
    let authentications = section.integer("authentications", 1..=MOST, "pairs", default.authentications);
    section.finish();
    Capacity {
        endpoints,
        routes,
        neighbours,
        connections,
        fib_nodes_v4,
        fib_nodes_v6,
        ipcache,
        ipcache_nodes_v4,
        ipcache_nodes_v6,
        services,
        frontends,
        backends,
        policies,
        policy_entries,
        egress_gateways,
        authentications,
    }
}
