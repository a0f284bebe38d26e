//! A crypto device and its life: open, start, sessions, close.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::crypto::algorithm::{self, Transform};
use crate::crypto::info::{self, CryptoInfo, CryptoStats};
use crate::crypto::open::OpenDevice;
use crate::crypto::ops::Ops;
use crate::crypto::queue::CryptoQueue;
use crate::crypto::session::CryptoSession;
use crate::crypto::{CryptoError, CryptoId};
use crate::eal::Eal;

/// How a device is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CryptoConfig {
    /// Queue pairs: one for each worker.
    pub queue_pairs: u16,
    /// Size of each queue. Drivers that are libraries want a power of two. One packet fewer is in flight at most, because
    /// some drivers find that a queue is full only after they have worked on the packet.
    pub descriptors: u32,
}

impl Default for CryptoConfig {
    fn default() -> Self {
        Self {
            queue_pairs: 1,
            descriptors: 1024,
        }
    }
}

/// The one owner of a crypto device. It moves between threads but is not shared; what other threads need is in
/// [`CryptoQueue`] and [`SessionMaker`].
#[derive(Debug)]
pub struct CryptoDevice {
    open: Arc<OpenDevice>,
    _not_shared: PhantomData<Cell<()>>,
}

impl CryptoDevice {
    /// Takes possession of a device.
    ///
    /// # Errors
    /// [`CryptoError::Missing`], [`CryptoError::Open`]
    pub fn open(eal: &Eal, id: CryptoId) -> Result<Self, CryptoError> {
        let open = OpenDevice::claim(eal, id)?;
        Ok(Self {
            open: Arc::new(open),
            _not_shared: PhantomData,
        })
    }

    /// The device's number.
    #[must_use]
    pub fn id(&self) -> CryptoId {
        self.open.id()
    }

    /// Lets go of a device that has been removed, or that nothing was done to.
    pub(crate) fn release(mut self) {
        if let Some(open) = Arc::get_mut(&mut self.open) {
            open.close_on_drop = false;
        }
    }

    /// What the device is and can do.
    ///
    /// # Errors
    /// [`CryptoError::Missing`]
    pub fn info(&self) -> Result<CryptoInfo, CryptoError> {
        info::info_of(&self.open.eal, self.id())
    }

    /// Whether the device says that it can do `transform`.
    #[must_use]
    pub fn supports(&self, transform: &Transform) -> bool {
        algorithm::supports(&self.open.eal, self.id(), transform)
    }

    /// Sets up queue pairs, starts the device and gives out the queues, in order.
    ///
    /// # Errors
    /// [`CryptoError::InUse`] if it was started before, [`CryptoError::QueuePairs`], and the driver's.
    pub fn start(&mut self, config: &CryptoConfig) -> Result<Vec<CryptoQueue>, CryptoError> {
        let id = self.id();
        if self.open.is_started() {
            return Err(CryptoError::InUse(id));
        }
        let most = self.info()?.max_queue_pairs;
        if config.queue_pairs == 0 || u32::from(config.queue_pairs) > most {
            return Err(CryptoError::QueuePairs {
                device: id,
                asked: config.queue_pairs,
                most,
            });
        }
        let socket = self.open.socket;
        // SAFETY: the device is open and stopped.
        CryptoError::check(id, "configuration", unsafe {
            dpdk_sys::oct_crypto_configure(id.0, config.queue_pairs, config.descriptors, socket)
        })?;
        let in_flight = config.descriptors.saturating_sub(1).max(1);
        let ops = (0..config.queue_pairs)
            .map(|_| Ops::new(&self.open, in_flight))
            .collect::<Result<Vec<_>, _>>()?;
        // SAFETY: the device is configured and stopped.
        CryptoError::check(id, "start", unsafe { dpdk_sys::rte_cryptodev_start(id.0) })?;
        self.open.set_started();
        Ok((0..config.queue_pairs)
            .zip(ops)
            .map(|(queue, ops)| CryptoQueue::new(Arc::clone(&self.open), queue, ops))
            .collect())
    }

    /// What other threads make sessions with.
    #[must_use]
    pub fn session_maker(&self) -> SessionMaker {
        SessionMaker {
            open: Arc::clone(&self.open),
        }
    }

    /// Reads the counters.
    ///
    /// # Errors
    /// The driver's.
    pub fn stats(&self) -> Result<CryptoStats, CryptoError> {
        info::stats_of(self.id())
    }

    /// Sets the counters to 0.
    pub fn reset_stats(&mut self) {
        // SAFETY: the device is open.
        unsafe { dpdk_sys::rte_cryptodev_stats_reset(self.id().0) };
    }

    /// Stops and closes the device.
    ///
    /// # Errors
    /// [`CryptoError::InUse`], with the device: it closes when the last queue, session and maker are gone.
    pub fn close(self) -> Result<(), (CryptoError, Self)> {
        let Self { open, _not_shared } = self;
        match Arc::try_unwrap(open) {
            Ok(open) => {
                drop(open);
                Ok(())
            }
            Err(open) => Err((CryptoError::InUse(open.id()), Self { open, _not_shared })),
        }
    }
}

/// Makes sessions of a device, on any thread.
#[derive(Debug, Clone)]
pub struct SessionMaker {
    open: Arc<OpenDevice>,
}

impl SessionMaker {
    /// The device's number.
    #[must_use]
    pub fn device(&self) -> CryptoId {
        self.open.id()
    }

    /// Whether the device says that it can do `transform`.
    #[must_use]
    pub fn supports(&self, transform: &Transform) -> bool {
        algorithm::supports(&self.open.eal, self.open.id(), transform)
    }

    /// Makes a session. Takes some microseconds to some hundred, so not for every packet. The keys are not kept here; the
    /// driver keeps what it makes of them.
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`], [`CryptoError::Unsupported`], and the driver's.
    pub fn make(
        &self,
        transform: &Transform,
        key: &[u8],
        auth_key: &[u8],
    ) -> Result<Arc<CryptoSession>, CryptoError> {
        let device = self.open.id();
        for (key, expected) in [(key, transform.key_len), (auth_key, transform.auth_key_len)] {
            if key.len() != usize::from(expected) {
                return Err(CryptoError::KeyLength {
                    device,
                    got: key.len(),
                    expected,
                });
            }
        }
        if !self.supports(transform) {
            return Err(CryptoError::Unsupported {
                device,
                transform: *transform,
            });
        }
        let raw = transform.raw(key.as_ptr(), auth_key.as_ptr());
        let session = self.open.make_session(&raw)?;
        Ok(Arc::new(CryptoSession::new(
            session,
            *transform,
            Arc::clone(&self.open),
        )))
    }
}
