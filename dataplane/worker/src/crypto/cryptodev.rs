//! DPDK's crypto devices as a [`Device`].

use std::sync::Arc;

use dpdk::crypto::{
    AAD_MAX, CRYPTO_BURST, CryptoJob, CryptoQueue, CryptoSession, Done, Refusal, SessionMaker, SessionSlot,
    Status,
};
use dpdk::{ArrayVec, Mbuf};
use octoplane_esp::{Job, Session};

use crate::crypto::capabilities::{Capabilities, transform_of};
use crate::crypto::device::{DEVICE_BURST, Device, Finished, Outcome, SessionKey, Ticket};
use crate::crypto::maker::SessionFactory;

/// Bytes of the upper half of a sequence number.
const ESN: u16 = 4;

/// One worker's queue pair. The worker's thread has to be an lcore.
#[derive(Debug)]
pub struct Cryptodev {
    queue: CryptoQueue,
    /// Of the sessions that the queue has adopted, by key.
    slots: Vec<Option<SessionSlot>>,
    free: Vec<u32>,
    /// The session fetched last.
    last: Option<SessionKey>,
    staged: ArrayVec<CryptoJob, DEVICE_BURST>,
    done: ArrayVec<Done, CRYPTO_BURST>,
}

impl Cryptodev {
    /// Takes a queue pair.
    pub fn new(queue: CryptoQueue) -> Self {
        Self {
            queue,
            slots: Vec::new(),
            free: Vec::new(),
            last: None,
            staged: ArrayVec::new(),
            done: ArrayVec::new(),
        }
    }
}

impl Device<Mbuf> for Cryptodev {
    type Session = CryptoSession;

    fn adopt(&mut self, session: Arc<CryptoSession>) -> Option<SessionKey> {
        let slot = self.queue.adopt(session).ok()?;
        if let Some(key) = self.free.pop() {
            *self.slots.get_mut(key as usize)? = Some(slot);
            return Some(SessionKey(key));
        }
        self.slots.push(Some(slot));
        Some(SessionKey(self.slots.len() as u32 - 1))
    }

    fn release(&mut self, key: SessionKey) -> bool {
        let Some(place) = self.slots.get_mut(key.0 as usize) else {
            return true;
        };
        let Some(slot) = *place else { return true };
        if self.queue.release(slot).is_err() {
            return false;
        }
        *place = None;
        self.free.push(key.0);
        true
    }

    #[inline(always)]
    fn room(&self) -> usize {
        let inside = self.queue.room().saturating_sub(self.staged.len());
        inside.min(self.staged.remaining_capacity())
    }

    #[inline(always)]
    fn in_flight(&self) -> usize {
        self.queue.in_flight()
    }

    #[inline(always)]
    fn stage(&mut self, ticket: Ticket, key: SessionKey, job: &Job<()>, buf: Mbuf) {
        let Some(Some(slot)) = self.slots.get(key.0 as usize) else {
            debug_assert!(false, "a session that was released");
            return;
        };
        if self.last != Some(key) {
            // Neighbours mostly have one session.
            self.queue.prefetch(*slot);
            self.last = Some(key);
        }
        let gap = if job.esn_high.is_some() { ESN } else { 0 };
        let icv = job.cipher.offset + job.cipher.len + gap;
        let mut aad = [0; AAD_MAX];
        if let Some(head) = aad.first_chunk_mut() {
            *head = job.aad;
        }
        let mut one = CryptoJob::new(buf, *slot, ticket);
        one.cipher(job.cipher.offset, job.cipher.len)
            .auth(job.esp, icv.wrapping_sub(job.esp))
            .digest(icv)
            .iv(job.nonce)
            .aad(aad);
        // There is room: the caller has asked.
        let _ = self.staged.try_push(one);
    }

    #[inline(always)]
    fn submit(&mut self, back: &mut Vec<Finished<Mbuf>>) {
        while !self.staged.is_empty() {
            let enqueued = self.queue.enqueue(&mut self.staged);
            let Some(refusal) = enqueued.refused else { return };
            refused(&mut self.staged, refusal, back);
        }
    }

    #[inline(always)]
    fn poll(&mut self, back: &mut Vec<Finished<Mbuf>>) {
        self.queue.dequeue(&mut self.done);
        for done in self.done.drain(..) {
            let (ticket, outcome) = (done.user(), outcome(done.status()));
            let (buf, _) = done.into_packets();
            back.push(Finished { ticket, buf, outcome });
        }
    }
}

/// Gives back the job that was refused, and all others if there is no room for them either.
#[cold]
fn refused(staged: &mut ArrayVec<CryptoJob, DEVICE_BURST>, refusal: Refusal, back: &mut Vec<Finished<Mbuf>>) {
    let (n, outcome) = match refusal {
        Refusal::Full => (staged.len(), Outcome::Full),
        Refusal::Bad(_) => (1, Outcome::Refused),
        // Refused, and yet it says that it is done: whatever that means, it was worked on.
        Refusal::Device(Status::Success | Status::AuthFailed) => (1, Outcome::Broken),
        Refusal::Device(status) => (1, outcome(status)),
    };
    for job in staged.drain(..n.min(staged.len())) {
        let ticket = job.user();
        let (buf, _) = job.into_packets();
        back.push(Finished { ticket, buf, outcome });
    }
}

#[inline(always)]
fn outcome(status: Status) -> Outcome {
    match status {
        Status::Success => Outcome::Done,
        Status::AuthFailed => Outcome::AuthFailed,
        Status::NotProcessed | Status::InvalidSession | Status::InvalidArguments => Outcome::Refused,
        Status::Error => Outcome::Broken,
    }
}

/// Makes sessions of a DPDK device.
#[derive(Debug)]
pub struct CryptodevSessions {
    maker: SessionMaker,
    capabilities: Arc<Capabilities>,
}

impl CryptodevSessions {
    /// For the device that `maker` is of.
    pub fn new(maker: SessionMaker, capabilities: Arc<Capabilities>) -> Self {
        Self { maker, capabilities }
    }

    pub(crate) fn maker(&self) -> &SessionMaker {
        &self.maker
    }
}

impl SessionFactory for CryptodevSessions {
    type Session = CryptoSession;

    fn supports(&self, session: &Session) -> bool {
        self.capabilities.contains(session.algorithm(), session.esn())
    }

    fn make(&self, session: &Session) -> Result<Arc<CryptoSession>, String> {
        let keys = session.keys();
        self.maker
            .make(&transform_of(session), keys.cipher.expose(), keys.auth.expose())
            .map_err(|error| error.to_string())
    }
}
