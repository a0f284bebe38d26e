//! Life of buffers, queues and ports on devices without hardware. One process, one EAL, one test.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]
#![allow(unsafe_code, reason = "buffers are taken apart and put together again")]

use dpdk::eal::EalError;
use dpdk::lcore::LcoreError;
use dpdk::mempool::HEADROOM;
use dpdk::port::port_by_name;
use dpdk::{
    ArrayVec, Eal, EalOptions, Mbuf, Mempool, PacketBuf, Port, PortConfig, PortError, RxQueue, TxQueue,
    free_all, lcore, ports,
};

const DATA_ROOM: u16 = 2048 + HEADROOM;

fn affinity() -> usize {
    std::thread::available_parallelism().unwrap().get()
}

#[test]
fn loopback() {
    let cpus = affinity();
    let options = EalOptions {
        vdevs: vec!["net_ring0".into(), "net_null0".into()],
        ..EalOptions::without_hardware(128)
    };
    let eal = Eal::init(&options).unwrap();
    assert_eq!(affinity(), cpus, "the EAL's pinning is undone");
    assert!(matches!(Eal::init(&options), Err(EalError::AlreadyInitialised)));
    assert!(dpdk::eal::version().starts_with("DPDK "));
    assert!(dpdk::cycles::hz() > 1_000_000);
    let then = dpdk::cycles::now();
    assert!(dpdk::cycles::now() >= then);

    let pool = Mempool::new(&eal, "packets", 4095, 64, DATA_ROOM, None).unwrap();
    assert_eq!((pool.size(), pool.in_use(), pool.available()), (4095, 0, 4095));
    pool_limits(&eal, &pool);
    buffer_limits(&pool);
    registration(&eal);

    assert_eq!(ports(&eal).count(), 2);
    assert_eq!(port_by_name(&eal, "net_nosuch0"), None);
    ring(&eal, &pool);
    null(&eal, &pool);
    assert_eq!(pool.in_use(), 0);

    assert!(
        matches!(eal.clone().cleanup(), Err(EalError::InUse)),
        "the pool still needs it"
    );
    drop(pool);
    eal.cleanup().unwrap();
}

fn pool_limits(eal: &Eal, pool: &Mempool) {
    assert!(
        Mempool::new(eal, "packets", 63, 0, DATA_ROOM, None).is_err(),
        "name in use"
    );
    assert!(Mempool::new(eal, "no\0name", 63, 0, DATA_ROOM, None).is_err());
    assert!(Mempool::new(eal, "headroom only", 63, 0, HEADROOM, None).is_err());
    assert!(Mempool::new(eal, "too large", u32::MAX / 2, 0, u16::MAX, None).is_err());

    let small = Mempool::new(eal, "small", 31, 0, DATA_ROOM, None).unwrap();
    let mut some = ArrayVec::<Mbuf, 32>::new();
    assert_eq!(small.alloc_bulk(&mut some, 20), 20);
    assert_eq!(
        small.alloc_bulk(&mut some, 12),
        0,
        "only 11 are left: all or nothing"
    );
    assert_eq!(small.alloc_bulk(&mut some, 11), 11);
    assert!(small.alloc().is_none());
    assert_eq!(small.alloc_bulk(&mut some, 0), 0);
    some.truncate(30);
    assert_eq!(small.in_use(), 30, "a buffer dropped alone");
    free_all(&mut some);
    assert_eq!((some.len(), small.in_use()), (0, 0));
    free_all(&mut some);
    drop(small);
    // The name is free again: the pool is.
    drop(Mempool::new(eal, "small", 31, 0, DATA_ROOM, None).unwrap());

    let mut almost_full = ArrayVec::<Mbuf, 8>::new();
    almost_full.push(pool.alloc().unwrap());
    assert_eq!(pool.alloc_bulk(&mut almost_full, 100), 7, "as many as fit");
    drop(almost_full);
    assert_eq!(pool.in_use(), 0);
}

fn buffer_limits(pool: &Mempool) {
    let head = usize::from(HEADROOM);
    let mut m = pool.alloc().unwrap();
    assert_eq!((m.len(), m.headroom(), m.tailroom()), (0, head, 2048));
    assert!(m.is_empty() && m.is_contiguous() && m.rss_hash().is_none());
    assert_eq!(m.capacity(), head + 2048);
    assert_eq!(m.append(2049).unwrap_err().available, 2048);
    assert!(m.trim_front(1).is_err() && m.trim_back(1).is_err());

    m.append(100).unwrap().fill(1);
    m.prepend(14).unwrap()[..14].fill(2);
    assert_eq!(
        (m.len(), m.packet_len(), m.headroom(), m.tailroom()),
        (114, 114, head - 14, 1948)
    );
    assert!(m.data()[..14].iter().all(|&b| b == 2) && m.data()[14..].iter().all(|&b| b == 1));

    let no_room = m.prepend(head).unwrap_err();
    assert_eq!((no_room.requested, no_room.available), (head, head - 14));
    assert_eq!(m.prepend(usize::MAX).unwrap_err().requested, usize::MAX);
    m.prepend(head - 14).unwrap();
    assert_eq!(m.headroom(), 0);
    m.append(1948).unwrap();
    assert_eq!((m.tailroom(), m.len()), (0, m.capacity()));
    m.trim_front(head).unwrap();
    m.trim_back(1948).unwrap();
    assert_eq!(m.data(), [1; 100]);
    assert!(m.trim_front(101).is_err() && m.trim_back(usize::MAX).is_err());
    m.data_mut()[0] = 9;
    m.prefetch();
    m.prefetch_header();
    assert_eq!(m.ip_checksum_status(), octoplane_packet::ChecksumStatus::Unknown);

    let raw = m.into_raw();
    // SAFETY: the pointer was just given up by its owner.
    let m = unsafe { Mbuf::from_raw(raw) };
    assert_eq!(m.data()[..2], [9, 1]);
}

fn registration(eal: &Eal) {
    let main = lcore::current().unwrap();
    assert_eq!(
        lcore::register_thread(eal).unwrap_err(),
        LcoreError::Already(main)
    );
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(lcore::current(), None);
            let guard = lcore::register_thread(eal).unwrap();
            assert_eq!(lcore::current(), Some(guard.id()));
            assert_ne!(guard.id(), main);
            assert_eq!(
                lcore::register_thread(eal).unwrap_err(),
                LcoreError::Already(guard.id())
            );
            drop(guard);
            assert_eq!(lcore::current(), None);
        });
    });
}

fn packet(pool: &Mempool, number: u32) -> Mbuf {
    let mut m = pool.alloc().unwrap();
    m.append(60).unwrap().fill(0);
    m.data_mut()[..4].copy_from_slice(&number.to_be_bytes());
    m
}

fn number(m: &Mbuf) -> u32 {
    u32::from_be_bytes(m.data()[..4].try_into().unwrap())
}

/// Sends numbered packets until the device is full; returns how many it took and leaves the others.
fn fill(pool: &Mempool, tx: &mut TxQueue, left: &mut ArrayVec<Mbuf, 32>) -> u32 {
    let mut taken = 0;
    loop {
        for i in 0..32 {
            left.push(packet(pool, taken + i));
        }
        let sent = tx.burst(left);
        taken += sent as u32;
        assert_eq!(left.len(), 32 - sent);
        if sent < 32 {
            return taken;
        }
    }
}

fn drain(rx: &mut RxQueue, expected: u32) {
    let mut got = ArrayVec::<Mbuf, 32>::new();
    let mut next = 0;
    while rx.burst(&mut got) > 0 {
        for m in &got {
            assert_eq!((number(m), m.len()), (next, 60));
            next += 1;
        }
        free_all(&mut got);
    }
    assert_eq!(next, expected);
}

fn ring(eal: &Eal, pool: &Mempool) {
    let id = port_by_name(eal, "net_ring0").unwrap();
    let mut port = Port::open(eal, id).unwrap();
    assert_eq!(Port::open(eal, id).unwrap_err(), PortError::Open(id));
    let info = port.info().unwrap();
    assert_eq!(
        (info.name.as_str(), info.bus.as_str(), info.driver.as_str()),
        ("net_ring0", "vdev", "net_ring")
    );

    assert!(
        matches!(port.start(), Err(PortError::State { .. })),
        "not configured"
    );
    let config = PortConfig {
        mtu: Some(1500),
        ..PortConfig::default()
    };
    assert_eq!(port.configure(&config, &[]).unwrap_err(), PortError::NoPool(id));
    let greedy = PortConfig {
        rx_queues: info.max_rx_queues + 1,
        ..config
    };
    assert!(matches!(
        port.configure(&greedy, std::slice::from_ref(pool)),
        Err(PortError::Queues { .. })
    ));
    let applied = port.configure(&config, std::slice::from_ref(pool)).unwrap();
    assert_eq!(
        (
            applied.rx_queues,
            applied.tx_queues,
            applied.rss,
            applied.fast_free
        ),
        (1, 1, false, false)
    );
    assert_eq!(port.applied(), Some(applied));
    assert!(port.set_mtu(1400).unwrap_err().is_unsupported());

    let (mut rx, mut tx) = port.start().unwrap();
    assert!(port.link().unwrap().up);
    assert!(matches!(
        port.configure(&config, std::slice::from_ref(pool)),
        Err(PortError::QueuesInUse(_))
    ));

    // Full: what is not sent stays ours, in order.
    let mut left = ArrayVec::<Mbuf, 32>::new();
    let taken = fill(pool, &mut tx[0], &mut left);
    assert!(!left.is_empty());
    assert_eq!(
        left.iter().map(number).collect::<Vec<_>>(),
        (taken..taken + left.len() as u32).collect::<Vec<_>>()
    );
    assert_eq!(pool.in_use(), taken + left.len() as u32);
    assert_eq!(tx[0].burst(&mut left), 0);
    drop(left);
    assert_eq!(pool.in_use(), taken);

    // A partly filled array is filled up, not overwritten.
    let mut got = ArrayVec::<Mbuf, 4>::new();
    got.push(packet(pool, 77));
    assert_eq!(rx[0].burst(&mut got), 3);
    assert_eq!(got.iter().map(number).collect::<Vec<_>>(), [77, 0, 1, 2]);
    assert_eq!(rx[0].burst(&mut got), 0, "no room");
    drop(got);
    let mut rest = ArrayVec::<Mbuf, 128>::new();
    let mut received = 3;
    loop {
        let n = rx[0].burst(&mut rest);
        assert!(n <= dpdk::queue::MAX_BURST);
        received += n as u32;
        free_all(&mut rest);
        if n == 0 {
            break;
        }
    }
    assert_eq!((received, pool.in_use()), (taken, 0));

    let stats = port.stats().unwrap();
    assert_eq!((stats.opackets, stats.ipackets), (taken.into(), taken.into()));
    let xstats = port.xstats().unwrap();
    assert!(
        xstats
            .iter()
            .any(|x| x.name == "rx_good_packets" && x.value == u64::from(taken))
    );
    assert_eq!(
        port.xstat_names().unwrap().len(),
        port.xstat_values().unwrap().len()
    );
    port.reset_stats().unwrap();
    assert_eq!(port.stats().unwrap().opackets, 0);

    // The queues work from another thread, and hold the port.
    let (mut rx_queue, mut tx_queue) = (rx.pop().unwrap(), tx.pop().unwrap());
    assert_eq!(port.stop().unwrap_err(), PortError::QueuesInUse(id));
    let (rx_queue, tx_queue) = std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let _lcore = lcore::register_thread(eal).unwrap();
            let mut left = ArrayVec::new();
            let taken = fill(pool, &mut tx_queue, &mut left);
            free_all(&mut left);
            drain(&mut rx_queue, taken);
            (rx_queue, tx_queue)
        });
        worker.join().unwrap()
    });
    assert_eq!(pool.in_use(), 0);
    drop(rx_queue);
    assert_eq!(port.stop().unwrap_err(), PortError::QueuesInUse(id));
    drop(tx_queue);
    port.stop().unwrap();
    port.stop().unwrap();

    // And again, the MAC changed meanwhile.
    let mac = [2, 0, 0, 0, 0, 9];
    match port.set_mac(mac) {
        Ok(()) => assert_eq!(port.mac().unwrap(), mac),
        Err(error) => assert!(error.is_unsupported(), "{error}"),
    }
    port.configure(&config, std::slice::from_ref(pool)).unwrap();
    let (_rx, _tx) = port.start().unwrap();
    assert!(matches!(
        port.start(),
        Err(PortError::QueuesInUse(_) | PortError::State { .. })
    ));
    drop((_rx, _tx));
    port.close().unwrap();
    assert_eq!(
        Port::open(eal, id).unwrap_err(),
        PortError::Missing(id),
        "closed for good"
    );
}

/// The null device makes packets without end and swallows them without end.
fn null(eal: &Eal, pool: &Mempool) {
    let mut port = Port::open(eal, port_by_name(eal, "net_null0").unwrap()).unwrap();
    let config = PortConfig {
        single_pool: true,
        ..PortConfig::default()
    };
    port.configure(&config, std::slice::from_ref(pool)).unwrap();
    let (mut rx, mut tx) = port.start().unwrap();
    // The port goes first; its queues keep it.
    drop(port);
    let mut burst = ArrayVec::<Mbuf, 32>::new();
    let mut seen = 0;
    for _ in 0..1000 {
        let n = rx[0].burst(&mut burst);
        assert_eq!(n, burst.len());
        seen += n;
        while !burst.is_empty() {
            tx[0].burst(&mut burst);
        }
    }
    assert_eq!(seen, 32_000);
    drop((rx, tx));
    assert_eq!(pool.in_use(), 0);
}
