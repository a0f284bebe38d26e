//! Verbs that read and change the tables.

use octoplane_api::v1::change::Change as Step;
use octoplane_api::v1::config_client::ConfigClient;
use octoplane_api::{MAX_MESSAGE, v1};
use tokio_stream::StreamExt as _;
use tonic::Streaming;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use crate::cli::{
    Admin, EndpointVerb, Format, NeighVerb, PortArguments, PortVerb, RouteArguments, RouteVerb,
};
use crate::error::Failure;
use crate::output::{print, table, write};
use crate::{objects, show};
use octoplane_state::{Endpoint, Neighbour, Port, Route, Source, State};

pub(crate) fn client(channel: Channel) -> ConfigClient<Channel> {
    ConfigClient::new(channel)
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(MAX_MESSAGE)
}

/// Makes the tables equal to what a file says.
pub(crate) async fn replace(
    channel: Channel,
    wanted: Source,
    dry_run: bool,
    format: Format,
) -> Result<(), Failure> {
    let requests = requests(&wanted, dry_run)?;
    match client(channel).replace(tokio_stream::iter(requests)).await {
        Ok(response) => changed(response.get_ref(), dry_run, format),
        Err(status) => Err(refused(status, &wanted)),
    }
}

/// Programs what a file says anew.
pub(crate) async fn resync(
    channel: Channel,
    wanted: Source,
    begin: v1::ResyncBegin,
    format: Format,
) -> Result<(), Failure> {
    use v1::resync_request::Step;
    let dry_run = begin.dry_run;
    let objects = requests(&wanted, dry_run)?.into_iter().map(Step::Objects);
    let steps = [Step::Begin(begin)]
        .into_iter()
        .chain(objects)
        .chain([Step::End(true)]);
    let messages: Vec<_> = steps.map(|step| v1::ResyncRequest { step: Some(step) }).collect();
    match client(channel).resync(tokio_stream::iter(messages)).await {
        Ok(response) => changed(response.get_ref(), dry_run, format),
        Err(status) => Err(refused(status, &wanted)),
    }
}

/// A file as messages.
fn requests(wanted: &Source, dry_run: bool) -> Result<Vec<v1::ReplaceRequest>, Failure> {
    let Source { name, text, state } = wanted;
    state.clone().into_requests(dry_run).map_err(|mistake| {
        let at = place(name, text, &mistake.entry);
        Failure::Usage(format!("{at}: {}", mistake.text))
    })
}

/// Where in the file the entry stands that the data plane refused.
fn refused(status: tonic::Status, wanted: &Source) -> Failure {
    let Source { name, text, state } = wanted;
    let details = status.get_error_details();
    let violation = details.bad_request().and_then(|it| it.field_violations.first());
    match violation {
        Some(it) => {
            let at = place(name, text, &state.entry(&it.field));
            Failure::Entry(format!("{at}: {}; nothing was changed", it.description))
        }
        None => status.into(),
    }
}

/// "state.yaml:4713: endpoints[4711]"
fn place(name: &str, text: &str, entry: &str) -> String {
    match octoplane_state::line(text, entry) {
        Some(line) => format!("{name}:{line}: {entry}"),
        None => format!("{name}: {entry}"),
    }
}

pub(crate) async fn apply(channel: Channel, steps: Vec<Step>, format: Format) -> Result<(), Failure> {
    let changes = steps
        .into_iter()
        .map(|step| v1::Change { change: Some(step) })
        .collect();
    let request = v1::ApplyRequest {
        changes,
        ..Default::default()
    };
    let response = client(channel).apply(request).await?.into_inner();
    changed(&response, false, format)
}

/// Prints what a transaction changed.
fn changed(response: &v1::ApplyResponse, dry_run: bool, format: Format) -> Result<(), Failure> {
    if format != Format::Table {
        let events: Vec<_> = response.events.iter().map(show::event_value).collect();
        let value = serde_json::json!({
            "revision": response.revision, "dry_run": dry_run, "created": response.created,
            "modified": response.modified, "removed": response.removed, "changes": events,
        });
        return print(&value, format);
    }
    for event in &response.events {
        write(&format!("{}\n", show::event_line(event)));
    }
    let changes = response.created + response.modified + response.removed;
    let verb = if dry_run { "would change" } else { "changed" };
    match changes {
        0 => write(&format!("no changes, revision {}\n", response.revision)),
        _ => write(&format!(
            "{changes} object{} {verb} ({} new, {} different, {} gone), revision {}\n",
            if changes == 1 { "" } else { "s" },
            response.created,
            response.modified,
            response.removed,
            response.revision
        )),
    }
    Ok(())
}

pub(crate) async fn collect<T>(
    mut stream: Streaming<v1::Objects>,
    take: fn(v1::Objects) -> Vec<T>,
) -> Result<Vec<T>, Failure> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.next().await {
        all.extend(take(chunk?));
    }
    Ok(all)
}

async fn endpoints(client: &mut ConfigClient<Channel>) -> Result<Vec<Endpoint>, Failure> {
    let stream = client.list_endpoints(v1::ListRequest {}).await?.into_inner();
    Ok(collect(stream, |chunk| chunk.endpoints)
        .await?
        .into_iter()
        .map(Into::into)
        .collect())
}

async fn routes(client: &mut ConfigClient<Channel>) -> Result<Vec<Route>, Failure> {
    let stream = client.list_routes(v1::ListRequest {}).await?.into_inner();
    Ok(collect(stream, |chunk| chunk.routes)
        .await?
        .into_iter()
        .map(Into::into)
        .collect())
}

async fn neighbours(client: &mut ConfigClient<Channel>) -> Result<Vec<Neighbour>, Failure> {
    let stream = client.list_neighbours(v1::ListRequest {}).await?.into_inner();
    Ok(collect(stream, |chunk| chunk.neighbours)
        .await?
        .into_iter()
        .map(Into::into)
        .collect())
}

async fn ports(client: &mut ConfigClient<Channel>) -> Result<Vec<Port>, Failure> {
    let stream = client.list_ports(v1::ListRequest {}).await?.into_inner();
    Ok(collect(stream, |chunk| chunk.ports)
        .await?
        .into_iter()
        .map(Into::into)
        .collect())
}

pub(crate) async fn endpoint(channel: Channel, verb: EndpointVerb, format: Format) -> Result<(), Failure> {
    match verb {
        EndpointVerb::Add(it) => {
            let endpoint = v1::Endpoint {
                id: it.id,
                name: it.name,
                port: it.port,
                mac: it.mac,
                identity: it.identity,
                addresses: it.addresses,
                ingress_rate: it.ingress_rate,
                egress_rate: it.egress_rate,
            };
            apply(channel, vec![Step::PutEndpoint(endpoint)], format).await
        }
        EndpointVerb::Del { ids } => {
            apply(
                channel,
                ids.into_iter().map(Step::RemoveEndpoint).collect(),
                format,
            )
            .await
        }
        EndpointVerb::List => print_endpoints(&endpoints(&mut client(channel)).await?, format),
        EndpointVerb::Get { id } => {
            let endpoint = client(channel)
                .get_endpoint(v1::GetEndpointRequest { id })
                .await?
                .into_inner();
            let endpoint = Endpoint::from(endpoint);
            if format == Format::Table {
                print_endpoints(&[endpoint], format)
            } else {
                print(&endpoint, format)
            }
        }
    }
}

fn print_endpoints(endpoints: &[Endpoint], format: Format) -> Result<(), Failure> {
    if format != Format::Table {
        return print(&endpoints, format);
    }
    let rows: Vec<_> = endpoints
        .iter()
        .map(|it| {
            [
                it.id.to_string(),
                it.name.clone(),
                it.port.clone(),
                it.mac.clone(),
                it.identity.to_string(),
                it.addresses.join(" "),
            ]
        })
        .collect();
    table(["id", "name", "port", "mac", "identity", "addresses"], &rows);
    Ok(())
}

pub(crate) async fn route(channel: Channel, verb: RouteVerb, format: Format) -> Result<(), Failure> {
    match verb {
        RouteVerb::Add(it) => apply(channel, vec![Step::PutRoute(route_message(it))], format).await,
        RouteVerb::Del { prefixes } => {
            apply(
                channel,
                prefixes.into_iter().map(Step::RemoveRoute).collect(),
                format,
            )
            .await
        }
        RouteVerb::List => {
            let routes = routes(&mut client(channel)).await?;
            if format != Format::Table {
                return print(&routes, format);
            }
            let rows: Vec<_> = routes
                .iter()
                .map(|it| {
                    [
                        it.prefix.clone(),
                        show::route_target(it),
                        it.port.clone().unwrap_or_else(|| "-".into()),
                        it.mtu.map_or_else(|| "-".into(), |mtu| mtu.to_string()),
                    ]
                })
                .collect();
            table(["prefix", "to", "port", "mtu"], &rows);
            Ok(())
        }
    }
}

fn route_message(it: RouteArguments) -> v1::Route {
    use v1::route::{Target, Via};
    let target = if it.host {
        Target::Host(true)
    } else if it.blackhole {
        Target::Blackhole(true)
    } else {
        Target::Via(Via {
            port: it.port.unwrap_or_default(),
            gateway: it.via.unwrap_or_default(),
        })
    };
    v1::Route {
        prefix: it.prefix,
        target: Some(target),
        mtu: it.mtu.unwrap_or(0).into(),
    }
}

pub(crate) async fn neighbour(channel: Channel, verb: NeighVerb, format: Format) -> Result<(), Failure> {
    match verb {
        NeighVerb::Add { address, port, mac } => {
            let neighbour = v1::Neighbour {
                port,
                address,
                mac,
                learned: false,
            };
            apply(channel, vec![Step::PutNeighbour(neighbour)], format).await
        }
        NeighVerb::Del { address, port } => {
            let neighbour = v1::Neighbour {
                port,
                address,
                ..Default::default()
            };
            apply(channel, vec![Step::RemoveNeighbour(neighbour)], format).await
        }
        NeighVerb::List => {
            let neighbours = neighbours(&mut client(channel)).await?;
            if format != Format::Table {
                return print(&neighbours, format);
            }
            let rows: Vec<_> = neighbours
                .iter()
                .map(|it| {
                    let origin = if it.learned { "learned" } else { "static" };
                    [it.port.clone(), it.address.clone(), it.mac.clone(), origin.into()]
                })
                .collect();
            table(["port", "address", "mac", "origin"], &rows);
            Ok(())
        }
    }
}

pub(crate) async fn port(channel: Channel, verb: PortVerb, format: Format) -> Result<(), Failure> {
    match verb {
        PortVerb::Add(it) => add_port(channel, it, format).await,
        PortVerb::Del { name } => remove_port(channel, name, format).await,
        PortVerb::Set { name, mtu, admin } => {
            let port = v1::Port {
                name,
                mtu: mtu.unwrap_or(0).into(),
                admin_up: admin.map(|admin| admin == Admin::Up),
                ..Default::default()
            };
            apply(channel, vec![Step::SetPort(port)], format).await
        }
        PortVerb::Stats { names, xstats } => show::port_stats(channel, names, xstats, format).await,
        PortVerb::List => {
            let ports = ports(&mut client(channel)).await?;
            if format != Format::Table {
                return print(&ports, format);
            }
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let rows: Vec<_> = ports
                .iter()
                .map(|it| {
                    [
                        it.name.clone(),
                        text(&it.role),
                        text(&it.admin),
                        text(&it.mac),
                        it.mtu.unwrap_or(0).to_string(),
                        it.addresses.join(" "),
                    ]
                })
                .collect();
            table(["name", "role", "admin", "mac", "mtu", "addresses"], &rows);
            Ok(())
        }
    }
}

async fn add_port(channel: Channel, it: PortArguments, format: Format) -> Result<(), Failure> {
    let request = v1::AddPortRequest {
        name: it.name,
        role: v1::Role::from(it.role).into(),
        device: it.device,
        rx_queues: it.rx_queues,
        tx_queues: it.tx_queues,
        rx_descriptors: it.rx_descriptors,
        tx_descriptors: it.tx_descriptors,
        mtu: it.mtu,
        mac: it.mac,
        addresses: it.addresses,
        promiscuous: it.promiscuous,
    };
    let response = client(channel).add_port(request).await?.into_inner();
    let v1::AddPortResponse {
        port,
        existed,
        revision,
    } = response;
    let port = Port::from(port.unwrap_or_default());
    if format != Format::Table {
        let value = serde_json::json!({"port": port, "existed": existed, "revision": revision});
        return print(&value, format);
    }
    let (name, mtu) = (&port.name, port.mtu.unwrap_or(0));
    if existed {
        write(&format!("port {name} is there already, revision {revision}\n"));
    } else {
        write(&format!("+ port {name} mtu {mtu}, revision {revision}\n"));
    }
    Ok(())
}

async fn remove_port(channel: Channel, name: String, format: Format) -> Result<(), Failure> {
    let request = v1::RemovePortRequest { name: name.clone() };
    let revision = client(channel).remove_port(request).await?.into_inner().revision;
    if format != Format::Table {
        return print(&serde_json::json!({"name": name, "revision": revision}), format);
    }
    write(&format!("- port {name}, revision {revision}\n"));
    Ok(())
}

/// Prints the tables in the form that [`replace`] reads.
pub(crate) async fn export(channel: Channel, format: Format) -> Result<(), Failure> {
    let mut client = client(channel);
    let ports = ports(&mut client).await?.into_iter().map(|port| Port {
        role: None,
        mac: None,
        addresses: Vec::new(),
        ..port
    });
    let state = State {
        ports: ports.collect(),
        endpoints: endpoints(&mut client).await?,
        routes: routes(&mut client).await?,
        neighbours: neighbours(&mut client)
            .await?
            .into_iter()
            .filter(|it| !it.learned)
            .collect(),
        node: objects::exported_node(&mut client).await?,
        ipcache: objects::ipcache_entries(&mut client).await?,
        services: objects::services(&mut client).await?,
        policies: objects::policies(&mut client).await?,
        egress_gateways: objects::egress_gateways(&mut client).await?,
        authentications: crate::authentication::all(&mut client).await?,
    };
    print(
        &state,
        if format == Format::Table {
            Format::Yaml
        } else {
            format
        },
    )
}
