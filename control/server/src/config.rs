//! The service `Config`.

use std::collections::HashSet;
use std::sync::Arc;

use octoplane_api::{CHUNK, v1};
use octoplane_tables::model::{Change, Origin};
use octoplane_tables::{ApplyError, Committed, ErrorKind, SharedStore, State};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::convert;
use crate::watch::Watchers;

/// Chunks of a list that wait for a slow reader; the list itself is not copied before they are read.
const LIST_AHEAD: usize = 2;

/// Most changes of one transaction: what is collected before it is applied is bounded.
const MAX_CHANGES: usize = 4_000_000;

pub(crate) struct ConfigService {
    store: SharedStore,
    watchers: Arc<Watchers>,
}

impl ConfigService {
    pub(crate) fn new(store: SharedStore, watchers: Arc<Watchers>) -> Self {
        Self { store, watchers }
    }

    /// Applies a transaction off the runtime's threads: a large one takes a while.
    async fn transact(
        &self,
        dry_run: bool,
        expected: Option<u64>,
        make: impl FnOnce(&State) -> Result<Transaction, Status> + Send + 'static,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let store = self.store.clone();
        let run = move || {
            let mut refused = None;
            let mut origins = Vec::new();
            let guarded = |state: &State| {
                let transaction = match expected {
                    Some(expected) if expected != state.revision() => Err(Status::aborted(format!(
                        "expected_revision is {expected}, the tables are at {}",
                        state.revision()
                    ))),
                    _ => make(state),
                };
                transaction.map(|transaction| {
                    origins = transaction.origins;
                    transaction.changes
                })
            };
            let result = if dry_run {
                let changes = guarded(&store.state())?;
                store.check(changes)
            } else {
                store.update(|state| {
                    guarded(state).unwrap_or_else(|status| {
                        refused = Some(status);
                        Vec::new()
                    })
                })
            };
            match refused {
                Some(status) => Err(status),
                None => result
                    .map(|committed| response(&store.state(), &committed))
                    .map_err(|error| status(&error, &origins)),
            }
        };
        tokio::task::spawn_blocking(run)
            .await
            .unwrap_or_else(|_| Err(Status::internal("the transaction was given up")))
            .map(Response::new)
    }

    /// Sends a list in chunks; stops when the reader goes away.
    fn list<T: Send + 'static>(
        &self,
        objects: impl FnOnce(&State) -> Vec<T>,
        fill: fn(&mut v1::Objects, Vec<T>),
    ) -> ListStream {
        let state = self.store.state();
        let mut objects = objects(&state).into_iter();
        let revision = state.revision();
        let (sender, receiver) = tokio::sync::mpsc::channel(LIST_AHEAD);
        tokio::spawn(async move {
            loop {
                let chunk: Vec<T> = objects.by_ref().take(CHUNK).collect();
                let last = chunk.len() < CHUNK;
                let mut message = v1::Objects {
                    revision,
                    ..Default::default()
                };
                fill(&mut message, chunk);
                if sender.send(Ok(message)).await.is_err() || last {
                    break;
                }
            }
        });
        ReceiverStream::new(receiver)
    }
}

type ListStream = ReceiverStream<Result<v1::Objects, Status>>;

fn response(state: &State, committed: &Committed) -> v1::ApplyResponse {
    v1::ApplyResponse {
        revision: committed.revision,
        events: committed
            .events
            .iter()
            .map(|event| convert::event_message(state, event))
            .collect(),
    }
}

/// A transaction in the tables' terms.
struct Transaction {
    changes: Vec<Change>,
    /// Where in the request each change comes from: list and position.
    origins: Vec<(&'static str, usize)>,
}

fn status(error: &ApplyError, origins: &[(&'static str, usize)]) -> Status {
    let message = match origins.get(error.index) {
        Some((list, index)) => format!("{list}[{index}]: {}", error.error),
        None => error.to_string(),
    };
    match error.error.kind() {
        ErrorKind::Invalid => Status::invalid_argument(message),
        ErrorKind::NotFound => Status::not_found(message),
        ErrorKind::Conflict => Status::already_exists(message),
        ErrorKind::Full => Status::resource_exhausted(message),
    }
}

/// Names the position of a part that could not be read.
fn at(list: &str, index: usize, status: &Status) -> Status {
    Status::new(status.code(), format!("{list}[{index}]: {}", status.message()))
}

fn convert_changes(state: &State, changes: Vec<v1::Change>) -> Result<Transaction, Status> {
    let convert =
        |(index, change)| convert::change(state, change).map_err(|status| at("changes", index, &status));
    let origins = (0..changes.len()).map(|index| ("changes", index)).collect();
    let changes = changes
        .into_iter()
        .enumerate()
        .map(convert)
        .collect::<Result<_, _>>()?;
    Ok(Transaction { changes, origins })
}

/// What turns `state` into the wanted state.
fn replace_changes(state: &State, wanted: v1::ReplaceRequest) -> Result<Transaction, Status> {
    let mut puts = Vec::new();
    let mut endpoints = HashSet::new();
    let mut routes = HashSet::new();
    let mut neighbours = HashSet::new();
    for (index, message) in wanted.endpoints.into_iter().enumerate() {
        let endpoint = convert::endpoint(state, message).map_err(|status| at("endpoints", index, &status))?;
        if !endpoints.insert(endpoint.id) {
            let twice = format!("endpoint {}: id is given twice", endpoint.id);
            return Err(at("endpoints", index, &Status::invalid_argument(twice)));
        }
        puts.push((("endpoints", index), Change::PutEndpoint(endpoint)));
    }
    for (index, message) in wanted.routes.into_iter().enumerate() {
        let route = convert::route(state, message).map_err(|status| at("routes", index, &status))?;
        if !routes.insert(route.prefix) {
            let twice = format!("route {}: prefix is given twice", route.prefix);
            return Err(at("routes", index, &Status::invalid_argument(twice)));
        }
        puts.push((("routes", index), Change::PutRoute(route)));
    }
    for (index, message) in wanted.neighbours.iter().enumerate() {
        let neighbour =
            convert::neighbour(state, message).map_err(|status| at("neighbours", index, &status))?;
        if !neighbours.insert((neighbour.port, neighbour.addr)) {
            let twice = format!("neighbour {}: address is given twice", neighbour.addr);
            return Err(at("neighbours", index, &Status::invalid_argument(twice)));
        }
        puts.push((("neighbours", index), Change::PutNeighbour(neighbour)));
    }
    for (index, message) in wanted.ports.iter().enumerate() {
        let change = convert::set_port(state, message).map_err(|status| at("ports", index, &status))?;
        puts.push((("ports", index), change));
    }
    // What goes, goes first: an address may move from one endpoint to another.
    let mut changes: Vec<Change> = state
        .endpoints()
        .filter(|endpoint| !endpoints.contains(&endpoint.id))
        .map(|endpoint| Change::RemoveEndpoint { id: endpoint.id })
        .collect();
    changes.extend(
        state
            .routes()
            .filter(|route| !routes.contains(&route.prefix))
            .map(|route| Change::RemoveRoute { prefix: route.prefix }),
    );
    changes.extend(
        state
            .neighbours()
            .filter(|known| known.origin == Origin::Static && !neighbours.contains(&(known.port, known.addr)))
            .map(|known| Change::RemoveNeighbour {
                port: known.port,
                addr: known.addr,
            }),
    );
    // Endpoints that swap addresses would stand in each other's way: those that change are removed first.
    for (_, change) in &puts {
        if let Change::PutEndpoint(endpoint) = change
            && let Some(old) = state.endpoint(endpoint.id)
            && old.addresses != endpoint.addresses
        {
            changes.push(Change::RemoveEndpoint { id: old.id });
        }
    }
    let mut origins: Vec<_> = (0..changes.len()).map(|index| ("removed", index)).collect();
    for (origin, change) in puts {
        origins.push(origin);
        changes.push(change);
    }
    Ok(Transaction { changes, origins })
}

#[tonic::async_trait]
impl v1::config_server::Config for ConfigService {
    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Result<Response<v1::ApplyResponse>, Status> {
        let v1::ApplyRequest {
            changes,
            dry_run,
            expected_revision,
        } = request.into_inner();
        self.transact(dry_run, expected_revision, move |state| {
            convert_changes(state, changes)
        })
        .await
    }

    async fn apply_stream(
        &self,
        request: Request<Streaming<v1::ApplyRequest>>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let mut stream = request.into_inner();
        let mut all: Option<v1::ApplyRequest> = None;
        while let Some(part) = stream.next().await {
            let part = part?;
            match &mut all {
                Some(all) => all.changes.extend(part.changes),
                None => all = Some(part),
            }
            check_size(all.as_ref().map_or(0, |all| all.changes.len()))?;
        }
        let v1::ApplyRequest {
            changes,
            dry_run,
            expected_revision,
        } = all.unwrap_or_default();
        self.transact(dry_run, expected_revision, move |state| {
            convert_changes(state, changes)
        })
        .await
    }

    async fn replace(
        &self,
        request: Request<Streaming<v1::ReplaceRequest>>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let mut stream = request.into_inner();
        let mut all = v1::ReplaceRequest::default();
        while let Some(part) = stream.next().await {
            let part = part?;
            all.endpoints.extend(part.endpoints);
            all.routes.extend(part.routes);
            all.neighbours.extend(part.neighbours);
            all.ports.extend(part.ports);
            all.dry_run |= part.dry_run;
            check_size(all.endpoints.len() + all.routes.len() + all.neighbours.len() + all.ports.len())?;
        }
        self.transact(all.dry_run, None, move |state| replace_changes(state, all))
            .await
    }

    type ListEndpointsStream = ListStream;

    async fn list_endpoints(&self, _: Request<v1::ListRequest>) -> Result<Response<ListStream>, Status> {
        let all = |state: &State| {
            state
                .endpoints()
                .map(|it| convert::endpoint_message(state, it))
                .collect()
        };
        Ok(Response::new(
            self.list(all, |message, chunk| message.endpoints = chunk),
        ))
    }

    type ListRoutesStream = ListStream;

    async fn list_routes(&self, _: Request<v1::ListRequest>) -> Result<Response<ListStream>, Status> {
        let all = |state: &State| {
            state
                .routes()
                .map(|it| convert::route_message(state, it))
                .collect()
        };
        Ok(Response::new(
            self.list(all, |message, chunk| message.routes = chunk),
        ))
    }

    type ListNeighboursStream = ListStream;

    async fn list_neighbours(&self, _: Request<v1::ListRequest>) -> Result<Response<ListStream>, Status> {
        let all = |state: &State| {
            state
                .neighbours()
                .map(|it| convert::neighbour_message(state, it))
                .collect()
        };
        Ok(Response::new(
            self.list(all, |message, chunk| message.neighbours = chunk),
        ))
    }

    type ListPortsStream = ListStream;

    async fn list_ports(&self, _: Request<v1::ListRequest>) -> Result<Response<ListStream>, Status> {
        let all = |state: &State| state.ports().map(convert::port_message).collect();
        Ok(Response::new(
            self.list(all, |message, chunk| message.ports = chunk),
        ))
    }

    async fn get_endpoint(
        &self,
        request: Request<v1::GetEndpointRequest>,
    ) -> Result<Response<v1::Endpoint>, Status> {
        let id = request.into_inner().id;
        let state = self.store.state();
        let endpoint = state
            .endpoint(id)
            .ok_or_else(|| Status::not_found(format!("endpoint {id}: not found")))?;
        Ok(Response::new(convert::endpoint_message(&state, endpoint)))
    }

    type WatchStream = std::pin::Pin<Box<dyn Stream<Item = Result<v1::Event, Status>> + Send>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let initial = request.into_inner().initial_state;
        Ok(Response::new(Box::pin(self.watchers.watch(&self.store, initial))))
    }
}

fn check_size(objects: usize) -> Result<(), Status> {
    if objects > MAX_CHANGES {
        return Err(Status::resource_exhausted(format!(
            "the transaction is larger than {MAX_CHANGES} objects"
        )));
    }
    Ok(())
}
