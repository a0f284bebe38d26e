//! What the data plane is free to choose.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

/// Choices that the specification leaves to chance. A comparison implements this to steer the model, or to replay what
/// another implementation chose; an illegal choice is refused by the model.
pub trait Choices {
    /// One of the backends a service may use (specification, 3.3).
    fn pick_backend(&mut self, candidates: &[SocketAddr]) -> usize;

    /// A free SNAT port, or ICMP id, of the range (specification, 2.4); `None` only if none is free.
    fn pick_port(&mut self, range: RangeInclusive<u16>, is_free: &dyn Fn(u16) -> bool) -> Option<u16>;

    /// The UDP source port of a tunnel packet (specification, section 5).
    fn tunnel_source_port(&mut self) -> u16;

    /// The identification of an outer IPv4 header.
    fn outer_ip_id(&mut self) -> u16;
}

/// The first of everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct First;

impl Choices for First {
    fn pick_backend(&mut self, _: &[SocketAddr]) -> usize {
        0
    }

    fn pick_port(&mut self, mut range: RangeInclusive<u16>, is_free: &dyn Fn(u16) -> bool) -> Option<u16> {
        range.find(|port| is_free(*port))
    }

    fn tunnel_source_port(&mut self) -> u16 {
        49152
    }

    fn outer_ip_id(&mut self) -> u16 {
        0
    }
}
