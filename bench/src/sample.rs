//! What one run yields.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Figures of one run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Million packets sent a second.
    pub(crate) mpps: f64,
    /// Packets sent.
    pub(crate) packets: u64,
    /// Seconds measured.
    pub(crate) seconds: f64,
    /// TSC cycles of rounds that had packets, per packet received. Not known of other programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cycles_per_packet: Option<f64>,
    /// The same for the fastest tenth of all bursts, and for half of them: what other programs on the CPU take is not in it.
    /// Known of the generator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cycles_p10: Option<f64>,
    /// See `cycles_p10`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cycles_p50: Option<f64>,
    /// Million packets a second while nobody else used the CPU: as many as at `cycles_p10`, of all workers together. Known of
    /// `esp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quiet: Option<f64>,
    /// Table transactions a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) churn: Option<f64>,
    /// Packets that the fast path gave up, of a million.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) slow_ppm: Option<f64>,
    /// Connections there were in the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) connections: Option<u32>,
    /// Bytes that the table of connections takes for each that there is room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) connection_bytes: Option<f64>,
    /// What happened when all connections were decided again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) dips: Vec<Dip>,
    /// Packets in a burst.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mean_burst: Option<f64>,
    /// Dropped packets by reason.
    pub(crate) drops: BTreeMap<String, u64>,
}

/// Throughput while all connections are decided again, in million packets a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Dip {
    /// Before.
    pub(crate) before: f64,
    /// In the worst of all milliseconds.
    pub(crate) worst: f64,
    /// Milliseconds until it was nine tenths of what it was before, and stayed so.
    pub(crate) milliseconds: u32,
    /// Packets that were not sent because of it, in millions.
    pub(crate) missing: f64,
}

impl Sample {
    /// All drops.
    pub(crate) fn dropped(&self) -> u64 {
        self.drops.values().sum()
    }
}

/// The value that a tenth of all is not above; 0 of nothing.
pub(crate) fn tenth(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 10).copied().unwrap_or(0.0)
}

/// The median; 0 of nothing.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median([]), 0.0);
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
