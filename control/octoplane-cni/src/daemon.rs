//! The daemon, as far as a plugin needs it.

use std::path::Path;
use std::time::Duration;

use octoplane_api::v1;
use octoplane_api::v1::attachments_client::AttachmentsClient;
use octoplane_api::v1::config_client::ConfigClient;
use tonic::transport::Channel;
use tonic::{Code as Grpc, Request, Status};

use crate::names::Names;
use crate::spec::{CniError, Code, NetConf};

/// How long a call may take: a device takes up to seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the control socket.
#[derive(Clone)]
pub(crate) struct Daemon {
    attachments: AttachmentsClient<Channel>,
    config: ConfigClient<Channel>,
}

fn refused(what: &str) -> impl Fn(Status) -> CniError {
    move |status| {
        let code = match status.code() {
            // A call that took longer than we wait is "cancelled" for tonic.
            Grpc::Unavailable | Grpc::DeadlineExceeded | Grpc::Cancelled | Grpc::Aborted => Code::TryAgain,
            Grpc::NotFound => Code::UnknownContainer,
            _ => Code::Daemon,
        };
        CniError::new(code, format!("{what}: {}", status.message()))
    }
}

fn patient<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

impl Daemon {
    pub(crate) async fn connect(socket: &Path) -> Result<Self, CniError> {
        let channel = octoplane_api::connect(socket).await.map_err(|error| {
            // tonic's own text says nothing; what it is about is further down.
            let mut cause: &dyn std::error::Error = &error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            CniError::new(
                Code::TryAgain,
                format!("the data plane does not answer at {}: {cause}", socket.display()),
            )
        })?;
        Ok(Self {
            attachments: AttachmentsClient::new(channel.clone()),
            config: ConfigClient::new(channel),
        })
    }

    pub(crate) async fn pools(&self) -> Result<Vec<v1::Pool>, CniError> {
        let answer = self
            .attachments
            .clone()
            .list_pools(patient(v1::ListPoolsRequest {}))
            .await;
        Ok(answer.map_err(refused("pools"))?.into_inner().pools)
    }

    pub(crate) async fn reserve(&self, request: v1::ReserveRequest) -> Result<v1::Attachment, CniError> {
        let answer = self.attachments.clone().reserve(patient(request)).await;
        Ok(answer.map_err(refused("reservation"))?.into_inner())
    }

    pub(crate) async fn attach(&self, request: v1::AttachRequest) -> Result<v1::Attachment, CniError> {
        let answer = self.attachments.clone().attach(patient(request)).await;
        Ok(answer.map_err(refused("endpoint"))?.into_inner())
    }

    pub(crate) async fn detach(
        &self,
        key: v1::AttachmentKey,
        keep_reservation: bool,
    ) -> Result<(), CniError> {
        let request = v1::DetachRequest {
            key: Some(key),
            keep_reservation,
        };
        let answer = self.attachments.clone().detach(patient(request)).await;
        answer.map(drop).map_err(refused("attachment"))
    }

    pub(crate) async fn attachment(&self, key: v1::AttachmentKey) -> Result<v1::Attachment, CniError> {
        let answer = self.attachments.clone().get_attachment(patient(key)).await;
        Ok(answer.map_err(refused("attachment"))?.into_inner())
    }

    /// All attachments of a network.
    pub(crate) async fn attachments(&self, network: &str) -> Result<Vec<v1::Attachment>, CniError> {
        let request = v1::ListAttachmentsRequest {
            network: network.to_owned(),
        };
        let answer = self.attachments.clone().list_attachments(patient(request)).await;
        let mut stream = answer.map_err(refused("attachments"))?.into_inner();
        let mut all = Vec::new();
        while let Some(chunk) = stream.message().await.map_err(refused("attachments"))? {
            all.extend(chunk.attachments);
        }
        Ok(all)
    }

    /// Adds the port of an attachment, whose interface is there.
    pub(crate) async fn add_port(&self, names: &Names, conf: &NetConf) -> Result<v1::Port, CniError> {
        let request = v1::AddPortRequest {
            name: names.port.clone(),
            role: v1::Role::Pod.into(),
            // AF_PACKET: the AF_XDP driver does not let go of a port that was removed.
            device: format!("{},iface={}", names.device, names.port),
            rx_descriptors: conf.descriptors,
            tx_descriptors: conf.descriptors,
            mtu: conf.mtu,
            ..Default::default()
        };
        let answer = self.config.clone().add_port(patient(request)).await;
        let answer = answer.map_err(refused("port"))?.into_inner();
        Ok(answer.port.unwrap_or_default())
    }

    /// Removes the port of an attachment; one that is not there is fine.
    pub(crate) async fn remove_port(&self, names: &Names) -> Result<(), CniError> {
        let request = v1::RemovePortRequest {
            name: names.port.clone(),
        };
        match self.config.clone().remove_port(patient(request)).await {
            Err(status) if status.code() != Grpc::NotFound => Err(refused("port")(status)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Specification, "Error": 11 is "try again later".
    #[tokio::test]
    async fn a_daemon_that_does_not_answer_may_do_so_later() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("control.sock");
        // The kernel takes the connection, and nobody what comes by it.
        let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let daemon = Daemon::connect(&socket).await.unwrap();
        // All waiting is over at once.
        tokio::time::pause();
        let error = daemon.pools().await.unwrap_err();
        assert_eq!(error.code, 11, "{}", error.message);
    }
}
