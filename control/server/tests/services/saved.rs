//! What is programmed is there again after a restart, and is answered for only once it would be.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use octoplane_api::v1;
use octoplane_api::v1::change::Change as Step;
use octoplane_control::StateFile;
use octoplane_tables::model::{Change, Neighbour, Origin};
use octoplane_tables::{Capacity, State};
use tempfile::TempDir;
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::common::{Lab, apply, endpoint, neighbour, reopen, route, tables};

fn entry(identity: u32, port: u32) -> v1::PolicyEntry {
    v1::PolicyEntry {
        direction: v1::PolicyDirection::Ingress.into(),
        identity,
        protocol: 6,
        port,
        port_prefix_len: 16,
        precedence: 7,
        ..Default::default()
    }
}

fn service(name: &str, address: &str, backends: u32) -> v1::Service {
    let backend = |n: u32| v1::Backend {
        address: format!("10.99.{}.{}", n >> 8, n & 255),
        port: 8080,
        ..Default::default()
    };
    v1::Service {
        name: name.into(),
        protocol: v1::ServiceProtocol::Tcp.into(),
        frontends: vec![v1::Frontend {
            r#type: v1::FrontendType::ClusterIp.into(),
            address: address.into(),
            port: 80,
        }],
        backends: (1..=backends).map(backend).collect(),
        ..Default::default()
    }
}

/// One of each kind at least.
fn everything() -> v1::ApplyRequest {
    apply([
        Step::PutEndpoint(v1::Endpoint {
            ingress_rate: 1_000_000,
            ..endpoint(1)
        }),
        Step::PutEndpoint(endpoint(2)),
        Step::PutRoute(v1::Route {
            mtu: 1400,
            ..route("0.0.0.0/0", "192.0.2.1")
        }),
        Step::PutRoute(v1::Route {
            prefix: "2001:db8:5::/48".into(),
            target: Some(v1::route::Target::Host(true)),
            mtu: 0,
        }),
        Step::PutNeighbour(neighbour("192.0.2.1", "02:00:00:00:00:91")),
        Step::SetPort(v1::Port {
            name: "pod2".into(),
            mtu: 1400,
            admin_up: Some(false),
            ..Default::default()
        }),
        Step::PutNode(v1::Node {
            addresses: vec!["192.0.2.2".into()],
            masquerade4: "192.0.2.2".into(),
            ..Default::default()
        }),
        Step::PutIpcache(v1::Ipcache {
            prefix: "10.77.0.0/24".into(),
            identity: 4711,
            tunnel_endpoint: "192.0.2.77".into(),
            ..Default::default()
        }),
        Step::PutService(service("default/web", "172.20.0.1", 3)),
        Step::PutPolicy(v1::Policy {
            endpoint: 1,
            enforce_ingress: true,
            entries: vec![entry(1, 80), entry(2, 443)],
            ..Default::default()
        }),
        Step::PutPolicy(v1::Policy {
            endpoint: 2,
            audit: true,
            ..Default::default()
        }),
        Step::PutEgressGateway(v1::EgressGateway {
            source: "10.64.0.1/32".into(),
            destination: "203.0.113.0/24".into(),
            gateway: Some(v1::egress_gateway::Gateway::Node("192.0.2.77".into())),
            ..Default::default()
        }),
    ])
}

/// All that clients see of the tables, as they see it.
async fn seen(lab: &Lab) -> (u64, Vec<v1::Event>) {
    let request = v1::WatchRequest {
        initial_state: true,
        ..Default::default()
    };
    let mut events = lab.config().await.watch(request).await.unwrap().into_inner();
    let mut all = Vec::new();
    loop {
        let event = events.next().await.unwrap().unwrap();
        if event.initial_state_end {
            return (event.revision, all);
        }
        all.push(v1::Event { revision: 0, ..event });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_again() {
    let state = TempDir::new().unwrap();
    let lab = Lab::resume(state.path()).await;
    let mut config = lab.config().await;
    config.apply(everything()).await.unwrap();
    // Policies are written by their entries.
    let changed = config
        .apply(apply([
            Step::PutPolicyEntries(v1::PolicyEntries {
                endpoint: 1,
                entries: vec![entry(3, 8080)],
            }),
            Step::RemovePolicyEntries(v1::PolicyEntries {
                endpoint: 1,
                entries: vec![entry(1, 80)],
            }),
        ]))
        .await
        .unwrap();
    assert_eq!(changed.get_ref().revision, 2);
    let before = seen(&lab).await;
    assert_eq!(before.0, 2);
    lab.stop().await;

    let lab = Lab::resume(state.path()).await;
    assert_eq!(seen(&lab).await, before);
    // Revisions go on, and who watched goes on.
    let mut config = lab.config().await;
    let mut events = config
        .watch(v1::WatchRequest {
            from_revision: Some(2),
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    let removed = [
        Step::RemoveEndpoint(1),
        Step::RemovePolicy(1),
        Step::RemoveNode(true),
        Step::RemoveIpcache("10.77.0.0/24".into()),
        Step::RemoveService("default/web".into()),
        Step::RemoveRoute("2001:db8:5::/48".into()),
        Step::SetPort(v1::Port {
            name: "pod2".into(),
            mtu: 1500,
            admin_up: Some(true),
            ..Default::default()
        }),
    ];
    let answer = config.apply(apply(removed)).await.unwrap();
    assert_eq!(answer.get_ref().revision, 3);
    assert_eq!(events.next().await.unwrap().unwrap().revision, 3);
    let before = seen(&lab).await;
    lab.stop().await;
    let lab = Lab::resume(state.path()).await;
    assert_eq!(seen(&lab).await, before);
    assert!(lab.store.state().policy(1).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_learned_is_there_again_and_is_still_learned() {
    let state = TempDir::new().unwrap();
    let lab = Lab::resume(state.path()).await;
    let learned = Neighbour {
        port: 2,
        addr: "192.0.2.9".parse().unwrap(),
        mac: Some("02:00:00:00:00:99".parse().unwrap()),
        origin: Origin::Learned,
    };
    lab.store.learn(|_| vec![Change::PutNeighbour(learned)]).unwrap();
    lab.stop().await;
    let lab = Lab::resume(state.path()).await;
    let found = lab.store.state().neighbour(2, learned.addr).copied();
    assert_eq!(found, Some(learned));
}

/// Restores into other ports or tables.
fn restored(state: &Path, ports: &[&str], capacity: Capacity) -> Result<(Vec<String>, State), String> {
    let (file, saved) = reopen(state);
    let mut tables = tables(capacity, ports);
    let restored = saved.restore(&mut tables).map_err(|error| error.to_string())?;
    let (dropped, state) = (restored.dropped.clone(), tables.state());
    // Written at once, and the file closed.
    drop(file.journal(&state, restored).unwrap());
    Ok((dropped, state))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lost_its_port_goes_and_the_rest_stays() {
    let state = TempDir::new().unwrap();
    let lab = Lab::resume(state.path()).await;
    let mut config = lab.config().await;
    config.apply(everything()).await.unwrap();
    let moved = v1::Endpoint {
        port: "pod2".into(),
        ..endpoint(3)
    };
    config.apply(apply([Step::PutEndpoint(moved)])).await.unwrap();
    lab.stop().await;

    let (dropped, now) = restored(state.path(), &["pod2", "uplink0"], Capacity::default()).unwrap();
    // Endpoints 1 and 2 were on pod1, a route led to the host.
    assert_eq!(dropped.len(), 3, "{dropped:?}");
    assert!(
        dropped[0].contains("endpoint 1 (default/web-1) on port pod1"),
        "{dropped:?}"
    );
    assert!(dropped[2].contains("2001:db8:5::/48"), "{dropped:?}");
    assert_eq!(
        (now.endpoint_count(), now.route_count(), now.policy_count()),
        (1, 1, 2)
    );
    // That is another state, with another revision; and it is the one that is saved.
    assert_eq!(now.revision(), 3);
    let all = ["pod1", "pod2", "uplink0", "host0"];
    let (dropped, again) = restored(state.path(), &all, Capacity::default()).unwrap();
    assert!(dropped.is_empty());
    assert_eq!((again.revision(), again.endpoint_count()), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_with_the_object_and_the_file() {
    let state = TempDir::new().unwrap();
    let lab = Lab::resume(state.path()).await;
    lab.config().await.apply(everything()).await.unwrap();
    lab.stop().await;
    let small = Capacity {
        endpoints: 1,
        ..Capacity::default()
    };
    let all = ["pod1", "pod2", "uplink0", "host0"];
    let error = restored(state.path(), &all, small).err().unwrap();
    assert!(error.contains("capacity.endpoints"), "{error}");
    assert!(error.contains(state.path().to_str().unwrap()), "{error}");
    // The file is as it was.
    assert!(restored(state.path(), &all, Capacity::default()).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_was_added_is_remembered_until_it_goes() {
    let state = TempDir::new().unwrap();
    let request = v1::AddPortRequest {
        name: "pod7".into(),
        role: v1::Role::Pod.into(),
        device: "net_null7,size=64".into(),
        mtu: 1400,
        ..Default::default()
    };
    let names = || {
        let (_file, saved) = reopen(state.path());
        let ports = saved.ports(octoplane_config::Gateway::default()).unwrap();
        ports
            .into_iter()
            .map(|port| (port.name, port.device.to_string(), port.mtu))
            .collect::<Vec<_>>()
    };
    let lab = Lab::resume(state.path()).await;
    let mut config = lab.config().await;
    config.add_port(request.clone()).await.unwrap();
    drop(config);
    lab.stop().await;
    assert_eq!(names(), [("pod7".into(), "net_null7,size=64".into(), 1400)]);

    // Not there any more: forgotten with the next start.
    let lab = Lab::resume(state.path()).await;
    lab.stop().await;
    assert_eq!(names(), []);

    let lab = Lab::resume(state.path()).await;
    let mut config = lab.config().await;
    config.add_port(request).await.unwrap();
    let gone = v1::RemovePortRequest { name: "pod7".into() };
    config.remove_port(gone).await.unwrap();
    lab.stop().await;
    assert_eq!(names(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_goes_while_it_comes_is_not_remembered() {
    let state = TempDir::new().unwrap();
    let lab = Lab::resume(state.path()).await;
    let (mut config, mut other) = (lab.config().await, lab.config().await);
    let adding = tokio::spawn(async move {
        let request = v1::AddPortRequest {
            name: "pod7".into(),
            role: v1::Role::Pod.into(),
            device: "net_slow7".into(),
            ..Default::default()
        };
        config.add_port(request).await
    });
    while lab.store.state().port_by_name("pod7").is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let gone = v1::RemovePortRequest { name: "pod7".into() };
    other.remove_port(gone).await.unwrap();
    // Whether it was there for a moment or not at all by the time of the answer.
    let _ = adding.await.unwrap();
    drop(other);
    lab.stop().await;
    let (_file, saved) = reopen(state.path());
    let ports = saved.ports(octoplane_config::Gateway::default()).unwrap();
    assert_eq!(ports.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_belongs_to_one_daemon() {
    let state = TempDir::new().unwrap();
    let _lab = Lab::resume(state.path()).await;
    let error = StateFile::open(state.path()).err().unwrap().to_string();
    assert!(error.contains("another daemon"), "{error}");
}

/// How many transactions a second are safe on the disk before they are answered. `--release --nocapture` prints it.
#[tokio::test(flavor = "multi_thread")]
async fn many_transactions_share_a_write() {
    const CLIENTS: u32 = 32;
    let state = TempDir::new().unwrap();
    let lab = Lab::resume(state.path()).await;
    let writes = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&writes);
    let count = move || {
        counted.fetch_add(1, Relaxed);
    };
    lab.store.journal().unwrap().listen(Box::new(count));
    let time = Duration::from_secs(1);
    let mut tasks = Vec::new();
    for client in 0..CLIENTS {
        let mut config = lab.config().await;
        tasks.push(tokio::spawn(async move {
            let (start, mut count) = (Instant::now(), 0);
            while start.elapsed() < time {
                count += 1;
                let id = client * 100_000 + count;
                let step = Step::PutEndpoint(endpoint(id));
                config.apply(apply([step])).await.unwrap();
            }
            count
        }));
    }
    let mut total = 0;
    for task in tasks {
        total += task.await.unwrap();
    }
    let writes = writes.load(Relaxed);
    println!(
        "{total} transactions a second from {CLIENTS} clients, each on disk before its answer: {writes} writes"
    );
    assert_eq!(u64::from(total), lab.revision());
    // Whoever comes while one is on its way shares the next one.
    assert!(writes > 0 && writes < total, "{writes} of {total}");
    // Without optimisation, and beside other tests, it is what it is.
    assert!(cfg!(debug_assertions) || total >= 1000, "{total}");
    lab.stop().await;
    let (_file, saved) = reopen(state.path());
    assert_eq!(saved.revision(), u64::from(total));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_transaction_leaves_nothing() {
    let state = TempDir::new().unwrap();
    let lab = Lab::resume(state.path()).await;
    let mut config = lab.config().await;
    config
        .apply(apply([Step::PutEndpoint(endpoint(1))]))
        .await
        .unwrap();
    let refused = config
        .apply(apply([Step::PutEndpoint(endpoint(2)), Step::RemoveEndpoint(9)]))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    lab.stop().await;
    let lab = Lab::resume(state.path()).await;
    assert_eq!((lab.revision(), lab.store.state().endpoint_count()), (1, 1));
}
