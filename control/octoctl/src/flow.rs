//! Verbs about connections.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use octoplane_api::v1;
use octoplane_api::v1::flows_client::FlowsClient;
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;

use crate::cli::{FlowFilter, FlowVerb, Format};
use crate::error::Failure;
use crate::output::{print, table, write};

/// Protocols that have a name.
const PROTOCOLS: [(u8, &str); 5] = [
    (1, "icmp"),
    (6, "tcp"),
    (17, "udp"),
    (58, "icmpv6"),
    (132, "sctp"),
];

/// A protocol by name or number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Protocol(u8);

impl Protocol {
    pub(crate) fn number(self) -> u8 {
        self.0
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = PROTOCOLS.iter().find(|(_, name)| *name == text);
        let number = named
            .map(|(number, _)| *number)
            .or_else(|| text.parse().ok().filter(|number| *number > 0));
        number
            .map(Self)
            .ok_or_else(|| "expected tcp, udp, icmp, icmpv6, sctp or a number from 1 to 255".into())
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match PROTOCOLS.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

/// One side of a connection: an address, and a port if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Side(SocketAddr);

impl Side {
    pub(crate) fn address(self) -> SocketAddr {
        self.0
    }
}

impl FromStr for Side {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let alone = || text.parse().map(|addr: IpAddr| SocketAddr::new(addr, 0));
        text.parse()
            .or_else(|_| alone())
            .map(Self)
            .map_err(|_| "expected an address, or address:port as in 10.0.0.1:80 or [fd00::1]:80".into())
    }
}

pub(crate) async fn run(channel: Channel, verb: FlowVerb, format: Format) -> Result<(), Failure> {
    let mut client = FlowsClient::new(channel).max_decoding_message_size(usize::MAX);
    match verb {
        FlowVerb::List { filter, limit } => {
            let filter = Some(filter.into());
            let request = v1::ListFlowsRequest { filter, limit };
            let mut chunks = client.list_flows(request).await?.into_inner();
            let mut flows = Vec::new();
            while let Some(chunk) = chunks.next().await {
                flows.extend(chunk?.flows);
            }
            show(&flows, format)
        }
        FlowVerb::Get {
            source: Side(source),
            destination: Side(destination),
            protocol,
            zone,
        } => {
            let tuple = v1::FlowTuple {
                source: source.ip().to_string(),
                destination: destination.ip().to_string(),
                source_port: source.port().into(),
                destination_port: destination.port().into(),
                protocol: protocol.0.into(),
                zone: zone.into(),
            };
            let request = v1::GetFlowRequest { tuple: Some(tuple) };
            let flow = client.get_flow(request).await?.into_inner();
            if format == Format::Table {
                show(&[flow], format)
            } else {
                print(&flow_value(&flow), format)
            }
        }
        FlowVerb::Flush { filter, all } => {
            let request = v1::FlushFlowsRequest {
                filter: (!all).then(|| filter.into()),
                all,
            };
            let flushed = client.flush_flows(request).await?.into_inner().flushed;
            if format != Format::Table {
                return print(&json!({"flushed": flushed}), format);
            }
            let plural = if flushed == 1 { "" } else { "s" };
            write(&format!("{flushed} connection{plural} flushed\n"));
            Ok(())
        }
    }
}

impl From<FlowFilter> for v1::FlowFilter {
    fn from(it: FlowFilter) -> Self {
        Self {
            address: it.address.unwrap_or_default(),
            source: it.source.unwrap_or_default(),
            destination: it.destination.unwrap_or_default(),
            port: it.port.unwrap_or(0).into(),
            protocol: it.protocol.map_or(0, |it| it.0.into()),
        }
    }
}

fn show(flows: &[v1::Flow], format: Format) -> Result<(), Failure> {
    if format != Format::Table {
        return print(&flows.iter().map(flow_value).collect::<Vec<_>>(), format);
    }
    let rows: Vec<_> = flows.iter().map(row).collect();
    let heading = [
        "protocol",
        "source",
        "destination",
        "reply from",
        "reply to",
        "state",
        "idle",
        "expires",
        "in port",
        "identity",
    ];
    table(heading, &rows);
    Ok(())
}

fn row(flow: &v1::Flow) -> [String; 10] {
    let forward = flow.forward.clone().unwrap_or_default();
    let reply = flow.reply.clone().unwrap_or_default();
    let there = forward.tuple.unwrap_or_default();
    let back = reply.tuple.unwrap_or_default();
    let or_dash = |text: String, known: bool| if known { text } else { "-".into() };
    [
        protocol(&there),
        side(&there.source, there.source_port),
        side(&there.destination, there.destination_port),
        side(&back.source, back.source_port),
        side(&back.destination, back.destination_port),
        state(flow).into(),
        format!("{} s", flow.idle_seconds),
        format!("{} s", flow.expires_seconds),
        or_dash(forward.in_port, forward.decided),
        or_dash(forward.identity.to_string(), forward.decided),
    ]
}

pub(crate) fn protocol(tuple: &v1::FlowTuple) -> String {
    u8::try_from(tuple.protocol).map_or_else(|_| tuple.protocol.to_string(), |it| Protocol(it).to_string())
}

/// An address and its port, if it has one, in the form that `flow get` reads.
pub(crate) fn side(addr: &str, port: u32) -> String {
    match (port, addr.contains(':')) {
        (0, _) => addr.to_owned(),
        (_, true) => format!("[{addr}]:{port}"),
        (_, false) => format!("{addr}:{port}"),
    }
}

fn state(flow: &v1::Flow) -> &'static str {
    match flow.state() {
        v1::FlowState::Unspecified => "unspecified",
        v1::FlowState::Syn => "syn",
        v1::FlowState::Established => "established",
        v1::FlowState::Closing => "closing",
        v1::FlowState::Open => "open",
    }
}

fn flow_value(flow: &v1::Flow) -> Value {
    json!({
        "forward": direction_value(flow.forward.as_ref()), "reply": direction_value(flow.reply.as_ref()),
        "state": state(flow), "idle_seconds": flow.idle_seconds, "expires_seconds": flow.expires_seconds,
    })
}

/// What was not decided is left out.
fn direction_value(direction: Option<&v1::FlowDirection>) -> Value {
    let it = direction.cloned().unwrap_or_default();
    let tuple = it.tuple.unwrap_or_default();
    let mut value = json!({
        "source": tuple.source, "destination": tuple.destination, "source_port": tuple.source_port,
        "destination_port": tuple.destination_port, "protocol": tuple.protocol, "zone": tuple.zone,
        "translated": it.translated, "decided": it.decided,
    });
    if it.decided {
        value["current"] = it.current.into();
        value["in_port"] = it.in_port.into();
        value["identity"] = it.identity.into();
        value["target"] = it.target.into();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_read_as_they_are_shown() {
        for text in ["10.0.0.1", "10.0.0.1:80", "fd00::1", "[fd00::1]:80"] {
            let Side(it) = text.parse().unwrap();
            assert_eq!(side(&it.ip().to_string(), it.port().into()), text);
        }
        assert!("10.0.0.1:x".parse::<Side>().is_err());
    }

    #[test]
    fn protocols_by_name_and_number() {
        for (text, number) in [("tcp", 6), ("icmpv6", 58), ("47", 47)] {
            let it: Protocol = text.parse().unwrap();
            assert_eq!((it.0, it.to_string().as_str()), (number, text));
        }
        for text in ["0", "256", "tpc", ""] {
            assert!(text.parse::<Protocol>().is_err(), "{text}");
        }
    }
}
