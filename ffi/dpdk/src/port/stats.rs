//! A port's counters, which the device keeps.

use crate::cstr;
use crate::port::{Port, PortError};

/// The counters every device has. They count from the last reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortStats {
    /// Packets received.
    pub ipackets: u64,
    /// Packets sent.
    pub opackets: u64,
    /// Bytes received.
    pub ibytes: u64,
    /// Bytes sent.
    pub obytes: u64,
    /// Packets the device dropped because a receive queue was full.
    pub imissed: u64,
    /// Packets received with errors.
    pub ierrors: u64,
    /// Packets that could not be sent.
    pub oerrors: u64,
    /// Times no buffer was left to receive into.
    pub rx_nombuf: u64,
}

/// A counter of one kind of device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xstat {
    /// Name, unique in the port.
    pub name: String,
    /// Value.
    pub value: u64,
}

impl Port {
    /// The common counters.
    ///
    /// # Errors
    /// The driver's.
    pub fn stats(&self) -> Result<PortStats, PortError> {
        let mut raw = dpdk_sys::oct_port_stats {
            ipackets: 0,
            opackets: 0,
            ibytes: 0,
            obytes: 0,
            imissed: 0,
            ierrors: 0,
            oerrors: 0,
            rx_nombuf: 0,
        };
        // SAFETY: the port is open and `raw` is a place for the result.
        PortError::check(self.id(), "statistics", unsafe {
            dpdk_sys::oct_port_stats(self.id().0, &raw mut raw)
        })?;
        Ok(PortStats {
            ipackets: raw.ipackets,
            opackets: raw.opackets,
            ibytes: raw.ibytes,
            obytes: raw.obytes,
            imissed: raw.imissed,
            ierrors: raw.ierrors,
            oerrors: raw.oerrors,
            rx_nombuf: raw.rx_nombuf,
        })
    }

    /// Sets the common and the device's own counters to zero.
    ///
    /// # Errors
    /// [`PortError::Unsupported`], or the driver's.
    pub fn reset_stats(&mut self) -> Result<(), PortError> {
        // SAFETY: the port is open.
        unsafe {
            PortError::check(
                self.id(),
                "statistics reset",
                dpdk_sys::rte_eth_stats_reset(self.id().0),
            )?;
            PortError::check(
                self.id(),
                "statistics reset",
                dpdk_sys::rte_eth_xstats_reset(self.id().0),
            )
        }
    }

    /// The names of all counters, in the order of [`Port::xstat_values`]. They change only with the configuration.
    ///
    /// # Errors
    /// The driver's.
    pub fn xstat_names(&self) -> Result<Vec<String>, PortError> {
        let empty = dpdk_sys::rte_eth_xstat_name { name: [0; 64] };
        // SAFETY: the port is open; a null array of length 0 asks for the number, and `size` entries are there after.
        let names = collect(self, "names of counters", empty, |array, size| unsafe {
            dpdk_sys::rte_eth_xstats_get_names(self.id().0, array, size)
        })?;
        Ok(names.iter().map(|entry| cstr::from_array(&entry.name)).collect())
    }

    /// The values of all counters.
    ///
    /// # Errors
    /// The driver's.
    pub fn xstat_values(&self) -> Result<Vec<u64>, PortError> {
        let empty = dpdk_sys::rte_eth_xstat { id: 0, value: 0 };
        // SAFETY: as for the names.
        let entries = collect(self, "counters", empty, |array, size| unsafe {
            dpdk_sys::rte_eth_xstats_get(self.id().0, array, size)
        })?;
        // The id is the index of the name; drivers fill them in order, but are not bound to.
        let mut values = vec![0; entries.len()];
        for entry in entries {
            if let Some(value) = usize::try_from(entry.id).ok().and_then(|id| values.get_mut(id)) {
                *value = entry.value;
            }
        }
        Ok(values)
    }

    /// All counters by name.
    ///
    /// # Errors
    /// The driver's.
    pub fn xstats(&self) -> Result<Vec<Xstat>, PortError> {
        let (names, values) = (self.xstat_names()?, self.xstat_values()?);
        Ok(names
            .into_iter()
            .zip(values)
            .map(|(name, value)| Xstat { name, value })
            .collect())
    }
}

/// Asks `get` how many entries there are, then for the entries.
fn collect<T: Clone>(
    port: &Port,
    operation: &'static str,
    empty: T,
    get: impl Fn(*mut T, u32) -> i32,
) -> Result<Vec<T>, PortError> {
    let count = get(std::ptr::null_mut(), 0);
    PortError::check(port.id(), operation, count)?;
    let mut entries = vec![empty; usize::try_from(count).unwrap_or(0)];
    let filled = get(entries.as_mut_ptr(), u32::try_from(entries.len()).unwrap_or(0));
    PortError::check(port.id(), operation, filled)?;
    // With more entries than asked about a moment ago nothing is filled in, and what is there are zeros.
    entries.truncate(usize::try_from(filled).unwrap_or(0));
    Ok(entries)
}
