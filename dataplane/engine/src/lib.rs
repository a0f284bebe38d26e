//! The packet pipeline: what happens between a burst received and bursts to send.
//!
//! [`Engine::process`] takes a burst from one port. The fast path ([`fast`]) checks headers, looks destinations up and
//! rewrites; whatever is not a plain packet for a known neighbour or endpoint goes one by one through the slow path
//! ([`slow`]), which follows the specification's order of checks. The engine works on any [`PacketBuf`] and is told
//! the time, so it runs whole in a unit test.
//!
//! [`PacketBuf`]: octoplane_packet::PacketBuf

#![forbid(unsafe_code)]

mod address;
mod ahead;
mod arp;
mod ask;
mod connection;
mod departure;
mod door;
mod drop_reason;
mod dsr;
mod engine;
mod event;
mod fast;
mod fragment;
mod fragment_ports;
mod icmp;
mod inside;
mod ipsec;
mod known;
mod limiter;
mod memory;
mod ndp;
mod observe;
mod output;
mod overlay;
mod parking;
pub mod probe;
mod protect;
mod rate;
mod route_cache;
mod sealed;
mod slow;
mod stats;
mod verdict;

pub use connection::{Decided, DirectionView, FlowState, FlowView, Timeouts, describe};
pub use departure::{Departure, PolicyOptions, TooBig, WayOut};
pub use drop_reason::{Direction, DropReason};
pub use engine::{BURST, Engine, EngineConfig, HostMac};
pub use event::NeighbourEvent;
pub use fragment::MAX_PIECES;
pub use ipsec::{Framing, IpsecConfig};
pub use memory::{MEANING, Memory, MemoryPart};
pub use observe::{
    Arrival, Choice, Dropped, Event, EventKind, Fate, Interest, Monitor, PolicyVerdict, Step, Trace,
};
pub use output::{Output, PORT_QUEUE, ToSeal};
pub use overlay::{MAX_FRONT, refit};
pub use stats::{Counter, PortStats, Stage, StageStats, Tally, WorkerStats};
