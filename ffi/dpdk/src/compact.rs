//! Pools in ordinary memory, without gaps between the elements.
//!
//! Without hugepages `rte_pktmbuf_pool_create` lets no buffer cross the end of a page, because two pages may lie apart for
//! a device that knows physical addresses only. There is no such device without hugepages, and it does harm: a buffer of
//! 2,368 bytes has a page to itself, all headers fall on the same few lines of the cache, and the AF_XDP driver of DPDK
//! 22.11 registers with the kernel as much memory as the buffers would take without the gaps. The kernel then knows
//! nothing of those in the last two fifths, and loses each that it is given to receive into.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::{self, NonNull};

use dpdk_sys::rte_mempool;

use crate::errno::Errno;

/// `RTE_MEMPOOL_F_NO_IOVA_CONTIG`: buffers may cross pages.
const MAY_CROSS_PAGES: c_uint = 0x20;
/// Bytes of `struct rte_mbuf`.
const MBUF: u32 = 128;
/// Bytes of `struct rte_pktmbuf_pool_private`.
const PRIVATE: c_uint = 8;
/// Where a pool's memory begins: at a page, as the AF_XDP driver counts from one.
const ALIGN: c_uint = 4096;

type ObjectCallback = unsafe extern "C" fn(*mut rte_mempool, *mut c_void, *mut c_void, c_uint);
type FreeCallback = unsafe extern "C" fn(*mut c_void, *mut c_void);

unsafe extern "C" {
    fn rte_eal_has_hugepages() -> c_int;
    fn rte_malloc_socket(kind: *const c_char, size: usize, align: c_uint, socket: c_int) -> *mut c_void;
    fn rte_malloc_virt2iova(addr: *const c_void) -> u64;
    fn rte_free(addr: *mut c_void);
    fn rte_mbuf_best_mempool_ops() -> *const c_char;
    fn rte_mempool_calc_obj_size(elt: u32, flags: u32, sizes: *mut c_void) -> u32;
    fn rte_mempool_create_empty(
        name: *const c_char,
        n: c_uint,
        elt: c_uint,
        cache: c_uint,
        private: c_uint,
        socket: c_int,
        flags: c_uint,
    ) -> *mut rte_mempool;
    fn rte_mempool_set_ops_byname(pool: *mut rte_mempool, name: *const c_char, config: *mut c_void) -> c_int;
    fn rte_mempool_populate_iova(
        pool: *mut rte_mempool,
        addr: *mut c_char,
        iova: u64,
        len: usize,
        free: Option<FreeCallback>,
        opaque: *mut c_void,
    ) -> c_int;
    fn rte_mempool_populate_default(pool: *mut rte_mempool) -> c_int;
    fn rte_mempool_obj_iter(pool: *mut rte_mempool, callback: ObjectCallback, argument: *mut c_void) -> u32;
    fn rte_pktmbuf_pool_init(pool: *mut rte_mempool, private: *mut c_void);
    fn rte_pktmbuf_init(pool: *mut rte_mempool, argument: *mut c_void, mbuf: *mut c_void, index: c_uint);
}

/// Whether the EAL's memory is ordinary memory, where pools are better made by [`create`].
pub(crate) fn is_wanted() -> bool {
    // SAFETY: reads a flag of the running EAL.
    unsafe { rte_eal_has_hugepages() == 0 }
}

/// What `rte_pktmbuf_pool_create` does, but for the gaps. The EAL has to run.
///
/// # Errors
/// What DPDK says.
pub(crate) fn create(
    name: &CStr,
    n: u32,
    cache: u32,
    data_room: u16,
    socket: i32,
) -> Result<NonNull<rte_mempool>, Errno> {
    let elements = Elements {
        n,
        size: MBUF + u32::from(data_room),
        socket,
    };
    elements.pool(name, cache, PRIVATE, |pool| {
        // SAFETY: the pool is live and empty, and the name of the operations a C string of DPDK's.
        Errno::check(unsafe {
            rte_mempool_set_ops_byname(pool, rte_mbuf_best_mempool_ops(), ptr::null_mut())
        })?;
        // SAFETY: the private area has the size of what is written there; null asks for what follows from the element's
        // size.
        unsafe { rte_pktmbuf_pool_init(pool, ptr::null_mut()) };
        elements.fill(pool)?;
        // SAFETY: the pool is full of elements that are large enough for a packet buffer each, and nobody has any of them.
        unsafe { rte_mempool_obj_iter(pool, rte_pktmbuf_init, ptr::null_mut()) };
        Ok(())
    })
}

/// A pool of `n` crypto operations, without gaps wherever its memory comes from. The EAL has to run.
///
/// # Errors
/// What DPDK says.
pub(crate) fn create_ops(name: &CStr, n: u32, socket: i32) -> Result<NonNull<rte_mempool>, Errno> {
    let elements = Elements {
        n,
        size: dpdk_sys::OCT_CRYPTO_OP_SIZE,
        socket,
    };
    // The cache is the queue's own (`crate::crypto::CryptoQueue`).
    elements.pool(name, 0, dpdk_sys::OCT_CRYPTO_POOL_PRIVATE, |pool| {
        // SAFETY: the pool is live and empty.
        Errno::check(unsafe { rte_mempool_set_ops_byname(pool, c"ring_mp_mc".as_ptr(), ptr::null_mut()) })?;
        // SAFETY: the private area has the size of what is written there.
        unsafe { dpdk_sys::oct_crypto_op_pool_init(pool) };
        if is_wanted() {
            elements.fill(pool)?;
        } else {
            // SAFETY: the pool is live and empty. Elements do not cross pages that are apart.
            Errno::check(unsafe { rte_mempool_populate_default(pool) })?;
        }
        // SAFETY: the pool is full of elements of the size that the callback writes, and nobody has any of them.
        unsafe { rte_mempool_obj_iter(pool, init_op, ptr::null_mut()) };
        Ok(())
    })
}

/// Makes one element a crypto operation.
unsafe extern "C" fn init_op(
    pool: *mut rte_mempool,
    argument: *mut c_void,
    element: *mut c_void,
    index: c_uint,
) {
    // SAFETY: called by `rte_mempool_obj_iter` with an element of the pool.
    unsafe { dpdk_sys::oct_crypto_op_init(pool, argument, element, index) };
}

/// What a pool is made of.
#[derive(Clone, Copy)]
struct Elements {
    n: u32,
    size: u32,
    socket: i32,
}

impl Elements {
    /// Makes an empty pool and has `fill` give it operations and memory.
    fn pool(
        self,
        name: &CStr,
        cache: u32,
        private: c_uint,
        fill: impl FnOnce(*mut rte_mempool) -> Result<(), Errno>,
    ) -> Result<NonNull<rte_mempool>, Errno> {
        let flags = if is_wanted() { MAY_CROSS_PAGES } else { 0 };
        // SAFETY: the EAL runs and the name is a C string that DPDK copies.
        let pool = unsafe {
            rte_mempool_create_empty(
                name.as_ptr(),
                self.n,
                self.size,
                cache,
                private,
                self.socket,
                flags,
            )
        };
        let pool = NonNull::new(pool).ok_or_else(Errno::last)?;
        fill(pool.as_ptr()).inspect_err(|_| {
            // SAFETY: nobody else knows the pool, and none of its elements is out.
            unsafe { dpdk_sys::rte_mempool_free(pool.as_ptr()) };
        })?;
        Ok(pool)
    }

    /// Gives a new pool that may have elements across pages its memory.
    fn fill(self, pool: *mut rte_mempool) -> Result<(), Errno> {
        // SAFETY: a calculation; null is allowed for the details.
        let size = unsafe { rte_mempool_calc_obj_size(self.size, MAY_CROSS_PAGES, ptr::null_mut()) };
        let len = size as usize * self.n as usize;
        // SAFETY: the EAL runs; null is allowed for the name.
        let memory = unsafe { rte_malloc_socket(ptr::null(), len, ALIGN, self.socket) };
        if memory.is_null() {
            return Err(Errno(libc::ENOMEM));
        }
        // SAFETY: `len` bytes at `memory` are the pool's from now on, and freed with it. Without hugepages addresses are
        // virtual for devices, too, so that they run on from page to page.
        let filled = unsafe {
            let iova = rte_malloc_virt2iova(memory);
            rte_mempool_populate_iova(pool, memory.cast(), iova, len, Some(free_memory), memory)
        };
        if filled <= 0 {
            // SAFETY: the pool did not take it.
            unsafe { rte_free(memory) };
            return Err(Errno::check(filled).err().unwrap_or(Errno(libc::ENOMEM)));
        }
        if u32::try_from(filled) != Ok(self.n) {
            return Err(Errno(libc::ENOMEM));
        }
        Ok(())
    }
}

/// Called by DPDK when a pool's memory is no longer needed.
unsafe extern "C" fn free_memory(_chunk: *mut c_void, memory: *mut c_void) {
    // SAFETY: it is what `Elements::fill` allocated, and DPDK calls this once.
    unsafe { rte_free(memory) };
}
