//! Decapsulation (RFC 4303, section 3.4): before the cryptography and after it.

use std::hint::black_box;

use arrayvec::ArrayVec;
use octoplane_packet::PacketBuf;

use crate::accept::Accepting;
use crate::cause::{Cause, CauseCounters};
use crate::decapsulate::decapsulate;
use crate::examine::{Outer, examine, outer};
use crate::groups::{CHUNK, Groups};
use crate::outbound::Processed;
use crate::provider::{Job, JobStatus, Operation};
use crate::sa::{Sa, warm};
use crate::view::Sad;

/// A packet to decrypt. It starts with its outer IP header; what is behind its IP length is cut off.
#[derive(Debug)]
pub struct ToDecrypt<B> {
    /// The packet.
    pub buf: B,
    /// Its mark, for security associations that ask for one.
    pub mark: u32,
    /// Of the caller: comes back in [`Processed::cookie`].
    pub cookie: [u64; 3],
}

/// One worker's way in. Holds that worker's counters and nothing that lasts from burst to burst. Used like
/// [`crate::Outbound`]. What [`Inbound::finish`] lets through starts with the IP header that was protected, in transport
/// mode the packet's own.
#[derive(Debug, Default)]
pub struct Inbound {
    counters: CauseCounters,
}

impl Inbound {
    /// With counters of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// How often packets were refused, by cause. The copy may be read by any thread.
    pub fn counters(&self) -> CauseCounters {
        self.counters.clone()
    }

    /// Takes all of `packets`. Those worth decrypting become `jobs`, in their order; the others go to `refused`. `now` is in
    /// nanoseconds, of the clock that the security associations were added by.
    pub fn prepare<B: PacketBuf>(
        &mut self,
        sad: &Sad,
        now: u64,
        packets: &mut Vec<ToDecrypt<B>>,
        jobs: &mut Vec<Job<B>>,
        refused: &mut Vec<Processed<B>>,
    ) {
        while !packets.is_empty() {
            self.prepare_chunk(sad, now, packets, jobs, refused);
        }
    }

    fn prepare_chunk<B: PacketBuf>(
        &mut self,
        sad: &Sad,
        now: u64,
        packets: &mut Vec<ToDecrypt<B>>,
        jobs: &mut Vec<Job<B>>,
        refused: &mut Vec<Processed<B>>,
    ) {
        let count = packets.len().min(CHUNK);
        let burst = packets.iter().take(count);
        let outers: ArrayVec<Result<Outer, Cause>, CHUNK> = burst
            .map(|packet| outer(packet.buf.data(), packet.mark))
            .collect();
        let keys = || {
            outers
                .iter()
                .map(|outer| outer.as_ref().ok().map(|outer| outer.key))
        };
        if keys().zip(keys().skip(1)).any(|(one, other)| one != other) {
            // Fetched side by side.
            let touch = |(spi, dst, src, _)| sad.touch_inbound(spi, dst, src);
            black_box(keys().flatten().filter(|key| touch(*key)).count());
        }
        let mut sas: ArrayVec<Option<&Sa>, CHUNK> = ArrayVec::new();
        let mut last = None;
        for outer in &outers {
            let key = outer.as_ref().ok().map(|outer| outer.key);
            if key != last || sas.is_empty() {
                sas.push(
                    key.and_then(|(spi, dst, src, mark)| sad.inbound(spi, dst, src, mark))
                        .map(|sa| &**sa),
                );
                last = key;
            } else {
                sas.push(sas.last().copied().flatten());
            }
        }
        if warm(&sas) {
            let lows = outers
                .iter()
                .map(|outer| outer.as_ref().map_or(0, |outer| outer.low));
            let words = sas
                .iter()
                .zip(lows)
                .filter_map(|(sa, low)| Some(sa.as_ref()?.state.replay.touch(low)));
            black_box(words.fold(0, |all, word| all ^ word));
        }
        for ((packet, outer), sa) in packets.drain(..count).zip(outers).zip(sas) {
            let ToDecrypt { mut buf, cookie, .. } = packet;
            let examined = outer.and_then(|outer| {
                let sa = sa.ok_or(Cause::UnknownSpi)?;
                examine(sa, now, &mut buf, &outer)
            });
            match examined {
                Ok(job) => jobs.push(Job {
                    buf,
                    session: job.session,
                    operation: Operation::Decrypt,
                    status: JobStatus::Pending,
                    esp: job.esp,
                    cipher: job.cipher,
                    nonce: job.nonce,
                    aad: job.aad,
                    esn_high: job.esn_high,
                    sequence: job.sequence,
                    esp_state: job.esp_state,
                    cookie,
                }),
                Err(cause) => refused.push(self.refuse(sa, buf, cookie, cause)),
            }
        }
    }

    /// Takes all of `jobs`, which a provider is done with: updates replay windows, and decapsulates. Packets that were not
    /// seen before go on with `Ok`.
    pub fn finish<B: PacketBuf>(&mut self, sad: &Sad, jobs: &mut Vec<Job<B>>, out: &mut Vec<Processed<B>>) {
        while !jobs.is_empty() {
            self.finish_chunk(sad, jobs, out);
        }
    }

    fn finish_chunk<B: PacketBuf>(&mut self, sad: &Sad, jobs: &mut Vec<Job<B>>, out: &mut Vec<Processed<B>>) {
        let count = jobs.len().min(CHUNK);
        let mut verdicts: ArrayVec<Result<&Sa, Cause>, CHUNK> = ArrayVec::new();
        let mut groups: Groups<Accepting<'_>> = Groups::new();
        for (member, job) in jobs.iter().take(count).enumerate() {
            let verdict = match job.status {
                JobStatus::Ok => sad.get(job.session).map(|sa| &**sa).ok_or(Cause::NoSa),
                JobStatus::AuthFailed => Err(Cause::Auth),
                JobStatus::NoSession => Err(Cause::NoSa),
                _ => Err(Cause::Device),
            };
            if let Ok(sa) = verdict
                && let Some(number) = groups.of(job.session, || Accepting::new(sa))
                && let Some(group) = groups.get_mut(number)
            {
                group.add(member);
            }
            verdicts.push(verdict);
        }
        for group in groups.iter_mut() {
            group.accept(jobs, &mut verdicts);
        }
        for (job, verdict) in jobs.drain(..count).zip(verdicts) {
            let Job {
                mut buf,
                session,
                esp,
                cipher,
                esp_state,
                cookie,
                ..
            } = job;
            let outcome = verdict.and_then(|sa| decapsulate(&mut buf, sa, esp, cipher, esp_state));
            match outcome {
                Ok(()) => out.push(Processed {
                    buf,
                    sa: Some(session),
                    cookie,
                    outcome: Ok(()),
                }),
                Err(cause) => {
                    let refused = self.refuse(sad.get(session).map(|sa| &**sa), buf, cookie, cause);
                    out.push(refused);
                }
            }
        }
    }

    #[cold]
    fn refuse<B>(&mut self, sa: Option<&Sa>, buf: B, cookie: [u64; 3], cause: Cause) -> Processed<B> {
        self.counters.count(cause);
        if let Some(sa) = sa {
            sa.count(cause);
        }
        Processed {
            buf,
            sa: sa.map(Sa::id),
            cookie,
            outcome: Err(cause),
        }
    }
}
