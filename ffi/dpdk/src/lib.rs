//! Safe access to the parts of DPDK that the data plane uses.
//!
//! What DPDK asks its caller to promise is turned into types:
//!
//! * Everything that needs the EAL holds an [`Eal`], so the EAL outlives it.
//! * An [`Mbuf`] owns its buffer. Sending moves it, dropping frees it.
//! * A queue handle exists once, can move between threads and cannot be shared.
//! * A [`Port`] is not stopped while a queue handle of it exists.
//! * A thread is an lcore as long as it holds an [`Lcore`].
//!
//! Sending uses the packets up:
//!
//! ```compile_fail,E0382
//! use dpdk::{ArrayVec, Mbuf, PacketBuf, TxQueue};
//! fn send_then_read(tx: &mut TxQueue, packet: Mbuf) -> usize {
//!     let mut burst = ArrayVec::<Mbuf, 32>::new();
//!     burst.push(packet);
//!     tx.burst(&mut burst);
//!     packet.data().len() // the device may own it by now
//! }
//! ```
//!
//! A buffer is freed once:
//!
//! ```compile_fail,E0382
//! fn free_twice(packet: dpdk::Mbuf) {
//!     drop(packet);
//!     drop(packet);
//! }
//! ```
//!
//! and has one owner:
//!
//! ```compile_fail,E0599
//! fn two_owners(packet: dpdk::Mbuf) -> (dpdk::Mbuf, dpdk::Mbuf) {
//!     (packet.clone(), packet)
//! }
//! ```
//!
//! A slice of its data does not outlive it:
//!
//! ```compile_fail,E0505
//! use dpdk::{Mbuf, PacketBuf};
//! fn dangling(packet: Mbuf) -> u8 {
//!     let data = packet.data();
//!     drop(packet);
//!     data[0]
//! }
//! ```
//!
//! Two threads cannot poll one queue:
//!
//! ```compile_fail,E0277
//! fn shared<T: Sync>() {}
//! shared::<dpdk::RxQueue>();
//! ```
//!
//! ```compile_fail,E0599
//! fn two_handles(rx: dpdk::RxQueue) -> (dpdk::RxQueue, dpdk::RxQueue) {
//!     (rx.clone(), rx)
//! }
//! ```
//!
//! A thread cannot give its lcore id to another:
//!
//! ```compile_fail,E0277
//! fn sent<T: Send>() {}
//! sent::<dpdk::Lcore>();
//! ```

// This crate is the boundary to C: each unsafe block says why it is sound.
#![allow(unsafe_code)]

mod affinity;
mod compact;
pub mod crypto;
mod cstr;
pub mod cycles;
pub mod eal;
mod errno;
pub mod hotplug;
pub mod lcore;
pub mod mbuf;
pub mod mempool;
pub mod port;
pub mod queue;

pub use arrayvec::ArrayVec;
pub use octoplane_packet::PacketBuf;

pub use eal::{Eal, EalError, EalOptions};
pub use errno::Errno;
pub use lcore::{Lcore, LcoreId};
pub use mbuf::{Mbuf, free_all};
pub use mempool::{MbufAllocator, Mempool};
pub use port::{Port, PortConfig, PortError, PortId, PortInfo, ports};
pub use queue::{RxQueue, TxQueue};
