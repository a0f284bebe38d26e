//! A packet buffer on the heap: what tests, the simulator and the benchmarks use where a device would use mbufs.

use crate::buf::{BufPool, NoRoom, PacketBuf};

/// Room in front of a new packet, as DPDK leaves it (`RTE_PKTMBUF_HEADROOM`).
pub const HEADROOM: usize = 128;

/// Size of the whole buffer: headroom, a jumbo frame, and room for an overlay's headers.
const SIZE: usize = HEADROOM + 10_240;

/// A packet in a heap buffer.
#[derive(Clone)]
pub struct HeapBuf {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl HeapBuf {
    /// A packet with these bytes; what does not fit is cut off.
    pub fn new(packet: &[u8]) -> Self {
        let mut buf = Self {
            bytes: vec![0; SIZE].into_boxed_slice(),
            start: HEADROOM,
            end: HEADROOM,
        };
        buf.fill(packet);
        buf
    }

    /// Replaces the packet, using the same memory.
    pub fn fill(&mut self, packet: &[u8]) {
        let len = packet.len().min(SIZE - HEADROOM);
        self.start = HEADROOM;
        self.end = HEADROOM + len;
        self.bytes[self.start..self.end].copy_from_slice(&packet[..len]);
    }
}

impl std::fmt::Debug for HeapBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HeapBuf").field(&self.data()).finish()
    }
}

// As easily inlined as packets in devices' buffers: instructions are counted with these.
impl PacketBuf for HeapBuf {
    #[inline(always)]
    fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    #[inline(always)]
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.end - self.start
    }

    #[inline(always)]
    fn headroom(&self) -> usize {
        self.start
    }

    #[inline(always)]
    fn tailroom(&self) -> usize {
        self.bytes.len() - self.end
    }

    #[inline(always)]
    fn prepend(&mut self, n: usize) -> Result<&mut [u8], NoRoom> {
        let no_room = NoRoom {
            requested: n,
            available: self.headroom(),
        };
        self.start = self.start.checked_sub(n).ok_or(no_room)?;
        Ok(self.data_mut())
    }

    #[inline(always)]
    fn append(&mut self, n: usize) -> Result<&mut [u8], NoRoom> {
        if n > self.tailroom() {
            return Err(NoRoom {
                requested: n,
                available: self.tailroom(),
            });
        }
        self.end += n;
        Ok(self.data_mut())
    }

    #[inline(always)]
    fn trim_front(&mut self, n: usize) -> Result<(), NoRoom> {
        if n > self.len() {
            return Err(NoRoom {
                requested: n,
                available: self.len(),
            });
        }
        self.start += n;
        Ok(())
    }

    #[inline(always)]
    fn trim_back(&mut self, n: usize) -> Result<(), NoRoom> {
        if n > self.len() {
            return Err(NoRoom {
                requested: n,
                available: self.len(),
            });
        }
        self.end -= n;
        Ok(())
    }
}

/// A pool of heap buffers that never runs dry unless told to.
#[derive(Debug, Default)]
pub struct HeapPool {
    /// How many buffers are left; `None` for no limit.
    pub left: Option<usize>,
}

impl BufPool for HeapPool {
    type Buf = HeapBuf;

    fn alloc(&mut self) -> Option<HeapBuf> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        Some(HeapBuf::new(&[]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_shrinks_at_both_ends() {
        let mut buf = HeapBuf::new(&[1, 2, 3]);
        buf.prepend(2).unwrap()[..2].copy_from_slice(&[8, 9]);
        buf.append(1).unwrap()[5] = 4;
        assert_eq!(buf.data(), [8, 9, 1, 2, 3, 4]);
        buf.trim_front(3).unwrap();
        buf.trim_back(1).unwrap();
        assert_eq!(buf.data(), [2, 3]);
        assert_eq!(
            buf.trim_front(3),
            Err(NoRoom {
                requested: 3,
                available: 2
            })
        );
        assert!(buf.prepend(HEADROOM + 100).is_err());
        assert_eq!(buf.len(), 2);
    }
}
