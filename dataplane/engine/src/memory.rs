//! What the engines of all workers remember together, and one engine's access to it.

use std::sync::Arc;

use octoplane_flow::{FlowError, FlowHandle, FlowTable, Kept, Resumed};

use crate::connection::{resume_affinity, resume_connection, second};

/// Most clients of services with session affinity that are remembered, in each family together.
const AFFINITIES: u32 = 65_536;
/// Most packets whose fragments are told apart at the same time: as many as Cilium's table has (specification, 2.10), and a
/// quarter of the table for those that come next, which workers keep ready.
const FRAGMENTS: u32 = 8_192 / 3 * 4 + 4;

/// Version of what kept tables hold: which table is which, and what the words of connections (`connection/state.rs`) and of
/// affinity (`connection/affinity.rs`) mean. Raise it with any of them: what an older daemon left is not read then.
pub const MEANING: u64 = 2;

/// State that workers write and share.
#[derive(Clone)]
pub struct Memory {
    /// Connections.
    pub flows: Arc<FlowTable>,
    /// Which backend a client stays with: `connection/affinity.rs` has the layout.
    pub(crate) affinities: Arc<FlowTable>,
    /// Ports of fragmented packets: `fragment_ports.rs` has the layout.
    pub(crate) fragments: Arc<FlowTable>,
}

impl Memory {
    /// Memory for as many connections as `flows` has room for.
    ///
    /// # Errors
    /// [`FlowError`] if there is not enough memory for the smaller tables.
    pub fn new(flows: Arc<FlowTable>) -> Result<Self, FlowError> {
        Ok(Self {
            flows,
            affinities: Arc::new(FlowTable::new(AFFINITIES)?),
            fragments: Arc::new(FlowTable::new(FRAGMENTS)?),
        })
    }

    /// Memory for a few connections, of engines that only explain. As that of all tables, it is never given back.
    ///
    /// # Errors
    /// [`FlowError`] if there is not enough memory.
    pub fn small() -> Result<Self, FlowError> {
        const FEW: u32 = 256;
        Ok(Self {
            flows: Arc::new(FlowTable::new(FEW)?),
            affinities: Arc::new(FlowTable::new(FEW)?),
            fragments: Arc::new(FlowTable::new(FEW)?),
        })
    }

    /// Connections that each kept table is for, of memory for so many connections.
    #[must_use]
    pub fn kept_capacities(connections: u32) -> Vec<u32> {
        vec![connections, AFFINITIES]
    }

    /// Memory that goes on where another process stopped, at `now` in nanoseconds: connections, their translations, and which
    /// backend clients stay with. Says what became of the former. Fragments of packets on their way are not waited for.
    ///
    /// # Errors
    /// [`FlowError`] if there is not enough memory for what is not kept.
    pub fn resume(kept: &Kept, now: u64) -> Result<(Self, Resumed), FlowError> {
        let now = second(now);
        let mut ahead = false;
        let (flows, resumed) = kept.table(0, |there, back| {
            ahead |= resume_connection(there, back, now);
            true
        })?;
        let (affinities, _) = kept.table(1, |entry, _| {
            ahead |= resume_affinity(entry, now);
            true
        })?;
        if ahead {
            // When to look at them was said by that clock, and may be far away.
            for table in [&flows, &affinities] {
                table.iter().for_each(|flow| table.look_soon(flow));
            }
        }
        let memory = Self {
            flows: Arc::new(flows),
            affinities: Arc::new(affinities),
            fragments: Arc::new(FlowTable::new(FRAGMENTS)?),
        };
        Ok((memory, resumed))
    }

    /// The part of worker `number`, from 0, of `workers` altogether. Each number must be used once only.
    ///
    /// # Errors
    /// [`FlowError::Workers`] for a number that is too high.
    pub fn part(&self, number: usize, workers: usize) -> Result<MemoryPart, FlowError> {
        let part = |table: &Arc<FlowTable>| FlowHandle::new(Arc::clone(table), number, workers);
        Ok(MemoryPart {
            flows: part(&self.flows)?,
            affinities: part(&self.affinities)?,
            fragments: part(&self.fragments)?,
        })
    }
}

/// One engine's access to the [`Memory`].
pub struct MemoryPart {
    pub(crate) flows: FlowHandle,
    pub(crate) affinities: FlowHandle,
    pub(crate) fragments: FlowHandle,
}

impl MemoryPart {
    /// Forgets everything, of memory that no other engine has a part of.
    pub fn clear(&mut self) {
        for handle in [&mut self.flows, &mut self.affinities, &mut self.fragments] {
            let all: Vec<_> = handle.shared().iter().collect();
            for flow in all {
                handle.remove(flow);
            }
            handle.quiesce();
        }
    }
}
