//! The software provider.

use std::hint::black_box;
use std::sync::Arc;

use arrayvec::ArrayVec;
use octoplane_packet::PacketBuf;

use super::keys::SoftwareKeys;
use super::plan::Plan;
use crate::algorithm::Algorithm;
use crate::provider::{Job, JobStatus, Operation, Provider, SessionLookup};
use crate::session::{Session, SessionId};

/// Jobs that are looked at together.
const CHUNK: usize = 64;

/// Encrypts and decrypts in process. Expanded keys are kept with the session, so that all workers share them; the plan of
/// the provider that sees a session first decides which libraries they are expanded for.
#[derive(Debug)]
pub struct Software<B> {
    plan: Arc<Plan>,
    done: Vec<Job<B>>,
    capacity: usize,
}

impl<B: PacketBuf> Software<B> {
    /// A provider that holds up to `capacity` jobs between [`Provider::submit`] and [`Provider::poll`].
    pub fn new(plan: Arc<Plan>, capacity: usize) -> Self {
        Self {
            plan,
            done: Vec::with_capacity(capacity),
            capacity,
        }
    }

    /// Does some jobs, at most [`CHUNK`].
    fn run_all(&self, sessions: &dyn SessionLookup, jobs: &mut [Job<B>]) {
        let mut found: ArrayVec<Option<&Session>, CHUNK> = ArrayVec::new();
        let mut last: Option<SessionId> = None;
        let mut different = 0;
        for job in jobs.iter() {
            if last == Some(job.session) {
                found.push(found.last().copied().flatten());
            } else {
                found.push(sessions.session(job.session).map(|session| &**session));
                last = Some(job.session);
                different += 1;
            }
        }
        if different > 1 {
            // Has the keys' cache lines fetched side by side, before they are needed one after the other.
            let mut read = 0;
            for session in found.iter().flatten() {
                read ^= session.read(&self.plan);
            }
            black_box(read);
        }
        for (job, session) in jobs.iter_mut().zip(found) {
            match session {
                Some(session) => self.run(session, job),
                None => job.status = JobStatus::NoSession,
            }
        }
    }

    /// Does one job on the spot.
    #[inline]
    pub fn run(&self, session: &Session, job: &mut Job<B>) {
        job.status = match session.software(&self.plan) {
            Some(keys) => run(keys, session, job),
            None => JobStatus::DeviceError,
        };
    }
}

#[inline]
fn run<B: PacketBuf>(keys: &SoftwareKeys, session: &Session, job: &mut Job<B>) -> JobStatus {
    let (esp, text, end) = (
        usize::from(job.esp),
        usize::from(job.cipher.offset),
        job.cipher.end(),
    );
    let Some(aad) = job.aad.get(..session.aad_len()) else {
        return JobStatus::DeviceError;
    };
    let packet = job.buf.data_mut();
    match session.operation() {
        Operation::Encrypt => match keys.seal(&job.nonce, aad, job.esn_high, packet, esp, text, end) {
            Ok(()) => JobStatus::Ok,
            Err(_) => JobStatus::DeviceError,
        },
        Operation::Decrypt => match keys.open(&job.nonce, aad, job.esn_high, packet, esp, text, end) {
            Ok(()) => JobStatus::Ok,
            Err(_) => JobStatus::AuthFailed,
        },
    }
}

/// Moves jobs from the front of one vector to the end of the other, as far as there is room. Both keep their memory, or
/// have it exchanged.
fn transfer<B>(from: &mut Vec<Job<B>>, to: &mut Vec<Job<B>>, room: usize) -> usize {
    let count = from.len().min(room);
    if to.is_empty() && count == from.len() && to.capacity() == from.capacity() {
        std::mem::swap(from, to);
    } else {
        to.extend(from.drain(..count));
    }
    count
}

impl<B: PacketBuf> Provider<B> for Software<B> {
    fn name(&self) -> &str {
        "software"
    }

    fn supports(&self, _: Algorithm, _: bool) -> bool {
        true
    }

    fn submit(&mut self, sessions: &dyn SessionLookup, jobs: &mut Vec<Job<B>>) -> usize {
        let room = self.capacity - self.done.len().min(self.capacity);
        let count = jobs.len().min(room);
        for chunk in jobs[..count].chunks_mut(CHUNK) {
            self.run_all(sessions, chunk);
        }
        transfer(jobs, &mut self.done, room)
    }

    fn poll(&mut self, done: &mut Vec<Job<B>>, most: usize) -> usize {
        let room = most.min(done.capacity() - done.len());
        transfer(&mut self.done, done, room)
    }

    fn in_flight(&self) -> usize {
        self.done.len()
    }

    fn sessions_changed(&mut self, _: &dyn SessionLookup) {
        // Expanded keys go with their session.
    }
}
