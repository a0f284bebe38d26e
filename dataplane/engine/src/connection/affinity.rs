//! Session affinity: a client's connections to a frontend go to the same backend (specification, 2.8, 3.3).
//!
//! An entry is a connection of its own table: its forward tuple is the client, without a port, and the frontend; the other
//! one is the same turned round. Its words are the backend's number and how long it counts, and when it was used last.

use octoplane_flow::{FlowError, FlowHandle, Tuple};
use octoplane_packet::BufPool;
use octoplane_tables::{Backend, Frontend};

use crate::engine::{Core, Rx};

/// The client of a connection to a frontend, whatever its port.
fn client(tuple: &Tuple) -> Tuple {
    Tuple::new(
        tuple.src(),
        tuple.dst(),
        0,
        tuple.dport(),
        tuple.protocol(),
        tuple.zone(),
    )
}

fn words(backend: u32, seconds: u32, used: u32) -> [u64; 3] {
    [u64::from(backend) | u64::from(seconds) << 32, u64::from(used), 0]
}

impl<P: BufPool> Core<P> {
    /// The backend that the client of a new connection was with, if its time is not over and it may still be used.
    pub(super) fn affine<'a>(
        &self,
        rx: &Rx<'_>,
        tuple: &Tuple,
        frontend: &'a Frontend,
        inside: bool,
    ) -> Option<&'a Backend> {
        if frontend.affinity_seconds == 0 {
            return None;
        }
        let table = self.affinities.table();
        let client = client(tuple);
        let half = table.half(table.find(table.hash(&client), &client)?)?;
        let (backend, used) = (half.word::<0>() as u32, half.word::<1>() as u32);
        let set = match inside {
            true => &frontend.internal,
            false => &frontend.external,
        };
        (rx.second < used.saturating_add(frontend.affinity_seconds))
            .then(|| set.affine(backend))
            .flatten()
    }

    /// Remembers which backend the client of a connection is with. A full table forgets nobody: the client is spread as
    /// if there was no affinity.
    pub(super) fn stay(&mut self, rx: &Rx<'_>, tuple: &Tuple, frontend: &Frontend, backend: u32) {
        let client = client(tuple);
        let payload = words(backend, frontend.affinity_seconds, rx.second);
        let look = rx.second.saturating_add(frontend.affinity_seconds);
        let handle = &mut self.affinities;
        let table = handle.table();
        let known = table.find(table.hash(&client), &client);
        let known = match known {
            Some(known) => known,
            None => match handle.insert([&client, &client.reverse()], [payload, [0; 3]], look) {
                Err(FlowError::Taken(other)) => other,
                Ok(_) | Err(_) => return,
            },
        };
        if let Some(half) = handle.table().half(known) {
            half.set_word::<0>(payload[0]);
            half.set_word::<1>(payload[1]);
        }
    }
}

/// Takes note that a connection to a frontend with affinity goes on.
#[inline(never)]
pub(crate) fn refresh(handle: &FlowHandle, tuple: &Tuple, now: u32) {
    let table = handle.table();
    let client = client(tuple);
    let known = table.find(table.hash(&client), &client);
    if let Some(half) = known.and_then(|known| table.half(known)) {
        half.set_word::<1>(u64::from(now));
    }
}

/// Forgets clients whose time is over.
pub(crate) fn expire(handle: &mut FlowHandle, now: u32, records: usize) {
    handle.sweep(now, records, |table, entry| {
        let half = table.half(entry)?;
        let ends = (half.word::<1>() as u32).saturating_add((half.word::<0>() >> 32) as u32);
        (ends > now).then_some(ends)
    });
}
