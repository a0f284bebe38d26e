//! The trait that hides who does the cryptography, and the work it is given.
//!
//! A provider may be a device that works while the caller goes on ([`Provider::submit`] now, [`Provider::poll`] later) or
//! a library that is done when `submit` returns; the caller does the same in both cases:
//!
//! ```
//! use octoplane_esp::{Job, JobStatus, Provider, SessionLookup};
//! use octoplane_packet::PacketBuf;
//!
//! /// One turn of a worker's loop: `jobs` holds what was prepared, `done` has room for a burst.
//! fn turn<B: PacketBuf>(
//!     provider: &mut dyn Provider<B>,
//!     software: &mut dyn Provider<B>,
//!     sessions: &dyn SessionLookup,
//!     jobs: &mut Vec<Job<B>>,
//!     done: &mut Vec<Job<B>>,
//! ) {
//!     provider.submit(sessions, jobs);
//!     software.submit(sessions, jobs); // what did not fit
//!     provider.poll(done, usize::MAX);
//!     software.poll(done, usize::MAX);
//!     for job in done.drain(..) {
//!         match job.status {
//!             JobStatus::Ok => { /* hand it to Outbound::finish or Inbound::finish */ }
//!             JobStatus::NotProcessed => jobs.push(job), // as it was: may be submitted again
//!             _ => { /* count it and drop it */ }
//!         }
//!     }
//! }
//! ```

use std::sync::Arc;

use octoplane_packet::PacketBuf;

use crate::session::{Session, SessionId};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Encrypt, then write the ICV.
    Encrypt,
    /// Verify the ICV, and decrypt.
    Decrypt,
}

/// Some bytes of a packet, counted from the first of [`PacketBuf::data`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// The first byte.
    pub offset: u16,
    /// How many.
    pub len: u16,
}

impl Span {
    /// The byte behind the last one.
    pub const fn end(self) -> usize {
        self.offset as usize + self.len as usize
    }
}

/// How a job came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JobStatus {
    /// Not done yet.
    #[default]
    Pending,
    /// Done; when decrypting, the ICV was right.
    Ok,
    /// The ICV was wrong. The bytes in the cipher range are undefined and must not be looked at.
    AuthFailed,
    /// The device did not touch the packet: it may be given to another provider as it is.
    NotProcessed,
    /// The device failed half way. The bytes are undefined: the packet is lost.
    DeviceError,
    /// There is no such session any more: the security association was removed meanwhile.
    NoSession,
}

/// One packet to encrypt or decrypt in place, with all a provider needs to know but the session's keys. Owns the buffer.
#[derive(Debug)]
pub struct Job<B> {
    /// The packet. From the ESP header to the end of the ICV everything is in `data()`, contiguous; at least 4 bytes of
    /// tailroom are behind it when [`Job::esn_high`] is set (devices want those bytes at the end of what is hashed).
    pub buf: B,
    /// Whose keys.
    pub session: SessionId,
    /// Encrypt or decrypt; the same as the session's.
    pub operation: Operation,
    /// Set by the provider.
    pub status: JobStatus,
    /// Where the ESP header starts. For AES-CBC the ICV covers the bytes from here up to the ICV.
    pub esp: u16,
    /// What is encrypted, behind the explicit IV; the ICV follows immediately ([`Job::icv_offset`]).
    pub cipher: Span,
    /// Nonce of a combined algorithm (salt, then IV: 12 bytes) or IV of AES-CBC (16 bytes). When encrypting, the IV is in
    /// the packet already.
    pub nonce: [u8; 16],
    /// Additional authenticated data of a combined algorithm: SPI, upper half of the sequence number with ESN, lower half
    /// (RFC 4106, section 5). As many bytes as [`Session::aad_len`] says.
    pub aad: [u8; 12],
    /// AES-CBC with ESN: the upper half of the sequence number, which the HMAC takes (big-endian) behind the bytes of the
    /// packet, without it being sent (RFC 4303, section 2.2.1).
    pub esn_high: Option<u32>,
    /// Sequence number, with its upper half.
    pub sequence: u64,
    /// Of the ESP core: carried along untouched.
    pub esp_state: u64,
    /// Of the caller: carried along untouched.
    pub cookie: [u64; 3],
}

impl<B> Job<B> {
    /// Where the ICV starts.
    pub const fn icv_offset(&self) -> usize {
        self.cipher.end()
    }
}

/// Finds sessions by their ids: the published table of security associations.
pub trait SessionLookup {
    /// The session, unless it was removed.
    fn session(&self, id: SessionId) -> Option<&Arc<Session>>;
}

/// Somebody who encrypts and decrypts. One for each worker.
///
/// Jobs of one provider come back in the order in which they were submitted, as far as they are of one session.
/// Implementations allocate when they are made, and when they first see a session, never for a packet.
pub trait Provider<B: PacketBuf> {
    /// Name in statistics, as in `software` or `cryptodev crypto_aesni_gcm0`.
    fn name(&self) -> &str;

    /// Whether it can do this; a session that it cannot do must not be submitted to it.
    fn supports(&self, algorithm: crate::Algorithm, esn: bool) -> bool;

    /// Takes jobs from the front of `jobs`, as many as there is room for, and leaves the rest in their order. Returns how
    /// many were taken. What it takes comes back through [`Provider::poll`], whatever happens to it.
    fn submit(&mut self, sessions: &dyn SessionLookup, jobs: &mut Vec<Job<B>>) -> usize;

    /// Appends jobs that are done, with their status set: `most` of them at most, and as far as `done` has capacity left.
    /// Returns how many.
    fn poll(&mut self, done: &mut Vec<Job<B>>, most: usize) -> usize;

    /// How many jobs were taken and have not come back.
    fn in_flight(&self) -> usize;

    /// Called when sessions were removed: state kept for those that `sessions` does not have any more can go once no job
    /// uses it.
    fn sessions_changed(&mut self, sessions: &dyn SessionLookup);
}
