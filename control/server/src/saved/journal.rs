//! The thread that writes: whatever waits is one transaction of the database (group commit).

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use octoplane_api::v1;
use octoplane_tables::{Committed, Journal, NotSaved, State};
use tracing::{error, info};

use super::file::StateFile;
use super::record::{Recorder, Writes, added_port};
use super::restore::Restored;

/// How long a transaction waits for a disk.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long until the next try after an error.
const RETRY: Duration = Duration::from_secs(1);

/// What is to be written.
enum Entry {
    Transaction(Box<(Committed, State)>),
    AddedPort(v1::AddPortRequest),
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Entry>,
    /// Entries that were ever in the queue, and those that were written.
    put: u64,
    written: u64,
    /// Latest revision of the former, and of the latter.
    revision: u64,
    saved: u64,
    /// Why nothing can be written, while that is so.
    failure: Option<String>,
    stop: bool,
}

type Listener = Box<dyn Fn() + Send + Sync>;

struct Shared {
    queue: Mutex<Queue>,
    /// Something is to be written.
    work: Condvar,
    /// Something was written, or could not be.
    done: Condvar,
    listeners: Mutex<Vec<Listener>>,
}

/// Keeps transactions in a file. Dropping it writes what waits.
pub struct StateJournal {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl StateJournal {
    /// Starts the thread. What `restored` says that it did not restore is written out of the file first.
    pub(super) fn start(file: StateFile, state: &State, restored: Restored) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                revision: state.revision(),
                saved: state.revision(),
                ..Queue::default()
            }),
            work: Condvar::new(),
            done: Condvar::new(),
            listeners: Mutex::default(),
        });
        let mut writer = Writer {
            shared: Arc::clone(&shared),
            recorder: Recorder::new(state),
            writes: restored.stale,
            file,
        };
        let thread = thread::Builder::new()
            .name("state".into())
            .spawn(move || writer.run())?;
        Ok(Arc::new(Self {
            shared,
            thread: Some(thread),
        }))
    }

    /// Keeps a port that came over the API, until it goes. Returns once it is kept.
    ///
    /// # Errors
    /// As [`Journal::wait`].
    pub fn add_port(&self, request: &v1::AddPortRequest) -> Result<(), NotSaved> {
        let ticket = self.shared.put(Entry::AddedPort(request.clone()));
        self.shared.wait(|queue| queue.written >= ticket)
    }

    /// Returns once all is kept that is on its way.
    ///
    /// # Errors
    /// As [`Journal::wait`].
    pub fn settle(&self) -> Result<(), NotSaved> {
        let ticket = self.shared.lock().put;
        self.shared.wait(|queue| queue.written >= ticket)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, entry: Entry) -> u64 {
        let mut queue = self.lock();
        if let Entry::Transaction(made) = &entry {
            queue.revision = made.0.revision;
        }
        queue.waiting.push(entry);
        queue.put += 1;
        self.work.notify_one();
        queue.put
    }

    fn wait(&self, is_done: impl Fn(&Queue) -> bool) -> Result<(), NotSaved> {
        let (queue, _) = self
            .done
            .wait_timeout_while(self.lock(), PATIENCE, |queue| {
                !is_done(queue) && queue.failure.is_none()
            })
            .unwrap_or_else(PoisonError::into_inner);
        if is_done(&queue) {
            return Ok(());
        }
        Err(NotSaved(queue.failure.clone().unwrap_or_else(|| {
            format!("the disk took longer than {} s", PATIENCE.as_secs())
        })))
    }
}

impl Journal for StateJournal {
    fn ready(&self) -> Result<(), NotSaved> {
        match &self.shared.lock().failure {
            Some(failure) => Err(NotSaved(failure.clone())),
            None => Ok(()),
        }
    }

    fn record(&self, committed: &Committed, state: &State) {
        let made = Box::new((committed.clone(), state.clone()));
        self.shared.put(Entry::Transaction(made));
    }

    fn wait(&self, revision: u64) -> Result<(), NotSaved> {
        self.shared.wait(|queue| queue.saved >= revision)
    }

    fn saved(&self) -> u64 {
        self.shared.lock().saved
    }

    fn listen(&self, listener: Listener) {
        self.shared
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(listener);
    }
}

impl Drop for StateJournal {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Writer {
    shared: Arc<Shared>,
    recorder: Recorder,
    /// What is to be written still, beside what waits in the queue.
    writes: Writes,
    file: StateFile,
}

impl Writer {
    fn run(&mut self) {
        loop {
            let (entries, put, revision, stop) = self.take();
            if entries.is_empty() && self.writes.is_empty() && stop {
                return;
            }
            for entry in entries {
                match entry {
                    Entry::Transaction(made) => {
                        let (committed, state) = *made;
                        self.recorder.record(&committed, &state, &mut self.writes);
                    }
                    Entry::AddedPort(request) => self.writes.extend([added_port(&request)]),
                }
            }
            let result = self.file.write(revision, &self.writes);
            let failed = result.is_err();
            self.tell(result, put, revision);
            if failed && stop {
                return;
            }
        }
    }

    /// Waits for work: after an error, until it is time to try again.
    fn take(&self) -> (Vec<Entry>, u64, u64, bool) {
        let mut queue = self.shared.lock();
        let begin = Instant::now();
        loop {
            let idle = queue.waiting.is_empty() && self.writes.is_empty();
            let pause = match queue.failure {
                Some(_) => RETRY.saturating_sub(begin.elapsed()),
                None => Duration::ZERO,
            };
            if queue.stop || (!idle && pause.is_zero()) {
                return (
                    std::mem::take(&mut queue.waiting),
                    queue.put,
                    queue.revision,
                    queue.stop,
                );
            }
            queue = if idle {
                self.shared
                    .work
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner)
            } else {
                let waited = self.shared.work.wait_timeout(queue, pause);
                waited.unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }

    /// Tells those who wait.
    fn tell(&mut self, result: Result<(), String>, put: u64, revision: u64) {
        let mut queue = self.shared.lock();
        match result {
            Ok(()) => {
                self.writes.clear();
                queue.written = put;
                queue.saved = revision;
                if queue.failure.take().is_some() {
                    info!("{}: can be written again", self.file.path().display());
                }
            }
            Err(why) => {
                let failure = format!("{}: {why}", self.file.path().display());
                if queue.failure.is_none() {
                    error!("what is programmed cannot be saved: {failure}");
                }
                queue.failure = Some(failure);
            }
        }
        drop(queue);
        self.shared.done.notify_all();
        let listeners = self.shared.listeners.lock();
        for listener in listeners.unwrap_or_else(PoisonError::into_inner).iter() {
            listener();
        }
    }
}
