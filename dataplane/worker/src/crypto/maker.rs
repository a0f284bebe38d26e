//! The thread that makes device sessions, so that no worker waits for one.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use octoplane_esp::{Session, SessionId};

use crate::crypto::known::SessionClient;

/// What makes a device session of a session.
pub trait SessionFactory: Send + Sync + 'static {
    /// A device session.
    type Session: Send + Sync + 'static;

    /// Whether the device can do it. Called by workers: quick.
    fn supports(&self, session: &Session) -> bool;

    /// Makes one.
    ///
    /// # Errors
    /// What there is to tell an operator.
    fn make(&self, session: &Session) -> Result<Arc<Self::Session>, String>;
}

/// Requests that wait, of all workers and control together. A worker that finds no room asks again.
const REQUESTS: usize = 4096;
/// Answers that wait for one worker.
const ANSWERS: usize = 1024;
/// How long the thread sleeps when there is nothing to do; requests wake it.
const IDLE: Duration = Duration::from_secs(1);
/// How long when something waits for workers.
const BUSY: Duration = Duration::from_millis(1);

enum Request {
    /// For one worker, or for all.
    Make(Option<usize>, Arc<Session>),
    Forget(SessionId),
}

/// An answer without a device session: it could not be made.
type Answer<T> = (Arc<Session>, Option<Arc<T>>);

struct Shared<F: SessionFactory> {
    factory: F,
    requests: ArrayQueue<Request>,
    answers: Vec<ArrayQueue<Answer<F::Session>>>,
    stop: AtomicBool,
    sessions: AtomicU64,
    failed: AtomicU64,
    error: Mutex<Option<String>>,
}

/// Makes the sessions of one device. Dropping it ends its thread.
pub struct Maker<F: SessionFactory> {
    shared: Arc<Shared<F>>,
    thread: Option<JoinHandle<()>>,
}

impl<F: SessionFactory> std::fmt::Debug for Maker<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maker")
            .field("sessions", &self.sessions())
            .finish_non_exhaustive()
    }
}

impl<F: SessionFactory> Maker<F> {
    /// Starts the thread, for so many workers. It runs where the calling thread may.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(factory: F, workers: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            factory,
            requests: ArrayQueue::new(REQUESTS),
            answers: (0..workers).map(|_| ArrayQueue::new(ANSWERS)).collect(),
            stop: AtomicBool::new(false),
            sessions: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            error: Mutex::new(None),
        });
        let its = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("crypto-sessions".into())
            .spawn(move || Making::new(&its).run())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// One worker's way to ask. `None`: there is no such worker.
    pub fn client(&self, worker: usize) -> Option<MakerClient<F>> {
        self.shared.answers.get(worker)?;
        Some(MakerClient {
            shared: Arc::clone(&self.shared),
            worker,
            thread: self.thread.as_ref()?.thread().clone(),
        })
    }

    /// Makes a device session for every worker before its first packet. `false`: too much waits already; then it is made
    /// when a worker asks for it.
    pub fn prepare(&self, session: &Arc<Session>) -> bool {
        let supported = self.shared.factory.supports(session);
        let asked = !supported
            || self
                .shared
                .requests
                .push(Request::Make(None, Arc::clone(session)))
                .is_ok();
        self.wake();
        asked
    }

    /// Device sessions there are.
    pub fn sessions(&self) -> u64 {
        self.shared.sessions.load(Ordering::Relaxed)
    }

    /// Device sessions that could not be made, and why the last could not.
    pub fn failures(&self) -> (u64, Option<String>) {
        let error = self.shared.error.lock().unwrap_or_else(PoisonError::into_inner);
        (self.shared.failed.load(Ordering::Relaxed), error.clone())
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl<F: SessionFactory> Drop for Maker<F> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One worker's way to a [`Maker`].
pub struct MakerClient<F: SessionFactory> {
    shared: Arc<Shared<F>>,
    worker: usize,
    thread: Thread,
}

impl<F: SessionFactory> SessionClient<F::Session> for MakerClient<F> {
    fn supports(&self, session: &Session) -> bool {
        self.shared.factory.supports(session)
    }

    fn ask(&mut self, session: &Arc<Session>) -> bool {
        let request = Request::Make(Some(self.worker), Arc::clone(session));
        let asked = self.shared.requests.push(request).is_ok();
        // A system call if the thread sleeps: once for a session, not for a packet.
        self.thread.unpark();
        asked
    }

    #[inline(always)]
    fn answer(&mut self) -> Option<Answer<F::Session>> {
        self.shared.answers.get(self.worker)?.pop()
    }

    fn forget(&mut self, id: SessionId) -> bool {
        let told = self.shared.requests.push(Request::Forget(id)).is_ok();
        self.thread.unpark();
        told
    }
}

/// What the thread has.
struct Making<'a, F: SessionFactory> {
    shared: &'a Shared<F>,
    made: HashMap<SessionId, Arc<F::Session>>,
    /// Those that are no longer wanted. They end here, not on a worker.
    retired: Vec<Arc<F::Session>>,
    unsent: VecDeque<(usize, Answer<F::Session>)>,
}

impl<'a, F: SessionFactory> Making<'a, F> {
    fn new(shared: &'a Shared<F>) -> Self {
        Self {
            shared,
            made: HashMap::new(),
            retired: Vec::new(),
            unsent: VecDeque::new(),
        }
    }

    fn run(mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            while let Some(request) = self.shared.requests.pop() {
                self.serve(request);
                self.send();
            }
            self.send();
            self.retired.retain(|session| Arc::strong_count(session) > 1);
            let all = self.made.len() + self.retired.len();
            self.shared.sessions.store(all as u64, Ordering::Relaxed);
            let waiting = !self.unsent.is_empty() || !self.retired.is_empty();
            thread::park_timeout(if waiting { BUSY } else { IDLE });
        }
    }

    fn serve(&mut self, request: Request) {
        match request {
            Request::Make(worker, session) => {
                let made = self.make(&session);
                let workers = match worker {
                    Some(worker) => worker..worker + 1,
                    None => 0..self.shared.answers.len(),
                };
                for worker in workers {
                    self.unsent
                        .push_back((worker, (Arc::clone(&session), made.clone())));
                }
            }
            Request::Forget(id) => {
                self.retired.extend(self.made.remove(&id));
                self.unsent.retain(|(_, (session, _))| session.id() != id);
            }
        }
    }

    fn make(&mut self, session: &Session) -> Option<Arc<F::Session>> {
        if let Some(made) = self.made.get(&session.id()) {
            return Some(Arc::clone(made));
        }
        match self.shared.factory.make(session) {
            Ok(made) => {
                self.made.insert(session.id(), Arc::clone(&made));
                Some(made)
            }
            Err(error) => {
                self.shared.failed.fetch_add(1, Ordering::Relaxed);
                *self.shared.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                None
            }
        }
    }

    /// Answers as far as workers have room.
    fn send(&mut self) {
        for _ in 0..self.unsent.len() {
            let Some((worker, answer)) = self.unsent.pop_front() else {
                return;
            };
            let Some(queue) = self.shared.answers.get(worker) else {
                continue;
            };
            if let Err(answer) = queue.push(answer) {
                self.unsent.push_back((worker, answer));
            }
        }
    }
}
