//! Packet buffers, headers and checksums: what every layer above `ffi/` agrees on.

pub mod buf;

pub use buf::{BufPool, ChecksumStatus, NoRoom, PacketBuf};
