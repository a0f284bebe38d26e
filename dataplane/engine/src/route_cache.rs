//! Where packets went lately: a worker's own short way to the forwarding tables.
//!
//! A direct-mapped cache of blocks, the 256 addresses that differ in their last byte only. A block leads to one target or
//! to a node of the tree with a slot per address, so a lookup costs a dozen instructions where the walk from the root
//! costs that many a level, and a thousand destinations behind a few routes need a few slots. Nothing in it is valid
//! any more once the tables change, so it never knows anything that they do not.

use std::net::{Ipv4Addr, Ipv6Addr};

use octoplane_tables::{Block, Snapshot};

use crate::address::{routable4, routable6};

/// Bits of a slot number: 2,048 slots of 16 or 32 bytes.
const BITS: u32 = 11;

/// An odd number near 2^64 divided by the golden ratio: neighbouring keys land far apart.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Clone, Copy, Default)]
struct Slot4 {
    /// Upper 24 bits of the address, then the generation.
    tag: u32,
    block: Block,
}

#[derive(Clone, Copy, Default)]
#[repr(align(32))]
struct Slot6 {
    high: u64,
    /// Like the tag of IPv4.
    low: u64,
    block: Block,
}

/// Targets by destination address, of one version of the tables.
pub(crate) struct RouteCache {
    v4: Box<[Slot4; 1 << BITS]>,
    v6: Box<[Slot6; 1 << BITS]>,
    /// Revision of the forwarding tables that slots of this generation were filled from.
    revision: u64,
    /// 1 to 255: empty slots have 0. Starting a new one empties the cache without touching it.
    generation: u8,
}

/// An array of defaults that is never on the stack.
fn boxed<T: Clone + Default, const N: usize>() -> Box<[T; N]> {
    match vec![T::default(); N].into_boxed_slice().try_into() {
        Ok(array) => array,
        Err(_) => unreachable!("a vector of N has N elements"),
    }
}

impl RouteCache {
    pub(crate) fn new() -> Self {
        Self {
            v4: boxed(),
            v6: boxed(),
            revision: 0,
            generation: 1,
        }
    }

    /// Forgets everything if the forwarding tables are others than last time.
    #[inline(always)]
    pub(crate) fn follow(&mut self, snapshot: &Snapshot) {
        if self.revision != snapshot.forwarding_revision() {
            self.renew(snapshot.forwarding_revision());
        }
    }

    #[cold]
    #[inline(never)]
    fn renew(&mut self, revision: u64) {
        self.revision = revision;
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            self.v4.fill(Slot4::default());
            self.v6.fill(Slot6::default());
            self.generation = 1;
        }
    }

    /// Number of the target of an IPv4 address (most significant byte first); 0 if there is none or it is not routable, or near a service.
    #[inline(always)]
    pub(crate) fn find4(&mut self, snapshot: &Snapshot, addr: u32) -> u32 {
        let tag = addr & !0xff | u32::from(self.generation);
        let slot = &mut self.v4[((addr >> 8).wrapping_mul(SPREAD as u32) >> (32 - BITS)) as usize];
        if slot.tag != tag {
            fill4(snapshot, addr, tag, slot);
        }
        snapshot.find4_in(slot.block, addr as u8)
    }

    /// The same for IPv6, the address in halves.
    #[inline(always)]
    pub(crate) fn find6(&mut self, snapshot: &Snapshot, high: u64, low: u64) -> u32 {
        let tag = low & !0xff | u64::from(self.generation);
        let hash = (high.rotate_left(32) ^ (low >> 8)).wrapping_mul(SPREAD);
        let slot = &mut self.v6[(hash >> (64 - BITS)) as usize];
        if slot.low != tag || slot.high != high {
            fill6(snapshot, high, low, tag, slot);
        }
        snapshot.find6_in(slot.block, low as u8)
    }
}

#[inline(never)]
fn fill4(snapshot: &Snapshot, addr: u32, tag: u32, slot: &mut Slot4) {
    // What is not routable at all are whole blocks. Where services answer the slow path tells addresses apart.
    let plain = routable4(addr) && !snapshot.serves_block(Ipv4Addr::from_bits(addr).into());
    let block = match plain {
        true => snapshot.block4(addr),
        false => Block::default(),
    };
    *slot = Slot4 { tag, block };
}

#[inline(never)]
fn fill6(snapshot: &Snapshot, high: u64, low: u64, tag: u64, slot: &mut Slot6) {
    // Likewise, except that the block of :: and ::1 has others: the slow path tells them apart.
    let addr = u128::from(high) << 64 | u128::from(low);
    let plain = routable6(addr & !0xff) && !snapshot.serves_block(Ipv6Addr::from_bits(addr).into());
    let block = match plain {
        true => snapshot.block6(addr),
        false => Block::default(),
    };
    *slot = Slot6 {
        high,
        low: tag,
        block,
    };
}
