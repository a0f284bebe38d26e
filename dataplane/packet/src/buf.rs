//! The packet-buffer traits that a DPDK mbuf and a heap buffer both implement.
//!
//! Everything above `ffi/` is written against these traits, so the whole pipeline runs in a unit test without a device.

/// A header was to be put in front of a packet, or data behind it, and the buffer has no room left there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("packet buffer has {available} bytes of room, {requested} were asked for")]
pub struct NoRoom {
    /// Bytes asked for.
    pub requested: usize,
    /// Bytes there are.
    pub available: usize,
}

/// What the receiving device said about a packet's checksums (`RTE_MBUF_F_RX_{IP,L4}_CKSUM_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChecksumStatus {
    /// The device did not look: software has to verify.
    #[default]
    Unknown,
    /// The device verified the checksum and it is right.
    Good,
    /// The device verified the checksum and it is wrong.
    Bad,
}

/// One packet in one contiguous buffer with head and tail room.
///
/// All lengths are bytes. The packet starts with its Ethernet header unless a stage says otherwise.
pub trait PacketBuf: Sized {
    /// The packet's bytes.
    fn data(&self) -> &[u8];

    /// The packet's bytes, to be changed in place.
    fn data_mut(&mut self) -> &mut [u8];

    /// Packet length.
    fn len(&self) -> usize {
        self.data().len()
    }

    /// Whether the packet has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Free bytes in front of the packet.
    fn headroom(&self) -> usize;

    /// Free bytes behind the packet.
    fn tailroom(&self) -> usize;

    /// Grows the packet by `n` bytes at the front and returns the whole packet.
    /// The new bytes hold whatever the buffer held before.
    fn prepend(&mut self, n: usize) -> Result<&mut [u8], NoRoom>;

    /// Grows the packet by `n` bytes at the back and returns the whole packet.
    /// The new bytes hold whatever the buffer held before.
    fn append(&mut self, n: usize) -> Result<&mut [u8], NoRoom>;

    /// Removes `n` bytes from the front. Fails, changing nothing, if the packet is shorter.
    fn trim_front(&mut self, n: usize) -> Result<(), NoRoom>;

    /// Removes `n` bytes from the back. Fails, changing nothing, if the packet is shorter.
    fn trim_back(&mut self, n: usize) -> Result<(), NoRoom>;

    /// Whether the whole packet lies in this one buffer. Only the first segment of a chained packet is seen by
    /// [`PacketBuf::data`]; the pipeline drops such packets, because no queue is configured to make them.
    fn is_contiguous(&self) -> bool {
        true
    }

    /// What the device said about the IPv4 header checksum.
    fn ip_checksum_status(&self) -> ChecksumStatus {
        ChecksumStatus::Unknown
    }

    /// Asks the CPU to fetch the first cache line of the packet's data. A hint: it never faults.
    fn prefetch(&self) {}
}

/// Where new packets come from (ICMP errors, ARP requests).
pub trait BufPool {
    /// The kind of buffer this pool gives.
    type Buf: PacketBuf;

    /// An empty buffer (length 0) with the pool's usual headroom, or `None` when the pool has run dry.
    fn alloc(&mut self) -> Option<Self::Buf>;
}
