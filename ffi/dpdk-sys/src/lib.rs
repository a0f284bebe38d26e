//! Raw bindings: DPDK's exported functions that take plain arguments, and the C shim for the rest.
//!
//! Nothing here is safe to use directly; the `dpdk` crate is the only user.

// The whole crate is foreign declarations.
#![allow(unsafe_code)]

mod bindings;
mod opaque;

pub use bindings::*;
pub use opaque::{rte_crypto_op, rte_mbuf, rte_mempool};
