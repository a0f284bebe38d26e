//! Ten thousand services.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that measures")]

mod common;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use common::scale::{resident, time};
use common::{ip, node, put_node, snapshot, store_with};
use octoplane_tables::Capacity;
use octoplane_tables::model::{
    Algorithm, BackendState, Change, FrontendType, Protocol, Service, ServiceBackend, ServiceFrontend,
};

fn service(n: u32, generation: u32, algorithm: Algorithm) -> Change {
    let backends = (0..10)
        .map(|index| ServiceBackend {
            addr: Ipv4Addr::from_bits(0x0a00_0000 + n * 10 + index + 1).into(),
            port: 8080,
            weight: 1,
            state: if index == generation % 10 && generation != 0 {
                BackendState::Terminating
            } else {
                BackendState::Active
            },
            local: index == 0,
        })
        .collect();
    Change::PutService(Box::new(Service {
        frontends: vec![
            ServiceFrontend {
                addr: Ipv4Addr::from_bits(0xac14_0000 + n).into(),
                port: 80,
                kind: FrontendType::ClusterIp,
            },
            ServiceFrontend {
                addr: ip("0.0.0.0"),
                port: 20_000 + n as u16,
                kind: FrontendType::NodePort,
            },
        ],
        backends,
        algorithm,
        ..Service::new(format!("default/service-{n}:http"), Protocol::Tcp)
    }))
}

#[test]
fn ten_thousand_services() {
    let before = resident();
    let mut store = store_with(Capacity::default());
    store.apply(vec![put_node(node(&["198.51.100.1"]))]).unwrap();
    let start = Instant::now();
    let changes = (0..10_000).map(|n| service(n, 0, Algorithm::Random)).collect();
    store.apply(changes).unwrap();
    let loaded = start.elapsed();
    let (middle, worst) = time(&mut store, 2000, |n| {
        vec![service(n * 4, 1 + n, Algorithm::Random)]
    });
    let memory = resident().saturating_sub(before) >> 20;
    eprintln!(
        "10,000 services of 10 backends: loaded in {loaded:.1?}, {memory} MiB, one change {middle:.1?} \
         (at worst {worst:.1?})"
    );
    let (maglev, _) = time(&mut store, 200, |n| vec![service(n, 1 + n, Algorithm::Maglev)]);
    eprintln!("one change of a service of 10 backends with Maglev: {maglev:.1?}");
    let start = Instant::now();
    store
        .apply(vec![put_node(node(&["198.51.100.1", "198.51.100.2"]))])
        .unwrap();
    eprintln!("one more NodePort address of the node: {:.1?}", start.elapsed());
    let now = snapshot(&store);
    assert!(now.frontend4(0xc633_6402, 29_999, 6).is_some());
    assert!(middle < Duration::from_millis(2), "{middle:?}");
}
