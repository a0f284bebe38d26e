//! What keeps the tables' content beyond the life of the process.

use crate::event::Committed;
use crate::state::State;

/// Why a transaction is not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotSaved(pub String);

/// Keeps transactions. [`crate::SharedStore`] has one or none.
pub trait Journal: Send + Sync {
    /// Whether transactions can be kept now. Asked before each that somebody waits for.
    ///
    /// # Errors
    /// [`NotSaved`] with the reason: the transaction is not made.
    fn ready(&self) -> Result<(), NotSaved>;

    /// Takes note of a transaction that made `state`. Called in the order of the revisions, and must not block.
    fn record(&self, committed: &Committed, state: &State);

    /// Returns once everything up to `revision` would be there after a crash.
    ///
    /// # Errors
    /// [`NotSaved`] if that cannot be had in reasonable time: the transaction is in effect, and may be lost.
    fn wait(&self, revision: u64) -> Result<(), NotSaved>;

    /// The revision up to which everything would be there after a crash.
    fn saved(&self) -> u64;

    /// Has `listener` called whenever [`Journal::saved`] goes on. It must not block, and must not own the journal,
    /// not even for a moment: the journal would be dropped by its own thread.
    fn listen(&self, listener: Box<dyn Fn() + Send + Sync>);
}
