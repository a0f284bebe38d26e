//! The entries of one policy: a persistent map that the control plane's state and the workers share.

use crate::fast_map::FastMap;
use crate::model::{Direction, PolicyEntry, PolicyKey, PolicyValue};

/// Ways to match protocol and port: any protocol, or one protocol and 0 to 16 bits of the port.
const SHAPES: usize = 18;

/// Entries by what they match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PolicyTable {
    entries: FastMap<u64, PolicyValue>,
    /// How many entries of each direction have each shape.
    shapes: [[u32; SHAPES]; 2],
    /// The shapes of each direction that any entry has, one bit each.
    used: [u32; 2],
}

impl PolicyTable {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn get(&self, key: &PolicyKey) -> Option<&PolicyValue> {
        self.entries.get(&pack(key))
    }

    /// Sets what becomes of `key`; returns what became of it before.
    pub(crate) fn insert(&mut self, key: &PolicyKey, value: PolicyValue) -> Option<PolicyValue> {
        let old = self.entries.insert(pack(key), value);
        if old.is_none() {
            let (side, shape) = (side(key.direction), shape(key));
            self.shapes[side][shape] += 1;
            self.used[side] |= 1 << shape;
        }
        old
    }

    pub(crate) fn remove(&mut self, key: &PolicyKey) -> Option<PolicyValue> {
        let old = self.entries.remove(&pack(key))?;
        let (side, shape) = (side(key.direction), shape(key));
        self.shapes[side][shape] -= 1;
        if self.shapes[side][shape] == 0 {
            self.used[side] &= !(1 << shape);
        }
        Some(old)
    }

    /// The entries in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = PolicyEntry> + '_ {
        self.entries.iter().map(|(&key, &value)| PolicyEntry {
            key: unpack(key),
            value,
        })
    }

    /// The entry with exactly this identity that has the longest prefix of protocol and port, and how long that is
    /// (0, 8, or 8 and the bits of the port).
    pub(crate) fn longest(
        &self,
        egress: bool,
        identity: u32,
        protocol: u8,
        port: u16,
    ) -> Option<(&PolicyValue, u8)> {
        let mut shapes = self.used[usize::from(egress)];
        while shapes != 0 {
            let shape = (31 - shapes.leading_zeros()) as u8;
            shapes &= !(1 << shape);
            let (protocol, port) = match shape {
                0 => (0, 0),
                1 => (protocol, 0),
                _ => (protocol, port & (u16::MAX << (17 - shape))),
            };
            let key = words(egress, identity, protocol, port, shape);
            if let Some(value) = self.entries.get(&key) {
                return Some((value, if shape == 0 { 0 } else { 7 + shape }));
            }
        }
        None
    }
}

fn side(direction: Direction) -> usize {
    usize::from(direction == Direction::Egress)
}

fn shape(key: &PolicyKey) -> usize {
    if key.protocol == 0 {
        0
    } else {
        1 + usize::from(key.port_prefix_len.min(16))
    }
}

/// Identity, direction, shape, protocol and port side by side in one word.
fn words(egress: bool, identity: u32, protocol: u8, port: u16, shape: u8) -> u64 {
    u64::from(identity) << 32
        | u64::from(egress) << 31
        | u64::from(shape) << 24
        | u64::from(protocol) << 16
        | u64::from(port)
}

fn pack(key: &PolicyKey) -> u64 {
    words(
        key.direction == Direction::Egress,
        key.identity,
        key.protocol,
        key.port,
        shape(key) as u8,
    )
}

fn unpack(key: u64) -> PolicyKey {
    PolicyKey {
        direction: if key >> 31 & 1 == 1 {
            Direction::Egress
        } else {
            Direction::Ingress
        },
        identity: (key >> 32) as u32,
        protocol: (key >> 16) as u8,
        port: key as u16,
        port_prefix_len: ((key >> 24 & 0x7f) as u8).saturating_sub(1),
    }
}
