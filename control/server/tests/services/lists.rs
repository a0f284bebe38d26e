use octoplane_api::v1;
use octoplane_api::v1::change::Change as Step;
use tokio_stream::StreamExt as _;

use crate::common::{Lab, apply, endpoint, neighbour, route};

#[tokio::test]
async fn lists_are_complete_and_in_order() {
    let lab = Lab::start().await;
    let mut config = lab.config().await;
    // An exact multiple of the chunks, and what is around it.
    for count in [0, 1, 8191, 8192, 8193] {
        let request = v1::ReplaceRequest {
            endpoints: (1..=count).rev().map(endpoint).collect(),
            omit_events: true,
            ..Default::default()
        };
        config.replace(tokio_stream::once(request)).await.unwrap();
        let mut chunks = config
            .list_endpoints(v1::ListRequest {})
            .await
            .unwrap()
            .into_inner();
        let mut listed = Vec::new();
        let mut messages = 0;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.unwrap();
            assert_eq!(chunk.revision, lab.revision());
            listed.extend(chunk.endpoints);
            messages += 1;
        }
        assert_eq!(listed, (1..=count).map(endpoint).collect::<Vec<_>>());
        assert_eq!(messages, count.div_ceil(4096).max(1));
    }
}

#[tokio::test]
async fn other_lists() {
    let lab = Lab::start().await;
    let mut config = lab.config().await;
    let routes = [
        v1::Route {
            mtu: 1450,
            ..route("0.0.0.0/0", "192.0.2.1")
        },
        route("198.51.100.0/24", ""),
        v1::Route {
            prefix: "203.0.113.0/24".into(),
            target: Some(v1::route::Target::Host(true)),
            mtu: 0,
        },
        v1::Route {
            prefix: "2001:db8:1::/48".into(),
            target: Some(v1::route::Target::Blackhole(true)),
            mtu: 0,
        },
    ];
    let neighbours = [
        neighbour("192.0.2.1", "02:00:00:00:00:91"),
        neighbour("2001:db8::1", "02:00:00:00:00:92"),
    ];
    let steps = routes
        .iter()
        .rev()
        .cloned()
        .map(Step::PutRoute)
        .chain(neighbours.iter().rev().cloned().map(Step::PutNeighbour));
    config.apply(apply(steps)).await.unwrap();

    let mut chunks = config.list_routes(v1::ListRequest {}).await.unwrap().into_inner();
    assert_eq!(chunks.next().await.unwrap().unwrap().routes, routes);
    assert!(chunks.next().await.is_none());
    let mut chunks = config
        .list_neighbours(v1::ListRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(chunks.next().await.unwrap().unwrap().neighbours, neighbours);
    let mut chunks = config.list_ports(v1::ListRequest {}).await.unwrap().into_inner();
    let ports = chunks.next().await.unwrap().unwrap().ports;
    let names: Vec<_> = ports.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["pod1", "pod2", "uplink0", "host0"]);
    assert_eq!(ports[2].role(), v1::Role::Uplink);
    assert_eq!(ports[2].mac, "02:00:00:00:01:02");
    assert_eq!(ports[2].addresses, ["192.0.2.2/24", "2001:db8::2/64"]);
    assert_eq!((ports[3].mtu, ports[3].admin_up), (1500, Some(true)));
}

/// A large transaction holds the store; whoever needs it waits, everybody else is served. All on one thread.
#[tokio::test(flavor = "current_thread")]
async fn who_waits_for_the_store_stops_nobody_else() {
    let lab = Lab::start().await;
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (held, holding) = std::sync::mpsc::channel::<()>();
    let store = lab.store.clone();
    let holder = std::thread::spawn(move || {
        store
            .update(|_| {
                held.send(()).unwrap();
                let _ = released.recv();
                Vec::new()
            })
            .unwrap();
    });
    holding.recv().unwrap();
    let (mut config, mut other, mut watcher) = (lab.config().await, lab.config().await, lab.config().await);
    let mut stats = lab.stats().await;
    let list = tokio::spawn(async move { config.list_endpoints(v1::ListRequest {}).await.map(drop) });
    let apply = tokio::spawn(async move { other.apply(apply([])).await.map(drop) });
    let watch = tokio::spawn(async move { watcher.watch(v1::WatchRequest::default()).await.map(drop) });
    let status = tokio::spawn(async move { stats.get_status(v1::GetStatusRequest {}).await.map(drop) });
    let mut stats = lab.stats().await;
    for _ in 0..20 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        stats.get_drops(v1::GetDropsRequest {}).await.unwrap();
    }
    for waiting in [&list, &apply, &watch, &status] {
        assert!(!waiting.is_finished());
    }
    release.send(()).unwrap();
    for waiting in [list, apply, watch, status] {
        waiting.await.unwrap().unwrap();
    }
    holder.join().unwrap();
}
