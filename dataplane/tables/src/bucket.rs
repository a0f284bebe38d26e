//! How much endpoints may send and receive, and how much of that they have used: the one thing here that workers write.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How much an endpoint may send and receive (specification of the datapath, section 2.14).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// What it may receive, in bytes a second; 0: no limit.
    pub ingress: u64,
    /// What it may send, in bytes a second; 0: no limit.
    pub egress: u64,
}

/// What may go at once after a pause: as much as in this time, in nanoseconds.
const BURST_NS: u64 = 100_000_000;
/// But at least this many bytes: what segmentation offload makes of one write, and some.
const LEAST_BURST: u64 = 128 << 10;

/// The limits of one endpoint, shared by all workers.
#[derive(Debug, Default)]
pub struct Buckets {
    pub(crate) rates: Rates,
    ingress: AtomicU64,
    egress: AtomicU64,
}

impl Buckets {
    pub(crate) fn new(rates: Rates) -> Self {
        Self {
            rates,
            ..Self::default()
        }
    }

    /// Whether the endpoint may receive so many bytes at `now` (nanoseconds of a monotonic clock); if so, they count.
    pub fn receive(&self, now: u64, bytes: usize) -> bool {
        take(&self.ingress, self.rates.ingress, now, bytes)
    }

    /// Whether the endpoint may send so many bytes at `now`; if so, they count.
    pub fn send(&self, now: u64, bytes: usize) -> bool {
        take(&self.egress, self.rates.egress, now, bytes)
    }
}

/// A token bucket as one number: when it will be full again (the "generic cell rate algorithm", ITU-T I.371).
fn take(full_at: &AtomicU64, rate: u64, now: u64, bytes: usize) -> bool {
    if rate == 0 {
        return true;
    }
    let takes = |bytes: u64| (u128::from(bytes) * 1_000_000_000 / u128::from(rate)) as u64;
    let burst = takes(LEAST_BURST).max(BURST_NS);
    full_at
        .fetch_update(Relaxed, Relaxed, |full_at| {
            let then = full_at.max(now).saturating_add(takes(bytes as u64));
            (then - now <= burst).then_some(then)
        })
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    /// Bytes that pass in `seconds` if packets of 1,000 bytes are offered every millisecond `packets` times.
    fn passed(rate: u64, packets: usize, seconds: u64) -> u64 {
        let buckets = Buckets::new(Rates {
            ingress: rate,
            egress: 0,
        });
        let mut bytes = 0;
        for millisecond in 0..seconds * 1000 {
            for _ in 0..packets {
                bytes += 1000 * u64::from(buckets.receive(1 + millisecond * MILLISECOND, 1000));
            }
        }
        bytes
    }

    #[test]
    fn no_more_than_the_rate_and_one_burst_passes() {
        for rate in [1_000_000, 12_500_000, 125_000_000] {
            let seconds = 10;
            let offered = (rate / 1_000_000 * 3) as usize;
            let burst = (rate / 10).max(LEAST_BURST);
            let passed = passed(rate, offered, seconds);
            assert!(passed <= rate * seconds + burst, "{passed} of {rate}");
            assert!(passed >= rate * seconds - 2000, "{passed} of {rate}");
        }
    }

    #[test]
    fn what_is_within_the_rate_passes() {
        assert_eq!(passed(1_000_000, 1, 5), 5_000_000);
    }

    #[test]
    fn without_a_rate_everything_does() {
        let buckets = Buckets::new(Rates {
            ingress: 1,
            egress: 0,
        });
        assert!((0..1000).all(|_| buckets.send(1, 1 << 20)));
    }
}
