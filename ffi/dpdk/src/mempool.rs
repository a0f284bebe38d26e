//! Pools of packet buffers.

use std::ptr::NonNull;
use std::sync::Arc;

use arrayvec::ArrayVec;
use dpdk_sys::{rte_mbuf, rte_mempool};
use octoplane_packet::BufPool;

use crate::compact;
use crate::cstr::{self, NulByte};
use crate::eal::Eal;
use crate::errno::Errno;
use crate::mbuf::Mbuf;

/// Data room for a standard Ethernet frame behind the usual headroom, in bytes.
pub const DEFAULT_DATA_ROOM: u16 = 2048 + HEADROOM;

/// Bytes in front of the data of a new buffer (`RTE_PKTMBUF_HEADROOM`).
pub const HEADROOM: u16 = dpdk_sys::OCT_PKTMBUF_HEADROOM as u16;

/// Why a pool could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MempoolError {
    /// The name has a NUL byte in it.
    #[error("pool name {0}")]
    Name(#[from] NulByte),
    /// Without room behind the headroom the pool would hold no data.
    #[error("a data room of {0} bytes is not larger than the headroom of {HEADROOM}")]
    DataRoom(u16),
    /// DPDK refused: `ENOMEM` no memory left, `EEXIST` name in use, `EINVAL` cache larger than allowed or than fits `n`,
    /// `ENAMETOOLONG`.
    #[error("packet pool {name:?} with {n} buffers: {errno}")]
    Create {
        /// Name asked for.
        name: String,
        /// Buffers asked for.
        n: u32,
        /// Why not.
        #[source]
        errno: Errno,
    },
}

/// A pool of equal packet buffers, for any thread. A clone is another handle of the same pool.
///
/// The pool is freed with its last handle. Ports hold handles of the pools they fill buffers from. Buffers do not (that
/// would cost a reference count per packet), so a pool whose last handle goes while buffers are out is left in place,
/// and the EAL with it, until the process ends. A thread that frees buffers keeps a handle, or a queue of a port that
/// has one, while it does: a buffer counts as home a few instructions before DPDK has finished with it.
#[derive(Debug, Clone)]
pub struct Mempool {
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    raw: NonNull<rte_mempool>,
    eal: Eal,
}

// SAFETY: `rte_pktmbuf_pool_create`, as `compact::create`, makes multi-producer, multi-consumer pools; their per-lcore caches are reached
// through the id of the running thread only.
unsafe impl Send for Pool {}
// SAFETY: as for Send.
unsafe impl Sync for Pool {}

impl Mempool {
    /// Makes a pool of `n` buffers (best is a power of two less one) with `data_room` bytes each, headroom included, on
    /// NUMA node `socket` (`None`: any). Each lcore keeps up to about 1.5 * `cache_size` free buffers to itself (at most
    /// 512 and at most `n` / 1.5; 0: none). What manages the free buffers is the platform's choice: a hardware pool where
    /// the network device needs one.
    ///
    /// # Errors
    /// [`MempoolError`]
    pub fn new(
        eal: &Eal,
        name: &str,
        n: u32,
        cache_size: u32,
        data_room: u16,
        socket: Option<u32>,
    ) -> Result<Self, MempoolError> {
        if data_room <= HEADROOM {
            return Err(MempoolError::DataRoom(data_room));
        }
        let c_name = cstr::to_c(name)?;
        // -1 is SOCKET_ID_ANY.
        let socket = socket.map_or(-1, |s| i32::try_from(s).unwrap_or(-1));
        let raw = if compact::is_wanted() {
            compact::create(&c_name, n, cache_size, data_room, socket)
        } else {
            // SAFETY: the EAL runs and the name is a C string that DPDK copies.
            let raw = unsafe {
                dpdk_sys::rte_pktmbuf_pool_create(c_name.as_ptr(), n, cache_size, 0, data_room, socket)
            };
            NonNull::new(raw).ok_or_else(Errno::last)
        };
        let raw = raw.map_err(|errno| MempoolError::Create {
            name: name.to_owned(),
            n,
            errno,
        })?;
        Ok(Self {
            pool: Arc::new(Pool {
                raw,
                eal: eal.clone(),
            }),
        })
    }

    /// How many buffers the pool has in all.
    #[must_use]
    pub fn size(&self) -> u32 {
        // SAFETY: the pool is live.
        unsafe { dpdk_sys::oct_mempool_size(self.as_ptr()) }
    }

    /// Buffers that are out, in device queues or in the program. Slow, and exact only while no thread allocates or frees.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        // SAFETY: the pool is live.
        unsafe { dpdk_sys::rte_mempool_in_use_count(self.as_ptr()) }
    }

    /// Free buffers, those in the lcores' caches included. Slow, and exact only while no thread allocates or frees.
    #[must_use]
    pub fn available(&self) -> u32 {
        // SAFETY: the pool is live.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.as_ptr()) }
    }

    /// An empty buffer with the usual headroom, or `None` when the pool has run dry.
    #[inline]
    #[must_use]
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool is live and made for packet buffers.
        let raw = NonNull::new(unsafe { dpdk_sys::oct_mbuf_alloc(self.as_ptr()) })?;
        // SAFETY: a freshly allocated buffer has no other owner.
        Some(unsafe { Mbuf::from_raw(raw) })
    }

    /// Appends `n` empty buffers to `out`, or as many as fit there, and returns how many.
    /// Returns 0, changing nothing, when the pool has fewer left.
    #[inline]
    pub fn alloc_bulk<const N: usize>(&self, out: &mut ArrayVec<Mbuf, N>, n: usize) -> usize {
        let len = out.len();
        let n = n.min(out.remaining_capacity()).min(u16::MAX.into());
        // SAFETY: `len` is within the array; `Mbuf` is a transparent pointer; `n` slots behind `len` are free and get
        // filled, when the call succeeds, with buffers that have no other owner.
        unsafe {
            let spare = out.as_mut_ptr().add(len).cast::<*mut rte_mbuf>();
            if !dpdk_sys::oct_mbuf_alloc_bulk(self.as_ptr(), spare, n as u32) {
                return 0;
            }
            out.set_len(len + n);
        }
        n
    }

    /// An allocator for code that is generic over buffers.
    #[must_use]
    pub fn allocator(&self) -> MbufAllocator {
        MbufAllocator { pool: self.clone() }
    }

    pub(crate) fn as_ptr(&self) -> *mut rte_mempool {
        self.pool.raw.as_ptr()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: the pool is live.
        if unsafe { dpdk_sys::rte_mempool_in_use_count(self.raw.as_ptr()) } == 0 {
            // SAFETY: the last handle goes and every buffer is home, so nobody can reach the pool any more.
            unsafe { dpdk_sys::rte_mempool_free(self.raw.as_ptr()) };
        } else {
            // The buffers that are out still point into the pool's memory, which EAL cleanup would unmap.
            std::mem::forget(self.eal.clone());
        }
    }
}

/// A [`Mempool`] as the source of new packets for code that is generic over buffers.
#[derive(Debug, Clone)]
pub struct MbufAllocator {
    pool: Mempool,
}

impl BufPool for MbufAllocator {
    type Buf = Mbuf;

    #[inline]
    fn alloc(&mut self) -> Option<Mbuf> {
        self.pool.alloc()
    }
}
