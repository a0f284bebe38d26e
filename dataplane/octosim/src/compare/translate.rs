//! The same configuration for the model: its objects deserialise from almost the same text.

use octoplane_model::config as model;
use octoplane_state::State;
use octoplane_tables::model::{Port, Role};
use serde_json::{Value, json};

use crate::setup::Setup;

/// The ports as the model has them.
pub(super) fn ports(setup: &Setup) -> model::Ports {
    setup.ports.iter().map(port).collect()
}

fn port(it: &Port) -> model::Port {
    model::Port {
        name: it.name.clone(),
        role: match it.role {
            Role::Pod => model::Role::Pod,
            Role::Uplink => model::Role::Uplink,
            Role::Host => model::Role::Host,
        },
        mac: model::Mac(it.mac.0),
        mtu: it.mtu,
        admin_up: it.admin_up,
        addresses: it
            .addresses
            .iter()
            .map(|&(addr, len)| model::Prefix { addr, len })
            .collect(),
    }
}

/// The tables as the model has them.
///
/// # Errors
/// What the model does not understand.
pub(super) fn state(setup: &Setup, state: &State) -> Result<model::State, String> {
    let mut it = serde_json::to_value(state).map_err(|error| error.to_string())?;
    let Some(object) = it.as_object_mut() else {
        return Err("the state is no object".into());
    };
    object.remove("ports");
    let mut node = object.remove("node").unwrap_or_else(|| json!({}));
    node["router4"] = setup.gateways.ipv4.to_string().into();
    node["router6"] = setup.gateways.ipv6.to_string().into();
    object.insert("node".into(), node);
    for neighbour in list(object, "neighbours") {
        remove(neighbour, "learned");
    }
    for route in list(object, "routes") {
        let target = remove(route, "target");
        let via = remove(route, "via").unwrap_or_default();
        let port = remove(route, "port");
        route["target"] = match (target, port) {
            (Some(target), _) => target,
            (None, port) => json!({"via": {"port": port, "gateway": via}}),
        };
    }
    for policy in list(object, "policies") {
        if policy["endpoint"] == 0 {
            policy["endpoint"] = "host".into();
        }
    }
    for rule in list(object, "egress_gateways") {
        if rule["gateway"] == "missing" {
            rule["gateway"] = "".into();
        }
    }
    serde_json::from_value(it).map_err(|error| error.to_string())
}

fn list<'a>(
    object: &'a mut serde_json::Map<String, Value>,
    name: &str,
) -> impl Iterator<Item = &'a mut Value> {
    object
        .get_mut(name)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

fn remove(object: &mut Value, field: &str) -> Option<Value> {
    object.as_object_mut().and_then(|object| object.remove(field))
}
