//! Adding and removing ports: from a request to what the daemon is asked, and from its refusal to what the client is told.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use octoplane_api::v1;
use octoplane_config::{Gateway, Mistake, PortFields};
use octoplane_tables::{ErrorKind, NotSaved, State};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::convert;
use crate::dataplane::{Dataplane, PortRefusal};
use crate::refusal::clip;

/// Held while a port comes or goes: what is kept of it has to follow the same order.
pub(crate) type Changing = Arc<Mutex<()>>;

fn hold(changing: &Changing) -> MutexGuard<'_, ()> {
    changing.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds a port. Runs off the runtime's threads: a device takes seconds.
pub(crate) async fn add<D: Dataplane>(
    dataplane: Arc<D>,
    changing: Changing,
    request: v1::AddPortRequest,
) -> Result<v1::AddPortResponse, Status> {
    blocking(move || {
        let _one = hold(&changing);
        let name = request.name.clone();
        let gateways = dataplane.store().state().gateways();
        let gateway = Gateway {
            ipv4: gateways.ipv4,
            ipv6: gateways.ipv6,
        };
        let port = fields(request.clone())
            .read(gateway)
            .map_err(|mistakes| invalid(&name, &mistakes))?;
        let existed = dataplane
            .add_port(port)
            .map_err(|refusal| status(&name, &refusal))?;
        if let Some(journal) = dataplane.saved() {
            let kept = match existed {
                // It may be on its way to the disk, or have failed to get there.
                true => journal.settle(),
                false => journal.add_port(&request),
            };
            kept.map_err(|NotSaved(why)| {
                Status::unavailable(format!(
                    "port {}: it is in effect, but was not saved: {why}",
                    clip(&name)
                ))
            })?;
        }
        let state = dataplane.store().state();
        let port = state
            .port_by_name(&name)
            .ok_or_else(|| Status::aborted(format!("port {}: it was removed at once", clip(&name))))?;
        Ok(v1::AddPortResponse {
            port: Some(convert::port_message(port)),
            existed,
            revision: state.revision(),
        })
    })
    .await
}

/// Removes a port. Runs off the runtime's threads, too.
pub(crate) async fn remove<D: Dataplane>(
    dataplane: Arc<D>,
    changing: Changing,
    request: v1::RemovePortRequest,
) -> Result<v1::RemovePortResponse, Status> {
    blocking(move || {
        let _one = hold(&changing);
        dataplane
            .remove_port(&request.name)
            .map_err(|refusal| status(&request.name, &refusal))?;
        let state: State = dataplane.store().state();
        Ok(v1::RemovePortResponse {
            revision: state.revision(),
        })
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    // A client that goes away does not stop the work half-way.
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Status::internal("the work on the port was given up")))
}

/// A request in the words of the configuration file.
pub(crate) fn fields(request: v1::AddPortRequest) -> PortFields {
    let role = match v1::Role::try_from(request.role) {
        Ok(v1::Role::Unspecified) => String::new(),
        Ok(v1::Role::Pod) => "pod".into(),
        Ok(v1::Role::Uplink) => "uplink".into(),
        Ok(v1::Role::Host) => "host".into(),
        Err(_) => request.role.to_string(),
    };
    PortFields {
        name: request.name,
        role,
        device: request.device,
        rx_queues: request.rx_queues,
        tx_queues: request.tx_queues,
        rx_descriptors: request.rx_descriptors,
        tx_descriptors: request.tx_descriptors,
        mtu: request.mtu,
        mac: request.mac,
        addresses: request.addresses,
        promiscuous: request.promiscuous,
    }
}

/// All mistakes at once, each with its field.
fn invalid(name: &str, mistakes: &[Mistake]) -> Status {
    let mut details = ErrorDetails::new();
    let mut texts = Vec::new();
    for Mistake { key, message, .. } in mistakes {
        details.add_bad_request_violation(key, message);
        texts.push(format!("{key}: {message}"));
    }
    let message = format!("port {}: {}", clip(name), texts.join("; "));
    Status::with_error_details(Code::InvalidArgument, message, details)
}

fn status(name: &str, refusal: &PortRefusal) -> Status {
    let code = match refusal {
        PortRefusal::Invalid { .. } => Code::InvalidArgument,
        PortRefusal::Exists { .. } => Code::AlreadyExists,
        PortRefusal::Full { .. } => Code::ResourceExhausted,
        PortRefusal::NoSuchPort(_) => Code::NotFound,
        PortRefusal::Device(_) | PortRefusal::Leaving(_) => Code::FailedPrecondition,
        PortRefusal::Tables(error) => match error.kind() {
            ErrorKind::Invalid => Code::InvalidArgument,
            ErrorKind::NotFound => Code::NotFound,
            ErrorKind::Conflict => Code::AlreadyExists,
            ErrorKind::Full => Code::ResourceExhausted,
            ErrorKind::InUse => Code::FailedPrecondition,
            ErrorKind::NotSaved => Code::Unavailable,
        },
        PortRefusal::Failed(_) => Code::Internal,
    };
    let message = match refusal {
        // These name the port themselves.
        PortRefusal::Tables(_) | PortRefusal::NoSuchPort(_) => refusal.to_string(),
        _ => format!("port {}: {refusal}", clip(name)),
    };
    match refusal.field() {
        Some(field) => {
            let details = ErrorDetails::with_bad_request_violation(field, refusal.to_string());
            Status::with_error_details(code, message, details)
        }
        None => Status::new(code, message),
    }
}
