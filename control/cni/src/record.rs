//! What is remembered of an attachment.

use std::fmt;
use std::net::IpAddr;

use octoplane_packet::MacAddr;
use serde::{Deserialize, Serialize};

use crate::error::AttachError;

/// Longest container id.
const MAX_CONTAINER: usize = 128;
/// Longest name of an interface (the kernel's IFNAMSIZ without the terminating NUL).
const MAX_INTERFACE: usize = 15;
/// Longest namespace, name of a pod or of a network.
const MAX_TEXT: usize = 253;

/// Which attachment: a container and the interface that it has from us.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// CNI_CONTAINERID.
    pub container: String,
    /// CNI_IFNAME.
    pub interface: String,
}

impl Key {
    /// Checks both texts: the names of files are made from them. `names` are those of the fields, for the error.
    ///
    /// # Errors
    /// [`AttachError::Field`]
    pub fn new(container: &str, interface: &str, names: [&'static str; 2]) -> Result<Self, AttachError> {
        for (text, most, name) in [
            (container, MAX_CONTAINER, names[0]),
            (interface, MAX_INTERFACE, names[1]),
        ] {
            if text.is_empty() {
                return Err(AttachError::missing(name));
            }
            let good = text.len() <= most
                && text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
            if !good {
                return Err(AttachError::Field {
                    field: name.into(),
                    why: format!(
                        "\"{}\" is invalid, expected 1 to {most} letters, digits, \"_\", \".\" and \"-\", a letter or digit first",
                        clip(text)
                    ),
                });
            }
        }
        Ok(Self {
            container: container.into(),
            interface: interface.into(),
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.container, self.interface)
    }
}

/// A pod by its names, which may be empty where there is no Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Pod {
    /// Checks the lengths.
    ///
    /// # Errors
    /// [`AttachError::Field`]
    pub fn new(namespace: String, name: String, names: [&'static str; 2]) -> Result<Self, AttachError> {
        check_length(&namespace, names[0])?;
        check_length(&name, names[1])?;
        Ok(Self { namespace, name })
    }
}

/// Refuses a text that is longer than any name.
pub(crate) fn check_length(text: &str, field: &str) -> Result<(), AttachError> {
    if text.len() > MAX_TEXT {
        return Err(AttachError::Field {
            field: field.into(),
            why: format!("is {} bytes long, expected at most {MAX_TEXT}", text.len()),
        });
    }
    Ok(())
}

/// An attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which one.
    pub key: Key,
    /// Who made it: name of the CNI network.
    pub network: String,
    /// For which pod.
    pub pod: Pod,
    /// Its addresses; may be empty while it is reserved.
    pub addresses: Vec<IpAddr>,
    /// Whether the addresses are from our pools.
    pub pooled: bool,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Index of the host's function that it uses.
    pub function: Option<u32>,
    /// What it has once it is attached.
    pub attached: Option<Attached>,
}

/// What an attachment has beside addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Id of its endpoint.
    pub endpoint: u32,
    /// Name of its port.
    pub port: String,
    /// The pod's Ethernet address.
    #[serde(with = "mac_text")]
    pub mac: MacAddr,
    /// Identity that the endpoint had at first.
    pub identity: u32,
    /// Labels of the pod.
    pub labels: Vec<String>,
}

impl Record {
    /// Name of the endpoint: "namespace/pod", or the container where there is no pod.
    pub fn endpoint_name(&self) -> String {
        let Pod { namespace, name } = &self.pod;
        let full = match (namespace.is_empty(), name.is_empty()) {
            (false, false) => format!("{namespace}/{name}"),
            (true, false) => name.clone(),
            _ => self.key.container.clone(),
        };
        full.chars()
            .scan(0, |length, c| {
                *length += c.len_utf8();
                (*length <= MAX_TEXT).then_some(c)
            })
            .collect()
    }
}

/// Texts from outside are not repeated at any length.
pub(crate) fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}

/// A MAC address as its text.
mod mac_text {
    use octoplane_packet::MacAddr;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(mac: &MacAddr, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(mac)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MacAddr, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}
