//! What happened to security associations, for those who ask later.

use std::collections::VecDeque;
use std::time::SystemTime;

use octoplane_api::v1;
use octoplane_esp::db::{Event, Limit};

use super::program;

/// Events that are remembered.
const ROOM: usize = 4096;

/// The last events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    remembered: VecDeque<v1::IpsecEvent>,
    /// How many there were.
    number: u64,
}

fn limit_name(limit: Limit) -> &'static str {
    match limit {
        Limit::Bytes => "bytes",
        Limit::Packets => "packets",
        Limit::Time => "time",
        Limit::Sequence => "sequence",
    }
}

impl Events {
    /// Remembers one.
    pub(crate) fn add(&mut self, event: &Event, reqid: u32) {
        let (kind, key, limit) = match event {
            Event::Soft { key, limit, .. } => ("soft", Some(key), limit_name(*limit)),
            Event::Hard { key, limit, .. } => ("hard", Some(key), limit_name(*limit)),
            Event::NotReserved { .. } => ("not-reserved", None, "sequence"),
        };
        self.number += 1;
        if self.remembered.len() >= ROOM {
            self.remembered.pop_front();
        }
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        self.remembered.push_back(v1::IpsecEvent {
            number: self.number,
            time: time.map_or(0, |time| time.as_nanos() as u64),
            kind: kind.into(),
            limit: limit.into(),
            sa: key.map(program::name),
            reqid,
            text: event.to_string(),
        });
    }

    /// Those with greater numbers.
    pub(crate) fn after(&self, number: u64) -> Vec<v1::IpsecEvent> {
        let from = self.remembered.partition_point(|event| event.number <= number);
        self.remembered.iter().skip(from).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered() {
        let mut events = Events::default();
        for number in 0..ROOM + 10 {
            let error = number.to_string();
            events.add(&Event::NotReserved { error }, 0);
        }
        assert_eq!(events.after(0).len(), ROOM);
        assert_eq!(events.after(0)[0].number, 11);
        let rest = events.after(ROOM as u64 + 8);
        assert_eq!(
            rest.iter().map(|event| event.number).collect::<Vec<_>>(),
            [ROOM as u64 + 9, ROOM as u64 + 10]
        );
    }
}
