//! Policies.

use octoplane_api::v1;
use octoplane_tables::StoredPolicy;
use octoplane_tables::model::{
    Change, Direction, HOST_ENDPOINT, Policy, PolicyEntry, PolicyKey, PolicyValue,
};

use crate::field::Fields;
use crate::mistake::Mistake;

/// What a policy is called.
pub fn policy_name(endpoint: u32) -> String {
    if endpoint == HOST_ENDPOINT {
        "policy of the host".into()
    } else {
        format!("policy of endpoint {endpoint}")
    }
}

/// A policy in the tables' terms.
pub fn policy(message: &v1::Policy) -> Result<Policy, Mistake> {
    Ok(Policy {
        endpoint: message.endpoint,
        enforce_ingress: message.enforce_ingress,
        enforce_egress: message.enforce_egress,
        audit: message.audit,
        entries: entries(message.endpoint, &message.entries)?,
    })
}

/// The change that sets some entries of a policy.
pub(crate) fn put_entries(message: &v1::PolicyEntries) -> Result<Change, Mistake> {
    Ok(Change::PutPolicyEntries {
        endpoint: message.endpoint,
        entries: entries(message.endpoint, &message.entries)?,
    })
}

/// The change that removes some entries of a policy.
pub(crate) fn remove_entries(message: &v1::PolicyEntries) -> Result<Change, Mistake> {
    let entries = entries(message.endpoint, &message.entries)?;
    Ok(Change::RemovePolicyEntries {
        endpoint: message.endpoint,
        keys: entries.into_iter().map(|entry| entry.key).collect(),
    })
}

fn entries(endpoint: u32, messages: &[v1::PolicyEntry]) -> Result<Vec<PolicyEntry>, Mistake> {
    let object = policy_name(endpoint);
    let it = Fields { object: &object };
    let read = |(index, message)| entry(it, &format!("entries[{index}]"), message);
    messages.iter().enumerate().map(read).collect()
}

fn entry(it: Fields<'_>, field: &str, message: &v1::PolicyEntry) -> Result<PolicyEntry, Mistake> {
    let word = |name, value| it.word(&format!("{field}.{name}"), value);
    let byte = |name, value| it.byte(&format!("{field}.{name}"), value);
    let direction = format!("{field}.direction");
    Ok(PolicyEntry {
        key: PolicyKey {
            direction: match it.choice(&direction, message.direction)? {
                v1::PolicyDirection::Ingress => Direction::Ingress,
                v1::PolicyDirection::Egress => Direction::Egress,
                v1::PolicyDirection::Unspecified => {
                    return Err(it.refuse(&direction, "is missing, expected ingress or egress"));
                }
            },
            identity: message.identity,
            protocol: byte("protocol", message.protocol)?,
            port: word("port", message.port)?,
            port_prefix_len: byte("port_prefix_len", message.port_prefix_len)?,
        },
        value: PolicyValue {
            deny: message.deny,
            proxy_port: word("proxy_port", message.proxy_port)?,
            auth_type: byte("auth_type", message.auth_type)?,
            auth_explicit: message.auth_explicit,
            precedence: message.precedence,
            cookie: message.cookie,
        },
    })
}

/// A policy as a message, its entries by key.
pub fn policy_message(policy: &StoredPolicy) -> v1::Policy {
    v1::Policy {
        endpoint: policy.endpoint,
        enforce_ingress: policy.enforce_ingress,
        enforce_egress: policy.enforce_egress,
        audit: policy.audit,
        entries: policy.entries().iter().map(policy_entry_message).collect(),
    }
}

/// An entry as a message.
pub fn policy_entry_message(PolicyEntry { key, value }: &PolicyEntry) -> v1::PolicyEntry {
    v1::PolicyEntry {
        direction: match key.direction {
            Direction::Ingress => v1::PolicyDirection::Ingress,
            Direction::Egress => v1::PolicyDirection::Egress,
        }
        .into(),
        identity: key.identity,
        protocol: key.protocol.into(),
        port: key.port.into(),
        port_prefix_len: key.port_prefix_len.into(),
        deny: value.deny,
        proxy_port: value.proxy_port.into(),
        auth_type: value.auth_type.into(),
        auth_explicit: value.auth_explicit,
        precedence: value.precedence,
        cookie: value.cookie,
    }
}
