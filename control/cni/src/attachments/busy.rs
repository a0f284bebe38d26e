//! One call at a time for each container and each function of the host.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::{Attachments, Function};
use crate::error::AttachError;
use crate::record::Key;

/// How long a call waits for another one: longer than a plugin waits for its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Some containers that nobody else changes as long as this lives, and a function that nobody else gives to a container.
pub(super) struct Busy<'a> {
    attachments: &'a Attachments,
    pub(super) keys: BTreeSet<Key>,
    function: Option<Function>,
}

impl Attachments {
    /// Waits until a container is nobody's, and with a function also that and the containers that have it by then. All of them
    /// are taken at once: who holds some never waits for others.
    ///
    /// The function is taken besides its holders, because of two containers that are both about to get it neither is one yet.
    pub(super) fn busy(&self, key: &Key, function: Option<Function>) -> Result<Busy<'_>, AttachError> {
        let deadline = Instant::now() + PATIENCE;
        let mut inner = self.inner();
        loop {
            let records = inner.records.values();
            let holders = records.filter(|record| function.is_some() && record.function == function);
            let mut keys: BTreeSet<_> = holders.map(|record| record.key.clone()).collect();
            keys.insert(key.clone());
            let is_given = function.is_some_and(|function| inner.busy_functions.contains(&function));
            if !is_given && keys.is_disjoint(&inner.busy) {
                inner.busy.extend(keys.iter().cloned());
                inner.busy_functions.extend(function);
                return Ok(Busy {
                    attachments: self,
                    keys,
                    function,
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
        if let Some(function) = &self.function {
            inner.busy_functions.remove(function);
        }
        drop(inner);
        self.attachments.released.notify_all();
    }
}
