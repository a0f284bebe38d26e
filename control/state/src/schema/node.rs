//! The settings of the node.

use octoplane_api::v1;
use serde::{Deserialize, Serialize};

use super::is_default;
use super::names::{number, word};
use super::service::FORWARDING;

const ROUTING: [&str; 2] = ["native", "tunnel"];
const TUNNEL: [&str; 2] = ["vxlan", "geneve"];
const POLICY_MODE: [&str; 3] = ["default", "always", "never"];
const DSR_DISPATCH: [&str; 3] = ["opt", "geneve", "ipip"];
const NO_BACKEND: [&str; 2] = ["reject", "drop"];

/// The settings of the node; what is missing is at its default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    #[serde(default, skip_serializing_if = "is_default")]
    pub addresses: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub masquerade4: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub masquerade6: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub native_cidrs: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub nodeport_addresses: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub nodeport_min: u16,
    #[serde(default, skip_serializing_if = "is_default")]
    pub nodeport_max: u16,
    #[serde(default, skip_serializing_if = "is_default")]
    pub routing: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub tunnel: Tunnel,
    #[serde(default, skip_serializing_if = "is_default")]
    pub policy_mode: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub audit: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub policy_deny_response: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_backend: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub forwarding: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub dsr: Dsr,
}

/// Direct server return.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dsr {
    #[serde(default, skip_serializing_if = "is_default")]
    pub dispatch: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub source4: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub source6: String,
}

/// Our end of all tunnels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tunnel {
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub port: u16,
    #[serde(default, skip_serializing_if = "is_default")]
    pub local4: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub local6: String,
}

impl TryFrom<Node> for v1::Node {
    type Error = String;

    fn try_from(it: Node) -> Result<Self, String> {
        let choice = |field, words, text: &str| number(&format!("node: {field}"), words, text);
        Ok(Self {
            addresses: it.addresses,
            masquerade4: it.masquerade4,
            masquerade6: it.masquerade6,
            native_cidrs: it.native_cidrs,
            nodeport_addresses: it.nodeport_addresses,
            nodeport_min: it.nodeport_min.into(),
            nodeport_max: it.nodeport_max.into(),
            routing: choice("routing", &ROUTING, &it.routing)?,
            tunnel: Some(v1::Tunnel {
                protocol: choice("tunnel.protocol", &TUNNEL, &it.tunnel.protocol)?,
                port: it.tunnel.port.into(),
                local4: it.tunnel.local4,
                local6: it.tunnel.local6,
            }),
            policy_mode: choice("policy_mode", &POLICY_MODE, &it.policy_mode)?,
            audit: it.audit,
            policy_deny_response: it.policy_deny_response,
            no_backend: choice("no_backend", &NO_BACKEND, &it.no_backend)?,
            forwarding: choice("forwarding", &FORWARDING, &it.forwarding)?,
            dsr: Some(v1::Dsr {
                dispatch: choice("dsr.dispatch", &DSR_DISPATCH, &it.dsr.dispatch)?,
                source4: it.dsr.source4,
                source6: it.dsr.source6,
            }),
        })
    }
}

impl From<v1::Node> for Node {
    fn from(it: v1::Node) -> Self {
        let tunnel = it.tunnel.unwrap_or_default();
        let dsr = it.dsr.unwrap_or_default();
        Self {
            addresses: it.addresses,
            masquerade4: it.masquerade4,
            masquerade6: it.masquerade6,
            native_cidrs: it.native_cidrs,
            nodeport_addresses: it.nodeport_addresses,
            nodeport_min: u16::try_from(it.nodeport_min).unwrap_or(0),
            nodeport_max: u16::try_from(it.nodeport_max).unwrap_or(0),
            routing: word(&ROUTING, it.routing),
            tunnel: Tunnel {
                protocol: word(&TUNNEL, tunnel.protocol),
                port: u16::try_from(tunnel.port).unwrap_or(0),
                local4: tunnel.local4,
                local6: tunnel.local6,
            },
            policy_mode: word(&POLICY_MODE, it.policy_mode),
            audit: it.audit,
            policy_deny_response: it.policy_deny_response,
            no_backend: word(&NO_BACKEND, it.no_backend),
            forwarding: word(&FORWARDING, it.forwarding),
            dsr: Dsr {
                dispatch: word(&DSR_DISPATCH, dsr.dispatch),
                source4: dsr.source4,
                source6: dsr.source6,
            },
        }
    }
}
