//! What throughput does when a transaction concerns all connections at once.

use std::thread::sleep;
use std::time::{Duration, Instant};

use octoplane_tables::SharedStore;

use crate::job::Setup;
use crate::sample::{Dip, median};

/// What throughput is compared by.
const SLICE: Duration = Duration::from_millis(1);
/// Slices before the transaction.
const BEFORE: usize = 200;
/// Slices in a row that have to be as fast as before for the dip to be over.
const STEADY: usize = 20;
/// Part of the throughput that counts as such.
const AS_BEFORE: f64 = 0.9;
/// Slices until nobody waits any more.
const LONGEST: usize = 20_000;

/// Makes the transactions that were asked for. `sent` counts packets.
pub(crate) fn dips(setup: &Setup, store: &SharedStore, sent: impl Fn() -> u64) -> anyhow::Result<Vec<Dip>> {
    (0..setup.invalidate)
        .map(|number| {
            let mut slices = Slices::start(&sent);
            let before = median((0..BEFORE).map(|_| slices.next()));
            store.apply(vec![setup.scenario.node(number % 2 == 0)])?;
            let after: Vec<f64> = std::iter::repeat_with(|| slices.next())
                .take(LONGEST)
                .scan(0, |steady, rate| {
                    let over = *steady == STEADY;
                    *steady = if rate >= AS_BEFORE * before {
                        *steady + 1
                    } else {
                        0
                    };
                    (!over).then_some(rate)
                })
                .collect();
            Ok(dip(before, &after))
        })
        .collect()
}

fn dip(before: f64, after: &[f64]) -> Dip {
    let last = after.iter().rposition(|rate| *rate < AS_BEFORE * before);
    let during = &after[..last.map_or(0, |last| last + 1)];
    Dip {
        before,
        worst: during.iter().copied().fold(before, f64::min),
        milliseconds: (during.len() * SLICE.as_millis() as usize) as u32,
        missing: during.iter().map(|rate| before - rate).sum::<f64>() * SLICE.as_secs_f64(),
    }
}

/// Million packets a second, slice by slice.
struct Slices<'a, F> {
    sent: &'a F,
    last: (Instant, u64),
}

impl<'a, F: Fn() -> u64> Slices<'a, F> {
    fn start(sent: &'a F) -> Self {
        Self {
            sent,
            last: (Instant::now(), sent()),
        }
    }

    fn next(&mut self) -> f64 {
        sleep(SLICE.saturating_sub(self.last.0.elapsed()));
        let (then, before) = std::mem::replace(&mut self.last, (Instant::now(), (self.sent)()));
        (self.last.1 - before) as f64 / (self.last.0 - then).as_secs_f64() / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dip_ends_where_throughput_stays_up() {
        let found = dip(10.0, &[10.0, 4.0, 2.0, 9.5, 6.0, 9.5, 10.0]);
        assert_eq!((found.before, found.worst, found.milliseconds), (10.0, 2.0, 5));
        assert!((found.missing - 0.0185).abs() < 1e-9, "{}", found.missing);
        assert_eq!(dip(10.0, &[10.0; 5]).milliseconds, 0);
    }
}
