//! The database.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::change::{ApplyError, Change, ChangeError, Committed, NodeConfig, PolicyConfig};
use super::draft::{Draft, State};
use super::event::{Event, Told, events};
use crate::sa::{Direction, Sa, SaId, SaKey};
use crate::store::{RecordKey, SequenceStore, StoreError};
use crate::view::{Reader, Snapshot, TunnelId};

/// Limits and block sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Most security associations.
    pub max_sas: usize,
    /// Most policies.
    pub max_policies: usize,
    /// Most addresses of nodes.
    pub max_nodes: usize,
    /// Sequence numbers of 64 bits that are reserved at a time. A restart skips up to so many. Half of it has to last until
    /// the next [`Database::tick`].
    pub block_esn: u64,
    /// The same for numbers of 32 bits.
    pub block_32: u64,
    /// Inbound packets after which the highest number accepted is written. After a crash, packets that were accepted since
    /// could be accepted once more.
    pub checkpoint: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_sas: 65_536,
            max_policies: 65_536,
            max_nodes: 65_536,
            block_esn: 1 << 26,
            block_32: 1 << 22,
            checkpoint: 1 << 22,
        }
    }
}

impl Options {
    pub(super) fn block(&self, esn: bool) -> u64 {
        if esn { self.block_esn } else { self.block_32 }.max(2)
    }
}

/// Security associations, policies, tunnels and nodes, and their one writer. Workers have [`Reader`]s.
///
/// ```
/// use octoplane_esp::db::{Change, Database, Options};
/// use octoplane_esp::store::MemoryStore;
///
/// let mut database = Database::new(Box::new(MemoryStore::default()), Options::default());
/// let mut reader = database.reader();
/// let committed = database.apply(0, vec![Change::SetLocalKey(None)])?;
/// assert_eq!(reader.load().revision, committed.revision);
/// // Ten times a second or so:
/// for event in database.tick(1_000_000_000) {
///     eprintln!("{event}");
/// }
/// # Ok::<(), octoplane_esp::db::ApplyError>(())
/// ```
pub struct Database {
    current: Arc<Snapshot>,
    state: State,
    published: Arc<ArcSwap<Snapshot>>,
    /// Older snapshots that a worker may hold: freed here, not there.
    retired: Vec<Arc<Snapshot>>,
    store: Box<dyn SequenceStore>,
    options: Options,
    told: HashMap<SaId, Told>,
    /// Inbound: the number that was written last.
    checkpoints: HashMap<SaId, u64>,
    reservation_failed: bool,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("revision", &self.current.revision)
            .field("sas", &self.current.sad.len())
            .finish_non_exhaustive()
    }
}

fn record(sa: &Sa) -> RecordKey {
    RecordKey::of(sa.fingerprint(), &sa.config().key())
}

impl Database {
    /// An empty one.
    pub fn new(store: Box<dyn SequenceStore>, options: Options) -> Self {
        let current = Arc::new(Snapshot::default());
        Self {
            published: Arc::new(ArcSwap::new(Arc::clone(&current))),
            current,
            state: State::default(),
            retired: Vec::new(),
            store,
            options,
            told: HashMap::new(),
            checkpoints: HashMap::new(),
            reservation_failed: false,
        }
    }

    /// For a worker.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.published))
    }

    /// What workers see now.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.current
    }

    /// Policies: the outbound ones by number, then the inbound ones.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<PolicyConfig>> {
        self.state.policies.iter().chain(self.state.inbound.iter())
    }

    /// Tunnels, by number, with what they use.
    pub fn tunnels(&self) -> impl Iterator<Item = (TunnelId, SaKey)> {
        self.state.tunnels.iter().map(|(id, key)| (*id, *key))
    }

    /// What is known of nodes, by address.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<NodeConfig>> {
        self.state.nodes.values()
    }

    /// Applies all of the changes or none. `now` is the clock that workers use, in nanoseconds. Outbound security
    /// associations are published only after their sequence numbers are reserved on disk.
    pub fn apply(&mut self, now: u64, changes: Vec<Change>) -> Result<Committed, ApplyError> {
        let mut draft = Draft::new(&self.current, &self.state, &self.options, &*self.store, now);
        for (index, change) in changes.into_iter().enumerate() {
            draft
                .apply(index, change)
                .map_err(|error| ApplyError { index, error })?;
        }
        let Draft {
            mut snapshot,
            state,
            mut committed,
            reservations,
            ..
        } = draft;
        if let Some((_, _, sa, index)) = reservations.first() {
            let records: Vec<_> = reservations
                .iter()
                .map(|(record, end, ..)| (*record, *end))
                .collect();
            self.store.put(&records).map_err(|error| ApplyError {
                index: *index,
                error: ChangeError::NotReserved {
                    key: sa.config().key(),
                    error,
                },
            })?;
            for (_, end, sa, _) in &reservations {
                sa.sequence().allow(*end);
            }
        }
        // What an inbound security association had accepted is remembered for the same keys to come back.
        let gone: Vec<_> = committed
            .removed
            .iter()
            .filter_map(|id| self.current.sad.get(*id))
            .filter(|sa| sa.config().direction == Direction::Inbound && sa.highest_accepted() > 0)
            .map(|sa| (record(sa), sa.highest_accepted()))
            .collect();
        if !gone.is_empty() {
            // If this fails, the last checkpoint holds.
            let _ = self.store.put(&gone);
        }
        for id in &committed.removed {
            self.told.remove(id);
            self.checkpoints.remove(id);
        }
        self.state = state;
        snapshot.revision = self.current.revision + 1;
        committed.revision = snapshot.revision;
        let old = std::mem::replace(&mut self.current, Arc::new(snapshot));
        self.published.store(Arc::clone(&self.current));
        self.retired.push(old);
        self.reclaim();
        Ok(committed)
    }

    /// Frees what no worker can see any more.
    pub fn reclaim(&mut self) {
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }

    /// To be called some times a second: extends reservations of sequence numbers, and tells what happened to lifetimes.
    pub fn tick(&mut self, now: u64) -> Vec<Event> {
        let mut out = Vec::new();
        if let Err(error) = self.reserve(false) {
            if !self.reservation_failed {
                out.push(Event::NotReserved {
                    error: error.to_string(),
                });
            }
            self.reservation_failed = true;
        } else {
            self.reservation_failed = false;
        }
        for sa in self.current.sad.iter() {
            let mut told = self.told.get(&sa.id()).copied().unwrap_or(0);
            let before = told;
            events(sa, now, &mut told, &mut out);
            if told != before {
                self.told.insert(sa.id(), told);
            }
        }
        self.reclaim();
        out
    }

    /// Before an orderly end, after the workers stopped: writes the highest numbers that were accepted, so that nothing can
    /// be replayed after the next start.
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.reserve(true)
    }

    /// Writes what has to be written: outbound reservations of which half is used, and with them, or when much was accepted
    /// since, inbound checkpoints.
    fn reserve(&mut self, all: bool) -> Result<(), StoreError> {
        let (mut records, mut allow) = (Vec::new(), Vec::new());
        let mut due = all;
        let mut tops = Vec::new();
        for sa in self.current.sad.iter() {
            match sa.config().direction {
                Direction::Outbound => {
                    let numbers = sa.sequence();
                    let block = self.options.block(sa.config().esn);
                    let (next, reserved) = (numbers.next(), numbers.reserved());
                    if reserved < numbers.end() && reserved.saturating_sub(next) <= block / 2 {
                        let end = reserved.saturating_add(block).min(numbers.end());
                        records.push((record(sa), end));
                        allow.push((Arc::clone(sa), end));
                    }
                }
                Direction::Inbound => {
                    let top = sa.highest_accepted();
                    let last = self.checkpoints.get(&sa.id()).copied().unwrap_or(0);
                    if top > last {
                        due |= top - last >= self.options.checkpoint;
                        tops.push((sa.id(), record(sa), top));
                    }
                }
            }
        }
        if !due && records.is_empty() {
            return Ok(());
        }
        records.extend(tops.iter().map(|(_, record, top)| (*record, *top)));
        if records.is_empty() {
            return Ok(());
        }
        self.store.put(&records)?;
        for (sa, end) in allow {
            sa.sequence().allow(end);
        }
        for (id, _, top) in tops {
            self.checkpoints.insert(id, top);
        }
        Ok(())
    }
}
