//! What a port is asked for, and what it gives.

/// What [`crate::Port::configure`] is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortConfig {
    /// Receive queues.
    pub rx_queues: u16,
    /// Send queues.
    pub tx_queues: u16,
    /// Descriptors of each receive queue; adjusted to what the device can do.
    pub rx_desc: u16,
    /// Descriptors of each send queue; adjusted to what the device can do.
    pub tx_desc: u16,
    /// Largest IP packet, in bytes. `None`: what the device has.
    pub mtu: Option<u16>,
    /// Receive packets for other MAC addresses too.
    pub promiscuous: bool,
    /// Let the device verify checksums, if it can.
    pub rx_checksum_offload: bool,
    /// Spread packets over the receive queues by a hash of addresses and ports, if the device can.
    pub rss: bool,
    /// The caller's promise that every packet sent here comes from the first pool given to
    /// [`crate::Port::configure`], which lets some drivers free sent packets faster. A packet of another pool would end
    /// up in the wrong one; debug builds check.
    pub single_pool: bool,
}

impl Default for PortConfig {
    fn default() -> Self {
        Self {
            rx_queues: 1,
            tx_queues: 1,
            rx_desc: 1024,
            tx_desc: 1024,
            mtu: None,
            promiscuous: true,
            rx_checksum_offload: true,
            rss: true,
            single_pool: false,
        }
    }
}

/// What a port was configured to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Receive queues.
    pub rx_queues: u16,
    /// Send queues.
    pub tx_queues: u16,
    /// Descriptors of each receive queue.
    pub rx_desc: u16,
    /// Descriptors of each send queue.
    pub tx_desc: u16,
    /// Largest IP packet in bytes, as the port reports it. A device that cannot change its own keeps another than was
    /// asked for.
    pub mtu: u16,
    /// Whether the device verifies IPv4 header checksums.
    pub rx_checksum_offload: bool,
    /// Whether the device spreads packets by hash. False with one receive queue.
    pub rss: bool,
    /// Whether sent packets are freed the fast way.
    pub fast_free: bool,
}
