//! What workers look up for the first packet of a flow, brought up to date by every transaction.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::bucket::{Buckets, Rates};
use crate::egress_gateway::EgressTable;
use crate::event::ObjectKey;
use crate::fast_map::FastMap;
use crate::model::{AuthKey, Endpoint, Node};
use crate::node::NodeView;
use crate::policy::EndpointPolicy;
use crate::services::{Frontend, ServiceTable};
use crate::state::State;

/// Derived from a [`State`]. Cheap to copy.
#[derive(Clone)]
pub(crate) struct Views {
    pub(crate) node: Arc<NodeView>,
    pub(crate) services: ServiceTable,
    pub(crate) policies: FastMap<u32, Arc<EndpointPolicy>>,
    /// What holds for endpoints without policy.
    pub(crate) default_policy: Option<Arc<EndpointPolicy>>,
    pub(crate) egress: EgressTable,
    /// Who has authenticated, and until when.
    pub(crate) authentications: FastMap<AuthKey, u64>,
    /// Endpoints with any limit.
    pub(crate) buckets: FastMap<u32, Arc<Buckets>>,
}

impl Default for Views {
    fn default() -> Self {
        Self {
            node: Arc::new(NodeView::new(&Node::default())),
            services: ServiceTable::default(),
            policies: FastMap::default(),
            default_policy: None,
            egress: EgressTable::default(),
            authentications: FastMap::default(),
            buckets: FastMap::default(),
        }
    }
}

impl Views {
    /// Takes over what `changed` names: it may differ between `old` and `new`, nothing else does.
    pub(crate) fn update(&mut self, old: &State, new: &State, changed: &BTreeSet<ObjectKey>) {
        if old.node() != new.node() {
            self.node = Arc::new(NodeView::new(new.node()));
        }
        self.update_services(old, new, changed);
        self.update_policies(old, new, changed);
        for key in changed {
            match key {
                ObjectKey::Endpoint(id) => self.set_rates(*id, new.endpoint(*id)),
                ObjectKey::EgressGateway(key) => match new.egress_gateway(key) {
                    Some(rule) => self.egress.insert(rule, &new.remotes),
                    None => self.egress.remove(key),
                },
                ObjectKey::Authentication(key) => match new.authentication(key) {
                    Some(it) => _ = self.authentications.insert(*key, it.expires),
                    None => _ = self.authentications.remove(key),
                },
                _ => {}
            }
        }
    }

    fn update_services(&mut self, old: &State, new: &State, changed: &BTreeSet<ObjectKey>) {
        let mut names: BTreeSet<&Arc<str>> = changed
            .iter()
            .filter_map(|key| match key {
                ObjectKey::Service(name) => Some(name),
                _ => None,
            })
            .collect();
        if old.node().nodeport_addresses() != new.node().nodeport_addresses() {
            names.extend(old.surrogates.iter().chain(&new.surrogates));
        }
        // All that goes before all that comes: a frontend may move from one service to another.
        let removed: Vec<Vec<Arc<Frontend>>> = names
            .iter()
            .map(|name| match old.service(name) {
                Some(service) => self.services.remove(service, old.node()),
                None => Vec::new(),
            })
            .collect();
        for (name, removed) in names.into_iter().zip(&removed) {
            if let Some(service) = new.service(name) {
                self.services.insert(service, new.node(), &new.names, removed);
            }
        }
    }

    fn update_policies(&mut self, old: &State, new: &State, changed: &BTreeSet<ObjectKey>) {
        let settings = |node: &Node| (node.policy_mode, node.audit);
        if settings(old.node()) != settings(new.node()) {
            // They count for every policy.
            self.policies = FastMap::default();
            self.default_policy = EndpointPolicy::missing(new.node(), new.revision()).map(Arc::new);
            for policy in new.policies() {
                self.set_policy(policy.endpoint, new);
            }
            return;
        }
        for key in changed {
            if let ObjectKey::Policy(endpoint) = key {
                self.set_policy(*endpoint, new);
            }
        }
    }

    fn set_policy(&mut self, endpoint: u32, new: &State) {
        let policy = new
            .policy(endpoint)
            .and_then(|stored| EndpointPolicy::new(stored, new.node(), new.revision()));
        match policy {
            Some(policy) => _ = self.policies.insert(endpoint, Arc::new(policy)),
            None => _ = self.policies.remove(&endpoint),
        }
    }

    fn set_rates(&mut self, id: u32, endpoint: Option<&Endpoint>) {
        let rates = endpoint.map_or_else(Rates::default, |endpoint| Rates {
            ingress: endpoint.ingress_rate,
            egress: endpoint.egress_rate,
        });
        if rates == Rates::default() {
            self.buckets.remove(&id);
        } else if self.buckets.get(&id).is_none_or(|buckets| buckets.rates != rates) {
            self.buckets.insert(id, Arc::new(Buckets::new(rates)));
        }
    }
}
