//! Decapsulation (RFC 4303, section 3.4): before the cryptography and after it.

use std::hint::black_box;

use arrayvec::ArrayVec;
use octoplane_packet::PacketBuf;
use octoplane_packet::headers::protocol;

use crate::cause::{Cause, CauseCounters};
use crate::decapsulate::decapsulate;
use crate::groups::{CHUNK, Groups};
use crate::ip;
use crate::outbound::Processed;
use crate::provider::{Job, JobStatus, Operation, Span};
use crate::replay::Replay;
use crate::sa::{ESP_HEADER_LEN, Sa, SaId, TRAILER_LEN, UDP_LEN, Used, warm};
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

/// In [`Job::esp_state`]: the byte that names ESP, and whether UDP is in between.
const UDP: u64 = 1 << 16;

pub(crate) const NAMED_AT: u64 = 0xffff;

impl Replay {
    fn cause(self) -> Cause {
        match self {
            Self::Duplicate => Cause::ReplayDuplicate,
            Self::TooOld => Cause::ReplayOld,
        }
    }
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
            out.push(match outcome {
                Ok(()) => Processed {
                    buf,
                    sa: Some(session),
                    cookie,
                    outcome: Ok(()),
                },
                Err(cause) => self.refuse(sad.get(session).map(|sa| &**sa), buf, cookie, cause),
            });
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

/// The verified packets of one security association in a burst, as a chain through their numbers.
struct Accepting<'a> {
    sa: &'a Sa,
    members: ArrayVec<u8, CHUNK>,
}

impl<'a> Accepting<'a> {
    fn new(sa: &'a Sa) -> Self {
        Self {
            sa,
            members: ArrayVec::new_const(),
        }
    }

    #[inline(always)]
    fn add(&mut self, member: usize) {
        // A burst has no more members than this has room for.
        let _ = self.members.try_push(member as u8);
    }

    /// Updates the replay window and the lifetime.
    fn accept<B>(&self, jobs: &[Job<B>], verdicts: &mut [Result<&'a Sa, Cause>]) {
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

/// The parts of a job that the packet determines.
struct Examined {
    session: SaId,
    esp: u16,
    cipher: Span,
    nonce: [u8; 16],
    aad: [u8; 12],
    esn_high: Option<u32>,
    sequence: u64,
    esp_state: u64,
}

/// What the headers in front of ESP say.
struct Outer {
    /// What the security association is found by: SPI, destination, source, mark.
    key: (u32, ip::Addr, ip::Addr, u32),
    /// Lower half of the sequence number.
    low: u32,
    /// Where the ESP header starts, and the ICV ends.
    esp: usize,
    end: usize,
    /// For [`Job::esp_state`].
    state: u64,
}

/// The first look: what the security association is found by.
#[inline]
fn outer(data: &[u8], mark: u32) -> Result<Outer, Cause> {
    let packet = ip::parse(data)?;
    let upper = ip::upper(data, &packet, true)?;
    let mut state = upper.named_at as u64;
    let (esp, end) = match upper.protocol {
        ip::ESP => (upper.offset, packet.len),
        protocol::UDP => {
            state |= UDP;
            in_udp(data, upper.offset, packet.len)?
        }
        _ => return Err(Cause::NotEsp),
    };
    let header: &[u8; ESP_HEADER_LEN] = data
        .get(esp..end)
        .and_then(|data| data.first_chunk())
        .ok_or(Cause::TooShort)?;
    let [s0, s1, s2, s3, n0, n1, n2, n3] = *header;
    let spi = u32::from_be_bytes([s0, s1, s2, s3]);
    Ok(Outer {
        key: (spi, packet.dst, packet.src, mark),
        low: u32::from_be_bytes([n0, n1, n2, n3]),
        esp,
        end,
        state,
    })
}

/// Everything else before the cryptography.
#[inline]
fn examine<B: PacketBuf>(sa: &Sa, now: u64, buf: &mut B, outer: &Outer) -> Result<Examined, Cause> {
    let Outer {
        low, esp, end, state, ..
    } = *outer;
    if sa.in_udp != (state & UDP != 0) {
        return Err(Cause::Encapsulation);
    }
    if now >= sa.deadline || (sa.limited && sa.over(sa.used())) {
        return Err(Cause::Expired);
    }
    let text = esp + ESP_HEADER_LEN + usize::from(sa.iv_len);
    let cipher_len = end
        .checked_sub(text + usize::from(sa.icv_len))
        .filter(|len| *len >= TRAILER_LEN)
        .ok_or(Cause::TooShort)?;
    if cipher_len % usize::from(sa.alignment) != 0 {
        return Err(Cause::Malformed);
    }
    let sequence = match sa.esn {
        true => sa.state.replay.infer(low).ok_or(Cause::ReplayOld)?,
        false => low.into(),
    };
    sa.state.replay.check(sequence).map_err(Replay::cause)?;
    let data = buf.data();
    let iv = data.get(esp + ESP_HEADER_LEN..text).ok_or(Cause::TooShort)?;
    let nonce = sa.nonce(iv).ok_or(Cause::TooShort)?;
    let excess = data.len() - end;
    if excess > 0 {
        buf.trim_back(excess).map_err(|_| Cause::Malformed)?;
    }
    let (aad, esn_high) = sa.aad(sequence);
    if esn_high.is_some() && buf.tailroom() < 4 {
        return Err(Cause::NoRoom);
    }
    Ok(Examined {
        session: sa.id(),
        esp: esp as u16,
        cipher: Span {
            offset: text as u16,
            len: cipher_len as u16,
        },
        nonce,
        aad,
        esn_high,
        sequence,
        esp_state: state,
    })
}

/// Where ESP starts and ends in a UDP datagram (RFC 3948, section 2).
fn in_udp(data: &[u8], at: usize, end: usize) -> Result<(usize, usize), Cause> {
    let datagram = data.get(at..end).ok_or(Cause::TooShort)?;
    let Some([_, _, _, _, len_high, len_low, _, _]) = datagram.first_chunk::<UDP_LEN>() else {
        return Err(Cause::TooShort);
    };
    let len = usize::from(u16::from_be_bytes([*len_high, *len_low]));
    let payload = datagram.get(UDP_LEN..len).ok_or(Cause::Malformed)?;
    match payload {
        [0xff] => Err(Cause::Keepalive),
        // IKE, behind the marker that no SPI looks like.
        [0, 0, 0, 0, ..] => Err(Cause::NotEsp),
        _ => Ok((at + UDP_LEN, at + len)),
    }
}
