//! How a device is taken from a worker, and how it gets another, without stopping it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// One worker's. Either side looks at a flag; the locks are for the rare case that there is something.
#[derive(Debug)]
pub struct Mailbox<T> {
    wanted_back: AtomicBool,
    something: AtomicBool,
    to_worker: Mutex<Option<T>>,
    from_worker: Mutex<Option<T>>,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self {
            wanted_back: AtomicBool::new(false),
            something: AtomicBool::new(false),
            to_worker: Mutex::new(None),
            from_worker: Mutex::new(None),
        }
    }
}

impl<T> Mailbox<T> {
    /// Control: asks for what the worker has.
    pub fn ask_back(&self) {
        self.wanted_back.store(true, Ordering::Release);
    }

    /// Control: what the worker gave back.
    pub fn take_back(&self) -> Option<T> {
        lock(&self.from_worker).take()
    }

    /// Control: for the worker, instead of what it had before. Returns what it did not take yet.
    pub fn offer(&self, item: T) -> Option<T> {
        let before = lock(&self.to_worker).replace(item);
        self.wanted_back.store(false, Ordering::Release);
        self.something.store(true, Ordering::Release);
        before
    }

    /// Control: what it offered, if the worker has not taken it.
    pub fn take_offered(&self) -> Option<T> {
        lock(&self.to_worker).take()
    }

    /// Worker: whether it should give back what it has.
    #[inline(always)]
    pub(crate) fn is_wanted_back(&self) -> bool {
        self.wanted_back.load(Ordering::Acquire)
    }

    /// Worker: gives it back.
    pub(crate) fn give_back(&self, item: T) {
        // What control did not fetch since the last time is dropped here, which takes a while: control should have.
        drop(lock(&self.from_worker).replace(item));
    }

    /// Worker: what control offers.
    #[inline(always)]
    pub(crate) fn take_offer(&self) -> Option<T> {
        if !self.something.load(Ordering::Acquire) {
            return None;
        }
        // Taken the next time if control is just putting it there.
        let item = self.to_worker.try_lock().ok()?.take();
        if item.is_some() {
            self.something.store(false, Ordering::Release);
        }
        item
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
