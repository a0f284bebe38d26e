//! What is known of addresses elsewhere.

use octoplane_api::v1;
use serde::{Deserialize, Serialize};

use super::is_default;

/// Who lives behind a prefix.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ipcache {
    pub prefix: String,
    pub identity: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub tunnel_endpoint: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub key: u8,
    #[serde(default, skip_serializing_if = "is_default")]
    pub skip_tunnel: bool,
}

/// Which node traffic leaves from: its address, or "missing" or "excluded".
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressGateway {
    pub source: String,
    pub destination: String,
    pub gateway: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub egress_ip: String,
}

/// Two sides that have authenticated, until `expires` (seconds since 1970 UTC). Without `remote_node` both are on this node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authentication {
    pub local_identity: u32,
    pub remote_identity: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub remote_node: String,
    pub auth_type: u8,
    pub expires: u64,
}

impl From<Authentication> for v1::Authentication {
    fn from(it: Authentication) -> Self {
        Self {
            local_identity: it.local_identity,
            remote_identity: it.remote_identity,
            remote_node: it.remote_node,
            auth_type: it.auth_type.into(),
            expires: it.expires,
        }
    }
}

impl From<v1::Authentication> for Authentication {
    fn from(it: v1::Authentication) -> Self {
        Self {
            local_identity: it.local_identity,
            remote_identity: it.remote_identity,
            remote_node: it.remote_node,
            auth_type: u8::try_from(it.auth_type).unwrap_or(0),
            expires: it.expires,
        }
    }
}

impl From<Ipcache> for v1::Ipcache {
    fn from(it: Ipcache) -> Self {
        Self {
            prefix: it.prefix,
            identity: it.identity,
            tunnel_endpoint: it.tunnel_endpoint,
            key: it.key.into(),
            skip_tunnel: it.skip_tunnel,
        }
    }
}

impl From<v1::Ipcache> for Ipcache {
    fn from(it: v1::Ipcache) -> Self {
        Self {
            prefix: it.prefix,
            identity: it.identity,
            tunnel_endpoint: it.tunnel_endpoint,
            key: u8::try_from(it.key).unwrap_or(0),
            skip_tunnel: it.skip_tunnel,
        }
    }
}

impl From<EgressGateway> for v1::EgressGateway {
    fn from(it: EgressGateway) -> Self {
        use v1::egress_gateway::Gateway;
        Self {
            source: it.source,
            destination: it.destination,
            gateway: Some(match it.gateway.as_str() {
                "missing" => Gateway::Missing(true),
                "excluded" => Gateway::Excluded(true),
                _ => Gateway::Node(it.gateway),
            }),
            egress_ip: it.egress_ip,
        }
    }
}

impl From<v1::EgressGateway> for EgressGateway {
    fn from(it: v1::EgressGateway) -> Self {
        use v1::egress_gateway::Gateway;
        Self {
            source: it.source,
            destination: it.destination,
            gateway: match it.gateway {
                Some(Gateway::Node(addr)) => addr,
                Some(Gateway::Excluded(_)) => "excluded".into(),
                Some(Gateway::Missing(_)) | None => "missing".into(),
            },
            egress_ip: it.egress_ip,
        }
    }
}
