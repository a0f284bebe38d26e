//! What is programmed outlives the process: every transaction is written to a file before it is answered, and read again
//! before the first packet.
//!
//! The file is a database (redb) of the objects as messages of `octoplane.v1`, one row each, together with the revision. A
//! transaction, or several that wait at the same time, is one transaction of the database: after a crash it is there as a
//! whole or not at all.

mod file;
mod journal;
mod record;
mod restore;
mod rows;

use std::io;
use std::path::PathBuf;

pub use file::{FILE, StateFile};
pub use journal::StateJournal;
pub use restore::{Restored, Saved};

/// Version of what the rows mean. Files of another one are refused.
pub const SCHEMA: u64 = 1;

/// What helps against a file that cannot be read.
const REMEDY: &str = "Move it away to start with empty tables, and have the agent program them again";

/// Why the state of the last run cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The operating system refused.
    #[error("{path}: {error}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Somebody else uses it.
    #[error("{0}: another daemon keeps its state there: give each a state.directory of its own")]
    InUse(PathBuf),
    /// Another version wrote it.
    #[error(
        "{path}: the file has schema version {found}, this daemon knows version {SCHEMA}: start the daemon that wrote it. \
         {REMEDY}"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// It is not what was written.
    #[error("{path}: the file is damaged: {why}. {REMEDY}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The tables refuse what was there.
    #[error(
        "{path}: what was programmed does not fit the configuration of this daemon: {why}. Undo the change of the configuration, \
         or move the file away to start with empty tables"
    )]
    Refused {
        /// The file.
        path: PathBuf,
        /// Which object, and what is wrong with it.
        why: String,
    },
}
