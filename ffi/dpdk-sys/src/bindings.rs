//! The generated part: see `build.rs` for what is in it and why.

// The names and the missing documentation are DPDK's.
#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals, missing_docs)]
// Generated code is not written to our taste, nor can it carry comments.
#![allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    clippy::use_self,
    unused_qualifications
)]

use crate::opaque::{rte_crypto_op, rte_mbuf, rte_mempool};

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
