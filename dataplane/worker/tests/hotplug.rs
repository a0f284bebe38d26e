//! Ports that come and go while what keeps transactions fails.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use dpdk::{Eal, EalOptions};
use octoplane_engine::EngineConfig;
use octoplane_tables::model::Role;
use octoplane_tables::{Capacity, ChangeError, Committed, Gateways, Journal, NotSaved, State};
use octoplane_worker::{Dataplane, Plan, Poll, PortChangeError, PortPlan};

/// Keeps nothing once it is told so, and says it afterwards.
struct Disk(Arc<AtomicBool>);

impl Journal for Disk {
    fn ready(&self) -> Result<(), NotSaved> {
        Ok(())
    }

    fn record(&self, _: &Committed, _: &State) {}

    fn wait(&self, _: u64) -> Result<(), NotSaved> {
        match self.0.load(Relaxed) {
            true => Err(NotSaved("no space left on device".into())),
            false => Ok(()),
        }
    }

    fn saved(&self) -> u64 {
        u64::MAX
    }

    fn listen(&self, _: Box<dyn Fn() + Send + Sync>) {}
}

fn port(name: &str, device: &str) -> PortPlan {
    PortPlan {
        name: name.into(),
        role: Role::Pod,
        device: device.into(),
        rx_queues: None,
        tx_queues: None,
        rx_descriptors: 64,
        tx_descriptors: 64,
        mtu: 1500,
        mac: None,
        addresses: Vec::new(),
        promiscuous: false,
    }
}

fn plan() -> Plan {
    Plan {
        ports: Vec::new(),
        cores: vec![core_affinity::get_core_ids().unwrap()[0].id],
        poll: Poll::Adaptive {
            max_sleep: Duration::from_millis(1),
        },
        burst: 32,
        mbufs: 4095,
        mbuf_cache: 64,
        data_room: 2176,
        gateways: Gateways {
            ipv4: "169.254.1.1".parse().unwrap(),
            ipv6: "fe80::1".parse().unwrap(),
        },
        capacity: Capacity::default(),
        connections: 1024,
        engine: EngineConfig::default(),
        ipsec: None,
    }
}

/// The names in the tables and those that the workers have.
fn names(dataplane: &Dataplane) -> [Vec<String>; 2] {
    let state = dataplane.store.state();
    let ports = dataplane.ports();
    [
        state.ports().map(|port| port.name.clone()).collect(),
        ports.iter().map(|bound| bound.plan.name.clone()).collect(),
    ]
}

#[test]
fn tables_and_workers_have_the_same_ports_whatever_the_disk_does() {
    let eal = Eal::init(&EalOptions::without_hardware(256)).unwrap();
    let dataplane = Dataplane::start(&eal, &plan()).unwrap();
    let fails = Arc::new(AtomicBool::new(false));
    dataplane.store.keep(Arc::new(Disk(Arc::clone(&fails))));

    // That it is kept is the caller's matter, who knows what it was asked for.
    fails.store(true, Relaxed);
    let added = dataplane.add_port(&port("a", "net_null7"), "net_null7").map(drop);
    assert!(added.is_ok(), "{added:?}");
    assert_eq!(names(&dataplane), [["a"], ["a"]]);

    let removed = dataplane.remove_port("a", || {});
    assert!(
        matches!(
            removed,
            Err(PortChangeError::Refused(ChangeError::NotSaved { .. }))
        ),
        "{removed:?}"
    );
    assert_eq!(names(&dataplane), [[""; 0], [""; 0]]);
    assert!(matches!(
        dataplane.remove_port("a", || {}),
        Err(PortChangeError::NoSuchPort(_))
    ));

    // Its number, name and device are free.
    fails.store(false, Relaxed);
    dataplane
        .add_port(&port("b", "net_null7"), "net_null7")
        .map(drop)
        .unwrap();
    assert_eq!(names(&dataplane), [["b"], ["b"]]);
    dataplane.remove_port("b", || {}).unwrap();
    assert_eq!(dataplane.stop().len(), 0);
}
