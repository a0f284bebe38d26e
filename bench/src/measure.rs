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
    let busy = after.busy_cycles.wrapping_sub(before.busy_cycles);
    Sample {
        mpps: packets as f64 / seconds / 1e6,
        packets,
        seconds,
        cycles_per_packet: (received > 0).then(|| busy as f64 / received as f64),
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
        };
        let figures = sample(&at(1600, 5), &at(3200, 8), 0.5);
        assert_eq!((figures.packets, figures.mpps), (1600, 0.0032));
        assert_eq!(figures.cycles_per_packet, Some(50.0));
        assert_eq!(figures.mean_burst, Some(32.0));
        assert_eq!(figures.drops, [("full".to_owned(), 3)].into());
    }
}
