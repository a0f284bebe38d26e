//! Services.

use octoplane_api::v1;
use serde::{Deserialize, Serialize};

use super::is_default;
use super::names::{number, word};

const PROTOCOL: [&str; 3] = ["tcp", "udp", "sctp"];
const FRONTEND: [&str; 5] = [
    "cluster_ip",
    "node_port",
    "host_port",
    "external_ip",
    "load_balancer",
];
const BACKEND: [&str; 4] = ["active", "terminating", "quarantined", "maintenance"];
const ALGORITHM: [&str; 2] = ["random", "maglev"];
const POLICY: [&str; 2] = ["cluster", "local"];
pub(super) const FORWARDING: [&str; 3] = ["snat", "dsr", "hybrid"];

/// One port of a service; what is missing is at its default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    pub name: String,
    pub protocol: String,
    pub frontends: Vec<Frontend>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub backends: Vec<Backend>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub algorithm: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub affinity_seconds: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub source_ranges: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub source_ranges_deny: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub internal_policy: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub external_policy: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub forwarding: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub proxy_port: u16,
}

/// Where it answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frontend {
    pub address: String,
    pub port: u16,
    #[serde(default, skip_serializing_if = "is_default")]
    pub r#type: String,
}

/// What it stands for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    pub address: String,
    pub port: u16,
    #[serde(default, skip_serializing_if = "is_default")]
    pub weight: u16,
    #[serde(default, skip_serializing_if = "is_default")]
    pub state: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub local: bool,
}

impl Service {
    /// Addresses and ports where it answers.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, u16)> {
        self.frontends.iter().map(|it| (it.address.as_str(), it.port))
    }
}

impl TryFrom<Service> for v1::Service {
    type Error = String;

    fn try_from(it: Service) -> Result<Self, String> {
        let choice = |field: &str, words, text: &str| {
            number(&format!("service \"{}\": {field}", it.name), words, text)
        };
        let frontend = |(index, one): (usize, &Frontend)| {
            Ok::<_, String>(v1::Frontend {
                address: one.address.clone(),
                port: one.port.into(),
                r#type: choice(&format!("frontends[{index}].type"), &FRONTEND, &one.r#type)?,
            })
        };
        let backend = |(index, one): (usize, &Backend)| {
            Ok::<_, String>(v1::Backend {
                address: one.address.clone(),
                port: one.port.into(),
                weight: one.weight.into(),
                state: choice(&format!("backends[{index}].state"), &BACKEND, &one.state)?,
                local: one.local,
            })
        };
        Ok(Self {
            protocol: choice("protocol", &PROTOCOL, &it.protocol)?,
            frontends: it
                .frontends
                .iter()
                .enumerate()
                .map(frontend)
                .collect::<Result<_, _>>()?,
            backends: it
                .backends
                .iter()
                .enumerate()
                .map(backend)
                .collect::<Result<_, _>>()?,
            algorithm: choice("algorithm", &ALGORITHM, &it.algorithm)?,
            affinity_seconds: it.affinity_seconds,
            source_ranges: it.source_ranges.clone(),
            source_ranges_deny: it.source_ranges_deny,
            internal_policy: choice("internal_policy", &POLICY, &it.internal_policy)?,
            external_policy: choice("external_policy", &POLICY, &it.external_policy)?,
            forwarding: choice("forwarding", &FORWARDING, &it.forwarding)?,
            proxy_port: it.proxy_port.into(),
            name: it.name,
        })
    }
}

impl From<v1::Service> for Service {
    fn from(it: v1::Service) -> Self {
        let short = |value| u16::try_from(value).unwrap_or(0);
        let frontend = |it: v1::Frontend| Frontend {
            address: it.address,
            port: short(it.port),
            r#type: word(&FRONTEND, it.r#type),
        };
        let backend = |it: v1::Backend| Backend {
            address: it.address,
            port: short(it.port),
            weight: short(it.weight),
            state: word(&BACKEND, it.state),
            local: it.local,
        };
        Self {
            protocol: word(&PROTOCOL, it.protocol),
            frontends: it.frontends.into_iter().map(frontend).collect(),
            backends: it.backends.into_iter().map(backend).collect(),
            algorithm: word(&ALGORITHM, it.algorithm),
            affinity_seconds: it.affinity_seconds,
            source_ranges: it.source_ranges,
            source_ranges_deny: it.source_ranges_deny,
            internal_policy: word(&POLICY, it.internal_policy),
            external_policy: word(&POLICY, it.external_policy),
            forwarding: word(&FORWARDING, it.forwarding),
            proxy_port: short(it.proxy_port),
            name: it.name,
        }
    }
}
