//! Going through the table.

use octoplane_api::v1;
use octoplane_flow::{FlowRef, FlowTable};

use super::filter::Filter;
use crate::dataplane::Dataplane;

/// Connections that are looked at in one go, and take some ten milliseconds.
const SCANNED: usize = 1 << 17;

/// A part of the table.
pub(super) struct Part {
    /// What fits.
    pub(super) flows: Vec<v1::Flow>,
    /// Where to go on, if there is more.
    pub(super) next: Option<u32>,
}

/// Connections that fit from record `first` on, `room` of them at most, out of a bounded part of the table.
pub(super) fn list<D: Dataplane>(dataplane: &D, filter: &Filter, first: u32, room: usize) -> Part {
    let table = dataplane.flows();
    let state = dataplane.store().state();
    let mut flows = Vec::new();
    for (scanned, flow) in table.iter_from(first).enumerate() {
        if flows.len() >= room || scanned >= SCANNED {
            let next = Some(flow.record());
            return Part { flows, next };
        }
        if fits(table, filter, flow) {
            flows.extend(dataplane.flow(&state, flow));
        }
    }
    Part { flows, next: None }
}

/// Has connections that fit ended soon; returns how many.
pub(super) fn end(table: &FlowTable, filter: &Filter) -> u64 {
    let ended = table.iter().filter(|&flow| {
        // Read before it is compared: `end_soon` must be told of what was looked at.
        let forward = table.half(flow).map(|half| half.tuple());
        forward.is_some_and(|forward| fits(table, filter, flow) && table.end_soon(flow, &forward))
    });
    ended.count() as u64
}

fn fits(table: &FlowTable, filter: &Filter, flow: FlowRef) -> bool {
    let tuple = |flow| table.half(flow).map(|half| half.tuple());
    tuple(flow)
        .zip(tuple(flow.other()))
        .is_some_and(|(forward, reply)| filter.fits(&forward, &reply))
}
