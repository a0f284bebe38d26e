//! Verbs that only look.

use octoplane_api::v1;
use octoplane_api::v1::event::Object;
use octoplane_api::v1::stats_client::StatsClient;
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;

use crate::cli::Format;
use crate::error::Failure;
use crate::output::{print, table, write};
use crate::program::client;
use octoplane_state::{
    Authentication, EgressGateway, Endpoint, Ipcache, Neighbour, Node, Policy, Port, Route, Service,
};

fn stats(channel: Channel) -> StatsClient<Channel> {
    StatsClient::new(channel).max_decoding_message_size(usize::MAX)
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}

/// The quotient with one decimal, or a dash.
fn mean(sum: u64, count: u64) -> String {
    if count == 0 {
        "-".into()
    } else {
        format!("{:.1}", sum as f64 / count as f64)
    }
}

pub(crate) async fn status(channel: Channel, format: Format) -> Result<(), Failure> {
    let it = stats(channel)
        .get_status(v1::GetStatusRequest {})
        .await?
        .into_inner();
    if format != Format::Table {
        let workers: Vec<Value> = it.workers.iter().map(worker_value).collect();
        let tables: Vec<Value> = it
            .tables
            .iter()
            .map(|it| json!({"name": it.name, "used": it.used, "capacity": it.capacity}))
            .collect();
        let value = json!({
            "version": it.version, "dpdk": it.dpdk, "uptime_ms": it.uptime_ms, "startup_ms": it.startup_ms,
            "revision": it.revision, "mbufs_in_use": it.mbufs_in_use, "mbufs": it.mbufs,
            "workers": workers, "tables": tables,
        });
        return print(&value, format);
    }
    write(&format!("octoplaned {} on {}\n", it.version, it.dpdk));
    write(&format!(
        "up {:.1} s, started in {} ms\n",
        it.uptime_ms as f64 / 1000.0,
        it.startup_ms
    ));
    write(&format!("tables at revision {}\n", it.revision));
    write(&format!(
        "packet buffers {} of {} in use\n\n",
        it.mbufs_in_use, it.mbufs
    ));
    let rows: Vec<_> = it
        .workers
        .iter()
        .map(|it| {
            [
                it.number.to_string(),
                it.core.to_string(),
                it.poll.clone(),
                percent(it.busy_cycles, it.busy_cycles + it.idle_cycles),
                it.packets.to_string(),
                mean(it.packets, it.bursts),
                mean(it.busy_cycles, it.packets),
                it.punted.to_string(),
                it.answered.to_string(),
                it.icmp_errors.to_string(),
                it.parked.to_string(),
            ]
        })
        .collect();
    let heading = [
        "worker",
        "cpu",
        "poll",
        "busy",
        "packets",
        "burst",
        "cycles/packet",
        "punted",
        "answered",
        "icmp errors",
        "parked",
    ];
    table(heading, &rows);
    write("\n");
    let rows: Vec<_> = it
        .tables
        .iter()
        .map(|it| {
            [
                it.name.clone(),
                it.used.to_string(),
                it.capacity.to_string(),
                percent(it.used, it.capacity),
            ]
        })
        .collect();
    table(["table", "used", "capacity", "fill"], &rows);
    Ok(())
}

fn worker_value(it: &v1::Worker) -> Value {
    json!({
        "number": it.number, "core": it.core, "poll": it.poll, "rounds": it.rounds, "busy_cycles": it.busy_cycles,
        "idle_cycles": it.idle_cycles, "sleeps": it.sleeps, "bursts": it.bursts, "packets": it.packets,
        "burst_sizes": it.burst_sizes, "fast_packets": it.fast_packets, "punted": it.punted, "answered": it.answered,
        "icmp_errors": it.icmp_errors, "icmp_suppressed": it.icmp_suppressed, "parked": it.parked,
        "handed_off": it.handed_off,
    })
}

pub(crate) async fn drops(channel: Channel, format: Format) -> Result<(), Failure> {
    let drops = stats(channel)
        .get_drops(v1::GetDropsRequest {})
        .await?
        .into_inner()
        .drops;
    if format != Format::Table {
        let value = |it: &v1::Drop| json!({"code": it.code, "reason": it.reason, "direction": it.direction, "packets": it.packets, "bytes": it.bytes});
        return print(&drops.iter().map(value).collect::<Vec<_>>(), format);
    }
    let rows: Vec<_> = drops
        .iter()
        .map(|it| {
            [
                it.code.to_string(),
                it.reason.clone(),
                it.direction.clone(),
                it.packets.to_string(),
                it.bytes.to_string(),
            ]
        })
        .collect();
    table(["code", "reason", "direction", "packets", "bytes"], &rows);
    Ok(())
}

pub(crate) async fn stages(channel: Channel, format: Format) -> Result<(), Failure> {
    let stages = stats(channel)
        .get_stages(v1::GetStagesRequest {})
        .await?
        .into_inner()
        .stages;
    if format != Format::Table {
        let value = |it: &v1::Stage| {
            json!({
                "worker": it.worker, "name": it.name, "calls": it.calls, "packets": it.packets,
                "timed_packets": it.timed_packets, "timed_cycles": it.timed_cycles,
            })
        };
        return print(&stages.iter().map(value).collect::<Vec<_>>(), format);
    }
    let rows: Vec<_> = stages
        .iter()
        .map(|it| {
            [
                it.worker.to_string(),
                it.name.clone(),
                it.calls.to_string(),
                it.packets.to_string(),
                mean(it.packets, it.calls),
                mean(it.timed_cycles, it.timed_packets),
            ]
        })
        .collect();
    table(
        [
            "worker",
            "stage",
            "calls",
            "packets",
            "packets/call",
            "cycles/packet",
        ],
        &rows,
    );
    Ok(())
}

pub(crate) async fn port_stats(
    channel: Channel,
    names: Vec<String>,
    xstats: bool,
    format: Format,
) -> Result<(), Failure> {
    let request = v1::GetPortStatsRequest { names, xstats };
    let ports = stats(channel).get_port_stats(request).await?.into_inner().ports;
    if format != Format::Table {
        return print(&ports.iter().map(port_value).collect::<Vec<_>>(), format);
    }
    let rows: Vec<_> = ports
        .iter()
        .map(|it| {
            let device = it.device_stats.unwrap_or_default();
            [
                it.name.clone(),
                it.driver.clone(),
                if it.link_up { "up" } else { "down" }.into(),
                it.rx_packets.to_string(),
                it.rx_bytes.to_string(),
                it.tx_packets.to_string(),
                it.tx_full.to_string(),
                device.rx_missed.to_string(),
                device.rx_no_buffer.to_string(),
                (device.rx_errors + device.tx_errors).to_string(),
            ]
        })
        .collect();
    let heading = [
        "port",
        "driver",
        "link",
        "rx packets",
        "rx bytes",
        "tx packets",
        "tx full",
        "rx missed",
        "no buffer",
        "errors",
    ];
    table(heading, &rows);
    for port in ports.iter().filter(|port| !port.xstats.is_empty()) {
        write(&format!("\n{}\n", port.name));
        let rows: Vec<_> = port
            .xstats
            .iter()
            .map(|it| [it.name.clone(), it.value.to_string()])
            .collect();
        table(["counter", "value"], &rows);
    }
    Ok(())
}

fn port_value(it: &v1::PortStats) -> Value {
    let device = it.device_stats.unwrap_or_default();
    let queues: Vec<Value> = it
        .queues
        .iter()
        .map(|it| json!({"worker": it.worker, "rx": it.rx, "tx": it.tx, "tx_owner": it.tx_owner}))
        .collect();
    let xstats: serde_json::Map<String, Value> = it
        .xstats
        .iter()
        .map(|it| (it.name.clone(), it.value.into()))
        .collect();
    json!({
        "name": it.name, "driver": it.driver, "device": it.device, "link_up": it.link_up,
        "rx_packets": it.rx_packets, "rx_bytes": it.rx_bytes, "tx_packets": it.tx_packets, "tx_full": it.tx_full,
        "device_stats": {
            "rx_packets": device.rx_packets, "rx_bytes": device.rx_bytes, "tx_packets": device.tx_packets,
            "tx_bytes": device.tx_bytes, "rx_missed": device.rx_missed, "rx_errors": device.rx_errors,
            "tx_errors": device.tx_errors, "rx_no_buffer": device.rx_no_buffer,
        },
        "queues": queues,
        "xstats": xstats,
    })
}

pub(crate) async fn watch(
    channel: Channel,
    request: v1::WatchRequest,
    format: Format,
) -> Result<(), Failure> {
    let mut events = client(channel).watch(request).await?.into_inner();
    while let Some(event) = events.next().await {
        let event = event?;
        match format {
            Format::Table => write(&format!("{} {}\n", event.revision, event_line(&event))),
            // One document a line.
            Format::Json => write(&format!("{}\n", event_value(&event))),
            Format::Yaml => {
                write("---\n");
                print(&event_value(&event), format)?;
            }
        }
    }
    Ok(())
}

/// Where a route leads, in a word or an address.
pub(crate) fn route_target(route: &Route) -> String {
    match (&route.target, &route.via) {
        (Some(octoplane_state::Target::Host), _) => "host".into(),
        (Some(octoplane_state::Target::Blackhole), _) => "blackhole".into(),
        (None, Some(via)) => via.clone(),
        (None, None) => "link".into(),
    }
}

/// An event for people: + for new, ~ for different, - for gone. A watch does not tell new from different: both are +.
pub(crate) fn event_line(event: &v1::Event) -> String {
    let sign = match (event.removed, event.existed, event.initial_state_end) {
        (_, _, true) => '=',
        (true, _, _) => '-',
        (false, Some(true), _) => '~',
        (false, _, _) => '+',
    };
    let what = match &event.object {
        Some(Object::Endpoint(it)) => {
            format!(
                "endpoint {} {} port {} {} identity {} {}",
                it.id,
                it.name,
                it.port,
                it.mac,
                it.identity,
                it.addresses.join(" ")
            )
        }
        Some(Object::Route(it)) => {
            let route = Route::from(it.clone());
            let port = route
                .port
                .as_ref()
                .map(|port| format!(" port {port}"))
                .unwrap_or_default();
            let mtu = route.mtu.map(|mtu| format!(" mtu {mtu}")).unwrap_or_default();
            format!("route {} to {}{port}{mtu}", route.prefix, route_target(&route))
        }
        Some(Object::Neighbour(it)) => {
            let learned = if it.learned { " learned" } else { "" };
            format!("neighbour {} port {} {}{learned}", it.address, it.port, it.mac)
        }
        Some(Object::Port(it)) => {
            let admin = if it.admin_up == Some(false) { "down" } else { "up" };
            format!("port {} mtu {} admin {admin}", it.name, it.mtu)
        }
        Some(Object::Node(it)) => format!("node {}", it.addresses.join(" ")).trim_end().into(),
        Some(Object::Ipcache(it)) => {
            let tunnel = match it.tunnel_endpoint.as_str() {
                "" => String::new(),
                addr => format!(" tunnel {addr}"),
            };
            format!("ipcache {} identity {}{tunnel}", it.prefix, it.identity)
        }
        Some(Object::Service(it)) => {
            let (frontends, backends) = (it.frontends.len(), it.backends.len());
            format!("service {} frontends {frontends} backends {backends}", it.name)
        }
        Some(Object::Policy(it)) => format!("policy {} entries {}", it.endpoint, it.entries.len()),
        Some(Object::EgressGateway(it)) => {
            let rule = EgressGateway::from(it.clone());
            format!(
                "egress-gateway {} to {} gateway {}",
                rule.source, rule.destination, rule.gateway
            )
        }
        Some(Object::Authentication(it)) => format!(
            "authentication {} to {} type {}",
            it.local_identity, it.remote_identity, it.auth_type
        ),
        None if event.initial_state_end => "everything that was there".into(),
        None => "something this octoctl does not know".into(),
    };
    format!("{sign} {what}")
}

/// An event for programs.
pub(crate) fn event_value(event: &v1::Event) -> Value {
    let (kind, object) = match event.object.clone() {
        Some(Object::Endpoint(it)) => ("endpoint", json!(Endpoint::from(it))),
        Some(Object::Route(it)) => ("route", json!(Route::from(it))),
        Some(Object::Neighbour(it)) => ("neighbour", json!(Neighbour::from(it))),
        Some(Object::Port(it)) => ("port", json!(Port::from(it))),
        Some(Object::Node(it)) => ("node", json!(Node::from(it))),
        Some(Object::Ipcache(it)) => ("ipcache", json!(Ipcache::from(it))),
        Some(Object::Service(it)) => ("service", json!(Service::from(it))),
        Some(Object::Policy(it)) => ("policy", json!(Policy::from(it))),
        Some(Object::EgressGateway(it)) => ("egress_gateway", json!(EgressGateway::from(it))),
        Some(Object::Authentication(it)) => ("authentication", json!(Authentication::from(it))),
        None if event.initial_state_end => ("initial_state_end", Value::Bool(true)),
        None => ("unknown", Value::Null),
    };
    let mut value = json!({"revision": event.revision, "removed": event.removed});
    if let Some(existed) = event.existed {
        value["existed"] = existed.into();
    }
    value[kind] = object;
    value
}
