//! The latest transactions, for those who watch.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use octoplane_tables::{Committed, Journal, SharedStore};
use tokio::sync::watch;
use tonic::Status;

/// Most transactions that are remembered.
const MAX_TRANSACTIONS: usize = 4096;

/// Most events that are remembered, in all transactions together; the latest transaction always is.
const MAX_EVENTS: usize = 1 << 18;

/// What comes after a revision.
#[derive(Debug)]
pub(crate) enum Next {
    /// The transaction that follows.
    Transaction(Arc<Committed>),
    /// Nothing yet.
    Latest,
    /// What follows is remembered no more; the oldest revision after which everything is.
    Forgotten(u64),
    /// That revision was not reached yet; the current one.
    Ahead(u64),
    /// Nothing any more: the server stops.
    Closed,
}

struct Inner {
    transactions: VecDeque<Arc<Committed>>,
    events: usize,
    /// Everything after this revision is remembered.
    after: u64,
    /// The current revision.
    latest: u64,
    /// Whether readers are to go.
    closed: bool,
}

/// Remembers as much as it has room for. The writer never waits for a reader.
pub(crate) struct History {
    inner: Mutex<Inner>,
    latest: Arc<watch::Sender<u64>>,
    /// What keeps transactions: nobody is told of one that a crash could undo.
    journal: Option<Arc<dyn Journal>>,
}

impl History {
    /// Remembers from now on.
    pub(crate) fn of(store: &SharedStore) -> Arc<Self> {
        let history = Arc::new(Self {
            inner: Mutex::new(Inner {
                transactions: VecDeque::new(),
                events: 0,
                after: 0,
                latest: 0,
                closed: false,
            }),
            latest: Arc::new(watch::Sender::new(0)),
            journal: store.journal(),
        });
        if let Some(journal) = &history.journal {
            // Not the history: who is told could be the last to have it, and with it the journal that tells.
            let latest = Arc::downgrade(&history.latest);
            journal.listen(Box::new(move || {
                if let Some(latest) = latest.upgrade() {
                    latest.send_modify(|_| ());
                }
            }));
        }
        let writer = Arc::clone(&history);
        // What is committed before the start is known waits here.
        let mut inner = history.lock();
        let start = store
            .subscribe(Box::new(move |committed| writer.push(committed)))
            .revision();
        inner.after = start;
        inner.latest = start;
        drop(inner);
        history
    }

    /// What comes after `revision`.
    pub(crate) fn next(&self, revision: u64) -> Next {
        let saved = self.journal.as_ref().map_or(u64::MAX, |journal| journal.saved());
        let inner = self.lock();
        if inner.closed {
            return Next::Closed;
        }
        if revision > inner.latest {
            return Next::Ahead(inner.latest);
        }
        if revision < inner.after {
            return Next::Forgotten(inner.after);
        }
        let position = inner
            .transactions
            .partition_point(|committed| committed.revision <= revision);
        match inner.transactions.get(position) {
            Some(committed) if committed.revision <= saved => Next::Transaction(Arc::clone(committed)),
            _ => Next::Latest,
        }
    }

    /// Returns once a state is as safe as what readers are told of.
    pub(crate) async fn settled(&self, revision: u64) -> Result<(), Status> {
        let Some(journal) = self.journal.clone() else {
            return Ok(());
        };
        let waited = tokio::task::spawn_blocking(move || journal.wait(revision)).await;
        match waited {
            Ok(result) => result.map_err(|error| Status::unavailable(error.to_string())),
            Err(_) => Err(Status::internal("waiting was given up")),
        }
    }

    /// Tells when something was committed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    /// Sends all readers away.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        // Wakes them.
        self.latest.send_modify(|_| ());
    }

    fn push(&self, committed: &Committed) {
        let mut inner = self.lock();
        inner.events += committed.events.len();
        inner.latest = committed.revision;
        inner.transactions.push_back(Arc::new(committed.clone()));
        let mut forgotten = Vec::new();
        while inner.transactions.len() > 1
            && (inner.transactions.len() > MAX_TRANSACTIONS || inner.events > MAX_EVENTS)
        {
            if let Some(oldest) = inner.transactions.pop_front() {
                inner.events -= oldest.events.len();
                inner.after = oldest.revision;
                forgotten.push(oldest);
            }
        }
        drop(inner);
        // Freed outside of the lock.
        drop(forgotten);
        self.latest.send_replace(committed.revision);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::thread::{self, ThreadId};

    use octoplane_tables::{Capacity, Gateways, NotSaved, State, Store};

    use super::*;

    type Listeners = Arc<Mutex<Vec<Box<dyn Fn() + Send + Sync>>>>;

    /// Keeps nothing, and notes who drops it.
    struct Telling {
        listeners: Listeners,
        dropped_by: Arc<Mutex<Option<ThreadId>>>,
    }

    impl Journal for Telling {
        fn ready(&self) -> Result<(), NotSaved> {
            Ok(())
        }

        fn record(&self, _: &Committed, _: &State) {}

        fn wait(&self, _: u64) -> Result<(), NotSaved> {
            Ok(())
        }

        fn saved(&self) -> u64 {
            u64::MAX
        }

        fn listen(&self, listener: Box<dyn Fn() + Send + Sync>) {
            self.listeners.lock().unwrap().push(listener);
        }
    }

    impl Drop for Telling {
        fn drop(&mut self) {
            *self.dropped_by.lock().unwrap() = Some(thread::current().id());
        }
    }

    #[test]
    fn who_tells_is_not_left_with_the_journal() {
        let gateways = Gateways {
            ipv4: "169.254.1.1".parse().unwrap(),
            ipv6: "fe80::1".parse().unwrap(),
        };
        for _ in 0..100 {
            let listeners = Listeners::default();
            let dropped_by = Arc::default();
            let store = SharedStore::new(Store::new(Vec::new(), gateways, Capacity::DEFAULT).unwrap());
            store.keep(Arc::new(Telling {
                listeners: Arc::clone(&listeners),
                dropped_by: Arc::clone(&dropped_by),
            }));
            let history = History::of(&store);
            let (telling, stop) = (AtomicBool::new(false), AtomicBool::new(false));
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !stop.load(Relaxed) {
                        listeners.lock().unwrap().iter().for_each(|listener| listener());
                        telling.store(true, Relaxed);
                    }
                });
                while !telling.load(Relaxed) {
                    thread::yield_now();
                }
                drop(store);
                drop(history);
                stop.store(true, Relaxed);
            });
            assert_eq!(*dropped_by.lock().unwrap(), Some(thread::current().id()));
        }
    }
}
