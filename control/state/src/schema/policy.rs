//! Policies.

use octoplane_api::v1;
use serde::{Deserialize, Serialize};

use super::is_default;
use super::names::{number, word};

const DIRECTION: [&str; 2] = ["ingress", "egress"];

/// What one endpoint may talk to; endpoint 0 is the node itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    pub endpoint: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub enforce_ingress: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub enforce_egress: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub audit: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub entries: Vec<PolicyEntry>,
}

/// One entry of a policy; zeros stand for anything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyEntry {
    pub direction: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub identity: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: u8,
    #[serde(default, skip_serializing_if = "is_default")]
    pub port: u16,
    #[serde(default, skip_serializing_if = "is_default")]
    pub port_prefix_len: u8,
    #[serde(default, skip_serializing_if = "is_default")]
    pub deny: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub proxy_port: u16,
    #[serde(default, skip_serializing_if = "is_default")]
    pub auth_type: u8,
    #[serde(default, skip_serializing_if = "is_default")]
    pub auth_explicit: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub precedence: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub cookie: u32,
}

impl TryFrom<Policy> for v1::Policy {
    type Error = String;

    fn try_from(it: Policy) -> Result<Self, String> {
        let entry = |(index, entry): (usize, PolicyEntry)| {
            let field = format!("policy of {}: entries[{index}].direction", it.endpoint);
            Ok::<_, String>(v1::PolicyEntry {
                direction: number(&field, &DIRECTION, &entry.direction)?,
                identity: entry.identity,
                protocol: entry.protocol.into(),
                port: entry.port.into(),
                port_prefix_len: entry.port_prefix_len.into(),
                deny: entry.deny,
                proxy_port: entry.proxy_port.into(),
                auth_type: entry.auth_type.into(),
                auth_explicit: entry.auth_explicit,
                precedence: entry.precedence,
                cookie: entry.cookie,
            })
        };
        Ok(Self {
            endpoint: it.endpoint,
            enforce_ingress: it.enforce_ingress,
            enforce_egress: it.enforce_egress,
            audit: it.audit,
            entries: it
                .entries
                .into_iter()
                .enumerate()
                .map(entry)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<v1::Policy> for Policy {
    fn from(it: v1::Policy) -> Self {
        let byte = |value| u8::try_from(value).unwrap_or(0);
        let short = |value| u16::try_from(value).unwrap_or(0);
        let entry = |it: v1::PolicyEntry| PolicyEntry {
            direction: word(&DIRECTION, it.direction),
            identity: it.identity,
            protocol: byte(it.protocol),
            port: short(it.port),
            port_prefix_len: byte(it.port_prefix_len),
            deny: it.deny,
            proxy_port: short(it.proxy_port),
            auth_type: byte(it.auth_type),
            auth_explicit: it.auth_explicit,
            precedence: it.precedence,
            cookie: it.cookie,
        };
        Self {
            endpoint: it.endpoint,
            enforce_ingress: it.enforce_ingress,
            enforce_egress: it.enforce_egress,
            audit: it.audit,
            entries: it.entries.into_iter().map(entry).collect(),
        }
    }
}
