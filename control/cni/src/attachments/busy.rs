//! One call at a time for each container.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::{Attachments, Inner};
use crate::error::AttachError;
use crate::record::Key;

/// How long a call waits for another one: longer than a plugin waits for its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Some containers that nobody else changes as long as this lives.
pub(super) struct Busy<'a> {
    attachments: &'a Attachments,
    pub(super) keys: BTreeSet<Key>,
}

impl Attachments {
    /// Waits until a container, and those that are in its way by then, are nobody's. All of them are taken at once: who holds
    /// some never waits for others.
    pub(super) fn busy(
        &self,
        key: &Key,
        in_the_way: impl Fn(&Inner) -> BTreeSet<Key>,
    ) -> Result<Busy<'_>, AttachError> {
        let deadline = Instant::now() + PATIENCE;
        let mut inner = self.inner();
        loop {
            let mut keys = in_the_way(&inner);
            keys.insert(key.clone());
            if keys.is_disjoint(&inner.busy) {
                inner.busy.extend(keys.iter().cloned());
                return Ok(Busy {
                    attachments: self,
                    keys,
                });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(AttachError::Contended(key.clone()));
            }
            let waited = self.released.wait_timeout(inner, left);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Attachments {
    /// Whether somebody is about to change a container.
    pub(crate) fn is_busy(&self, key: &Key) -> bool {
        self.inner().busy.contains(key)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut inner = self.attachments.inner();
        for key in &self.keys {
            inner.busy.remove(key);
        }
        drop(inner);
        self.attachments.released.notify_all();
    }
}
