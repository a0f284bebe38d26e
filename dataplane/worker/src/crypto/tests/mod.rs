//! Every way a device can fail, against a device that fails on purpose.

mod fake;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use fake::{
    Buffers, CHACHA, FakeClient, FakeDevice, FakeSession, GCM, HEAD, ICV, Mood, Sessions, Software, advance,
    assert_done, cipher, clock, icv, id, job, session,
};
use octoplane_esp::{Job, JobStatus, KeyMaterial, Operation, Provider, Session};
use octoplane_packet::HeapBuf;

use crate::crypto::failover::{Attached, DeviceMailbox, Failover, FailoverParts};
use crate::crypto::health::{Cause, Limits};
use crate::crypto::probe::{Probe, Vector};
use crate::crypto::stats::{ProviderStats, Why};

const LIMITS: Limits = Limits {
    timeout: 1000,
    errors: 8,
    backoff: 10_000,
    max_backoff: 80_000,
};
const LEN: usize = 48;

/// Everything a test looks at.
struct Lab {
    provider: Failover<HeapBuf, FakeDevice, Software, Buffers>,
    sessions: Sessions,
    mood: Arc<Mutex<Mood>>,
    buffers: Arc<Mutex<usize>>,
    stats: Arc<ProviderStats>,
    mailbox: Arc<DeviceMailbox<HeapBuf, FakeDevice>>,
    by_software: Arc<Mutex<Vec<u64>>>,
    by_device: Arc<Mutex<Vec<u64>>>,
    asked: Arc<Mutex<VecDeque<Arc<Session>>>>,
    hold: Arc<Mutex<bool>>,
    forgotten: Arc<Mutex<Vec<octoplane_esp::SessionId>>>,
    sequence: u64,
    expected: VecDeque<u64>,
}

fn vector() -> Vector {
    // The toy cipher's answer; the packet's header has 16 bytes, too.
    let keys = KeyMaterial::aead(&[7; 20]);
    let mut text: Vec<u8> = (0..64).collect();
    let mut job = fake::bare(&job(&session(id(0), Operation::Encrypt, GCM), 1, 64));
    job.session.index = u32::MAX;
    cipher(&job, &mut text);
    let sealed = [&text[..], &icv(&text)].concat();
    assert_eq!(HEAD, 16);
    Vector::new(GCM, keys, [0; 16], &sealed).unwrap()
}

impl Lab {
    fn new(depth: usize, in_flight: usize) -> Self {
        let mood = Arc::<Mutex<Mood>>::default();
        let buffers = Arc::new(Mutex::new(10_000));
        let software = Software::default();
        let stats = Arc::<ProviderStats>::default();
        let mailbox = Arc::<DeviceMailbox<HeapBuf, FakeDevice>>::default();
        let mut lab = Self {
            by_software: Arc::clone(&software.done),
            provider: Failover::new(FailoverParts {
                name: "cryptodev fake".into(),
                software,
                pool: Buffers(Arc::clone(&buffers)),
                mailbox: Arc::clone(&mailbox),
                in_flight,
                limits: LIMITS,
                clock,
                stats: Arc::clone(&stats),
            }),
            sessions: Sessions::default(),
            mood,
            buffers,
            stats,
            mailbox,
            by_device: Arc::default(),
            asked: Arc::default(),
            hold: Arc::default(),
            forgotten: Arc::default(),
            sequence: 0,
            expected: VecDeque::new(),
        };
        lab.plug(depth);
        lab
    }

    fn plug(&mut self, depth: usize) {
        let device = FakeDevice::new(Arc::clone(&self.mood), depth);
        self.by_device = Arc::clone(&device.taken);
        let client = FakeClient {
            asked: Arc::clone(&self.asked),
            hold: Arc::clone(&self.hold),
            forgotten: Arc::clone(&self.forgotten),
        };
        let vector = vector();
        let session = Arc::new(FakeSession(vector.session.id()));
        let refused = self.mailbox.offer(Attached {
            device,
            sessions: Box::new(client),
            probe: Some(Probe::new(vector, session)),
        });
        assert!(refused.is_none());
        // Looks into the mailbox, then finds the probe.
        for _ in 0..2 {
            self.provider.poll(&mut Vec::new(), usize::MAX);
        }
    }

    fn add(&mut self, index: u32, operation: Operation, algorithm: octoplane_esp::Algorithm) -> Arc<Session> {
        let session = session(id(index), operation, algorithm);
        self.sessions.0.push(Arc::clone(&session));
        session
    }

    /// A session that the device knows.
    fn ready(&mut self, index: u32, operation: Operation) -> Arc<Session> {
        let session = self.add(index, operation, GCM);
        self.send(&session, 1);
        self.receive_all();
        let n = self.by_device.lock().unwrap().len();
        self.send(&session, 1);
        self.receive_all();
        assert_eq!(
            self.by_device.lock().unwrap().len(),
            n + 1,
            "the device has the session"
        );
        session
    }

    fn mood(&self, change: impl FnOnce(&mut Mood)) {
        change(&mut self.mood.lock().unwrap());
    }

    /// Submits `n` jobs in one burst, and returns how many were taken.
    fn send(&mut self, session: &Session, n: usize) -> usize {
        let mut jobs: Vec<Job<HeapBuf>> = (0..n as u64)
            .map(|at| job(session, self.sequence + at, LEN))
            .collect();
        let taken = self.provider.submit(&self.sessions, &mut jobs);
        assert_eq!(jobs.len(), n - taken);
        for (left, at) in jobs.iter().zip(taken as u64..) {
            assert_eq!(
                (left.sequence, left.status),
                (self.sequence + at, JobStatus::Pending),
                "the rest, in order"
            );
        }
        for _ in 0..taken {
            self.expected.push_back(self.sequence);
            self.sequence += 1;
        }
        taken
    }

    /// What is back now, in the order of submission.
    fn receive(&mut self) -> Vec<Job<HeapBuf>> {
        let mut done = Vec::with_capacity(1024);
        let n = self.provider.poll(&mut done, usize::MAX);
        assert_eq!(n, done.len());
        for one in &done {
            assert_eq!(Some(one.sequence), self.expected.pop_front(), "in order");
        }
        assert_eq!(self.provider.in_flight(), self.expected.len());
        done
    }

    /// Waits for everything, without the clock moving, and panics unless all was done exactly once.
    fn receive_all(&mut self) -> usize {
        let mut n = 0;
        for _ in 0..100 {
            let done = self.receive();
            done.iter().for_each(|done| assert_done(done, LEN));
            n += done.len();
            if self.expected.is_empty() {
                return n;
            }
        }
        panic!("{} jobs are missing", self.expected.len());
    }

    fn taken_by_device(&self) -> usize {
        self.by_device.lock().unwrap().len()
    }
}

#[test]
fn the_device_does_it_once_it_has_the_session() {
    for operation in [Operation::Encrypt, Operation::Decrypt] {
        let mut lab = Lab::new(128, 256);
        assert_eq!(lab.stats.unused(), None);
        *lab.hold.lock().unwrap() = true;
        let session = lab.add(3, operation, GCM);
        assert_eq!(lab.send(&session, 10), 10);
        assert_eq!(lab.receive_all(), 10);
        assert_eq!(
            (lab.stats.software(Why::SessionPending), lab.stats.device.get()),
            (10, 0)
        );
        assert_eq!(lab.asked.lock().unwrap().len(), 1, "asked for once");
        *lab.hold.lock().unwrap() = false;
        assert_eq!(lab.send(&session, 64), 64);
        assert_eq!(lab.receive_all(), 64);
        assert_eq!((lab.stats.device.get(), lab.stats.sessions.get()), (64, 1));
        assert_eq!(lab.by_software.lock().unwrap().len(), 10);
    }
}

#[test]
fn what_the_device_cannot_do_the_software_does() {
    let mut lab = Lab::new(128, 256);
    let gcm = lab.ready(1, Operation::Encrypt);
    let chacha = lab.add(2, Operation::Encrypt, CHACHA);
    // By turns in one burst: the order is kept although the software is done first.
    for _ in 0..10 {
        for session in [&gcm, &chacha] {
            lab.send(session, 3);
        }
    }
    assert_eq!(lab.receive_all(), 60);
    assert_eq!(lab.stats.software(Why::Unsupported), 30);
    assert!(lab.asked.lock().unwrap().is_empty());
}

#[test]
fn a_full_device_leaves_the_rest_to_the_software_in_the_same_burst() {
    let mut lab = Lab::new(16, 256);
    let session = lab.ready(1, Operation::Encrypt);
    let before = lab.taken_by_device();
    assert_eq!(lab.send(&session, 64), 64);
    assert_eq!(lab.by_software.lock().unwrap().len(), 1 + 48, "within submit");
    assert_eq!(lab.receive_all(), 64);
    assert_eq!(
        (lab.taken_by_device() - before, lab.stats.software(Why::Full)),
        (16, 48)
    );

    // The same when the device says so only when it is asked.
    lab.mood(|mood| mood.full = true);
    assert_eq!(lab.send(&session, 32), 32);
    assert_eq!(lab.receive_all(), 32);
    assert_eq!(lab.stats.software(Why::Full), 48 + 32);
    assert_eq!(lab.stats.unused(), None, "there is nothing wrong with being full");
    lab.mood(|mood| mood.full = false);
    lab.send(&session, 16);
    lab.receive_all();
    assert_eq!(lab.stats.software(Why::Full), 80);
}

#[test]
fn jobs_in_flight_are_bounded() {
    let mut lab = Lab::new(16, 40);
    let session = lab.ready(1, Operation::Encrypt);
    lab.mood(|mood| mood.silent = true);
    assert_eq!(lab.send(&session, 64), 40);
    assert_eq!(lab.send(&session, 1), 0);
    lab.mood(|mood| mood.silent = false);
    assert_eq!(lab.receive_all(), 40);
    // As far as the caller has room.
    lab.send(&session, 20);
    let mut done = Vec::with_capacity(7);
    assert_eq!(
        (
            lab.provider.poll(&mut done, usize::MAX),
            done.len(),
            done.capacity()
        ),
        (7, 7, 7)
    );
    assert_eq!(lab.provider.in_flight(), 13);
}

#[test]
fn refused_jobs_go_to_the_software() {
    for operation in [Operation::Encrypt, Operation::Decrypt] {
        let mut lab = Lab::new(128, 256);
        let session = lab.ready(1, operation);
        lab.mood(|mood| mood.refuses = Some(20));
        for _ in 0..5 {
            lab.send(&session, 64);
            lab.receive_all();
        }
        assert!(lab.stats.software(Why::Failed) > 4);
        assert_eq!(lab.stats.unused(), None, "most of them succeed");
        lab.mood(|mood| {
            mood.refuses = None;
            mood.returns = Some(3);
        });
        let before = lab.stats.software(Why::Failed);
        lab.send(&session, 63);
        lab.receive_all();
        assert_eq!(lab.stats.software(Why::Failed) - before, 21);
    }
}

#[test]
fn a_device_that_only_fails_is_given_up_and_tried_again() {
    let mut lab = Lab::new(128, 256);
    let session = lab.ready(1, Operation::Encrypt);
    lab.mood(|mood| mood.returns = Some(1));
    lab.send(&session, 64);
    lab.receive_all();
    assert_eq!(lab.stats.unused(), Some(Cause::Errors));
    assert_eq!(lab.stats.failures(Cause::Errors), 1);
    let before = lab.taken_by_device();
    lab.send(&session, 10);
    assert_eq!(lab.receive_all(), 10);
    assert_eq!(lab.taken_by_device(), before, "it gets nothing");
    assert_eq!(lab.stats.software(Why::Errors), 10);

    // It is tried with a packet of our own, and again after twice as long.
    let mut probes = Vec::new();
    for tick in 0..70 {
        advance(1000);
        let before = lab.taken_by_device();
        lab.send(&session, 1);
        lab.receive_all();
        if lab.taken_by_device() > before {
            probes.push(tick);
        }
    }
    assert_eq!(probes.len(), 3, "{probes:?}");
    assert!(probes[1] - probes[0] < probes[2] - probes[1], "{probes:?}");
    assert_eq!(lab.stats.unused(), Some(Cause::Errors));

    lab.mood(|mood| mood.returns = None);
    advance(80_000);
    lab.send(&session, 1);
    lab.receive_all();
    assert_eq!(lab.stats.unused(), None);
    assert_eq!(lab.stats.recoveries.get(), 2, "the first was the start");
    let before = lab.taken_by_device();
    lab.send(&session, 64);
    lab.receive_all();
    assert_eq!(lab.taken_by_device() - before, 64);
}

#[test]
fn broken_packets_are_never_encrypted_twice() {
    let mut lab = Lab::new(128, 256);
    let session = lab.ready(1, Operation::Encrypt);
    lab.mood(|mood| mood.breaks = Some(4));
    lab.send(&session, 64);
    let done = lab.receive();
    assert_eq!(done.len(), 64);
    let (lost, fine): (Vec<_>, Vec<_>) = done.iter().partition(|job| job.status == JobStatus::DeviceError);
    assert_eq!((lost.len(), lab.stats.lost.get()), (16, 16));
    fine.into_iter().for_each(|job| assert_done(job, LEN));
    assert_eq!(lab.by_software.lock().unwrap().len(), 1, "none went there");

    // Decryption tells by the ICV: it is tried, and does not count as forged.
    let mut lab = Lab::new(128, 256);
    let session = lab.ready(1, Operation::Decrypt);
    lab.mood(|mood| mood.breaks = Some(4));
    lab.send(&session, 64);
    let done = lab.receive();
    let count = |status| done.iter().filter(|job| job.status == status).count();
    assert_eq!(
        [JobStatus::Ok, JobStatus::DeviceError, JobStatus::AuthFailed].map(count),
        [48, 16, 0]
    );
    assert_eq!(lab.stats.software(Why::Failed), 16);
}

#[test]
fn a_wrong_icv_is_reported_and_is_nobodys_fault() {
    let mut lab = Lab::new(128, 256);
    let session = lab.ready(1, Operation::Decrypt);
    let mut jobs: Vec<_> = (0..40).map(|at| job(&session, at, LEN)).collect();
    for forged in jobs.iter_mut().step_by(2) {
        use octoplane_packet::PacketBuf;
        forged.buf.data_mut()[HEAD + LEN + ICV - 9] ^= 1;
    }
    lab.provider.submit(&lab.sessions, &mut jobs);
    let mut done = Vec::with_capacity(64);
    lab.provider.poll(&mut done, usize::MAX);
    for (at, job) in done.iter().enumerate() {
        let expected = if at.is_multiple_of(2) {
            JobStatus::AuthFailed
        } else {
            JobStatus::Ok
        };
        assert_eq!(job.status, expected);
    }
    assert_eq!((done.len(), lab.stats.unused()), (40, None));
}

#[test]
fn a_silent_device_is_given_up_and_its_late_packets_are_freed() {
    let mut lab = Lab::new(128, 256);
    let session = lab.ready(1, Operation::Encrypt);
    lab.mood(|mood| mood.silent = true);
    lab.send(&session, 20);
    let first = lab.sequence - 20;
    advance(LIMITS.timeout);
    assert!(lab.receive().is_empty(), "not yet");
    advance(1);
    // What comes in the burst that finds out goes to the software, behind those that are lost.
    lab.send(&session, 12);
    let done = lab.receive();
    assert_eq!(done.len(), 32);
    for job in &done {
        if job.sequence < first + 20 {
            assert_eq!(job.status, JobStatus::DeviceError);
        } else {
            assert_done(job, LEN);
        }
    }
    assert_eq!((lab.stats.lost.get(), lab.stats.software(Why::Silent)), (20, 12));
    assert_eq!(lab.stats.unused(), Some(Cause::Silent));
    assert_eq!(lab.stats.in_device.get(), 20);

    // Probes are not answered either.
    advance(LIMITS.backoff);
    lab.send(&session, 1);
    lab.receive_all();
    assert_eq!(lab.stats.in_device.get(), 21);
    advance(LIMITS.timeout + 1);
    lab.send(&session, 1);
    lab.receive_all();
    assert_eq!(lab.stats.failures(Cause::Silent), 2);

    // It wakes up: the packets come late, and the next probe brings it back.
    lab.mood(|mood| mood.silent = false);
    lab.receive();
    assert_eq!((lab.stats.late.get(), lab.stats.in_device.get()), (20, 0));
    advance(2 * LIMITS.backoff);
    lab.send(&session, 1);
    lab.receive_all();
    lab.receive();
    assert_eq!(lab.stats.unused(), None);
    // Long silence without work is none: its time starts when it gets something to do.
    advance(100 * LIMITS.timeout);
    lab.mood(|mood| mood.silent = true);
    lab.send(&session, 3);
    assert!(lab.receive().is_empty());
    lab.mood(|mood| mood.silent = false);
    assert_eq!((lab.receive_all(), lab.stats.unused()), (3, None));
    // All places are free again.
    assert_eq!(lab.send(&session, 256), 256);
    assert_eq!(lab.receive_all(), 256);
    assert_eq!(lab.stats.unused(), None);
}

/// A worker that was not running for a while finds the device done, not silent.
#[test]
fn a_device_is_not_silent_because_nobody_asked_it() {
    let mut lab = Lab::new(128, 256);
    let session = lab.ready(1, Operation::Encrypt);
    lab.send(&session, 8);
    advance(10 * LIMITS.timeout);
    lab.send(&session, 1);
    assert_eq!(lab.receive_all(), 9);
    assert_eq!((lab.stats.lost.get(), lab.stats.failures(Cause::Silent)), (0, 0));
    assert_eq!(lab.stats.unused(), None);

    // The same for a probe.
    lab.mood(|mood| mood.returns = Some(1));
    lab.send(&session, 64);
    lab.receive_all();
    assert_eq!(lab.stats.unused(), Some(Cause::Errors));
    lab.mood(|mood| mood.returns = None);
    advance(LIMITS.backoff);
    lab.send(&session, 1);
    advance(10 * LIMITS.timeout);
    lab.send(&session, 1);
    assert_eq!(lab.receive_all(), 2);
    assert_eq!((lab.stats.unused(), lab.stats.failures(Cause::Silent)), (None, 0));

    // And for one that is to go.
    lab.send(&session, 8);
    lab.mailbox.ask_back();
    advance(10 * LIMITS.timeout);
    lab.send(&session, 1);
    assert_eq!((lab.receive_all(), lab.stats.lost.get()), (9, 0));
}

#[test]
fn nothing_is_lost_with_a_device_that_writes_elsewhere() {
    let mut lab = Lab::new(128, 256);
    let session = lab.ready(1, Operation::Encrypt);
    lab.mood(|mood| (mood.silent, mood.elsewhere) = (true, true));
    lab.send(&session, 50);
    advance(LIMITS.timeout + 1);
    lab.send(&session, 14);
    assert_eq!(lab.receive_all(), 64);
    assert_eq!((lab.stats.lost.get(), lab.stats.software(Why::Silent)), (0, 64));
    lab.mood(|mood| mood.silent = false);
    lab.receive();
    assert_eq!(lab.stats.late.get(), 50);
    assert_eq!(lab.send(&session, 256), 256);
    lab.receive_all();
}

#[test]
fn lost_jobs_wait_for_buffers_to_go_back_with() {
    let mut lab = Lab::new(128, 256);
    let session = lab.ready(1, Operation::Encrypt);
    lab.mood(|mood| mood.silent = true);
    lab.send(&session, 10);
    *lab.buffers.lock().unwrap() = 4;
    advance(LIMITS.timeout + 1);
    assert_eq!(lab.receive().len(), 4);
    assert_eq!((lab.receive().len(), lab.provider.in_flight()), (0, 6));
    *lab.buffers.lock().unwrap() = 100;
    assert_eq!(lab.receive().len(), 6);
    assert_eq!(lab.stats.lost.get(), 10);
}

#[test]
fn order_is_kept_when_the_device_does_not() {
    let mut lab = Lab::new(128, 512);
    let sessions = [lab.ready(1, Operation::Encrypt), lab.ready(2, Operation::Decrypt)];
    lab.mood(|mood| mood.reorders = true);
    for round in 0..50 {
        for session in &sessions {
            lab.send(session, 1 + round % 40);
        }
        if round % 3 == 0 {
            lab.receive_all();
        }
    }
    lab.receive_all();
}

#[test]
fn a_device_that_lies_fails_its_probe() {
    let mut lab = Lab::new(128, 256);
    lab.mailbox.ask_back();
    lab.receive();
    assert!(lab.mailbox.take_back().is_some());
    lab.mood(|mood| mood.lies = true);
    lab.plug(128);
    assert_eq!(lab.stats.unused(), Some(Cause::WrongResult));
    let session = lab.add(1, Operation::Encrypt, GCM);
    for _ in 0..3 {
        lab.send(&session, 10);
        lab.receive_all();
    }
    assert_eq!(lab.stats.device.get(), 0);
    assert!(lab.stats.software(Why::WrongResult) > 0);
}

#[test]
fn a_device_is_taken_away_and_another_comes() {
    let mut lab = Lab::new(128, 256);
    let session = lab.ready(1, Operation::Encrypt);
    lab.send(&session, 30);
    lab.mailbox.ask_back();
    // What is in the device comes back from it; what comes now does not go there.
    lab.send(&session, 10);
    assert!(lab.mailbox.take_back().is_none());
    assert_eq!(lab.receive_all(), 40);
    assert_eq!((lab.stats.lost.get(), lab.stats.software(Why::Removed)), (0, 10));
    lab.receive();
    let device = lab.mailbox.take_back().unwrap();
    assert_eq!(lab.stats.unused(), Some(Cause::Removed));
    drop(device);
    lab.send(&session, 10);
    assert_eq!(lab.receive_all(), 10);

    lab.plug(64);
    assert_eq!(lab.stats.unused(), None);
    lab.send(&session, 1);
    lab.receive_all();
    lab.send(&session, 64);
    lab.receive_all();
    assert_eq!(
        lab.taken_by_device(),
        1 + 64,
        "with a session of its own, and the probe"
    );
}

#[test]
fn a_device_that_is_taken_away_while_silent_goes_with_what_it_has() {
    let mut lab = Lab::new(128, 256);
    let session = lab.ready(1, Operation::Encrypt);
    lab.mood(|mood| mood.silent = true);
    lab.send(&session, 30);
    lab.mailbox.ask_back();
    assert!(lab.receive().is_empty());
    advance(LIMITS.timeout + 1);
    assert_eq!(lab.receive().len(), 30);
    assert_eq!(lab.stats.lost.get(), 30);
    assert!(lab.mailbox.take_back().is_some());
    assert_eq!(lab.send(&session, 256), 256, "its places are free");
    lab.receive_all();
}

#[test]
fn sessions_that_are_gone_are_given_back() {
    let mut lab = Lab::new(128, 256);
    let session = lab.ready(1, Operation::Encrypt);
    lab.mood(|mood| mood.silent = true);
    lab.send(&session, 5);
    lab.sessions.0.clear();
    lab.provider.sessions_changed(&lab.sessions);
    assert!(
        lab.forgotten.lock().unwrap().is_empty(),
        "packets in the device use it"
    );
    lab.mood(|mood| mood.silent = false);
    assert_eq!(lab.receive_all(), 5, "those before are done");
    lab.receive();
    assert_eq!(*lab.forgotten.lock().unwrap(), [id(1)]);
    assert_eq!(lab.stats.sessions.get(), 0);
    assert_eq!(Arc::strong_count(&session), 1, "no copy of the keys is left");
    lab.send(&session, 3);
    let done = lab.receive();
    assert!(done.len() == 3 && done.iter().all(|job| job.status == JobStatus::NoSession));

    // Another session in the same place is another session.
    let next = octoplane_esp::SessionId {
        index: 1,
        generation: 2,
    };
    let next = fake::session(next, Operation::Encrypt, GCM);
    lab.sessions.0.push(Arc::clone(&next));
    lab.send(&next, 1);
    lab.receive_all();
    lab.send(&next, 10);
    lab.receive_all();
    assert_eq!(lab.stats.sessions.get(), 1);
}

/// Everything at once, with moods that change at random but always the same way.
#[test]
fn whatever_happens_each_job_comes_back_once_and_in_order() {
    for seed in 1..30u64 {
        let mut lab = Lab::new(32, 128);
        let sessions = [
            lab.ready(1, Operation::Encrypt),
            lab.ready(2, Operation::Decrypt),
            lab.add(3, Operation::Encrypt, CHACHA),
        ];
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = move |n: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % n
        };
        let (mut lost, mut done) = (0, 0);
        for _ in 0..400 {
            if next(10) == 0 {
                let mood = Mood {
                    silent: next(4) == 0,
                    full: next(6) == 0,
                    refuses: (next(4) == 0).then(|| 1 + next(9) as usize),
                    returns: (next(4) == 0).then(|| 1 + next(9) as usize),
                    breaks: (next(6) == 0).then(|| 2 + next(9) as usize),
                    reorders: next(2) == 0,
                    lies: false,
                    elsewhere: false,
                };
                lab.mood(|old| *old = mood);
            }
            let session = Arc::clone(&sessions[next(3) as usize]);
            lab.send(&session, next(70) as usize);
            advance(next(400));
            for job in lab.receive() {
                done += 1;
                match job.status {
                    JobStatus::DeviceError => lost += 1,
                    _ => assert_done(&job, LEN),
                }
            }
            if next(40) == 0 {
                advance(LIMITS.max_backoff);
            }
        }
        lab.mood(|mood| *mood = Mood::default());
        for _ in 0..4 {
            advance(LIMITS.timeout + 1);
            for job in lab.receive() {
                done += 1;
                match job.status {
                    JobStatus::DeviceError => lost += 1,
                    _ => assert_done(&job, LEN),
                }
            }
        }
        assert_eq!(done as u64 + 4, lab.sequence, "seed {seed}");
        assert!(lab.expected.is_empty());
        // Broken while decrypting is tried once more, and not counted as lost.
        assert!(lab.stats.lost.get() <= lost, "seed {seed}");
        advance(LIMITS.max_backoff);
        for _ in 0..3 {
            lab.receive();
        }
        assert_eq!(lab.stats.unused(), None, "seed {seed}");
        assert_eq!(lab.send(&sessions[0], 128), 128, "no place is missing");
        lab.receive_all();
    }
}
