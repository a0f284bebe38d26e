//! One packet for a crypto device, and what comes back.

use std::ffi::c_void;
use std::mem;
use std::ptr::{self, NonNull};

use octoplane_packet::PacketBuf;

use crate::crypto::algorithm::{AAD_MAX, CryptoAlgorithm, Direction, IV_MAX, Transform};
use crate::crypto::queue::SessionSlot;
use crate::mbuf::Mbuf;

/// A packet, and what a device is to do with it. Offsets count from the first byte of its data.
#[derive(Debug)]
#[repr(transparent)]
pub struct CryptoJob {
    raw: dpdk_sys::oct_crypto_job,
}

// SAFETY: a job owns its buffers, which belong to no thread; its session pointer is not used before a queue sets it.
unsafe impl Send for CryptoJob {}

/// Why a job cannot be given to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadJob {
    /// The slot is empty.
    #[error("there is no such session")]
    Session,
    /// Something is outside the packet, or the packet is in several segments.
    #[error("bytes to work on are outside the packet")]
    Range,
    /// AES-CBC works on whole blocks of 16 bytes.
    #[error("AES-CBC of a length that is not a multiple of 16")]
    Blocks,
}

/// What a job of a session has to keep to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    digest_len: u16,
    combined: bool,
    blocks: bool,
    verify: bool,
}

impl Rules {
    pub(crate) fn of(transform: &Transform) -> Self {
        let combined = transform.algorithm.is_combined();
        Self {
            digest_len: transform.digest_len,
            combined,
            blocks: !combined && transform.algorithm != CryptoAlgorithm::Null,
            verify: transform.direction == Direction::Decrypt,
        }
    }
}

impl CryptoJob {
    /// What is to be done to `packet`, in place, with the session in `slot`. `user` comes back with it.
    ///
    /// Ranges are to be set: everything is 0.
    #[inline]
    #[must_use]
    pub fn new(packet: Mbuf, slot: SessionSlot, user: u32) -> Self {
        Self {
            raw: dpdk_sys::oct_crypto_job {
                src: packet.into_raw().as_ptr(),
                dst: ptr::null_mut(),
                session: ptr::null_mut(),
                user: u64::from(slot.index()) << 32 | u64::from(user),
                cipher_offset: 0,
                cipher_len: 0,
                auth_offset: 0,
                auth_len: 0,
                digest_offset: 0,
                combined: false,
                verify: false,
                iv: [0; IV_MAX],
                aad: [0; AAD_MAX],
            },
        }
    }

    /// The bytes that are encrypted or decrypted.
    #[inline(always)]
    pub fn cipher(&mut self, offset: u16, len: u16) -> &mut Self {
        self.raw.cipher_offset = offset;
        self.raw.cipher_len = len;
        self
    }

    /// The bytes the HMAC is made of. Not for combined algorithms.
    #[inline(always)]
    pub fn auth(&mut self, offset: u16, len: u16) -> &mut Self {
        self.raw.auth_offset = offset;
        self.raw.auth_len = len;
        self
    }

    /// Where the tag is, or goes.
    #[inline(always)]
    pub fn digest(&mut self, offset: u16) -> &mut Self {
        self.raw.digest_offset = offset;
        self
    }

    /// Nonce or initialisation vector: as many bytes as the session says are used.
    #[inline(always)]
    pub fn iv(&mut self, iv: [u8; IV_MAX]) -> &mut Self {
        self.raw.iv = iv;
        self
    }

    /// Additional authenticated data: as many bytes as the session says are used.
    #[inline(always)]
    pub fn aad(&mut self, aad: [u8; AAD_MAX]) -> &mut Self {
        self.raw.aad = aad;
        self
    }

    /// Leaves the packet alone and writes the result to the same place in `other`, whose data are at least as long. What
    /// the device does not work on is not copied.
    #[inline(always)]
    pub fn into_other(&mut self, other: Mbuf) -> &mut Self {
        let other = other.into_raw().as_ptr();
        // SAFETY: the job owns what it points to.
        drop(unsafe { owned(mem::replace(&mut self.raw.dst, other)) });
        self
    }

    /// What came in with [`CryptoJob::new`].
    #[inline(always)]
    #[must_use]
    pub fn user(&self) -> u32 {
        self.raw.user as u32
    }

    /// The packet, and where the result was to go.
    #[inline]
    #[must_use]
    pub fn into_packets(self) -> (Mbuf, Option<Mbuf>) {
        // SAFETY: the job owns what it points to, and is forgotten.
        let packets = unsafe {
            (
                Mbuf::from_raw(NonNull::new_unchecked(self.raw.src)),
                owned(self.raw.dst),
            )
        };
        mem::forget(self);
        packets
    }

    #[inline(always)]
    pub(crate) fn slot(&self) -> usize {
        (self.raw.user >> 32) as usize
    }

    /// Makes the job fit for the device, which will believe whatever it says.
    #[inline(always)]
    pub(crate) fn prepare(&mut self, rules: Rules, session: *mut c_void) -> Result<(), BadJob> {
        let raw = &self.raw;
        // SAFETY: the job owns the buffer, which is borrowed for the check only.
        let bytes = |raw: *mut dpdk_sys::rte_mbuf| unsafe {
            let packet = mem::ManuallyDrop::new(Mbuf::from_raw(NonNull::new_unchecked(raw)));
            if packet.is_contiguous() { packet.len() } else { 0 }
        };
        let mut room = bytes(raw.src);
        if !raw.dst.is_null() {
            room = room.min(bytes(raw.dst));
        }
        let end = |offset: u16, len: u16| usize::from(offset) + usize::from(len);
        if end(raw.cipher_offset, raw.cipher_len) > room
            || end(raw.digest_offset, rules.digest_len) > room
            || (!rules.combined && end(raw.auth_offset, raw.auth_len) > room)
        {
            return Err(BadJob::Range);
        }
        if rules.blocks && !raw.cipher_len.is_multiple_of(16) {
            return Err(BadJob::Blocks);
        }
        self.raw.session = session;
        self.raw.combined = rules.combined;
        self.raw.verify = rules.verify;
        Ok(())
    }
}

impl Drop for CryptoJob {
    fn drop(&mut self) {
        // SAFETY: the job owns what it points to.
        drop(unsafe { (owned(self.raw.src), owned(self.raw.dst)) });
    }
}

/// # Safety
/// `raw` is null or a buffer that nobody else owns.
#[inline(always)]
unsafe fn owned(raw: *mut dpdk_sys::rte_mbuf) -> Option<Mbuf> {
    // SAFETY: by the promise above.
    NonNull::new(raw).map(|raw| unsafe { Mbuf::from_raw(raw) })
}

/// How a device got on with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is done; a tag that was to be verified was right.
    Success,
    /// The device did nothing.
    NotProcessed,
    /// The tag was wrong.
    AuthFailed,
    /// The device does not know the session; it did nothing.
    InvalidSession,
    /// The device does not like the sizes; it did nothing.
    InvalidArguments,
    /// The device failed. The bytes it worked on may have changed.
    Error,
}

impl Status {
    #[inline(always)]
    pub(crate) fn from_raw(raw: u32) -> Self {
        match raw {
            dpdk_sys::OCT_CRYPTO_SUCCESS => Self::Success,
            dpdk_sys::OCT_CRYPTO_NOT_PROCESSED => Self::NotProcessed,
            dpdk_sys::OCT_CRYPTO_AUTH_FAILED => Self::AuthFailed,
            dpdk_sys::OCT_CRYPTO_INVALID_SESSION => Self::InvalidSession,
            dpdk_sys::OCT_CRYPTO_INVALID_ARGS => Self::InvalidArguments,
            _ => Self::Error,
        }
    }
}

/// A packet that a device is finished with.
#[derive(Debug)]
#[repr(transparent)]
pub struct Done {
    raw: dpdk_sys::oct_crypto_done,
}

// SAFETY: it owns its buffers, which belong to no thread.
unsafe impl Send for Done {}

impl Done {
    /// What came in with [`CryptoJob::new`].
    #[inline(always)]
    #[must_use]
    pub fn user(&self) -> u32 {
        self.raw.user as u32
    }

    /// How it went.
    #[inline(always)]
    #[must_use]
    pub fn status(&self) -> Status {
        Status::from_raw(self.raw.status)
    }

    /// The packet, and where the result went if that was elsewhere.
    #[inline(always)]
    #[must_use]
    pub fn into_packets(self) -> (Mbuf, Option<Mbuf>) {
        // SAFETY: this owns what it points to, and is forgotten.
        let packets = unsafe {
            (
                Mbuf::from_raw(NonNull::new_unchecked(self.raw.src)),
                owned(self.raw.dst),
            )
        };
        mem::forget(self);
        packets
    }

    #[inline(always)]
    pub(crate) fn slot(&self) -> usize {
        (self.raw.user >> 32) as usize
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        // SAFETY: this owns what it points to.
        drop(unsafe { (owned(self.raw.src), owned(self.raw.dst)) });
    }
}
