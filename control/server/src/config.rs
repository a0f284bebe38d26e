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
use crate::replace;
use crate::transact::{Mode, check_size, steps, transact};
use crate::watch::{self, EventStream};

pub(crate) struct ConfigService<D> {
    dataplane: Arc<D>,
    store: SharedStore,
    history: Arc<History>,
}

impl<D: Dataplane> ConfigService<D> {
    /// Those who watch are told from `history`, which is that of the data plane's tables.
    pub(crate) fn new(dataplane: Arc<D>, history: Arc<History>) -> Self {
        let store = dataplane.store().clone();
        Self {
            dataplane,
            store,
            history,
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
        transact(&self.store, mode, move |state| steps(state, request.changes))
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
            steps(state, changes)
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
            all.endpoints.extend(part.endpoints);
            all.routes.extend(part.routes);
            all.neighbours.extend(part.neighbours);
            all.ports.extend(part.ports);
            check_size(all.endpoints.len() + all.routes.len() + all.neighbours.len() + all.ports.len())?;
        }
        transact(&self.store, first.unwrap_or_default(), move |state| {
            replace::changes(state, all)
        })
        .await
        .map(Response::new)
    }

    async fn add_port(
        &self,
        request: Request<v1::AddPortRequest>,
    ) -> Result<Response<v1::AddPortResponse>, Status> {
        ports::add(Arc::clone(&self.dataplane), request.into_inner())
            .await
            .map(Response::new)
    }

    async fn remove_port(
        &self,
        request: Request<v1::RemovePortRequest>,
    ) -> Result<Response<v1::RemovePortResponse>, Status> {
        ports::remove(Arc::clone(&self.dataplane), request.into_inner())
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

    type WatchStream = EventStream;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<EventStream>, Status> {
        let state = self.state().await?;
        watch::start(Arc::clone(&self.history), state, request.get_ref()).map(Response::new)
    }
}
