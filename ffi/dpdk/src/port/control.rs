//! A port and its life: open, configure, start, stop, close.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::eal::Eal;
use crate::mempool::Mempool;
use crate::port::config::{Applied, PortConfig};
use crate::port::info::{self, Capabilities, LinkStatus, PortInfo};
use crate::port::open::OpenPort;
use crate::port::{PortError, PortId};
use crate::queue::{RxQueue, TxQueue};

/// The one owner of a port. DPDK's control calls are not thread safe, so it moves between threads but is not shared.
///
/// [`Port::start`] gives out the queue handles, and each of them keeps the port open and started: stopping is refused
/// until all are dropped, wherever they are. A port that is dropped before its queues closes with the last of them.
#[derive(Debug)]
pub struct Port {
    open: Arc<OpenPort>,
    configured: Option<Configured>,
    _not_shared: PhantomData<Cell<()>>,
}

#[derive(Debug)]
struct Configured {
    applied: Applied,
    promiscuous: bool,
    fast_free_pool: Option<Mempool>,
}

impl Port {
    /// Takes possession of a port. It stays closed after this is dropped: DPDK forgets a closed port until its device is
    /// removed and added again ([`crate::hotplug`]).
    ///
    /// # Errors
    /// [`PortError::Missing`], [`PortError::Open`]
    pub fn open(eal: &Eal, id: PortId) -> Result<Self, PortError> {
        let open = OpenPort::claim(eal, id)?;
        Ok(Self {
            open: Arc::new(open),
            configured: None,
            _not_shared: PhantomData,
        })
    }

    /// The port's number.
    #[must_use]
    pub fn id(&self) -> PortId {
        self.open.id()
    }

    /// Lets go of a port nothing was done to, leaving it for others to open.
    pub(crate) fn release(mut self) {
        if let Some(open) = Arc::get_mut(&mut self.open) {
            open.close_on_drop = false;
        }
    }

    pub(crate) fn eal(&self) -> &Eal {
        &self.open.eal
    }

    /// What the port is and can do.
    ///
    /// # Errors
    /// The driver's.
    pub fn info(&self) -> Result<PortInfo, PortError> {
        info::info_of(&self.open.eal, self.id())
    }

    /// What [`Port::configure`] came to.
    #[must_use]
    pub fn applied(&self) -> Option<Applied> {
        self.configured.as_ref().map(|configured| configured.applied)
    }

    /// Sets up queues and offloads. Receive queue `n` takes its buffers from `pools[n % pools.len()]`.
    ///
    /// What is "if the device can" in [`PortConfig`] is left out otherwise, and the MTU left alone where it cannot be
    /// changed, or as large as the device does: the result tells.
    ///
    /// # Errors
    /// [`PortError::State`] if the port is started, [`PortError::Queues`], [`PortError::NoPool`], and the driver's, after
    /// which the port is not configured.
    pub fn configure(&mut self, config: &PortConfig, pools: &[Mempool]) -> Result<Applied, PortError> {
        let id = self.id();
        let info = self.info()?;
        let queues = config.rx_queues.max(config.tx_queues) > 0
            && config.rx_queues <= info.max_rx_queues
            && config.tx_queues <= info.max_tx_queues;
        if !queues {
            return Err(PortError::Queues {
                port: id,
                rx: config.rx_queues,
                tx: config.tx_queues,
                max_rx: info.max_rx_queues,
                max_tx: info.max_tx_queues,
            });
        }
        if config.rx_queues > 0 && pools.is_empty() {
            return Err(PortError::NoPool(id));
        }
        let open = stopped(&mut self.open)?;
        self.configured = None;
        // Earlier pools stay too: until the queues are set up anew the driver may hold buffers of them.
        open.pools.extend_from_slice(pools);

        // More than the device does would be refused as a whole.
        let mtu = config.mtu.map(|mtu| mtu.min(info.largest_mtu()));
        let granted = configure_device(id, &PortConfig { mtu, ..*config })?;
        let (rx_desc, tx_desc) = adjust_descriptors(id, config)?;
        let socket = info
            .socket
            .and_then(|socket| i32::try_from(socket).ok())
            .unwrap_or(-1);
        for (queue, pool) in (0..config.rx_queues).zip(pools.iter().cycle()) {
            // SAFETY: the port is stopped and configured for this queue; the pool lives as long as the open port.
            let ret = unsafe { dpdk_sys::oct_port_rxq_setup(id.0, queue, rx_desc, socket, pool.as_ptr()) };
            PortError::check(id, "receive queue setup", ret)?;
        }
        for queue in 0..config.tx_queues {
            // SAFETY: the port is stopped and configured for this queue.
            let ret = unsafe { dpdk_sys::oct_port_txq_setup(id.0, queue, tx_desc, socket) };
            PortError::check(id, "send queue setup", ret)?;
        }
        if let Some(mtu) = mtu {
            match self.set_mtu(mtu) {
                Err(error) if !error.is_unsupported() => return Err(error),
                _ => {}
            }
        }
        let applied = Applied {
            rx_queues: config.rx_queues,
            tx_queues: config.tx_queues,
            rx_desc,
            tx_desc,
            mtu: self.mtu()?,
            rx_checksum_offload: granted.rx_checksum,
            rss: granted.rss,
            fast_free: granted.fast_free,
        };
        let fast_free_pool = if granted.fast_free {
            pools.first().cloned()
        } else {
            None
        };
        self.configured = Some(Configured {
            applied,
            promiscuous: config.promiscuous,
            fast_free_pool,
        });
        Ok(applied)
    }

    /// Starts the port and gives out its queues, in order.
    ///
    /// # Errors
    /// [`PortError::State`] if it is not configured or is started already, and the driver's.
    pub fn start(&mut self) -> Result<(Vec<RxQueue>, Vec<TxQueue>), PortError> {
        let id = self.id();
        let open = stopped(&mut self.open)?;
        let configured = self.configured.as_ref().ok_or(PortError::State {
            port: id,
            state: "not configured",
        })?;
        // SAFETY: the port is configured and stopped.
        PortError::check(id, "start", unsafe { dpdk_sys::rte_eth_dev_start(id.0) })?;
        open.started = true;
        // A device that cannot is one that receives everything anyway: virtual ones.
        match set_promiscuous(id, configured.promiscuous) {
            Err(error) if !error.is_unsupported() => return Err(error),
            _ => {}
        }
        let pool = configured
            .fast_free_pool
            .as_ref()
            .map(|pool| pool.as_ptr().cast_const());
        let rx = (0..configured.applied.rx_queues)
            .map(|q| RxQueue::new(Arc::clone(&self.open), q))
            .collect();
        let tx = (0..configured.applied.tx_queues)
            .map(|q| TxQueue::new(Arc::clone(&self.open), q, pool))
            .collect();
        Ok((rx, tx))
    }

    /// Stops the port; it can be configured or started again. Stopping a stopped port does nothing.
    ///
    /// # Errors
    /// [`PortError::QueuesInUse`] until every queue handle has been dropped, and the driver's.
    pub fn stop(&mut self) -> Result<(), PortError> {
        let id = self.id();
        // Sees only its own reference when no handle is left, and what their threads did happened before.
        let open = Arc::get_mut(&mut self.open).ok_or(PortError::QueuesInUse(id))?;
        if open.started {
            // SAFETY: the port is started, and nobody polls it.
            PortError::check(id, "stop", unsafe { dpdk_sys::rte_eth_dev_stop(id.0) })?;
            open.started = false;
        }
        Ok(())
    }

    /// Stops and closes the port. Dropping does the same but tells nobody of a failure.
    ///
    /// # Errors
    /// As [`Port::stop`]. After [`PortError::QueuesInUse`] the port closes with its last queue handle.
    pub fn close(mut self) -> Result<(), PortError> {
        self.stop()
    }

    /// State of the link, as known without waiting.
    ///
    /// # Errors
    /// The driver's.
    pub fn link(&self) -> Result<LinkStatus, PortError> {
        let mut raw = dpdk_sys::oct_port_link {
            speed: 0,
            up: false,
            full_duplex: false,
        };
        // SAFETY: the port is open and `raw` is a place for the result.
        PortError::check(self.id(), "link status", unsafe {
            dpdk_sys::oct_port_link(self.id().0, &raw mut raw)
        })?;
        let speed = (raw.speed != u32::MAX && raw.speed != 0).then_some(raw.speed);
        Ok(LinkStatus {
            up: raw.up,
            speed,
            full_duplex: raw.full_duplex,
        })
    }

    /// Largest IP packet, in bytes.
    ///
    /// # Errors
    /// The driver's.
    pub fn mtu(&self) -> Result<u16, PortError> {
        let mut mtu = 0;
        // SAFETY: the port is open and `mtu` is a place for the result.
        PortError::check(self.id(), "reading the MTU", unsafe {
            dpdk_sys::rte_eth_dev_get_mtu(self.id().0, &raw mut mtu)
        })?;
        Ok(mtu)
    }

    /// Sets the largest IP packet, in bytes. Some devices take it only while stopped.
    ///
    /// # Errors
    /// [`PortError::Unsupported`] where the device has no say in it, which may be ignored, and the driver's.
    pub fn set_mtu(&mut self, mtu: u16) -> Result<(), PortError> {
        // SAFETY: the port is open.
        PortError::check(self.id(), "setting the MTU", unsafe {
            dpdk_sys::rte_eth_dev_set_mtu(self.id().0, mtu)
        })
    }

    /// The MAC address.
    ///
    /// # Errors
    /// The driver's.
    pub fn mac(&self) -> Result<[u8; 6], PortError> {
        let mut mac = [0; 6];
        // SAFETY: the port is open and the array has the six bytes that are written.
        PortError::check(self.id(), "reading the MAC address", unsafe {
            dpdk_sys::oct_port_mac_get(self.id().0, mac.as_mut_ptr())
        })?;
        Ok(mac)
    }

    /// Sets the MAC address.
    ///
    /// # Errors
    /// [`PortError::Unsupported`], or the driver's; `EINVAL` for a group or zero address.
    pub fn set_mac(&mut self, mac: [u8; 6]) -> Result<(), PortError> {
        // SAFETY: the port is open and the array has the six bytes that are read.
        PortError::check(self.id(), "setting the MAC address", unsafe {
            dpdk_sys::oct_port_mac_set(self.id().0, mac.as_ptr())
        })
    }

    /// Receives packets for other MAC addresses too, or stops doing so.
    ///
    /// # Errors
    /// [`PortError::Unsupported`], or the driver's.
    pub fn set_promiscuous(&mut self, on: bool) -> Result<(), PortError> {
        set_promiscuous(self.id(), on)
    }
}

/// The port's own state, if it may be changed.
fn stopped(open: &mut Arc<OpenPort>) -> Result<&mut OpenPort, PortError> {
    let port = open.id();
    let open = Arc::get_mut(open).ok_or(PortError::QueuesInUse(port))?;
    if open.started {
        return Err(PortError::State {
            port,
            state: "started",
        });
    }
    Ok(open)
}

fn configure_device(id: PortId, config: &PortConfig) -> Result<Capabilities, PortError> {
    let wanted = Capabilities {
        rx_checksum: config.rx_checksum_offload,
        rss: config.rss,
        fast_free: config.single_pool,
    };
    let mut granted = 0;
    // SAFETY: the port is open and stopped, and `granted` is a place for the result.
    let ret = unsafe {
        dpdk_sys::oct_port_configure(
            id.0,
            config.rx_queues,
            config.tx_queues,
            config.mtu.unwrap_or(0),
            wanted.to_flags(),
            &raw mut granted,
        )
    };
    PortError::check(id, "configuration", ret)?;
    Ok(Capabilities::from_flags(granted))
}

fn adjust_descriptors(id: PortId, config: &PortConfig) -> Result<(u16, u16), PortError> {
    let (mut rx, mut tx) = (config.rx_desc, config.tx_desc);
    // SAFETY: the port is configured and both numbers are places for the result.
    let ret = unsafe { dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(id.0, &raw mut rx, &raw mut tx) };
    PortError::check(id, "number of descriptors", ret)?;
    Ok((rx, tx))
}

fn set_promiscuous(id: PortId, on: bool) -> Result<(), PortError> {
    // SAFETY: the port is open.
    let ret = unsafe {
        if on {
            dpdk_sys::rte_eth_promiscuous_enable(id.0)
        } else {
            dpdk_sys::rte_eth_promiscuous_disable(id.0)
        }
    };
    PortError::check(id, "promiscuous mode", ret)
}
