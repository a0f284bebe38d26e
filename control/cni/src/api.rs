//! `octoplane.v1.Attachments`.

use std::net::IpAddr;
use std::sync::Arc;

use octoplane_api::v1;
use octoplane_tables::State;
use tonic::{Request, Response, Status};

use crate::attachments::{Attachments, Place, Reservation, Wanted};
use crate::error::AttachError;
use crate::ipam::Family;
use crate::record::{Key, Pod, Record, check_length, clip};

/// Attachments in one message.
const CHUNK: usize = 1024;
/// Most addresses of one pod, as of one endpoint.
const MAX_ADDRESSES: usize = octoplane_tables::model::MAX_ENDPOINT_ADDRESSES;

/// The service.
#[derive(Clone)]
pub struct AttachmentService(pub Arc<Attachments>);

impl AttachmentService {
    /// Works off the runtime's threads, to the end even if the client goes away.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Attachments) -> Result<T, AttachError> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let attachments = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&attachments))
            .await
            .map_err(|_| Status::internal("the call was given up"))?
            .map(Response::new)
            .map_err(Status::from)
    }
}

fn key(message: Option<v1::AttachmentKey>) -> Result<Key, AttachError> {
    let message = message.ok_or_else(|| AttachError::missing("key"))?;
    Key::new(
        &message.container_id,
        &message.interface,
        ["key.container_id", "key.interface"],
    )
}

fn addresses(texts: &[String]) -> Result<Vec<IpAddr>, AttachError> {
    let wrong = |index: usize, why: String| AttachError::Field {
        field: format!("addresses[{index}]"),
        why,
    };
    if texts.len() > MAX_ADDRESSES {
        return Err(AttachError::Field {
            field: "addresses".into(),
            why: format!("{} addresses, expected at most {MAX_ADDRESSES}", texts.len()),
        });
    }
    let parse = |(index, text): (usize, &String)| {
        text.parse().map_err(|_| {
            wrong(
                index,
                format!("\"{}\" is not an IPv4 or IPv6 address", clip(text)),
            )
        })
    };
    texts.iter().enumerate().map(parse).collect()
}

fn wanted(request: &v1::ReserveRequest) -> Result<Wanted, AttachError> {
    let families: Vec<_> = [(request.ipv4, Family::V4), (request.ipv6, Family::V6)]
        .into_iter()
        .filter_map(|(wanted, family)| wanted.then_some(family))
        .collect();
    let given = addresses(&request.addresses)?;
    match (families.is_empty(), given.is_empty()) {
        (false, false) => Err(AttachError::Field {
            field: "addresses".into(),
            why: "stand beside ipv4 or ipv6, expected only one of the two".into(),
        }),
        (false, true) => Ok(Wanted::Pools(families)),
        (true, _) => Ok(Wanted::Given(given)),
    }
}

fn reservation(request: v1::ReserveRequest) -> Result<Reservation, AttachError> {
    let wanted = wanted(&request)?;
    check_length(&request.network, "network")?;
    Ok(Reservation {
        key: key(request.key)?,
        network: request.network,
        pod: Pod::new(
            request.pod_namespace,
            request.pod_name,
            ["pod_namespace", "pod_name"],
        )?,
        wanted,
    })
}

fn message(state: &State, record: &Record) -> v1::Attachment {
    let gateways = state.gateways();
    let mut message = v1::Attachment {
        key: Some(v1::AttachmentKey {
            container_id: record.key.container.clone(),
            interface: record.key.interface.clone(),
        }),
        network: record.network.clone(),
        pod_namespace: record.pod.namespace.clone(),
        pod_name: record.pod.name.clone(),
        addresses: record.addresses.iter().map(ToString::to_string).collect(),
        gateway4: gateways.ipv4.to_string(),
        gateway6: gateways.ipv6.to_string(),
        function: record.function,
        created: record.created,
        ..Default::default()
    };
    if let Some(attached) = &record.attached {
        message.endpoint = attached.endpoint;
        message.port.clone_from(&attached.port);
        message.mac = attached.mac.to_string();
        message.labels.clone_from(&attached.labels);
        message.identity = state
            .endpoint(attached.endpoint)
            .map_or(0, |endpoint| endpoint.identity);
    }
    message
}

#[tonic::async_trait]
impl v1::attachments_server::Attachments for AttachmentService {
    async fn reserve(
        &self,
        request: Request<v1::ReserveRequest>,
    ) -> Result<Response<v1::Attachment>, Status> {
        self.blocking(|attachments| {
            let record = attachments.reserve(reservation(request.into_inner())?)?;
            Ok(message(&attachments.tables().state(), &record))
        })
        .await
    }

    async fn attach(&self, request: Request<v1::AttachRequest>) -> Result<Response<v1::Attachment>, Status> {
        self.blocking(|attachments| {
            let request = request.into_inner();
            let key = key(request.key)?;
            let mac = request.mac.parse().map_err(|error| AttachError::Field {
                field: "mac".into(),
                why: format!("{error}"),
            })?;
            let place = Place {
                port: request.port,
                mac,
            };
            let record = attachments.attach(&key, place, &addresses(&request.addresses)?)?;
            Ok(message(&attachments.tables().state(), &record))
        })
        .await
    }

    async fn detach(
        &self,
        request: Request<v1::DetachRequest>,
    ) -> Result<Response<v1::DetachResponse>, Status> {
        self.blocking(|attachments| {
            let request = request.into_inner();
            let key = key(request.key)?;
            let existed = if request.keep_reservation {
                attachments.unplug(&key)?
            } else {
                attachments.detach(&key)?
            };
            Ok(v1::DetachResponse { existed })
        })
        .await
    }

    async fn get_attachment(
        &self,
        request: Request<v1::AttachmentKey>,
    ) -> Result<Response<v1::Attachment>, Status> {
        self.blocking(|attachments| {
            let record = attachments.get(&key(Some(request.into_inner()))?)?;
            Ok(message(&attachments.tables().state(), &record))
        })
        .await
    }

    type ListAttachmentsStream = tokio_stream::Iter<std::vec::IntoIter<Result<v1::AttachmentList, Status>>>;

    async fn list_attachments(
        &self,
        request: Request<v1::ListAttachmentsRequest>,
    ) -> Result<Response<Self::ListAttachmentsStream>, Status> {
        self.blocking(|attachments| {
            let network = request.into_inner().network;
            let records = attachments.list(Some(network.as_str()).filter(|network| !network.is_empty()));
            let state = attachments.tables().state();
            let chunk = |records: &[Record]| {
                let attachments = records.iter().map(|record| message(&state, record));
                Ok(v1::AttachmentList {
                    attachments: attachments.collect(),
                })
            };
            let chunks: Vec<_> = records.chunks(CHUNK).map(chunk).collect();
            Ok(tokio_stream::iter(chunks))
        })
        .await
    }

    async fn list_pools(&self, _: Request<v1::ListPoolsRequest>) -> Result<Response<v1::PoolList>, Status> {
        self.blocking(|attachments| {
            let pools = attachments.pools().into_iter().map(|usage| v1::Pool {
                prefix: usage.prefix,
                size: usage.size,
                used: usage.used,
                resting: usage.resting,
            });
            Ok(v1::PoolList {
                pools: pools.collect(),
            })
        })
        .await
    }
}
