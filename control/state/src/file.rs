//! The state file: what `apply` reads and `export` writes.

use std::io::Read as _;
use std::path::Path;

use octoplane_api::v1;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::schema::{Authentication, EgressGateway, Ipcache, Node, Policy, Service};

/// Objects of a kind of which one may be large, in one message.
const LARGE: usize = 32;

/// Everything that is programmed. What is missing is empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    pub endpoints: Vec<Endpoint>,
    pub routes: Vec<Route>,
    pub neighbours: Vec<Neighbour>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Node>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ipcache: Vec<Ipcache>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Policy>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress_gateways: Vec<EgressGateway>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authentications: Vec<Authentication>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    pub id: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub port: String,
    pub mac: String,
    pub identity: u32,
    pub addresses: Vec<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ingress_rate: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub egress_rate: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    pub prefix: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
}

/// Where a route leads that has no port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// To this machine's kernel.
    Host,
    /// Nowhere.
    Blackhole,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neighbour {
    pub port: String,
    pub address: String,
    pub mac: String,
    #[serde(default)]
    pub learned: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

/// A state file that was read.
#[derive(Debug)]
pub struct Source {
    /// What it is called in messages.
    pub name: String,
    /// As it is written.
    pub text: String,
    /// What it says.
    pub state: State,
}

/// A file that cannot be read, or does not say what it should: which, where and what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FileError(pub String);

/// Reads a file, or standard input for `-`. JSON is YAML.
///
/// # Errors
/// [`FileError`]
pub fn read(path: &Path) -> Result<Source, FileError> {
    let (name, text) = contents(path)?;
    let state = parse(&text).map_err(|error| FileError(format!("{name}: {error}")))?;
    Ok(Source { name, text, state })
}

/// Reads a file with one object or a list of them, or standard input for `-`.
///
/// # Errors
/// [`FileError`]
pub fn objects<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, FileError> {
    let (name, text) = contents(path)?;
    // What it is decides how it is read, so that a mistake is told of the right one.
    let first = text
        .lines()
        .map(str::trim_start)
        .find(|line| !line.is_empty() && !line.starts_with('#') && *line != "---");
    let objects = match first {
        Some(line) if line.starts_with(['-', '[']) => {
            serde_saphyr::from_str_with_options(&text, options()).map(Some)
        }
        _ => serde_saphyr::from_str_with_options::<Option<T>>(&text, options()).map(|one| Some(vec![one?])),
    };
    match objects {
        Ok(Some(objects)) => Ok(objects),
        // All of whose fields may be left out would be put as it is without any.
        Ok(None) => Err(FileError(format!("{name}: the file is empty"))),
        Err(error) => Err(FileError(format!("{name}: {error}"))),
    }
}

/// What a file is called in messages, and what it says.
fn contents(path: &Path) -> Result<(String, String), FileError> {
    let name = if path.as_os_str() == "-" {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    };
    let bad = |error: std::io::Error| FileError(format!("{name}: {error}"));
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).map_err(bad)?;
    } else {
        text = std::fs::read_to_string(path).map_err(bad)?;
    }
    Ok((name, text))
}

/// How YAML is read. The limits against hostile files would refuse 20,000 endpoints, and this file is the caller's own.
pub(crate) fn options() -> serde_saphyr::Options {
    serde_saphyr::options! { budget: None }
}

/// Reads a state.
///
/// # Errors
/// What is wrong with it, and in which line.
pub fn parse(text: &str) -> Result<State, String> {
    let first = text.trim_start().as_bytes().first();
    if first == Some(&b'{') {
        return serde_json::from_str(text).map_err(|error| error.to_string());
    }
    let state: Option<State> =
        serde_saphyr::from_str_with_options(text, options()).map_err(|error| error.to_string())?;
    // Nothing, comments or "null": almost surely a mistake, and it would remove everything.
    state.ok_or_else(|| "the file is empty; to remove everything write {}".into())
}

impl State {
    /// An entry as the data plane names it, "neighbours[3]", as it is named in the file: learned neighbours are not sent.
    pub fn entry(&self, sent: &str) -> String {
        let index = sent
            .strip_prefix("neighbours[")
            .and_then(|rest| rest.strip_suffix(']')?.parse().ok());
        let position = index.and_then(|index| {
            let mut programmed = self.neighbours.iter().enumerate().filter(|(_, it)| !it.learned);
            programmed.nth(index)
        });
        match position {
            Some((position, _)) => format!("neighbours[{position}]"),
            None => sent.to_owned(),
        }
    }

    /// The whole state as one message.
    ///
    /// # Errors
    /// A [`Mistake`] names the entry.
    pub fn into_request(self) -> Result<v1::ReplaceRequest, Mistake> {
        Ok(v1::ReplaceRequest {
            endpoints: self.endpoints.into_iter().map(Into::into).collect(),
            routes: named("routes", self.routes)?,
            // What was learned is not programmed; an exported file may hold it.
            neighbours: self
                .neighbours
                .into_iter()
                .filter(|it| !it.learned)
                .map(Into::into)
                .collect(),
            ports: named("ports", self.ports)?,
            node: named("node", self.node.into_iter().collect())?.pop(),
            ipcache: self.ipcache.into_iter().map(Into::into).collect(),
            services: named("services", self.services)?,
            policies: named("policies", self.policies)?,
            egress_gateways: self.egress_gateways.into_iter().map(Into::into).collect(),
            authentications: self.authentications.into_iter().map(Into::into).collect(),
            ..empty(false)
        })
    }

    /// As messages for the data plane, in chunks.
    ///
    /// # Errors
    /// A [`Mistake`] names the entry.
    pub fn into_requests(self, dry_run: bool) -> Result<Vec<v1::ReplaceRequest>, Mistake> {
        let all = self.into_request()?;
        let size = octoplane_api::CHUNK;
        let mut requests: Vec<v1::ReplaceRequest> = all
            .endpoints
            .chunks(size)
            .map(|part| v1::ReplaceRequest {
                endpoints: part.into(),
                ..empty(dry_run)
            })
            .collect();
        requests.extend(all.routes.chunks(size).map(|part| v1::ReplaceRequest {
            routes: part.into(),
            ..empty(dry_run)
        }));
        requests.extend(all.neighbours.chunks(size).map(|part| v1::ReplaceRequest {
            neighbours: part.into(),
            ..empty(dry_run)
        }));
        requests.extend(all.ipcache.chunks(size).map(|part| v1::ReplaceRequest {
            ipcache: part.into(),
            ..empty(dry_run)
        }));
        requests.extend(all.egress_gateways.chunks(size).map(|part| v1::ReplaceRequest {
            egress_gateways: part.into(),
            ..empty(dry_run)
        }));
        requests.extend(all.authentications.chunks(size).map(|part| v1::ReplaceRequest {
            authentications: part.into(),
            ..empty(dry_run)
        }));
        requests.extend(all.services.chunks(LARGE).map(|part| v1::ReplaceRequest {
            services: part.into(),
            ..empty(dry_run)
        }));
        requests.extend(all.policies.chunks(LARGE).map(|part| v1::ReplaceRequest {
            policies: part.into(),
            ..empty(dry_run)
        }));
        requests.push(v1::ReplaceRequest {
            node: all.node,
            ports: all.ports,
            ..empty(dry_run)
        });
        Ok(requests)
    }
}

fn empty(dry_run: bool) -> v1::ReplaceRequest {
    v1::ReplaceRequest {
        dry_run,
        ..Default::default()
    }
}

/// An entry of a file that cannot be.
#[derive(Debug)]
pub struct Mistake {
    /// As in "routes[1]".
    pub entry: String,
    /// What is wrong with it.
    pub text: String,
}

fn named<T: TryInto<M, Error = String>, M>(list: &str, objects: Vec<T>) -> Result<Vec<M>, Mistake> {
    let convert = |(index, object): (usize, T)| {
        object.try_into().map_err(|text| Mistake {
            entry: format!("{list}[{index}]"),
            text,
        })
    };
    objects.into_iter().enumerate().map(convert).collect()
}

impl From<Endpoint> for v1::Endpoint {
    fn from(it: Endpoint) -> Self {
        Self {
            id: it.id,
            name: it.name,
            port: it.port,
            mac: it.mac,
            identity: it.identity,
            addresses: it.addresses,
            ingress_rate: it.ingress_rate,
            egress_rate: it.egress_rate,
        }
    }
}

impl From<v1::Endpoint> for Endpoint {
    fn from(it: v1::Endpoint) -> Self {
        Self {
            id: it.id,
            name: it.name,
            port: it.port,
            mac: it.mac,
            identity: it.identity,
            addresses: it.addresses,
            ingress_rate: it.ingress_rate,
            egress_rate: it.egress_rate,
        }
    }
}

impl TryFrom<Route> for v1::Route {
    type Error = String;

    fn try_from(it: Route) -> Result<Self, String> {
        use v1::route::{Target as Message, Via};
        let target = match (it.target, it.port, it.via) {
            (Some(Target::Host), None, None) => Message::Host(true),
            (Some(Target::Blackhole), None, None) => Message::Blackhole(true),
            (None, Some(port), via) => Message::Via(Via {
                port,
                gateway: via.unwrap_or_default(),
            }),
            (None, None, Some(_)) => return Err(format!("route {}: via needs port", it.prefix)),
            _ => {
                return Err(format!(
                    "route {}: expected either port (with via) or target",
                    it.prefix
                ));
            }
        };
        Ok(Self {
            prefix: it.prefix,
            target: Some(target),
            mtu: it.mtu.unwrap_or(0).into(),
        })
    }
}

impl From<v1::Route> for Route {
    fn from(it: v1::Route) -> Self {
        use v1::route::Target as Message;
        let (target, port, via) = match it.target {
            Some(Message::Via(via)) => (
                None,
                Some(via.port),
                Some(via.gateway).filter(|text| !text.is_empty()),
            ),
            Some(Message::Host(_)) => (Some(Target::Host), None, None),
            Some(Message::Blackhole(_)) | None => (Some(Target::Blackhole), None, None),
        };
        Self {
            prefix: it.prefix,
            via,
            port,
            target,
            mtu: u16::try_from(it.mtu).ok().filter(|mtu| *mtu > 0),
        }
    }
}

impl From<Neighbour> for v1::Neighbour {
    fn from(it: Neighbour) -> Self {
        Self {
            port: it.port,
            address: it.address,
            mac: it.mac,
            learned: it.learned,
        }
    }
}

impl From<v1::Neighbour> for Neighbour {
    fn from(it: v1::Neighbour) -> Self {
        Self {
            port: it.port,
            address: it.address,
            mac: it.mac,
            learned: it.learned,
        }
    }
}

impl TryFrom<Port> for v1::Port {
    type Error = String;

    fn try_from(it: Port) -> Result<Self, String> {
        let admin_up = match it.admin.as_deref() {
            None => None,
            Some("up") => Some(true),
            Some("down") => Some(false),
            Some(other) => {
                return Err(format!(
                    "port {}: admin: \"{other}\", expected up or down",
                    it.name
                ));
            }
        };
        Ok(Self {
            name: it.name,
            mtu: it.mtu.unwrap_or(0).into(),
            admin_up,
            ..Default::default()
        })
    }
}

impl From<v1::Port> for Port {
    fn from(it: v1::Port) -> Self {
        let role = match it.role() {
            v1::Role::Pod => "pod",
            v1::Role::Uplink => "uplink",
            v1::Role::Host => "host",
            v1::Role::Unspecified => "unspecified",
        };
        Self {
            role: Some(role.into()),
            mac: Some(it.mac),
            mtu: u16::try_from(it.mtu).ok(),
            admin: Some(if it.admin_up == Some(false) { "down" } else { "up" }.into()),
            name: it.name,
            addresses: it.addresses,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_and_json_say_the_same() {
        let yaml = "
endpoints:
  - {id: 1, name: default/web, port: pod1, mac: '02:00:00:00:00:01', identity: 1001, addresses: [10.0.0.2, 'fd00::2']}
routes:
  - {prefix: 0.0.0.0/0, via: 192.0.2.1, port: uplink0, mtu: 1450}
  - {prefix: 10.9.0.0/16, target: blackhole}
ports:
  - {name: pod1, mtu: 1500, admin: up}
";
        let state = parse(yaml).unwrap();
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(parse(&json).unwrap(), state);
        assert_eq!(state.routes[0].mtu, Some(1450));
        let requests = state.into_requests(true).unwrap();
        assert!(requests.iter().all(|request| request.dry_run));
        assert_eq!(requests[0].endpoints[0].addresses, ["10.0.0.2", "fd00::2"]);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("endpoints:\n  - {id: 1, prot: x}", "prot"),
            ("endpoint: []", "endpoint"),
            ("routes:\n  - {prefix: 0.0.0.0/0, target: hots}", "hots"),
            ("", "empty"),
            ("{\"endpoints\": [}", "line 1"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let state =
            parse("routes:\n  - {prefix: 0.0.0.0/0, port: u}\n  - {prefix: 10.0.0.0/8, via: 192.0.2.1}")
                .unwrap();
        let mistake = state.into_requests(false).unwrap_err();
        assert_eq!(mistake.entry, "routes[1]");
        assert_eq!(mistake.text, "route 10.0.0.0/8: via needs port");
    }
}
