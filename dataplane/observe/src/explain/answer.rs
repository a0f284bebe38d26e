//! What becomes of the packet.

use std::net::IpAddr;

use octoplane_api::v1;
use octoplane_engine::{Fate, Step, Trace};
use octoplane_flow::Tuple;
use octoplane_packet::MacAddr;
use octoplane_tables::{Action, State, Target};

use super::question::Question;
use crate::flow::tuple_message;

/// What it leaves with, if that was decided; the target; the other node, and whether a tunnel leads to it.
type Way<'a> = (Option<&'a Tuple>, &'a Target, Option<(IpAddr, bool)>);

/// Where it goes: what was decided for its connection, or the route of one that needs none.
fn way(trace: &Trace) -> Option<Way<'_>> {
    let decided = trace.steps.iter().rev().find_map(|step| match step {
        Step::Way { out, target, node } => Some((Some(out), target, *node)),
        _ => None,
    });
    let routed = || {
        trace.steps.iter().rev().find_map(|step| match step {
            Step::Route { target, .. } => Some((None, target, None)),
            _ => None,
        })
    };
    decided.or_else(routed)
}

/// The answer.
pub(super) fn message(state: &State, question: &Question, trace: &Trace) -> v1::ExplainAnswer {
    let name = |port| state.port_set().name(port);
    let mut answer = v1::ExplainAnswer::default();
    let (out, target, node) = match way(trace) {
        Some((out, target, node)) => (out.unwrap_or(&question.tuple), Some(target), node),
        None => (&question.tuple, None, None),
    };
    let mac = trace.frame.first_chunk().map(|mac| MacAddr(*mac).to_string());
    let mac = mac.unwrap_or_default();
    match trace.fate {
        Some(Fate::Sent { port } | Fate::Encrypted { port }) => {
            answer.encrypted = matches!(trace.fate, Some(Fate::Encrypted { .. }));
            let sealed = if answer.encrypted { "encrypted, " } else { "" };
            answer.port = name(port);
            answer.packet = Some(tuple_message(out));
            answer.mac = mac;
            let port = &answer.port;
            let mac = &answer.mac;
            (answer.outcome, answer.text) = match (target, node) {
                (_, Some((addr, true))) => {
                    answer.node = addr.to_string();
                    let text = format!("{sealed}sent in a tunnel to node {addr} by port {port} to {mac}");
                    (v1::ExplainOutcome::Tunnelled.into(), text)
                }
                (Some(target), _) if target.action == Action::Deliver => {
                    answer.endpoint = target.endpoint;
                    let endpoint = endpoint(state, target.endpoint);
                    let text = format!("delivered to {endpoint} by port {port} to {mac}");
                    (v1::ExplainOutcome::Delivered.into(), text)
                }
                (_, node) => {
                    answer.node = node.map(|(addr, _)| addr.to_string()).unwrap_or_default();
                    let text = format!("{sealed}sent by port {port} to {mac}");
                    (v1::ExplainOutcome::Sent.into(), text)
                }
            };
        }
        Some(Fate::Host { port }) => {
            answer.outcome = v1::ExplainOutcome::Host.into();
            answer.port = name(port);
            answer.packet = Some(tuple_message(out));
            answer.text = format!("given to this node's kernel by port {}", answer.port);
        }
        Some(Fate::Dropped { reason, told }) => {
            answer.outcome = v1::ExplainOutcome::Dropped.into();
            answer.code = reason.code().into();
            answer.reason = reason.text().into();
            answer.told = told;
            let told = if told { ", and the sender is told" } else { "" };
            answer.text = format!("dropped: {} ({}){told}", reason.text(), reason.code());
        }
        Some(Fate::Waits { port, addr }) => {
            answer.outcome = v1::ExplainOutcome::Waits.into();
            answer.port = name(port);
            answer.packet = Some(tuple_message(out));
            answer.node = addr.to_string();
            answer.text = format!(
                "waits for the Ethernet address of {addr} on port {}, which is asked for",
                answer.port
            );
        }
        Some(Fate::Answered) => {
            answer.outcome = v1::ExplainOutcome::Answered.into();
            answer.text = "answered by the data plane".into();
        }
        Some(Fate::Consumed | Fate::Decrypted | Fate::WaitsForFragment) | None => {
            answer.outcome = v1::ExplainOutcome::Consumed.into();
            answer.text = "ends here".into();
        }
    }
    answer
}

/// An endpoint for people.
pub(super) fn endpoint(state: &State, id: u32) -> String {
    match state.endpoint(id).map(|it| it.name.as_str()) {
        Some(name) if !name.is_empty() => format!("endpoint {id} ({name})"),
        _ => format!("endpoint {id}"),
    }
}
