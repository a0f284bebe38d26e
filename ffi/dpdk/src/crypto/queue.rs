//! A crypto device's queue pair: packets in, packets out.

use std::cell::Cell;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;

use crate::crypto::CryptoId;
use crate::crypto::job::{BadJob, CryptoJob, Done, Rules, Status};
use crate::crypto::open::{OpenDevice, Stuck, leave_behind};
use crate::crypto::ops::Ops;
use crate::crypto::session::CryptoSession;
use crate::lcore;

/// Most packets that go to a device, or come back, in one call.
pub const CRYPTO_BURST: usize = dpdk_sys::OCT_CRYPTO_BURST as usize;

/// How long a queue that is dropped waits for a device that gives nothing back.
const DRAIN: Duration = Duration::from_millis(100);

/// Where a queue keeps a session that it has adopted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionSlot(u32);

impl SessionSlot {
    #[inline(always)]
    pub(crate) fn index(self) -> u32 {
        self.0
    }
}

/// A session that packets in the device still use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} packets that use the session are still in the device")]
pub struct SessionInUse(pub u32);

/// Why a device did not take a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no room, in the device or for our own operations. The packet is as it was.
    Full,
    /// The device said this. The packet is as it was unless it is [`Status::Error`] or [`Status::Success`].
    Device(Status),
    /// It was not even tried. The packet is as it was.
    Bad(BadJob),
}

/// What became of a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enqueued {
    /// How many the device took, from the front.
    pub taken: usize,
    /// Why it did not take the next.
    pub refused: Option<Refusal>,
}

#[derive(Debug)]
struct Slot {
    session: Option<Arc<CryptoSession>>,
    /// Copies of what the session has: with many of them it is in no cache.
    raw: SessionPtr,
    rules: Rules,
    in_flight: u32,
}

/// The driver's session. Good as long as the slot owns the session.
#[derive(Debug, Clone, Copy)]
struct SessionPtr(*mut c_void);

// SAFETY: sessions belong to no thread.
unsafe impl Send for SessionPtr {}

/// Bytes at the start of a session that hold the first keys of most drivers.
const HOT: usize = 512;
/// Bytes of a cache line.
const LINE: usize = 64;

/// The only handle of a queue pair. While it exists its device is not stopped. It owns the packets that are in the device;
/// when it is dropped, it waits for them, and what does not come back is freed when the device is closed.
#[derive(Debug)]
pub struct CryptoQueue {
    device: u8,
    queue: u16,
    /// `None` while being dropped only.
    ops: Option<Ops>,
    slots: Vec<Slot>,
    empty: Vec<u32>,
    open: Arc<OpenDevice>,
    _one_user: PhantomData<Cell<()>>,
}

impl CryptoQueue {
    pub(crate) fn new(open: Arc<OpenDevice>, queue: u16, ops: Ops) -> Self {
        Self {
            device: open.id().0,
            queue,
            ops: Some(ops),
            slots: Vec::new(),
            empty: Vec::new(),
            open,
            _one_user: PhantomData,
        }
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> CryptoId {
        CryptoId(self.device)
    }

    /// Number of the queue in its device.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.queue
    }

    /// Packets in the device.
    #[inline(always)]
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.ops.as_ref().map_or(0, Ops::used)
    }

    /// Packets that may still go in before it is full.
    #[inline(always)]
    #[must_use]
    pub fn room(&self) -> usize {
        self.ops.as_ref().map_or(0, Ops::free)
    }

    /// Keeps `session`, so that jobs can name it. Not for every packet: this may allocate.
    ///
    /// # Errors
    /// Gives the session back if it is another device's.
    pub fn adopt(&mut self, session: Arc<CryptoSession>) -> Result<SessionSlot, Arc<CryptoSession>> {
        if !session.belongs_to(&self.open) {
            return Err(session);
        }
        let slot = Slot {
            raw: SessionPtr(session.as_ptr()),
            rules: Rules::of(session.transform()),
            session: Some(session),
            in_flight: 0,
        };
        if let Some(index) = self.empty.pop() {
            if let Some(place) = self.slots.get_mut(index as usize) {
                *place = slot;
            }
            return Ok(SessionSlot(index));
        }
        let index = self.slots.len() as u32;
        self.slots.push(slot);
        Ok(SessionSlot(index))
    }

    /// Lets go of a session. The slot may be another session's next.
    ///
    /// # Errors
    /// [`SessionInUse`]: not before the packets that use it have come back.
    pub fn release(&mut self, slot: SessionSlot) -> Result<Option<Arc<CryptoSession>>, SessionInUse> {
        let Some(place) = self.slots.get_mut(slot.0 as usize) else {
            return Ok(None);
        };
        if place.in_flight > 0 {
            return Err(SessionInUse(place.in_flight));
        }
        let session = place.session.take();
        if session.is_some() {
            self.empty.push(slot.0);
        }
        Ok(session)
    }

    /// Asks the CPU to fetch what a job of this session needs first.
    #[inline(always)]
    pub fn prefetch(&self, slot: SessionSlot) {
        if let Some(slot) = self.slots.get(slot.0 as usize) {
            for at in (0..HOT).step_by(LINE) {
                crate::mbuf::prefetch(slot.raw.0.cast::<u8>().wrapping_add(at));
            }
        }
    }

    /// Gives the device packets from the front of `jobs`. What it does not take stays, in order.
    ///
    /// The calling thread has to be an lcore ([`crate::lcore::register_thread`]); otherwise it takes nothing.
    #[inline]
    pub fn enqueue<const N: usize>(&mut self, jobs: &mut ArrayVec<CryptoJob, N>) -> Enqueued {
        debug_assert!(
            lcore::current().is_some(),
            "crypto from a thread that is not an lcore"
        );
        let mut total = 0;
        while total < jobs.len() {
            let Some(part) = jobs.get_mut(total..) else { break };
            let part_len = part.len().min(CRYPTO_BURST);
            let (taken, refused) = self.enqueue_part(part.get_mut(..part_len).unwrap_or_default());
            total += taken;
            if refused.is_some() {
                remove_front(jobs, total);
                return Enqueued {
                    taken: total,
                    refused,
                };
            }
        }
        remove_front(jobs, total);
        Enqueued {
            taken: total,
            refused: None,
        }
    }

    /// At most [`CRYPTO_BURST`]. The first ones returned are no longer the caller's.
    #[inline(always)]
    fn enqueue_part(&mut self, jobs: &mut [CryptoJob]) -> (usize, Option<Refusal>) {
        let mut good = 0;
        let mut bad = None;
        for job in jobs.iter_mut() {
            let prepared = match self.slots.get(job.slot()) {
                Some(slot) if slot.session.is_some() => job.prepare(slot.rules, slot.raw.0),
                _ => Err(BadJob::Session),
            };
            if let Err(error) = prepared {
                bad = Some(Refusal::Bad(error));
                break;
            }
            good += 1;
        }
        let (device, queue) = (self.device, self.queue);
        let Some(ops) = &mut self.ops else {
            return (0, None);
        };
        let mut refused = dpdk_sys::OCT_CRYPTO_NOT_PROCESSED;
        let first = jobs.as_ptr().cast();
        // SAFETY: the device is started as long as this handle exists, and this handle is the queue's only one. The
        // operations are free. The jobs have been checked against their sessions, which stay where they are while they
        // have packets in the device. What the device takes it owns from now on.
        let taken = ops.take(good, |ops, n| unsafe {
            usize::from(dpdk_sys::oct_crypto_enqueue(
                device,
                queue,
                ops,
                first,
                n as u16,
                &raw mut refused,
            ))
        });
        for job in jobs.iter().take(taken) {
            if let Some(slot) = self.slots.get_mut(job.slot()) {
                slot.in_flight += 1;
            }
        }
        if taken < good {
            return (
                taken,
                Some(match Status::from_raw(refused) {
                    Status::NotProcessed => Refusal::Full,
                    status => Refusal::Device(status),
                }),
            );
        }
        (taken, bad)
    }

    /// Appends packets that are finished to `done`, at most as many as fit and at most [`CRYPTO_BURST`], and returns how
    /// many. They come in the order the device finished them.
    #[inline]
    pub fn dequeue<const N: usize>(&mut self, done: &mut ArrayVec<Done, N>) -> usize {
        let (device, queue) = (self.device, self.queue);
        let Some(ops) = &mut self.ops else { return 0 };
        let room = done.remaining_capacity().min(CRYPTO_BURST);
        let len = done.len();
        // SAFETY: as in `enqueue_part`; `Done` is a transparent wrapper of what is written, of which there is room for
        // `n` at most.
        let n = ops.give(room, |ops, n| unsafe {
            let spare = done.as_mut_ptr().add(len).cast();
            usize::from(dpdk_sys::oct_crypto_dequeue(device, queue, ops, spare, n as u16))
        });
        // SAFETY: the device has filled that many, and given up their buffers.
        unsafe { done.set_len(len + n) };
        for finished in done.iter().skip(len) {
            if let Some(slot) = self.slots.get_mut(finished.slot()) {
                slot.in_flight -= 1;
            }
        }
        n
    }

    /// Frees what comes back, until everything has or nothing does for [`DRAIN`].
    fn drain(&mut self) {
        let mut done = ArrayVec::<Done, CRYPTO_BURST>::new();
        let mut last = Instant::now();
        while self.in_flight() > 0 && last.elapsed() < DRAIN {
            if self.dequeue(&mut done) > 0 {
                last = Instant::now();
            }
            done.clear();
        }
    }
}

/// Removes jobs that are no longer ours.
#[inline(always)]
fn remove_front<const N: usize>(jobs: &mut ArrayVec<CryptoJob, N>, n: usize) {
    let len = jobs.len();
    debug_assert!(n <= len);
    // SAFETY: the first `n` are the device's; the others are moved to the front, and the length covers exactly them.
    unsafe {
        let first = jobs.as_mut_ptr();
        if n < len {
            ptr::copy(first.add(n), first, len - n);
        }
        jobs.set_len(len - n);
    }
}

impl Drop for CryptoQueue {
    fn drop(&mut self) {
        self.drain();
        if self.in_flight() == 0 {
            return;
        }
        // The device may write to these buffers until it is closed.
        if let Some(ops) = self.ops.take() {
            let used = self.slots.drain(..).filter(|slot| slot.in_flight > 0);
            let sessions = used
                .filter_map(|slot| slot.session)
                .filter_map(leave_behind)
                .collect();
            self.open.bury(Stuck { ops, sessions });
        }
    }
}
