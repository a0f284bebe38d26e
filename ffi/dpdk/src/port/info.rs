//! What a port is and can do.

use crate::cstr;
use crate::eal::Eal;
use crate::port::{PortError, PortId};

/// A port's properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortInfo {
    /// Number.
    pub id: PortId,
    /// Name of the port, which [`crate::port::port_by_name`] finds it by.
    pub name: String,
    /// Name of the device on its bus. Empty if the driver does not tell.
    pub device: String,
    /// The bus: `pci`, `vdev`.
    pub bus: String,
    /// Driver.
    pub driver: String,
    /// MAC address.
    pub mac: [u8; 6],
    /// NUMA node, if the device is near one.
    pub socket: Option<u32>,
    /// Most receive queues.
    pub max_rx_queues: u16,
    /// Most send queues.
    pub max_tx_queues: u16,
    /// Smallest MTU, in bytes.
    pub min_mtu: u16,
    /// Largest MTU, in bytes.
    pub max_mtu: u16,
    /// MTU now, in bytes.
    pub mtu: u16,
    /// Largest frame the device receives, in bytes.
    pub max_rx_frame: u32,
    /// What we use of the offloads it has.
    pub capabilities: Capabilities,
    /// `RTE_ETH_RX_OFFLOAD_*` bits.
    pub rx_offloads: u64,
    /// `RTE_ETH_TX_OFFLOAD_*` bits.
    pub tx_offloads: u64,
}

impl PortInfo {
    /// Largest MTU with which the device can be configured, in bytes: that which it names, or what its largest frame leaves
    /// (DPDK checks for both, and takes 18 bytes for the frame where a driver names no largest MTU).
    pub fn largest_mtu(&self) -> u16 {
        const ETHERNET_AND_CRC: u32 = 14 + 4;
        if self.max_mtu != u16::MAX {
            return self.max_mtu;
        }
        u16::try_from(self.max_rx_frame.saturating_sub(ETHERNET_AND_CRC)).unwrap_or(u16::MAX)
    }
}

/// Offloads this crate can switch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Verifies IPv4 header checksums.
    pub rx_checksum: bool,
    /// Spreads packets over queues by a hash of addresses and ports.
    pub rss: bool,
    /// Frees sent packets faster when they are all of one pool.
    pub fast_free: bool,
}

impl Capabilities {
    pub(crate) fn from_flags(flags: u32) -> Self {
        Self {
            rx_checksum: flags & dpdk_sys::OCT_PORT_RX_CKSUM != 0,
            rss: flags & dpdk_sys::OCT_PORT_RSS != 0,
            fast_free: flags & dpdk_sys::OCT_PORT_FAST_FREE != 0,
        }
    }

    pub(crate) fn to_flags(self) -> u32 {
        let mut flags = 0;
        if self.rx_checksum {
            flags |= dpdk_sys::OCT_PORT_RX_CKSUM;
        }
        if self.rss {
            flags |= dpdk_sys::OCT_PORT_RSS;
        }
        if self.fast_free {
            flags |= dpdk_sys::OCT_PORT_FAST_FREE;
        }
        flags
    }
}

/// State of a port's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkStatus {
    /// Whether it is up.
    pub up: bool,
    /// Speed in Mbit/s, if known.
    pub speed: Option<u32>,
    /// Whether both directions work at once.
    pub full_duplex: bool,
}

/// The properties of any port, open or not.
///
/// # Errors
/// [`PortError::Missing`] if there is no such port, or the driver's error.
pub fn info_of(_eal: &Eal, id: PortId) -> Result<PortInfo, PortError> {
    // SAFETY: all fields are numbers or arrays of them, for which zero is a value.
    let mut raw: dpdk_sys::oct_port_info = unsafe { std::mem::zeroed() };
    // SAFETY: the EAL runs and `raw` is a place for the result.
    PortError::check(id, "device information", unsafe {
        dpdk_sys::oct_port_info(id.0, &raw mut raw)
    })?;
    Ok(PortInfo {
        id,
        name: cstr::from_array(&raw.name),
        device: cstr::from_array(&raw.device),
        bus: cstr::from_array(&raw.bus),
        driver: cstr::from_array(&raw.driver),
        mac: raw.mac,
        socket: u32::try_from(raw.socket).ok(),
        max_rx_queues: raw.max_rx_queues,
        max_tx_queues: raw.max_tx_queues,
        min_mtu: raw.min_mtu,
        max_mtu: raw.max_mtu,
        mtu: raw.mtu,
        max_rx_frame: raw.max_rx_pktlen,
        capabilities: Capabilities::from_flags(raw.capable),
        rx_offloads: raw.rx_offload_capa,
        tx_offloads: raw.tx_offload_capa,
    })
}
