//! A policy as the state keeps it.

use crate::model::{Policy, PolicyEntry, PolicyKey, PolicyValue};
use crate::policy::table::PolicyTable;

/// What one endpoint may talk to. A copy of it shares its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPolicy {
    /// Id of the endpoint; 0: the node.
    pub endpoint: u32,
    /// Whether what it receives must match an entry.
    pub enforce_ingress: bool,
    /// Whether what it sends must match an entry.
    pub enforce_egress: bool,
    /// Whether what is refused is allowed and reported only.
    pub audit: bool,
    pub(crate) table: PolicyTable,
}

impl StoredPolicy {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entries in no order.
    pub fn iter(&self) -> impl Iterator<Item = PolicyEntry> + '_ {
        self.table.iter()
    }

    /// What becomes of packets that exactly this key matches.
    pub fn get(&self, key: &PolicyKey) -> Option<&PolicyValue> {
        self.table.get(key)
    }

    /// The entries, sorted.
    pub fn entries(&self) -> Vec<PolicyEntry> {
        let mut entries: Vec<_> = self.table.iter().collect();
        entries.sort_unstable_by_key(|entry| entry.key);
        entries
    }

    /// All of it as the control plane would give it.
    pub fn to_model(&self) -> Policy {
        Policy {
            endpoint: self.endpoint,
            enforce_ingress: self.enforce_ingress,
            enforce_egress: self.enforce_egress,
            audit: self.audit,
            entries: self.entries(),
        }
    }
}
