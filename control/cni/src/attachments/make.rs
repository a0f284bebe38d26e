//! Attachments come.

use std::collections::BTreeSet;
use std::net::IpAddr;

use tracing::{info, warn};

use super::restore::file_of;
use super::{Attachments, Inner, Place, Reservation, Wanted, endpoint};
use crate::error::AttachError;
use crate::identity::{INIT, labels_of};
use crate::record::{Attached, Key, Pod, Record};

/// Index of a function of the host. One pod has it at a time, and the host says which.
pub type Function = u32;

const MAY_COME_BACK: &str = "what was undone may come back after a restart";

impl Attachments {
    /// Remembers an attachment and takes addresses for it. One that is there already is answered as it is, if its addresses are
    /// what is wanted.
    ///
    /// # Errors
    /// [`AttachError`]
    pub fn reserve(&self, reservation: Reservation) -> Result<Record, AttachError> {
        let busy = self.busy(&reservation.key, None)?;
        if let Some(record) = self.inner().records.get(&reservation.key) {
            return if has_wanted(record, &reservation.wanted) {
                Ok(record.clone())
            } else {
                Err(AttachError::Different {
                    key: record.key.clone(),
                    why: "with other addresses".into(),
                })
            };
        }
        let record = self.enter(reservation, None)?;
        let kept = self.keep(&record);
        drop(busy);
        kept.map(|()| record)
    }

    /// Makes the endpoint of a reserved attachment. `addresses` are those that were given out by somebody else since; none if
    /// it has its own. One that is attached already is answered as it is, if it is attached there.
    ///
    /// # Errors
    /// [`AttachError`]
    pub fn attach(&self, key: &Key, place: Place, addresses: &[IpAddr]) -> Result<Record, AttachError> {
        let _busy = self.busy(key, None)?;
        let old = self.get(key)?;
        let mut record = old.clone();
        if let Some(attached) = &old.attached {
            let same = attached.port == place.port
                && attached.mac == place.mac
                && (addresses.is_empty() || addresses == old.addresses);
            if !same {
                return Err(AttachError::Different {
                    key: key.clone(),
                    why: format!("at port {}, as {}", attached.port, attached.mac),
                });
            }
            // Its endpoint may have been removed meanwhile.
            endpoint::put(&self.tables, &old)?;
            return Ok(old);
        }
        if !addresses.is_empty() && record.addresses.is_empty() {
            self.occupy(&mut self.inner(), key, addresses)?;
            record.addresses = addresses.to_vec();
        } else if !addresses.is_empty() && addresses != record.addresses {
            return Err(AttachError::Different {
                key: key.clone(),
                why: "with other addresses".into(),
            });
        }
        if record.addresses.is_empty() {
            return Err(AttachError::missing("addresses"));
        }
        let attached = self.decide(&record.pod, place);
        record.attached = Some(attached);
        self.inner().records.insert(key.clone(), record.clone());
        let made = self.keep_or_undo(&record, |undone| {
            // What was reserved stays reserved: it is its owner's to give up.
            let mut inner = undone.inner();
            for address in record.addresses.iter().filter(|it| !old.addresses.contains(it)) {
                inner.ipam.give_back(*address);
            }
            inner.records.insert(key.clone(), old.clone());
            drop(inner);
            undone.store_record(&old)
        });
        made.map(|()| record)
    }

    /// Reserves and attaches in one, for a function of the host. An attachment of the same container is answered as it is if it
    /// is attached there, else replaced. Another container that has the function is detached: the host says who has it, and
    /// does not insist when it takes it away.
    ///
    /// # Errors
    /// [`AttachError`]
    pub fn add(
        &self,
        reservation: Reservation,
        place: Place,
        function: Function,
    ) -> Result<Record, AttachError> {
        let key = reservation.key.clone();
        let busy = self.busy(&key, Some(function))?;
        // Before anything is touched.
        endpoint::pod_port(&self.tables.state(), &place.port)?;
        let old = self.inner().records.get(&key).cloned();
        if let Some(record) =
            old.filter(|record| record.function == Some(function) && has_wanted(record, &reservation.wanted))
            && let Some(attached) = &record.attached
            && attached.port == place.port
            && attached.mac == place.mac
        {
            endpoint::put(&self.tables, &record)?;
            return Ok(record);
        }
        for stale in &busy.keys {
            let Some(record) = self.inner().records.get(stale).cloned() else {
                continue;
            };
            if *stale != key {
                warn!("container {stale} is detached: {key} has its function {function} now");
            }
            self.forget(&record)?;
        }
        let mut record = self.enter(reservation, Some(function))?;
        record.attached = Some(self.decide(&record.pod, place));
        self.inner().records.insert(key, record.clone());
        self.keep_or_undo(&record, |undone| {
            undone.take_out(&record);
            undone.store.remove(&file_of(&record.key))
        })?;
        drop(busy);
        Ok(record)
    }

    /// A record with its addresses, in memory only.
    fn enter(&self, reservation: Reservation, function: Option<Function>) -> Result<Record, AttachError> {
        let Reservation {
            key,
            network,
            pod,
            wanted,
        } = reservation;
        let now = self.now();
        let state = self.tables.state();
        let mut inner = self.inner();
        let (addresses, pooled) = match wanted {
            Wanted::Given(addresses) => {
                self.occupy(&mut inner, &key, &addresses)?;
                (addresses, false)
            }
            Wanted::Pools(families) => {
                let mut taken = Vec::new();
                for family in families {
                    let address = inner
                        .ipam
                        .take(family, now, |it| endpoint::is_foreign(&state, it));
                    match address {
                        Ok(address) => taken.push(address),
                        Err(error) => {
                            taken.into_iter().for_each(|it| inner.ipam.give_back(it));
                            return Err(error);
                        }
                    }
                }
                (taken, true)
            }
        };
        let record = Record {
            key: key.clone(),
            network,
            pod,
            addresses,
            pooled,
            created: now,
            function,
            attached: None,
        };
        inner.records.insert(key, record.clone());
        Ok(record)
    }

    /// Notes addresses that somebody else gave out, all or none.
    fn occupy(&self, inner: &mut Inner, key: &Key, addresses: &[IpAddr]) -> Result<(), AttachError> {
        for (index, &address) in addresses.iter().enumerate() {
            if inner.ipam.occupy(address) {
                continue;
            }
            let owner = inner
                .records
                .values()
                .find(|record| record.addresses.contains(&address))
                .map_or_else(|| key.clone(), |record| record.key.clone());
            for taken in addresses.iter().take(index) {
                inner.ipam.give_back(*taken);
            }
            return Err(AttachError::Taken { address, owner });
        }
        Ok(())
    }

    /// What an endpoint is to be: its id, and who it is.
    fn decide(&self, pod: &Pod, place: Place) -> Attached {
        let decided = self.identities.identity(pod);
        let mut labels = labels_of(pod);
        let identity = decided.map_or(INIT, |decided| {
            labels.extend(decided.labels);
            decided.identity
        });
        let state = self.tables.state();
        let mut inner = self.inner();
        let taken: BTreeSet<u32> = inner
            .records
            .values()
            .filter_map(|record| record.attached.as_ref().map(|it| it.endpoint))
            .collect();
        // There are more ids than endpoints.
        while state.endpoint(inner.next_endpoint).is_some() || taken.contains(&inner.next_endpoint) {
            inner.next_endpoint = after(inner.next_endpoint);
        }
        let endpoint = inner.next_endpoint;
        inner.next_endpoint = after(endpoint);
        Attached {
            endpoint,
            port: place.port,
            mac: place.mac,
            identity,
            labels,
        }
    }

    /// Keeps a reservation, or takes it out again.
    fn keep(&self, record: &Record) -> Result<(), AttachError> {
        self.store_record(record).map_err(|error| {
            self.take_out(record);
            // What could not be kept may be there all the same, and its addresses be somebody else's by the next start.
            if let Err(left) = self.store.remove(&file_of(&record.key)) {
                warn!("container {}: {left}: {MAY_COME_BACK}", record.key);
            }
            error.into()
        })
    }

    /// Keeps an attachment and makes its endpoint, or has both undone.
    fn keep_or_undo(
        &self,
        record: &Record,
        undo: impl FnOnce(&Self) -> Result<(), crate::storage::StorageError>,
    ) -> Result<(), AttachError> {
        let made = self
            .store_record(record)
            .map_err(AttachError::from)
            .and_then(|()| endpoint::put(&self.tables, record));
        match made {
            Ok(()) => {
                info!(
                    "container {} is attached as {}",
                    record.key,
                    record.endpoint_name()
                );
                Ok(())
            }
            Err(error) => {
                // It may be in effect, and only not be saved.
                endpoint::take_back(&self.tables, record);
                if let Err(left) = undo(self) {
                    warn!("container {}: {left}: {MAY_COME_BACK}", record.key);
                }
                Err(error)
            }
        }
    }
}

/// The next endpoint id.
pub(super) fn after(id: u32) -> u32 {
    id.checked_add(1).unwrap_or(super::FIRST_ENDPOINT)
}

/// Whether an attachment has the addresses that somebody wants.
fn has_wanted(record: &Record, wanted: &Wanted) -> bool {
    match wanted {
        Wanted::Given(addresses) => !record.pooled && record.addresses == *addresses,
        Wanted::Pools(families) => {
            let have = |family| {
                record
                    .addresses
                    .iter()
                    .any(|it| crate::ipam::Family::of(*it) == family)
            };
            record.pooled
                && record.addresses.len() == families.len()
                && families.iter().all(|family| have(*family))
        }
    }
}
