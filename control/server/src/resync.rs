//! Programming everything anew: begin, everything, end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use octoplane_api::v1;
use octoplane_api::v1::resync_request::Step;
use octoplane_convert::{Kinds, Scope, changes_in, size};
use octoplane_tables::SharedStore;
use tokio::sync::oneshot;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use crate::config::state;
use crate::transact::{Mode, check_size, transact};

/// How long a client may be silent unless it says otherwise, and at most, in seconds.
const IDLE: u32 = 30;
const MAX_IDLE: u32 = 3600;

/// One that is not over: what it is about, and who ends it.
struct Unfinished {
    number: u64,
    kinds: Kinds,
    _replaced: oneshot::Sender<()>,
}

/// Those that are not over.
#[derive(Default)]
pub(crate) struct Resyncs(Mutex<(u64, Vec<Unfinished>)>);

impl Resyncs {
    /// Ends those that are about the same.
    fn begin(self: &Arc<Self>, kinds: Kinds) -> (Entry, oneshot::Receiver<()>) {
        let (sender, replaced) = oneshot::channel();
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, unfinished) = &mut *inner;
        *number += 1;
        unfinished.retain(|other| !other.kinds.overlap(kinds));
        unfinished.push(Unfinished {
            number: *number,
            kinds,
            _replaced: sender,
        });
        let entry = Entry {
            resyncs: Arc::clone(self),
            number: *number,
        };
        (entry, replaced)
    }
}

/// Takes its resync off the list when it goes.
struct Entry {
    resyncs: Arc<Resyncs>,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut inner = self.resyncs.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.1.retain(|other| other.number != self.number);
    }
}

/// Takes the steps of one client. Nothing is changed before its last one.
pub(crate) async fn resync(
    resyncs: &Arc<Resyncs>,
    store: &SharedStore,
    mut stream: impl Stream<Item = Result<v1::ResyncRequest, Status>> + Unpin,
) -> Result<v1::ApplyResponse, Status> {
    let first = within(IDLE, stream.next()).await?;
    let Some(Step::Begin(begin)) = first.transpose()?.and_then(|it| it.step) else {
        return Err(Status::invalid_argument(
            "begin: is missing, expected as the first message",
        ));
    };
    let kinds = Kinds::read(&begin.kinds).map_err(Status::invalid_argument)?;
    let idle = match begin.idle_seconds {
        0 => IDLE,
        seconds if seconds <= MAX_IDLE => seconds,
        seconds => {
            return Err(Status::invalid_argument(format!(
                "idle_seconds: {seconds} is out of range, expected at most {MAX_IDLE}"
            )));
        }
    };
    let (_entry, replaced) = resyncs.begin(kinds);
    let before = state(store).await?;
    let collect = async {
        let mut all = v1::ReplaceRequest::default();
        loop {
            let Some(message) = within(idle, stream.next()).await?.transpose()? else {
                return Err(Status::cancelled(
                    "the stream ended without the end: nothing was changed",
                ));
            };
            match message.step {
                Some(Step::Objects(part)) => {
                    is_announced(kinds, &part)?;
                    append(&mut all, part);
                    check_size(size(&all))?;
                }
                Some(Step::End(true)) => return Ok(all),
                Some(Step::End(false)) => {
                    return Err(Status::invalid_argument("end: only true has a meaning"));
                }
                Some(Step::Begin(_)) => {
                    return Err(Status::invalid_argument(
                        "begin: expected as the first message only",
                    ));
                }
                None => {
                    return Err(Status::invalid_argument(
                        "step: nothing is set, expected objects or end",
                    ));
                }
            }
        }
    };
    let all = tokio::select! {
        all = collect => all?,
        _ = replaced => {
            return Err(Status::aborted("another resync of these kinds began: nothing was changed"));
        }
    };
    let mode = Mode {
        dry_run: begin.dry_run,
        omit_events: begin.omit_events,
        expected_revision: None,
    };
    transact(store, mode, move |state| {
        let scope = Scope {
            kinds,
            begin: Some(&before),
        };
        changes_in(state, all, scope)
    })
    .await
}

async fn within<T>(seconds: u32, step: impl Future<Output = T>) -> Result<T, Status> {
    let time = Duration::from_secs(seconds.into());
    tokio::time::timeout(time, step).await.map_err(|_| {
        Status::deadline_exceeded(format!("nothing was sent for {seconds} s: nothing was changed"))
    })
}

/// Adds a part of a state.
pub(crate) fn append(all: &mut v1::ReplaceRequest, part: v1::ReplaceRequest) {
    all.endpoints.extend(part.endpoints);
    all.routes.extend(part.routes);
    all.neighbours.extend(part.neighbours);
    all.ports.extend(part.ports);
    all.node = part.node.or_else(|| all.node.take());
    all.ipcache.extend(part.ipcache);
    all.services.extend(part.services);
    all.policies.extend(part.policies);
    all.egress_gateways.extend(part.egress_gateways);
    all.authentications.extend(part.authentications);
}

fn is_announced(kinds: Kinds, part: &v1::ReplaceRequest) -> Result<(), Status> {
    use v1::Kind;
    let lists = [
        ("endpoints", Kind::Endpoint, part.endpoints.is_empty()),
        ("routes", Kind::Route, part.routes.is_empty()),
        ("neighbours", Kind::Neighbour, part.neighbours.is_empty()),
        ("ports", Kind::Port, part.ports.is_empty()),
        ("node", Kind::Node, part.node.is_none()),
        ("ipcache", Kind::Ipcache, part.ipcache.is_empty()),
        ("services", Kind::Service, part.services.is_empty()),
        ("policies", Kind::Policy, part.policies.is_empty()),
        (
            "egress_gateways",
            Kind::EgressGateway,
            part.egress_gateways.is_empty(),
        ),
        (
            "authentications",
            Kind::Authentication,
            part.authentications.is_empty(),
        ),
    ];
    for (list, kind, is_empty) in lists {
        if !is_empty && !kinds.has(kind) {
            return Err(Status::invalid_argument(format!(
                "{list}: the resync is not about them, expected {} among its kinds",
                kind.as_str_name()
            )));
        }
    }
    Ok(())
}
