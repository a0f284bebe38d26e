//! The provider with DPDK's crypto drivers: what one side seals the other opens, and devices come and go under load.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use dpdk::mempool::MbufAllocator;
use dpdk::{Eal, EalOptions, Mbuf, Mempool, PacketBuf, lcore};
use octoplane_esp::software::{Library, Plan, Software};
use octoplane_esp::{
    Aead, AesKey, Algorithm, Hmac, IcvLen, Job, JobStatus, KeyMaterial, Operation, Provider, Session,
    SessionId, SessionLookup, Span,
};
use octoplane_packet::BufPool;
use octoplane_worker::crypto::{Crypto, CryptoOptions, CryptoProvider, CryptoSetupError, Why};

/// Bytes in front of the ESP header: an outer Ethernet and IP header would be there.
const OUTER: usize = 34;
const ESP: usize = 8;

#[derive(Default)]
struct Sessions(HashMap<SessionId, Arc<Session>>);

impl SessionLookup for Sessions {
    fn session(&self, id: SessionId) -> Option<&Arc<Session>> {
        self.0.get(&id)
    }
}

impl Sessions {
    fn add(&mut self, index: u32, operation: Operation, algorithm: Algorithm, esn: bool) -> Arc<Session> {
        let id = SessionId { index, generation: 1 };
        let bytes: Vec<u8> = (0..200).map(|byte| byte ^ index as u8).collect();
        let keys = if algorithm.is_aead() {
            KeyMaterial::aead(&bytes[..algorithm.cipher_key_len() + 4])
        } else {
            let (cipher, auth) = (algorithm.cipher_key_len(), algorithm.auth_key_len());
            KeyMaterial::cbc_hmac(&bytes[..cipher], &bytes[100..100 + auth])
        };
        let session = Arc::new(Session::new(id, operation, algorithm, esn, keys).unwrap());
        self.0.insert(id, Arc::clone(&session));
        session
    }
}

fn text(sequence: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u64 * 31 + sequence * 7) as u8).collect()
}

/// A packet as the ESP core prepares it (RFC 4303, section 2; RFC 4106, sections 3 to 5).
fn job(pool: &mut MbufAllocator, session: &Session, sequence: u64, len: usize) -> Job<Mbuf> {
    let algorithm = session.algorithm();
    let (iv_len, icv_len) = (algorithm.iv_len(), algorithm.icv_len());
    let mut buf = pool.alloc().unwrap();
    let data = buf.append(OUTER + ESP + iv_len + len + icv_len).unwrap();
    data[..OUTER].fill(0xee);
    data[OUTER..][..4].copy_from_slice(&0x1234_5678u32.to_be_bytes());
    data[OUTER + 4..][..4].copy_from_slice(&(sequence as u32).to_be_bytes());
    let mut iv = [0; 16];
    iv[..8].copy_from_slice(&sequence.to_be_bytes());
    data[OUTER + ESP..][..iv_len].copy_from_slice(&iv[..iv_len]);
    data[OUTER + ESP + iv_len..][..len].copy_from_slice(&text(sequence, len));
    data[OUTER + ESP + iv_len + len..].fill(0);
    let mut nonce = iv;
    if algorithm.is_aead() {
        nonce[..4].copy_from_slice(&session.keys().salt());
        nonce[4..12].copy_from_slice(&iv[..8]);
    }
    let mut aad = [0; 12];
    aad[..4].copy_from_slice(&0x1234_5678u32.to_be_bytes());
    if session.esn() {
        aad[4..].copy_from_slice(&sequence.to_be_bytes());
    } else {
        aad[4..8].copy_from_slice(&(sequence as u32).to_be_bytes());
    }
    let esn_high = (!algorithm.is_aead() && session.esn()).then_some((sequence >> 32) as u32);
    Job {
        buf,
        session: session.id(),
        operation: session.operation(),
        status: JobStatus::Pending,
        esp: OUTER as u16,
        cipher: Span {
            offset: (OUTER + ESP + iv_len) as u16,
            len: len as u16,
        },
        nonce,
        aad,
        esn_high,
        sequence,
        esp_state: 0,
        cookie: [sequence; 3],
    }
}

/// The bytes of the payload.
fn payload(job: &Job<Mbuf>) -> &[u8] {
    &job.buf.data()[usize::from(job.cipher.offset)..job.cipher.end()]
}

fn reverse(job: Job<Mbuf>, session: &Session) -> Job<Mbuf> {
    Job {
        session: session.id(),
        operation: session.operation(),
        status: JobStatus::Pending,
        ..job
    }
}

/// Everything there and back.
fn all(provider: &mut dyn Provider<Mbuf>, sessions: &Sessions, jobs: Vec<Job<Mbuf>>) -> Vec<Job<Mbuf>> {
    let n = jobs.len();
    let mut jobs = jobs;
    let mut done = Vec::with_capacity(n);
    let start = Instant::now();
    while done.len() < n {
        provider.submit(sessions, &mut jobs);
        provider.poll(&mut done, usize::MAX);
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{} of {n} came back",
            done.len()
        );
    }
    done
}

/// Waits until the device and not the software does the session's jobs, of which `make` makes one.
fn warm_up(
    provider: &mut dyn Provider<Mbuf>,
    sessions: &Sessions,
    mut make: impl FnMut() -> Job<Mbuf>,
    by_device: impl Fn() -> u64,
) {
    let start = Instant::now();
    let before = by_device();
    while by_device() == before {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "the device does not get to work"
        );
        all(provider, sessions, vec![make()]);
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn algorithms() -> Vec<(Algorithm, bool)> {
    let gcm = |key, icv| Algorithm::Aead(Aead::AesGcm(key, icv));
    [
        gcm(AesKey::Aes128, IcvLen::Icv16),
        gcm(AesKey::Aes192, IcvLen::Icv16),
        gcm(AesKey::Aes256, IcvLen::Icv16),
        gcm(AesKey::Aes128, IcvLen::Icv8),
        gcm(AesKey::Aes256, IcvLen::Icv12),
        Algorithm::Aead(Aead::ChaCha20Poly1305),
        Algorithm::CbcHmac(AesKey::Aes128, Hmac::Sha256),
        Algorithm::CbcHmac(AesKey::Aes256, Hmac::Sha256),
        Algorithm::CbcHmac(AesKey::Aes192, Hmac::Sha384),
        Algorithm::CbcHmac(AesKey::Aes256, Hmac::Sha512),
        Algorithm::CbcHmac(AesKey::Aes128, Hmac::Sha256Icv12),
    ]
    .into_iter()
    .flat_map(|algorithm| [(algorithm, false), (algorithm, true)])
    .collect()
}

#[test]
fn devices() {
    let eal = Eal::init(&EalOptions::without_hardware(512)).unwrap();
    let pool = Mempool::new(&eal, "packets", 8191, 64, 2176, None).unwrap();
    useless(&eal, &pool);
    // How many of the algorithms above each knows, at the least.
    interoperates(&eal, &pool, "crypto_openssl", 10);
    if cfg!(target_arch = "x86_64") {
        // Debian has them for this architecture only.
        interoperates(&eal, &pool, "crypto_aesni_gcm", 10);
        interoperates(&eal, &pool, "crypto_aesni_mb", 16);
    }
    comes_and_goes(&eal, &pool);
    assert_eq!(pool.in_use(), 0);
    drop(pool);
    eal.cleanup().unwrap();
}

fn open(
    eal: &Eal,
    pool: &Mempool,
    devices: &[&str],
    workers: usize,
) -> Result<(Crypto, Vec<CryptoProvider>), CryptoSetupError> {
    let options = CryptoOptions {
        devices: devices.iter().map(|&name| name.to_owned()).collect(),
        required: true,
        library: Some(Library::AwsLc),
        retry: Duration::from_millis(5),
        ..CryptoOptions::default()
    };
    Crypto::open(eal, options, workers, pool)
}

/// A device that offers nothing is refused, or left out.
fn useless(eal: &Eal, pool: &Mempool) {
    let refused = open(eal, pool, &["crypto_null1"], 1);
    assert!(
        matches!(refused, Err(CryptoSetupError::Useless(name)) if name == "crypto_null1"),
        "a device that encrypts nothing"
    );
    assert!(matches!(
        open(eal, pool, &["crypto_nosuch1"], 1),
        Err(CryptoSetupError::Device { .. })
    ));
    assert!(matches!(
        open(eal, pool, &["crypto_openssl9,max_nb_queue_pairs=2"], 3),
        Err(CryptoSetupError::QueuePairs { have: 2, workers: 3 })
    ));
    let options = CryptoOptions {
        devices: vec!["crypto_null1".into()],
        ..CryptoOptions::default()
    };
    let (crypto, mut providers) = Crypto::open(eal, options, 1, pool).unwrap();
    assert_eq!((crypto.skipped().len(), crypto.report().len()), (1, 0));
    let mut sessions = Sessions::default();
    let (gcm, _) = algorithms()[0];
    let session = sessions.add(1, Operation::Encrypt, gcm, true);
    let jobs = (0..10)
        .map(|n| job(&mut pool.allocator(), &session, n, 64))
        .collect();
    let done = all(&mut *providers[0], &sessions, jobs);
    assert!(done.iter().all(|job| job.status == JobStatus::Ok));
    let stats = crypto.stats().next().unwrap();
    assert_eq!((stats.software(Why::Removed), stats.device.get()), (10, 0));
}

/// What a device seals, software opens, and the other way round, byte by byte the same.
fn interoperates(eal: &Eal, pool: &Mempool, name: &str, least: usize) {
    let (crypto, mut providers) = open(eal, pool, &[name], 1).unwrap();
    let mut provider = providers.remove(0);
    let provider = &mut *provider;
    let mut oracle = Software::<Mbuf>::new(Arc::new(Plan::only(Library::RustCrypto)), 2048);
    let mut alloc = pool.allocator();
    let mut sessions = Sessions::default();
    let stats = |crypto: &Crypto| {
        let stats = crypto.stats().next().unwrap();
        (stats.device.get(), stats.software(Why::Unsupported))
    };
    let mut by_device = 0;
    for (n, (algorithm, esn)) in algorithms().into_iter().enumerate() {
        let what = format!("{name}: {algorithm}, ESN {esn}");
        let n = n as u32;
        let seal = sessions.add(2 * n, Operation::Encrypt, algorithm, esn);
        // The same keys: the index makes them.
        let open = {
            let id = SessionId {
                index: 2 * n + 1,
                generation: 1,
            };
            let open = Session::new(id, Operation::Decrypt, algorithm, esn, seal.keys().clone()).unwrap();
            let open = Arc::new(open);
            sessions.0.insert(id, Arc::clone(&open));
            open
        };
        let before = stats(&crypto);
        all(provider, &sessions, vec![job(&mut alloc, &seal, 1, 64)]);
        let supported = stats(&crypto).1 == before.1;
        if supported {
            warm_up(
                provider,
                &sessions,
                || job(&mut alloc, &seal, 1, 64),
                || stats(&crypto).0,
            );
            by_device += 1;
        }
        // Above and below 32 bits of sequence number.
        let numbers = [5, (7 << 32) + 9, u64::from(u32::MAX)].into_iter();
        let sizes = [16, 64, 512, 1424];
        let pairs: Vec<(u64, usize)> = numbers
            .flat_map(|sequence| sizes.map(|len| (sequence, len)))
            .collect();
        let make = |alloc: &mut MbufAllocator| -> Vec<Job<Mbuf>> {
            pairs
                .iter()
                .map(|&(sequence, len)| job(alloc, &seal, sequence, len))
                .collect()
        };
        let sealed = all(provider, &sessions, make(&mut alloc));
        let expected = all(&mut oracle, &sessions, make(&mut alloc));
        for (ours, theirs) in sealed.iter().zip(&expected) {
            assert_eq!(
                (ours.status, theirs.status),
                (JobStatus::Ok, JobStatus::Ok),
                "{what}"
            );
            assert_eq!(ours.cookie, [ours.sequence; 3]);
            assert_eq!(ours.buf.data(), theirs.buf.data(), "{what}");
        }
        // Back: once as it is, once with a bit changed in what is not encrypted but authenticated.
        if supported {
            let sealed = || {
                let one = vec![job(&mut alloc, &seal, 1, 64)];
                reverse(all(&mut oracle, &sessions, one).remove(0), &open)
            };
            warm_up(provider, &sessions, sealed, || stats(&crypto).0);
        }
        let back = sealed.into_iter().map(|job| reverse(job, &open)).collect();
        let before = stats(&crypto).0;
        for job in all(provider, &sessions, back) {
            assert_eq!(job.status, JobStatus::Ok, "{what}");
            assert_eq!(payload(&job), text(job.sequence, payload(&job).len()), "{what}");
        }
        if supported {
            assert_eq!(stats(&crypto).0 - before, pairs.len() as u64, "{what}");
        }
        let mut forged: Vec<_> = all(&mut oracle, &sessions, make(&mut alloc))
            .into_iter()
            .map(|job| reverse(job, &open))
            .collect();
        for job in &mut forged {
            if algorithm.is_aead() {
                job.aad[0] ^= 1;
            } else if let Some(high) = &mut job.esn_high {
                *high ^= 1;
            } else {
                job.buf.data_mut()[OUTER] ^= 1;
            }
        }
        for job in all(provider, &sessions, forged) {
            assert_eq!(job.status, JobStatus::AuthFailed, "{what}");
        }
    }
    assert!(by_device >= least, "{name} did {by_device} algorithms");
    let report = crypto.report().remove(0);
    assert_eq!((report.name.as_str(), report.driver.as_str()), (name, name));
    assert_eq!(report.workers, [(0, None)]);
    assert_eq!(
        report.failed_sessions,
        (0, None),
        "capabilities are what they say"
    );
    assert!(!report.algorithms.is_empty() && report.sessions > 0);

    // One that is announced is there before its first packet.
    let early = sessions.add(999, Operation::Encrypt, algorithms()[0].0, true);
    let stats = crypto.stats().next().unwrap();
    let (had, pending) = (stats.sessions.get(), stats.software(Why::SessionPending));
    assert!(crypto.prepare(&early));
    let start = Instant::now();
    while stats.sessions.get() == had {
        assert!(start.elapsed() < Duration::from_secs(10));
        provider.submit(&sessions, &mut Vec::new());
    }
    let before = stats.device.get();
    all(provider, &sessions, vec![job(&mut alloc, &early, 1, 64)]);
    assert_eq!(
        (stats.device.get() - before, stats.software(Why::SessionPending)),
        (1, pending)
    );

    // All of them go.
    sessions.0.clear();
    provider.sessions_changed(&sessions);
    let start = Instant::now();
    while crypto.report()[0].sessions > 0 {
        assert!(start.elapsed() < Duration::from_secs(5), "sessions are left over");
        provider.poll(&mut Vec::new(), usize::MAX);
        std::thread::sleep(Duration::from_millis(1));
    }
    let gone = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            crypto.remove(name).unwrap();
            gone.store(true, Relaxed);
        });
        while !gone.load(Relaxed) {
            provider.poll(&mut Vec::new(), usize::MAX);
        }
    });
    assert!(matches!(crypto.remove(name), Err(CryptoSetupError::Unknown(_))));
}

/// Two workers send without a pause while the device is taken away and comes back. Nothing is lost, nothing reordered.
fn comes_and_goes(eal: &Eal, pool: &Mempool) {
    let name = "crypto_openssl4";
    let (crypto, providers) = open(eal, pool, &[name], 2).unwrap();
    assert!(matches!(crypto.add(name), Err(CryptoSetupError::Known(_))));
    assert!(matches!(
        crypto.add("crypto_openssl5"),
        Err(CryptoSetupError::NobodyWaits(_))
    ));
    let mut sessions = Sessions::default();
    let (gcm, _) = algorithms()[0];
    let session = sessions.add(5, Operation::Encrypt, gcm, true);
    let (stop, done) = (AtomicBool::new(false), [AtomicU64::new(0), AtomicU64::new(0)]);
    std::thread::scope(|scope| {
        for (mut provider, done) in providers.into_iter().zip(&done) {
            let (sessions, session, stop) = (&sessions, &session, &stop);
            scope.spawn(move || {
                let _lcore = lcore::register_thread(eal).unwrap();
                let mut oracle = Software::<Mbuf>::new(Arc::new(Plan::only(Library::Ring)), 64);
                let mut alloc = pool.allocator();
                let (mut sent, mut next) = (0, 0);
                let mut jobs = Vec::new();
                let mut back = Vec::with_capacity(64);
                while !stop.load(Relaxed) || provider.in_flight() > 0 {
                    while jobs.len() < 32 && !stop.load(Relaxed) {
                        jobs.push(job(&mut alloc, session, sent, 200));
                        sent += 1;
                    }
                    if stop.load(Relaxed) {
                        sent -= jobs.len() as u64;
                        jobs.clear();
                    }
                    provider.submit(sessions, &mut jobs);
                    provider.poll(&mut back, usize::MAX);
                    for job_back in back.drain(..) {
                        assert_eq!((job_back.sequence, job_back.status), (next, JobStatus::Ok));
                        if next % 97 == 0 {
                            let again = job(&mut alloc, session, next, 200);
                            let expected = all(&mut oracle, sessions, vec![again]);
                            assert_eq!(job_back.buf.data(), expected[0].buf.data());
                        }
                        next += 1;
                        done.fetch_add(1, Relaxed);
                    }
                }
                assert_eq!(next, sent);
            });
        }
        let advanced = || {
            for done in &done {
                let before = done.load(Relaxed);
                let start = Instant::now();
                while done.load(Relaxed) < before + 500 {
                    assert!(start.elapsed() < Duration::from_secs(10), "a worker stands still");
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        };
        let used = || crypto.stats().all(|stats| stats.unused().is_none());
        for _ in 0..4 {
            let start = Instant::now();
            while !used() {
                assert!(start.elapsed() < Duration::from_secs(10));
                std::thread::sleep(Duration::from_millis(1));
            }
            advanced();
            assert!(crypto.stats().all(|stats| stats.device.get() > 0));
            crypto.remove(name).unwrap();
            assert!(crypto.report().is_empty());
            advanced();
            crypto.add(name).unwrap();
        }
        stop.store(true, Relaxed);
    });
    for stats in crypto.stats() {
        assert_eq!((stats.lost.get(), stats.late.get()), (0, 0));
        assert!(stats.software(Why::Removed) > 0 && stats.recoveries.get() >= 4);
    }
    // The workers are gone, and with them their queues.
    crypto.remove(name).unwrap();
}
