//! What is kept, and how it comes back.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::make::after;
use super::{Attachments, endpoint};
use crate::record::{Key, Record};
use crate::storage::StorageError;

/// Form of a kept record. It is raised when an older daemon could not read it any more.
const VERSION: u32 = 1;
/// A value that is an attachment.
const ATTACHMENT: &str = ".json";
/// A value that is an address at rest: until when, in seconds since 1970.
const REST: &str = ".rest";

#[derive(Serialize, Deserialize)]
struct Kept<R> {
    version: u32,
    #[serde(flatten)]
    record: R,
}

/// Name of the value of an attachment. A container id has no "@", nor has the name of an interface.
pub(super) fn file_of(key: &Key) -> String {
    format!("{}@{}{ATTACHMENT}", key.container, key.interface)
}

/// Name of the value of an address at rest.
pub(super) fn rest_file(address: IpAddr) -> String {
    format!("{}{REST}", address.to_string().replace(':', "_"))
}

impl Attachments {
    /// Reads what was kept, and makes the endpoints that are missing. Those whose port is missing are left for their owner, or
    /// for [`Self::collect`]. To be called once, before anything else, when the ports are there.
    ///
    /// # Errors
    /// [`StorageError`]: addresses would be given out twice if a record that cannot be read were passed over.
    pub fn restore(&self) -> Result<(), StorageError> {
        let (mut restored, mut missing) = (0, 0);
        let now = self.now();
        let values = self.store.load()?;
        for (name, value) in &values {
            let damaged = |why: String| StorageError::Damaged {
                name: name.clone(),
                why,
            };
            if let Some(address) = name.strip_suffix(REST) {
                let address: IpAddr = address
                    .replace('_', ":")
                    .parse()
                    .map_err(|_| damaged("its name is not an address".into()))?;
                // Half a number would be a number, but values are whole.
                let until: u64 = String::from_utf8_lossy(value)
                    .parse()
                    .map_err(|_| damaged("it is not a time".into()))?;
                // A clock that was set back must not make it rest for ever.
                let until = until.min(now + self.reuse_delay);
                self.inner().ipam.rest(address, until);
            } else if name.ends_with(ATTACHMENT) {
                let kept: Kept<Record> =
                    serde_json::from_slice(value).map_err(|error| damaged(error.to_string()))?;
                if kept.version != VERSION {
                    return Err(damaged(format!(
                        "it has version {}, expected {VERSION}",
                        kept.version
                    )));
                }
                let record = kept.record;
                if file_of(&record.key) != *name {
                    return Err(damaged(format!("it is about container {}", record.key)));
                }
                self.enter_restored(&record).map_err(damaged)?;
                match endpoint::put(&self.tables, &record) {
                    Ok(()) => restored += 1,
                    Err(error) => {
                        missing += 1;
                        warn!("container {}: not restored yet: {error}", record.key);
                    }
                }
            }
        }
        if restored + missing > 0 {
            info!("{restored} attachments are restored, {missing} have no endpoint");
        }
        Ok(())
    }

    fn enter_restored(&self, record: &Record) -> Result<(), String> {
        let mut inner = self.inner();
        for &address in &record.addresses {
            if !inner.ipam.occupy(address) {
                return Err(format!("address {address} is that of another attachment, too"));
            }
        }
        if let Some(attached) = &record.attached
            && attached.endpoint >= inner.next_endpoint
        {
            inner.next_endpoint = after(attached.endpoint);
        }
        inner.records.insert(record.key.clone(), record.clone());
        Ok(())
    }

    /// Keeps a record.
    pub(super) fn store_record(&self, record: &Record) -> Result<(), StorageError> {
        let name = file_of(&record.key);
        let text = serde_json::to_vec(&Kept {
            version: VERSION,
            record,
        })
        .map_err(|error| StorageError::Damaged {
            name: name.clone(),
            why: error.to_string(),
        })?;
        self.store.put(&name, &text)
    }
}
