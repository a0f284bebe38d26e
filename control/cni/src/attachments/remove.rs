//! Attachments go.

use octoplane_tables::State;
use tracing::{info, warn};

use super::restore::{file_of, rest_file};
use super::{Attachments, endpoint};
use crate::error::AttachError;
use crate::record::{Key, Record};

impl Attachments {
    /// Removes an attachment with its endpoint and addresses. Says whether there was one.
    ///
    /// # Errors
    /// [`AttachError`]; it is there to be removed again.
    pub fn detach(&self, key: &Key) -> Result<bool, AttachError> {
        let _busy = self.busy(key, None)?;
        let Some(record) = self.inner().records.get(key).cloned() else {
            return Ok(false);
        };
        self.forget(&record)?;
        info!("container {key} is detached");
        Ok(true)
    }

    /// Takes the endpoint of an attachment away, which is reserved again with its addresses. Says whether there was one.
    ///
    /// # Errors
    /// [`AttachError`]
    pub fn unplug(&self, key: &Key) -> Result<bool, AttachError> {
        let _busy = self.busy(key, None)?;
        let Some(record) = self.inner().records.get(key).cloned() else {
            return Ok(false);
        };
        endpoint::remove(&self.tables, &record)?;
        if record.attached.is_some() {
            let reserved = Record {
                attached: None,
                ..record
            };
            self.store_record(&reserved)?;
            self.inner().records.insert(key.clone(), reserved);
        }
        Ok(true)
    }

    /// Whether an attachment is as it should be.
    ///
    /// # Errors
    /// [`AttachError::NotFound`], [`AttachError::Broken`]
    pub fn check(&self, key: &Key) -> Result<Record, AttachError> {
        let record = self.get(key)?;
        let broken = |why: String| AttachError::Broken {
            key: key.clone(),
            why,
        };
        let Some(attached) = &record.attached else {
            return Err(broken("it is reserved only".into()));
        };
        let state: State = self.tables.state();
        let Some(endpoint) = endpoint::endpoint(&state, &record) else {
            return Err(broken(format!("endpoint {} is gone", attached.endpoint)));
        };
        for address in &record.addresses {
            if !endpoint.addresses.contains(address) {
                return Err(broken(format!(
                    "endpoint {} does not have {address}",
                    endpoint.id
                )));
            }
        }
        match state.port(endpoint.port) {
            Some(port) if port.name == attached.port && port.admin_up => Ok(record),
            Some(port) if port.name == attached.port => Err(broken(format!("port {} is down", port.name))),
            _ => Err(broken(format!(
                "endpoint {} is not at port {}",
                endpoint.id, attached.port
            ))),
        }
    }

    /// Removes what nobody came back for: reservations that were never attached, and attachments whose endpoint was removed,
    /// both after the grace time; and forgets addresses that have rested.
    pub fn collect(&self) {
        let now = self.now();
        let state = self.tables.state();
        let mut gone = Vec::new();
        {
            let mut inner = self.inner();
            let orphans: Vec<(Key, u64)> = inner
                .records
                .values()
                .filter(|record| endpoint::endpoint(&state, record).is_none())
                .map(|record| {
                    let since = inner.orphans.get(&record.key).copied().unwrap_or(now);
                    // A clock that was set back must not keep it for ever.
                    (record.key.clone(), since.min(now))
                })
                .collect();
            gone.extend(
                orphans
                    .iter()
                    .filter(|(_, since)| now.saturating_sub(*since) >= self.orphan_grace)
                    .map(|(key, _)| key.clone()),
            );
            inner.orphans = orphans.into_iter().collect();
        }
        for key in gone {
            warn!("container {key} has had no endpoint for too long: its addresses are taken back");
            if let Err(error) = self.collect_one(&key) {
                warn!("container {key}: {error}");
            }
        }
        let rested = self.inner().ipam.expire(now);
        for address in rested {
            if let Err(error) = self.store.remove(&rest_file(address)) {
                warn!("{error}");
            }
            self.inner().ipam.give_back(address);
        }
    }

    /// Unless it has been attached in the meantime.
    fn collect_one(&self, key: &Key) -> Result<(), AttachError> {
        let _busy = self.busy(key, None)?;
        let record = self.inner().records.get(key).cloned();
        match record {
            Some(record) if endpoint::endpoint(&self.tables.state(), &record).is_none() => {
                self.forget(&record)
            }
            _ => Ok(()),
        }
    }

    /// Removes endpoint, addresses and record, in this order. The caller has its container to itself.
    pub(super) fn forget(&self, record: &Record) -> Result<(), AttachError> {
        endpoint::remove(&self.tables, record)?;
        let until = self.now() + self.reuse_delay;
        let rests = record.pooled && self.reuse_delay > 0;
        if rests {
            for address in &record.addresses {
                self.store
                    .put(&rest_file(*address), until.to_string().as_bytes())?;
            }
        }
        self.store.remove(&file_of(&record.key))?;
        let mut inner = self.inner();
        inner.records.remove(&record.key);
        inner.orphans.remove(&record.key);
        for address in &record.addresses {
            inner.ipam.give_back(*address);
            if rests {
                inner.ipam.rest(*address, until);
            }
        }
        Ok(())
    }

    /// Takes a record and its addresses out of memory, as if it had never been there.
    pub(super) fn take_out(&self, record: &Record) {
        let mut inner = self.inner();
        inner.records.remove(&record.key);
        for address in &record.addresses {
            inner.ipam.give_back(*address);
        }
    }
}
