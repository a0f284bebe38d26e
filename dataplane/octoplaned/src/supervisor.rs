//! What systemd is told (sd_notify(3)): that we are ready, that we live, that we stop. Without systemd, nobody is told anything.

use std::sync::Arc;
use std::time::Duration;

use octoplane_worker::Dataplane;
use sd_notify::NotifyState;
use tracing::{debug, info, warn};

/// Looks in each of the watchdog's intervals: one that comes late must not look like a worker that hangs.
const LOOKS: u32 = 4;

/// Ports are up, workers poll, the control socket listens.
pub(crate) fn ready(dataplane: &Dataplane) {
    let status = format!(
        "{} ports, {} workers",
        dataplane.ports().len(),
        dataplane.workers.len()
    );
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// From here on it is expected that we end.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "systemd was not told");
    }
}

/// Feeds the watchdog, if systemd has set one: as long as the threads run that serve the API, and every worker gets
/// around. Must be called inside the runtime of these threads; ends only if there is no watchdog.
pub(crate) async fn feed_watchdog(dataplane: Arc<Dataplane>) {
    let Some(interval) = sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero()) else {
        return;
    };
    info!(
        "systemd's watchdog is fed, every {} ms",
        (interval / LOOKS).as_millis()
    );
    let mut hearts = Heartbeats::default();
    let mut clock = tokio::time::interval((interval / LOOKS).max(Duration::from_millis(1)));
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let rounds = dataplane.workers.iter().map(|it| it.loop_stats.rounds.get());
        if hearts.all_beat(rounds) {
            debug!("watchdog fed");
            tell(&[NotifyState::Watchdog]);
        }
    }
}

/// How often each worker had gone around its queues when it was last looked at.
#[derive(Debug, Default)]
struct Heartbeats {
    last: Vec<u64>,
    stuck: Vec<usize>,
}

impl Heartbeats {
    /// Whether every worker has gone around since the last look. Says so of those that have not, and when they have again.
    fn all_beat(&mut self, rounds: impl Iterator<Item = u64>) -> bool {
        let now: Vec<u64> = rounds.collect();
        // Nothing is known of a worker at the first look.
        let stuck: Vec<usize> = (0..now.len())
            .filter(|&worker| self.last.get(worker) == Some(&now[worker]))
            .collect();
        for worker in stuck.iter().filter(|worker| !self.stuck.contains(worker)) {
            warn!("worker {worker} does not get around: the watchdog is not fed");
        }
        for worker in self.stuck.iter().filter(|worker| !stuck.contains(worker)) {
            info!("worker {worker} gets around again");
        }
        self.last = now;
        self.stuck = stuck;
        self.stuck.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_that_hangs_is_enough() {
        let mut hearts = Heartbeats::default();
        let mut looks = |rounds: [u64; 3]| hearts.all_beat(rounds.into_iter());
        assert!(looks([0, 0, 0]), "they have just begun");
        assert!(looks([10, 1, 5]));
        assert!(!looks([20, 1, 6]), "the second does nothing");
        assert!(!looks([30, 1, 6]), "nor does the third");
        assert!(!looks([40, 2, 6]));
        assert!(looks([50, 3, 7]));
        // A counter that has come around is not the same.
        assert!(looks([0, 4, 8]));
        assert!(!looks([0, 4, 8]));
    }

    #[test]
    fn no_worker_is_no_worker_that_hangs() {
        let mut hearts = Heartbeats::default();
        assert!(hearts.all_beat(std::iter::empty()));
        assert!(hearts.all_beat(std::iter::empty()));
    }
}
