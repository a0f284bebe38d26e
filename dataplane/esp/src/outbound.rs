//! Encapsulation (RFC 4303, section 3.3): before the cryptography and after it.

use arrayvec::ArrayVec;
use octoplane_packet::PacketBuf;

use crate::cause::{Cause, CauseCounters};
use crate::encapsulate::{Plan, UDP_CHECKSUM, build, plan, udp6_checksum};
use crate::groups::{CHUNK, Groups};
use crate::provider::{Job, JobStatus, Operation};
use crate::sa::{Sa, SaId, warm};
use crate::view::Sad;

/// A packet to encrypt. It starts with its IP header; what is behind its IP length is cut off.
#[derive(Debug)]
pub struct ToEncrypt<B> {
    /// The packet.
    pub buf: B,
    /// With which security association.
    pub sa: SaId,
    /// Of the caller: comes back in [`Processed::cookie`].
    pub cookie: [u64; 3],
}

/// A packet that ESP is through with.
#[derive(Debug)]
pub struct Processed<B> {
    /// When all went well, the packet, starting with its IP header. Else whatever is left of it: to be freed.
    pub buf: B,
    /// The security association, if one was found.
    pub sa: Option<SaId>,
    /// Of the caller.
    pub cookie: [u64; 3],
    /// Whether it may go on.
    pub outcome: Result<(), Cause>,
}

/// One worker's way out. Holds that worker's counters and nothing that lasts from burst to burst.
///
/// ```
/// use octoplane_esp::{Job, Outbound, Processed, Provider, Sad, ToEncrypt};
/// use octoplane_packet::PacketBuf;
///
/// /// `now` in nanoseconds; all vectors with room for a burst.
/// fn encrypt<B: PacketBuf>(
///     outbound: &mut Outbound,
///     provider: &mut dyn Provider<B>,
///     sad: &Sad,
///     now: u64,
///     packets: &mut Vec<ToEncrypt<B>>,
///     jobs: &mut Vec<Job<B>>,
///     done: &mut Vec<Job<B>>,
///     out: &mut Vec<Processed<B>>,
/// ) {
///     outbound.prepare(sad, now, packets, jobs, out);
///     provider.submit(sad, jobs);
///     // ... and now or later:
///     provider.poll(done, 64);
///     outbound.finish(sad, done, out);
///     for packet in out.drain(..) {
///         match packet.outcome {
///             Ok(()) => { /* route it by its new header */ }
///             Err(_cause) => { /* counted already; free the buffer */ }
///         }
///     }
/// }
/// ```
#[derive(Debug, Default)]
pub struct Outbound {
    counters: CauseCounters,
}

impl Outbound {
    /// With counters of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// How often packets were refused, by cause. The copy may be read by any thread.
    pub fn counters(&self) -> CauseCounters {
        self.counters.clone()
    }

    /// Takes all of `packets`. Those that can be encrypted become `jobs`, in their order; the others go to `refused`. `now`
    /// is in nanoseconds, of the clock that the security associations were added by.
    pub fn prepare<B: PacketBuf>(
        &mut self,
        sad: &Sad,
        now: u64,
        packets: &mut Vec<ToEncrypt<B>>,
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
        packets: &mut Vec<ToEncrypt<B>>,
        jobs: &mut Vec<Job<B>>,
        refused: &mut Vec<Processed<B>>,
    ) {
        let count = packets.len().min(CHUNK);
        let mut groups = Groups::new();
        let mut plans: ArrayVec<Result<Plan, Cause>, CHUNK> = ArrayVec::new();
        let burst = packets.iter().take(count);
        let sas: ArrayVec<Option<&Sa>, CHUNK> = burst.map(|packet| sad.place(packet.sa)).collect();
        warm(&sas);
        for (packet, sa) in packets.iter().zip(&sas) {
            let sa = sa.filter(|sa| sa.id() == packet.sa);
            plans.push(plan(sa, now, packet, &mut groups));
        }
        for share in groups.iter_mut() {
            let state = &share.sa.state;
            share.sequence = state.sequence.take(share.packets);
            share.used = state.spend_bytes(share.bytes);
        }
        for (packet, plan) in packets.drain(..count).zip(plans) {
            let ToEncrypt { mut buf, sa, cookie } = packet;
            match build(&mut buf, plan, &mut groups) {
                Ok(built) => jobs.push(Job {
                    buf,
                    session: sa,
                    operation: Operation::Encrypt,
                    status: JobStatus::Pending,
                    esp: built.esp,
                    cipher: built.cipher,
                    nonce: built.nonce,
                    aad: built.aad,
                    esn_high: built.esn_high,
                    sequence: built.sequence,
                    esp_state: built.state,
                    cookie,
                }),
                Err(cause) => refused.push(self.refuse(sad, buf, sa, cookie, cause)),
            }
        }
    }

    /// Takes all of `jobs`, which a provider is done with. What was encrypted goes on with `Ok`.
    pub fn finish<B: PacketBuf>(&mut self, sad: &Sad, jobs: &mut Vec<Job<B>>, out: &mut Vec<Processed<B>>) {
        for job in jobs.drain(..) {
            let Job {
                mut buf,
                session: sa,
                cookie,
                status,
                esp_state,
                ..
            } = job;
            let outcome = match status {
                JobStatus::Ok if esp_state & UDP_CHECKSUM != 0 => udp6_checksum(buf.data_mut()),
                JobStatus::Ok => Ok(()),
                JobStatus::NoSession => Err(Cause::NoSa),
                _ => Err(Cause::Device),
            };
            match outcome {
                Ok(()) => out.push(Processed {
                    buf,
                    sa: Some(sa),
                    cookie,
                    outcome: Ok(()),
                }),
                Err(cause) => out.push(self.refuse(sad, buf, sa, cookie, cause)),
            }
        }
    }

    #[cold]
    fn refuse<B>(&mut self, sad: &Sad, buf: B, id: SaId, cookie: [u64; 3], cause: Cause) -> Processed<B> {
        self.counters.count(cause);
        let sa = sad.get(id);
        if let Some(sa) = sa {
            sa.count(cause);
        }
        Processed {
            buf,
            sa: sa.map(|sa| sa.id()),
            cookie,
            outcome: Err(cause),
        }
    }
}
