//! Verdicts of policies and drops, as they happen.

use std::time::{Duration, SystemTime};

use octoplane_api::v1;
use octoplane_api::v1::observe_client::ObserveClient;
use octoplane_api::v1::packet_event::Kind;
use octoplane_state::packet_event_value;
use serde_json::json;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;

use crate::cli::Format;
use crate::error::Failure;
use crate::flow::{protocol, side};
use crate::output::{print, write};
use crate::program::{client, collect};

pub(crate) async fn run(
    channel: Channel,
    endpoint: Option<String>,
    verdicts: bool,
    drops: bool,
    format: Format,
) -> Result<(), Failure> {
    let endpoint = match endpoint {
        Some(text) => Some(number(channel.clone(), &text).await?),
        None => None,
    };
    let request = v1::StreamEventsRequest {
        verdicts,
        drops,
        endpoint,
    };
    let mut client = ObserveClient::new(channel).max_decoding_message_size(usize::MAX);
    let mut messages = client.stream_events(request).await?.into_inner();
    while let Some(message) = messages.next().await {
        let message = message?;
        for event in &message.events {
            match format {
                Format::Table => write(&format!("{}\n", line(event))),
                // One document a line.
                Format::Json => write(&format!("{}\n", packet_event_value(event))),
                Format::Yaml => {
                    write("---\n");
                    print(&packet_event_value(event), format)?;
                }
            }
        }
        if message.lost > 0 {
            match format {
                Format::Table => write(&format!("{} events lost\n", message.lost)),
                Format::Json => write(&format!("{}\n", json!({"lost": message.lost}))),
                Format::Yaml => {
                    write("---\n");
                    print(&json!({"lost": message.lost}), format)?;
                }
            }
        }
    }
    Ok(())
}

/// An endpoint by number or name; the node itself is "host", or 0.
async fn number(channel: Channel, text: &str) -> Result<u32, Failure> {
    if text == "host" {
        return Ok(0);
    }
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let stream = client(channel)
        .list_endpoints(v1::ListRequest {})
        .await?
        .into_inner();
    let all: Vec<v1::Endpoint> = collect(stream, |chunk| chunk.endpoints).await?;
    let found = all.iter().find(|it| it.name == text).map(|it| it.id);
    found.ok_or_else(|| {
        let status = tonic::Status::not_found(format!("there is no endpoint \"{text}\""));
        Failure::from(status)
    })
}

fn line(event: &v1::PacketEvent) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(event.time);
    let time = humantime::format_rfc3339_micros(time);
    let what = match &event.kind {
        Some(Kind::Verdict(it)) => verdict(it),
        Some(Kind::Drop(it)) => dropped(it),
        None => "something this octoctl does not know".into(),
    };
    format!("{time} {what}")
}

fn short(prefix: &str, name: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

fn packet(it: Option<&v1::FlowTuple>) -> String {
    it.map_or_else(String::new, |it| {
        let (from, to) = (
            side(&it.source, it.source_port),
            side(&it.destination, it.destination_port),
        );
        format!("{} {from} to {to}", protocol(it))
    })
}

fn verdict(it: &v1::PolicyVerdict) -> String {
    let reason = match it.code {
        0 => String::new(),
        code => format!(" ({}, {code})", it.reason),
    };
    let whose = match it.endpoint {
        0 => "host".into(),
        id => format!("endpoint {id}"),
    };
    format!(
        "policy {} {} {whose} identity {} other {} {}{reason} match {} cookie {}",
        short("POLICY_RESULT_", it.result().as_str_name()),
        short("POLICY_DIRECTION_", it.direction().as_str_name()),
        it.local_identity,
        it.remote_identity,
        packet(it.packet.as_ref()),
        short("POLICY_MATCH_", it.r#match().as_str_name()),
        it.cookie,
    )
}

fn dropped(it: &v1::PacketDrop) -> String {
    format!(
        "drop {} ({}) {} in port {} {}",
        it.reason,
        it.code,
        it.direction,
        it.in_port,
        packet(it.packet.as_ref())
    )
}
