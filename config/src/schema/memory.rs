//! `[memory]`.

use super::{Port, Workers};

/// Packet memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Whether DPDK's memory comes from hugepages. Default: whether some device is on the PCI bus, as only hardware
    /// demands them.
    pub hugepages: bool,
    /// DPDK memory reserved at start, in MiB. Default: what the mbufs need, an eighth more,
    /// [`Memory::DRIVER_MB`], and [`crate::Crypto::DEVICE_MB`] for each crypto device.
    pub size_mb: u32,
    /// Packet buffers. Default: see [`Memory::auto_mbufs`].
    pub mbufs: u32,
    /// Packet buffers each worker keeps to itself. Default 256; DPDK allows 512.
    pub mbuf_cache: u32,
    /// Bytes in a packet buffer, including [`Memory::HEADROOM`]. Default: 2176, or more where the largest MTU
    /// needs it.
    pub data_room: u16,
}

impl Memory {
    /// Bytes that DPDK leaves free before a received packet; outer headers go there.
    pub const HEADROOM: u16 = 128;
    /// Bytes of a frame beside its IP packet: Ethernet header, two VLAN tags, frame check sequence.
    pub const FRAME_OVERHEAD: u16 = 14 + 8 + 4;
    /// Bytes kept behind the packet for an ESP trailer: padding, its length, next header, and the check value.
    pub const TAILROOM: u16 = 64;
    /// Smallest data room that is chosen by default, DPDK's own default.
    pub const DEFAULT_DATA_ROOM: u16 = 2048 + Self::HEADROOM;
    /// MiB beside packet buffers that drivers use for rings and the like when the size is chosen by default.
    pub const DRIVER_MB: u32 = 128;
    /// Bytes that an mbuf takes beside its data room: its header, the mempool's, and alignment.
    const MBUF_OVERHEAD: u64 = 256;

    /// The data room that one packet of `mtu` bytes needs.
    pub const fn data_room_for(mtu: u16) -> u16 {
        mtu.saturating_add(Self::HEADROOM + Self::FRAME_OVERHEAD + Self::TAILROOM)
    }

    /// MiB that `mbufs` buffers of `data_room` bytes take.
    pub const fn mb_for(mbufs: u32, data_room: u16) -> u32 {
        let bytes = mbufs as u64 * (data_room as u64 + Self::MBUF_OVERHEAD);
        let mb = bytes.div_ceil(1 << 20);
        if mb > u32::MAX as u64 { u32::MAX } else { mb as u32 }
    }

    /// The default of [`Memory::size_mb`].
    pub const fn auto_size_mb(mbufs: u32, data_room: u16) -> u32 {
        let need = Self::mb_for(mbufs, data_room);
        need.saturating_add(need / 8).saturating_add(Self::DRIVER_MB)
    }

    /// Fewest mbufs with which every port can start: all receive descriptors hold one while each worker has a
    /// full cache and a burst in hand.
    pub fn least_mbufs(ports: &[Port], workers: &Workers, mbuf_cache: u32) -> u32 {
        let n = workers.cores.len();
        let rx: u64 = ports
            .iter()
            .map(|p| u64::from(p.rx_queues.resolve(n)) * u64::from(p.rx_descriptors))
            .sum();
        // A mempool cache grows to one and a half times its size before it is flushed.
        let per_worker = u64::from(mbuf_cache) * 3 / 2 + u64::from(workers.burst);
        u32::try_from(rx + n as u64 * per_worker).unwrap_or(u32::MAX)
    }

    /// The default of [`Memory::mbufs`]: enough that full receive and transmit rings, full caches and all parked
    /// packets together leave a few thousand free; one less than a power of two, which a mempool wastes least on.
    pub fn auto_mbufs(ports: &[Port], workers: &Workers, mbuf_cache: u32, max_parked: u32) -> u32 {
        let n = workers.cores.len();
        let tx: u64 = ports
            .iter()
            .map(|p| u64::from(p.tx_queues.resolve(n)) * u64::from(p.tx_descriptors))
            .sum();
        let all = u64::from(Self::least_mbufs(ports, workers, mbuf_cache))
            + tx
            + n as u64 * (u64::from(max_parked) + 4 * u64::from(workers.burst))
            + 2048;
        u32::try_from((all + 1).next_power_of_two() - 1).unwrap_or(u32::MAX)
    }
}
