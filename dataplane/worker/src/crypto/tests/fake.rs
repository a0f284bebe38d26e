//! A device and a software provider that do the same toy cipher, and that do what a test wants.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use octoplane_esp::{
    Aead, AesKey, Algorithm, IcvLen, Job, JobStatus, KeyMaterial, Operation, Provider, Session, SessionId,
    SessionLookup, Span,
};
use octoplane_packet::{BufPool, HeapBuf, PacketBuf};

use crate::crypto::device::{DEVICE_BURST, Device, Finished, Outcome, SessionKey, Ticket};
use crate::crypto::known::SessionClient;

pub(super) const GCM: Algorithm = Algorithm::Aead(Aead::AesGcm(AesKey::Aes128, IcvLen::Icv16));
pub(super) const CHACHA: Algorithm = Algorithm::Aead(Aead::ChaCha20Poly1305);
/// Bytes in front of what is encrypted.
pub(super) const HEAD: usize = 16;
pub(super) const ICV: usize = 16;

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(1_000_000) };
}

pub(super) fn clock() -> u64 {
    NOW.get()
}

pub(super) fn advance(cycles: u64) {
    NOW.set(NOW.get() + cycles);
}

/// What the cipher is: it differs for each packet, and doing it twice undoes it, as with a key stream.
pub(super) fn cipher(job: &Job<()>, text: &mut [u8]) {
    for (at, byte) in text.iter_mut().enumerate() {
        *byte ^= (at as u64 * 7 + job.sequence * 13 + u64::from(job.session.index) + 1) as u8;
    }
}

/// Over the encrypted bytes.
pub(super) fn icv(text: &[u8]) -> [u8; ICV] {
    let sum = text
        .iter()
        .fold(17u64, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let mut icv = [0; ICV];
    icv[..8].copy_from_slice(&sum.to_be_bytes());
    icv
}

/// Does the whole job.
pub(super) fn process<B: PacketBuf>(job: &Job<()>, buf: &mut B) -> JobStatus {
    let data = buf.data_mut();
    let start = usize::from(job.cipher.offset);
    let end = job.cipher.end();
    match job.operation {
        Operation::Encrypt => {
            cipher(job, &mut data[start..end]);
            let icv = icv(&data[start..end]);
            data[end..end + ICV].copy_from_slice(&icv);
            JobStatus::Ok
        }
        Operation::Decrypt if data[end..end + ICV] != icv(&data[start..end]) => JobStatus::AuthFailed,
        Operation::Decrypt => {
            cipher(job, &mut data[start..end]);
            JobStatus::Ok
        }
    }
}

pub(super) fn id(index: u32) -> SessionId {
    SessionId { index, generation: 1 }
}

pub(super) fn session(id: SessionId, operation: Operation, algorithm: Algorithm) -> Arc<Session> {
    let keys = KeyMaterial::aead(&vec![7; algorithm.cipher_key_len() + 4]);
    Arc::new(Session::new(id, operation, algorithm, true, keys).unwrap())
}

/// A job whose text is made of its sequence number, encrypted already if it is to be decrypted.
pub(super) fn job(session: &Session, sequence: u64, len: usize) -> Job<HeapBuf> {
    let mut job = Job {
        buf: (),
        session: session.id(),
        operation: session.operation(),
        status: JobStatus::Pending,
        esp: 0,
        cipher: Span {
            offset: HEAD as u16,
            len: len as u16,
        },
        nonce: [0; 16],
        aad: [0; 12],
        esn_high: None,
        sequence,
        esp_state: sequence ^ 0xaaaa,
        cookie: [sequence, 1, 2],
    };
    let mut buf = HeapBuf::new(&[vec![0xee; HEAD], plain(sequence, len), vec![0; ICV]].concat());
    if job.operation == Operation::Decrypt {
        job.operation = Operation::Encrypt;
        process(&job, &mut buf);
        job.operation = Operation::Decrypt;
    }
    crate::crypto::device::join(&job, buf)
}

pub(super) fn plain(sequence: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u64 + sequence * 3) as u8).collect()
}

/// Panics unless the job was done exactly once and nothing else of it has changed.
pub(super) fn assert_done(done: &Job<HeapBuf>, len: usize) {
    assert_eq!(done.status, JobStatus::Ok, "{done:?}");
    assert_eq!(
        (done.esp_state, done.cookie),
        (done.sequence ^ 0xaaaa, [done.sequence, 1, 2])
    );
    let mut text = plain(done.sequence, len);
    if done.operation == Operation::Encrypt {
        let bare = crate::crypto::device::join(&bare(done), ());
        cipher(&bare, &mut text);
        assert_eq!(done.buf.data()[HEAD + len..], icv(&text));
    }
    assert_eq!(done.buf.data()[..HEAD], [0xee; HEAD]);
    assert_eq!(
        done.buf.data()[HEAD..HEAD + len],
        text,
        "sequence {}",
        done.sequence
    );
    assert_eq!(done.buf.len(), HEAD + len + ICV);
}

pub(super) fn bare(job: &Job<HeapBuf>) -> Job<()> {
    Job {
        buf: (),
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

/// Buffers, as many as the test wants.
#[derive(Debug, Clone)]
pub(super) struct Buffers(pub(super) Arc<Mutex<usize>>);

impl BufPool for Buffers {
    type Buf = HeapBuf;

    fn alloc(&mut self) -> Option<HeapBuf> {
        let mut left = self.0.lock().unwrap();
        *left = left.checked_sub(1)?;
        Some(HeapBuf::new(&[]))
    }
}

/// The sessions there are.
#[derive(Debug, Default)]
pub(super) struct Sessions(pub(super) Vec<Arc<Session>>);

impl SessionLookup for Sessions {
    fn session(&self, id: SessionId) -> Option<&Arc<Session>> {
        self.0.iter().find(|session| session.id() == id)
    }
}

/// Software that takes eight jobs at a time.
#[derive(Debug, Default)]
pub(super) struct Software {
    jobs: VecDeque<Job<HeapBuf>>,
    pub(super) done: Arc<Mutex<Vec<u64>>>,
}

impl Provider<HeapBuf> for Software {
    fn name(&self) -> &str {
        "toy"
    }

    fn supports(&self, _algorithm: Algorithm, _esn: bool) -> bool {
        true
    }

    fn submit(&mut self, sessions: &dyn SessionLookup, jobs: &mut Vec<Job<HeapBuf>>) -> usize {
        let n = jobs.len().min(8 - self.jobs.len());
        for mut job in jobs.drain(..n) {
            job.status = match sessions.session(job.session) {
                Some(_) => process(&bare(&job), &mut job.buf),
                None => JobStatus::NoSession,
            };
            self.done.lock().unwrap().push(job.sequence);
            self.jobs.push_back(job);
        }
        n
    }

    fn poll(&mut self, done: &mut Vec<Job<HeapBuf>>, most: usize) -> usize {
        let n = self.jobs.len().min(most);
        done.extend(self.jobs.drain(..n));
        n
    }

    fn in_flight(&self) -> usize {
        self.jobs.len()
    }

    fn sessions_changed(&mut self, _sessions: &dyn SessionLookup) {}
}

/// How a device misbehaves.
#[derive(Debug, Clone, Default)]
pub(super) struct Mood {
    /// Gives nothing back.
    pub(super) silent: bool,
    /// Takes nothing.
    pub(super) full: bool,
    /// Refuses every so many-th packet when it is given.
    pub(super) refuses: Option<usize>,
    /// Says so of every so many-th packet when it comes back, without having touched it.
    pub(super) returns: Option<usize>,
    /// Scrambles every so many-th packet, and says that it failed.
    pub(super) breaks: Option<usize>,
    /// Gives packets back in another order.
    pub(super) reorders: bool,
    /// Says that all is well, and it is not.
    pub(super) lies: bool,
    /// Leaves the packet it is given alone.
    pub(super) elsewhere: bool,
}

/// A device that does what its mood says.
#[derive(Debug)]
pub(super) struct FakeDevice {
    mood: Arc<Mutex<Mood>>,
    depth: usize,
    staged: Vec<(Ticket, Job<()>, HeapBuf)>,
    inside: VecDeque<(Ticket, Job<()>, HeapBuf)>,
    sessions: Vec<Option<Arc<FakeSession>>>,
    count: usize,
    pub(super) taken: Arc<Mutex<Vec<u64>>>,
}

/// A device session.
#[derive(Debug)]
pub(super) struct FakeSession(pub(super) SessionId);

impl FakeDevice {
    pub(super) fn new(mood: Arc<Mutex<Mood>>, depth: usize) -> Self {
        Self {
            mood,
            depth,
            staged: Vec::new(),
            inside: VecDeque::new(),
            sessions: Vec::new(),
            count: 0,
            taken: Arc::default(),
        }
    }

    fn every(&mut self, n: Option<usize>) -> bool {
        n.is_some_and(|n| {
            self.count += 1;
            self.count.is_multiple_of(n)
        })
    }
}

impl Device<HeapBuf> for FakeDevice {
    type Session = FakeSession;

    fn adopt(&mut self, session: Arc<FakeSession>) -> Option<SessionKey> {
        self.sessions.push(Some(session));
        Some(SessionKey(self.sessions.len() as u32 - 1))
    }

    fn release(&mut self, key: SessionKey) -> bool {
        let slot = &mut self.sessions[key.0 as usize];
        let id = slot.as_ref().map(|session| session.0);
        if self.inside.iter().any(|(_, job, _)| Some(job.session) == id) {
            return false;
        }
        *slot = None;
        true
    }

    fn room(&self) -> usize {
        (self.depth - self.inside.len() - self.staged.len()).min(DEVICE_BURST - self.staged.len())
    }

    fn in_flight(&self) -> usize {
        self.inside.len()
    }

    fn stage(&mut self, ticket: Ticket, key: SessionKey, job: &Job<()>, buf: HeapBuf) {
        assert!(self.room() > 0);
        let session = self.sessions[key.0 as usize].as_ref().unwrap();
        assert_eq!(session.0, job.session);
        self.staged
            .push((ticket, crate::crypto::device::join(job, ()), buf));
    }

    fn submit(&mut self, back: &mut Vec<Finished<HeapBuf>>) {
        let mood = self.mood.lock().unwrap().clone();
        let staged = std::mem::take(&mut self.staged);
        let mut full = mood.full;
        let mut refused = false;
        for (ticket, job, buf) in staged {
            refused |= self.every(mood.refuses);
            if full || refused {
                let outcome = if refused && !full {
                    Outcome::Refused
                } else {
                    Outcome::Full
                };
                // What comes behind it finds no room.
                full = true;
                back.push(Finished { ticket, buf, outcome });
                continue;
            }
            self.taken.lock().unwrap().push(job.sequence);
            self.inside.push_back((ticket, job, buf));
        }
    }

    fn poll(&mut self, back: &mut Vec<Finished<HeapBuf>>) {
        let mood = self.mood.lock().unwrap().clone();
        if mood.silent {
            return;
        }
        let n = self.inside.len().min(DEVICE_BURST);
        let mut part: Vec<_> = self.inside.drain(..n).collect();
        if mood.reorders {
            part.reverse();
        }
        for (ticket, job, mut buf) in part {
            let outcome = if self.every(mood.returns) {
                Outcome::Refused
            } else if self.every(mood.breaks) {
                buf.data_mut()[HEAD..].fill(0x55);
                Outcome::Broken
            } else if mood.lies {
                Outcome::Done
            } else {
                match process(&job, &mut buf) {
                    JobStatus::Ok => Outcome::Done,
                    _ => Outcome::AuthFailed,
                }
            };
            back.push(Finished { ticket, buf, outcome });
        }
    }

    fn original(&self, ticket: Ticket) -> Option<&[u8]> {
        if !self.mood.lock().unwrap().elsewhere {
            return None;
        }
        let (.., buf) = self.inside.iter().find(|(inside, ..)| *inside == ticket)?;
        Some(buf.data())
    }
}

/// Makes sessions for AES-GCM, when the test says so.
#[derive(Debug, Default)]
pub(super) struct FakeClient {
    pub(super) asked: Arc<Mutex<VecDeque<Arc<Session>>>>,
    pub(super) hold: Arc<Mutex<bool>>,
    pub(super) forgotten: Arc<Mutex<Vec<SessionId>>>,
}

impl SessionClient<FakeSession> for FakeClient {
    fn supports(&self, session: &Session) -> bool {
        session.algorithm() == GCM
    }

    fn ask(&mut self, session: &Arc<Session>) -> bool {
        self.asked.lock().unwrap().push_back(Arc::clone(session));
        true
    }

    fn answer(&mut self) -> Option<(Arc<Session>, Option<Arc<FakeSession>>)> {
        if *self.hold.lock().unwrap() {
            return None;
        }
        let session = self.asked.lock().unwrap().pop_front()?;
        let id = session.id();
        Some((session, Some(Arc::new(FakeSession(id)))))
    }

    fn forget(&mut self, id: SessionId) -> bool {
        self.forgotten.lock().unwrap().push(id);
        true
    }
}
