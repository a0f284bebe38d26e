//! Verbs about what CNI plugins attached.

use octoplane_api::v1;
use octoplane_api::v1::attachments_client::AttachmentsClient;
use serde_json::json;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;

use crate::cli::{AttachmentVerb, Format};
use crate::error::Failure;
use crate::output::{print, table, write};

pub(crate) async fn run(channel: Channel, verb: AttachmentVerb, format: Format) -> Result<(), Failure> {
    let mut client = AttachmentsClient::new(channel).max_decoding_message_size(usize::MAX);
    match verb {
        AttachmentVerb::List { network } => {
            let request = v1::ListAttachmentsRequest {
                network: network.unwrap_or_default(),
            };
            let mut chunks = client.list_attachments(request).await?.into_inner();
            let mut all = Vec::new();
            while let Some(chunk) = chunks.next().await {
                all.extend(chunk?.attachments);
            }
            list(&all, format)
        }
        AttachmentVerb::Pools => {
            let pools = client
                .list_pools(v1::ListPoolsRequest {})
                .await?
                .into_inner()
                .pools;
            show_pools(&pools, format)
        }
        AttachmentVerb::Del { container, interface } => {
            let request = v1::DetachRequest {
                key: Some(v1::AttachmentKey {
                    container_id: container.clone(),
                    interface: interface.clone(),
                }),
                keep_reservation: false,
            };
            let existed = client.detach(request).await?.into_inner().existed;
            let sign = if existed { "-" } else { "=" };
            write(&format!("{sign} attachment {container} {interface}\n"));
            Ok(())
        }
    }
}

fn list(all: &[v1::Attachment], format: Format) -> Result<(), Failure> {
    let names = |it: &v1::Attachment| {
        let key = it.key.clone().unwrap_or_default();
        (key.container_id, key.interface)
    };
    if format != Format::Table {
        let objects: Vec<_> = all
            .iter()
            .map(|it| {
                let (container, interface) = names(it);
                json!({
                    "container": container,
                    "interface": interface,
                    "network": it.network,
                    "pod_namespace": it.pod_namespace,
                    "pod_name": it.pod_name,
                    "addresses": it.addresses,
                    "endpoint": it.endpoint,
                    "port": it.port,
                    "mac": it.mac,
                    "identity": it.identity,
                    "labels": it.labels,
                    "function": it.function,
                    "created": it.created,
                })
            })
            .collect();
        return print(&objects, format);
    }
    let rows: Vec<_> = all
        .iter()
        .map(|it| {
            let (container, interface) = names(it);
            let number = |number: u32| match number {
                0 => "-".to_owned(),
                number => number.to_string(),
            };
            [
                container.chars().take(16).collect(),
                interface,
                it.network.clone(),
                format!("{}/{}", it.pod_namespace, it.pod_name),
                it.addresses.join(" "),
                number(it.endpoint),
                it.port.clone(),
                number(it.identity),
            ]
        })
        .collect();
    table(
        [
            "container",
            "interface",
            "network",
            "pod",
            "addresses",
            "endpoint",
            "port",
            "identity",
        ],
        &rows,
    );
    Ok(())
}

fn show_pools(pools: &[v1::Pool], format: Format) -> Result<(), Failure> {
    if format != Format::Table {
        let objects: Vec<_> = pools
            .iter()
            .map(|it| json!({"prefix": it.prefix, "size": it.size, "used": it.used, "resting": it.resting}))
            .collect();
        return print(&objects, format);
    }
    let rows: Vec<_> = pools
        .iter()
        .map(|it| {
            [
                it.prefix.clone(),
                it.size.to_string(),
                it.used.to_string(),
                it.resting.to_string(),
            ]
        })
        .collect();
    table(["prefix", "size", "used", "resting"], &rows);
    Ok(())
}
