//! The service `Config`.

use std::sync::Arc;

use octoplane_api::v1;
use octoplane_tables::{SharedStore, State};
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status, Streaming};

use crate::convert;
use crate::dataplane::Dataplane;
use crate::history::History;
use crate::list::{self, ListStream};
use crate::ports;
use crate::refusal::{alone, clip};
use crate::resync::{self, Resyncs, append};
use crate::transact::{Mode, check_size, transact};
use crate::watch::{self, EventStream};

/// Objects of a kind of which one may be large, in one message.
const LARGE: usize = 64;

pub(crate) struct ConfigService<D> {
    dataplane: Arc<D>,
    store: SharedStore,
    history: Arc<History>,
    resyncs: Arc<Resyncs>,
    ports: ports::Changing,
}

impl<D: Dataplane> ConfigService<D> {
    /// Those who watch are told from `history`, which is that of the data plane's tables.
    pub(crate) fn new(dataplane: Arc<D>, history: Arc<History>) -> Self {
        let store = dataplane.store().clone();
        Self {
            dataplane,
            store,
            history,
            resyncs: Arc::default(),
            ports: ports::Changing::default(),
        }
    }

    async fn state(&self) -> Result<State, Status> {
        state(&self.store).await
    }
}

/// A consistent copy of the state. Taken off the runtime's threads: a large transaction holds the store for a while.
pub(crate) async fn state(store: &SharedStore) -> Result<State, Status> {
    let store = store.clone();
    tokio::task::spawn_blocking(move || store.state())
        .await
        .map_err(|_| Status::internal("the state could not be read"))
}

fn mode(request: &v1::ApplyRequest) -> Mode {
    Mode {
        dry_run: request.dry_run,
        expected_revision: request.expected_revision,
        omit_events: request.omit_events,
    }
}

#[tonic::async_trait]
impl<D: Dataplane> v1::config_server::Config for ConfigService<D> {
    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Result<Response<v1::ApplyResponse>, Status> {
        let request = request.into_inner();
        let mode = mode(&request);
        transact(&self.store, mode, move |state| {
            convert::steps(state, request.changes)
        })
        .await
        .map(Response::new)
    }

    async fn apply_stream(
        &self,
        request: Request<Streaming<v1::ApplyRequest>>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let mut stream = request.into_inner();
        let mut first = None;
        let mut changes = Vec::new();
        while let Some(part) = stream.next().await {
            let part = part?;
            first.get_or_insert_with(|| mode(&part));
            changes.extend(part.changes);
            check_size(changes.len())?;
        }
        transact(&self.store, first.unwrap_or_default(), move |state| {
            convert::steps(state, changes)
        })
        .await
        .map(Response::new)
    }

    async fn replace(
        &self,
        request: Request<Streaming<v1::ReplaceRequest>>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let mut stream = request.into_inner();
        let mut first = None;
        let mut all = v1::ReplaceRequest::default();
        while let Some(part) = stream.next().await {
            let part = part?;
            first.get_or_insert(Mode {
                dry_run: part.dry_run,
                omit_events: part.omit_events,
                expected_revision: None,
            });
            append(&mut all, part);
            check_size(convert::size(&all))?;
        }
        transact(&self.store, first.unwrap_or_default(), move |state| {
            convert::changes(state, all)
        })
        .await
        .map(Response::new)
    }

    async fn resync(
        &self,
        request: Request<Streaming<v1::ResyncRequest>>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        resync::resync(&self.resyncs, &self.store, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn add_port(
        &self,
        request: Request<v1::AddPortRequest>,
    ) -> Result<Response<v1::AddPortResponse>, Status> {
        ports::add(
            Arc::clone(&self.dataplane),
            Arc::clone(&self.ports),
            request.into_inner(),
        )
        .await
        .map(Response::new)
    }

    async fn remove_port(
        &self,
        request: Request<v1::RemovePortRequest>,
    ) -> Result<Response<v1::RemovePortResponse>, Status> {
        ports::remove(
            Arc::clone(&self.dataplane),
            Arc::clone(&self.ports),
            request.into_inner(),
        )
        .await
        .map(Response::new)
    }

    type ListEndpointsStream = ListStream;

    async fn list_endpoints(&self, _: Request<v1::ListRequest>) -> Result<Response<ListStream>, Status> {
        Ok(Response::new(list::send(
            self.state().await?,
            |state| state.endpoints().map(|it| it.id).collect(),
            |state, ids, message| {
                let endpoints = ids.iter().filter_map(|id| state.endpoint(*id));
                message.endpoints = endpoints
                    .map(|it| convert::endpoint_message(state.port_set(), it))
                    .collect();
            },
        )))
    }

    type ListRoutesStream = ListStream;

    async fn list_routes(&self, _: Request<v1::ListRequest>) -> Result<Response<ListStream>, Status> {
        Ok(Response::new(list::send(
            self.state().await?,
            |state| state.routes().map(|it| it.prefix).collect(),
            |state, prefixes, message| {
                let routes = prefixes.iter().filter_map(|prefix| state.route(prefix));
                message.routes = routes
                    .map(|it| convert::route_message(state.port_set(), it))
                    .collect();
            },
        )))
    }

    type ListNeighboursStream = ListStream;

    async fn list_neighbours(&self, _: Request<v1::ListRequest>) -> Result<Response<ListStream>, Status> {
        Ok(Response::new(list::send(
            self.state().await?,
            |state| state.neighbours().map(|it| (it.port, it.addr)).collect(),
            |state, stations, message| {
                let neighbours = stations
                    .iter()
                    .filter_map(|(port, addr)| state.neighbour(*port, *addr));
                message.neighbours = neighbours
                    .map(|it| convert::neighbour_message(state.port_set(), it))
                    .collect();
            },
        )))
    }

    type ListPortsStream = ListStream;

    async fn list_ports(&self, _: Request<v1::ListRequest>) -> Result<Response<ListStream>, Status> {
        Ok(Response::new(list::send(
            self.state().await?,
            |state| state.ports().map(|it| it.id).collect(),
            |state, ids, message| {
                let ports = ids.iter().filter_map(|id| state.port(*id));
                message.ports = ports.map(convert::port_message).collect();
            },
        )))
    }

    async fn get_endpoint(
        &self,
        request: Request<v1::GetEndpointRequest>,
    ) -> Result<Response<v1::Endpoint>, Status> {
        let id = request.into_inner().id;
        let state = self.state().await?;
        let endpoint = state
            .endpoint(id)
            .ok_or_else(|| Status::not_found(format!("endpoint {id}: not found")))?;
        Ok(Response::new(convert::endpoint_message(
            state.port_set(),
            endpoint,
        )))
    }

    type ListIpcacheStream = ListStream;

    async fn list_ipcache(&self, _: Request<v1::ListRequest>) -> Result<Response<ListStream>, Status> {
        Ok(Response::new(list::send(
            self.state().await?,
            |state| state.ipcache().map(|it| it.prefix).collect(),
            |state, prefixes, message| {
                let entries = prefixes.iter().filter_map(|prefix| state.ipcache_entry(prefix));
                message.ipcache = entries.map(|it| convert::ipcache_message(&it)).collect();
            },
        )))
    }

    type ListServicesStream = ListStream;

    async fn list_services(&self, _: Request<v1::ListRequest>) -> Result<Response<ListStream>, Status> {
        Ok(Response::new(list::send_in(
            LARGE,
            self.state().await?,
            |state| state.services().map(|it| it.name.clone()).collect(),
            |state, names, message| {
                let services = names.iter().filter_map(|name| state.service(name));
                message.services = services.map(convert::service_message).collect();
            },
        )))
    }

    type ListPoliciesStream = ListStream;

    async fn list_policies(&self, _: Request<v1::ListRequest>) -> Result<Response<ListStream>, Status> {
        Ok(Response::new(list::send_in(
            LARGE,
            self.state().await?,
            |state| state.policies().map(|it| it.endpoint).collect(),
            |state, endpoints, message| {
                let policies = endpoints.iter().filter_map(|endpoint| state.policy(*endpoint));
                message.policies = policies.map(convert::policy_message).collect();
            },
        )))
    }

    type ListEgressGatewaysStream = ListStream;

    async fn list_egress_gateways(
        &self,
        _: Request<v1::ListRequest>,
    ) -> Result<Response<ListStream>, Status> {
        Ok(Response::new(list::send(
            self.state().await?,
            |state| state.egress_gateways().map(|it| it.key).collect(),
            |state, keys, message| {
                let rules = keys.iter().filter_map(|key| state.egress_gateway(key));
                message.egress_gateways = rules.map(convert::egress_gateway_message).collect();
            },
        )))
    }

    type ListAuthenticationsStream = ListStream;

    async fn list_authentications(
        &self,
        _: Request<v1::ListRequest>,
    ) -> Result<Response<ListStream>, Status> {
        Ok(Response::new(list::send(
            self.state().await?,
            |state| state.authentications().map(|it| it.key).collect(),
            |state, keys, message| {
                let all = keys.iter().filter_map(|key| state.authentication(key));
                message.authentications = all.map(convert::authentication_message).collect();
            },
        )))
    }

    async fn get_node(&self, _: Request<v1::GetNodeRequest>) -> Result<Response<v1::Node>, Status> {
        Ok(Response::new(convert::node_message(self.state().await?.node())))
    }

    async fn get_ipcache(
        &self,
        request: Request<v1::GetIpcacheRequest>,
    ) -> Result<Response<v1::Ipcache>, Status> {
        let prefix = convert::ipcache_prefix(&request.get_ref().prefix)
            .map_err(|mistake| alone(&mistake, "prefix"))?;
        let entry = self.state().await?.ipcache_entry(&prefix);
        let entry = entry.ok_or_else(|| Status::not_found(format!("ipcache {prefix}: not found")))?;
        Ok(Response::new(convert::ipcache_message(&entry)))
    }

    async fn get_service(
        &self,
        request: Request<v1::GetServiceRequest>,
    ) -> Result<Response<v1::Service>, Status> {
        let name = &request.get_ref().name;
        let state = self.state().await?;
        let service = state
            .service(name)
            .ok_or_else(|| Status::not_found(format!("service \"{}\": not found", clip(name))))?;
        Ok(Response::new(convert::service_message(service)))
    }

    async fn get_policy(
        &self,
        request: Request<v1::GetPolicyRequest>,
    ) -> Result<Response<v1::Policy>, Status> {
        let endpoint = request.get_ref().endpoint;
        let state = self.state().await?;
        let policy = state
            .policy(endpoint)
            .ok_or_else(|| Status::not_found(format!("{}: not found", convert::policy_name(endpoint))))?;
        Ok(Response::new(convert::policy_message(policy)))
    }

    async fn get_egress_gateway(
        &self,
        request: Request<v1::GetEgressGatewayRequest>,
    ) -> Result<Response<v1::EgressGateway>, Status> {
        let v1::GetEgressGatewayRequest { source, destination } = request.get_ref();
        let key = convert::egress_key(source, destination)
            .map_err(|mistake| alone(&mistake, "source, destination"))?;
        let state = self.state().await?;
        let rule = state.egress_gateway(&key).ok_or_else(|| {
            Status::not_found(format!("egress gateway {source} to {destination}: not found"))
        })?;
        Ok(Response::new(convert::egress_gateway_message(rule)))
    }

    type WatchStream = EventStream;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<EventStream>, Status> {
        let state = self.state().await?;
        self.history.settled(state.revision()).await?;
        watch::start(Arc::clone(&self.history), state, request.get_ref()).map(Response::new)
    }
}
