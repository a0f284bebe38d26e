//! What a destination lookup yields: everything the fast path needs to send the packet on, in one cache line.

use std::net::IpAddr;

use octoplane_packet::MacAddr;

use crate::model::PortId;
use crate::numbered::Numbered;

/// What happens to a packet for this destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Action {
    /// No entry: the destination is unknown.
    #[default]
    None,
    /// Rewrite the Ethernet header and send out of `port` to a neighbour on an uplink.
    Forward,
    /// Rewrite the Ethernet header and deliver to the endpoint behind `port`.
    Deliver,
    /// The neighbour's Ethernet address is not known yet; it is `next_hop`.
    Resolve,
    /// The destination itself is a neighbour on `port` that nobody has asked for yet.
    Glean,
    /// The gateway address that pods see: answered here.
    Gateway,
    /// One of our own addresses on a link: the kernel's, or answered here when there is no host port.
    Local,
    /// For this machine's kernel.
    Host,
    /// Dropped on purpose.
    Blackhole,
    /// The port is administratively down.
    PortDown,
}

/// One destination, resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C, align(64))]
pub struct Target {
    /// Destination and source Ethernet address as they stand in the frame.
    pub macs: [u8; 12],
    /// Port to send from.
    pub port: PortId,
    /// Largest IP packet on this path, in bytes.
    pub mtu: u16,
    /// The same for [`Action::Forward`] and [`Action::Deliver`], else 0: no packet fits without a closer look.
    pub limit: u16,
    /// Endpoint id of [`Action::Deliver`], else 0.
    pub endpoint: u32,
    /// Security identity of the endpoint, else 0.
    pub identity: u32,
    /// What to do.
    pub action: Action,
    /// The neighbour of [`Action::Forward`] and [`Action::Resolve`].
    pub next_hop: Option<IpAddr>,
}

/// What makes two destinations the same target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum TargetKey {
    Endpoint(u32),
    NextHop {
        port: PortId,
        addr: IpAddr,
        mtu: Option<u16>,
    },
    Glean {
        port: PortId,
        mtu: Option<u16>,
    },
    Gateway,
    Local {
        port: PortId,
    },
    Host,
    Blackhole,
}

pub(crate) fn macs(dst: MacAddr, src: MacAddr) -> [u8; 12] {
    let mut both = [0; 12];
    both[..6].copy_from_slice(&dst.0);
    both[6..].copy_from_slice(&src.0);
    both
}

/// The targets of one version of the tables.
#[derive(Clone, Default)]
pub struct TargetTable(Numbered<Target>);

impl TargetTable {
    /// Target number `index`; numbers without one, 0 among them, yield [`Action::None`].
    #[inline(always)]
    pub fn get(&self, index: u32) -> &Target {
        self.0.get(index)
    }

    pub(crate) fn set(&mut self, index: u32, mut target: Target) {
        target.limit = match target.action {
            Action::Forward | Action::Deliver => target.mtu,
            _ => 0,
        };
        self.0.set(index, target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_one_cache_line() {
        assert_eq!(size_of::<Target>(), 64);
    }

    #[test]
    fn a_kept_version_does_not_change() {
        let mut table = TargetTable::default();
        table.set(
            70,
            Target {
                endpoint: 1,
                ..Target::default()
            },
        );
        let kept = table.clone();
        table.set(
            70,
            Target {
                endpoint: 2,
                ..Target::default()
            },
        );
        assert_eq!((kept.get(70).endpoint, table.get(70).endpoint), (1, 2));
        assert_eq!(table.get(1_000_000).action, Action::None);
    }
}
