//! Verdicts and drops as messages.

use octoplane_api::v1;
use octoplane_engine::{Dropped, Event, EventKind, PolicyVerdict};
use octoplane_tables::{MatchType, State};

use crate::flow::tuple_message;

/// An event of a worker as a message. `time` is when it happened, in nanoseconds since 1970; ports are named by `state`.
#[must_use]
pub fn event_message(state: &State, worker: u32, time: u64, event: &Event) -> v1::PacketEvent {
    let kind = match &event.kind {
        EventKind::Verdict(it) => v1::packet_event::Kind::Verdict(verdict_message(it)),
        EventKind::Drop(it) => v1::packet_event::Kind::Drop(drop_message(state, it)),
    };
    v1::PacketEvent {
        time,
        worker,
        kind: Some(kind),
    }
}

/// What a policy says as a message, without the entry.
#[must_use]
pub fn verdict_message(it: &PolicyVerdict) -> v1::PolicyVerdict {
    let decided = &it.decided;
    // What audit mode lets pass would have been dropped for this.
    let reason = match (it.reason(), decided.audited, decided.match_type) {
        (Some(reason), _, _) => Some(reason),
        (None, true, MatchType::None) => Some(octoplane_engine::DropReason::PolicyDenied),
        (None, true, _) => Some(octoplane_engine::DropReason::PolicyDenylist),
        (None, false, _) => None,
    };
    let result = match (it.reason(), decided.audited, decided.proxy_port) {
        (Some(_), _, _) => v1::PolicyResult::Deny,
        (None, true, _) => v1::PolicyResult::Audit,
        (None, false, 0) => v1::PolicyResult::Allow,
        (None, false, _) => v1::PolicyResult::Proxy,
    };
    v1::PolicyVerdict {
        endpoint: it.endpoint,
        direction: match it.egress {
            true => v1::PolicyDirection::Egress,
            false => v1::PolicyDirection::Ingress,
        }
        .into(),
        local_identity: it.local,
        remote_identity: it.remote,
        packet: Some(tuple_message(&it.tuple)),
        port: it.port.into(),
        result: result.into(),
        code: reason.map_or(0, |it| it.code().into()),
        reason: reason.map_or("", |it| it.text()).into(),
        proxy_port: decided.proxy_port.into(),
        r#match: match decided.match_type {
            MatchType::None => v1::PolicyMatch::None,
            MatchType::L3Only => v1::PolicyMatch::L3Only,
            MatchType::L3L4 => v1::PolicyMatch::L3L4,
            MatchType::L4Only => v1::PolicyMatch::L4Only,
            MatchType::All => v1::PolicyMatch::All,
            MatchType::L3Proto => v1::PolicyMatch::L3Proto,
            MatchType::ProtoOnly => v1::PolicyMatch::ProtoOnly,
        }
        .into(),
        auth_type: decided.auth_type.into(),
        cookie: decided.cookie,
        enforced: it.enforced,
        first: it.first,
        entry: None,
    }
}

/// A drop as a message.
#[must_use]
pub fn drop_message(state: &State, it: &Dropped) -> v1::PacketDrop {
    v1::PacketDrop {
        code: it.reason.code().into(),
        reason: it.reason.text().into(),
        direction: it.direction.name().into(),
        in_port: state.port_set().name(it.port),
        packet: it.tuple.as_ref().map(tuple_message),
        source_endpoint: it.endpoints[0],
        destination_endpoint: it.endpoints[1],
        source_identity: it.identities[0],
        destination_identity: it.identities[1],
        length: it.len,
    }
}
