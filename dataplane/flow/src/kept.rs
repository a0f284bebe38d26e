//! Tables whose connections outlive the process.
//!
//! A file in memory has a header, and then for each table its records and its looks. The index is not there: it is made anew
//! from the records, each of which has to be whole, so that what was half done when the process was killed is not found
//! again. Nor are locks: there are none but those of the process.

use std::sync::Mutex;
use std::sync::atomic::Ordering::{Relaxed, Release};

use segment::{Directory, Segment, SegmentError};

use crate::looks::Looks;
use crate::memory::{LINE, Lines};
use crate::table::{FlowError, FlowRef, FlowTable, Half, arrivals, capacity_of, check};
use crate::tuple::{Hasher, Tuple};

/// What the header begins with.
const MAGIC: u64 = u64::from_be_bytes(*b"octoflow");
/// Version of the layout: raised when a header, a record or a look becomes something else.
const LAYOUT: u64 = 3;
/// Name of the file.
const FILE: &str = "connections";

/// Words of the header.
const HEADER: usize = 8 * LINE;
/// Most tables.
const TABLES: usize = 8;
/// Where the header has its sum, and the clocks, which come behind what is summed up.
const SUM: usize = 24;
const ENGINE_CLOCK: usize = 32;
const SYSTEM_CLOCK: usize = 33;

/// Whose memory it is, and what for: the header without what changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purpose {
    /// Version of what the engine's words mean, and of which table is which.
    pub meaning: u64,
    /// Tells the times apart that the machine was started: clocks begin anew.
    pub boot: u128,
    /// Connections of each table; at most 8 tables.
    pub capacities: Vec<u32>,
}

/// Why memory that is there is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The header is not one, or damaged.
    #[error("its header is damaged")]
    Damaged,
    /// Another version.
    #[error("it has layout {found:?}, this daemon has {expected:?}")]
    Version {
        /// Layout and meaning that it has.
        found: (u64, u64),
        /// Those that are known.
        expected: (u64, u64),
    },
    /// The machine was started since.
    #[error("the machine was started again since")]
    Boot,
    /// Other tables.
    #[error("it is for tables of other sizes (capacity.connections)")]
    Sizes,
}

/// Memory for tables that outlives the process.
pub struct Kept {
    segment: Segment,
    hasher: Hasher,
    capacities: Vec<u32>,
    _directory: Directory,
}

/// What became of a table's records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resumed {
    /// Connections that are there.
    pub connections: u32,
    /// Those that were not whole, or that the engine did not want.
    pub dropped: u32,
}

impl Kept {
    /// The memory in a directory: what another process left there, or new, with what is wrong with the former.
    ///
    /// # Errors
    /// [`SegmentError`] if there can be none.
    pub fn open(directory: Directory, purpose: &Purpose) -> Result<(Self, Option<Unusable>), SegmentError> {
        let header = directory.peek(FILE, HEADER)?;
        let unusable = match read(&header, purpose) {
            Ok(seed) => {
                let segment = directory.open(FILE)?;
                if segment.words().len() >= purpose.words() {
                    let kept = Self::over(segment, Hasher::seeded(seed), purpose, directory);
                    return Ok((kept, None));
                }
                Some(Unusable::Damaged)
            }
            Err(_) if header.is_empty() => None,
            Err(unusable) => Some(unusable),
        };
        let segment = directory.make(FILE, purpose.words())?;
        let hasher = Hasher::default();
        let words = header_words(purpose, hasher.seed());
        for (word, value) in segment.words().iter().zip(words) {
            word.store(value, Relaxed);
        }
        if let Some(word) = segment.words().get(SUM) {
            word.store(sum(&words), Release);
        }
        Ok((Self::over(segment, hasher, purpose, directory), unusable))
    }

    fn over(segment: Segment, hasher: Hasher, purpose: &Purpose, directory: Directory) -> Self {
        Self {
            segment,
            hasher,
            capacities: purpose.capacities.clone(),
            _directory: directory,
        }
    }

    /// Takes note of the engine's clock, in nanoseconds, at a time of the system's, so that the former can go on in another
    /// process. To be called often.
    pub fn beat(&self, engine: u64, system: u64) {
        for (at, value) in [(ENGINE_CLOCK, engine), (SYSTEM_CLOCK, system)] {
            if let Some(word) = self.segment.words().get(at) {
                word.store(value, Relaxed);
            }
        }
    }

    /// What the engine's clock is at a time of the system's, if it went on all the time; 0 if it has not begun.
    #[must_use]
    pub fn engine_clock(&self, system: u64) -> u64 {
        let word = |at: usize| self.segment.words().get(at).map_or(0, |word| word.load(Relaxed));
        match word(SYSTEM_CLOCK) {
            0 => 0,
            last => word(ENGINE_CLOCK).saturating_add(system.saturating_sub(last)),
        }
    }

    /// Table number `index`, with the connections that are whole and for which `accept` holds, which may change the engine's
    /// words: it gets the forward direction, and the other one. To be called once for each table.
    ///
    /// # Errors
    /// [`FlowError::Memory`] for the index, and for a table that there is none of.
    pub fn table(
        &self,
        index: usize,
        accept: impl FnMut(&Half<'_>, &Half<'_>) -> bool,
    ) -> Result<(FlowTable, Resumed), FlowError> {
        let none = FlowError::Memory { lines: 0 };
        let capacity = capacity_of(*self.capacities.get(index).ok_or(none)?);
        let before: usize = self.capacities[..index].iter().map(|it| table_words(*it)).sum();
        let words = self.segment.words().get(HEADER + before..).ok_or(none)?;
        let (records, rest) = words.split_at_checked(capacity * 2 * LINE).ok_or(none)?;
        let looks = rest.get(..capacity).ok_or(none)?;
        let mut table = FlowTable::over(self.hasher, Lines::over(records), Looks::over(looks))?;
        let resumed = enter(&mut table, accept);
        Ok((table, resumed))
    }
}

/// Words of one table.
fn table_words(capacity: u32) -> usize {
    let capacity = capacity_of(capacity);
    capacity * 2 * LINE + capacity.next_multiple_of(LINE)
}

impl Purpose {
    fn words(&self) -> usize {
        HEADER + self.capacities.iter().map(|it| table_words(*it)).sum::<usize>()
    }
}

/// What a header has before its sum.
fn header_words(purpose: &Purpose, seed: [u64; 4]) -> [u64; SUM] {
    let mut words = [0; SUM];
    let [a, b, c, d] = seed;
    let (upper, lower) = ((purpose.boot >> 64) as u64, purpose.boot as u64);
    let fixed = [MAGIC, LAYOUT, purpose.meaning, upper, lower, a, b, c, d];
    let capacities = purpose.capacities.iter().take(TABLES).copied().map(u64::from);
    let all = fixed
        .into_iter()
        .chain([purpose.capacities.len() as u64])
        .chain(capacities);
    for (word, value) in words.iter_mut().zip(all) {
        *word = value;
    }
    words
}

/// FNV-1a over words: it is to find accidents.
fn sum(words: &[u64]) -> u64 {
    let step = |sum: u64, word: &u64| (sum ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    words.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The hash's seed, if the header is one for this purpose.
fn read(header: &[u64], purpose: &Purpose) -> Result<[u64; 4], Unusable> {
    let (words, rest) = header.split_first_chunk::<SUM>().ok_or(Unusable::Damaged)?;
    if words[0] != MAGIC || rest.first() != Some(&sum(words)) {
        return Err(Unusable::Damaged);
    }
    let [_, layout, meaning, _, _, a, b, c, d, ..] = *words;
    let wanted = header_words(purpose, [a, b, c, d]);
    if (layout, meaning) != (LAYOUT, purpose.meaning) {
        return Err(Unusable::Version {
            found: (layout, meaning),
            expected: (LAYOUT, purpose.meaning),
        });
    }
    if words[3..5] != wanted[3..5] {
        return Err(Unusable::Boot);
    }
    if *words != wanted {
        return Err(Unusable::Sizes);
    }
    Ok([a, b, c, d])
}

/// Makes the index and the stock from the records.
fn enter(table: &mut FlowTable, mut accept: impl FnMut(&Half<'_>, &Half<'_>) -> bool) -> Resumed {
    let mut resumed = Resumed::default();
    let mut stock = Vec::new();
    // The lowest number is taken first, which is the last one in stock.
    for record in (0..table.capacity()).rev() {
        let is_there = table.looks.check(record).map(|check| {
            let entered = enter_record(table, record, check, &mut accept);
            match entered {
                Some(()) => resumed.connections += 1,
                None => resumed.dropped += 1,
            }
            entered.is_some()
        });
        if is_there != Some(true) {
            table.looks.end(record);
            stock.push(record);
        }
    }
    table.used.store(resumed.connections, Relaxed);
    table.stock = Mutex::new(stock);
    resumed
}

fn enter_record(
    table: &FlowTable,
    record: u32,
    made_with: u32,
    accept: &mut impl FnMut(&Half<'_>, &Half<'_>) -> bool,
) -> Option<()> {
    let forward = FlowRef::first(record);
    let (there, back) = (table.half(forward)?, table.half(forward.other())?);
    let tuples: [Tuple; 2] = [there.tuple(), back.tuple()];
    let arrivals = arrivals([&tuples[0], &tuples[1]]);
    let hashes = arrivals.map(|tuple| table.hash(&tuple));
    let whole = check(hashes) == made_with && tuples.iter().all(Tuple::is_one) && alike(&tuples);
    let is_new = |n: usize| table.find(hashes[n], &arrivals[n]).is_none();
    if !whole || !is_new(0) || !is_new(1) || !accept(&there, &back) {
        return None;
    }
    table.publish(hashes[0], forward).ok()?;
    if arrivals[0] != arrivals[1] && table.publish(hashes[1], forward.other()).is_err() {
        table.withdraw(hashes[0], forward);
        return None;
    }
    Some(())
}

/// Whether two tuples can be those of one connection.
fn alike([there, back]: &[Tuple; 2]) -> bool {
    there.is_v6() == back.is_v6() && there.protocol() == back.protocol()
}
