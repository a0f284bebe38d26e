//! The network's configuration, which comes on standard input (specification, "Plugin configuration objects").

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::{CniError, CniResult, Code, Version};

/// What the AF_PACKET driver takes (DPDK 22.11: frames of 1,514 bytes, whatever the interface could do).
const MAX_MTU: u32 = 1500;

/// Keys of the specification and our own. Others belong to the runtime, and are ignored.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NetConf {
    #[serde(default)]
    cni_version: String,
    /// Name of the network.
    #[serde(default)]
    pub(crate) name: String,
    /// Path of the daemon's control socket.
    #[serde(default = "default_socket")]
    pub(crate) socket: PathBuf,
    /// Largest IP packet in bytes, 1280 to [`MAX_MTU`].
    #[serde(default = "default_mtu")]
    pub(crate) mtu: u32,
    /// Whether pods get an IPv4 address; absent: if the daemon has a pool.
    pub(crate) ipv4: Option<bool>,
    /// Whether pods get an IPv6 address; absent: if the daemon has a pool.
    pub(crate) ipv6: Option<bool>,
    /// Descriptors of the port's queues, 64 to 32768.
    #[serde(default = "default_descriptors")]
    pub(crate) descriptors: u32,
    #[serde(default)]
    ip_masq: bool,
    #[serde(default)]
    pub(crate) ipam: Ipam,
    /// Passed on in the result.
    #[serde(default)]
    pub(crate) dns: Value,
    #[serde(default)]
    runtime_config: RuntimeConfig,
    prev_result: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<Attachment>>,
    /// The specification's name for the above in its drafts, which libcni still sends beside it.
    #[serde(rename = "cni.dev/attachments")]
    attachments: Option<Vec<Attachment>>,
    /// As it came.
    #[serde(skip)]
    pub(crate) text: Value,
}

/// Who gives addresses out.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Ipam {
    /// Name of a plugin; empty: the daemon.
    #[serde(default, rename = "type")]
    pub(crate) plugin: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct RuntimeConfig {
    #[serde(default)]
    mac: String,
    #[serde(default)]
    ips: Vec<String>,
}

/// An attachment that the runtime knows of.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Attachment {
    #[serde(rename = "containerID")]
    pub(crate) container: String,
    #[serde(rename = "ifname")]
    pub(crate) interface: String,
}

fn default_socket() -> PathBuf {
    octoplane_api::DEFAULT_SOCKET.into()
}

const fn default_mtu() -> u32 {
    1500
}

/// Enough for one pod, and little enough that many ports fit into the daemon's packet buffers.
const fn default_descriptors() -> u32 {
    256
}

impl NetConf {
    /// Reads a configuration and the version that it asks for.
    pub(crate) fn parse(text: &str) -> Result<(Self, Version), CniError> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| CniError::new(Code::Decode, format!("the configuration: {error}")))?;
        let mut conf: Self = serde_json::from_value(value.clone())
            .map_err(|error| CniError::new(Code::Conf, format!("the configuration: {error}")))?;
        conf.text = value;
        let version = Version::parse(&conf.cni_version)?;
        Ok((conf, version))
    }

    /// Checks what ADD and the others need.
    pub(crate) fn check(&self) -> Result<(), CniError> {
        let wrong = |text: String| Err(CniError::new(Code::Conf, text));
        if self.name.is_empty() || self.name.len() > 253 {
            return wrong(format!(
                "name: is {} bytes long, expected 1 to 253",
                self.name.len()
            ));
        }
        if !(1280..=MAX_MTU).contains(&self.mtu) {
            return wrong(format!(
                "mtu: {} is out of range, expected 1280 to {MAX_MTU} bytes",
                self.mtu
            ));
        }
        if !(64..=32_768).contains(&self.descriptors) {
            return wrong(format!(
                "descriptors: {} is out of range, expected 64 to 32768",
                self.descriptors
            ));
        }
        if self.ip_masq {
            return Err(CniError::new(
                Code::Unsupported,
                "ipMasq: true: the data plane masquerades, by the settings of the node",
            ));
        }
        Ok(())
    }

    /// The Ethernet address that the runtime wants.
    pub(crate) fn mac<'a>(&'a self, arg: Option<&'a str>) -> Option<&'a str> {
        Some(self.runtime_config.mac.as_str())
            .filter(|mac| !mac.is_empty())
            .or(arg)
    }

    /// The addresses that the runtime wants, without prefix lengths.
    pub(crate) fn addresses(&self, arg: Option<&str>) -> Result<Vec<IpAddr>, CniError> {
        let arg = arg.into_iter().flat_map(|texts| texts.split(','));
        let all = self.runtime_config.ips.iter().map(String::as_str).chain(arg);
        all.map(|text| {
            let bare = text.split_once('/').map_or(text, |(address, _)| address);
            bare.parse().map_err(|_| {
                CniError::new(
                    Code::Conf,
                    format!("\"{text}\" is not an address that a pod could have"),
                )
            })
        })
        .collect()
    }

    /// What plugins before us answered, or ADD did.
    pub(crate) fn previous(&self) -> Result<Option<CniResult>, CniError> {
        let parse = |value: &Value| CniResult::parse(value).map_err(|error| error.during("prevResult"));
        self.prev_result.as_ref().map(parse).transpose()
    }

    /// What GC must leave.
    pub(crate) fn valid_attachments(&self) -> Result<&[Attachment], CniError> {
        let found = self.valid_attachments.as_deref().or(self.attachments.as_deref());
        // To take a missing list for an empty one would remove everything.
        found.ok_or_else(|| CniError::new(Code::Conf, "cni.dev/valid-attachments: is missing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_what_is_passed_by() {
        let text = r#"{"cniVersion":"1.0.0","name":"n","type":"octoplane-cni","capabilities":{"mac":true},
            "runtimeConfig":{"mac":"02:00:00:00:00:09","ips":["10.0.0.5/24"]},"unknown":[1]}"#;
        let (conf, version) = NetConf::parse(text).unwrap();
        assert_eq!(version, Version::V1_0_0);
        conf.check().unwrap();
        assert_eq!((conf.mtu, conf.ipv4, conf.ipam.plugin.as_str()), (1500, None, ""));
        assert_eq!(conf.mac(Some("x")), Some("02:00:00:00:00:09"));
        assert_eq!(conf.addresses(Some("fd00::5")).unwrap().len(), 2);
        let error = conf.valid_attachments().unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (7, "cni.dev/valid-attachments: is missing")
        );
    }

    #[test]
    fn mistakes_have_the_codes_of_the_specification() {
        let code = |text: &str| {
            NetConf::parse(text)
                .and_then(|(conf, _)| conf.check())
                .map_or_else(|error| error.code, |()| 0)
        };
        assert_eq!(code("{"), 6);
        assert_eq!(code("[]"), 7);
        assert_eq!(code(r#"{"name":"n"}"#), 1);
        assert_eq!(code(r#"{"cniVersion":"0.2.0","name":"n"}"#), 1);
        assert_eq!(code(r#"{"cniVersion":"9.0.0","name":"n"}"#), 1);
        assert_eq!(code(r#"{"cniVersion":"1.1.0"}"#), 7);
        assert_eq!(code(r#"{"cniVersion":"1.1.0","name":"n","mtu":1000}"#), 7);
        assert_eq!(code(r#"{"cniVersion":"1.1.0","name":"n","ipMasq":true}"#), 2);
        assert_eq!(code(r#"{"cniVersion":"1.1.0","name":"n"}"#), 0);
    }
}
