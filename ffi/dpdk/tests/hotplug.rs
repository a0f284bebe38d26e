//! Devices that come and go while the program runs.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use dpdk::hotplug::{HotplugError, attach, detach, detach_port};
use dpdk::port::port_by_name;
use dpdk::{ArrayVec, Eal, EalOptions, Mbuf, Mempool, PacketBuf, Port, PortConfig, PortError, ports};

fn traffic(eal: &Eal, pool: &Mempool, name: &str) -> Port {
    let mut port = Port::open(eal, port_by_name(eal, name).unwrap()).unwrap();
    port.configure(&PortConfig::default(), std::slice::from_ref(pool))
        .unwrap();
    let (mut rx, mut tx) = port.start().unwrap();
    let mut burst = ArrayVec::<Mbuf, 32>::new();
    assert_eq!(pool.alloc_bulk(&mut burst, 32), 32);
    for m in &mut burst {
        m.append(60).unwrap();
    }
    assert_eq!(tx[0].burst(&mut burst), 32);
    assert_eq!(rx[0].burst(&mut burst), 32);
    drop(burst);
    drop((rx, tx));
    port
}

#[test]
fn add_use_remove() {
    let eal = Eal::init(&EalOptions::without_hardware(128)).unwrap();
    let pool = Mempool::new(&eal, "packets", 2047, 32, 2176, None).unwrap();
    assert_eq!(ports(&eal).count(), 0);

    for _ in 0..3 {
        let ring = attach(&eal, "net_ring7").unwrap();
        let null = attach(&eal, "net_null3,size=128").unwrap();
        assert_eq!(port_by_name(&eal, "net_null3"), Some(null));
        assert!(ports(&eal).eq([ring, null]));
        for again in ["net_ring7", "vdev:net_ring7,nodeaction=x"] {
            assert!(matches!(attach(&eal, again), Err(HotplugError::Exists(name)) if name == "net_ring7"));
        }

        let port = traffic(&eal, &pool, "net_ring7");
        assert!(matches!(detach(&eal, ring), Err(HotplugError::Port(PortError::Open(id))) if id == ring));
        detach_port(port).unwrap();
        assert_eq!(port_by_name(&eal, "net_ring7"), None);
        detach(&eal, null).unwrap();
        assert_eq!((ports(&eal).count(), pool.in_use()), (0, 0));
    }

    assert!(matches!(
        attach(&eal, "net_nosuch0"),
        Err(HotplugError::Attach { .. })
    ));
    assert!(matches!(attach(&eal, "a\0b"), Err(HotplugError::NulByte(_))));

    // A queue handle that is still out keeps the device, and the port comes back usable.
    let id = attach(&eal, "net_ring8").unwrap();
    assert!(matches!(
        detach(&eal, dpdk::PortId(31)),
        Err(HotplugError::Port(PortError::Missing(_)))
    ));
    assert!(matches!(
        detach(&eal, dpdk::PortId(u16::MAX)),
        Err(HotplugError::Port(PortError::Missing(_)))
    ));
    let mut port = Port::open(&eal, id).unwrap();
    port.configure(&PortConfig::default(), std::slice::from_ref(&pool))
        .unwrap();
    let (rx, tx) = port.start().unwrap();
    drop(rx);
    let failed = detach_port(port).unwrap_err();
    assert!(
        matches!(failed.error, HotplugError::Port(PortError::QueuesInUse(_))),
        "{failed}"
    );
    drop(tx);
    detach_port(*failed.port.unwrap()).unwrap();
    drop(pool);
    eal.cleanup().unwrap();
}
