//! Ports for loops of the harness, set up as the data plane sets up its own.

use anyhow::Context;
use dpdk::port::port_by_name;
use dpdk::{Eal, Mempool, Port, PortConfig, RxQueue, TxQueue};

use crate::job::Setup;

/// A port that is up.
pub(crate) struct Bound {
    /// Keeps it open.
    pub(crate) _port: Port,
    pub(crate) rx: Vec<RxQueue>,
    pub(crate) tx: Vec<TxQueue>,
}

/// The one pool of buffers.
pub(crate) fn pool(eal: &Eal, setup: &Setup) -> anyhow::Result<Mempool> {
    Ok(Mempool::new(
        eal,
        "packets",
        setup.mbufs,
        setup.mbuf_cache,
        dpdk::mempool::DEFAULT_DATA_ROOM,
        None,
    )?)
}

/// Brings both ports up with a queue of each kind for every worker.
pub(crate) fn bind(eal: &Eal, setup: &Setup, pool: &Mempool) -> anyhow::Result<Vec<Bound>> {
    let queues = u16::try_from(setup.workers.len())?;
    (0..2)
        .map(|port| {
            let device = setup.device(port);
            let id = port_by_name(eal, &device).with_context(|| format!("no device {device}"))?;
            let mut port = Port::open(eal, id)?;
            let config = PortConfig {
                rx_queues: queues,
                tx_queues: queues,
                mtu: Some(1500),
                single_pool: true,
                ..PortConfig::default()
            };
            port.configure(&config, std::slice::from_ref(pool))?;
            let (rx, tx) = port.start()?;
            Ok(Bound { _port: port, rx, tx })
        })
        .collect()
}
