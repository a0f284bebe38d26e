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
use crate::ipcache::Remotes;
use crate::lpm::{ArenaFull, Edit, Key, LpmWriter, Retired};
use crate::model::{Change, Port};
use crate::services::MAX_FRONTEND_ID;
use crate::snapshot::{PortView, Reader, Snapshot, world};
use crate::state::{Gateways, State};
use crate::target::TargetKey;
use crate::target_index::TargetIndex;
use crate::touched::Touched;
use crate::tunnel_end::TunnelEnd;

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
    /// Prefixes of which something is known, both families together.
    pub ipcache: usize,
    /// Nodes of the table of what is known of IPv4 addresses, 2,064 bytes each.
    pub ipcache_nodes_v4: usize,
    /// Nodes of the table of what is known of IPv6 addresses, 2,064 bytes each.
    pub ipcache_nodes_v6: usize,
    /// Services.
    pub services: usize,
    /// Frontends of all services, one for each NodePort address of the node; at most 65,535.
    pub frontends: usize,
    /// Backends of all services, those they share counted once.
    pub backends: usize,
    /// Policies.
    pub policies: usize,
    /// Entries of one policy.
    pub policy_entries: usize,
    /// Egress-gateway rules.
    pub egress_gateways: usize,
    /// Authentications.
    pub authentications: usize,
}

impl Capacity {
    /// What the configuration says unless told otherwise.
    pub const DEFAULT: Self = Self {
        endpoints: 131_072,
        routes: 131_072,
        neighbours: 16_384,
        fib_nodes_v4: 524_288,
        fib_nodes_v6: 524_288,
        ipcache: 1_048_576,
        ipcache_nodes_v4: 262_144,
        ipcache_nodes_v6: 262_144,
        services: 65_536,
        frontends: MAX_FRONTEND_ID as usize,
        backends: 524_288,
        policies: 131_072,
        policy_entries: 65_536,
        egress_gateways: 65_536,
        authentications: 524_288,
    };
}

impl Default for Capacity {
    fn default() -> Self {
        Self::DEFAULT
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
    fib4: Retired,
    fib6: Retired,
    ipcache4: Retired,
    ipcache6: Retired,
}

/// The writer's side of all configuration tables.
pub struct Store {
    capacity: Capacity,
    state: State,
    fib4: LpmWriter<u32>,
    fib6: LpmWriter<u128>,
    ipcache4: LpmWriter<u32>,
    ipcache6: LpmWriter<u128>,
    index: TargetIndex,
    published: Arc<ArcSwap<Snapshot>>,
    old: VecDeque<Old>,
}

impl Store {
    /// Empty tables over these ports, each with a number of its own. The MTU of each is the most it can be set to.
    pub fn new(ports: Vec<Port>, gateways: Gateways, capacity: Capacity) -> Result<Self, StoreError> {
        let state = State::new(ports, gateways);
        let memory = |table| move |ArenaFull| StoreError::Memory(table);
        let mut store = Self {
            fib4: LpmWriter::new(capacity.fib_nodes_v4).map_err(memory("fib_nodes_v4"))?,
            fib6: LpmWriter::new(capacity.fib_nodes_v6).map_err(memory("fib_nodes_v6"))?,
            ipcache4: LpmWriter::new(capacity.ipcache_nodes_v4).map_err(memory("ipcache_nodes_v4"))?,
            ipcache6: LpmWriter::new(capacity.ipcache_nodes_v6).map_err(memory("ipcache_nodes_v6"))?,
            index: TargetIndex::default(),
            published: Arc::new(ArcSwap::from_pointee(Snapshot::empty(gateways))),
            old: VecDeque::new(),
            capacity,
            state,
        };
        let mut touched = Touched::default();
        touched.own([gateways.ipv4.into(), gateways.ipv6.into()]);
        for port in store.state.ports() {
            touched.own(port.addresses.iter().map(|&(addr, _)| addr));
            let links = port.addresses.iter();
            touched
                .fib
                .extend(links.map(|&(addr, len)| Prefix::containing(addr, len)));
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

    /// The current state, and a view of the tables that stays there. Not to be kept: what changes meanwhile needs memory of its own.
    pub fn frozen(&self) -> (State, Reader) {
        (self.state.clone(), Reader::frozen(self.published.load_full()))
    }

    /// How full the tables are.
    pub fn usage(&self) -> Vec<Usage> {
        let (state, capacity) = (&self.state, &self.capacity);
        let arenas = [
            ("fib_nodes_v4", self.fib4.usage()),
            ("fib_nodes_v6", self.fib6.usage()),
            ("ipcache_nodes_v4", self.ipcache4.usage()),
            ("ipcache_nodes_v6", self.ipcache6.usage()),
        ];
        [
            ("endpoints", state.endpoint_count(), capacity.endpoints),
            ("routes", state.route_count(), capacity.routes),
            ("neighbours", state.neighbour_count(), capacity.neighbours),
            ("ipcache", state.ipcache_count(), capacity.ipcache),
            ("services", state.service_count(), capacity.services),
            ("frontends", state.names.frontend_count(), capacity.frontends),
            ("backends", state.names.backend_count(), capacity.backends),
            ("policies", state.policy_count(), capacity.policies),
            (
                "egress_gateways",
                state.egress_gateway_count(),
                capacity.egress_gateways,
            ),
            (
                "authentications",
                state.authentication_count(),
                capacity.authentications,
            ),
        ]
        .into_iter()
        .chain(arenas.map(|(table, (used, all))| (table, used, all)))
        .map(|(table, used, capacity)| Usage {
            table,
            used,
            capacity,
        })
        .collect()
    }

    /// Applies all of `changes` in order, or none of them, and publishes the result to the workers.
    pub fn apply(&mut self, changes: Vec<Change>) -> Result<Committed, ApplyError> {
        let revision = self.state.revision + 1;
        self.apply_as(revision, changes)
    }

    /// The first transaction of a process that goes on where another one stopped: the revision after it is `revision`,
    /// at least 1, or 0 if nothing is there.
    pub fn restore(&mut self, revision: u64, changes: Vec<Change>) -> Result<Committed, ApplyError> {
        let committed = self.apply_as(revision, changes)?;
        if committed.events.is_empty() && self.state.revision != revision {
            let next = State {
                revision,
                ..self.state.clone()
            };
            self.publish(next, &Touched::default(), &BTreeSet::new())
                .map_err(|error| ApplyError { index: 0, error })?;
        }
        Ok(committed)
    }

    fn apply_as(&mut self, revision: u64, changes: Vec<Change>) -> Result<Committed, ApplyError> {
        self.reclaim();
        let touched = ObjectKey::touched(&changes, &self.state);
        let last = changes.len().saturating_sub(1);
        let next = self.next_state(revision, changes)?;
        let committed = diff(&self.state, &next, &touched);
        if committed.events.is_empty() {
            return Ok(Committed {
                revision: self.state.revision,
                ..committed
            });
        }
        let prefixes = Touched::by(&touched, &self.state, &next);
        self.publish(next, &prefixes, &touched)
            .map_err(|error| ApplyError { index: last, error })?;
        Ok(committed)
    }

    /// What [`Store::apply`] would do, without doing it. Room in the forwarding tables is not checked.
    pub fn check(&self, changes: Vec<Change>) -> Result<Committed, ApplyError> {
        let touched = ObjectKey::touched(&changes, &self.state);
        let next = self.next_state(self.state.revision + 1, changes)?;
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
                self.fib4.recycle(old.fib4);
                self.fib6.recycle(old.fib6);
                self.ipcache4.recycle(old.ipcache4);
                self.ipcache6.recycle(old.ipcache6);
            }
        }
    }

    fn next_state(&self, revision: u64, changes: Vec<Change>) -> Result<State, ApplyError> {
        let mut next = self.state.clone();
        next.revision = revision;
        for (index, change) in changes.into_iter().enumerate() {
            next.apply(change, &self.capacity)
                .map_err(|error| ApplyError { index, error })?;
        }
        Ok(next)
    }

    /// Recomputes the entries of the prefixes `touched` and what else `changed` names, and publishes `next`.
    fn publish(
        &mut self,
        mut next: State,
        touched: &Touched,
        changed: &BTreeSet<ObjectKey>,
    ) -> Result<(), ChangeError> {
        let capacity = self.capacity;
        let current = self.published.load_full();
        let mut targets = current.targets.clone();
        let mut index = self.index.clone();
        let mut gone = Vec::new();
        let (mut fib4, mut fib6) = (self.fib4.edit(), self.fib6.edit());
        for &prefix in &touched.fib {
            let key = next.resolve(prefix);
            let (index, gone) = (&mut index, &mut gone);
            match prefix.addr() {
                IpAddr::V4(addr) => {
                    forward(&mut fib4, addr.to_bits(), prefix.len(), key, index, gone)
                        .map_err(full("fib_nodes_v4", capacity.fib_nodes_v4))?;
                }
                IpAddr::V6(addr) => {
                    forward(&mut fib6, addr.to_bits(), prefix.len(), key, index, gone)
                        .map_err(full("fib_nodes_v6", capacity.fib_nodes_v6))?;
                }
            }
        }
        let others = index.refresh(&next, changed, gone, &mut targets);

        let (mut ipcache4, mut ipcache6) = (self.ipcache4.edit(), self.ipcache6.edit());
        for &prefix in &touched.ipcache {
            let number = next.resolve_remote(prefix);
            let remotes = &mut next.remotes;
            match prefix.addr() {
                IpAddr::V4(addr) => know(&mut ipcache4, addr.to_bits(), prefix.len(), number, remotes)
                    .map_err(full("ipcache_nodes_v4", capacity.ipcache_nodes_v4))?,
                IpAddr::V6(addr) => know(&mut ipcache6, addr.to_bits(), prefix.len(), number, remotes)
                    .map_err(full("ipcache_nodes_v6", capacity.ipcache_nodes_v6))?,
            }
        }
        for key in changed {
            let ObjectKey::EgressGateway(key) = key else {
                continue;
            };
            // The new one first: the number of what both have in common stays.
            next.acquire_gateway(key);
            next.release_gateway(self.state.egress_gateway(key));
        }
        let mut tunnel_ends = current.tunnel_ends.clone();
        for number in next.remotes.take_gone() {
            tunnel_ends.set(number, TunnelEnd::default());
        }
        let mut peers: BTreeSet<IpAddr> = next.remotes.take_fresh().into_iter().collect();
        for &prefix in &touched.fib {
            peers.extend(next.remotes.peers_in(prefix));
        }
        if self.state.node().tunnel != next.node().tunnel {
            peers.extend(next.remotes.peers());
        }
        if !others.is_empty() {
            peers.extend(next.remotes.peers_behind(&others));
        }
        for addr in peers {
            let target = match addr {
                IpAddr::V4(addr) => fib4.lookup(addr.to_bits()),
                IpAddr::V6(addr) => fib6.lookup(addr.to_bits()),
            };
            if let Some(number) = next.remotes.set_target(addr, target) {
                let tunnel = &next.node().tunnel;
                tunnel_ends.set(number, TunnelEnd::new(addr, target, targets.get(target), tunnel));
            }
        }

        let mut views = current.views.clone();
        views.update(&self.state, &next, changed);

        // Nothing fails from here on.
        let (fib4, fib6) = (fib4.commit(), fib6.commit());
        let (ipcache4, ipcache6) = (ipcache4.commit(), ipcache6.commit());
        let snapshot = Snapshot {
            revision: next.revision,
            fib4: self.fib4.snapshot(),
            fib6: self.fib6.snapshot(),
            targets,
            ports: port_views(&next),
            gateways: next.gateways,
            host_port: next.host_port().map(|port| port.id),
            ipcache4: self.ipcache4.snapshot(),
            ipcache6: self.ipcache6.snapshot(),
            remotes: next.remotes.table(),
            tunnel_ends,
            world: world(views.node.dual_stack),
            views,
            changed: Arc::clone(&next.changed),
            forwarding: match touched.fib.is_empty() {
                true => current.forwarding,
                false => next.revision,
            },
        };
        next.changed.note(next.revision, touched);
        self.index = index;
        self.state = next;
        self.published.store(Arc::new(snapshot));
        self.old.push_back(Old {
            snapshot: current,
            fib4,
            fib6,
            ipcache4,
            ipcache6,
        });
        self.reclaim();
        Ok(())
    }
}

/// The ports as workers see them, each at the place of its number.
fn port_views(state: &State) -> Vec<Option<PortView>> {
    let numbers = state.ports().map(|port| usize::from(port.id) + 1).max();
    let mut views = vec![None; numbers.unwrap_or(0)];
    for port in state.ports() {
        views[usize::from(port.id)] = Some(PortView::from(port));
    }
    views
}

/// The error of a tree without room.
fn full(table: &'static str, size: usize) -> impl Fn(ArenaFull) -> ChangeError {
    move |ArenaFull| ChangeError::TableFull { table, size }
}

/// Makes the forwarding entry of one prefix lead to `key`.
fn forward<K: Key>(
    fib: &mut Edit<'_, K>,
    addr: K,
    len: u8,
    key: Option<TargetKey>,
    index: &mut TargetIndex,
    gone: &mut Vec<u32>,
) -> Result<(), ArenaFull> {
    let new = key.map(|key| index.acquire(key));
    if let Some(old) = replace(fib, addr, len, new)? {
        index.release(old, gone);
    }
    Ok(())
}

/// Makes one prefix lead to the remote with this number, of which the entry is a user already.
fn know<K: Key>(
    ipcache: &mut Edit<'_, K>,
    addr: K,
    len: u8,
    number: Option<u32>,
    remotes: &mut Remotes,
) -> Result<(), ArenaFull> {
    if let Some(old) = replace(ipcache, addr, len, number)? {
        remotes.release(old);
    }
    Ok(())
}

/// Sets or removes the value of a prefix; returns what it was.
fn replace<K: Key>(
    edit: &mut Edit<'_, K>,
    addr: K,
    len: u8,
    new: Option<u32>,
) -> Result<Option<u32>, ArenaFull> {
    let old = edit.get(addr, len);
    match new {
        Some(_) if old == new => {}
        Some(value) => edit.insert(addr, len, value)?,
        None => edit.remove(addr, len)?,
    }
    Ok(old)
}
