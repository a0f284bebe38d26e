//! Egress bandwidth (specification, 2.14): packets are spaced out, and dropped beyond a horizon of two seconds.

use crate::config::{Direction, Endpoint};
use crate::model::{Model, Rx};
use crate::outcome::{Flow, Stop, code};

/// How far ahead packets may be scheduled, in nanoseconds.
const HORIZON: u64 = 2_000_000_000;

/// When the last packet of an endpoint leaves.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    last: u64,
}

impl Model {
    /// Schedules a packet that leaves the node.
    pub(crate) fn pace(&mut self, rx: &Rx<'_>, endpoint: &Endpoint) -> Flow {
        let Some(delay) = (rx.frame.len() as u64 * 1_000_000_000).checked_div(endpoint.egress_rate) else {
            return Ok(());
        };
        let pace = self.paces.entry(endpoint.id).or_default();
        let next = pace.last + delay;
        if next <= self.now {
            pace.last = self.now;
        } else if next - self.now >= HORIZON {
            return Err(Stop::Drop(code::EDT_HORIZON, Direction::Egress));
        } else {
            pace.last = next;
        }
        Ok(())
    }
}
