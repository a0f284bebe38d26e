//! What comes back: from the device, from the software, to the caller.

use octoplane_esp::{JobStatus, Provider};
use octoplane_packet::{BufPool, PacketBuf};

use crate::crypto::device::{Device, Finished, Outcome, close_gap, may_try_again};
use crate::crypto::failover::{Failover, PROBE, for_software};
use crate::crypto::health::Cause;
use crate::crypto::stats::Why;

/// Turns without any progress after which the software counts as stuck, which it never is.
const STUCK: u32 = 1000;

impl<B, D, S, P> Failover<B, D, S, P>
where
    B: PacketBuf,
    D: Device<B>,
    S: Provider<B>,
    P: BufPool<Buf = B>,
{
    /// Takes what the device is finished with.
    #[inline(always)]
    pub(crate) fn collect(&mut self, now: u64) {
        let Some(attached) = &mut self.attached else {
            return;
        };
        if attached.device.in_flight() == 0 {
            return;
        }
        attached.device.poll(&mut self.finished);
        if self.finished.is_empty() {
            return;
        }
        self.health.progress(now);
        self.sort_finished(now);
    }

    /// Looks at what came back, and gives the software what it has to do of it.
    #[inline(always)]
    pub(crate) fn sort_finished(&mut self, now: u64) {
        let mut finished = std::mem::take(&mut self.finished);
        let mut too_many = false;
        for one in finished.drain(..) {
            too_many |= self.sort(one, now);
        }
        self.finished = finished;
        if too_many {
            self.give_up(Cause::Errors, now);
        }
        if !self.work.is_empty() {
            self.run_software();
        }
    }

    /// Whether this was one failure too many.
    #[inline(always)]
    fn sort(&mut self, one: Finished<B>, now: u64) -> bool {
        let Finished {
            ticket,
            mut buf,
            outcome,
        } = one;
        if ticket == PROBE {
            self.probed(&buf, outcome, now);
            return false;
        }
        let Some(job) = self.pending.returned(ticket) else {
            self.stats.late.add(1);
            return false;
        };
        close_gap(job, &mut buf);
        let status = match outcome {
            Outcome::Done => JobStatus::Ok,
            Outcome::AuthFailed => JobStatus::AuthFailed,
            Outcome::Full | Outcome::Refused | Outcome::Broken => return self.failed(ticket, buf, outcome),
        };
        self.health.success();
        self.stats.device.add(1);
        self.pending.finish(ticket, buf, status);
        false
    }

    /// The device did not do it. Whether this was one failure too many.
    #[cold]
    fn failed(&mut self, ticket: u32, buf: B, outcome: Outcome) -> bool {
        let Some(job) = self.pending.job(ticket) else {
            return false;
        };
        if outcome == Outcome::Broken && !may_try_again(job.operation) {
            self.stats.lost.add(1);
            self.pending.finish(ticket, buf, JobStatus::DeviceError);
            return self.health.failure();
        }
        self.work.push(for_software(job, ticket, buf));
        if outcome == Outcome::Broken {
            // A wrong ICV then is the device's doing, not the sender's.
            self.broken.push(ticket);
        }
        self.pending.give_to_software(ticket);
        if outcome == Outcome::Full {
            // Nothing wrong with that.
            self.stats.to_software(Why::Full);
            return false;
        }
        self.stats.to_software(Why::Failed);
        self.health.failure()
    }

    /// Has the software do all its work, at once.
    pub(crate) fn run_software(&mut self) {
        let mut stuck = 0;
        while !self.work.is_empty() || self.software.in_flight() > 0 {
            let taken = self.software.submit(&self.known, &mut self.work);
            let back = self.software.poll(&mut self.worked, usize::MAX);
            stuck = if taken + back == 0 { stuck + 1 } else { 0 };
            for job in self.worked.drain(..) {
                let ticket = job.cookie[0] as u32;
                let status = match job.status {
                    JobStatus::AuthFailed if self.broken.contains(&ticket) => JobStatus::DeviceError,
                    status => status,
                };
                self.pending.finish(ticket, job.buf, status);
            }
            if stuck > STUCK {
                for job in self.work.drain(..) {
                    let ticket = job.cookie[0] as u32;
                    self.pending.finish(ticket, job.buf, JobStatus::NotProcessed);
                }
                break;
            }
        }
        self.broken.clear();
    }

    /// Gives jobs whose packets the device keeps other buffers to go back with, as far as there are any.
    pub(crate) fn replace_lost(&mut self) {
        let (pool, pending) = (&mut self.pool, &mut self.pending);
        self.lost.retain(|&ticket| match pool.alloc() {
            Some(buf) => {
                pending.finish(ticket, buf, JobStatus::DeviceError);
                false
            }
            None => true,
        });
    }
}
