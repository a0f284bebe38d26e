//! A security association at work.

mod config;
mod inner;
mod key;
mod outer;
mod state;
mod warm;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use zeroize::Zeroize;

pub use config::{
    Direction, DontFragment, Dscp, InnerSelector, Lifetime, MAX_INNER_SELECTORS, Mark, Mode, NatTraversal,
    OuterHeader, SaConfig, SaConfigError,
};
pub(crate) use outer::{OuterTemplate, UDP_LEN, udp_header};
pub(crate) use state::SaState;
pub use state::Used;

pub(crate) use inner::Inner;
pub use key::SaKey;
pub(crate) use warm::warm;

use crate::cause::Cause;
use crate::key::{Fingerprint, KeyMaterial};
use crate::provider::Operation;
use crate::sequence::SequenceCounter;
use crate::session::{Session, SessionId};

/// Names a security association in the table; the same as its session.
pub type SaId = SessionId;

/// Bytes of the ESP header: SPI and sequence number.
pub(crate) const ESP_HEADER_LEN: usize = 8;
/// Bytes of the trailer behind the padding: pad length and next header.
pub(crate) const TRAILER_LEN: usize = 2;

/// A security association, shared by all workers. What they read for each packet comes first and lies together: with
/// thousands of them, cache lines are what they cost.
#[repr(C)]
pub struct Sa {
    id: SaId,
    /// Time at which it ends, in nanoseconds of the caller's clock.
    pub(crate) deadline: u64,
    pub(crate) state: Arc<SaState>,
    session: Arc<Session>,
    pub(crate) spi: u32,
    pub(crate) mark: Mark,
    reqid: u32,
    salt: [u8; 4],
    pub(crate) direction: Direction,
    pub(crate) mode: Mode,
    pub(crate) iv_len: u8,
    pub(crate) icv_len: u8,
    pub(crate) alignment: u8,
    pub(crate) esn: bool,
    aead: bool,
    /// Whether there are hard limits of bytes or packets.
    pub(crate) limited: bool,
    /// Whether it is in UDP.
    pub(crate) in_udp: bool,
    /// Whether ECN goes in and out.
    pub(crate) ecn: bool,
    /// Whether anything may come out: `inner` has nothing.
    pub(crate) any_inner: bool,
    /// Outbound, tunnel mode.
    pub(crate) outer: Option<OuterTemplate>,
    // The rest is for the few.
    /// AES-CBC: makes IVs that cannot be foretold out of sequence numbers.
    iv_key: Option<Box<aes::Aes128>>,
    /// Inbound: what may come out; empty for anything.
    pub(crate) inner: Box<[Inner]>,
    /// Without keys.
    config: Box<SaConfig>,
    fingerprint: Fingerprint,
    /// Time at which it was added.
    added: u64,
    errors: Box<[AtomicU64]>,
}

impl Drop for Sa {
    fn drop(&mut self) {
        self.salt.zeroize();
    }
}

impl std::fmt::Debug for Sa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sa")
            .field("id", &self.id())
            .field("config", &self.config)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl Sa {
    /// Checks the configuration and expands what can be expanded. `now` is the caller's clock in nanoseconds. `resume` is
    /// where numbers go on: outbound the next one to give, inbound the highest that may have been accepted (1 and 0 for new
    /// keys). Outbound numbers have to be allowed before they are given ([`SequenceCounter::allow`]).
    pub fn new(id: SaId, config: SaConfig, now: u64, resume: u64) -> Result<Self, SaConfigError> {
        config.validate()?;
        let inbound = config.direction == Direction::Inbound;
        let (first, top) = if inbound { (1, resume) } else { (resume, 0) };
        let state = SaState::new(config.esn, first, config.replay_window, top);
        Self::with_state(id, config, now, Arc::new(state))
    }

    /// The same security association with another configuration. Refused if numbers would not go on as they were.
    pub(crate) fn reconfigured(&self, id: SaId, config: SaConfig) -> Result<Self, SaConfigError> {
        config.validate()?;
        let old = &self.config;
        if (old.esn, old.replay_window, old.algorithm) != (config.esn, config.replay_window, config.algorithm)
        {
            return Err(SaConfigError::SameKeys);
        }
        Self::with_state(id, config, self.added, Arc::clone(&self.state))
    }

    fn with_state(
        id: SaId,
        mut config: SaConfig,
        now: u64,
        state: Arc<SaState>,
    ) -> Result<Self, SaConfigError> {
        let (algorithm, esn) = (config.algorithm, config.esn);
        let operation = match config.direction {
            Direction::Outbound => Operation::Encrypt,
            Direction::Inbound => Operation::Decrypt,
        };
        let fingerprint = config.keys.fingerprint();
        let keys = std::mem::replace(&mut config.keys, KeyMaterial::none());
        let session = Session::new(id, operation, algorithm, esn, keys)?;
        let iv_key = match algorithm.is_aead() || operation == Operation::Decrypt {
            true => None,
            false => Some(random_iv_key()?),
        };
        let outer = match (config.direction, config.mode, config.source) {
            (Direction::Outbound, Mode::Tunnel, Some(source)) => Some(OuterTemplate::new(
                source,
                config.destination,
                config.outer,
                config.nat_traversal,
            )),
            _ => None,
        };
        let deadline = config.lifetime.hard_time.map_or(u64::MAX, |time| {
            now.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
        });
        let inner = config.inner.iter().map(Inner::from);
        let lifetime = &config.lifetime;
        Ok(Self {
            id,
            deadline,
            state,
            salt: session.keys().salt(),
            session: Arc::new(session),
            spi: config.spi,
            mark: config.mark,
            reqid: config.reqid,
            direction: config.direction,
            mode: config.mode,
            iv_len: algorithm.iv_len() as u8,
            icv_len: algorithm.icv_len() as u8,
            alignment: algorithm.alignment() as u8,
            esn,
            aead: algorithm.is_aead(),
            limited: lifetime.hard_bytes.or(lifetime.hard_packets).is_some(),
            in_udp: config.nat_traversal.is_some(),
            ecn: config.outer.ecn,
            any_inner: config.inner.is_empty(),
            outer,
            iv_key: iv_key.map(Box::new),
            inner: inner.collect(),
            fingerprint,
            added: now,
            errors: Cause::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            config: Box::new(config),
        })
    }

    /// Its name.
    #[inline]
    pub fn id(&self) -> SaId {
        self.id
    }

    /// Its cryptographic half.
    #[inline]
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// How it was programmed; without the keys.
    #[inline]
    pub fn config(&self) -> &SaConfig {
        &self.config
    }

    /// What policies name it by; 0: nothing.
    #[inline]
    pub fn reqid(&self) -> u32 {
        self.reqid
    }

    /// What its keys are known by.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// When it was added: the caller's clock, nanoseconds.
    pub fn added(&self) -> u64 {
        self.added
    }

    /// Outbound: the sequence numbers.
    pub fn sequence(&self) -> &SequenceCounter {
        &self.state.sequence
    }

    /// Inbound: the highest sequence number accepted.
    pub fn highest_accepted(&self) -> u64 {
        self.state.replay.top()
    }

    /// How much of its lifetime is used.
    pub fn used(&self) -> Used {
        self.state.used(self.direction == Direction::Outbound)
    }

    /// Packets refused for this cause, by all workers together.
    pub fn errors(&self, cause: Cause) -> u64 {
        self.errors
            .get(cause as usize)
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Bytes that a packet of `len` bytes grows by: headers, IV, padding, trailer, ICV. In transport mode, with the longest
    /// padding there can be.
    pub fn overhead(&self, len: usize) -> usize {
        let (front, text) = match (&self.outer, self.config.nat_traversal) {
            (Some(outer), _) => (
                outer.len(),
                (len + TRAILER_LEN).next_multiple_of(self.alignment.into()),
            ),
            (None, nat) => (
                if nat.is_some() { UDP_LEN } else { 0 },
                len + TRAILER_LEN + usize::from(self.alignment) - 1,
            ),
        };
        front + ESP_HEADER_LEN + usize::from(self.iv_len) + text - len + usize::from(self.icv_len)
    }

    /// The longest packet that makes none above `mtu` in tunnel mode; 0 if there is none.
    pub fn max_len(&self, mtu: usize) -> usize {
        let front = self.outer.as_ref().map_or(0, OuterTemplate::len);
        let ends = usize::from(self.iv_len) + usize::from(self.icv_len);
        let rest = mtu.saturating_sub(front + ESP_HEADER_LEN + ends);
        (rest - rest % usize::from(self.alignment)).saturating_sub(TRAILER_LEN)
    }

    #[inline]
    pub(crate) fn count(&self, cause: Cause) {
        if let Some(counter) = self.errors.get(cause as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether no packet may be done any more when so much is used.
    #[inline]
    pub(crate) fn over(&self, used: Used) -> bool {
        self.limited && self.beyond(used)
    }

    fn beyond(&self, used: Used) -> bool {
        used.packets >= self.config.lifetime.hard_packets.unwrap_or(u64::MAX)
            || used.bytes >= self.config.lifetime.hard_bytes.unwrap_or(u64::MAX)
    }

    /// The IV of a packet: for combined algorithms the sequence number, which is used once; for AES-CBC one that nobody
    /// can foretell (RFC 3602, section 3), as NIST SP 800-38A, appendix C makes them: an encrypted counter.
    #[inline]
    pub(crate) fn iv(&self, sequence: u64) -> [u8; 16] {
        let mut iv = [0; 16];
        iv[..8].copy_from_slice(&sequence.to_be_bytes());
        if let Some(key) = &self.iv_key {
            let mut block = Array::from(iv);
            key.encrypt_block(&mut block);
            iv = block.into();
        }
        iv
    }

    /// The nonce for the IV in a packet: with the salt in front, but for AES-CBC. `None` if it is not as long as it should be.
    #[inline(always)]
    pub(crate) fn nonce(&self, iv: &[u8]) -> Option<[u8; 16]> {
        if !self.aead {
            return iv.first_chunk().copied();
        }
        let mut nonce = [0; 16];
        nonce[..4].copy_from_slice(&self.salt);
        nonce[4..12].copy_from_slice(iv.first_chunk::<8>()?);
        Some(nonce)
    }

    /// The nonce for an IV that [`Sa::iv`] made.
    #[inline]
    pub(crate) fn nonce_for(&self, iv: &[u8; 16]) -> [u8; 16] {
        if !self.aead {
            return *iv;
        }
        let mut nonce = [0; 16];
        nonce[..4].copy_from_slice(&self.salt);
        nonce[4..12].copy_from_slice(&iv[..8]);
        nonce
    }

    /// Additional authenticated data (RFC 4106, section 5), and what AES-CBC with ESN authenticates besides the packet.
    #[inline]
    pub(crate) fn aad(&self, sequence: u64) -> ([u8; 12], Option<u32>) {
        let mut aad = [0; 12];
        let high = (sequence >> 32) as u32;
        if !self.aead {
            return (aad, self.esn.then_some(high));
        }
        aad[..4].copy_from_slice(&self.spi.to_be_bytes());
        if self.esn {
            aad[4..].copy_from_slice(&sequence.to_be_bytes());
        } else {
            aad[4..8].copy_from_slice(&(sequence as u32).to_be_bytes());
        }
        (aad, None)
    }
}

fn random_iv_key() -> Result<aes::Aes128, SaConfigError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SaConfigError::NoRandom)?;
    let key = aes::Aes128::new(&Array::from(bytes));
    bytes.zeroize();
    Ok(key)
}
