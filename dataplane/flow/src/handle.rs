//! One worker's part of the table.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrayvec::ArrayVec;

use crate::looks::Due;
use crate::table::{FlowError, FlowRef, FlowTable, Half, PAYLOAD, PORTION, SPARE};
use crate::tuple::Tuple;

/// Connections that are looked at side by side.
const AT_A_TIME: usize = 32;
/// Connections of which the oldest makes room: that one is nearly always among the oldest eighth.
const FEW: usize = 8;
/// 2^64 by the golden ratio: multiples of it are spread evenly, however many there are.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// What one worker needs to store, find and expire connections.
pub struct FlowHandle {
    table: Arc<FlowTable>,
    number: usize,
    /// Records that only this worker may use.
    free: Vec<u32>,
    /// Records given up, and what all workers must have seen of the clock before they are used again.
    retired: VecDeque<(u64, u32)>,
    /// Where expiry goes on, and the part of the records that is this worker's to expire.
    cursor: usize,
    part: std::ops::Range<usize>,
    /// Where connections are looked for next that could make room.
    hand: u64,
}

impl FlowHandle {
    /// The part of worker `number`, from 0, of `workers` altogether. Each number must be used by one handle only.
    ///
    /// # Errors
    /// [`FlowError::Workers`].
    pub fn new(table: Arc<FlowTable>, number: usize, workers: usize) -> Result<Self, FlowError> {
        let seen = table.seen.get(number).ok_or(FlowError::Workers)?;
        seen.store(table.clock.load(Ordering::SeqCst), Ordering::SeqCst);
        let (all, workers) = (table.looks.len(), workers.max(1));
        let part = all * number / workers..all * (number + 1) / workers;
        Ok(Self {
            table,
            number,
            free: Vec::with_capacity(2 * PORTION),
            retired: VecDeque::with_capacity(2 * PORTION),
            cursor: part.start,
            part,
            // Workers begin at different places.
            hand: (number as u64).wrapping_mul(GOLDEN / 3),
        })
    }

    /// What all workers share.
    #[inline(always)]
    #[must_use]
    pub fn table(&self) -> &FlowTable {
        &self.table
    }

    /// What all workers share, to be kept.
    #[must_use]
    pub fn shared(&self) -> Arc<FlowTable> {
        self.table.clone()
    }

    /// Stores a connection: the tuples that packets of its two directions arrive with and the engine's words for both.
    /// `look` is when to look at it first, in the unit of [`FlowHandle::sweep`].
    ///
    /// # Errors
    /// [`FlowError::Full`]; [`FlowError::Taken`] if another connection has one of the tuples.
    pub fn insert(
        &mut self,
        tuples: [&Tuple; 2],
        payloads: [[u64; PAYLOAD]; 2],
        look: u32,
    ) -> Result<FlowRef, FlowError> {
        self.insert_with(tuples, payloads, [[0; SPARE]; 2], look)
    }

    /// The same with spare words for IPv4 directions.
    ///
    /// # Errors
    /// As [`FlowHandle::insert`].
    pub fn insert_with(
        &mut self,
        tuples: [&Tuple; 2],
        payloads: [[u64; PAYLOAD]; 2],
        spares: [[u64; SPARE]; 2],
        look: u32,
    ) -> Result<FlowRef, FlowError> {
        let record = self.record()?;
        // The next one is written some time from now.
        if let Some(&next) = self.free.last() {
            self.table.prefetch_record(next);
        }
        let inserted = self.table.insert(record, tuples, payloads, spares, look);
        if inserted.is_err() {
            // Nobody can have seen it, unless one direction was public for a moment.
            self.retire(record);
        }
        inserted
    }

    /// Takes out a connection. The worker may go on using `flow` until its next quiescent point.
    /// `false` if another worker has taken it out already.
    pub fn remove(&mut self, flow: FlowRef) -> bool {
        let removed = self.table.remove(flow.record());
        if removed {
            self.retire(flow.record());
        }
        removed
    }

    /// Sees to it, for a table whose oldest connections may be lost, that the next insertions find room: if this worker has few
    /// records left and there are no others, ends two connections that are old by what `born` says of their forward directions.
    /// Their records are free when all workers have been at quiescent points, so call it before each insertion. As after
    /// [`FlowHandle::remove`], references are good until the next quiescent point.
    /// Returns how many ended.
    #[inline]
    pub fn make_room(&mut self, born: impl Fn(&Half<'_>) -> u64) -> usize {
        // All workers together keep back no more than a quarter of the table.
        let enough = PORTION.min(self.part.len() / 4);
        if self.free.len() + self.retired.len() >= enough {
            return 0;
        }
        self.end_oldest(enough, &born)
    }

    #[cold]
    fn end_oldest(&mut self, enough: usize, born: &impl Fn(&Half<'_>) -> u64) -> usize {
        self.take_stock();
        if self.free.len() + self.retired.len() >= enough {
            return 0;
        }
        // One for the insertion, and one more until there are enough.
        (0..2).filter(|_| self.end_one(born)).count()
    }

    /// Ends the oldest of a few connections from all over the table.
    fn end_one(&mut self, born: &impl Fn(&Half<'_>) -> u64) -> bool {
        let records = u64::from(self.table.capacity());
        let mut oldest: Option<(u64, FlowRef)> = None;
        for _ in 0..FEW {
            self.hand = self.hand.wrapping_add(GOLDEN);
            let flow = FlowRef::first((((self.hand >> 32) * records) >> 32) as u32);
            if self.table.is_live(flow)
                && let Some(half) = self.table.half(flow)
            {
                let born = born(&half);
                if oldest.is_none_or(|(before, _)| born < before) {
                    oldest = Some((born, flow));
                }
            }
        }
        oldest.is_some_and(|(_, flow)| self.remove(flow))
    }

    /// Says that this worker holds on to no reference. Call it between bursts, when idle, too.
    #[inline(always)]
    pub fn quiesce(&mut self) {
        let now = self.table.clock.load(Ordering::Acquire);
        if let Some(seen) = self.table.seen.get(self.number)
            && seen.load(Ordering::Relaxed) != now
        {
            seen.store(now, Ordering::Release);
        }
    }

    /// Goes on looking through this worker's part of the table, at `records` connections at most, and asks of those whose
    /// time `now` has come when to look again: `None` ends the connection. Times are in any unit and never 0. Those for
    /// which [`FlowTable::end_soon`] was asked are ended without asking.
    /// Returns how many ended. Call it between bursts.
    pub fn sweep(
        &mut self,
        now: u32,
        records: usize,
        mut again: impl FnMut(&FlowTable, FlowRef) -> Option<u32>,
    ) -> usize {
        let (mut ended, mut left) = (0, records.min(self.part.len()));
        while left > 0 {
            let some = left.min(AT_A_TIME);
            left -= some;
            ended += self.sweep_some(now, some, &mut again);
        }
        self.reclaim();
        ended
    }

    /// Looks at a few connections. What a pass reads of them, the one before has asked for, for all of them at once.
    fn sweep_some(
        &mut self,
        now: u32,
        records: usize,
        again: &mut impl FnMut(&FlowTable, FlowRef) -> Option<u32>,
    ) -> usize {
        let mut due = ArrayVec::<(u32, Due), AT_A_TIME>::new();
        for _ in 0..records {
            let record = self.cursor as u32;
            self.cursor = if self.cursor + 1 < self.part.end {
                self.cursor + 1
            } else {
                self.part.start
            };
            if let Some(time) = self.table.looks.due(record, now) {
                self.table.prefetch_record(record);
                // As many as are looked at.
                let _ = due.try_push((record, time));
            }
        }
        due.retain(|&mut (record, time)| {
            if time.is_the_end() {
                return true;
            }
            match again(&self.table, FlowRef::first(record)) {
                Some(next) => {
                    self.table.looks.put_off(record, time, next);
                    false
                }
                None => true,
            }
        });
        let mut ends = ArrayVec::<(u32, [u64; 2]), AT_A_TIME>::new();
        for (record, _) in due {
            if let Some(hashes) = self.table.hashes(record) {
                hashes.iter().for_each(|&hash| self.table.prefetch(hash));
                let _ = ends.try_push((record, hashes));
            }
        }
        let mut ended = 0;
        for (record, hashes) in ends {
            if self.table.remove_hashed(record, hashes) {
                self.retire(record);
                ended += 1;
            }
        }
        ended
    }

    fn record(&mut self) -> Result<u32, FlowError> {
        if let Some(record) = self.free.pop() {
            return Ok(record);
        }
        self.reclaim();
        if self.free.is_empty() {
            self.take_stock();
        }
        self.free.pop().ok_or(FlowError::Full)
    }

    /// Takes a portion of the common stock, if there is one.
    fn take_stock(&mut self) {
        // Another worker holds this lock for as long as it takes to copy one portion.
        if let Ok(mut stock) = self.table.stock.lock() {
            let rest = stock.len().saturating_sub(PORTION);
            self.free.extend(stock.drain(rest..));
        }
    }

    fn retire(&mut self, record: u32) {
        // Who reads a higher clock at a quiescent point has seen the record gone.
        let after = self.table.clock.fetch_add(1, Ordering::AcqRel) + 1;
        self.retired.push_back((after, record));
    }

    /// Takes back records that no worker can hold on to, and gives what is too much to the others.
    fn reclaim(&mut self) {
        if !self.retired.is_empty() {
            let seen = self
                .table
                .seen
                .iter()
                .map(|seen| seen.load(Ordering::Acquire))
                .min();
            let seen = seen.unwrap_or(0);
            while let Some(&(after, record)) = self.retired.front()
                && after <= seen
            {
                self.retired.pop_front();
                self.free.push(record);
            }
        }
        if self.free.len() > 2 * PORTION
            && let Ok(mut stock) = self.table.stock.try_lock()
        {
            stock.extend(self.free.drain(PORTION..));
        }
    }
}

impl Drop for FlowHandle {
    fn drop(&mut self) {
        if let Ok(mut stock) = self.table.stock.lock() {
            stock.append(&mut self.free);
            // A worker that is gone holds on to nothing; what it gave up others may still look at for a moment, so its
            // last records stay unused. There are few.
        }
        if let Some(seen) = self.table.seen.get(self.number) {
            seen.store(u64::MAX, Ordering::SeqCst);
        }
    }
}
