//! Transactions: from a request to the tables and back.

use octoplane_api::v1;
use octoplane_convert::{Located, Transaction};
use octoplane_tables::{Committed, Event, Object, SharedStore, State};
use tonic::Status;

use crate::convert;
use crate::refusal::{located, refused};

/// Most objects of one transaction: what is collected before it is applied is bounded.
const MAX_OBJECTS: usize = 4_000_000;

/// What the client said about the transaction as a whole.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mode {
    pub(crate) dry_run: bool,
    pub(crate) expected_revision: Option<u64>,
    pub(crate) omit_events: bool,
}

/// Makes a transaction out of the current state, with no other in between, and applies it or checks it. Runs off the
/// runtime's threads: a large one takes a while.
pub(crate) async fn transact(
    store: &SharedStore,
    mode: Mode,
    make: impl FnOnce(&State) -> Result<Transaction, Located> + Send + 'static,
) -> Result<v1::ApplyResponse, Status> {
    let store = store.clone();
    tokio::task::spawn_blocking(move || run(&store, mode, make))
        .await
        .unwrap_or_else(|_| Err(Status::internal("the transaction was given up")))
}

fn run(
    store: &SharedStore,
    mode: Mode,
    make: impl FnOnce(&State) -> Result<Transaction, Located>,
) -> Result<v1::ApplyResponse, Status> {
    let guarded = |state: &State| match mode.expected_revision {
        Some(expected) if expected != state.revision() => Err(Status::aborted(format!(
            "expected_revision is {expected}, the tables are at revision {}",
            state.revision()
        ))),
        _ => make(state).map_err(|it| located(&it)),
    };
    let (before, origins, result);
    if mode.dry_run {
        before = store.state();
        let transaction = guarded(&before)?;
        origins = transaction.origins;
        result = store.check(transaction.changes);
    } else {
        let mut made = None;
        result = store.update(|state| match guarded(state) {
            Ok(transaction) => {
                made = Some(Ok((state.clone(), transaction.origins)));
                transaction.changes
            }
            Err(status) => {
                made = Some(Err(status));
                // Changes nothing.
                Vec::new()
            }
        });
        // It is not even made where nothing can be saved.
        (before, origins) = made.unwrap_or_else(|| Ok((store.state(), Vec::new())))?;
    }
    match result {
        Ok(committed) => Ok(response(&before, &committed, mode.omit_events)),
        Err(error) => Err(refused(&Transaction::refused(&error, &origins))),
    }
}

fn response(before: &State, committed: &Committed, omit_events: bool) -> v1::ApplyResponse {
    let mut response = v1::ApplyResponse {
        revision: committed.revision,
        ..Default::default()
    };
    for event in &committed.events {
        let existed = existed(before, event);
        match (event.removed, existed) {
            (true, _) => response.removed += 1,
            (false, true) => response.modified += 1,
            (false, false) => response.created += 1,
        }
        if !omit_events {
            response.events.push(v1::Event {
                existed: Some(existed),
                ..convert::event_message(&committed.ports, event)
            });
        }
    }
    response
}

fn existed(before: &State, event: &Event) -> bool {
    match &event.object {
        Object::Endpoint(endpoint) => before.endpoint(endpoint.id).is_some(),
        Object::Route(route) => before.route(&route.prefix).is_some(),
        Object::Neighbour(neighbour) => before.neighbour(neighbour.port, neighbour.addr).is_some(),
        Object::Port(port) => before.port(port.id).is_some(),
        Object::Node(_) => before.has_node(),
        Object::Ipcache(entry) => before.ipcache_entry(&entry.prefix).is_some(),
        Object::Service(service) => before.service(&service.name).is_some(),
        Object::Policy(policy) => before.policy(policy.endpoint).is_some(),
        Object::EgressGateway(rule) => before.egress_gateway(&rule.key).is_some(),
        Object::Authentication(it) => before.authentication(&it.key).is_some(),
    }
}

/// Refuses a transaction that grew too large.
pub(crate) fn check_size(objects: usize) -> Result<(), Status> {
    if objects > MAX_OBJECTS {
        return Err(Status::resource_exhausted(format!(
            "the transaction has more than {MAX_OBJECTS} objects"
        )));
    }
    Ok(())
}
