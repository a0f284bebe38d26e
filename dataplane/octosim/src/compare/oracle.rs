//! The model's choices: what the engine chose, as far as it shows, and everything else in turn.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use octoplane_model::Choices;

/// What the engine did that tells what it chose.
#[derive(Debug, Clone, Default)]
pub(super) struct Hints {
    /// Backends that connections which are new go to.
    pub(super) backends: Vec<SocketAddr>,
    /// Source ports and identifiers that connections leave with, those of new ones first.
    pub(super) ports: Vec<u16>,
    /// Source ports of tunnel packets sent.
    pub(super) tunnels: VecDeque<u16>,
}

/// Choices of one attempt.
#[derive(Debug, Clone)]
pub(super) struct Oracle {
    hints: Hints,
    /// Which of the candidates to take each time, the first once these are used up; what the hints say without a script.
    script: VecDeque<usize>,
    scripted: bool,
    /// How many candidates there were each time, and which was taken.
    pub(super) asked: Vec<(usize, usize)>,
}

impl Oracle {
    pub(super) fn new(hints: Hints, script: Option<&[usize]>) -> Self {
        Self {
            hints,
            script: script.unwrap_or_default().iter().copied().collect(),
            scripted: script.is_some(),
            asked: Vec::new(),
        }
    }
}

impl Choices for Oracle {
    fn pick_backend(&mut self, candidates: &[SocketAddr]) -> usize {
        let hinted = candidates
            .iter()
            .position(|candidate| self.hints.backends.contains(candidate));
        let taken = match self.scripted {
            true => self.script.pop_front().unwrap_or(0),
            false => hinted.unwrap_or(0),
        };
        self.asked.push((candidates.len(), taken));
        taken
    }

    fn pick_port(&mut self, range: RangeInclusive<u16>, is_free: &dyn Fn(u16) -> bool) -> Option<u16> {
        let hinted = self.hints.ports.iter().copied();
        hinted
            .filter(|port| range.contains(port))
            .find(|port| is_free(*port))
            .or_else(|| range.clone().find(|port| is_free(*port)))
    }

    fn tunnel_source_port(&mut self) -> u16 {
        self.hints.tunnels.pop_front().unwrap_or(0)
    }

    fn outer_ip_id(&mut self) -> u16 {
        0
    }
}
