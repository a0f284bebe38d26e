//! Explanations and events as JSON, for `octoctl` and `octosim`: the messages' fields, enumerations by their names in lower
//! case, and what is empty left out.

use octoplane_api::v1;
use octoplane_api::v1::explain_step::Entry;
use serde_json::{Map, Value, json};

use crate::{EgressGateway, Endpoint, Ipcache, Neighbour, Policy, Route};

/// The name of a value without that of its enumeration.
fn name(prefix: &str, name: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

/// Without what is empty.
fn compact(value: Value) -> Value {
    let Value::Object(fields) = value else {
        return value;
    };
    let empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(it) => it.as_u64() == Some(0),
        Value::String(it) => it.is_empty(),
        Value::Array(it) => it.is_empty(),
        Value::Bool(true) | Value::Object(_) => false,
    };
    let kept: Map<_, _> = fields.into_iter().filter(|(_, value)| !empty(value)).collect();
    Value::Object(kept)
}

fn tuple(it: &v1::FlowTuple) -> Value {
    compact(json!({
        "source": it.source, "destination": it.destination, "source_port": it.source_port,
        "destination_port": it.destination_port, "protocol": it.protocol, "zone": it.zone,
    }))
}

/// What would happen to a packet.
#[must_use]
pub fn explanation_value(it: &v1::Explanation) -> Value {
    compact(json!({
        "revision": it.revision,
        "packet": it.packet.as_ref().map(tuple),
        "in_port": it.in_port,
        "steps": it.steps.iter().map(step).collect::<Vec<_>>(),
        "answer": it.answer.as_ref().map(answer),
        "connection": it.connection.as_ref().map(flow),
    }))
}

fn step(it: &v1::ExplainStep) -> Value {
    let mut value = json!({
        "stage": name("EXPLAIN_STAGE_", it.stage().as_str_name()), "text": it.text,
    });
    let (kind, entry) = match it.entry.clone() {
        None => return value,
        Some(Entry::Endpoint(it)) => ("endpoint", json!(Endpoint::from(it))),
        Some(Entry::Route(it)) => ("route", json!(Route::from(it))),
        Some(Entry::Neighbour(it)) => ("neighbour", json!(Neighbour::from(it))),
        Some(Entry::Ipcache(it)) => ("ipcache", json!(Ipcache::from(it))),
        Some(Entry::EgressGateway(it)) => ("egress_gateway", json!(EgressGateway::from(it))),
        Some(Entry::Service(it)) => ("service", service(&it)),
        Some(Entry::Policy(it)) => ("policy", verdict_value(&it)),
        Some(Entry::Tuple(it)) => ("tuple", tuple(&it)),
    };
    value[kind] = entry;
    value
}

fn backend(it: &v1::Backend) -> Value {
    compact(json!({
        "address": it.address, "port": it.port, "weight": it.weight,
        "state": name("BACKEND_STATE_", it.state().as_str_name()), "local": it.local,
    }))
}

fn service(it: &v1::ServiceChoice) -> Value {
    let frontend = it.frontend.as_ref().map(|it| {
        json!({
            "address": it.address, "port": it.port, "type": name("FRONTEND_TYPE_", it.r#type().as_str_name()),
        })
    });
    let candidate = |it: &v1::ServiceCandidate| {
        compact(json!({
            "backend": it.backend.as_ref().map(backend), "eligible": it.eligible,
            "answer": it.answer.as_ref().map(answer),
        }))
    };
    let choice = it
        .backend
        .as_ref()
        .map(|_| name("BACKEND_CHOICE_", it.choice().as_str_name()));
    compact(json!({
        "name": it.name, "frontend": frontend, "inside": it.inside, "choice": choice,
        "backend": it.backend.as_ref().map(backend),
        "candidates": it.candidates.iter().map(candidate).collect::<Vec<_>>(),
    }))
}

fn answer(it: &v1::ExplainAnswer) -> Value {
    compact(json!({
        "outcome": name("EXPLAIN_OUTCOME_", it.outcome().as_str_name()), "text": it.text,
        "packet": it.packet.as_ref().map(tuple), "port": it.port, "mac": it.mac, "endpoint": it.endpoint,
        "node": it.node, "encrypted": it.encrypted, "code": it.code, "reason": it.reason, "told": it.told,
    }))
}

fn flow(it: &v1::Flow) -> Value {
    let side = |it: &v1::FlowDirection| {
        compact(json!({
            "tuple": it.tuple.as_ref().map(tuple), "translated": it.translated, "decided": it.decided,
            "current": it.current, "in_port": it.in_port, "identity": it.identity,
        }))
    };
    json!({
        "forward": it.forward.as_ref().map(side), "reply": it.reply.as_ref().map(side),
        "state": name("FLOW_STATE_", it.state().as_str_name()), "idle_seconds": it.idle_seconds,
        "expires_seconds": it.expires_seconds,
    })
}

/// What a policy says of a packet. Endpoint, identities and cookie are there even if they are 0.
#[must_use]
pub fn verdict_value(it: &v1::PolicyVerdict) -> Value {
    let mut value = compact(json!({
        "direction": name("POLICY_DIRECTION_", it.direction().as_str_name()),
        "packet": it.packet.as_ref().map(tuple), "port": it.port,
        "result": name("POLICY_RESULT_", it.result().as_str_name()), "code": it.code, "reason": it.reason,
        "proxy_port": it.proxy_port, "match": name("POLICY_MATCH_", it.r#match().as_str_name()),
        "auth_type": it.auth_type, "enforced": it.enforced, "first": it.first,
    }));
    value["endpoint"] = it.endpoint.into();
    value["local_identity"] = it.local_identity.into();
    value["remote_identity"] = it.remote_identity.into();
    value["cookie"] = it.cookie.into();
    if let Some(entry) = &it.entry {
        let policy = Policy::from(v1::Policy {
            entries: vec![*entry],
            ..Default::default()
        });
        value["entry"] = json!(policy.entries.first());
    }
    value
}

/// A packet that was dropped.
#[must_use]
pub fn drop_value(it: &v1::PacketDrop) -> Value {
    compact(json!({
        "code": it.code, "reason": it.reason, "direction": it.direction, "in_port": it.in_port,
        "packet": it.packet.as_ref().map(tuple), "source_endpoint": it.source_endpoint,
        "destination_endpoint": it.destination_endpoint, "source_identity": it.source_identity,
        "destination_identity": it.destination_identity, "length": it.length,
    }))
}

/// An event, with either "verdict" or "drop".
#[must_use]
pub fn packet_event_value(it: &v1::PacketEvent) -> Value {
    let mut value = json!({"time": it.time, "worker": it.worker});
    match &it.kind {
        Some(v1::packet_event::Kind::Verdict(it)) => value["verdict"] = verdict_value(it),
        Some(v1::packet_event::Kind::Drop(it)) => value["drop"] = drop_value(it),
        None => {}
    }
    value
}
