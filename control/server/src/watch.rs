//! Those who want to know what changes.

use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;

use octoplane_api::v1;
use octoplane_convert::Kinds;
use octoplane_tables::{Object, State};
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::convert;
use crate::history::{History, Next};

/// Events that are made before the reader takes them.
const AHEAD: usize = 256;

/// Events on their way.
pub(crate) type EventStream = ReceiverStream<Result<v1::Event, Status>>;

/// Whether a reader of these kinds wants an object.
fn wants(kinds: Kinds, object: &Object) -> bool {
    kinds.has(match object {
        Object::Endpoint(_) => v1::Kind::Endpoint,
        Object::Route(_) => v1::Kind::Route,
        Object::Neighbour(_) => v1::Kind::Neighbour,
        Object::Port(_) => v1::Kind::Port,
        Object::Node(_) => v1::Kind::Node,
        Object::Ipcache(_) => v1::Kind::Ipcache,
        Object::Service(_) => v1::Kind::Service,
        Object::Policy(_) => v1::Kind::Policy,
        Object::EgressGateway(_) => v1::Kind::EgressGateway,
        Object::Authentication(_) => v1::Kind::Authentication,
    })
}

/// Starts to tell one reader. `state` is the current state.
pub(crate) fn start(
    history: Arc<History>,
    state: State,
    request: &v1::WatchRequest,
) -> Result<EventStream, Status> {
    let kinds = Kinds::read(&request.kinds).map_err(Status::invalid_argument)?;
    let after = match request.from_revision {
        Some(_) if request.initial_state => {
            return Err(Status::invalid_argument(
                "from_revision and initial_state exclude each other",
            ));
        }
        Some(revision) => {
            match history.next(revision) {
                Next::Transaction(_) | Next::Latest => {}
                Next::Closed => return Err(stopping()),
                Next::Forgotten(oldest) => {
                    return Err(Status::out_of_range(format!(
                        "from_revision: what followed {revision} is remembered no more, only from {oldest} on: ask for \
                         the initial state"
                    )));
                }
                Next::Ahead(latest) => {
                    return Err(Status::out_of_range(format!(
                        "from_revision: {revision} was not reached yet, the tables are at revision {latest}: ask for the \
                         initial state"
                    )));
                }
            }
            revision
        }
        None => state.revision(),
    };
    let (sender, receiver) = channel(AHEAD);
    let initial = request.initial_state;
    let watcher = Watcher {
        history,
        sender,
        kinds,
        state,
        after,
    };
    tokio::spawn(watcher.run(initial));
    Ok(ReceiverStream::new(receiver))
}

fn stopping() -> Status {
    Status::unavailable("the daemon stops")
}

struct Watcher {
    history: Arc<History>,
    sender: Sender<Result<v1::Event, Status>>,
    kinds: Kinds,
    /// Where it started.
    state: State,
    /// The last revision whose events are being sent or were.
    after: u64,
}

impl Watcher {
    async fn run(mut self, initial: bool) {
        // The last word has a place of its own, so that a reader who has stopped reading is given up at once.
        let Ok(last) = self.sender.clone().reserve_owned().await else {
            return;
        };
        let end = match if initial {
            self.initial().await
        } else {
            Continue(())
        } {
            Continue(()) => self.follow().await,
            Break(end) => end,
        };
        if let Some(status) = end {
            last.send(Err(status));
        }
    }

    /// Sends what is there.
    async fn initial(&self) -> ControlFlow<Option<Status>> {
        use v1::event::Object::{
            Authentication, EgressGateway, Endpoint, Ipcache, Neighbour, Node, Policy, Port, Route, Service,
        };
        let state = self.state.clone();
        let put = |object| v1::Event {
            revision: state.revision(),
            object: Some(object),
            ..Default::default()
        };
        if self.kinds.has(v1::Kind::Port) {
            for it in state.ports() {
                self.send(put(Port(convert::port_message(it)))).await?;
            }
        }
        if self.kinds.has(v1::Kind::Endpoint) {
            let ids: Vec<u32> = state.endpoints().map(|it| it.id).collect();
            for it in ids.iter().filter_map(|id| state.endpoint(*id)) {
                self.send(put(Endpoint(convert::endpoint_message(state.port_set(), it))))
                    .await?;
            }
        }
        if self.kinds.has(v1::Kind::Route) {
            let prefixes: Vec<_> = state.routes().map(|it| it.prefix).collect();
            for it in prefixes.iter().filter_map(|prefix| state.route(prefix)) {
                self.send(put(Route(convert::route_message(state.port_set(), it))))
                    .await?;
            }
        }
        if self.kinds.has(v1::Kind::Neighbour) {
            let stations: Vec<_> = state.neighbours().map(|it| (it.port, it.addr)).collect();
            for it in stations
                .iter()
                .filter_map(|(port, addr)| state.neighbour(*port, *addr))
            {
                self.send(put(Neighbour(convert::neighbour_message(state.port_set(), it))))
                    .await?;
            }
        }
        if self.kinds.has(v1::Kind::Node) && state.has_node() {
            self.send(put(Node(convert::node_message(state.node())))).await?;
        }
        if self.kinds.has(v1::Kind::Ipcache) {
            let prefixes: Vec<_> = state.ipcache().map(|it| it.prefix).collect();
            for it in prefixes.iter().filter_map(|prefix| state.ipcache_entry(prefix)) {
                self.send(put(Ipcache(convert::ipcache_message(&it)))).await?;
            }
        }
        if self.kinds.has(v1::Kind::Service) {
            let names: Vec<_> = state.services().map(|it| it.name.clone()).collect();
            for it in names.iter().filter_map(|name| state.service(name)) {
                self.send(put(Service(convert::service_message(it)))).await?;
            }
        }
        if self.kinds.has(v1::Kind::Policy) {
            let endpoints: Vec<_> = state.policies().map(|it| it.endpoint).collect();
            for it in endpoints.iter().filter_map(|endpoint| state.policy(*endpoint)) {
                self.send(put(Policy(convert::policy_message(it)))).await?;
            }
        }
        if self.kinds.has(v1::Kind::EgressGateway) {
            let keys: Vec<_> = state.egress_gateways().map(|it| it.key).collect();
            for it in keys.iter().filter_map(|key| state.egress_gateway(key)) {
                self.send(put(EgressGateway(convert::egress_gateway_message(it))))
                    .await?;
            }
        }
        if self.kinds.has(v1::Kind::Authentication) {
            let keys: Vec<_> = state.authentications().map(|it| it.key).collect();
            for it in keys.iter().filter_map(|key| state.authentication(key)) {
                self.send(put(Authentication(convert::authentication_message(it))))
                    .await?;
            }
        }
        self.send(v1::Event {
            revision: state.revision(),
            initial_state_end: true,
            ..Default::default()
        })
        .await
    }

    /// Sends what changes, until the reader goes away or falls behind.
    async fn follow(&mut self) -> Option<Status> {
        let mut changes = self.history.changes();
        loop {
            changes.borrow_and_update();
            match self.history.next(self.after) {
                Next::Transaction(committed) => {
                    self.after = committed.revision;
                    for event in committed.events.iter().filter(|it| wants(self.kinds, &it.object)) {
                        let message = convert::event_message(&committed.ports, event);
                        if let Break(end) = self.send(message).await {
                            return end;
                        }
                    }
                }
                Next::Latest => tokio::select! {
                    result = changes.changed() => result.ok()?,
                    () = self.sender.closed() => return None,
                },
                Next::Forgotten(oldest) => return Some(self.behind(oldest)),
                Next::Ahead(_) => return Some(Status::internal("the revision went backwards")),
                Next::Closed => return Some(stopping()),
            }
        }
    }

    /// Sends one event. Ends the watch if the reader goes away, or lets the history run over while it is waited for.
    async fn send(&self, event: v1::Event) -> ControlFlow<Option<Status>> {
        use tokio::sync::mpsc::error::TrySendError::{Closed, Full};
        let event = match self.sender.try_send(Ok(event)) {
            Ok(()) => return Continue(()),
            Err(Closed(_)) => return Break(None),
            Err(Full(event)) => event,
        };
        tokio::select! {
            result = self.sender.send(event) => result.map_or(Break(None), Continue),
            status = self.overrun() => Break(status),
        }
    }

    /// Waits until what follows the last revision is forgotten, or the server stops.
    async fn overrun(&self) -> Option<Status> {
        let mut changes = self.history.changes();
        loop {
            changes.borrow_and_update();
            match self.history.next(self.after) {
                Next::Forgotten(oldest) => return Some(self.behind(oldest)),
                Next::Closed => return Some(stopping()),
                Next::Transaction(_) | Next::Latest | Next::Ahead(_) => {}
            }
            changes.changed().await.ok()?;
        }
    }

    fn behind(&self, oldest: u64) -> Status {
        Status::resource_exhausted(format!(
            "this reader is too slow: it is at revision {}, only what follows {oldest} is remembered: start over with the \
             initial state",
            self.after
        ))
    }
}
