//! Policies.

use std::sync::Arc;

use crate::error::ChangeError;
use crate::model::{Direction, HOST_ENDPOINT, MAX_IDENTITY, Policy, PolicyEntry, PolicyKey, PolicyValue};
use crate::policy::{PolicyTable, StoredPolicy};
use crate::state::State;
use crate::store::Capacity;
use crate::validate::field;

/// Highest authentication type: what 7 bits hold (specification of the datapath, section 2.5).
pub(super) const MAX_AUTH_TYPE: u8 = 127;

impl State {
    pub(super) fn put_policy(&mut self, policy: Policy, capacity: &Capacity) -> Result<(), ChangeError> {
        let endpoint = policy.endpoint;
        let old = self.policies.get(&endpoint);
        if old.is_none() && self.policies.len() >= capacity.policies {
            return Err(ChangeError::TableFull {
                table: "policies",
                size: capacity.policies,
            });
        }
        let mut table = PolicyTable::default();
        for (index, entry) in policy.entries.iter().enumerate() {
            put(&mut table, endpoint, index, entry, capacity)?
                .map_or(Ok(()), |_| Err(twice(endpoint, index, &entry.key)))?;
        }
        let new = StoredPolicy {
            endpoint,
            enforce_ingress: policy.enforce_ingress,
            enforce_egress: policy.enforce_egress,
            audit: policy.audit,
            table,
        };
        if old.is_none_or(|old| **old != new) {
            self.policies.insert(endpoint, Arc::new(new));
        }
        Ok(())
    }

    pub(super) fn put_policy_entries(
        &mut self,
        endpoint: u32,
        entries: &[PolicyEntry],
        capacity: &Capacity,
    ) -> Result<(), ChangeError> {
        self.edit_policy(endpoint, |table| {
            let mut changed = false;
            for (index, entry) in entries.iter().enumerate() {
                changed |= put(table, endpoint, index, entry, capacity)? != Some(entry.value);
            }
            Ok(changed)
        })
    }

    pub(super) fn remove_policy_entries(
        &mut self,
        endpoint: u32,
        keys: &[PolicyKey],
    ) -> Result<(), ChangeError> {
        self.edit_policy(endpoint, |table| {
            for (index, key) in keys.iter().enumerate() {
                check_key(endpoint, &format!("keys[{index}]"), key)?;
                table.remove(key).ok_or_else(|| ChangeError::NotFound {
                    object: format!("{}: entry {}", object(endpoint), show(key)),
                })?;
            }
            Ok(!keys.is_empty())
        })
    }

    pub(super) fn remove_policy(&mut self, endpoint: u32) -> Result<(), ChangeError> {
        let gone = self.policies.remove(&endpoint);
        gone.map(drop).ok_or_else(|| missing(endpoint))
    }

    /// Edits the entries of a policy; unless `edit` says that they changed, the policy stays the same.
    fn edit_policy(
        &mut self,
        endpoint: u32,
        edit: impl FnOnce(&mut PolicyTable) -> Result<bool, ChangeError>,
    ) -> Result<(), ChangeError> {
        let old = self.policies.get(&endpoint).ok_or_else(|| missing(endpoint))?;
        let mut new = StoredPolicy::clone(old);
        if edit(&mut new.table)? {
            self.policies.insert(endpoint, Arc::new(new));
        }
        Ok(())
    }
}

fn object(endpoint: u32) -> String {
    if endpoint == HOST_ENDPOINT {
        "policy of the host".into()
    } else {
        format!("policy of endpoint {endpoint}")
    }
}

fn missing(endpoint: u32) -> ChangeError {
    ChangeError::NotFound {
        object: object(endpoint),
    }
}

/// Sets an entry; returns what it was before.
fn put(
    table: &mut PolicyTable,
    endpoint: u32,
    index: usize,
    entry: &PolicyEntry,
    capacity: &Capacity,
) -> Result<Option<PolicyValue>, ChangeError> {
    let name = format!("entries[{index}]");
    check_key(endpoint, &name, &entry.key)?;
    let value = &entry.value;
    if value.auth_type > MAX_AUTH_TYPE {
        return Err(field(
            object(endpoint),
            &name,
            format!(
                "auth_type {} is out of range, expected 0 to {MAX_AUTH_TYPE}",
                value.auth_type
            ),
        ));
    }
    if value.deny && value.proxy_port != 0 {
        return Err(field(
            object(endpoint),
            &name,
            format!(
                "proxy_port {} of an entry that denies, expected 0",
                value.proxy_port
            ),
        ));
    }
    if table.get(&entry.key).is_none() && table.len() >= capacity.policy_entries {
        return Err(ChangeError::TableFull {
            table: "policy_entries",
            size: capacity.policy_entries,
        });
    }
    Ok(table.insert(&entry.key, *value))
}

fn check_key(endpoint: u32, name: &str, key: &PolicyKey) -> Result<(), ChangeError> {
    let refuse = |why: String| Err(field(object(endpoint), name, why));
    if key.identity > MAX_IDENTITY {
        return refuse(format!(
            "identity {} is out of range, expected 0 to {MAX_IDENTITY}",
            key.identity
        ));
    }
    if key.port_prefix_len > 16 {
        return refuse(format!(
            "port_prefix_len {} is out of range, expected 0 to 16",
            key.port_prefix_len
        ));
    }
    if key.protocol == 0 && key.port_prefix_len != 0 {
        return refuse(format!(
            "port_prefix_len {} without protocol, expected 0",
            key.port_prefix_len
        ));
    }
    let mask = u16::MAX
        .checked_shl(16 - u32::from(key.port_prefix_len))
        .unwrap_or(0);
    if key.port & !mask != 0 {
        return refuse(format!(
            "port {} has bits behind port_prefix_len {}, expected {}",
            key.port,
            key.port_prefix_len,
            key.port & mask
        ));
    }
    Ok(())
}

fn twice(endpoint: u32, index: usize, key: &PolicyKey) -> ChangeError {
    field(
        object(endpoint),
        &format!("entries[{index}]"),
        format!("{} is given twice", show(key)),
    )
}

fn show(key: &PolicyKey) -> String {
    format!(
        "{} identity {} protocol {} port {}/{}",
        match key.direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        },
        key.identity,
        key.protocol,
        key.port,
        key.port_prefix_len
    )
}
