//! The provider that uses a device while it works, and software for everything else.

use std::sync::Arc;

use octoplane_esp::{Job, JobStatus, Provider, SessionId};
use octoplane_packet::{BufPool, PacketBuf};

use crate::crypto::device::{Device, Finished, Outcome, SessionKey, Ticket, close_gap, join};
use crate::crypto::health::{Cause, Health, Limits, State};
use crate::crypto::known::{KnownSessions, OnDevice, SessionClient};
use crate::crypto::mailbox::Mailbox;
use crate::crypto::pending::Pending;
use crate::crypto::probe::Probe;
use crate::crypto::stats::{ProviderStats, Why};

/// The ticket of the probe, which is no job's.
pub(crate) const PROBE: Ticket = Ticket::MAX;

/// A device as a worker has it, with what belongs to it.
pub struct Attached<D, T> {
    /// The way to it.
    pub device: D,
    /// Where its sessions come from.
    pub sessions: Box<dyn SessionClient<T>>,
    /// What shows whether it works. Without, it is believed to after a while.
    pub probe: Option<Probe<T>>,
}

impl<D, T> std::fmt::Debug for Attached<D, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attached").finish_non_exhaustive()
    }
}

/// The mailbox for a device of this type.
pub type DeviceMailbox<B, D> = Mailbox<Attached<D, <D as Device<B>>::Session>>;

/// What a [`Failover`] is made of.
pub struct FailoverParts<B: PacketBuf, D: Device<B>, S, P> {
    /// Name in statistics.
    pub name: String,
    /// What does everything the device does not.
    pub software: S,
    /// Where a buffer comes from when the device keeps one, and for the probe.
    pub pool: P,
    /// How devices come and go; the first one is waiting there.
    pub mailbox: Arc<DeviceMailbox<B, D>>,
    /// Most jobs at a time. More than the device has room for, so that what finds it full can be done in software and wait
    /// for its turn.
    pub in_flight: usize,
    /// When the device is given up.
    pub limits: Limits,
    /// The clock that `limits` are in.
    pub clock: fn() -> u64,
    /// The counters.
    pub stats: Arc<ProviderStats>,
}

/// A device with software behind it. All jobs go back in the order in which they came.
///
/// A job goes to the software, in the burst in which that turns out, if the device does not support it, has no session
/// of it yet, is full, refuses it, is not used, or is gone. Packets that the device has when it is given up are lost unless
/// it does not write to them ([`Device::original`]); so is one that it broke while encrypting.
pub struct Failover<B: PacketBuf, D: Device<B>, S, P> {
    pub(crate) name: String,
    pub(crate) software: S,
    pub(crate) pool: P,
    pub(crate) mailbox: Arc<DeviceMailbox<B, D>>,
    pub(crate) attached: Option<Attached<D, D::Session>>,
    pub(crate) known: KnownSessions,
    pub(crate) pending: Pending<B>,
    pub(crate) health: Health,
    limits: Limits,
    pub(crate) clock: fn() -> u64,
    pub(crate) stats: Arc<ProviderStats>,
    /// What came back from the device and has not been looked at. Empty between calls, as is the next.
    pub(crate) finished: Vec<Finished<B>>,
    /// What goes to the software.
    pub(crate) work: Vec<Job<B>>,
    pub(crate) worked: Vec<Job<B>>,
    /// Jobs in `work` that the device may have broken.
    pub(crate) broken: Vec<Ticket>,
    /// Jobs whose packets are lost, waiting for another buffer.
    pub(crate) lost: Vec<Ticket>,
    /// Device sessions that are no longer wanted, but that packets in the device may use.
    pub(crate) leaving: Vec<(SessionKey, SessionId)>,
    /// Sessions that are gone and whose maker has not been told.
    pub(crate) forgotten: Vec<SessionId>,
}

impl<B: PacketBuf, D: Device<B>, S, P> std::fmt::Debug for Failover<B, D, S, P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Failover")
            .field("name", &self.name)
            .field("health", &self.health)
            .field("in_flight", &self.pending.len())
            .finish_non_exhaustive()
    }
}

impl<B, D, S, P> Failover<B, D, S, P>
where
    B: PacketBuf,
    D: Device<B>,
    S: Provider<B>,
    P: BufPool<Buf = B>,
{
    /// Allocates everything that does not depend on the number of sessions. The device in the mailbox is taken with the
    /// first call, on the worker's thread.
    pub fn new(parts: FailoverParts<B, D, S, P>) -> Self {
        let FailoverParts {
            name,
            software,
            pool,
            mailbox,
            in_flight,
            limits,
            clock,
            stats,
        } = parts;
        let mut new = Self {
            name,
            software,
            pool,
            mailbox,
            attached: None,
            known: KnownSessions::default(),
            pending: Pending::new(in_flight),
            health: Health::new(limits),
            limits,
            clock,
            stats,
            finished: Vec::with_capacity(in_flight),
            work: Vec::with_capacity(in_flight),
            worked: Vec::with_capacity(in_flight),
            broken: Vec::with_capacity(in_flight),
            lost: Vec::with_capacity(in_flight),
            leaving: Vec::new(),
            forgotten: Vec::new(),
        };
        new.health.down_until(Cause::Removed, u64::MAX);
        new.stats.set_state(Some(Cause::Removed));
        new
    }

    /// Whether nothing is to be done beside jobs.
    #[inline(always)]
    pub(crate) fn is_quiet(&self) -> bool {
        let Some(attached) = &self.attached else {
            return false;
        };
        self.health.is_up()
            && attached.device.in_flight() == 0
            && !self.mailbox.is_wanted_back()
            && self.leaving.is_empty()
            && self.forgotten.is_empty()
    }

    /// What there is to do beside the jobs, at the start of each burst.
    #[inline(always)]
    pub(crate) fn turn(&mut self, now: u64) {
        if self.attached.is_none() {
            self.attach_offered();
            return;
        }
        if self.mailbox.is_wanted_back() {
            return self.leave(now);
        }
        if !self.health.is_up() {
            self.turn_down(now);
        }
        if self.is_overdue(now) && self.is_silent_when_asked(now) {
            self.give_up(Cause::Silent, now);
        }
        self.collect_sessions();
    }

    /// Whether something should have come back from the device by now.
    #[inline(always)]
    fn is_overdue(&self, now: u64) -> bool {
        let waiting = self.pending.awaited() > 0 || matches!(self.health.state, State::Probing { .. });
        waiting && self.health.is_silent(now)
    }

    /// Whether a device that is overdue has nothing to give back. The worker may have been held up since it last asked: what
    /// the device finished meanwhile is no silence, and must not be lost.
    #[cold]
    fn is_silent_when_asked(&mut self, now: u64) -> bool {
        self.collect(now);
        self.is_overdue(now)
    }

    /// Takes the device that control offers, if there is none.
    fn attach_offered(&mut self) {
        let Some(mut attached) = self.mailbox.take_offer() else {
            return;
        };
        if let Some(probe) = &mut attached.probe {
            probe.key = attached.device.adopt(Arc::clone(&probe.session));
        }
        self.attached = Some(attached);
        // Whatever it is, it has to show first that it works.
        self.health = Health::new(self.limits);
        self.health.down_until(Cause::Removed, 0);
        self.try_again((self.clock)());
    }

    /// The device is to go: first what it has comes back, as far as it does.
    fn leave(&mut self, now: u64) {
        if self.health.cause() != Some(Cause::Removed) {
            self.health.down_until(Cause::Removed, u64::MAX);
            self.stats.set_state(Some(Cause::Removed));
            self.stats.failures[Cause::Removed as usize].add(1);
        }
        if self.pending.awaited() > 0 {
            if !self.is_overdue(now) || !self.is_silent_when_asked(now) {
                return;
            }
            self.abandon(Cause::Removed);
        }
        for known in self.known.iter_mut() {
            known.device = OnDevice::Wanted;
        }
        self.leaving.clear();
        self.pending.nothing_held();
        self.stats.sessions.set(0);
        if let Some(attached) = self.attached.take() {
            self.mailbox.give_back(attached);
        }
    }

    /// The device is not used: perhaps it is time to try it again.
    fn turn_down(&mut self, now: u64) {
        if self.health.is_due(now) {
            self.try_again(now);
        }
    }

    /// Sends the probe, or believes in a device that has none.
    fn try_again(&mut self, now: u64) {
        let Some(attached) = &mut self.attached else {
            return;
        };
        let Some(probe) = &attached.probe else {
            return self.recovered();
        };
        let sent = probe.key.is_some_and(|key| {
            let Some(mut buf) = self.pool.alloc() else {
                return false;
            };
            if attached.device.room() == 0 || !probe.fill(&mut buf) {
                return false;
            }
            attached.device.stage(PROBE, key, probe.job(), buf);
            attached.device.submit(&mut self.finished);
            self.finished.is_empty()
        });
        self.finished.clear();
        if sent {
            self.health.probing(now);
        } else if let Some(cause) = self.health.cause() {
            self.health.down(cause, now);
        }
    }

    /// The probe came back.
    pub(crate) fn probed(&mut self, buf: &B, outcome: Outcome, now: u64) {
        let State::Probing { cause } = self.health.state else {
            return;
        };
        let probe = self
            .attached
            .as_ref()
            .and_then(|attached| attached.probe.as_ref());
        let right = probe.is_none_or(|probe| probe.is_right(buf));
        match outcome {
            Outcome::Done if right => self.recovered(),
            Outcome::Done => self.give_up(Cause::WrongResult, now),
            _ => self.health.down(cause, now),
        }
    }

    fn recovered(&mut self) {
        self.health.up();
        self.stats.set_state(None);
        self.stats.recoveries.add(1);
    }

    /// The device is given up for a while, and everything is done in software.
    pub(crate) fn give_up(&mut self, cause: Cause, now: u64) {
        self.health.down(cause, now);
        self.stats.set_state(Some(cause));
        self.stats.failures[cause as usize].add(1);
        self.abandon(cause);
    }

    /// Nobody waits for the device any more. What it has is saved where that is possible.
    fn abandon(&mut self, cause: Cause) {
        self.pending.give_up(&mut self.lost);
        if let Some(attached) = &self.attached {
            let (device, pool, pending) = (&attached.device, &mut self.pool, &self.pending);
            let (work, stats) = (&mut self.work, &self.stats);
            self.lost.retain(|&ticket| {
                let Some((job, buf)) = save(device, pool, pending, ticket) else {
                    return true;
                };
                work.push(for_software(job, ticket, buf));
                stats.to_software(Why::from(cause));
                false
            });
        }
        self.stats.lost.add(self.lost.len() as u64);
        self.run_software();
        self.replace_lost();
    }
}

/// A copy of a packet that the device has but does not write to.
fn save<'a, B: PacketBuf, D: Device<B>>(
    device: &D,
    pool: &mut impl BufPool<Buf = B>,
    pending: &'a Pending<B>,
    ticket: Ticket,
) -> Option<(&'a Job<()>, B)> {
    let job = pending.job(ticket)?;
    let bytes = device.original(ticket)?;
    let mut buf = pool.alloc()?;
    buf.append(bytes.len()).ok()?.copy_from_slice(bytes);
    close_gap(job, &mut buf);
    Some((job, buf))
}

/// A job for the software, which brings its ticket back.
#[inline(always)]
pub(crate) fn for_software<B>(job: &Job<()>, ticket: Ticket, buf: B) -> Job<B> {
    let mut job = join(job, buf);
    job.status = JobStatus::Pending;
    job.cookie[0] = u64::from(ticket);
    job
}
