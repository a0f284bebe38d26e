//! What a transaction changed.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use octoplane_packet::Prefix;

use crate::model::{
    AuthKey, Authentication, Change, EgressGatewayRule, EgressKey, Endpoint, IpcacheEntry, Neighbour, Node,
    Port, PortId, Route, Service,
};
use crate::policy::StoredPolicy;
use crate::ports::Ports;
use crate::state::State;

/// One object, as it is now or, if it was removed, as it was last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// An endpoint.
    Endpoint(Arc<Endpoint>),
    /// A route.
    Route(Route),
    /// A neighbour.
    Neighbour(Neighbour),
    /// A port.
    Port(Port),
    /// The settings of this node.
    Node(Arc<Node>),
    /// What is known of a prefix.
    Ipcache(IpcacheEntry),
    /// A service.
    Service(Arc<Service>),
    /// A policy.
    Policy(Arc<StoredPolicy>),
    /// An egress-gateway rule.
    EgressGateway(EgressGatewayRule),
    /// An authentication.
    Authentication(Authentication),
}

impl Object {
    /// Whether nothing changed from `self` to `other`.
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            // A change that changes nothing keeps the policy; its entries need not be compared.
            (Self::Policy(one), Self::Policy(other)) => Arc::ptr_eq(one, other),
            _ => self == other,
        }
    }
}

/// One object changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The revision that this made.
    pub revision: u64,
    /// What changed.
    pub object: Object,
    /// Whether it is gone; else it is new or different.
    pub removed: bool,
}

/// A transaction that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The revision of the tables now. Unchanged if there are no events.
    pub revision: u64,
    /// What is different; what was put as it already was is not listed.
    pub events: Vec<Event>,
    /// The ports that events name: those that are there now, and those that this transaction removed.
    pub ports: Ports,
}

/// Names an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ObjectKey {
    Endpoint(u32),
    Route(Prefix),
    Neighbour(PortId, IpAddr),
    Port(PortId),
    Node,
    Ipcache(Prefix),
    Service(Arc<str>),
    Policy(u32),
    EgressGateway(EgressKey),
    Authentication(AuthKey),
}

impl ObjectKey {
    /// The objects that a transaction on `state` is about.
    pub(crate) fn touched(changes: &[Change], state: &State) -> BTreeSet<Self> {
        let mut touched: BTreeSet<Self> = changes.iter().map(Self::of).collect();
        for change in changes {
            if let Change::RemovePort { id } = change {
                // What was learned on a port goes with it.
                touched.extend(
                    state
                        .learned_on(*id)
                        .iter()
                        .map(|it| Self::Neighbour(*id, it.addr)),
                );
            }
        }
        touched
    }

    /// The object a change is about.
    fn of(change: &Change) -> Self {
        match change {
            Change::PutEndpoint(endpoint) => Self::Endpoint(endpoint.id),
            Change::RemoveEndpoint { id } => Self::Endpoint(*id),
            Change::PutRoute(route) => Self::Route(route.prefix),
            Change::RemoveRoute { prefix } => Self::Route(*prefix),
            Change::PutNeighbour(neighbour) => Self::Neighbour(neighbour.port, neighbour.addr),
            Change::RemoveNeighbour { port, addr } => Self::Neighbour(*port, *addr),
            Change::AddPort(port) => Self::Port(port.id),
            Change::SetPort { id, .. } | Change::RemovePort { id } => Self::Port(*id),
            Change::PutNode(_) | Change::RemoveNode => Self::Node,
            Change::PutIpcache(IpcacheEntry { prefix, .. }) | Change::RemoveIpcache { prefix } => {
                Self::Ipcache(*prefix)
            }
            Change::PutService(service) => Self::Service(service.name.as_str().into()),
            Change::RemoveService { name } => Self::Service(name.as_str().into()),
            Change::PutPolicy(policy) => Self::Policy(policy.endpoint),
            Change::PutPolicyEntries { endpoint, .. }
            | Change::RemovePolicyEntries { endpoint, .. }
            | Change::RemovePolicy { endpoint } => Self::Policy(*endpoint),
            Change::PutEgressGateway(EgressGatewayRule { key, .. }) | Change::RemoveEgressGateway { key } => {
                Self::EgressGateway(*key)
            }
            Change::PutAuthentication(Authentication { key, .. }) | Change::RemoveAuthentication { key } => {
                Self::Authentication(*key)
            }
        }
    }

    fn object(&self, state: &State) -> Option<Object> {
        match self {
            Self::Endpoint(id) => state.endpoints.get(id).cloned().map(Object::Endpoint),
            Self::Route(prefix) => state.route(prefix).cloned().map(Object::Route),
            Self::Neighbour(port, addr) => state.neighbour(*port, *addr).copied().map(Object::Neighbour),
            Self::Port(id) => state.port(*id).cloned().map(Object::Port),
            Self::Node => state.node.clone().map(Object::Node),
            Self::Ipcache(prefix) => state.ipcache_entry(prefix).map(Object::Ipcache),
            Self::Service(name) => state.services.get(name).cloned().map(Object::Service),
            Self::Policy(endpoint) => state.policies.get(endpoint).cloned().map(Object::Policy),
            Self::EgressGateway(key) => state.egress_gateway(key).copied().map(Object::EgressGateway),
            Self::Authentication(key) => state.authentication(key).copied().map(Object::Authentication),
        }
    }
}

/// How the touched objects differ between two states.
pub(crate) fn diff(old: &State, new: &State, touched: &BTreeSet<ObjectKey>) -> Committed {
    let revision = new.revision();
    let mut events = Vec::new();
    let mut ports = new.ports.clone();
    for key in touched {
        match (key.object(old), key.object(new)) {
            (before, Some(object)) if !before.as_ref().is_some_and(|before| before.same(&object)) => {
                events.push(Event {
                    revision,
                    object,
                    removed: false,
                });
            }
            (Some(object), None) => {
                if let Object::Port(port) = &object {
                    ports.insert(port.clone());
                }
                events.push(Event {
                    revision,
                    object,
                    removed: true,
                });
            }
            _ => {}
        }
    }
    Committed {
        revision,
        events,
        ports,
    }
}
