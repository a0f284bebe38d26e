//! Sessions: a key in the form a device wants it in.

use std::ffi::c_void;
use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::crypto::CryptoId;
use crate::crypto::algorithm::Transform;
use crate::crypto::open::OpenDevice;

/// Keys and algorithm, as a device's driver keeps them. Used through the queues that adopt it
/// ([`crate::crypto::CryptoQueue::adopt`]); freed with its last owner.
#[derive(Debug)]
pub struct CryptoSession {
    raw: NonNull<c_void>,
    transform: Transform,
    open: Arc<OpenDevice>,
}

// SAFETY: a session belongs to no thread, and the queues of a device only read it.
unsafe impl Send for CryptoSession {}
// SAFETY: as for Send.
unsafe impl Sync for CryptoSession {}

impl CryptoSession {
    pub(crate) fn new(raw: NonNull<c_void>, transform: Transform, open: Arc<OpenDevice>) -> Self {
        Self { raw, transform, open }
    }

    /// The device it was made for.
    #[must_use]
    pub fn device(&self) -> CryptoId {
        self.open.id()
    }

    /// Algorithm and sizes.
    #[must_use]
    pub fn transform(&self) -> &Transform {
        &self.transform
    }

    pub(crate) fn as_ptr(&self) -> *mut c_void {
        self.raw.as_ptr()
    }

    pub(crate) fn belongs_to(&self, open: &Arc<OpenDevice>) -> bool {
        Arc::ptr_eq(&self.open, open)
    }

    /// Takes the session away from this, which then frees nothing.
    pub(crate) fn into_raw(self) -> NonNull<c_void> {
        let raw = self.raw;
        // SAFETY: `self.open` is read once, as `self` is forgotten, and dropped here.
        drop(unsafe { std::ptr::read(&raw const self.open) });
        mem::forget(self);
        raw
    }
}

impl Drop for CryptoSession {
    fn drop(&mut self) {
        // SAFETY: the device is open, and no queue has the session any more: it would own it.
        let _ = unsafe { dpdk_sys::rte_cryptodev_sym_session_free(self.open.id().0, self.raw.as_ptr()) };
    }
}
