//! The one writer: takes transactions, keeps the state, publishes snapshots to the workers.
//!
//! A transaction is applied to a copy of the state (which shares all that does not change), then the forwarding entries
//! of what it touched are recomputed, then everything is published by one pointer. Whatever fails on the way is thrown
//! away: workers see all of a transaction or nothing. Replaced memory is freed here, never on a worker: the writer
//! keeps each old snapshot until no worker holds it.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use octoplane_packet::Prefix;

use crate::error::{ApplyError, ChangeError};
use crate::event::{Committed, ObjectKey, diff};
use crate::lpm::{ArenaFull, Edit, Key, LpmWriter, Retired};
use crate::model::{Change, Port};
use crate::snapshot::{PortView, Reader, Snapshot};
use crate::state::{Gateways, State};
use crate::target::TargetKey;
use crate::target_index::TargetIndex;

/// How many entries each table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Endpoints.
    pub endpoints: usize,
    /// Routes, both families together.
    pub routes: usize,
    /// Neighbours, static and learned.
    pub neighbours: usize,
    /// Nodes of the IPv4 forwarding table, 2,064 bytes each.
    pub fib_nodes_v4: usize,
    /// Nodes of the IPv6 forwarding table, 2,064 bytes each.
    pub fib_nodes_v6: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            endpoints: 131_072,
            routes: 131_072,
            neighbours: 16_384,
            fib_nodes_v4: 524_288,
            fib_nodes_v6: 524_288,
        }
    }
}

/// How full one table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Name as in the configuration's `capacity` section.
    pub table: &'static str,
    /// Entries in use.
    pub used: usize,
    /// Entries there are.
    pub capacity: usize,
}

/// The tables could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No memory for a forwarding table.
    #[error("capacity.{0}: not enough memory for the forwarding table")]
    Memory(&'static str),
    /// A port's address or a gateway does not fit in the forwarding table.
    #[error("{0}")]
    Apply(#[from] ChangeError),
}

/// An old snapshot that workers may still hold, with the nodes that only it and its elders reach.
struct Old {
    snapshot: Arc<Snapshot>,
    v4: Retired,
    v6: Retired,
}

/// The writer's side of all configuration tables.
pub struct Store {
    capacity: Capacity,
    state: State,
    fib4: LpmWriter<u32>,
    fib6: LpmWriter<u128>,
    index: TargetIndex,
    published: Arc<ArcSwap<Snapshot>>,
    old: VecDeque<Old>,
}

impl Store {
    /// Empty tables over these ports, each with a number of its own. The MTU of each is the most it can be set to.
    pub fn new(ports: Vec<Port>, gateways: Gateways, capacity: Capacity) -> Result<Self, StoreError> {
        let state = State {
            revision: 0,
            gateways,
            endpoints: Default::default(),
            owners: Default::default(),
            routes: Default::default(),
            neighbours: Default::default(),
            mtu_limits: ports.iter().map(|port| (port.id, port.mtu)).collect(),
            ports: ports.into_iter().collect(),
        };
        let mut store = Self {
            fib4: LpmWriter::new(capacity.fib_nodes_v4)
                .map_err(|ArenaFull| StoreError::Memory("fib_nodes_v4"))?,
            fib6: LpmWriter::new(capacity.fib_nodes_v6)
                .map_err(|ArenaFull| StoreError::Memory("fib_nodes_v6"))?,
            index: TargetIndex::default(),
            published: Arc::new(ArcSwap::from_pointee(Snapshot::empty(gateways))),
            old: VecDeque::new(),
            capacity,
            state,
        };
        let mut touched: BTreeSet<Prefix> = [
            Prefix::host(gateways.ipv4.into()),
            Prefix::host(gateways.ipv6.into()),
        ]
        .into();
        for port in store.state.ports() {
            for &(addr, len) in &port.addresses {
                touched.extend([Prefix::host(addr), Prefix::containing(addr, len)]);
            }
        }
        let state = store.state.clone();
        store.publish(state, &touched, &BTreeSet::new())?;
        Ok(store)
    }

    /// The current state: an immutable copy that shares its memory with the store.
    pub fn state(&self) -> State {
        self.state.clone()
    }

    /// A worker's view of the tables.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.published))
    }

    /// How full the tables are.
    pub fn usage(&self) -> Vec<Usage> {
        let (v4, v4_all) = self.fib4.usage();
        let (v6, v6_all) = self.fib6.usage();
        [
            ("endpoints", self.state.endpoint_count(), self.capacity.endpoints),
            ("routes", self.state.route_count(), self.capacity.routes),
            (
                "neighbours",
                self.state.neighbour_count(),
                self.capacity.neighbours,
            ),
            ("fib_nodes_v4", v4, v4_all),
            ("fib_nodes_v6", v6, v6_all),
        ]
        .map(|(table, used, capacity)| Usage {
            table,
            used,
            capacity,
        })
        .to_vec()
    }

    /// Applies all of `changes` in order, or none of them, and publishes the result to the workers.
    pub fn apply(&mut self, changes: Vec<Change>) -> Result<Committed, ApplyError> {
        self.reclaim();
        let touched = ObjectKey::touched(&changes, &self.state);
        let last = changes.len().saturating_sub(1);
        let next = self.next_state(changes)?;
        let committed = diff(&self.state, &next, &touched);
        if committed.events.is_empty() {
            return Ok(Committed {
                revision: self.state.revision,
                ..committed
            });
        }
        let prefixes = touched_prefixes(&touched, &self.state, &next);
        self.publish(next, &prefixes, &touched)
            .map_err(|error| ApplyError { index: last, error })?;
        Ok(committed)
    }

    /// What [`Store::apply`] would do, without doing it. Room in the forwarding tables is not checked.
    pub fn check(&self, changes: Vec<Change>) -> Result<Committed, ApplyError> {
        let touched = ObjectKey::touched(&changes, &self.state);
        let next = self.next_state(changes)?;
        let committed = diff(&self.state, &next, &touched);
        let revision = if committed.events.is_empty() {
            self.state.revision
        } else {
            committed.revision
        };
        Ok(Committed {
            revision,
            ..committed
        })
    }

    /// Frees what no worker can see any more. Called by every transaction; call it now and then when there are none.
    pub fn reclaim(&mut self) {
        // A worker that holds a snapshot holds back the younger ones too: their nodes may be in its tree.
        while self
            .old
            .front()
            .is_some_and(|old| Arc::strong_count(&old.snapshot) == 1)
        {
            if let Some(old) = self.old.pop_front() {
                self.fib4.recycle(old.v4);
                self.fib6.recycle(old.v6);
            }
        }
    }

    fn next_state(&self, changes: Vec<Change>) -> Result<State, ApplyError> {
        let mut next = self.state.clone();
        next.revision += 1;
        for (index, change) in changes.into_iter().enumerate() {
            next.apply(change, &self.capacity)
                .map_err(|error| ApplyError { index, error })?;
        }
        Ok(next)
    }

    /// Recomputes the forwarding entries of `prefixes` and the targets that `changed` names, and publishes `next`.
    fn publish(
        &mut self,
        next: State,
        prefixes: &BTreeSet<Prefix>,
        changed: &BTreeSet<ObjectKey>,
    ) -> Result<(), ChangeError> {
        let current = self.published.load_full();
        let mut targets = current.targets.clone();
        let mut index = self.index.clone();
        let mut gone = Vec::new();
        let mut fib4 = self.fib4.edit();
        let mut fib6 = self.fib6.edit();
        for &prefix in prefixes {
            let key = next.resolve(prefix);
            match prefix.addr() {
                IpAddr::V4(addr) => {
                    let full = |ArenaFull| ChangeError::TableFull {
                        table: "fib_nodes_v4",
                        size: self.capacity.fib_nodes_v4,
                    };
                    update(
                        &mut fib4,
                        addr.to_bits(),
                        prefix.len(),
                        key,
                        &mut index,
                        &mut gone,
                    )
                    .map_err(full)?;
                }
                IpAddr::V6(addr) => {
                    let full = |ArenaFull| ChangeError::TableFull {
                        table: "fib_nodes_v6",
                        size: self.capacity.fib_nodes_v6,
                    };
                    update(
                        &mut fib6,
                        addr.to_bits(),
                        prefix.len(),
                        key,
                        &mut index,
                        &mut gone,
                    )
                    .map_err(full)?;
                }
            }
        }
        index.refresh(&next, changed, gone, &mut targets);
        let (v4, v6) = (fib4.commit(), fib6.commit());
        let snapshot = Snapshot {
            revision: next.revision,
            fib4: self.fib4.snapshot(),
            fib6: self.fib6.snapshot(),
            targets,
            ports: views(&next),
            gateways: next.gateways,
            host_port: next.host_port().map(|port| port.id),
        };
        self.index = index;
        self.state = next;
        self.published.store(Arc::new(snapshot));
        self.old.push_back(Old {
            snapshot: current,
            v4,
            v6,
        });
        self.reclaim();
        Ok(())
    }
}

/// The ports as workers see them, each at the place of its number.
fn views(state: &State) -> Vec<Option<PortView>> {
    let numbers = state.ports().map(|port| usize::from(port.id) + 1).max();
    let mut views = vec![None; numbers.unwrap_or(0)];
    for port in state.ports() {
        views[usize::from(port.id)] = Some(PortView::from(port));
    }
    views
}

/// Makes the forwarding entry of one prefix lead to `key`.
fn update<K: Key>(
    fib: &mut Edit<'_, K>,
    addr: K,
    len: u8,
    key: Option<TargetKey>,
    index: &mut TargetIndex,
    gone: &mut Vec<u32>,
) -> Result<(), ArenaFull> {
    let old = fib.get(addr, len);
    let new = key.map(|key| index.acquire(key));
    match new {
        Some(number) if old == Some(number) => {}
        Some(number) => fib.insert(addr, len, number)?,
        None => fib.remove(addr, len)?,
    }
    if let Some(number) = old {
        index.release(number, gone);
    }
    Ok(())
}

/// The prefixes whose forwarding entries a transaction may have changed.
fn touched_prefixes(touched: &BTreeSet<ObjectKey>, old: &State, new: &State) -> BTreeSet<Prefix> {
    // A route, or the link of a port, decides whether the neighbours it covers are on its link.
    let decides = |key: &ObjectKey| matches!(key, ObjectKey::Route(_) | ObjectKey::Port(_));
    let neighbours: BTreeSet<IpAddr> = if touched.iter().any(decides) {
        old.neighbours()
            .chain(new.neighbours())
            .map(|neighbour| neighbour.addr)
            .collect()
    } else {
        BTreeSet::new()
    };
    let mut prefixes = BTreeSet::new();
    let cover = |prefix: Prefix, prefixes: &mut BTreeSet<Prefix>| {
        prefixes.insert(prefix);
        let covered = neighbours
            .range(prefix.addr()..)
            .take_while(|addr| prefix.contains(**addr));
        prefixes.extend(covered.map(|&addr| Prefix::host(addr)));
    };
    for key in touched {
        match *key {
            ObjectKey::Endpoint(id) => {
                let both = [old.endpoint(id), new.endpoint(id)];
                prefixes.extend(
                    both.into_iter()
                        .flatten()
                        .flat_map(|ep| &ep.addresses)
                        .map(|&addr| Prefix::host(addr)),
                );
            }
            ObjectKey::Route(prefix) => {
                cover(prefix, &mut prefixes);
            }
            ObjectKey::Neighbour(_, addr) => {
                prefixes.insert(Prefix::host(addr));
            }
            ObjectKey::Port(id) => {
                // Addresses never change while a port is there: only one that came or went touches any.
                let (old, new) = (old.port(id), new.port(id));
                if old.is_some() != new.is_some() {
                    for &(addr, len) in old.or(new).into_iter().flat_map(|port| &port.addresses) {
                        prefixes.insert(Prefix::host(addr));
                        cover(Prefix::containing(addr, len), &mut prefixes);
                    }
                }
            }
        }
    }
    prefixes
}
