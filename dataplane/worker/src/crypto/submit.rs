//! Where a job goes: to the device or to the software.

use std::sync::Arc;

use octoplane_esp::{Job, JobStatus, Operation, Provider, SessionId, SessionLookup};
use octoplane_packet::{BufPool, PacketBuf};

use crate::crypto::device::{Device, SessionKey, open_gap, split};
use crate::crypto::failover::{Failover, for_software};
use crate::crypto::known::OnDevice;
use crate::crypto::pending::Place;
use crate::crypto::stats::Why;

/// Where a job goes.
enum Way {
    Device(SessionKey),
    Software(Why),
    /// Back: there is no such session.
    Nowhere,
}

impl<B, D, S, P> Failover<B, D, S, P>
where
    B: PacketBuf,
    D: Device<B>,
    S: Provider<B>,
    P: BufPool<Buf = B>,
{
    /// One burst of what the device may have staged.
    #[inline(always)]
    pub(crate) fn submit_jobs(
        &mut self,
        sessions: &dyn SessionLookup,
        jobs: &mut Vec<Job<B>>,
        now: u64,
    ) -> usize {
        let n = jobs.len().min(self.pending.room());
        let mut staged = 0;
        for job in jobs.drain(..n) {
            let way = self.way(sessions, job.session, job.operation);
            let (job, mut buf) = split(job);
            let way = match way {
                Way::Device(key) => {
                    let room = self.attached.as_ref().map_or(0, |it| it.device.room());
                    if room == 0 {
                        // Perhaps there is room behind what is staged.
                        self.submit_staged(&mut staged, now);
                    }
                    match &mut self.attached {
                        Some(attached) if self.health.is_up() && attached.device.room() > 0 => {
                            if open_gap(&job, &mut buf) {
                                if let Some((ticket, job)) = self.pending.enter(job, Place::Device) {
                                    attached.device.stage(ticket, key, job, buf);
                                    staged += 1;
                                }
                                continue;
                            }
                            Why::Failed
                        }
                        _ => self.health.cause().map_or(Why::Full, Why::from),
                    }
                }
                Way::Software(why) => why,
                Way::Nowhere => {
                    if let Some((ticket, _)) = self.pending.enter(job, Place::Software) {
                        self.pending.finish(ticket, buf, JobStatus::NoSession);
                    }
                    continue;
                }
            };
            self.stats.to_software(way);
            if let Some((ticket, job)) = self.pending.enter(job, Place::Software) {
                self.work.push(for_software(job, ticket, buf));
            }
        }
        self.submit_staged(&mut staged, now);
        if !self.work.is_empty() {
            self.run_software();
        }
        n
    }

    #[inline(always)]
    fn submit_staged(&mut self, staged: &mut usize, now: u64) {
        if *staged == 0 {
            return;
        }
        let Some(attached) = &mut self.attached else {
            return;
        };
        if self.pending.awaited() == *staged {
            // It had nothing to do before: its time starts now.
            self.health.progress(now);
        }
        attached.device.submit(&mut self.finished);
        *staged = 0;
        if !self.finished.is_empty() {
            self.sort_finished(now);
        }
    }

    #[inline(always)]
    fn way(&mut self, sessions: &dyn SessionLookup, id: SessionId, operation: Operation) -> Way {
        let known = self.known.get(id);
        if let Some(known) = known
            && let OnDevice::Ready(key) = known.device
            && known.operation == operation
        {
            return Way::Device(key);
        }
        self.other_way(sessions, id, operation)
    }

    /// The session is new here, or not in the device.
    #[cold]
    fn other_way(&mut self, sessions: &dyn SessionLookup, id: SessionId, operation: Operation) -> Way {
        let (session, device) = match self.known.get(id) {
            Some(known) => (Arc::clone(&known.session), known.device),
            None => {
                let Some(session) = sessions.session(id) else {
                    return Way::Nowhere;
                };
                if let Some(before) = self.known.enter(Arc::clone(session), OnDevice::Wanted) {
                    self.retire(before);
                }
                (Arc::clone(session), OnDevice::Wanted)
            }
        };
        if session.operation() != operation {
            return Way::Nowhere;
        }
        let Some(attached) = &mut self.attached else {
            return Way::Software(self.health.cause().map_or(Why::Removed, Why::from));
        };
        match device {
            OnDevice::Wanted if !attached.sessions.supports(&session) => {
                self.known.set_device(id, OnDevice::Never);
                Way::Software(Why::Unsupported)
            }
            OnDevice::Wanted => {
                if attached.sessions.ask(&session) {
                    self.known.set_device(id, OnDevice::Asked);
                }
                Way::Software(Why::SessionPending)
            }
            OnDevice::Asked => Way::Software(Why::SessionPending),
            OnDevice::Never => Way::Software(Why::Unsupported),
            OnDevice::Ready(_) => Way::Software(Why::Failed),
        }
    }

    /// Takes device sessions that have been made.
    #[inline(always)]
    pub(crate) fn collect_sessions(&mut self) {
        let Some(attached) = &mut self.attached else {
            return;
        };
        while let Some((session, made)) = attached.sessions.answer() {
            let id = session.id();
            if self.known.is_taken(id) {
                // One of them is gone, and most likely this.
                self.forgotten.push(id);
                continue;
            }
            match self.known.get(id).map(|known| known.device) {
                // Made before its first packet.
                None => drop(self.known.enter(session, OnDevice::Asked)),
                Some(OnDevice::Ready(_)) => continue,
                Some(_) => {}
            }
            let key = made.and_then(|made| attached.device.adopt(made));
            if key.is_some() {
                self.stats.sessions.add(1);
            }
            self.known
                .set_device(id, key.map_or(OnDevice::Never, OnDevice::Ready));
        }
    }

    /// A session is gone.
    pub(crate) fn retire(&mut self, known: crate::crypto::known::Known) {
        let id = known.session.id();
        match known.device {
            OnDevice::Ready(key) => self.leaving.push((key, id)),
            OnDevice::Asked => self.forgotten.push(id),
            OnDevice::Wanted | OnDevice::Never => {}
        }
    }

    /// Lets go of device sessions that nothing uses any more.
    pub(crate) fn release_sessions(&mut self) {
        let Some(attached) = &mut self.attached else {
            return;
        };
        let (device, forgotten, stats) = (&mut attached.device, &mut self.forgotten, &self.stats);
        self.leaving.retain(|&(key, id)| {
            let released = device.release(key);
            if released {
                forgotten.push(id);
                stats.sessions.set(stats.sessions.get().saturating_sub(1));
            }
            !released
        });
        self.forgotten.retain(|&id| !attached.sessions.forget(id));
    }
}

impl<B, D, S, P> Provider<B> for Failover<B, D, S, P>
where
    B: PacketBuf,
    D: Device<B>,
    S: Provider<B>,
    P: BufPool<Buf = B>,
{
    fn name(&self) -> &str {
        &self.name
    }

    /// Whatever the device cannot do, the software does.
    fn supports(&self, algorithm: octoplane_esp::Algorithm, esn: bool) -> bool {
        self.software.supports(algorithm, esn)
    }

    fn submit(&mut self, sessions: &dyn SessionLookup, jobs: &mut Vec<Job<B>>) -> usize {
        let now = (self.clock)();
        self.turn(now);
        self.submit_jobs(sessions, jobs, now)
    }

    fn poll(&mut self, done: &mut Vec<Job<B>>, most: usize) -> usize {
        if self.pending.len() == 0 && self.is_quiet() {
            return 0;
        }
        let now = (self.clock)();
        self.collect(now);
        self.turn(now);
        if !self.lost.is_empty() {
            self.replace_lost();
        }
        if !self.leaving.is_empty() || !self.forgotten.is_empty() {
            self.release_sessions();
        }
        let mut n = 0;
        while n < most
            && done.len() < done.capacity()
            && let Some(job) = self.pending.next()
        {
            done.push(job);
            n += 1;
        }
        self.stats.in_flight.set(self.pending.len() as u64);
        let in_device = self.attached.as_ref().map_or(0, |it| it.device.in_flight());
        self.stats.in_device.set(in_device as u64);
        n
    }

    fn in_flight(&self) -> usize {
        self.pending.len()
    }

    fn sessions_changed(&mut self, sessions: &dyn SessionLookup) {
        let mut gone = Vec::new();
        self.known.take_gone(sessions, |known| gone.push(known));
        for known in gone {
            self.retire(known);
        }
        self.release_sessions();
        self.software.sessions_changed(sessions);
    }
}
