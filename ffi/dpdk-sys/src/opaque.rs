//! DPDK structures that Rust knows only by pointer.

use core::marker::{PhantomData, PhantomPinned};

/// A packet buffer's header. Fields are read at the `OCT_MBUF_*` offsets.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Debug)]
pub struct rte_mbuf {
    _private: [u8; 0],
    _marker: PhantomData<(*mut u8, PhantomPinned)>,
}

/// A pool of packet buffers.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Debug)]
pub struct rte_mempool {
    _private: [u8; 0],
    _marker: PhantomData<(*mut u8, PhantomPinned)>,
}

/// A crypto operation.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Debug)]
pub struct rte_crypto_op {
    _private: [u8; 0],
    _marker: PhantomData<(*mut u8, PhantomPinned)>,
}
