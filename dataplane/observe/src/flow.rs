//! Connections and tuples as messages.

use octoplane_api::v1;
use octoplane_engine::{DirectionView, FlowState, FlowView};
use octoplane_flow::Tuple;
use octoplane_tables::State;

/// A tuple as a message.
#[must_use]
pub fn tuple_message(tuple: &Tuple) -> v1::FlowTuple {
    v1::FlowTuple {
        source: tuple.src().to_string(),
        destination: tuple.dst().to_string(),
        source_port: tuple.sport().into(),
        destination_port: tuple.dport().into(),
        protocol: tuple.protocol().into(),
        zone: tuple.zone().into(),
    }
}

/// A connection as a message. Ports are named by `state`.
#[must_use]
pub fn flow_message(state: &State, view: &FlowView) -> v1::Flow {
    v1::Flow {
        forward: Some(direction(state, &view.forward)),
        reply: Some(direction(state, &view.reply)),
        state: match view.state {
            FlowState::Syn => v1::FlowState::Syn,
            FlowState::Established => v1::FlowState::Established,
            FlowState::Closing => v1::FlowState::Closing,
            FlowState::Open => v1::FlowState::Open,
        }
        .into(),
        idle_seconds: view.idle,
        expires_seconds: view.expires,
    }
}

fn direction(state: &State, view: &DirectionView) -> v1::FlowDirection {
    let mut message = v1::FlowDirection {
        tuple: Some(tuple_message(&view.tuple)),
        ..Default::default()
    };
    if let Some(decided) = view.decided {
        message.decided = true;
        message.translated = decided.translated;
        message.current = decided.current;
        message.in_port = state.port_set().name(decided.in_port);
        message.identity = decided.identity;
        message.target = decided.target;
    }
    message
}
