//! Verbs about the node, services, policies, the ipcache and egress gateways.

use octoplane_api::v1;
use octoplane_api::v1::change::Change as Step;
use octoplane_api::v1::config_client::ConfigClient;
use serde::Serialize;
use tonic::transport::Channel;

use crate::cli::{EgressGatewayVerb, Format, IpcacheVerb, NodeVerb, PolicyVerb, ServiceVerb};
use crate::error::Failure;
use crate::output::{print, table};
use crate::program::{apply, client, collect};
use octoplane_state::{EgressGateway, Ipcache, Node, Policy, Service};

type Client = ConfigClient<Channel>;

/// The node's settings, if they are not the defaults.
pub(crate) async fn exported_node(client: &mut Client) -> Result<Option<Node>, Failure> {
    // An unset node shows the defaults; setting them again would be a change, if one without effect.
    let request = v1::WatchRequest {
        initial_state: true,
        kinds: vec![v1::Kind::Node.into()],
        ..Default::default()
    };
    let mut events = client.watch(request).await?.into_inner();
    let first = events.message().await?.and_then(|event| event.object);
    Ok(match first {
        Some(v1::event::Object::Node(it)) => Some(it.into()),
        _ => None,
    })
}

pub(crate) async fn ipcache_entries(client: &mut Client) -> Result<Vec<Ipcache>, Failure> {
    let stream = client.list_ipcache(v1::ListRequest {}).await?.into_inner();
    let entries = collect(stream, |chunk| chunk.ipcache).await?;
    Ok(entries.into_iter().map(Into::into).collect())
}

pub(crate) async fn services(client: &mut Client) -> Result<Vec<Service>, Failure> {
    let stream = client.list_services(v1::ListRequest {}).await?.into_inner();
    let services = collect(stream, |chunk| chunk.services).await?;
    Ok(services.into_iter().map(Into::into).collect())
}

pub(crate) async fn policies(client: &mut Client) -> Result<Vec<Policy>, Failure> {
    let stream = client.list_policies(v1::ListRequest {}).await?.into_inner();
    let policies = collect(stream, |chunk| chunk.policies).await?;
    Ok(policies.into_iter().map(Into::into).collect())
}

pub(crate) async fn egress_gateways(client: &mut Client) -> Result<Vec<EgressGateway>, Failure> {
    let stream = client
        .list_egress_gateways(v1::ListRequest {})
        .await?
        .into_inner();
    let rules = collect(stream, |chunk| chunk.egress_gateways).await?;
    Ok(rules.into_iter().map(Into::into).collect())
}

/// Objects of a file as messages. What is wrong in itself is refused before anybody is asked.
fn messages<T: TryInto<M, Error = String>, M>(objects: Vec<T>) -> Result<Vec<M>, Failure> {
    objects
        .into_iter()
        .map(|it| it.try_into().map_err(Failure::Usage))
        .collect()
}

/// One object: all of it, since a row has no room for what it has lists of.
fn show_one<T: Serialize>(it: &T, format: Format) -> Result<(), Failure> {
    let format = if format == Format::Table {
        Format::Yaml
    } else {
        format
    };
    print(it, format)
}

pub(crate) fn show_all<T: Serialize, const N: usize>(
    all: &[T],
    heading: [&str; N],
    row: impl Fn(&T) -> [String; N],
    format: Format,
) -> Result<(), Failure> {
    if format != Format::Table {
        return print(&all, format);
    }
    table(heading, &all.iter().map(row).collect::<Vec<_>>());
    Ok(())
}

pub(crate) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.into()
}

fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.into()
}

pub(crate) async fn node(channel: Channel, verb: NodeVerb, format: Format) -> Result<(), Failure> {
    match verb {
        NodeVerb::Add(it) => {
            let nodes = messages(octoplane_state::objects::<Node>(&it.file)?)?;
            apply(channel, nodes.into_iter().map(Step::PutNode).collect(), format).await
        }
        NodeVerb::Del => apply(channel, vec![Step::RemoveNode(true)], format).await,
        NodeVerb::Get => {
            let node = client(channel).get_node(v1::GetNodeRequest {}).await?;
            show_one(&Node::from(node.into_inner()), format)
        }
    }
}

pub(crate) async fn service(channel: Channel, verb: ServiceVerb, format: Format) -> Result<(), Failure> {
    match verb {
        ServiceVerb::Add(it) => {
            let services = messages(octoplane_state::objects::<Service>(&it.file)?)?;
            apply(
                channel,
                services.into_iter().map(Step::PutService).collect(),
                format,
            )
            .await
        }
        ServiceVerb::Del { names } => {
            apply(
                channel,
                names.into_iter().map(Step::RemoveService).collect(),
                format,
            )
            .await
        }
        ServiceVerb::List => {
            let heading = ["name", "protocol", "frontends", "backends", "algorithm"];
            let row = |it: &Service| {
                let frontend = |(address, port): (&str, u16)| match address.contains(':') {
                    true => format!("[{address}]:{port}"),
                    false => format!("{address}:{port}"),
                };
                let frontends: Vec<_> = it.addresses().map(frontend).collect();
                [
                    it.name.clone(),
                    it.protocol.clone(),
                    frontends.join(" "),
                    it.backends.len().to_string(),
                    it.algorithm.clone(),
                ]
            };
            show_all(&services(&mut client(channel)).await?, heading, row, format)
        }
        ServiceVerb::Get { name } => {
            let service = client(channel)
                .get_service(v1::GetServiceRequest { name })
                .await?;
            show_one(&Service::from(service.into_inner()), format)
        }
    }
}

pub(crate) async fn policy(channel: Channel, verb: PolicyVerb, format: Format) -> Result<(), Failure> {
    match verb {
        PolicyVerb::Add(it) => {
            let policies = messages(octoplane_state::objects::<Policy>(&it.file)?)?;
            apply(
                channel,
                policies.into_iter().map(Step::PutPolicy).collect(),
                format,
            )
            .await
        }
        PolicyVerb::Del { endpoints } => {
            let steps = endpoints.into_iter().map(Step::RemovePolicy).collect();
            apply(channel, steps, format).await
        }
        PolicyVerb::List => {
            let heading = ["endpoint", "ingress", "egress", "audit", "entries"];
            let row = |it: &Policy| {
                [
                    it.endpoint.to_string(),
                    yes(it.enforce_ingress),
                    yes(it.enforce_egress),
                    yes(it.audit),
                    it.entries.len().to_string(),
                ]
            };
            show_all(&policies(&mut client(channel)).await?, heading, row, format)
        }
        PolicyVerb::Get { endpoint } => {
            let request = v1::GetPolicyRequest { endpoint };
            let policy = client(channel).get_policy(request).await?;
            show_one(&Policy::from(policy.into_inner()), format)
        }
    }
}

pub(crate) async fn ipcache(channel: Channel, verb: IpcacheVerb, format: Format) -> Result<(), Failure> {
    match verb {
        IpcacheVerb::Add {
            prefix,
            identity,
            tunnel_endpoint,
            key,
            skip_tunnel,
        } => {
            let entry = Ipcache {
                prefix,
                identity,
                tunnel_endpoint,
                key,
                skip_tunnel,
            };
            apply(channel, vec![Step::PutIpcache(entry.into())], format).await
        }
        IpcacheVerb::Del { prefixes } => {
            let steps = prefixes.into_iter().map(Step::RemoveIpcache).collect();
            apply(channel, steps, format).await
        }
        IpcacheVerb::List => {
            let heading = ["prefix", "identity", "tunnel endpoint", "key", "skip tunnel"];
            let row = |it: &Ipcache| {
                [
                    it.prefix.clone(),
                    it.identity.to_string(),
                    or_dash(&it.tunnel_endpoint),
                    it.key.to_string(),
                    yes(it.skip_tunnel),
                ]
            };
            show_all(
                &ipcache_entries(&mut client(channel)).await?,
                heading,
                row,
                format,
            )
        }
        IpcacheVerb::Get { prefix } => {
            let request = v1::GetIpcacheRequest { prefix };
            let entry = client(channel).get_ipcache(request).await?;
            show_one(&Ipcache::from(entry.into_inner()), format)
        }
    }
}

pub(crate) async fn egress_gateway(
    channel: Channel,
    verb: EgressGatewayVerb,
    format: Format,
) -> Result<(), Failure> {
    match verb {
        EgressGatewayVerb::Add {
            source,
            destination,
            gateway,
            egress_ip,
        } => {
            let rule = EgressGateway {
                source,
                destination,
                gateway,
                egress_ip,
            };
            apply(channel, vec![Step::PutEgressGateway(rule.into())], format).await
        }
        EgressGatewayVerb::Del { source, destination } => {
            let rule = v1::EgressGateway {
                source,
                destination,
                ..Default::default()
            };
            apply(channel, vec![Step::RemoveEgressGateway(rule)], format).await
        }
        EgressGatewayVerb::List => {
            let heading = ["source", "destination", "gateway", "egress ip"];
            let row = |it: &EgressGateway| {
                [
                    it.source.clone(),
                    it.destination.clone(),
                    it.gateway.clone(),
                    or_dash(&it.egress_ip),
                ]
            };
            show_all(
                &egress_gateways(&mut client(channel)).await?,
                heading,
                row,
                format,
            )
        }
        EgressGatewayVerb::Get { source, destination } => {
            let request = v1::GetEgressGatewayRequest { source, destination };
            let rule = client(channel).get_egress_gateway(request).await?;
            show_one(&EgressGateway::from(rule.into_inner()), format)
        }
    }
}
