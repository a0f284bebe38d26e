//! From what a transaction changed to what has to be written.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use octoplane_api::v1;
use octoplane_tables::{Committed, Object, State, StoredPolicy};
use prost::Message as _;

use super::rows::{Kind, authentication, entry, number, pair};
use crate::convert;

/// Rows to write, by key; `None` for those that go.
pub(super) type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Turns transactions into rows, one after the other.
#[derive(Default)]
pub(super) struct Recorder {
    /// Policies as they were written last.
    policies: HashMap<u32, Arc<StoredPolicy>>,
}

impl Recorder {
    /// Goes on from rows that say what `state` has.
    pub(super) fn new(state: &State) -> Self {
        let policies = state.shared_policies();
        Self {
            policies: policies.map(|it| (it.endpoint, Arc::clone(it))).collect(),
        }
    }

    /// Adds what a transaction changed, and made into `state`.
    pub(super) fn record(&mut self, committed: &Committed, state: &State, writes: &mut Writes) {
        let ports = &committed.ports;
        for event in &committed.events {
            let (key, value) = match &event.object {
                Object::Endpoint(it) => (
                    Kind::Endpoint.key(&number(it.id)),
                    convert::endpoint_message(ports, it).encode_to_vec(),
                ),
                Object::Route(it) => (
                    Kind::Route.key(it.prefix.to_string().as_bytes()),
                    convert::route_message(ports, it).encode_to_vec(),
                ),
                Object::Neighbour(it) => (
                    Kind::Neighbour.key(&pair(&ports.name(it.port), &it.addr.to_string())),
                    convert::neighbour_message(ports, it).encode_to_vec(),
                ),
                Object::Port(it) => {
                    let key = Kind::Port.key(it.name.as_bytes());
                    if event.removed {
                        writes.insert(Kind::AddedPort.key(it.name.as_bytes()), None);
                    }
                    let mtu = if state.mtu_limit(it.id) == Some(it.mtu) {
                        0
                    } else {
                        it.mtu
                    };
                    if event.removed || (mtu == 0 && it.admin_up) {
                        writes.insert(key, None);
                        continue;
                    }
                    let message = v1::Port {
                        name: it.name.clone(),
                        mtu: mtu.into(),
                        admin_up: Some(it.admin_up),
                        ..Default::default()
                    };
                    (key, message.encode_to_vec())
                }
                Object::Node(it) => (Kind::Node.key(&[]), convert::node_message(it).encode_to_vec()),
                Object::Ipcache(it) => (
                    Kind::Ipcache.key(it.prefix.to_string().as_bytes()),
                    convert::ipcache_message(it).encode_to_vec(),
                ),
                Object::Service(it) => (
                    Kind::Service.key(it.name.as_bytes()),
                    convert::service_message(it).encode_to_vec(),
                ),
                Object::Policy(it) => {
                    self.policy(it, event.removed, writes);
                    continue;
                }
                Object::EgressGateway(it) => (
                    Kind::EgressGateway
                        .key(&pair(&it.key.source.to_string(), &it.key.destination.to_string())),
                    convert::egress_gateway_message(it).encode_to_vec(),
                ),
                Object::Authentication(it) => {
                    let message = convert::authentication_message(it);
                    (
                        Kind::Authentication.key(&authentication(&message)),
                        message.encode_to_vec(),
                    )
                }
            };
            writes.insert(key, (!event.removed).then_some(value));
        }
    }

    /// Only the entries that are different: a policy may have 65,536.
    fn policy(&mut self, policy: &Arc<StoredPolicy>, removed: bool, writes: &mut Writes) {
        let endpoint = policy.endpoint;
        let old = match removed {
            true => self.policies.remove(&endpoint),
            false => self.policies.insert(endpoint, Arc::clone(policy)),
        };
        let head = v1::Policy {
            endpoint,
            enforce_ingress: policy.enforce_ingress,
            enforce_egress: policy.enforce_egress,
            audit: policy.audit,
            entries: Vec::new(),
        };
        let key = Kind::Policy.key(&number(endpoint));
        writes.insert(key, (!removed).then(|| head.encode_to_vec()));
        let key = |message: &v1::PolicyEntry| Kind::PolicyEntry.key(&entry(endpoint, message));
        for it in old.iter().flat_map(|old| old.iter()) {
            if removed || policy.get(&it.key).is_none() {
                writes.insert(key(&convert::policy_entry_message(&it)), None);
            }
        }
        if removed {
            return;
        }
        for it in policy.iter() {
            if old.as_ref().and_then(|old| old.get(&it.key)) != Some(&it.value) {
                let message = convert::policy_entry_message(&it);
                writes.insert(key(&message), Some(message.encode_to_vec()));
            }
        }
    }
}

/// The row of a port that came over the API.
pub(super) fn added_port(request: &v1::AddPortRequest) -> (Vec<u8>, Option<Vec<u8>>) {
    (
        Kind::AddedPort.key(request.name.as_bytes()),
        Some(request.encode_to_vec()),
    )
}
