//! What is known of remote addresses.

use octoplane_packet::Prefix;

use crate::error::ChangeError;
use crate::ipcache::Remote;
use crate::model::{IpcacheEntry, MAX_IDENTITY};
use crate::state::State;
use crate::store::Capacity;
use crate::validate::{field, unusable};

impl State {
    pub(super) fn put_ipcache(
        &mut self,
        entry: IpcacheEntry,
        capacity: &Capacity,
    ) -> Result<(), ChangeError> {
        let prefix = entry.prefix;
        let refuse = |name: &str, why: String| Err(field(format!("ipcache {prefix}"), name, why));
        if entry.identity == 0 || entry.identity > MAX_IDENTITY {
            return refuse(
                "identity",
                format!("{} is out of range, expected 1 to {MAX_IDENTITY}", entry.identity),
            );
        }
        if let Some((addr, why)) = entry.tunnel.and_then(|addr| Some((addr, unusable(addr)?))) {
            return refuse(
                "tunnel_endpoint",
                format!("{addr} is not the address of a node: {why}"),
            );
        }
        if !self.ipcache.contains_key(&prefix) && self.ipcache.len() >= capacity.ipcache {
            return Err(ChangeError::TableFull {
                table: "ipcache",
                size: capacity.ipcache,
            });
        }
        // The new one first: if nothing changes, the number stays in use.
        let number = self.remotes.acquire(Remote::from(&entry));
        if let Some(old) = self.ipcache.insert(prefix, number) {
            self.remotes.release(old);
        }
        Ok(())
    }

    pub(super) fn remove_ipcache(&mut self, prefix: Prefix) -> Result<(), ChangeError> {
        let old = self
            .ipcache
            .remove(&prefix)
            .ok_or_else(|| ChangeError::NotFound {
                object: format!("ipcache {prefix}"),
            })?;
        self.remotes.release(old);
        Ok(())
    }
}
