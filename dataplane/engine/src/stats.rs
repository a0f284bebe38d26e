//! Counters of one worker: written by it alone, read by anybody.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use octoplane_tables::model::{MAX_PORTS, PortId};

use crate::drop_reason::{Direction, DropReason};

/// A counter with one writer: adding is a plain load and store, no locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning worker may.
    #[inline(always)]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Replaces the value. Only the owning worker may.
    #[inline(always)]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! stages {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// The stages a packet goes through.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Stage {
            $($(#[$doc])* $name,)*
        }

        impl Stage {
            /// All of them in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Name in statistics.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

stages! {
    /// Taking packets from devices.
    Receive = "receive";
    /// Header checks, lookup, rewriting and sorting by output port of plain packets.
    Forward = "forward";
    /// All that the fast path does not do.
    Slow = "slow";
    /// Giving packets to devices.
    Transmit = "transmit";
}

/// Counters of one stage.
#[derive(Debug, Default)]
pub struct StageStats {
    /// How often it ran.
    pub calls: Counter,
    /// Packets it was given.
    pub packets: Counter,
    /// Packets in the runs that were timed: one run in 64.
    pub timed_packets: Counter,
    /// TSC cycles of the runs that were timed.
    pub timed_cycles: Counter,
}

/// Counters of one port, as far as one worker has to do with it.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct PortStats {
    /// Packets received.
    pub rx_packets: Counter,
    /// Bytes received, with Ethernet headers.
    pub rx_bytes: Counter,
    /// Packets that the device took.
    pub tx_packets: Counter,
    /// Packets that the device did not take.
    pub tx_full: Counter,
}

/// Packets and bytes.
#[derive(Debug, Default)]
pub struct Tally {
    /// Packets.
    pub packets: Counter,
    /// Bytes, with Ethernet headers.
    pub bytes: Counter,
}

/// All counters of one worker.
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerStats {
    drops: Vec<[Tally; Direction::ALL.len()]>,
    stages: Vec<StageStats>,
    ports: Vec<PortStats>,
    /// Packets that the fast path forwarded or delivered.
    pub fast: Tally,
    /// Packets that policy refuses and audit mode lets pass.
    pub audited: Counter,
    /// Packets sent in fragments.
    pub fragmented: Counter,
    /// Packets given to the kernel.
    pub punted: Counter,
    /// Connections that were stored.
    pub flows_created: Counter,
    /// Connections whose time was over.
    pub flows_expired: Counter,
    /// ARP requests, neighbour solicitations and pings answered.
    pub answered: Counter,
    /// ICMP errors sent.
    pub icmp_errors: Counter,
    /// ICMP errors not sent because of the rate limit or for want of a buffer.
    pub icmp_suppressed: Counter,
    /// Frames that ended here as they should: replies to us, duplicate address detection.
    pub consumed: Counter,
    /// Packets that wait for a neighbour now.
    pub parked: Counter,
}

impl Default for WorkerStats {
    fn default() -> Self {
        Self {
            drops: DropReason::ALL.iter().map(|_| Default::default()).collect(),
            stages: Stage::ALL.iter().map(|_| Default::default()).collect(),
            ports: (0..MAX_PORTS).map(|_| Default::default()).collect(),
            fast: Tally::default(),
            audited: Counter::default(),
            fragmented: Counter::default(),
            punted: Counter::default(),
            flows_created: Counter::default(),
            flows_expired: Counter::default(),
            answered: Counter::default(),
            icmp_errors: Counter::default(),
            icmp_suppressed: Counter::default(),
            consumed: Counter::default(),
            parked: Counter::default(),
        }
    }
}

impl WorkerStats {
    /// Counts dropped packets.
    pub fn count_drop(&self, reason: DropReason, direction: Direction, packets: u64, bytes: u64) {
        let tally = self.drops(reason, direction);
        tally.packets.add(packets);
        tally.bytes.add(bytes);
    }

    /// What was dropped for one reason in one direction.
    pub fn drops(&self, reason: DropReason, direction: Direction) -> &Tally {
        &self.drops[reason as usize][direction as usize]
    }

    /// The counters of a stage.
    #[inline(always)]
    pub fn stage(&self, stage: Stage) -> &StageStats {
        &self.stages[stage as usize]
    }

    /// The counters of a port. Numbers beyond the last share its counters.
    #[inline(always)]
    pub fn port(&self, port: PortId) -> &PortStats {
        &self.ports[usize::from(port).min(MAX_PORTS - 1)]
    }
}
