//! Verbs about encryption between nodes.

use octoplane_api::v1;
use octoplane_api::v1::ipsec_client::IpsecClient;
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::cli::{Format, IpsecNodeVerb, IpsecVerb};
use crate::error::Failure;
use crate::output::{print, table, write};
use crate::own_ipsec::{self, IpsecPolicyVerb, IpsecSaVerb};

type Client = IpsecClient<Channel>;

pub(crate) async fn run(channel: Channel, verb: IpsecVerb, format: Format) -> Result<(), Failure> {
    let mut client = IpsecClient::new(channel).max_decoding_message_size(usize::MAX);
    match verb {
        IpsecVerb::Status => status(&mut client, format).await,
        IpsecVerb::Sa(IpsecSaVerb::List) => sas(&mut client, format).await,
        IpsecVerb::Sa(IpsecSaVerb::Add(arguments)) => own_ipsec::add_sa(&mut client, *arguments).await,
        IpsecVerb::Sa(IpsecSaVerb::Del(name)) => own_ipsec::del_sa(&mut client, name).await,
        IpsecVerb::Policy(IpsecPolicyVerb::List) => policies(&mut client, format).await,
        IpsecVerb::Policy(IpsecPolicyVerb::Add(arguments)) => {
            own_ipsec::add_policy(&mut client, arguments).await
        }
        IpsecVerb::Policy(IpsecPolicyVerb::Del { ids }) => own_ipsec::del_policies(&mut client, ids).await,
        IpsecVerb::Events { after } => own_ipsec::events(&mut client, after, format).await,
        IpsecVerb::Counters => counters(&mut client, format).await,
        IpsecVerb::Node(IpsecNodeVerb::List) => nodes(&mut client, format).await,
        IpsecVerb::Node(IpsecNodeVerb::Del { addresses }) => {
            let lines = addresses
                .iter()
                .map(|it| format!("- ipsec node {it}\n"))
                .collect();
            let request = v1::SetIpsecNodesRequest {
                remove: addresses,
                ..Default::default()
            };
            set(&mut client, request, lines).await
        }
        IpsecVerb::Node(IpsecNodeVerb::Add {
            address,
            id,
            key,
            boot_id,
            sa_address,
        }) => {
            let line = format!("+ ipsec node {address}\n");
            let node = v1::IpsecNode {
                address,
                id,
                key,
                boot_id,
                sa_address,
            };
            let request = v1::SetIpsecNodesRequest {
                nodes: vec![node],
                ..Default::default()
            };
            set(&mut client, request, line).await
        }
    }
}

async fn set(client: &mut Client, request: v1::SetIpsecNodesRequest, done: String) -> Result<(), Failure> {
    client.set_ipsec_nodes(request).await?;
    write(&done);
    Ok(())
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".into() } else { text }
}

async fn status(client: &mut Client, format: Format) -> Result<(), Failure> {
    let request = v1::GetIpsecStatusRequest {};
    let it = client.get_ipsec_status(request).await?.into_inner();
    if format != Format::Table {
        let keys: Vec<Value> = it
            .keys
            .iter()
            .map(|key| {
                json!({"key": key.key, "algorithm": key.algorithm, "removed_in_seconds": key.removed_in_seconds})
            })
            .collect();
        let devices: Vec<Value> = it
            .devices
            .iter()
            .map(|device| {
                json!({
                    "name": device.name, "driver": device.driver, "algorithms": device.algorithms,
                    "sessions": device.sessions, "workers": device.workers, "unused": device.unused,
                })
            })
            .collect();
        let value = json!({
            "key": it.key, "boot_id": it.boot_id, "addresses": it.addresses, "strict": it.strict, "keys": keys,
            "key_file_error": it.key_file_error, "provider": it.provider, "devices": devices, "nodes": it.nodes,
            "sas": it.sas, "framing": it.framing, "policies": it.policies, "too_big": it.too_big,
        });
        return print(&value, format);
    }
    write(&format!("key {}, boot id {}\n", it.key, it.boot_id));
    write(&format!("ends {}\n", or_dash(it.addresses.join(" "))));
    let strict = if it.strict { ", strict" } else { "" };
    write(&format!(
        "{} nodes, {} security associations{strict}\n",
        it.nodes, it.sas
    ));
    write(&format!("provider {}, {}\n", it.provider, it.framing));
    if !it.key_file_error.is_empty() {
        write(&format!("key file: {}\n", it.key_file_error));
    }
    write("\n");
    let rows: Vec<_> = it
        .keys
        .iter()
        .map(|key| {
            let end = key.removed_in_seconds.map(|it| format!("{it} s"));
            [
                key.key.to_string(),
                key.algorithm.clone(),
                or_dash(end.unwrap_or_default()),
            ]
        })
        .collect();
    table(["key", "algorithm", "removed in"], &rows);
    if it.devices.is_empty() {
        return Ok(());
    }
    write("\n");
    let rows: Vec<_> = it
        .devices
        .iter()
        .map(|device| {
            let workers: Vec<_> = device.workers.iter().map(u32::to_string).collect();
            [
                device.name.clone(),
                device.driver.clone(),
                device.sessions.to_string(),
                workers.join(" "),
                or_dash(device.unused.join(", ")),
            ]
        })
        .collect();
    table(["device", "driver", "sessions", "workers", "unused by"], &rows);
    Ok(())
}

fn error_values(errors: &[v1::IpsecError]) -> Value {
    let pairs = errors.iter().map(|it| (it.cause.clone(), json!(it.packets)));
    Value::Object(pairs.collect())
}

async fn sas(client: &mut Client, format: Format) -> Result<(), Failure> {
    let request = v1::ListIpsecSasRequest {};
    let sas = client.list_ipsec_sas(request).await?.into_inner().sas;
    if format != Format::Table {
        let values: Vec<_> = sas
            .iter()
            .map(|it| {
                json!({
                    "direction": it.direction, "spi": it.spi, "source": it.source, "destination": it.destination,
                    "algorithm": it.algorithm, "fingerprint": it.fingerprint, "esn": it.esn,
                    "replay_window": it.replay_window, "sequence": it.sequence, "packets": it.packets,
                    "bytes": it.bytes, "errors": error_values(&it.errors), "provider": it.provider, "state": it.state,
                    "age_seconds": it.age_seconds, "config": it.config.as_ref().map(own_ipsec::config_value),
                })
            })
            .collect();
        return print(&values, format);
    }
    let rows: Vec<_> = sas
        .iter()
        .map(|it| {
            let errors: u64 = it.errors.iter().map(|error| error.packets).sum();
            [
                it.direction.clone(),
                it.spi.to_string(),
                it.source.clone(),
                it.destination.clone(),
                it.algorithm.clone(),
                it.fingerprint.clone(),
                it.provider.clone(),
                it.sequence.to_string(),
                it.packets.to_string(),
                it.bytes.to_string(),
                errors.to_string(),
                it.state.clone(),
            ]
        })
        .collect();
    table(
        [
            "direction",
            "spi",
            "source",
            "destination",
            "algorithm",
            "fingerprint",
            "provider",
            "sequence",
            "packets",
            "bytes",
            "errors",
            "state",
        ],
        &rows,
    );
    Ok(())
}

async fn policies(client: &mut Client, format: Format) -> Result<(), Failure> {
    let request = v1::ListIpsecPoliciesRequest {};
    let v1::IpsecPolicyList { policies, selectors } = client.list_ipsec_policies(request).await?.into_inner();
    if format != Format::Table {
        let value = |it: &v1::IpsecPolicy| json!({"node": it.node, "action": it.action, "key": it.key});
        let values: Vec<_> = policies
            .iter()
            .map(value)
            .chain(selectors.iter().map(own_ipsec::policy_value))
            .collect();
        return print(&values, format);
    }
    if !selectors.is_empty() {
        let rows: Vec<_> = selectors.iter().map(own_ipsec::policy_row).collect();
        table(own_ipsec::POLICY_HEADS, &rows);
        if policies.is_empty() {
            return Ok(());
        }
        write("\n");
    }
    let row = |it: &v1::IpsecPolicy| [it.node.clone(), it.action.clone(), it.key.to_string()];
    let rows: Vec<_> = policies.iter().map(row).collect();
    table(["node", "action", "key"], &rows);
    Ok(())
}

async fn counters(client: &mut Client, format: Format) -> Result<(), Failure> {
    let request = v1::GetIpsecCountersRequest {};
    let it = client.get_ipsec_counters(request).await?.into_inner();
    if format != Format::Table {
        let queues: Vec<Value> = it
            .queues
            .iter()
            .map(|it| json!({"worker": it.worker, "waiting": it.waiting, "in_device": it.in_device}))
            .collect();
        let value = json!({
            "encrypted": it.encrypted, "decrypted": it.decrypted, "full": it.full, "waiting": it.waiting,
            "outbound": error_values(&it.outbound), "inbound": error_values(&it.inbound), "device": it.device,
            "to_software": error_values(&it.to_software), "lost": it.lost, "queues": queues,
        });
        return print(&value, format);
    }
    let mut rows = Vec::new();
    for (name, number) in [
        ("encrypted", it.encrypted),
        ("decrypted", it.decrypted),
        ("waiting", it.waiting),
        ("dropped, too many waited", it.full),
        ("done by devices", it.device),
        ("lost with a device", it.lost),
    ] {
        rows.push([name.to_owned(), number.to_string()]);
    }
    for queue in &it.queues {
        let depths = format!("{} ({} in a device)", queue.waiting, queue.in_device);
        rows.push([format!("queue of worker {}", queue.worker), depths]);
    }
    for (what, errors) in [
        ("not encrypted", &it.outbound),
        ("not decrypted", &it.inbound),
        ("software for a device", &it.to_software),
    ] {
        for error in errors {
            let text = if error.text.is_empty() {
                &error.cause
            } else {
                &error.text
            };
            rows.push([format!("{what}: {text}"), error.packets.to_string()]);
        }
    }
    table(["counter", "packets"], &rows);
    Ok(())
}

async fn nodes(client: &mut Client, format: Format) -> Result<(), Failure> {
    let request = v1::ListIpsecNodesRequest {};
    let nodes = client.list_ipsec_nodes(request).await?.into_inner().nodes;
    if format != Format::Table {
        let value = |it: &v1::IpsecNode| {
            json!({
                "address": it.address, "id": it.id, "key": it.key, "boot_id": it.boot_id, "sa_address": it.sa_address,
            })
        };
        let values: Vec<_> = nodes.iter().map(value).collect();
        return print(&values, format);
    }
    let row = |it: &v1::IpsecNode| {
        [
            it.address.clone(),
            it.id.to_string(),
            it.key.to_string(),
            or_dash(it.boot_id.clone()),
            or_dash(it.sa_address.clone()),
        ]
    };
    let rows: Vec<_> = nodes.iter().map(row).collect();
    table(["address", "id", "key", "boot id", "sa address"], &rows);
    Ok(())
}
