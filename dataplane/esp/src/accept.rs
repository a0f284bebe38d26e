//! Verified packets against the replay window and the lifetime.

use arrayvec::ArrayVec;

use crate::cause::Cause;
use crate::groups::CHUNK;
use crate::provider::Job;
use crate::replay::Replay;
use crate::sa::{Sa, Used};

impl Replay {
    /// The same, as it is counted.
    pub(crate) fn cause(self) -> Cause {
        match self {
            Self::Duplicate => Cause::ReplayDuplicate,
            Self::TooOld => Cause::ReplayOld,
        }
    }
}

/// The verified packets of one security association in a burst, as a chain through their numbers.
pub(crate) struct Accepting<'a> {
    sa: &'a Sa,
    members: ArrayVec<u8, CHUNK>,
}

impl<'a> Accepting<'a> {
    pub(crate) fn new(sa: &'a Sa) -> Self {
        Self {
            sa,
            members: ArrayVec::new_const(),
        }
    }

    #[inline(always)]
    pub(crate) fn add(&mut self, member: usize) {
        // A burst has no more members than this has room for.
        let _ = self.members.try_push(member as u8);
    }

    /// Updates the replay window and the lifetime.
    pub(crate) fn accept<B>(&self, jobs: &[Job<B>], verdicts: &mut [Result<&'a Sa, Cause>]) {
        let mut numbers = [0; CHUNK];
        let mut accepted = [Ok(()); CHUNK];
        let mut bytes = 0;
        let jobs = self
            .members
            .iter()
            .filter_map(|member| jobs.get(usize::from(*member)));
        let mut lens: ArrayVec<u64, CHUNK> = ArrayVec::new();
        for (number, job) in numbers.iter_mut().zip(jobs) {
            *number = job.sequence;
            lens.push(job.cipher.len.into());
        }
        let count = lens.len();
        self.sa
            .state
            .replay
            .accept_all(&numbers[..count], &mut accepted[..count]);
        let mut packets = 0;
        for (len, accepted) in lens.iter().zip(&accepted) {
            if accepted.is_ok() {
                packets += 1;
                bytes += len;
            }
        }
        let mut used = self.sa.state.spend(packets, bytes);
        for ((member, len), accepted) in self.members.iter().zip(&lens).zip(accepted) {
            let Some(verdict) = verdicts.get_mut(usize::from(*member)) else {
                continue;
            };
            match accepted {
                Err(replay) => *verdict = Err(replay.cause()),
                Ok(()) => {
                    if self.sa.over(used) {
                        *verdict = Err(Cause::Expired);
                    }
                    used = Used {
                        packets: used.packets + 1,
                        bytes: used.bytes + len,
                    };
                }
            }
        }
    }
}
