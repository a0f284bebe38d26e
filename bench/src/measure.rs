//! Counters before and after, and the time between.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Instant;

use crate::job::Setup;
use crate::sample::Sample;

/// Counters at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) bursts: u64,
    pub(crate) busy_cycles: u64,
    pub(crate) drops: BTreeMap<String, u64>,
    /// Packets that the fast path gave up.
    pub(crate) slow: u64,
    /// Table transactions.
    pub(crate) transactions: u64,
    /// How many bursts took how long.
    pub(crate) times: Option<Times>,
}

/// Cycles that bursts took, a quarter a packet to the place.
#[derive(Debug, Clone)]
pub(crate) struct Times(pub(crate) Vec<u64>);

/// Places of a histogram: up to 4,096 cycles a packet.
pub(crate) const PLACES: usize = 16_384;

impl Times {
    /// Cycles a packet that this part of the bursts since `before` took at most.
    fn quantile(&self, before: &Self, part: f64) -> Option<f64> {
        let counts = || self.0.iter().zip(&before.0).map(|(after, before)| after - before);
        let all: u64 = counts().sum();
        let mut rest = (all as f64 * part) as u64;
        for (place, count) in counts().enumerate() {
            if count > rest {
                return Some((place as f64 + 0.5) / 4.0);
            }
            rest -= count;
        }
        None
    }
}

/// Warms up, then measures what `read` counts.
pub(crate) fn measure(setup: &Setup, read: impl Fn() -> Totals) -> Sample {
    sleep(setup.warmup());
    let before = read();
    let start = Instant::now();
    if let Some(period) = setup.period() {
        let (mut last, mut then) = (before.clone(), start);
        while start.elapsed() + period < setup.duration() {
            sleep(period);
            let (now, totals) = (Instant::now(), read());
            let figures = sample(&last, &totals, (now - then).as_secs_f64());
            eprintln!(
                "{:8.3} Mpps, {:.1} packets a burst, {} dropped",
                figures.mpps,
                figures.mean_burst.unwrap_or_default(),
                figures.dropped()
            );
            (last, then) = (totals, now);
        }
    }
    sleep(setup.duration().saturating_sub(start.elapsed()));
    let after = read();
    sample(&before, &after, start.elapsed().as_secs_f64())
}

fn sample(before: &Totals, after: &Totals, seconds: f64) -> Sample {
    let packets = after.sent.wrapping_sub(before.sent);
    let received = after.received.wrapping_sub(before.received);
    let bursts = after.bursts.wrapping_sub(before.bursts);
    let quantile = |part| match (&before.times, &after.times) {
        (Some(before), Some(after)) => after.quantile(before, part),
        _ => None,
    };
    let busy = after.busy_cycles.wrapping_sub(before.busy_cycles);
    Sample {
        mpps: packets as f64 / seconds / 1e6,
        packets,
        seconds,
        cycles_per_packet: (received > 0).then(|| busy as f64 / received as f64),
        cycles_p10: quantile(0.1),
        quiet: None,
        cycles_p50: quantile(0.5),
        churn: (after.transactions > 0).then(|| (after.transactions - before.transactions) as f64 / seconds),
        slow_ppm: (received > 0).then(|| (after.slow - before.slow) as f64 / received as f64 * 1e6),
        connections: None,
        connection_bytes: None,
        dips: Vec::new(),
        mean_burst: (bursts > 0).then(|| received as f64 / bursts as f64),
        drops: after
            .drops
            .iter()
            .map(|(reason, count)| {
                let old = before.drops.get(reason).copied().unwrap_or(0);
                (reason.clone(), count.wrapping_sub(old))
            })
            .filter(|(_, count)| *count > 0)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_differences() {
        let at = |sent, dropped| Totals {
            sent,
            received: 2 * sent,
            bursts: sent / 16,
            busy_cycles: 100 * sent,
            drops: [("full".to_owned(), dropped), ("never".to_owned(), 7)].into(),
            slow: sent / 1000,
            ..Totals::default()
        };
        let figures = sample(&at(1600, 5), &at(3200, 8), 0.5);
        assert_eq!((figures.packets, figures.mpps), (1600, 0.0032));
        assert_eq!(figures.cycles_per_packet, Some(50.0));
        assert_eq!(figures.mean_burst, Some(32.0));
        assert_eq!(figures.drops, [("full".to_owned(), 3)].into());
        assert_eq!(figures.slow_ppm, Some(2.0 / 3200.0 * 1e6));
    }

    #[test]
    fn quantiles_are_of_the_difference() {
        let times = |counts: [u64; 3]| Times(counts.to_vec());
        let before = times([1000, 0, 0]);
        let after = times([1010, 80, 10]);
        assert_eq!(after.quantile(&before, 0.05), Some(0.125));
        assert_eq!(after.quantile(&before, 0.5), Some(0.375));
        assert_eq!(after.quantile(&before, 0.95), Some(0.625));
        assert_eq!(before.quantile(&before, 0.5), None);
    }
}
