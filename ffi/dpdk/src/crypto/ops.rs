//! A queue's crypto operations.

use std::ptr::{self, NonNull};

use dpdk_sys::{rte_crypto_op, rte_mempool};

use crate::compact;
use crate::crypto::CryptoError;
use crate::crypto::open::{OpenDevice, pool_name};
use crate::cstr;
use crate::mbuf::Mbuf;

/// All operations of one queue: those that are free, latest used first, and behind them room for those that the device
/// has. There is no other owner, so this needs neither locks nor DPDK's caches.
#[derive(Debug)]
pub(crate) struct Ops {
    pool: NonNull<rte_mempool>,
    /// Every operation, in no order.
    all: Box<[*mut rte_crypto_op]>,
    stack: Box<[*mut rte_crypto_op]>,
    free: usize,
}

// SAFETY: operations belong to no thread.
unsafe impl Send for Ops {}

impl Ops {
    /// `n` operations.
    pub(crate) fn new(device: &OpenDevice, n: u32) -> Result<Self, CryptoError> {
        let failed = |errno| CryptoError::Failed {
            device: device.id(),
            operation: "pool of operations",
            errno,
        };
        let name = cstr::to_c(&pool_name("ops"))?;
        let pool = compact::create_ops(&name, n, device.socket).map_err(failed)?;
        let mut all = vec![ptr::null_mut(); n as usize].into_boxed_slice();
        // SAFETY: the pool is new, has `n` operations, and the array room for them.
        if !unsafe { dpdk_sys::oct_crypto_ops_take(pool.as_ptr(), all.as_mut_ptr(), n) } {
            // SAFETY: nobody else knows the pool, and none of its elements is out.
            unsafe { dpdk_sys::rte_mempool_free(pool.as_ptr()) };
            return Err(failed(crate::Errno(libc::ENOMEM)));
        }
        Ok(Self {
            pool,
            stack: all.clone(),
            free: all.len(),
            all,
        })
    }

    #[inline(always)]
    pub(crate) fn free(&self) -> usize {
        self.free
    }

    #[inline(always)]
    pub(crate) fn used(&self) -> usize {
        self.stack.len() - self.free
    }

    /// Calls `take` with the last `n` free ones, at most all, and takes out as many, from the front of them, as it says.
    #[inline(always)]
    pub(crate) fn take(
        &mut self,
        n: usize,
        take: impl FnOnce(*mut *mut rte_crypto_op, usize) -> usize,
    ) -> usize {
        let n = n.min(self.free);
        let Some(lent) = self.stack.get_mut(self.free - n..self.free) else {
            return 0;
        };
        let taken = take(lent.as_mut_ptr(), n).min(n);
        lent.copy_within(taken.., 0);
        self.free -= taken;
        taken
    }

    /// Calls `give` with room for `n`, at most as many as are out, and takes back as many as it says it wrote there.
    #[inline(always)]
    pub(crate) fn give(
        &mut self,
        n: usize,
        give: impl FnOnce(*mut *mut rte_crypto_op, usize) -> usize,
    ) -> usize {
        let n = n.min(self.used());
        let Some(room) = self.stack.get_mut(self.free..self.free + n) else {
            return 0;
        };
        let given = give(room.as_mut_ptr(), n).min(n);
        self.free += given;
        given
    }
}

impl Drop for Ops {
    fn drop(&mut self) {
        for &op in &self.all {
            let (mut src, mut dst) = (ptr::null_mut(), ptr::null_mut());
            // SAFETY: the queue is gone, and if operations were with the device, so is the device: nobody else uses them or
            // their buffers.
            let buffers = unsafe {
                dpdk_sys::oct_crypto_op_abandon(op, &raw mut src, &raw mut dst);
                [src, dst].map(|raw| NonNull::new(raw).map(|raw| Mbuf::from_raw(raw)))
            };
            drop(buffers);
        }
        // SAFETY: all operations came from this pool, and nobody else has any.
        unsafe {
            dpdk_sys::oct_crypto_ops_give(self.pool.as_ptr(), self.all.as_mut_ptr(), self.all.len() as u32);
            dpdk_sys::rte_mempool_free(self.pool.as_ptr());
        }
    }
}
