//! The service `Flows`.
//!
//! The table is read on threads for what blocks, a bounded part at a time: neither a worker nor another client waits for a
//! list, and none of these threads waits for who reads it.

mod filter;
mod scan;
mod tuple;

use std::sync::Arc;

use octoplane_api::{CHUNK, v1};
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use self::filter::Filter;
use crate::dataplane::Dataplane;

pub use tuple::flow_tuple;

/// Chunks that are made before the reader takes them.
const AHEAD: usize = 2;

pub(crate) struct FlowsService<D>(pub(crate) Arc<D>);

/// A list on its way.
pub(crate) type FlowStream = ReceiverStream<Result<v1::FlowList, Status>>;

#[tonic::async_trait]
impl<D: Dataplane> v1::flows_server::Flows for FlowsService<D> {
    type ListFlowsStream = FlowStream;

    async fn list_flows(
        &self,
        request: Request<v1::ListFlowsRequest>,
    ) -> Result<Response<FlowStream>, Status> {
        let v1::ListFlowsRequest { filter, limit } = request.into_inner();
        let filter = Filter::read(filter.as_ref())?;
        let limit = if limit == 0 { u64::MAX } else { limit };
        let (sender, receiver) = channel(AHEAD);
        tokio::spawn(send(Arc::clone(&self.0), filter, limit, sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get_flow(&self, request: Request<v1::GetFlowRequest>) -> Result<Response<v1::Flow>, Status> {
        let message = request.into_inner().tuple.unwrap_or_default();
        let tuple = tuple::read("tuple", &message)?;
        let dataplane = Arc::clone(&self.0);
        let found = blocking(move || {
            let table = dataplane.flows();
            let flow = table.find(table.hash(&tuple), &tuple)?;
            dataplane.flow(&dataplane.store().state(), flow)
        });
        match found.await? {
            Some(flow) => Ok(Response::new(flow)),
            None => Err(Status::not_found(format!(
                "flow {}: not found",
                tuple::show(&tuple)
            ))),
        }
    }

    async fn flush_flows(
        &self,
        request: Request<v1::FlushFlowsRequest>,
    ) -> Result<Response<v1::FlushFlowsResponse>, Status> {
        let v1::FlushFlowsRequest { filter, all } = request.into_inner();
        let filter = Filter::read(filter.as_ref())?;
        match (filter.is_empty(), all) {
            (true, false) => {
                let text = "is empty: set all to end all connections";
                return Err(refuse("filter", text.into()));
            }
            (false, true) => return Err(refuse("all", "excludes a filter".into())),
            _ => {}
        }
        let dataplane = Arc::clone(&self.0);
        let flushed = blocking(move || scan::end(dataplane.flows(), &filter)).await?;
        Ok(Response::new(v1::FlushFlowsResponse { flushed }))
    }
}

/// Sends what fits, until the table is through, the limit reached or the reader gone.
async fn send<D: Dataplane>(
    dataplane: Arc<D>,
    filter: Filter,
    limit: u64,
    sender: Sender<Result<v1::FlowList, Status>>,
) {
    let mut left = limit;
    let mut flows = Vec::new();
    let mut from = Some(0);
    let mut sent = false;
    while let Some(first) = from {
        let room = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK - flows.len());
        let dataplane = Arc::clone(&dataplane);
        let part = match blocking(move || scan::list(&*dataplane, &filter, first, room)).await {
            Ok(part) => part,
            Err(status) => {
                // A reader that went away need not know.
                let _ = sender.send(Err(status)).await;
                return;
            }
        };
        left -= part.flows.len() as u64;
        flows.extend(part.flows);
        from = part.next.filter(|_| left > 0);
        if flows.len() >= CHUNK || from.is_none() && (!flows.is_empty() || !sent) {
            let flows = std::mem::take(&mut flows);
            if sender.send(Ok(v1::FlowList { flows })).await.is_err() {
                return;
            }
            sent = true;
        } else if sender.is_closed() {
            return;
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Status::internal("the connections could not be read"))
}

/// A field is not what it should be.
fn refuse(field: &str, why: String) -> Status {
    let message = format!("{field}: {why}");
    let details = ErrorDetails::with_bad_request_violation(field, why);
    Status::with_error_details(Code::InvalidArgument, message, details)
}
