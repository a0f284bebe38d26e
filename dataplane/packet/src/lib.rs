//! Packet buffers, headers, addresses and checksums: what every layer above `ffi/` agrees on.

#![forbid(unsafe_code)]

pub mod buf;
pub mod checksum;
pub mod headers;
pub mod heap;
pub mod mac;
pub mod prefix;

pub use buf::{BufPool, ChecksumStatus, NoRoom, PacketBuf};
pub use heap::{HeapBuf, HeapPool};
pub use mac::MacAddr;
pub use prefix::Prefix;
