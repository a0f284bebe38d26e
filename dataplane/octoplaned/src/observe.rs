//! What becomes of packets, for the control services: explanations, and verdicts and drops of all workers.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use octoplane_api::v1;
use octoplane_control::{EventHub, Observer, Wanted};
use octoplane_convert::{Kind, Mistake};
use octoplane_engine::{Interest, IpsecConfig, Monitor, Timeouts};
use octoplane_observe::{ExplainError, Live, Policies, Scratch, event_message};
use octoplane_worker::Dataplane;

/// How often events are fetched: a worker's ring has room for what may come in five times as long.
const FETCH: Duration = Duration::from_millis(10);
/// How often it is looked whether somebody wants any.
const IDLE: Duration = Duration::from_millis(50);

/// Packets behind the control socket.
pub(crate) struct Observed {
    dataplane: Arc<Dataplane>,
    timeouts: Timeouts,
    ipsec: Option<IpsecConfig>,
    policies: Option<Policies>,
    hub: Arc<EventHub>,
    /// One explanation at a time: it costs as much as some thousand packets.
    scratch: Mutex<Scratch>,
}

impl Observed {
    /// `ipsec` and `policies`: what the workers were told of encryption.
    pub(crate) fn new(
        dataplane: Arc<Dataplane>,
        timeouts: Timeouts,
        ipsec: Option<IpsecConfig>,
        policies: Option<Policies>,
    ) -> Arc<Self> {
        let monitors = monitors(&dataplane);
        let mut was_idle = true;
        let hub = EventHub::new(move |wanted| {
            let interest = interest(wanted);
            for monitor in &monitors {
                if was_idle {
                    // What is left of those who went.
                    while monitor.pop().is_some() {}
                }
                monitor.set(interest);
            }
            was_idle = interest.kinds == 0;
        });
        Arc::new(Self {
            dataplane,
            timeouts,
            ipsec,
            policies,
            hub,
            scratch: Mutex::default(),
        })
    }

    /// Fetches events in a thread of its own until `stop`.
    pub(crate) fn start(&self, stop: Arc<AtomicBool>) -> std::io::Result<JoinHandle<()>> {
        let (hub, store, clock) = (
            Arc::clone(&self.hub),
            self.dataplane.store.clone(),
            self.dataplane.clock,
        );
        let monitors = monitors(&self.dataplane);
        thread::Builder::new().name("events".into()).spawn(move || {
            let mut lost: Vec<u64> = monitors.iter().map(|monitor| monitor.lost()).collect();
            while !stop.load(Relaxed) {
                if hub.is_idle() {
                    for (lost, monitor) in lost.iter_mut().zip(&monitors) {
                        *lost = monitor.lost();
                    }
                    thread::sleep(IDLE);
                    continue;
                }
                let state = store.state();
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let began = since
                    .map_or(0, |since| since.as_nanos() as u64)
                    .saturating_sub(clock.now());
                for (number, monitor) in monitors.iter().enumerate() {
                    while let Some(event) = monitor.pop() {
                        let time = began + event.time;
                        hub.publish(event_message(&state, number as u32, time, &event));
                    }
                    let now = monitor.lost();
                    if now != lost[number] {
                        hub.lost(now.wrapping_sub(lost[number]));
                        lost[number] = now;
                    }
                }
                thread::sleep(FETCH);
            }
        })
    }
}

fn monitors(dataplane: &Dataplane) -> Vec<Arc<Monitor>> {
    let workers = dataplane.workers.iter();
    workers.map(|worker| Arc::clone(&worker.monitor)).collect()
}

fn interest(wanted: Wanted) -> Interest {
    let kind = |wanted, kind| if wanted { kind } else { 0 };
    Interest {
        kinds: kind(wanted.verdicts, Interest::VERDICTS) | kind(wanted.drops, Interest::DROPS),
        endpoint: wanted.endpoint,
    }
}

impl Observer for Observed {
    fn explain(&self, request: &v1::ExplainRequest) -> Result<v1::Explanation, Mistake> {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, reader) = self.dataplane.store.frozen();
        let live = Live {
            state,
            reader,
            memory: &self.dataplane.memory,
            ipsec: self.ipsec.clone(),
            policies: self.policies.clone(),
            timeouts: self.timeouts,
            now: self.dataplane.clock.now(),
        };
        octoplane_observe::explain(&live, &mut scratch, request).map_err(|error| match error {
            ExplainError::Mistake(mistake) => mistake,
            ExplainError::Memory(error) => Mistake {
                kind: Kind::Full,
                text: error.to_string(),
            },
        })
    }

    fn events(&self) -> &Arc<EventHub> {
        &self.hub
    }
}
