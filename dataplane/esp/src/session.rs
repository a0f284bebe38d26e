//! What a provider has to know about a security association.

use std::sync::OnceLock;

use crate::algorithm::Algorithm;
use crate::key::KeyMaterial;
use crate::provider::Operation;
use crate::software::{Plan, SoftwareKeys};

/// Names a session. The index is dense (0 up to the table's capacity), so that a provider can keep its own state in an
/// array; the generation differs each time an index is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// Place in the table.
    pub index: u32,
    /// Which use of that place.
    pub generation: u32,
}

/// The cryptographic half of a security association: immutable, shared by all workers. A provider makes what it needs
/// of it (a device session) when it first sees its id, and keeps it under [`SessionId::index`].
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Session {
    id: SessionId,
    operation: Operation,
    algorithm: Algorithm,
    esn: bool,
    /// Expanded keys of the software provider; `None` if the libraries refused them. Close to what is read before it.
    software: OnceLock<Option<SoftwareKeys>>,
    keys: KeyMaterial,
}

/// Why keys do not make a session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The encryption key is of the wrong length.
    #[error("key: {got} bytes (without salt), expected {expected} for {algorithm}")]
    CipherKey {
        /// For which algorithm.
        algorithm: Algorithm,
        /// Bytes given.
        got: usize,
        /// Bytes it takes.
        expected: usize,
    },
    /// The integrity key is of the wrong length.
    #[error("integrity key: {got} bytes, expected {expected} for {algorithm}")]
    AuthKey {
        /// For which algorithm.
        algorithm: Algorithm,
        /// Bytes given.
        got: usize,
        /// Bytes it takes.
        expected: usize,
    },
}

impl Session {
    /// Checks the keys' lengths. With `esn`, sequence numbers have 64 bits, of which the packet carries the lower half.
    pub fn new(
        id: SessionId,
        operation: Operation,
        algorithm: Algorithm,
        esn: bool,
        keys: KeyMaterial,
    ) -> Result<Self, SessionError> {
        if keys.cipher.len() != algorithm.cipher_key_len() {
            return Err(SessionError::CipherKey {
                algorithm,
                got: keys.cipher.len(),
                expected: algorithm.cipher_key_len(),
            });
        }
        if keys.auth.len() != algorithm.auth_key_len() {
            return Err(SessionError::AuthKey {
                algorithm,
                got: keys.auth.len(),
                expected: algorithm.auth_key_len(),
            });
        }
        Ok(Self {
            id,
            operation,
            algorithm,
            esn,
            keys,
            software: OnceLock::new(),
        })
    }

    /// Its name.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Whether it encrypts or decrypts: a security association does one of the two.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether sequence numbers have 64 bits.
    pub fn esn(&self) -> bool {
        self.esn
    }

    /// Bytes of [`crate::Job::aad`] in use: SPI and sequence number for a combined algorithm (RFC 4106, section 5), none
    /// for AES-CBC.
    pub fn aad_len(&self) -> usize {
        match (self.algorithm.is_aead(), self.esn) {
            (false, _) => 0,
            (true, false) => 8,
            (true, true) => 12,
        }
    }

    /// The keys expanded for the software provider, by the first worker that asks.
    #[inline]
    pub(crate) fn software(&self, plan: &Plan) -> Option<&SoftwareKeys> {
        self.software
            .get_or_init(|| SoftwareKeys::new(self.algorithm, self.operation, &self.keys, plan).ok())
            .as_ref()
    }

    /// Reads the start of its expanded keys, for their being read.
    #[inline]
    pub(crate) fn read(&self, plan: &Plan) -> u8 {
        self.software(plan).map_or(0, SoftwareKeys::read)
    }

    /// The keys.
    pub fn keys(&self) -> &KeyMaterial {
        &self.keys
    }
}
