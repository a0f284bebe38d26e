//! Where sequence numbers survive a restart.
//!
//! A nonce must never be used twice with one key, so numbers are reserved ahead in blocks: what may have been given before a
//! restart is below the number on disk, and the next start goes on from there. Records are kept when their security
//! association goes, for the same keys may come back.

mod file;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

pub use file::FileStore;

use crate::key::Fingerprint;
use crate::sa::{Direction, SaKey};

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordKey {
    /// Of the keys; inbound, of the keys and the name of the security association.
    pub fingerprint: Fingerprint,
    /// Outbound: the record is the first number that was not reserved. Inbound: a number up to which packets may have been
    /// accepted.
    pub kind: RecordKind,
}

impl RecordKey {
    /// The record of a security association with keys of this fingerprint.
    ///
    /// Outbound numbers belong to the keys, whatever the security association is called: with them a nonce would be used
    /// twice. Inbound they belong to the sender. Some may send with the same keys, each with its own numbers, and the number
    /// that the fastest has come to would shut out all others. So the name counts there, and the fingerprint is one of both.
    pub fn of(fingerprint: Fingerprint, key: &SaKey) -> Self {
        Self {
            fingerprint: match key.direction {
                Direction::Outbound => fingerprint,
                Direction::Inbound => fingerprint.of(key),
            },
            kind: key.direction.into(),
        }
    }

    /// The record that all inbound security associations with these keys once had together: the highest number of any.
    pub fn of_all_inbound(fingerprint: Fingerprint) -> Self {
        Self {
            fingerprint,
            kind: RecordKind::Inbound,
        }
    }
}

/// Which way the keys are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordKind {
    /// They encrypt.
    Outbound,
    /// They decrypt.
    Inbound,
}

impl From<Direction> for RecordKind {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Outbound => Self::Outbound,
            Direction::Inbound => Self::Inbound,
        }
    }
}

/// Why a record was not written, or none can be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is not what was written: it was cut off, or is something else.
    #[error("{path}, line {line}: {what}; without it no key that was in use may be used again")]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// Another process uses the file.
    #[error("{path}: in use by another process")]
    Locked {
        /// Which file.
        path: PathBuf,
    },
    /// No more records.
    #[error("sequence store: {0} records, more cannot be")]
    Full(usize),
}

/// Keeps numbers.
pub trait SequenceStore: Send {
    /// The number kept, if there is one.
    fn get(&self, key: RecordKey) -> Option<u64>;

    /// Keeps these numbers, where they are above those that are there. When it returns `Ok`, they survive a crash of
    /// the process and of the system. On failure none of them counts.
    fn put(&mut self, records: &[(RecordKey, u64)]) -> Result<(), StoreError>;
}

/// Keeps numbers in memory: for keys that are used by one process only, and tests.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(HashMap<RecordKey, u64>);

impl SequenceStore for MemoryStore {
    fn get(&self, key: RecordKey) -> Option<u64> {
        self.0.get(&key).copied()
    }

    fn put(&mut self, records: &[(RecordKey, u64)]) -> Result<(), StoreError> {
        raise(&mut self.0, records);
        Ok(())
    }
}

/// Numbers only grow.
fn raise(map: &mut HashMap<RecordKey, u64>, records: &[(RecordKey, u64)]) {
    for (key, number) in records {
        let kept = map.entry(*key).or_insert(*number);
        *kept = (*kept).max(*number);
    }
}
