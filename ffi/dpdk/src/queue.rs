//! Receiving and sending bursts.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;

use arrayvec::ArrayVec;
use dpdk_sys::{rte_mbuf, rte_mempool};

use crate::lcore;
use crate::mbuf::Mbuf;
use crate::port::{OpenPort, PortId};

/// The most packets one receive call asks the device for.
pub const MAX_BURST: usize = 64;

/// Send but not Sync: a queue may move to another thread but has one user at a time.
type OneUser = PhantomData<Cell<()>>;

/// The only handle of a receive queue. While it exists its port is not stopped.
#[derive(Debug)]
pub struct RxQueue {
    port: u16,
    queue: u16,
    _open: Arc<OpenPort>,
    _one_user: OneUser,
}

impl RxQueue {
    pub(crate) fn new(open: Arc<OpenPort>, queue: u16) -> Self {
        Self {
            port: open.id().0,
            queue,
            _open: open,
            _one_user: PhantomData,
        }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> PortId {
        PortId(self.port)
    }

    /// Number of the queue in its port.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.queue
    }

    /// Appends the packets that are waiting to `out`, at most as many as fit and at most [`MAX_BURST`], and returns how
    /// many. Vector drivers round the room down to 4 or 8, so call with more than that free.
    #[inline]
    pub fn burst<const N: usize>(&mut self, out: &mut ArrayVec<Mbuf, N>) -> usize {
        self.burst_up_to(out, MAX_BURST)
    }

    /// As [`RxQueue::burst`], but at most `max` packets.
    #[inline]
    pub fn burst_up_to<const N: usize>(&mut self, out: &mut ArrayVec<Mbuf, N>, max: usize) -> usize {
        let len = out.len();
        let room = out.remaining_capacity().min(MAX_BURST).min(max);
        // SAFETY: the port is started as long as this handle exists, and this handle is the queue's only one. `Mbuf` is a
        // transparent pointer, and of the `room` free slots behind `len` the device fills the first `n` with buffers that
        // are ours from now on.
        unsafe {
            let spare = out.as_mut_ptr().add(len).cast::<*mut rte_mbuf>();
            let n = usize::from(dpdk_sys::oct_rx_burst(self.port, self.queue, spare, room as u16));
            debug_assert!(n <= room);
            out.set_len(len + n);
            n
        }
    }
}

/// The only handle of a send queue. While it exists its port is not stopped.
#[derive(Debug)]
pub struct TxQueue {
    port: u16,
    queue: u16,
    /// With fast free on, where every packet has to come from. Compared by address only, in debug builds.
    fast_free_pool: Option<usize>,
    _open: Arc<OpenPort>,
    _one_user: OneUser,
}

impl TxQueue {
    pub(crate) fn new(open: Arc<OpenPort>, queue: u16, fast_free_pool: Option<*const rte_mempool>) -> Self {
        Self {
            port: open.id().0,
            queue,
            fast_free_pool: fast_free_pool.map(|pool| pool.addr()),
            _open: open,
            _one_user: PhantomData,
        }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> PortId {
        PortId(self.port)
    }

    /// Number of the queue in its port.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.queue
    }

    /// Sends from the front of `packets`, removes what was sent and returns how many that were. What the device had no
    /// room for stays, in order.
    ///
    /// The calling thread has to be an lcore ([`crate::lcore::register_thread`]); otherwise nothing is sent. Packets have
    /// to be in one segment.
    #[inline]
    pub fn burst<const N: usize>(&mut self, packets: &mut ArrayVec<Mbuf, N>) -> usize {
        let len = packets.len();
        if len == 0 {
            return 0;
        }
        debug_assert!(
            lcore::current().is_some(),
            "sending from a thread that is not an lcore"
        );
        debug_assert!(
            packets.iter().all(|packet| packet.segments() == 1),
            "sending a chained packet"
        );
        debug_assert!(
            self.fast_free_pool
                .is_none_or(|pool| packets.iter().all(|packet| packet.pool().addr() == pool)),
            "fast free is on and a packet comes from another pool"
        );
        // SAFETY: the port is started as long as this handle exists, and this handle is the queue's only one. `Mbuf` is a
        // transparent pointer. The device owns the first `sent` packets now; the others are moved to the front, and the
        // length covers exactly them.
        unsafe {
            let first = packets.as_mut_ptr();
            let n = u16::try_from(len).unwrap_or(u16::MAX);
            let sent = usize::from(dpdk_sys::oct_tx_burst(self.port, self.queue, first.cast(), n));
            debug_assert!(sent <= len);
            if sent < len {
                ptr::copy(first.add(sent), first, len - sent);
            }
            packets.set_len(len - sent);
            sent
        }
    }
}
