//! What would happen to a packet.

use octoplane_api::v1;
use octoplane_api::v1::explain_step::Entry;
use octoplane_api::v1::observe_client::ObserveClient;
use octoplane_state::explanation_value;
use tonic::transport::Channel;

use crate::cli::Format;
use crate::error::Failure;
use crate::flow::{protocol, side};
use crate::output::{print, table, write};

pub(crate) async fn run(
    channel: Channel,
    request: v1::ExplainRequest,
    format: Format,
) -> Result<(), Failure> {
    let mut client = ObserveClient::new(channel).max_decoding_message_size(usize::MAX);
    let it = client.explain(request).await?.into_inner();
    if format != Format::Table {
        return print(&explanation_value(&it), format);
    }
    let packet = it.packet.clone().unwrap_or_default();
    write(&format!(
        "{} from {} to {}, tables at revision {}\n\n",
        protocol(&packet),
        side(&packet.source, packet.source_port),
        side(&packet.destination, packet.destination_port),
        it.revision
    ));
    let stage = |it: &v1::ExplainStep| {
        let name = it.stage().as_str_name();
        name.strip_prefix("EXPLAIN_STAGE_")
            .unwrap_or(name)
            .to_ascii_lowercase()
            .replace('_', "-")
    };
    let rows: Vec<_> = it.steps.iter().map(|it| [stage(it), it.text.clone()]).collect();
    table(["step", "what comes of it"], &rows);
    for service in it.steps.iter().filter_map(|it| match &it.entry {
        Some(Entry::Service(service)) => Some(service),
        _ => None,
    }) {
        candidates(service);
    }
    if let Some(connection) = &it.connection {
        let state = connection.state().as_str_name();
        let state = state.strip_prefix("FLOW_STATE_").unwrap_or(state);
        write(&format!(
            "\nIts connection is there: {}, {} s without a packet, ends in {} s.\n",
            state.to_ascii_lowercase(),
            connection.idle_seconds,
            connection.expires_seconds
        ));
    }
    let answer = it.answer.unwrap_or_default();
    let as_what = answer.packet.as_ref().filter(|it| **it != packet);
    let as_what = as_what.map(|it| {
        let (from, to) = (
            side(&it.source, it.source_port),
            side(&it.destination, it.destination_port),
        );
        format!("\n  as {from} to {to}")
    });
    write(&format!("\n=> {}{}\n", answer.text, as_what.unwrap_or_default()));
    Ok(())
}

/// The backends that the packet might get.
fn candidates(service: &v1::ServiceChoice) {
    if service.candidates.is_empty() {
        return;
    }
    write(&format!("\nbackends of {}\n", service.name));
    let row = |it: &v1::ServiceCandidate| {
        let backend = it.backend.clone().unwrap_or_default();
        let state = backend.state().as_str_name();
        let chosen = service.backend.as_ref() == Some(&backend);
        let answer = match (&it.answer, it.eligible) {
            (Some(answer), _) => answer.text.clone(),
            (None, true) => "-".into(),
            (None, false) => "gets no new connections".into(),
        };
        [
            if chosen { "*" } else { "" }.into(),
            side(&backend.address, backend.port),
            state
                .strip_prefix("BACKEND_STATE_")
                .unwrap_or(state)
                .to_ascii_lowercase(),
            answer,
        ]
    };
    let rows: Vec<_> = service.candidates.iter().map(row).collect();
    table(["", "backend", "state", "what becomes of the packet"], &rows);
}
