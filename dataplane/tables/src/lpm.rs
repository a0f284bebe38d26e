//! Longest-prefix match: a persistent radix tree that one writer edits and any number of workers read.
//!
//! A node covers one byte of the address (256 slots); bytes that do not branch are skipped and checked against the
//! prefix the node stores. A slot holds the value of the longest prefix that ends in it and a link to a deeper node, so
//! a lookup walks down and keeps the last value it saw: no prefix is ever pushed into other nodes, and adding or
//! removing one touches only the nodes on its own path.
//!
//! Nodes live in an arena of fixed capacity. An edit never changes a node that a published root can reach: it copies
//! the path (at most one node per level) and yields a new root; the nodes it replaced are handed back to be recycled
//! once no reader holds an older root. A million-entry table is therefore edited at the cost of a few kilobytes, and
//! readers see a whole transaction or nothing of it. All cells are atomics that are read and written relaxed, which
//! compiles to plain loads and stores: order comes from publishing the root.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use zerocopy::FromZeros;

/// An address as the tree reads it: `u32` for IPv4, `u128` for IPv6, most significant byte first.
pub trait Key: Copy + Eq + Hash + Send + Sync + std::fmt::Debug + 'static {
    /// Length in bits.
    const BITS: u8;

    /// Byte `depth`, counted from the most significant.
    fn byte(self, depth: u8) -> u8;

    /// Whether the first `depth` bytes equal those of `other`.
    fn shares(self, other: Self, depth: u8) -> bool;

    /// How many leading bytes equal those of `other`.
    fn common(self, other: Self) -> u8;

    /// The key with all bits behind the first `len` cleared.
    fn network(self, len: u8) -> Self;

    /// As two words, high word first.
    fn words(self) -> [u64; 2];

    /// From two words, high word first.
    fn from_words(words: [u64; 2]) -> Self;

    /// From the words of a node, of which only those that matter are read.
    fn load(words: &[AtomicU64; 2]) -> Self;
}

impl Key for u32 {
    const BITS: u8 = 32;

    #[inline(always)]
    fn byte(self, depth: u8) -> u8 {
        (self >> (24 - 8 * (depth & 3))) as u8
    }

    #[inline(always)]
    fn shares(self, other: Self, depth: u8) -> bool {
        u64::from(self ^ other) >> (32 - 8 * (depth & 3)) == 0
    }

    fn common(self, other: Self) -> u8 {
        ((self ^ other).leading_zeros() / 8) as u8
    }

    fn network(self, len: u8) -> Self {
        self & Self::MAX.checked_shl(32 - Self::from(len)).unwrap_or(0)
    }

    fn words(self) -> [u64; 2] {
        [0, self.into()]
    }

    #[inline(always)]
    fn from_words(words: [u64; 2]) -> Self {
        words[1] as Self
    }

    #[inline(always)]
    fn load(words: &[AtomicU64; 2]) -> Self {
        words[1].load(Relaxed) as Self
    }
}

impl Key for u128 {
    const BITS: u8 = 128;

    #[inline(always)]
    fn byte(self, depth: u8) -> u8 {
        (self >> (120 - 8 * (depth & 15))) as u8
    }

    #[inline(always)]
    fn shares(self, other: Self, depth: u8) -> bool {
        depth == 0 || (self ^ other) >> (128 - 8 * (depth & 15)) == 0
    }

    fn common(self, other: Self) -> u8 {
        ((self ^ other).leading_zeros() / 8) as u8
    }

    fn network(self, len: u8) -> Self {
        self & Self::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
    }

    fn words(self) -> [u64; 2] {
        [(self >> 64) as u64, self as u64]
    }

    #[inline(always)]
    fn from_words(words: [u64; 2]) -> Self {
        Self::from(words[0]) << 64 | Self::from(words[1])
    }

    #[inline(always)]
    fn load(words: &[AtomicU64; 2]) -> Self {
        Self::from_words([words[0].load(Relaxed), words[1].load(Relaxed)])
    }
}

/// One byte of the tree. `prefix` holds the bytes above it, so that skipped ones can be checked.
///
/// Not aligned to cache lines on purpose: the arena would then be zeroed by hand, all of it, instead of by the system
/// page by page as it is used. A slot lies in one line anyway.
#[derive(FromZeros)]
#[repr(C)]
struct Node {
    slots: [AtomicU64; 256],
    prefix: [AtomicU64; 2],
}

/// A slot: link in the upper half; in the lower half how many bits of this byte the value's prefix has (4 bits), then
/// the value (28 bits, 0 = none).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Slot(u64);

const VALUE_BITS: u32 = 28;

/// Largest value a prefix can have.
pub(crate) const MAX_VALUE: u32 = (1 << VALUE_BITS) - 1;

impl Slot {
    #[inline(always)]
    fn link(self) -> Link {
        Link((self.0 >> 32) as u32)
    }

    #[inline(always)]
    fn value(self) -> u32 {
        self.0 as u32 & MAX_VALUE
    }

    fn bits(self) -> u8 {
        (self.0 as u32 >> VALUE_BITS) as u8
    }

    fn with_link(self, link: Link) -> Self {
        Self(self.0 & 0xffff_ffff | u64::from(link.0) << 32)
    }

    fn with_value(self, value: u32, bits: u8) -> Self {
        Self(self.0 >> 32 << 32 | u64::from(u32::from(bits) << VALUE_BITS | value))
    }
}

/// A reference to a node: its depth in bytes in the upper five bits, its number in the rest; 0 is "none".
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Link(u32);

const NODE_BITS: u32 = 27;

impl Link {
    const NONE: Self = Self(0);

    fn new(node: u32, depth: u8) -> Self {
        Self(u32::from(depth) << NODE_BITS | node)
    }

    #[inline(always)]
    fn depth(self) -> u8 {
        (self.0 >> NODE_BITS) as u8
    }

    #[inline(always)]
    fn node(self) -> u32 {
        self.0 & ((1 << NODE_BITS) - 1)
    }
}

/// The nodes of all versions of one tree.
struct Arena(Box<[Node]>);

impl Arena {
    fn node(&self, link: Link) -> Option<&Node> {
        self.0.get(link.node() as usize)
    }
}

/// One version of the tree: what a reader uses.
#[derive(Clone)]
pub struct Lpm<K> {
    arena: Arc<Arena>,
    root: Link,
    key: std::marker::PhantomData<K>,
}

impl<K: Key> Lpm<K> {
    /// A tree without prefixes.
    pub fn empty() -> Self {
        Self {
            arena: Arc::new(Arena(Box::new([]))),
            root: Link::NONE,
            key: std::marker::PhantomData,
        }
    }

    /// The value of the longest prefix that holds `key`; 0 if there is none.
    #[inline(always)]
    pub fn lookup(&self, key: K) -> u32 {
        let mut best = 0;
        let mut link = self.root;
        // Bytes of the key that are known to lead here.
        let mut checked = 0;
        while link != Link::NONE {
            let Some(node) = self.arena.node(link) else { break };
            // Only skipped bytes have to be compared; the prefix is on a cache line that is not needed otherwise.
            if link.depth() != checked && !key.shares(K::load(&node.prefix), link.depth()) {
                break;
            }
            checked = link.depth() + 1;
            let slot = Slot(node.slots[usize::from(key.byte(link.depth()))].load(Relaxed));
            if slot.value() != 0 {
                best = slot.value();
            }
            link = slot.link();
        }
        best
    }

    /// What a lookup of any key that shares all bytes but the last with this one has in common.
    pub fn block(&self, key: K) -> Block {
        let last = K::BITS / 8 - 1;
        let mut best = 0;
        let mut link = self.root;
        while link != Link::NONE && link.depth() < last {
            let Some(node) = self.arena.node(link) else { break };
            if !key.shares(K::load(&node.prefix), link.depth()) {
                link = Link::NONE;
                break;
            }
            let slot = Slot(node.slots[usize::from(key.byte(link.depth()))].load(Relaxed));
            if slot.value() != 0 {
                best = slot.value();
            }
            link = slot.link();
        }
        let shares = |node: &Node| key.shares(K::load(&node.prefix), last);
        let node = match self.arena.node(link) {
            Some(node) if link != Link::NONE && shares(node) => link.node(),
            _ => 0,
        };
        Block { best, node }
    }

    /// The value of the longest prefix that holds the key with this last byte; 0 if there is none.
    #[inline(always)]
    pub fn lookup_in(&self, block: Block, last: u8) -> u32 {
        if block.node == 0 {
            return block.best;
        }
        let Some(node) = self.arena.0.get(block.node as usize) else {
            return block.best;
        };
        match Slot(node.slots[usize::from(last)].load(Relaxed)).value() {
            0 => block.best,
            value => value,
        }
    }
}

/// Where lookups of 256 neighbouring keys have come to before they look at the last byte. Good for the tree it is of only.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Block {
    /// The value of the longest prefix that holds them all; 0 if there is none.
    best: u32,
    /// The node with a slot for each of them; 0 if nothing is known of them one by one.
    node: u32,
}

/// No node is left in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArenaFull;

/// The writer's side of a tree.
pub struct LpmWriter<K: Key> {
    arena: Arc<Arena>,
    root: Link,
    free: Vec<u32>,
    /// The prefixes that end within a byte: longer ones in the same node may hide them, and they come to light again
    /// when those go. All others have a slot of their own in the tree.
    partial: imbl::HashMap<(K, u8), u32>,
    /// Number of prefixes.
    len: usize,
}

/// Nodes that an edit replaced: recycled when no reader can reach them any more.
#[derive(Default, Debug)]
#[must_use = "nodes that are not recycled are lost"]
pub struct Retired(Vec<u32>);

/// An edit in progress. Committed it becomes the writer's new root; dropped it leaves no trace.
pub struct Edit<'a, K: Key> {
    writer: &'a mut LpmWriter<K>,
    root: Link,
    partial: imbl::HashMap<(K, u8), u32>,
    len: usize,
    fresh: HashSet<u32>,
    replaced: Vec<u32>,
}

impl<K: Key> LpmWriter<K> {
    /// An empty tree with room for `nodes` nodes of 2,064 bytes. Memory is taken from the system as nodes are first used.
    pub fn new(nodes: usize) -> Result<Self, ArenaFull> {
        // Node 0 stands for "none".
        let count = nodes.clamp(1, (1 << NODE_BITS) - 2) + 1;
        let arena = <[Node]>::new_box_zeroed_with_elems(count).map_err(|_| ArenaFull)?;
        prefetch::huge_pages(&arena);
        Ok(Self {
            arena: Arc::new(Arena(arena)),
            root: Link::NONE,
            free: (1..count as u32).rev().collect(),
            partial: Default::default(),
            len: 0,
        })
    }

    /// The current version for readers.
    pub fn snapshot(&self) -> Lpm<K> {
        Lpm {
            arena: Arc::clone(&self.arena),
            root: self.root,
            key: std::marker::PhantomData,
        }
    }

    /// Starts an edit.
    pub fn edit(&mut self) -> Edit<'_, K> {
        let (root, partial, len) = (self.root, self.partial.clone(), self.len);
        Edit {
            writer: self,
            root,
            partial,
            len,
            fresh: HashSet::new(),
            replaced: Vec::new(),
        }
    }

    /// Takes back nodes that no reader can reach any more.
    pub fn recycle(&mut self, retired: Retired) {
        self.free.extend(retired.0);
    }

    /// Nodes in use (those waiting to be recycled included) and nodes there are.
    pub fn usage(&self) -> (usize, usize) {
        let all = self.arena.0.len() - 1;
        (all - self.free.len(), all)
    }

    /// Number of prefixes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no prefix.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<K: Key> Edit<'_, K> {
    /// Sets the value (1 to [`MAX_VALUE`]) of the prefix `key`/`len`.
    pub fn insert(&mut self, key: K, len: u8, value: u32) -> Result<(), ArenaFull> {
        debug_assert!(value != 0 && value <= MAX_VALUE && len <= K::BITS);
        let key = key.network(len);
        self.len += usize::from(self.get(key, len).is_none());
        self.root = self.insert_below(self.root, key, len, value)?;
        if is_partial(len) {
            self.partial.insert((key, len), value);
        }
        Ok(())
    }

    /// Removes the prefix `key`/`len`; one that is not there is left alone.
    pub fn remove(&mut self, key: K, len: u8) -> Result<(), ArenaFull> {
        let key = key.network(len);
        if self.get(key, len).is_some() {
            self.partial.remove(&(key, len));
            self.root = self.remove_below(self.root, key, len)?;
            self.len -= 1;
        }
        Ok(())
    }

    /// The value of exactly this prefix.
    pub fn get(&self, key: K, len: u8) -> Option<u32> {
        let key = key.network(len);
        if is_partial(len) {
            return self.partial.get(&(key, len)).copied();
        }
        let depth = home(len);
        let mut link = self.root;
        while link != Link::NONE && link.depth() < depth {
            link = self.slot(link, key.byte(link.depth())).link();
        }
        if link == Link::NONE || link.depth() != depth || !key.shares(self.prefix(link), depth) {
            return None;
        }
        let slot = self.slot(link, key.byte(depth));
        (slot.value() != 0 && slot.bits() == 8).then(|| slot.value())
    }

    /// The value of the longest prefix that holds `key`; 0 if there is none.
    pub(crate) fn lookup(&self, key: K) -> u32 {
        let edited = Lpm {
            arena: Arc::clone(&self.writer.arena),
            root: self.root,
            key: std::marker::PhantomData,
        };
        edited.lookup(key)
    }

    /// Makes the edit the writer's current version. The nodes it replaced are reachable from older versions only.
    pub fn commit(mut self) -> Retired {
        self.writer.root = self.root;
        self.writer.partial = std::mem::take(&mut self.partial);
        self.writer.len = self.len;
        self.fresh.clear();
        Retired(std::mem::take(&mut self.replaced))
    }

    fn insert_below(&mut self, link: Link, key: K, len: u8, value: u32) -> Result<Link, ArenaFull> {
        let target = home(len);
        if link == Link::NONE {
            let new = self.alloc(key, target)?;
            self.fill(new, key, len, value);
            return Ok(new);
        }
        let above = self.prefix(link);
        let common = key.common(above).min(link.depth()).min(target);
        if common == link.depth() {
            let node = self.own(link)?;
            if target == link.depth() {
                self.fill(node, key, len, value);
            } else {
                let index = key.byte(node.depth());
                let slot = self.slot(node, index);
                let below = self.insert_below(slot.link(), key, len, value)?;
                self.set(node, index, slot.with_link(below));
            }
            return Ok(node);
        }
        // The paths part above this node: a new node takes its place and links to it.
        let fork = self.alloc(key, common)?;
        let index = above.byte(common);
        self.set(fork, index, Slot::default().with_link(link));
        if target == common {
            self.fill(fork, key, len, value);
        } else {
            let leaf = self.alloc(key, target)?;
            self.fill(leaf, key, len, value);
            let index = key.byte(common);
            let slot = self.slot(fork, index);
            self.set(fork, index, slot.with_link(leaf));
        }
        Ok(fork)
    }

    fn remove_below(&mut self, link: Link, key: K, len: u8) -> Result<Link, ArenaFull> {
        if link == Link::NONE || !key.shares(self.prefix(link), link.depth()) {
            return Ok(link);
        }
        let node = self.own(link)?;
        if home(len) == node.depth() {
            let (value, shorter) = self.next_shorter(key, len, node.depth());
            let bits = len - 8 * node.depth();
            for index in covered(key, len, node.depth()) {
                let slot = self.slot(node, index);
                if slot.value() != 0 && slot.bits() == bits {
                    self.set(node, index, slot.with_value(value, shorter));
                }
            }
        } else {
            let index = key.byte(node.depth());
            let slot = self.slot(node, index);
            let below = self.remove_below(slot.link(), key, len)?;
            self.set(node, index, slot.with_link(below));
        }
        if (0..=255).all(|index| self.slot(node, index) == Slot::default()) {
            self.release(node);
            return Ok(Link::NONE);
        }
        Ok(node)
    }

    /// The longest prefix shorter than `len` that ends in the same node and covers `key`: value and bits of its byte.
    fn next_shorter(&self, key: K, len: u8, depth: u8) -> (u32, u8) {
        let shortest = if depth == 0 { 0 } else { 8 * depth + 1 };
        (shortest..len)
            .rev()
            .find_map(|shorter| self.get(key, shorter).map(|value| (value, shorter - 8 * depth)))
            .unwrap_or((0, 0))
    }

    /// Writes a value into every slot that the prefix covers and no longer prefix holds.
    fn fill(&self, node: Link, key: K, len: u8, value: u32) {
        let bits = len - 8 * node.depth();
        for index in covered(key, len, node.depth()) {
            let slot = self.slot(node, index);
            if slot.value() == 0 || slot.bits() <= bits {
                self.set(node, index, slot.with_value(value, bits));
            }
        }
    }

    /// The node itself if this edit made it, else a copy that this edit may change.
    fn own(&mut self, link: Link) -> Result<Link, ArenaFull> {
        if self.fresh.contains(&link.node()) {
            return Ok(link);
        }
        let copy = self.alloc(self.prefix(link), link.depth())?;
        for index in 0..=255 {
            self.set(copy, index, self.slot(link, index));
        }
        self.replaced.push(link.node());
        Ok(copy)
    }

    fn alloc(&mut self, prefix: K, depth: u8) -> Result<Link, ArenaFull> {
        let number = self.writer.free.pop().ok_or(ArenaFull)?;
        self.fresh.insert(number);
        let link = Link::new(number, depth);
        if let Some(node) = self.writer.arena.node(link) {
            let [high, low] = prefix.network(8 * depth).words();
            node.prefix[0].store(high, Relaxed);
            node.prefix[1].store(low, Relaxed);
            for slot in &node.slots {
                slot.store(0, Relaxed);
            }
        }
        Ok(link)
    }

    fn release(&mut self, link: Link) {
        if self.fresh.remove(&link.node()) {
            self.writer.free.push(link.node());
        } else {
            self.replaced.push(link.node());
        }
    }

    fn prefix(&self, link: Link) -> K {
        let words = self
            .writer
            .arena
            .node(link)
            .map(|n| [n.prefix[0].load(Relaxed), n.prefix[1].load(Relaxed)]);
        K::from_words(words.unwrap_or_default())
    }

    fn slot(&self, link: Link, index: u8) -> Slot {
        Slot(
            self.writer
                .arena
                .node(link)
                .map_or(0, |node| node.slots[usize::from(index)].load(Relaxed)),
        )
    }

    fn set(&self, link: Link, index: u8, slot: Slot) {
        if let Some(node) = self.writer.arena.node(link) {
            node.slots[usize::from(index)].store(slot.0, Relaxed);
        }
    }
}

impl<K: Key> Drop for Edit<'_, K> {
    fn drop(&mut self) {
        // What is still listed here was made by an edit that is given up: nobody has seen it.
        self.writer.free.extend(self.fresh.drain());
    }
}

/// Whether prefixes of this length share slots with longer ones.
fn is_partial(len: u8) -> bool {
    len == 0 || !len.is_multiple_of(8)
}

/// Depth of the node that holds prefixes of this length.
fn home(len: u8) -> u8 {
    len.div_ceil(8).saturating_sub(1)
}

/// Slots of the node at `depth` that the prefix covers.
fn covered<K: Key>(key: K, len: u8, depth: u8) -> std::ops::RangeInclusive<u8> {
    let span = 0xff_u8.checked_shr(u32::from(len - 8 * depth)).unwrap_or(0);
    let first = key.byte(depth) & !span;
    first..=first | span
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The specification: the longest prefix that holds the key.
    fn slow<K: Key>(table: &BTreeMap<(u8, [u64; 2]), u32>, key: K) -> u32 {
        (0..=K::BITS)
            .rev()
            .find_map(|len| table.get(&(len, key.network(len).words())).copied())
            .unwrap_or(0)
    }

    fn check<K: Key>(steps: &[(bool, K, u8, u32)], probes: &[K]) {
        let mut writer = LpmWriter::<K>::new(4096).unwrap();
        let mut table = BTreeMap::new();
        let mut versions = Vec::new();
        for chunk in steps.chunks(3) {
            let mut edit = writer.edit();
            for &(add, key, len, value) in chunk {
                if add {
                    edit.insert(key, len, value).unwrap();
                    table.insert((len, key.network(len).words()), value);
                } else {
                    edit.remove(key, len).unwrap();
                    table.remove(&(len, key.network(len).words()));
                }
            }
            for (&(len, words), &value) in &table {
                assert_eq!(edit.get(K::from_words(words), len), Some(value));
            }
            let retired = edit.commit();
            assert_eq!(writer.len(), table.len());
            versions.push((writer.snapshot(), table.clone(), retired));
        }
        // Every version still answers as it did when it was made, whatever was edited after it.
        for (version, table, _) in &versions {
            for &probe in probes.iter().chain(steps.iter().map(|(_, key, _, _)| key)) {
                assert_eq!(version.lookup(probe), slow(table, probe), "{probe:?}");
                let (block, last) = (version.block(probe), probe.byte(K::BITS / 8 - 1));
                assert_eq!(version.lookup_in(block, last), slow(table, probe), "{probe:?}");
            }
        }
        for (_, _, retired) in versions {
            writer.recycle(retired);
        }
        let mut edit = writer.edit();
        for (len, words) in table.into_keys() {
            edit.remove(K::from_words(words), len).unwrap();
        }
        let retired = edit.commit();
        writer.recycle(retired);
        assert_eq!(writer.usage().0, 0, "an empty tree holds no node");
    }

    /// Addresses that share leading bytes often, or every path would be its own.
    fn v4() -> impl Strategy<Value = u32> {
        (0..3u32, 0..3u32, 0..4u32, any::<u8>())
            .prop_map(|(a, b, c, d)| a << 24 | b << 16 | c << 8 | u32::from(d))
    }

    fn v6() -> impl Strategy<Value = u128> {
        proptest::collection::vec(0..3u8, 16).prop_map(|bytes| {
            bytes
                .into_iter()
                .fold(0, |key, byte| key << 8 | u128::from(byte.wrapping_mul(0x55)))
        })
    }

    proptest! {
        #[test]
        fn ipv4_is_longest_prefix_match(
            steps in proptest::collection::vec((any::<bool>(), v4(), 0..=32u8, 1..1000u32), 0..60),
            probes in proptest::collection::vec(any::<u32>(), 0..20),
        ) {
            check(&steps, &probes);
        }

        #[test]
        fn ipv6_is_longest_prefix_match(
            steps in proptest::collection::vec((any::<bool>(), v6(), 0..=128u8, 1..1000u32), 0..60),
            probes in proptest::collection::vec(any::<u128>(), 0..20),
        ) {
            check(&steps, &probes);
        }
    }

    #[test]
    fn an_edit_that_is_dropped_leaves_no_trace() {
        let mut writer = LpmWriter::<u32>::new(8).unwrap();
        let mut edit = writer.edit();
        edit.insert(0x0a00_0000, 8, 7).unwrap();
        let _none = edit.commit();
        let before = writer.usage();
        let mut edit = writer.edit();
        edit.insert(0x0a01_0203, 32, 8).unwrap();
        edit.remove(0x0a00_0000, 8).unwrap();
        drop(edit);
        assert_eq!(writer.usage(), before);
        assert_eq!(writer.snapshot().lookup(0x0a01_0203), 7);
    }

    #[test]
    fn a_full_arena_is_an_error() {
        let mut writer = LpmWriter::<u32>::new(2).unwrap();
        let mut edit = writer.edit();
        edit.insert(0x0a00_0001, 32, 1).unwrap();
        assert_eq!(edit.insert(0x0b00_0001, 32, 2), Err(ArenaFull));
        drop(edit);
        assert_eq!(writer.usage(), (0, 2));
    }

    #[test]
    fn one_edit_of_a_large_table_copies_a_path() {
        let mut writer = LpmWriter::<u32>::new(8192).unwrap();
        let mut edit = writer.edit();
        for host in 0..100_000u32 {
            edit.insert(0x0a00_0000 + host, 32, 1 + host).unwrap();
        }
        let _none = edit.commit();
        let mut edit = writer.edit();
        edit.insert(0x0a00_0007, 32, 5).unwrap();
        assert!(edit.commit().0.len() <= 4);
        assert_eq!(writer.snapshot().lookup(0x0a00_0007), 5);
    }
}
