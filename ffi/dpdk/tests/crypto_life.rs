//! Life of crypto devices, queues and sessions: full, dropped with packets inside, gone and back.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod common;

use std::sync::Arc;

use common::{HEADER, collect, drivers, gcm, job, packet, run};
use dpdk::crypto::{
    BadJob, CRYPTO_BURST, CryptoAlgorithm, CryptoConfig, CryptoDevice, CryptoError, CryptoId, CryptoJob,
    CryptoQueue, Direction, Enqueued, Refusal, Status, Transform, attach, capability, detach, device_by_name,
    devices,
};
use dpdk::{ArrayVec, Eal, EalOptions, Mempool, PacketBuf, lcore};

const NULL: Transform = Transform {
    algorithm: CryptoAlgorithm::Null,
    direction: Direction::Encrypt,
    key_len: 0,
    auth_key_len: 0,
    iv_len: 0,
    digest_len: 0,
    aad_len: 0,
};

#[test]
fn life() {
    let eal = Eal::init(&EalOptions::without_hardware(256)).unwrap();
    let pool = Mempool::new(&eal, "packets", 2047, 32, 2176, None).unwrap();
    names(&eal);
    null(&eal, &pool);
    for name in drivers() {
        let name = format!("{name}3");
        limits(&eal, &pool, &name);
        full(&eal, &pool, &name);
        dropped(&eal, &pool, &name);
        two_queues(&eal, &pool, &name);
    }
    many_sessions(&eal);
    assert_eq!(devices(&eal).count(), 0);
    assert_eq!(pool.in_use(), 0);
    drop(pool);
    eal.cleanup().unwrap();
}

fn names(eal: &Eal) {
    assert_eq!(devices(eal).count(), 0);
    assert_eq!(device_by_name(eal, "crypto_null7"), None);
    let id = attach(eal, "crypto_null7,max_nb_queue_pairs=2").unwrap();
    assert_eq!(device_by_name(eal, "crypto_null7"), Some(id));
    assert!(devices(eal).eq([id]));
    assert!(
        matches!(attach(eal, "vdev:crypto_null7"), Err(CryptoError::Exists(name)) if name == "crypto_null7")
    );
    assert!(matches!(
        attach(eal, "crypto_nosuch0"),
        Err(CryptoError::Attach { .. })
    ));
    assert!(matches!(attach(eal, "net_null5"), Err(CryptoError::NotCrypto(_))));
    assert!(matches!(attach(eal, "a\0b"), Err(CryptoError::NulByte(_))));
    for id in [CryptoId(63), CryptoId(u8::MAX)] {
        assert_eq!(CryptoDevice::open(eal, id).unwrap_err(), CryptoError::Missing(id));
    }

    let mut device = CryptoDevice::open(eal, id).unwrap();
    assert_eq!(CryptoDevice::open(eal, id).unwrap_err(), CryptoError::Open(id));
    assert_eq!(detach(eal, id).unwrap_err(), CryptoError::Open(id));
    for queue_pairs in [0, 3] {
        let config = CryptoConfig {
            queue_pairs,
            ..CryptoConfig::default()
        };
        let refused = device.start(&config).unwrap_err();
        assert_eq!(
            refused,
            CryptoError::QueuePairs {
                device: id,
                asked: queue_pairs,
                most: 2
            }
        );
    }
    device.close().unwrap();
    detach(eal, id).unwrap();
    assert_eq!(detach(eal, id).unwrap_err(), CryptoError::Missing(id));
}

/// A device that does nothing knows nothing but that.
fn null(eal: &Eal, pool: &Mempool) {
    let id = attach(eal, "crypto_null").unwrap();
    for algorithm in CryptoAlgorithm::ALL {
        let known = capability(eal, id, algorithm).unwrap();
        assert_eq!(known.is_some(), algorithm == CryptoAlgorithm::Null, "{algorithm}");
    }
    let mut device = CryptoDevice::open(eal, id).unwrap();
    let mut queue = device.start(&CryptoConfig::default()).unwrap().remove(0);
    let sessions = device.session_maker();
    let refused = sessions.make(&gcm(Direction::Encrypt, 16, 16, 8), &[0; 16], &[]);
    assert!(matches!(refused, Err(CryptoError::Unsupported { .. })));
    let slot = queue.adopt(sessions.make(&NULL, &[], &[]).unwrap()).unwrap();
    let (status, done, _) = run(
        &mut queue,
        job(packet(pool, &[7; 48], &[]), slot, 9, 48, &[], &[]),
    );
    assert_eq!(status, Status::Success);
    assert_eq!(done.data()[HEADER..], [7; 48]);
    drop((queue, sessions));
    device.close().unwrap();
    detach(eal, id).unwrap();
}

fn open(eal: &Eal, name: &str, config: CryptoConfig) -> (CryptoDevice, Vec<CryptoQueue>) {
    let id = device_by_name(eal, name).unwrap_or_else(|| attach(eal, name).unwrap());
    let mut device = CryptoDevice::open(eal, id).unwrap();
    let queues = device.start(&config).unwrap();
    (device, queues)
}

/// What a queue refuses, and that the packet is still the caller's then.
fn limits(eal: &Eal, pool: &Mempool, name: &str) {
    let (mut device, mut queues) = open(eal, name, CryptoConfig::default());
    let mut queue = queues.remove(0);
    assert_eq!(
        device.start(&CryptoConfig::default()).unwrap_err(),
        CryptoError::InUse(device.id())
    );
    let sessions = device.session_maker();
    let transform = gcm(Direction::Encrypt, 16, 16, 8);
    for (key, auth) in [(&[0u8; 15][..], &[][..]), (&[0; 16], &[0])] {
        let refused = sessions.make(&transform, key, auth);
        assert!(
            matches!(refused, Err(CryptoError::KeyLength { .. })),
            "{refused:?}"
        );
    }
    let odd = Transform {
        digest_len: 17,
        ..transform
    };
    assert!(matches!(
        sessions.make(&odd, &[0; 16], &[]),
        Err(CryptoError::Unsupported { .. })
    ));

    let session = sessions.make(&transform, &[1; 16], &[]).unwrap();
    let slot = queue.adopt(Arc::clone(&session)).unwrap();
    let mut refuse = |edit: &dyn Fn(&mut CryptoJob), why| {
        let mut one = job(packet(pool, &[0; 64], &[0; 16]), slot, 3, 64, &[0; 12], &[0; 8]);
        edit(&mut one);
        let mut jobs = ArrayVec::<CryptoJob, 2>::new();
        jobs.push(one);
        let refused = Enqueued {
            taken: 0,
            refused: Some(Refusal::Bad(why)),
        };
        assert_eq!(queue.enqueue(&mut jobs), refused);
        assert_eq!((jobs.len(), jobs[0].user()), (1, 3));
    };
    let too_short = || packet(pool, &[0; 64], &[0; 15]);
    refuse(&|job| _ = job.cipher(HEADER as u16, 64 + 17), BadJob::Range);
    refuse(&|job| _ = job.cipher(u16::MAX, u16::MAX), BadJob::Range);
    refuse(&|job| _ = job.digest(HEADER as u16 + 64 + 1), BadJob::Range);
    refuse(&|job| _ = job.into_other(too_short()), BadJob::Range);

    // A session that is in use stays; one that is gone has no jobs.
    let mut jobs = ArrayVec::<CryptoJob, 2>::new();
    jobs.push(job(
        packet(pool, &[0; 64], &[0; 16]),
        slot,
        0,
        64,
        &[0; 12],
        &[0; 8],
    ));
    assert_eq!(queue.enqueue(&mut jobs).taken, 1);
    assert_eq!(queue.release(slot).unwrap_err().0, 1);
    assert_eq!(collect(&mut queue, 1)[0].status(), Status::Success);
    assert!(queue.release(slot).unwrap().is_some() && queue.release(slot).unwrap().is_none());
    jobs.push(job(
        packet(pool, &[0; 64], &[0; 16]),
        slot,
        0,
        64,
        &[0; 12],
        &[0; 8],
    ));
    assert_eq!(
        queue.enqueue(&mut jobs).refused,
        Some(Refusal::Bad(BadJob::Session))
    );
    drop(jobs);

    // AES-CBC wants whole blocks.
    let cbc = Transform {
        algorithm: CryptoAlgorithm::AesCbcHmacSha256,
        auth_key_len: 32,
        iv_len: 16,
        aad_len: 0,
        ..transform
    };
    if sessions.supports(&cbc) {
        let slot = queue
            .adopt(sessions.make(&cbc, &[1; 16], &[2; 32]).unwrap())
            .unwrap();
        let mut jobs = ArrayVec::<CryptoJob, 2>::new();
        jobs.push(job(packet(pool, &[0; 60], &[0; 16]), slot, 0, 60, &[0; 16], &[]));
        assert_eq!(
            queue.enqueue(&mut jobs).refused,
            Some(Refusal::Bad(BadJob::Blocks))
        );
    }

    // Everything that is out keeps the device open.
    drop(queue);
    let (error, device) = device.close().unwrap_err();
    assert_eq!(error, CryptoError::InUse(device.id()));
    drop(sessions);
    let (_, device) = device.close().unwrap_err();
    drop(session);
    device.close().unwrap();
    assert_eq!(pool.in_use(), 0);
}

/// A queue takes as much as it has room for, in order, and the rest stays.
fn full(eal: &Eal, pool: &Mempool, name: &str) {
    let config = CryptoConfig {
        queue_pairs: 1,
        descriptors: 128,
    };
    let (device, mut queues) = open(eal, name, config);
    let mut queue = queues.remove(0);
    let session = device
        .session_maker()
        .make(&gcm(Direction::Encrypt, 32, 16, 12), &[1; 32], &[])
        .unwrap();
    let slot = queue.adopt(session).unwrap();
    assert_eq!((queue.room(), queue.in_flight()), (127, 0));

    let mut seen = Vec::new();
    for round in 0..5u32 {
        let mut jobs = ArrayVec::<CryptoJob, 200>::new();
        for n in 0..200u32 {
            let text = [n as u8; 64];
            jobs.push(job(
                packet(pool, &text, &[0; 16]),
                slot,
                round << 16 | n,
                64,
                &[0; 12],
                &[0; 12],
            ));
        }
        let enqueued = queue.enqueue(&mut jobs);
        assert_eq!(
            enqueued,
            Enqueued {
                taken: 127,
                refused: Some(Refusal::Full)
            }
        );
        assert_eq!((jobs.len(), jobs[0].user()), (73, round << 16 | 127));
        let untouched = jobs.remove(0).into_packets().0;
        assert_eq!(untouched.data()[HEADER..][..64], [127; 64]);
        assert_eq!((queue.room(), queue.in_flight()), (0, 127));
        let done = collect(&mut queue, 127);
        assert!(done.iter().all(|done| done.status() == Status::Success));
        seen.extend(done.iter().map(dpdk::crypto::Done::user));
        assert_eq!((queue.room(), queue.in_flight()), (127, 0));
    }
    let expected: Vec<u32> = (0..5)
        .flat_map(|round| (0..127).map(move |n| round << 16 | n))
        .collect();
    assert_eq!(seen, expected, "{name} keeps the order");
    drop(queue);
    device.close().unwrap();
    assert_eq!(pool.in_use(), 0);
}

/// A queue that goes with packets inside waits for them and frees them; then the device comes back.
fn dropped(eal: &Eal, pool: &Mempool, name: &str) {
    let (device, mut queues) = open(eal, name, CryptoConfig::default());
    let mut queue = queues.remove(0);
    let session = device
        .session_maker()
        .make(&gcm(Direction::Encrypt, 16, 16, 8), &[1; 16], &[])
        .unwrap();
    let slot = queue.adopt(session).unwrap();
    let mut jobs = ArrayVec::<CryptoJob, 200>::new();
    for n in 0..200 {
        jobs.push(job(
            packet(pool, &[1; 64], &[0; 16]),
            slot,
            n,
            64,
            &[0; 12],
            &[0; 8],
        ));
    }
    assert_eq!(queue.enqueue(&mut jobs).taken, 200);
    assert_eq!((queue.in_flight(), pool.in_use()), (200, 200));
    let id = device.id();
    drop(queue);
    assert_eq!(pool.in_use(), 0);
    device.close().unwrap();
    detach(eal, id).unwrap();
    assert_eq!(device_by_name(eal, name), None);
}

/// Two queues on two threads, one session between them.
fn two_queues(eal: &Eal, pool: &Mempool, name: &str) {
    const PACKETS: u32 = 20_000;
    let config = CryptoConfig {
        queue_pairs: 2,
        descriptors: 256,
    };
    let (device, queues) = open(eal, name, config);
    let sessions = device.session_maker();
    let session = sessions
        .make(&gcm(Direction::Encrypt, 16, 16, 8), &[1; 16], &[])
        .unwrap();
    std::thread::scope(|scope| {
        for mut queue in queues {
            let session = Arc::clone(&session);
            scope.spawn(move || {
                let _lcore = lcore::register_thread(eal).unwrap();
                let slot = queue.adopt(session).unwrap();
                let (mut sent, mut back) = (0, 0);
                let mut jobs = ArrayVec::<CryptoJob, CRYPTO_BURST>::new();
                let mut done = ArrayVec::<_, CRYPTO_BURST>::new();
                while back < PACKETS {
                    while jobs.len() < 32 && sent < PACKETS {
                        jobs.push(job(
                            packet(pool, &[1; 64], &[0; 16]),
                            slot,
                            sent,
                            64,
                            &[0; 12],
                            &[0; 8],
                        ));
                        sent += 1;
                    }
                    queue.enqueue(&mut jobs);
                    queue.dequeue(&mut done);
                    for one in done.drain(..) {
                        assert_eq!((one.user(), one.status()), (back, Status::Success));
                        back += 1;
                    }
                }
            });
        }
        // Sessions come and go meanwhile.
        for n in 0..50 {
            drop(
                sessions
                    .make(&gcm(Direction::Decrypt, 16, 16, 8), &[n; 16], &[])
                    .unwrap(),
            );
        }
    });
    assert_eq!(device.stats().unwrap().dequeued, u64::from(2 * PACKETS));
    drop((session, sessions));
    let id = device.id();
    device.close().unwrap();
    detach(eal, id).unwrap();
    assert_eq!(pool.in_use(), 0);
}

/// More sessions than a pool has.
fn many_sessions(eal: &Eal) {
    let (device, queues) = open(eal, "crypto_openssl5", CryptoConfig::default());
    let sessions = device.session_maker();
    for _ in 0..2 {
        let all: Vec<_> = (0..2000u32)
            .map(|n| {
                let mut key = [0; 16];
                key[..4].copy_from_slice(&n.to_be_bytes());
                sessions
                    .make(&gcm(Direction::Encrypt, 16, 16, 8), &key, &[])
                    .unwrap()
            })
            .collect();
        drop(all);
    }
    drop((queues, sessions));
    let id = device.id();
    device.close().unwrap();
    detach(eal, id).unwrap();
}
