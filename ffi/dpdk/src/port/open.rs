//! The one claim on a port that its owner and its queue handles share.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::eal::Eal;
use crate::mempool::Mempool;
use crate::port::{PortError, PortId};

/// Which ports are open. A port must have one owner, or queue handles could exist twice.
static OPEN: [AtomicBool; dpdk_sys::OCT_MAX_ETHPORTS as usize] =
    [const { AtomicBool::new(false) }; dpdk_sys::OCT_MAX_ETHPORTS as usize];

/// An open port. The last to hold it stops and closes the port, so a queue handle never outlives the queue.
#[derive(Debug)]
pub(crate) struct OpenPort {
    id: PortId,
    pub(crate) started: bool,
    /// Whether dropping this closes the port, or merely lets go of it.
    pub(crate) close_on_drop: bool,
    /// Pools that queues may hold buffers of. They are dropped after the port is closed.
    pub(crate) pools: Vec<Mempool>,
    pub(crate) eal: Eal,
}

impl OpenPort {
    /// Opens the port.
    pub(crate) fn claim(eal: &Eal, id: PortId) -> Result<Self, PortError> {
        let flag = OPEN.get(usize::from(id.0)).ok_or(PortError::Missing(id))?;
        if flag.swap(true, Ordering::AcqRel) {
            return Err(PortError::Open(id));
        }
        // From here on dropping `open` releases the claim. What does not exist must not be closed.
        let mut open = Self {
            id,
            started: false,
            close_on_drop: false,
            pools: Vec::new(),
            eal: eal.clone(),
        };
        if super::ports(eal).any(|existing| existing == id) {
            open.close_on_drop = true;
            Ok(open)
        } else {
            Err(PortError::Missing(id))
        }
    }

    pub(crate) fn id(&self) -> PortId {
        self.id
    }
}

impl Drop for OpenPort {
    fn drop(&mut self) {
        // SAFETY: the EAL runs and no queue handle is left. There is nobody to tell of a failure; for a port that has
        // vanished the calls do nothing.
        unsafe {
            if self.started {
                let _ = dpdk_sys::rte_eth_dev_stop(self.id.0);
            }
            if self.close_on_drop {
                let _ = dpdk_sys::rte_eth_dev_close(self.id.0);
            }
        }
        if let Some(flag) = OPEN.get(usize::from(self.id.0)) {
            flag.store(false, Ordering::Release);
        }
    }
}
