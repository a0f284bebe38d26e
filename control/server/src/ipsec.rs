//! The service `Ipsec`.

use std::sync::Arc;
use std::time::Duration;

use octoplane_api::v1;
use tokio::sync::mpsc::{Sender, channel};
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Encryption between nodes, as the service sees it. Everything may wait for the disk.
pub trait IpsecControl: Send + Sync + 'static {
    /// What this node announces, and how it does.
    fn status(&self) -> v1::IpsecStatus;

    /// Adds and removes nodes: all of it or nothing. Returns the revision of the security associations.
    ///
    /// # Errors
    /// [`IpsecRefusal`]
    fn set_nodes(&self, request: v1::SetIpsecNodesRequest) -> Result<u64, IpsecRefusal>;

    /// Changes security associations and policies of one's own: all of it or nothing. Returns the revision.
    ///
    /// # Errors
    /// [`IpsecRefusal`]
    fn program(&self, request: v1::ProgramIpsecRequest) -> Result<u64, IpsecRefusal>;

    /// Events with numbers above `after`, as far as they are remembered.
    fn events(&self, after: u64) -> Vec<v1::IpsecEvent>;

    /// The nodes, by address.
    fn nodes(&self) -> Vec<v1::IpsecNode>;

    /// The security associations, by address and direction.
    fn sas(&self) -> Vec<v1::IpsecSa>;

    /// What becomes of packets, by node, and policies of one's own.
    fn policies(&self) -> v1::IpsecPolicyList;

    /// Packets and errors.
    fn counters(&self) -> v1::IpsecCounters;
}

/// Why something was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpsecRefusal {
    /// A field is wrong.
    #[error("{field}: {text}")]
    Invalid {
        /// Which one, as in `nodes[0].key`.
        field: String,
        /// What is wrong with it, and what would be right.
        text: String,
    },
    /// There is no room.
    #[error("{0}")]
    Full(String),
    /// It cannot be done now.
    #[error("{0}")]
    Failed(String),
}

impl From<IpsecRefusal> for Status {
    fn from(refusal: IpsecRefusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            IpsecRefusal::Invalid { field, text } => {
                let details = ErrorDetails::with_bad_request_violation(field, text);
                Self::with_error_details(Code::InvalidArgument, message, details)
            }
            IpsecRefusal::Full(_) => Self::resource_exhausted(message),
            IpsecRefusal::Failed(_) => Self::failed_precondition(message),
        }
    }
}

/// How often events are looked for.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) struct IpsecService {
    pub(crate) control: Arc<dyn IpsecControl>,
    /// Ends when the server stops.
    pub(crate) stopping: watch::Receiver<()>,
}

impl IpsecService {
    /// Off the runtime's threads.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn IpsecControl) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let control = Arc::clone(&self.control);
        tokio::task::spawn_blocking(move || work(&*control))
            .await
            .map_err(|_| Status::internal("the work on encryption was given up"))
    }
}

#[tonic::async_trait]
impl v1::ipsec_server::Ipsec for IpsecService {
    type StreamIpsecEventsStream = ReceiverStream<Result<v1::IpsecEvents, Status>>;

    async fn program_ipsec(
        &self,
        request: Request<v1::ProgramIpsecRequest>,
    ) -> Result<Response<v1::ProgramIpsecResponse>, Status> {
        let request = request.into_inner();
        let revision = self.call(move |control| control.program(request)).await??;
        Ok(Response::new(v1::ProgramIpsecResponse { revision }))
    }

    async fn stream_ipsec_events(
        &self,
        request: Request<v1::StreamIpsecEventsRequest>,
    ) -> Result<Response<Self::StreamIpsecEventsStream>, Status> {
        let after = request.into_inner().after;
        let (sender, receiver) = channel(1);
        let events = send_events(Arc::clone(&self.control), after, sender.clone());
        let mut stopping = self.stopping.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = events => {}
                () = sender.closed() => {}
                // An error: there is nobody any more who could say anything.
                _ = stopping.changed() => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get_ipsec_status(
        &self,
        _: Request<v1::GetIpsecStatusRequest>,
    ) -> Result<Response<v1::IpsecStatus>, Status> {
        self.call(|control| control.status()).await.map(Response::new)
    }

    async fn set_ipsec_nodes(
        &self,
        request: Request<v1::SetIpsecNodesRequest>,
    ) -> Result<Response<v1::SetIpsecNodesResponse>, Status> {
        let request = request.into_inner();
        let revision = self.call(move |control| control.set_nodes(request)).await??;
        Ok(Response::new(v1::SetIpsecNodesResponse { revision }))
    }

    async fn list_ipsec_nodes(
        &self,
        _: Request<v1::ListIpsecNodesRequest>,
    ) -> Result<Response<v1::IpsecNodeList>, Status> {
        let nodes = self.call(|control| control.nodes()).await?;
        Ok(Response::new(v1::IpsecNodeList { nodes }))
    }

    async fn list_ipsec_sas(
        &self,
        _: Request<v1::ListIpsecSasRequest>,
    ) -> Result<Response<v1::IpsecSaList>, Status> {
        let sas = self.call(|control| control.sas()).await?;
        Ok(Response::new(v1::IpsecSaList { sas }))
    }

    async fn list_ipsec_policies(
        &self,
        _: Request<v1::ListIpsecPoliciesRequest>,
    ) -> Result<Response<v1::IpsecPolicyList>, Status> {
        self.call(|control| control.policies()).await.map(Response::new)
    }

    async fn get_ipsec_counters(
        &self,
        _: Request<v1::GetIpsecCountersRequest>,
    ) -> Result<Response<v1::IpsecCounters>, Status> {
        self.call(|control| control.counters()).await.map(Response::new)
    }
}

/// Sends events until the reader is gone. The first message, empty perhaps, tells that it is heard from now on.
async fn send_events(
    control: Arc<dyn IpsecControl>,
    mut after: u64,
    sender: Sender<Result<v1::IpsecEvents, Status>>,
) {
    let mut first = true;
    loop {
        let asked = Arc::clone(&control);
        let Ok(events) = tokio::task::spawn_blocking(move || asked.events(after)).await else {
            return;
        };
        after = events.last().map_or(after, |event| event.number);
        if (first || !events.is_empty()) && sender.send(Ok(v1::IpsecEvents { events })).await.is_err() {
            return;
        }
        first = false;
        tokio::time::sleep(LOOK).await;
    }
}
