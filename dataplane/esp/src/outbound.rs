//! Encapsulation (RFC 4303, section 3.3): before the cryptography and after it.

use arrayvec::ArrayVec;
use octoplane_packet::headers::{IPV6_LEN, protocol};
use octoplane_packet::{PacketBuf, checksum};

use crate::cause::{Cause, CauseCounters};
use crate::groups::{CHUNK, Groups};
use crate::ip;
use crate::provider::{Job, JobStatus, Operation, Span};
use crate::sa::{Direction, ESP_HEADER_LEN, Mode, Sa, SaId, TRAILER_LEN, UDP_LEN, Used, udp_header};
use crate::sequence::NoNumbers;
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
///     provider.poll(done);
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

/// What the first look at a packet found.
struct Plan {
    group: usize,
    inner: ip::Packet,
    /// Bytes before what is encrypted: 0 in tunnel mode, the headers in transport mode.
    kept: usize,
    /// The byte that names the protocol behind those.
    named_at: usize,
    /// For the trailer.
    next_header: u8,
    padding: usize,
}

/// A group's share of what all workers share.
struct Share<'a> {
    sa: &'a Sa,
    packets: u64,
    bytes: u64,
    sequence: std::ops::Range<u64>,
    used: Used,
}

/// Padding of any length (RFC 4303, section 2.4).
const PADDING: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

/// In [`Job::esp_state`]: the UDP checksum has to be made. IPv6 knows no UDP without one, and Linux insists.
const UDP_CHECKSUM: u64 = 1;

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
        for packet in packets.iter().take(count) {
            plans.push(plan(sad, now, packet, &mut groups));
        }
        for share in groups.iter_mut() {
            share.used = share.sa.spend(share.packets, share.bytes);
            share.sequence = share.sa.state.shared.sequence.take(share.packets);
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
            out.push(match outcome {
                Ok(()) => Processed {
                    buf,
                    sa: Some(sa),
                    cookie,
                    outcome: Ok(()),
                },
                Err(cause) => self.refuse(sad, buf, sa, cookie, cause),
            });
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

/// The first look: everything that does not need a sequence number.
#[inline]
fn plan<'a, B: PacketBuf>(
    sad: &'a Sad,
    now: u64,
    packet: &ToEncrypt<B>,
    groups: &mut Groups<Share<'a>>,
) -> Result<Plan, Cause> {
    let sa = sad.get(packet.sa).ok_or(Cause::NoSa)?;
    if sa.config().direction != Direction::Outbound {
        return Err(Cause::NoSa);
    }
    if now >= sa.deadline {
        return Err(Cause::Expired);
    }
    let data = packet.buf.data();
    let inner = ip::parse(data)?;
    let (kept, named_at, next_header) = match sa.config().mode {
        Mode::Tunnel if inner.version == 4 => (0, 0, ip::IPV4),
        Mode::Tunnel => (0, 0, ip::IPV6),
        Mode::Transport => {
            let upper = ip::upper(data, &inner, false)?;
            (upper.offset, upper.named_at, upper.protocol)
        }
    };
    let text = inner.len - kept + TRAILER_LEN;
    let padded = text.next_multiple_of(sa.alignment);
    let new = || Share {
        sa,
        packets: 0,
        bytes: 0,
        sequence: 0..0,
        used: Used::default(),
    };
    let group = groups.of(packet.sa, new).ok_or(Cause::Malformed)?;
    let share = groups.get_mut(group).ok_or(Cause::Malformed)?;
    share.packets += 1;
    share.bytes += padded as u64;
    Ok(Plan {
        group,
        inner,
        kept,
        named_at,
        next_header,
        padding: padded - text,
    })
}

/// The parts of a job that the packet determines.
struct Built {
    esp: u16,
    cipher: Span,
    nonce: [u8; 16],
    aad: [u8; 12],
    esn_high: Option<u32>,
    sequence: u64,
    state: u64,
}

#[inline]
fn build<B: PacketBuf>(
    buf: &mut B,
    plan: Result<Plan, Cause>,
    groups: &mut Groups<Share<'_>>,
) -> Result<Built, Cause> {
    let plan = plan?;
    let share = groups.get_mut(plan.group).ok_or(Cause::NoSa)?;
    let sa = share.sa;
    let cipher_len = plan.inner.len - plan.kept + plan.padding + TRAILER_LEN;
    // Each packet has its own place in the count, whatever other workers do: hard limits are exact.
    let used = share.used;
    share.used.packets += 1;
    share.used.bytes += cipher_len as u64;
    if sa.over(used) {
        return Err(Cause::Expired);
    }
    let sequence = share
        .sequence
        .next()
        .ok_or_else(|| match sa.state.shared.sequence.why_none() {
            NoNumbers::Exhausted => Cause::SequenceExhausted,
            NoNumbers::NotReserved => Cause::SequenceNotReserved,
        })?;

    let nat_traversal = sa.config().nat_traversal;
    let (outer_len, udp_len) = match (&sa.outer, nat_traversal) {
        (Some(outer), _) => (outer.len, 0),
        (None, Some(_)) => (plan.kept, UDP_LEN),
        (None, None) => (plan.kept, 0),
    };
    let esp = outer_len + udp_len;
    let text = esp + ESP_HEADER_LEN + sa.iv_len;
    let icv = text + cipher_len;
    let total = icv + sa.icv_len;
    if total > usize::from(u16::MAX) {
        return Err(Cause::TooLarge);
    }
    let room = |_| Cause::NoRoom;
    let excess = buf.len() - plan.inner.len;
    if excess > 0 {
        buf.trim_back(excess).map_err(room)?;
    }
    buf.prepend(text - plan.kept).map_err(room)?;
    let tail = plan.padding + TRAILER_LEN + sa.icv_len;
    buf.append(tail).map_err(room)?;
    let (aad, esn_high) = sa.aad(sequence);
    if esn_high.is_some() && buf.tailroom() < 4 {
        return Err(Cause::NoRoom);
    }

    let data = buf.data_mut();
    let mut state = 0;
    if let Some(outer) = &sa.outer {
        outer.write(data, &plan.inner, sequence as u16)?;
        if nat_traversal.is_some() && outer.ip_len == IPV6_LEN {
            state |= UDP_CHECKSUM;
        }
    } else {
        let front = text - plan.kept;
        data.copy_within(front..front + plan.kept, 0);
        let next = if nat_traversal.is_some() {
            protocol::UDP
        } else {
            ip::ESP
        };
        ip::rewrite(data, plan.kept, plan.named_at, next)?;
        if let Some(ports) = nat_traversal {
            let mut header = udp_header(ports);
            header[4..6].copy_from_slice(&((total - plan.kept) as u16).to_be_bytes());
            data.get_mut(plan.kept..esp)
                .ok_or(Cause::NoRoom)?
                .copy_from_slice(&header);
            if plan.inner.version == 6 {
                state |= UDP_CHECKSUM;
            }
        }
    }
    let iv = sa.iv(sequence);
    let iv = iv.get(..sa.iv_len).ok_or(Cause::NoRoom)?;
    let header = data.get_mut(esp..text).ok_or(Cause::NoRoom)?;
    header[..4].copy_from_slice(&sa.config().spi.to_be_bytes());
    header[4..8].copy_from_slice(&(sequence as u32).to_be_bytes());
    header[8..].copy_from_slice(iv);
    let trailer = data
        .get_mut(icv - TRAILER_LEN - plan.padding..icv)
        .ok_or(Cause::NoRoom)?;
    trailer[..plan.padding].copy_from_slice(&PADDING[..plan.padding]);
    trailer[plan.padding] = plan.padding as u8;
    trailer[plan.padding + 1] = plan.next_header;
    Ok(Built {
        esp: esp as u16,
        cipher: Span {
            offset: text as u16,
            len: cipher_len as u16,
        },
        nonce: sa.nonce(iv),
        aad,
        esn_high,
        sequence,
        state,
    })
}

/// Makes the checksum of an IPv6 packet's UDP datagram, once all of it is there.
fn udp6_checksum(data: &mut [u8]) -> Result<(), Cause> {
    let packet = ip::parse(data)?;
    let upper = ip::upper(data, &packet, false)?;
    let (src, dst) = (packet.src.to_be_bytes(), packet.dst.to_be_bytes());
    let datagram = data.get_mut(upper.offset..packet.len).ok_or(Cause::Malformed)?;
    let pseudo = checksum::pseudo_header(&src, &dst, protocol::UDP, datagram.len());
    let sum = match !checksum::fold(pseudo + checksum::sum(datagram)) {
        0 => 0xffff,
        sum => sum,
    };
    let field = datagram.get_mut(6..8).ok_or(Cause::Malformed)?;
    field.copy_from_slice(&sum.to_be_bytes());
    Ok(())
}
