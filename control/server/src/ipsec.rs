//! The service `Ipsec`.

use std::sync::Arc;

use octoplane_api::v1;
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

    /// The nodes, by address.
    fn nodes(&self) -> Vec<v1::IpsecNode>;

    /// The security associations, by address and direction.
    fn sas(&self) -> Vec<v1::IpsecSa>;

    /// What becomes of packets, by node.
    fn policies(&self) -> Vec<v1::IpsecPolicy>;

    /// Packets and errors.
    fn counters(&self) -> v1::IpsecCounters;
}

/// Why nodes were not changed.
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

pub(crate) struct IpsecService(pub(crate) Arc<dyn IpsecControl>);

impl IpsecService {
    /// Off the runtime's threads.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn IpsecControl) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let control = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&*control))
            .await
            .map_err(|_| Status::internal("the work on encryption was given up"))
    }
}

#[tonic::async_trait]
impl v1::ipsec_server::Ipsec for IpsecService {
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
        let policies = self.call(|control| control.policies()).await?;
        Ok(Response::new(v1::IpsecPolicyList { policies }))
    }

    async fn get_ipsec_counters(
        &self,
        _: Request<v1::GetIpsecCountersRequest>,
    ) -> Result<Response<v1::IpsecCounters>, Status> {
        self.call(|control| control.counters()).await.map(Response::new)
    }
}
