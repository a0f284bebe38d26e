//! Session affinity: a client's connections to a frontend go to the same backend (specification, 2.8, 3.3).
//!
//! An entry is a connection of its own table: its forward tuple is the client, without a port, and the frontend; the other
//! one is the same turned round. The words of the one are how long it counts, and when it was used last; those of the other
//! the backend's address and port, not its number, which is another one after a restart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use octoplane_flow::{FlowError, FlowHandle, FlowTable, Half, Tuple};
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

/// The words of a backend.
fn words(backend: &Backend) -> [u64; 3] {
    let (bits, family) = match backend.addr {
        IpAddr::V4(addr) => (addr.to_bits().into(), 4),
        IpAddr::V6(addr) => (addr.to_bits(), 6),
    };
    [
        (bits >> 64) as u64,
        bits as u64,
        u64::from(backend.port) | family << 16,
    ]
}

/// The address and port of a backend, from words that another worker may be writing: then it is nobody's.
fn backend(half: &Half<'_>) -> (IpAddr, u16) {
    let bits = u128::from(half.word::<0>()) << 64 | u128::from(half.word::<1>());
    let last = half.word::<2>();
    let addr = match last >> 16 {
        4 => Ipv4Addr::from_bits(bits as u32).into(),
        _ => Ipv6Addr::from_bits(bits).into(),
    };
    (addr, last as u16)
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
        let entry = table.find(table.hash(&client), &client)?;
        let used = table.half(entry)?.word::<1>() as u32;
        let (addr, port) = backend(&table.half(entry.other())?);
        let set = match inside {
            true => &frontend.internal,
            false => &frontend.external,
        };
        (rx.second < used.saturating_add(frontend.affinity_seconds))
            .then(|| set.affine(addr, port))
            .flatten()
    }

    /// Remembers which backend the client of a connection is with. A full table forgets nobody: the client is spread as
    /// if there was no affinity.
    pub(super) fn stay(&mut self, rx: &Rx<'_>, tuple: &Tuple, frontend: &Frontend, backend: &Backend) {
        let client = client(tuple);
        let (times, payload) = (
            [frontend.affinity_seconds.into(), rx.second.into(), 0],
            words(backend),
        );
        let look = rx.second.saturating_add(frontend.affinity_seconds);
        let handle = &mut self.affinities;
        let table = handle.table();
        let known = table.find(table.hash(&client), &client);
        let known = match known {
            Some(known) => known,
            None => match handle.insert([&client, &client.reverse()], [times, payload], look) {
                Err(FlowError::Taken(other)) => other,
                Ok(_) | Err(_) => return,
            },
        };
        let table = handle.table();
        if let (Some(entry), Some(to)) = (table.half(known), table.half(known.other())) {
            entry.set_word::<0>(times[0]);
            entry.set_word::<1>(times[1]);
            to.set_word::<0>(payload[0]);
            to.set_word::<1>(payload[1]);
            to.set_word::<2>(payload[2]);
        }
    }
}

/// Copies which backend the client of a connection is with.
pub(crate) fn adopt(to: &mut FlowHandle, live: &FlowTable, tuple: &Tuple) {
    super::copy(to, live, &client(tuple));
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
        let ends = (half.word::<1>() as u32).saturating_add(half.word::<0>() as u32);
        (ends > now).then_some(ends)
    });
}

/// Makes an entry that another process left behind one of ours, in second `now`.
/// Whether its clock was ahead of ours.
pub(crate) fn resume(entry: &Half<'_>, now: u32) -> bool {
    let ahead = entry.word::<1>() > u64::from(now);
    if ahead {
        entry.set_word::<1>(now.into());
    }
    ahead
}
