//! The index and the records.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::looks::Looks;
use crate::memory::{LINE, Lines};
use crate::tuple::{Hasher, Tuple};

/// Words per direction that are the engine's.
pub const PAYLOAD: usize = LINE - Tuple::WORDS;

/// Words of an IPv4 direction that its tuple leaves free: the engine's, too.
pub const SPARE: usize = 3;

/// Locks that insertions are spread over.
const LOCKS: usize = 1024;

/// A bucket with no more empty slots than this is crowded.
const CROWDED: u32 = 2;

/// Workers that can share a table.
pub(crate) const MAX_WORKERS: usize = 64;

/// Records that a worker takes from the common stock at a time.
pub(crate) const PORTION: usize = 256;

/// Why a connection could not be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// No record is left, or no slot in the two buckets of a tuple.
    #[error("the table of connections is full")]
    Full,
    /// One of the tuples belongs to this direction of another connection.
    #[error("there is such a connection already")]
    Taken(FlowRef),
    /// The memory for this many lines could not be had.
    #[error("no memory for a table of connections of {lines} cache lines")]
    Memory {
        /// Lines of 64 bytes.
        lines: usize,
    },
    /// More workers than a table can have.
    #[error("more than {MAX_WORKERS} workers share one table of connections")]
    Workers,
}

/// One direction of a stored connection. Good until the worker that got it is at its next quiescent point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowRef(u32);

impl FlowRef {
    pub(crate) fn first(record: u32) -> Self {
        Self(record << 1)
    }

    /// The other direction.
    #[inline(always)]
    #[must_use]
    pub fn other(self) -> Self {
        Self(self.0 ^ 1)
    }

    /// Number of the connection.
    #[inline(always)]
    #[must_use]
    pub fn record(self) -> u32 {
        self.0 >> 1
    }

    /// Whether this is the direction whose tuple was given first when the connection was inserted.
    #[inline(always)]
    #[must_use]
    pub fn is_forward(self) -> bool {
        self.0 & 1 == 0
    }
}

/// What is stored of one direction: its tuple and the engine's words.
#[derive(Clone, Copy)]
pub struct Half<'a>(&'a [AtomicU64; LINE]);

impl Half<'_> {
    /// The tuple that packets of this direction arrive with.
    #[inline(always)]
    #[must_use]
    pub fn tuple(&self) -> Tuple {
        let [a, b, c, d, e, ..] = self.0;
        let [first, mut middle @ .., last] = [a, b, c, d, e].map(|word| word.load(Ordering::Relaxed));
        if last as u8 == 4 {
            middle = [0; SPARE];
        }
        let [a, b, c] = middle;
        Tuple::from_words([first, a, b, c, last])
    }

    /// Spare word number `N` of an IPv4 direction: it never changes while the connection is there.
    #[inline(always)]
    #[must_use]
    pub fn spare<const N: usize>(&self) -> u64 {
        const { assert!(N < SPARE) };
        self.0[1 + N].load(Ordering::Relaxed)
    }

    /// Replaces the spare words of an IPv4 direction of a connection that no worker can see yet. Those of IPv6 are its tuple's
    /// and stay.
    pub fn set_spare(&self, spare: [u64; SPARE]) {
        if self.0[4].load(Ordering::Relaxed) as u8 == 4 {
            for (word, value) in self.0[1..4].iter().zip(spare) {
                word.store(value, Ordering::Relaxed);
            }
        }
    }

    /// Word number `N` of the engine's.
    #[inline(always)]
    #[must_use]
    pub fn word<const N: usize>(&self) -> u64 {
        const { assert!(N < PAYLOAD) };
        self.0[Tuple::WORDS + N].load(Ordering::Relaxed)
    }

    /// Replaces word number `N` of the engine's.
    #[inline(always)]
    pub fn set_word<const N: usize>(&self, value: u64) {
        const { assert!(N < PAYLOAD) };
        self.0[Tuple::WORDS + N].store(value, Ordering::Relaxed);
    }

    #[inline(always)]
    fn is(&self, tuple: &Tuple) -> bool {
        let words = tuple.words();
        let word = |n: usize| self.0[n].load(Ordering::Relaxed);
        let ends = word(0) == words[0] && word(4) == words[4];
        ends && (!tuple.is_v6() || (word(1) == words[1] && word(2) == words[2] && word(3) == words[3]))
    }

    #[inline(always)]
    fn answers_only(&self) -> bool {
        self.0[4].load(Ordering::Relaxed) >> 16 & 0xff == u64::from(Tuple::ANSWERS_ONLY)
    }

    fn write(&self, tuple: &Tuple, payload: [u64; PAYLOAD]) {
        for (word, value) in self.0.iter().zip(tuple.words().into_iter().chain(payload)) {
            word.store(value, Ordering::Relaxed);
        }
    }
}

/// The connections of all workers.
pub struct FlowTable {
    hasher: Hasher,
    /// Buckets of eight slots: the upper 32 bits of the tuple's hash, and one more than the direction; 0 if empty.
    buckets: Lines,
    mask: u64,
    /// Two lines a connection.
    records: Lines,
    /// When to look at each connection next.
    pub(crate) looks: Looks,
    locks: Vec<AtomicBool>,
    /// Records that nobody uses.
    pub(crate) stock: Mutex<Vec<u32>>,
    /// What workers have seen of `clock`, at their last quiescent points.
    pub(crate) seen: Vec<AtomicU64>,
    /// Moves on when records are given up.
    pub(crate) clock: AtomicU64,
    pub(crate) used: AtomicU32,
}

impl FlowTable {
    /// A table for `capacity` connections, at least 64 and less than 2^30.
    ///
    /// # Errors
    /// [`FlowError::Memory`].
    pub fn new(capacity: u32) -> Result<Self, FlowError> {
        Self::with_hasher(capacity, Hasher::default())
    }

    /// The same with a hash of one's choice.
    ///
    /// # Errors
    /// [`FlowError::Memory`].
    pub fn with_hasher(capacity: u32, hasher: Hasher) -> Result<Self, FlowError> {
        let capacity = capacity_of(capacity);
        let mut table = Self::over(hasher, Lines::new(capacity * 2)?, Looks::new(capacity)?)?;
        table.stock = Mutex::new((0..capacity as u32).rev().collect());
        Ok(table)
    }

    /// A table whose records and times are there already. Its index is empty, and no record is in stock.
    pub(crate) fn over(hasher: Hasher, records: Lines, looks: Looks) -> Result<Self, FlowError> {
        let capacity = looks.len();
        // At most three quarters of the slots are ever used, so that two full buckets hardly ever meet.
        let buckets = (capacity * 2 * 4 / 3).div_ceil(LINE).next_power_of_two().max(64);
        Ok(Self {
            hasher,
            buckets: Lines::new(buckets)?,
            mask: buckets as u64 - 1,
            records,
            looks,
            locks: (0..LOCKS).map(|_| AtomicBool::new(false)).collect(),
            stock: Mutex::default(),
            seen: (0..MAX_WORKERS).map(|_| AtomicU64::new(u64::MAX)).collect(),
            clock: AtomicU64::new(0),
            used: AtomicU32::new(0),
        })
    }

    /// Connections there is room for.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.looks.len() as u32
    }

    /// Bytes that the table takes once all of it is in use: records, index, times and stock.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let lines = self.records.len() + self.buckets.len();
        lines * LINE * 8 + self.looks.len() * (8 + size_of::<u32>())
    }

    /// Connections stored.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether no connection is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The hash that lookups want.
    #[inline(always)]
    #[must_use]
    pub fn hash(&self, tuple: &Tuple) -> u64 {
        self.hasher.hash(tuple)
    }

    /// The first bucket of a hash, to be fetched ahead of a lookup.
    #[inline(always)]
    pub fn bucket(&self, hash: u64) -> Option<&[AtomicU64; LINE]> {
        self.buckets.get((hash & self.mask) as usize)
    }

    /// The second one: somewhere else in a way that depends on the part of the hash that slots hold, too.
    #[inline(always)]
    fn second(&self, hash: u64) -> Option<&[AtomicU64; LINE]> {
        let away = (hash >> 32).wrapping_mul(0x5bd1_e995) | 1;
        self.buckets.get(((hash ^ away) & self.mask) as usize)
    }

    /// What is stored of a direction. `None` for a reference to another table.
    #[inline(always)]
    #[must_use]
    pub fn half(&self, flow: FlowRef) -> Option<Half<'_>> {
        self.records.get(flow.0 as usize).map(Half)
    }

    /// The tuple that packets of a direction arrive with: the one that is stored, unless its zone says that it is for answers.
    #[must_use]
    pub fn arrival(&self, flow: FlowRef) -> Option<Tuple> {
        let tuple = self.half(flow)?.tuple();
        Some(arrival(&tuple, &self.half(flow.other())?.tuple()))
    }

    #[inline(always)]
    fn arrives_as(&self, flow: FlowRef, tuple: &Tuple) -> bool {
        self.half(flow)
            .is_some_and(|half| half.is(tuple) || half.answers_only() && self.is_answered_by(flow, tuple))
    }

    #[inline(never)]
    fn is_answered_by(&self, flow: FlowRef, tuple: &Tuple) -> bool {
        self.half(flow.other())
            .is_some_and(|other| other.is(&tuple.reverse()))
    }

    /// The direction that packets with this tuple belong to. `hash` is [`FlowTable::hash`] of it.
    #[inline(always)]
    #[must_use]
    pub fn find(&self, hash: u64, tuple: &Tuple) -> Option<FlowRef> {
        self.find_in(self.bucket(hash)?, hash, tuple)
            .or_else(|| self.find_in(self.second(hash)?, hash, tuple))
    }

    /// Asks the CPU for what [`FlowTable::candidate`] reads.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        if let Some(bucket) = self.bucket(hash) {
            prefetch::read(bucket);
        }
    }

    /// Asks the CPU for what else [`FlowTable::find`] reads if [`FlowTable::candidate`] had no answer.
    #[inline(always)]
    pub fn prefetch_rest(&self, hash: u64) {
        if let Some(bucket) = self.second(hash) {
            prefetch::read(bucket);
        }
    }

    /// Asks the CPU for all that an insertion of this tuple reads of the index.
    #[inline]
    pub fn prefetch_tuple(&self, tuple: &Tuple) {
        let hash = self.hash(tuple);
        self.prefetch(hash);
        self.prefetch_rest(hash);
    }

    /// Asks the CPU for what is stored of a direction.
    #[inline(always)]
    pub fn prefetch_half(&self, flow: FlowRef) {
        if let Some(half) = self.half(flow) {
            prefetch::read(half.0);
        }
    }

    /// Asks the CPU for all that is stored of a connection.
    #[inline(always)]
    pub(crate) fn prefetch_record(&self, record: u32) {
        let forward = FlowRef::first(record);
        self.prefetch_half(forward);
        self.prefetch_half(forward.other());
    }

    /// A direction that packets with a tuple of this hash may belong to, to be compared by [`FlowTable::confirm`]: most of
    /// those that are there. Reads one word.
    #[inline(always)]
    #[must_use]
    pub fn candidate(&self, hash: u64) -> Option<FlowRef> {
        let slot = self.bucket(hash)?[home(hash)].load(Ordering::Acquire);
        (slot >> 32 == hash >> 32 && slot as u32 != 0).then(|| FlowRef((slot as u32).wrapping_sub(1)))
    }

    /// [`FlowTable::find`] with the answer that [`FlowTable::candidate`] had, and what is stored of the direction.
    #[inline(always)]
    #[must_use]
    pub fn confirm(
        &self,
        candidate: Option<FlowRef>,
        hash: u64,
        tuple: &Tuple,
    ) -> Option<(FlowRef, Half<'_>)> {
        if let Some(flow) = candidate
            && let Some(half) = self.half(flow)
            && (half.is(tuple) || half.answers_only() && self.is_answered_by(flow, tuple))
        {
            return Some((flow, half));
        }
        self.find_slowly(hash, tuple)
    }

    #[inline(never)]
    fn find_slowly(&self, hash: u64, tuple: &Tuple) -> Option<(FlowRef, Half<'_>)> {
        let flow = self.find(hash, tuple)?;
        Some((flow, self.half(flow)?))
    }

    #[inline(always)]
    fn find_in(&self, bucket: &[AtomicU64; LINE], hash: u64, tuple: &Tuple) -> Option<FlowRef> {
        // No branch a slot: hardly any has these bits of the hash.
        let alike = bucket.iter().fold(false, |alike, slot| {
            alike | ((slot.load(Ordering::Relaxed) ^ hash) >> 32 == 0)
        });
        if alike {
            self.find_among(bucket, hash, tuple)
        } else {
            None
        }
    }

    /// The same of a bucket that has such a slot.
    #[inline(never)]
    fn find_among(&self, bucket: &[AtomicU64; LINE], hash: u64, tuple: &Tuple) -> Option<FlowRef> {
        bucket.iter().find_map(|slot| {
            let slot = slot.load(Ordering::Acquire);
            let alike = slot >> 32 == hash >> 32 && slot as u32 != 0;
            let flow = FlowRef((slot as u32).wrapping_sub(1));
            (alike && self.arrives_as(flow, tuple)).then_some(flow)
        })
    }

    /// Looks for the direction with this tuple, and how many slots it could have in each of its buckets.
    #[inline(always)]
    fn look(&self, hash: u64, tuple: &Tuple) -> Result<[(&[AtomicU64; LINE], u32); 2], FlowError> {
        let (Some(first), Some(second)) = (self.bucket(hash), self.second(hash)) else {
            return Err(FlowError::Full);
        };
        let mut buckets = [(first, 0), (second, 0)];
        for (bucket, room) in &mut buckets {
            let mut alike = false;
            for slot in *bucket {
                let slot = slot.load(Ordering::Relaxed);
                alike |= (slot ^ hash) >> 32 == 0;
                *room += u32::from(slot == 0);
            }
            if alike && let Some(taken) = self.find_among(bucket, hash, tuple) {
                return Err(FlowError::Taken(taken));
            }
        }
        Ok(buckets)
    }

    /// Stores a connection in `record`, which the caller owns. `look` is when to look at it first.
    pub(crate) fn insert(
        &self,
        record: u32,
        tuples: [&Tuple; 2],
        payloads: [[u64; PAYLOAD]; 2],
        spares: [[u64; SPARE]; 2],
        look: u32,
    ) -> Result<FlowRef, FlowError> {
        let arrivals = arrivals(tuples);
        let hashes = arrivals.map(|tuple| self.hash(&tuple));
        let forward = FlowRef::first(record);
        let directions = [forward, forward.other()];
        let _guards = self.lock(hashes);
        let there = self.look(hashes[0], &arrivals[0])?;
        let back = self.look(hashes[1], &arrivals[1])?;
        let contents = tuples.into_iter().zip(payloads).zip(spares);
        for (flow, ((tuple, payload), spare)) in directions.into_iter().zip(contents) {
            let half = self.half(flow).ok_or(FlowError::Full)?;
            half.write(tuple, payload);
            half.set_spare(spare);
        }
        self.publish_in(there, hashes[0], directions[0])?;
        // Both may have the same tuple: a connection of an address with itself.
        if arrivals[0] != arrivals[1] && self.publish_in(back, hashes[1], directions[1]).is_err() {
            self.withdraw(hashes[0], directions[0]);
            return Err(FlowError::Full);
        }
        self.looks.begin(record, look, check(hashes));
        self.used.fetch_add(1, Ordering::Relaxed);
        Ok(forward)
    }

    /// Takes a connection out of the index. The record may be used again when no worker can hold on to it. `false` if
    /// another worker was faster: the record is that one's to give up.
    pub(crate) fn remove(&self, record: u32) -> bool {
        self.hashes(record)
            .is_some_and(|hashes| self.remove_hashed(record, hashes))
    }

    /// The hashes that both directions of a connection are found by.
    pub(crate) fn hashes(&self, record: u32) -> Option<[u64; 2]> {
        let forward = FlowRef::first(record);
        let (there, back) = (self.half(forward)?.tuple(), self.half(forward.other())?.tuple());
        Some(arrivals([&there, &back]).map(|tuple| self.hash(&tuple)))
    }

    /// [`FlowTable::remove`] of a connection whose hashes are known.
    pub(crate) fn remove_hashed(&self, record: u32, hashes: [u64; 2]) -> bool {
        if !self.looks.end(record) {
            return false;
        }
        let forward = FlowRef::first(record);
        for (flow, hash) in [forward, forward.other()].into_iter().zip(hashes) {
            self.withdraw(hash, flow);
        }
        self.used.fetch_sub(1, Ordering::Relaxed);
        true
    }

    /// Has the connection looked at when expiry comes by next, whatever was planned. Anybody may ask.
    pub fn look_soon(&self, flow: FlowRef) {
        self.looks.soon(flow.record());
    }

    /// Has the connection whose forward direction has this tuple ended when expiry comes by next, whatever it does until
    /// then. Anybody may ask, who need not be a worker: a record that is another connection's by now is left alone.
    /// Returns whether there was something to end.
    pub fn end_soon(&self, flow: FlowRef, forward: &Tuple) -> bool {
        let record = flow.record();
        self.looks.end_soon(record, || {
            self.half(FlowRef::first(record))
                .is_some_and(|half| half.is(forward))
        })
    }

    /// Whether a connection is there, and nobody has asked for its end.
    #[must_use]
    pub fn is_live(&self, flow: FlowRef) -> bool {
        self.looks.is_live(flow.record())
    }

    /// All connections in no order, each by its forward direction, but for those that are to end soon. What comes and goes
    /// meanwhile may be among them or not.
    pub fn iter(&self) -> impl Iterator<Item = FlowRef> + '_ {
        self.iter_from(0)
    }

    /// The same from record number `first` on, in the order of their numbers: to go on where one stopped.
    pub fn iter_from(&self, first: u32) -> impl Iterator<Item = FlowRef> + '_ {
        (first..self.capacity())
            .map(FlowRef::first)
            .filter(|flow| self.is_live(*flow))
    }

    pub(crate) fn publish(&self, hash: u64, flow: FlowRef) -> Result<(), FlowError> {
        let (Some(first), Some(second)) = (self.bucket(hash), self.second(hash)) else {
            return Err(FlowError::Full);
        };
        self.publish_in([first, second].map(|bucket| (bucket, room(bucket))), hash, flow)
    }

    /// The same in one of these buckets, which had so many empty slots.
    #[inline]
    fn publish_in(
        &self,
        [first, second]: [(&[AtomicU64; LINE], u32); 2],
        hash: u64,
        flow: FlowRef,
    ) -> Result<(), FlowError> {
        let entry = hash >> 32 << 32 | u64::from(flow.0 + 1);
        // Lookups begin with the first, so it is taken while it is not crowded; then the one with more room, which keeps
        // both from being full while a quarter of all slots is free.
        let order = match first.1 > CROWDED || first.1 >= second.1 {
            true => [first.0, second.0],
            false => [second.0, first.0],
        };
        for bucket in order {
            // From the slot on that lookups read first.
            for index in 0..LINE {
                let slot = &bucket[(home(hash) + index) % LINE];
                // Release: who finds the slot finds the record written.
                if slot.load(Ordering::Relaxed) == 0
                    && slot
                        .compare_exchange(0, entry, Ordering::Release, Ordering::Relaxed)
                        .is_ok()
                {
                    return Ok(());
                }
            }
        }
        Err(FlowError::Full)
    }

    pub(crate) fn withdraw(&self, hash: u64, flow: FlowRef) {
        let entry = hash >> 32 << 32 | u64::from(flow.0 + 1);
        let buckets = [self.bucket(hash), self.second(hash)];
        for slot in buckets.into_iter().flatten().flatten() {
            if slot.load(Ordering::Relaxed) == entry
                && slot
                    .compare_exchange(entry, 0, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
            {
                return;
            }
        }
    }

    /// Locks what two insertions of the same tuple have in common, always in the same order.
    fn lock(&self, hashes: [u64; 2]) -> [Option<Guard<'_>>; 2] {
        let mut numbers = hashes.map(|hash| (hash >> 20) as usize % LOCKS);
        numbers.sort_unstable();
        let [first, second] = numbers;
        let take = |number: usize| self.locks.get(number).map(Guard::take);
        [take(first), if first == second { None } else { take(second) }]
    }
}

/// How many connections a table for so many is for.
pub(crate) fn capacity_of(connections: u32) -> usize {
    connections.clamp(64, (1 << 30) - 1) as usize
}

/// What tells whether the tuples of a record are those that it was made with, of their hashes.
pub(crate) fn check([there, back]: [u64; 2]) -> u32 {
    ((there.rotate_left(23) ^ back) >> 16) as u32
}

/// The tuples that packets of two directions arrive with, of those that are stored.
pub(crate) fn arrivals([there, back]: [&Tuple; 2]) -> [Tuple; 2] {
    [arrival(there, back), arrival(back, there)]
}

fn arrival(tuple: &Tuple, other: &Tuple) -> Tuple {
    tuple.arriving(other)
}

/// The slot of its first bucket that a hash gets if it is free.
#[inline(always)]
fn home(hash: u64) -> usize {
    (hash >> 61) as usize
}

/// Empty slots of a bucket.
fn room(bucket: &[AtomicU64; LINE]) -> u32 {
    let empty = |slot: &&AtomicU64| slot.load(Ordering::Relaxed) == 0;
    bucket.iter().filter(empty).count() as u32
}

/// Holds a lock for the few hundred nanoseconds of an insertion.
struct Guard<'a>(&'a AtomicBool);

impl<'a> Guard<'a> {
    fn take(lock: &'a AtomicBool) -> Self {
        while lock
            .compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            std::hint::spin_loop();
        }
        Self(lock)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
