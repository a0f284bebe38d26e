//! Encapsulation (RFC 4303, section 3.3): before the cryptography and after it.

use arrayvec::ArrayVec;
use octoplane_packet::headers::protocol;
use octoplane_packet::{PacketBuf, checksum};

use crate::cause::{Cause, CauseCounters};
use crate::groups::{CHUNK, Groups};
use crate::ip;
use crate::ip::Inner;
use crate::provider::{Job, JobStatus, Operation, Span};
use crate::sa::{Direction, ESP_HEADER_LEN, Mode, Sa, SaId, TRAILER_LEN, UDP_LEN, Used, udp_header, warm};
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
    group: u8,
    /// For the trailer.
    next_header: u8,
    padding: u8,
    inner: Inner,
    /// Bytes before what is encrypted: 0 in tunnel mode, the headers in transport mode.
    kept: u16,
    /// The byte that names the protocol behind those.
    named_at: u16,
}

/// A group's share of what all workers share.
struct Share<'a> {
    sa: &'a Sa,
    packets: u64,
    bytes: u64,
    sequence: std::ops::Range<u64>,
    /// Bytes used before this burst, then before the next packet of it.
    used: u64,
}

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
    sa: Option<&'a Sa>,
    now: u64,
    packet: &ToEncrypt<B>,
    groups: &mut Groups<Share<'a>>,
) -> Result<Plan, Cause> {
    let sa = sa.ok_or(Cause::NoSa)?;
    if sa.direction != Direction::Outbound {
        return Err(Cause::NoSa);
    }
    if now >= sa.deadline {
        return Err(Cause::Expired);
    }
    let data = packet.buf.data();
    let inner = ip::parse(data)?;
    // With an outer header it must not be above 65,535 bytes, and an IPv6 packet may be.
    if inner.len > usize::from(u16::MAX) {
        return Err(Cause::TooLarge);
    }
    let (kept, named_at, next_header) = match sa.mode {
        Mode::Tunnel if inner.version == 4 => (0, 0, ip::IPV4),
        Mode::Tunnel => (0, 0, ip::IPV6),
        Mode::Transport => {
            let upper = ip::upper(data, &inner, false)?;
            (upper.offset, upper.named_at, upper.protocol)
        }
    };
    let text = inner.len - kept + TRAILER_LEN;
    let padded = text.next_multiple_of(sa.alignment.into());
    let new = || Share {
        sa,
        packets: 0,
        bytes: 0,
        sequence: 0..0,
        used: 0,
    };
    let group = groups.of(packet.sa, new).ok_or(Cause::Malformed)?;
    let share = groups.get_mut(group).ok_or(Cause::Malformed)?;
    share.packets += 1;
    share.bytes += padded as u64;
    Ok(Plan {
        group: group as u8,
        next_header,
        padding: (padded - text) as u8,
        inner: Inner {
            version: inner.version,
            class: inner.class,
            flags_fragment: inner.flags_fragment,
            len: inner.len as u16,
        },
        kept: kept as u16,
        named_at: named_at as u16,
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
    let share = groups.get_mut(plan.group.into()).ok_or(Cause::NoSa)?;
    let sa = share.sa;
    let (inner_len, kept, padding) = (
        usize::from(plan.inner.len),
        usize::from(plan.kept),
        usize::from(plan.padding),
    );
    let cipher_len = inner_len - kept + padding + TRAILER_LEN;
    // Each packet has its own place in the count, whatever other workers do: hard limits are exact.
    let bytes = share.used;
    share.used += cipher_len as u64;
    let sequence = share
        .sequence
        .next()
        .ok_or_else(|| match sa.state.sequence.why_none() {
            NoNumbers::Exhausted => Cause::SequenceExhausted,
            NoNumbers::NotReserved => Cause::SequenceNotReserved,
        })?;
    let packets = sa.state.given(sequence);
    if sa.over(Used { bytes, packets }) {
        return Err(Cause::Expired);
    }

    let (outer_len, udp_len) = match (&sa.outer, sa.in_udp) {
        (Some(outer), _) => (outer.len(), 0),
        (None, true) => (kept, UDP_LEN),
        (None, false) => (kept, 0),
    };
    let (iv_len, icv_len) = (usize::from(sa.iv_len), usize::from(sa.icv_len));
    let esp = outer_len + udp_len;
    let text = esp + ESP_HEADER_LEN + iv_len;
    let icv = text + cipher_len;
    let total = icv + icv_len;
    if total > usize::from(u16::MAX) {
        return Err(Cause::TooLarge);
    }
    let room = |_| Cause::NoRoom;
    let excess = buf.len() - inner_len;
    if excess > 0 {
        buf.trim_back(excess).map_err(room)?;
    }
    buf.prepend(text - kept).map_err(room)?;
    let tail = padding + TRAILER_LEN + icv_len;
    buf.append(tail).map_err(room)?;
    let (aad, esn_high) = sa.aad(sequence);
    if esn_high.is_some() && buf.tailroom() < 4 {
        return Err(Cause::NoRoom);
    }

    let data = buf.data_mut();
    let mut state = 0;
    if let Some(outer) = &sa.outer {
        outer.write(data, &plan.inner, sequence as u16)?;
        if sa.in_udp && outer.is_ipv6() {
            state |= UDP_CHECKSUM;
        }
    } else {
        let front = text - kept;
        data.copy_within(front..front + kept, 0);
        let next = if sa.in_udp { protocol::UDP } else { ip::ESP };
        ip::rewrite(data, kept, plan.named_at.into(), next)?;
        if let Some(ports) = sa.config().nat_traversal {
            let mut header = udp_header(ports);
            header[4..6].copy_from_slice(&((total - kept) as u16).to_be_bytes());
            data.get_mut(kept..esp)
                .ok_or(Cause::NoRoom)?
                .copy_from_slice(&header);
            if plan.inner.version == 6 {
                state |= UDP_CHECKSUM;
            }
        }
    }
    let iv = sa.iv(sequence);
    let header = data.get_mut(esp..text).ok_or(Cause::NoRoom)?;
    header[..4].copy_from_slice(&sa.spi.to_be_bytes());
    header[4..8].copy_from_slice(&(sequence as u32).to_be_bytes());
    // Lengths that the compiler knows are two stores, others a call.
    if let Some(short) = header[8..].first_chunk_mut::<8>().filter(|_| iv_len == 8) {
        short.copy_from_slice(&iv[..8]);
    } else if let Some(long) = header[8..].first_chunk_mut::<16>() {
        *long = iv;
    }
    let trailer = data
        .get_mut(icv - TRAILER_LEN - padding..icv)
        .ok_or(Cause::NoRoom)?;
    for (byte, value) in trailer.iter_mut().zip(1..=plan.padding) {
        *byte = value;
    }
    trailer[padding] = plan.padding;
    trailer[padding + 1] = plan.next_header;
    Ok(Built {
        esp: esp as u16,
        cipher: Span {
            offset: text as u16,
            len: cipher_len as u16,
        },
        nonce: sa.nonce_for(&iv),
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
