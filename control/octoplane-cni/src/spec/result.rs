//! What ADD answers (specification, "ADD success"), in the form of the version that was asked for.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{CniError, Code, Version};

/// The form of 1.1.0, of which the others are parts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CniResult {
    #[serde(default)]
    pub(crate) interfaces: Vec<Interface>,
    #[serde(default)]
    pub(crate) ips: Vec<Ip>,
    #[serde(default)]
    pub(crate) routes: Vec<Route>,
    #[serde(default)]
    pub(crate) dns: Value,
}

/// An interface that was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interface {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) mac: String,
    /// Since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mtu: Option<u32>,
    /// Path of the network namespace; empty: that of the host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) sandbox: String,
    /// What else there is since 1.1.0, of plugins before this one.
    #[serde(flatten)]
    pub(crate) rest: Map<String, Value>,
}

/// An address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ip {
    /// With its prefix length.
    pub(crate) address: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) gateway: String,
    /// Index into the interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interface: Option<usize>,
}

/// A route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Route {
    pub(crate) dst: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) gw: String,
    /// Since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mtu: Option<u32>,
    /// What else there is since 1.1.0, of plugins before this one.
    #[serde(flatten)]
    pub(crate) rest: Map<String, Value>,
}

impl CniResult {
    /// Reads a result of any version: what older ones lack is absent, what they have besides follows from the rest.
    pub(crate) fn parse(value: &Value) -> Result<Self, CniError> {
        Self::deserialize(value).map_err(|error| CniError::new(Code::Decode, error.to_string()))
    }

    /// In the form of a version.
    pub(crate) fn to_json(&self, version: Version) -> Value {
        let mut result = self.clone();
        if version < Version::V1_1_0 {
            for interface in &mut result.interfaces {
                interface.mtu = None;
                interface.rest.clear();
            }
            for route in &mut result.routes {
                route.mtu = None;
                route.rest.clear();
            }
        }
        let mut printed = match serde_json::to_value(&result) {
            Ok(Value::Object(printed)) => printed,
            _ => Map::new(),
        };
        printed.insert("cniVersion".into(), version.to_string().into());
        // Always an object, if an empty one.
        if !self.dns.is_object() {
            printed.insert("dns".into(), Map::new().into());
        }
        if version < Version::V1_0_0
            && let Some(Value::Array(ips)) = printed.get_mut("ips")
        {
            for (value, ip) in ips.iter_mut().zip(&self.ips) {
                if let Value::Object(value) = value {
                    let family = if ip.address.contains(':') { "6" } else { "4" };
                    value.insert("version".into(), family.into());
                }
            }
        }
        printed.into()
    }

    /// What came before, with ours behind it.
    pub(crate) fn behind(mut self, previous: Option<Self>) -> Self {
        let Some(mut all) = previous else { return self };
        let shift = all.interfaces.len();
        for ip in &mut self.ips {
            ip.interface = ip.interface.map(|index| index + shift);
        }
        all.interfaces.append(&mut self.interfaces);
        all.ips.append(&mut self.ips);
        all.routes.append(&mut self.routes);
        if !self.dns.is_null() {
            all.dns = self.dns;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn result() -> CniResult {
        CniResult {
            interfaces: vec![
                Interface {
                    name: "oct0".into(),
                    mac: "02:00:00:00:00:01".into(),
                    mtu: Some(1500),
                    ..Interface::default()
                },
                Interface {
                    name: "eth0".into(),
                    sandbox: "/run/netns/x".into(),
                    ..Interface::default()
                },
            ],
            ips: ["10.0.0.2/32", "fd00::2/128"]
                .map(|address| Ip {
                    address: address.into(),
                    gateway: String::new(),
                    interface: Some(1),
                })
                .into(),
            routes: vec![Route {
                dst: "0.0.0.0/0".into(),
                gw: "169.254.1.1".into(),
                mtu: Some(1400),
                ..Route::default()
            }],
            dns: Value::Null,
        }
    }

    #[test]
    fn each_version_has_its_form() {
        let of = |version| result().to_json(version);
        for version in [Version::V0_3_1, Version::V0_4_0] {
            let json = of(version);
            assert_eq!(json["cniVersion"], version.to_string());
            assert_eq!(
                json["ips"][0],
                json!({"version": "4", "address": "10.0.0.2/32", "interface": 1})
            );
            assert_eq!(json["ips"][1]["version"], "6");
            assert_eq!(
                json["interfaces"][0],
                json!({"name": "oct0", "mac": "02:00:00:00:00:01"})
            );
            assert_eq!(json["dns"], json!({}));
        }
        let json = of(Version::V1_0_0);
        assert_eq!(json["ips"][0], json!({"address": "10.0.0.2/32", "interface": 1}));
        assert_eq!(
            json["routes"][0],
            json!({"dst": "0.0.0.0/0", "gw": "169.254.1.1"})
        );
        let json = of(Version::V1_1_0);
        assert_eq!(json["interfaces"][0]["mtu"], 1500);
        assert_eq!(json["routes"][0]["mtu"], 1400);
    }

    #[test]
    fn any_version_can_be_read_again() {
        for version in super::super::SUPPORTED {
            let read = CniResult::parse(&result().to_json(version)).unwrap();
            assert_eq!(read.ips, result().ips, "{version}");
        }
    }

    /// Specification 1.1.0, "ADD Success".
    #[test]
    fn what_other_plugins_say_is_passed_on() {
        let theirs = json!({
            "cniVersion": "1.1.0",
            "interfaces": [{"name": "eth0", "socketPath": "/run/vhost", "pciID": "0002:02:00.1"}],
            "ips": [],
            "routes": [{"dst": "0.0.0.0/0", "advmss": 1300, "priority": 5, "table": 7, "scope": 253}],
            "dns": {"nameservers": ["10.0.0.10"]},
        });
        let read = CniResult::parse(&theirs).unwrap();
        assert_eq!(read.to_json(Version::V1_1_0), theirs);
        let older = read.to_json(Version::V1_0_0);
        assert_eq!(older["interfaces"], json!([{"name": "eth0"}]));
        assert_eq!(older["routes"], json!([{"dst": "0.0.0.0/0"}]));
    }

    #[test]
    fn what_came_before_stays_and_is_counted() {
        let all = result().behind(Some(CniResult {
            interfaces: vec![Interface::default()],
            ..CniResult::default()
        }));
        assert_eq!(all.interfaces.len(), 3);
        assert_eq!(all.ips[0].interface, Some(2));
    }
}
