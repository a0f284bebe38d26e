//! What the poll loop itself counts.

use octoplane_engine::Counter;

/// Upper bounds of the burst histogram's buckets.
pub const BURST_BUCKETS: [usize; 8] = [1, 2, 4, 8, 16, 32, 48, 64];

/// Counters of a worker's loop.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct LoopStats {
    /// Rounds. A worker whose number does not grow is stuck.
    pub rounds: Counter,
    /// Cycles of rounds that had packets.
    pub busy_cycles: Counter,
    /// Cycles of rounds that had none, sleeps included.
    pub idle_cycles: Counter,
    /// Sleeps.
    pub sleeps: Counter,
    /// Bursts received.
    pub bursts: Counter,
    /// Packets in them.
    pub packets: Counter,
    /// Bursts by size.
    pub sizes: [Counter; BURST_BUCKETS.len()],
    /// Packets given to other workers to send.
    pub handed_off: Counter,
    /// Times no buffer was left for a frame of our own.
    pub no_buffer: Counter,
    /// News for the control plane that found its queue full.
    pub lost_events: Counter,
}

impl LoopStats {
    #[inline(always)]
    pub(crate) fn burst(&self, packets: usize) {
        self.bursts.add(1);
        self.packets.add(packets as u64);
        // ceil(log2), with the last two buckets for 33 to 48 and 49 to 64.
        let bucket = match packets {
            0..=32 => packets.next_power_of_two().trailing_zeros() as usize,
            33..=48 => 6,
            _ => 7,
        };
        self.sizes[bucket].add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_burst_falls_in_the_first_bucket_that_holds_it() {
        for packets in 1..=64 {
            let stats = LoopStats::default();
            stats.burst(packets);
            let expected = BURST_BUCKETS.iter().position(|bound| packets <= *bound).unwrap();
            assert_eq!(stats.sizes[expected].get(), 1, "{packets}");
        }
    }
}
