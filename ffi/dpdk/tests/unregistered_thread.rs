//! A thread that is not an lcore sends nothing: some drivers would write to a wild address.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use dpdk::{ArrayVec, Eal, EalOptions, Mbuf, Mempool, PacketBuf, Port, PortConfig, port::port_by_name};

#[test]
fn sends_nothing() {
    let options = EalOptions {
        vdevs: vec!["net_null0".into()],
        ..EalOptions::without_hardware(64)
    };
    let eal = Eal::init(&options).unwrap();
    let pool = Mempool::new(&eal, "packets", 255, 0, 2176, None).unwrap();
    let mut port = Port::open(&eal, port_by_name(&eal, "net_null0").unwrap()).unwrap();
    port.configure(&PortConfig::default(), std::slice::from_ref(&pool))
        .unwrap();
    let (_rx, mut tx) = port.start().unwrap();
    let mut packet = pool.alloc().unwrap();
    packet.append(60).unwrap();

    let worker = std::thread::spawn(move || {
        let mut burst = ArrayVec::<Mbuf, 4>::new();
        burst.push(packet);
        (tx[0].burst(&mut burst), burst.len())
    });
    // Debug builds say so loudly.
    match worker.join() {
        Ok(result) => assert_eq!(result, (0, 1)),
        Err(_) if cfg!(debug_assertions) => {}
        Err(panic) => std::panic::resume_unwind(panic),
    }
    assert_eq!(pool.in_use(), 0, "the packet stayed ours and was freed");
}
