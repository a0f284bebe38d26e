//! What the provider needs of a device: one worker's way to it and back.

use std::sync::Arc;

use octoplane_esp::{Job, Operation};
use octoplane_packet::PacketBuf;

/// Most packets staged between two [`Device::submit`]s.
pub const DEVICE_BURST: usize = 64;

/// How a device names a session that it has adopted. For one device only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionKey(pub u32);

/// Names a packet on its way through a device.
pub type Ticket = u32;

/// What a device did to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is encrypted, or decrypted and its ICV was right.
    Done,
    /// The ICV was wrong.
    AuthFailed,
    /// There was no room for it: the packet is as it was.
    Full,
    /// The device did not want it: the packet is as it was.
    Refused,
    /// The device failed: the packet's bytes may have changed.
    Broken,
}

/// A packet that came back.
#[derive(Debug)]
pub struct Finished<B> {
    /// Which one.
    pub ticket: Ticket,
    /// The packet.
    pub buf: B,
    /// What was done to it.
    pub outcome: Outcome,
}

/// One worker's queue pair of a device. It owns packets between [`Device::stage`] and their return.
///
/// Nothing here waits, and nothing but [`Device::adopt`] allocates.
pub trait Device<B: PacketBuf> {
    /// A device session: made off the packet path, shared by the workers.
    type Session: Send + Sync + 'static;

    /// Keeps a session. `None` if it is not this device's.
    fn adopt(&mut self, session: Arc<Self::Session>) -> Option<SessionKey>;

    /// Lets go of a session. `false`: not yet, packets in the device use it.
    fn release(&mut self, key: SessionKey) -> bool;

    /// How many packets may be staged now; at most [`DEVICE_BURST`].
    fn room(&self) -> usize;

    /// Packets that the device has.
    fn in_flight(&self) -> usize;

    /// Puts a packet into the next burst. There is room. With [`Job::esn_high`], those four bytes are in the packet
    /// ([`open_gap`]).
    fn stage(&mut self, ticket: Ticket, key: SessionKey, job: &Job<()>, buf: B);

    /// Gives the device what was staged. What it does not take is appended to `back`, in order.
    fn submit(&mut self, back: &mut Vec<Finished<B>>);

    /// Appends packets that the device is finished with, at most [`DEVICE_BURST`].
    fn poll(&mut self, back: &mut Vec<Finished<B>>);

    /// The bytes of a packet that the device has and does not write to, as they were staged. `None` where it works in
    /// place.
    fn original(&self, _ticket: Ticket) -> Option<&[u8]> {
        None
    }
}

/// Bytes of the upper half of a sequence number.
const ESN: usize = 4;

/// Puts the upper half of the sequence number where devices look for it: between what is encrypted and the ICV, which moves
/// back (RFC 4303, section 2.2.1: the ICV covers it, and it is not sent). Does nothing for jobs without
/// [`Job::esn_high`]. `false`, changing nothing: there is no room behind the packet.
#[inline(always)]
pub fn open_gap<B: PacketBuf>(job: &Job<()>, buf: &mut B) -> bool {
    let Some(high) = job.esn_high else { return true };
    let icv = job.icv_offset();
    let end = buf.len();
    if icv > end || buf.append(ESN).is_err() {
        return false;
    }
    let Some(tail) = buf.data_mut().get_mut(icv..) else {
        return false;
    };
    tail.copy_within(..end - icv, ESN);
    if let Some(gap) = tail.first_chunk_mut::<ESN>() {
        *gap = high.to_be_bytes();
    }
    true
}

/// Undoes [`open_gap`], whatever happened to the packet in between.
#[inline(always)]
pub fn close_gap<B: PacketBuf>(job: &Job<()>, buf: &mut B) {
    if job.esn_high.is_none() {
        return;
    }
    let icv = job.icv_offset();
    if let Some(tail) = buf.data_mut().get_mut(icv..)
        && tail.len() >= ESN
    {
        tail.copy_within(ESN.., 0);
        let _ = buf.trim_back(ESN);
    }
}

/// Takes the packet out of a job.
#[inline(always)]
pub(super) fn split<B>(job: Job<B>) -> (Job<()>, B) {
    let Job {
        buf,
        session,
        operation,
        status,
        esp,
        cipher,
        nonce,
        aad,
        esn_high,
        sequence,
        esp_state,
        cookie,
    } = job;
    let rest = Job {
        buf: (),
        session,
        operation,
        status,
        esp,
        cipher,
        nonce,
        aad,
        esn_high,
        sequence,
        esp_state,
        cookie,
    };
    (rest, buf)
}

/// Puts a packet into a job.
#[inline(always)]
pub(super) fn join<B>(job: &Job<()>, buf: B) -> Job<B> {
    Job {
        buf,
        session: job.session,
        operation: job.operation,
        status: job.status,
        esp: job.esp,
        cipher: job.cipher,
        nonce: job.nonce,
        aad: job.aad,
        esn_high: job.esn_high,
        sequence: job.sequence,
        esp_state: job.esp_state,
        cookie: job.cookie,
    }
}

/// Whether a packet that a device may have changed can be given to somebody else. Decryption finds out by the ICV.
/// Encryption does not: encrypting twice with one nonce gives the plain text back, with a valid ICV.
#[inline(always)]
pub(super) fn may_try_again(operation: Operation) -> bool {
    operation == Operation::Decrypt
}
