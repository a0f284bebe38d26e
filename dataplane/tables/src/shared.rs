//! The store as the control plane's threads share it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{ApplyError, ChangeError};
use crate::event::Committed;
use crate::journal::{Journal, NotSaved};
use crate::model::Change;
use crate::snapshot::Reader;
use crate::state::State;
use crate::store::{Store, Usage};

/// Called after each transaction that changed something, in the order of the revisions. Must not block.
pub type Subscriber = Box<dyn Fn(&Committed) + Send + Sync>;

struct Inner {
    store: Store,
    subscribers: Vec<Subscriber>,
    journal: Option<Arc<dyn Journal>>,
}

/// A handle to the one store. Workers never take this lock: they have [`crate::Reader`]s.
#[derive(Clone)]
pub struct SharedStore(Arc<Mutex<Inner>>);

impl SharedStore {
    /// Shares a store.
    pub fn new(store: Store) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            store,
            subscribers: Vec::new(),
            journal: None,
        })))
    }

    /// Has every transaction from now on kept by `journal`.
    pub fn keep(&self, journal: Arc<dyn Journal>) {
        self.lock().journal = Some(journal);
    }

    /// What keeps the transactions, if anything does.
    pub fn journal(&self) -> Option<Arc<dyn Journal>> {
        self.lock().journal.clone()
    }

    /// A consistent copy of the state.
    pub fn state(&self) -> State {
        self.lock().store.state()
    }

    /// A view of the tables as workers have it.
    pub fn reader(&self) -> Reader {
        self.lock().store.reader()
    }

    /// The current state, and a view of the tables that stays there. Not to be kept: what changes meanwhile needs memory of its own.
    pub fn frozen(&self) -> (State, Reader) {
        self.lock().store.frozen()
    }

    /// How full the tables are.
    pub fn usage(&self) -> Vec<Usage> {
        self.lock().store.usage()
    }

    /// Applies a transaction, tells the subscribers, and returns once it is kept, if transactions are.
    ///
    /// # Errors
    /// What is wrong with a change. [`ChangeError::CannotSave`] if transactions cannot be kept at present, and
    /// [`ChangeError::NotSaved`] if this one was made, but is not kept.
    pub fn apply(&self, changes: Vec<Change>) -> Result<Committed, ApplyError> {
        self.update(|_| changes)
    }

    /// Makes a transaction out of the current state and applies it, with no other in between.
    ///
    /// # Errors
    /// As [`SharedStore::apply`].
    pub fn update(&self, make: impl FnOnce(&State) -> Vec<Change>) -> Result<Committed, ApplyError> {
        let refused = |error| ApplyError { index: 0, error };
        self.ready().map_err(refused)?;
        let committed = self.learn(make)?;
        // What changes nothing may rest upon what is still on its way.
        self.kept(committed.revision).map_err(refused)?;
        Ok(committed)
    }

    /// Whether transactions can be kept at present.
    ///
    /// # Errors
    /// [`ChangeError::CannotSave`]
    pub fn ready(&self) -> Result<(), ChangeError> {
        self.journal().map_or(Ok(()), |journal| {
            journal
                .ready()
                .map_err(|NotSaved(why)| ChangeError::CannotSave { why })
        })
    }

    /// Returns once all transactions up to this revision are kept, if transactions are.
    ///
    /// # Errors
    /// [`ChangeError::NotSaved`]: they were made, but are not kept.
    pub fn kept(&self, revision: u64) -> Result<(), ChangeError> {
        self.journal().map_or(Ok(()), |journal| {
            journal
                .wait(revision)
                .map_err(|NotSaved(why)| ChangeError::NotSaved { why })
        })
    }

    /// [`SharedStore::update`] for what would be learned again after a crash, and for steps of something larger: does not wait
    /// until it is kept.
    ///
    /// # Errors
    /// What is wrong with a change.
    pub fn learn(&self, make: impl FnOnce(&State) -> Vec<Change>) -> Result<Committed, ApplyError> {
        let mut inner = self.lock();
        let changes = make(&inner.store.state());
        let committed = inner.store.apply(changes)?;
        if !committed.events.is_empty() {
            if let Some(journal) = &inner.journal {
                journal.record(&committed, &inner.store.state());
            }
            for subscriber in &inner.subscribers {
                subscriber(&committed);
            }
        }
        Ok(committed)
    }

    /// What a transaction would do.
    pub fn check(&self, changes: Vec<Change>) -> Result<Committed, ApplyError> {
        self.lock().store.check(changes)
    }

    /// Frees what no worker can see any more.
    pub fn reclaim(&self) {
        self.lock().store.reclaim();
    }

    /// Has `subscriber` called after each transaction from now on; returns the state it starts from.
    pub fn subscribe(&self, subscriber: Subscriber) -> State {
        let mut inner = self.lock();
        inner.subscribers.push(subscriber);
        inner.store.state()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A thread that panicked inside left the store as it was before its transaction: publishing is the last step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
