//! Attachments and the tables: an endpoint for each that is attached.

use std::net::IpAddr;

use octoplane_tables::model::{Change, Endpoint, PortId, Role};
use octoplane_tables::{ChangeError, SharedStore, State};
use tracing::warn;

use crate::error::AttachError;
use crate::record::{Attached, Record};

/// Whether an address is somebody's who did not get it from us.
pub(super) fn is_foreign(state: &State, address: IpAddr) -> bool {
    state.owner(address).is_some()
        || state.gateways().contains(address)
        || state.own_address(address).is_some()
}

/// The endpoint of an attachment, if it is there.
pub(super) fn endpoint<'a>(state: &'a State, record: &Record) -> Option<&'a Endpoint> {
    let attached = record.attached.as_ref()?;
    let endpoint = state.endpoint(attached.endpoint)?;
    // The id could be somebody else's by now.
    let ours = endpoint.mac == attached.mac
        && record
            .addresses
            .iter()
            .any(|address| endpoint.addresses.contains(address));
    ours.then_some(endpoint)
}

/// The port of this name, if pods can be behind it.
pub(super) fn pod_port(state: &State, name: &str) -> Result<PortId, AttachError> {
    let port = state
        .port_by_name(name)
        .ok_or_else(|| AttachError::NoPort(name.to_owned()))?;
    if port.role != Role::Pod {
        return Err(ChangeError::PortRole {
            object: "attachment".into(),
            port: name.to_owned(),
            role: port.role.name(),
            expected: Role::Pod.name(),
        }
        .into());
    }
    Ok(port.id)
}

/// Makes the endpoint of an attachment, unless it is there.
pub(super) fn put(tables: &SharedStore, record: &Record) -> Result<(), AttachError> {
    let Some(Attached {
        endpoint: id,
        port,
        mac,
        identity,
        ..
    }) = &record.attached
    else {
        return Ok(());
    };
    let mut refused = None;
    tables
        .update(|state| {
            if endpoint(state, record).is_some() {
                return Vec::new();
            }
            if let Some(other) = state.endpoint(*id) {
                // Somebody took the id meanwhile, and keeps it.
                refused = Some(AttachError::Different {
                    key: record.key.clone(),
                    why: format!("endpoint {id} is {}", other.name),
                });
                return Vec::new();
            }
            match pod_port(state, port) {
                Ok(port) => vec![Change::PutEndpoint(Endpoint {
                    id: *id,
                    name: record.endpoint_name(),
                    port,
                    mac: *mac,
                    identity: *identity,
                    addresses: record.addresses.clone(),
                    ingress_rate: 0,
                    egress_rate: 0,
                })],
                Err(error) => {
                    refused = Some(error);
                    Vec::new()
                }
            }
        })
        .map_err(|error| error.error)?;
    refused.map_or(Ok(()), Err)
}

/// Removes the endpoint of an attachment, if it is there, and its policy.
pub(super) fn remove(tables: &SharedStore, record: &Record) -> Result<(), AttachError> {
    tables
        .update(|state| removal(state, record))
        .map_err(|error| error.error)?;
    Ok(())
}

/// The same of one that was being made, whether that is saved or not: while transactions cannot be saved, neither is this.
pub(super) fn take_back(tables: &SharedStore, record: &Record) {
    if let Err(error) = tables.learn(|state| removal(state, record)) {
        warn!("container {}: {error}: its endpoint stays", record.key);
    }
}

fn removal(state: &State, record: &Record) -> Vec<Change> {
    let Some(endpoint) = endpoint(state, record) else {
        return Vec::new();
    };
    let id = endpoint.id;
    let policy = state.policy(id).map(|_| Change::RemovePolicy { endpoint: id });
    policy
        .into_iter()
        .chain([Change::RemoveEndpoint { id }])
        .collect()
}
