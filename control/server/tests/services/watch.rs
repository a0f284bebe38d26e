use std::time::{Duration, Instant};

use octoplane_api::v1;
use octoplane_api::v1::change::Change as Step;
use octoplane_api::v1::event::Object;
use octoplane_tables::model::{Change, Neighbour, Origin, Route, RouteTarget};
use tokio_stream::StreamExt as _;
use tonic::{Code, Streaming};

use crate::common::{Lab, apply, endpoint, neighbour, route};

async fn watch(lab: &Lab, request: v1::WatchRequest) -> Result<Streaming<v1::Event>, tonic::Status> {
    lab.config()
        .await
        .watch(request)
        .await
        .map(tonic::Response::into_inner)
}

async fn next(events: &mut Streaming<v1::Event>) -> v1::Event {
    let event = tokio::time::timeout(Duration::from_secs(20), events.next()).await;
    event.unwrap().unwrap().unwrap()
}

fn initial() -> v1::WatchRequest {
    v1::WatchRequest {
        initial_state: true,
        ..Default::default()
    }
}

/// One change that is none to the next.
fn toggle(lab: &Lab, number: u32) {
    let prefix = "198.51.100.0/24".parse().unwrap();
    let change = if number.is_multiple_of(2) {
        Change::PutRoute(Route {
            prefix,
            target: RouteTarget::Blackhole,
            mtu: None,
        })
    } else {
        Change::RemoveRoute { prefix }
    };
    lab.store.apply(vec![change]).unwrap();
}

#[tokio::test]
async fn first_what_is_there_then_what_changes() {
    let lab = Lab::start().await;
    let mut config = lab.config().await;
    config
        .apply(apply([
            Step::PutEndpoint(endpoint(1)),
            Step::PutRoute(route("0.0.0.0/0", "192.0.2.1")),
            Step::PutNeighbour(neighbour("192.0.2.1", "02:00:00:00:00:91")),
        ]))
        .await
        .unwrap();
    let mut events = watch(&lab, initial()).await.unwrap();
    let mut there = Vec::new();
    loop {
        let event = next(&mut events).await;
        assert_eq!((event.revision, event.removed, event.existed), (1, false, None));
        if event.initial_state_end {
            assert_eq!(event.object, None);
            break;
        }
        there.push(event.object.unwrap());
    }
    assert_eq!(there.len(), 7);
    assert!(there.contains(&Object::Endpoint(endpoint(1))));

    config
        .apply(apply([
            Step::PutEndpoint(endpoint(2)),
            Step::RemoveRoute("0.0.0.0/0".into()),
        ]))
        .await
        .unwrap();
    // A dry run and what changes nothing are not told.
    config
        .apply(v1::ApplyRequest {
            dry_run: true,
            ..apply([Step::RemoveEndpoint(1)])
        })
        .await
        .unwrap();
    config
        .apply(apply([Step::PutEndpoint(endpoint(2))]))
        .await
        .unwrap();
    // What is learned is.
    let learned = Neighbour {
        port: 2,
        addr: "192.0.2.50".parse().unwrap(),
        mac: None,
        origin: Origin::Learned,
    };
    lab.store.apply(vec![Change::PutNeighbour(learned)]).unwrap();
    let seen = [
        next(&mut events).await,
        next(&mut events).await,
        next(&mut events).await,
    ];
    assert_eq!(seen[0].object, Some(Object::Endpoint(endpoint(2))));
    assert_eq!((seen[0].revision, seen[0].removed), (2, false));
    assert_eq!(
        seen[1].object,
        Some(Object::Route(route("0.0.0.0/0", "192.0.2.1")))
    );
    assert_eq!((seen[1].revision, seen[1].removed), (2, true));
    assert!(
        matches!(&seen[2].object, Some(Object::Neighbour(it)) if it.learned && it.mac.is_empty() && it.port == "uplink0")
    );
    assert_eq!(seen[2].revision, 3);
}

#[tokio::test]
async fn going_on_after_a_revision() {
    let lab = Lab::start().await;
    for number in 0..10 {
        toggle(&lab, number);
    }
    let from = |revision| v1::WatchRequest {
        from_revision: Some(revision),
        ..Default::default()
    };
    for start in [0, 4, 9] {
        let mut events = watch(&lab, from(start)).await.unwrap();
        for revision in start + 1..=10 {
            assert_eq!(next(&mut events).await.revision, revision);
        }
    }
    // Nothing is missed after the current one, and without any only what is new is told.
    let (mut current, mut new) = (
        watch(&lab, from(10)).await.unwrap(),
        watch(&lab, v1::WatchRequest::default()).await.unwrap(),
    );
    toggle(&lab, 10);
    assert_eq!(next(&mut current).await.revision, 11);
    assert_eq!(next(&mut new).await.revision, 11);
    let error = watch(&lab, from(12)).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange);
    assert!(
        error.message().contains("12 was not reached yet") && error.message().contains("revision 11"),
        "{error}"
    );
    for number in 11..5000 {
        toggle(&lab, number);
    }
    let error = watch(&lab, from(11)).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange);
    assert!(error.message().contains("remembered no more"), "{error}");
    let error = watch(
        &lab,
        v1::WatchRequest {
            initial_state: true,
            ..from(4999)
        },
    )
    .await
    .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn only_some_kinds() {
    let lab = Lab::start().await;
    let mut config = lab.config().await;
    let request = v1::WatchRequest {
        kinds: vec![v1::Kind::Route.into(), v1::Kind::Port.into()],
        ..initial()
    };
    let mut events = watch(&lab, request).await.unwrap();
    for name in ["pod1", "pod2", "uplink0", "host0"] {
        assert!(matches!(next(&mut events).await.object, Some(Object::Port(it)) if it.name == name));
    }
    assert!(next(&mut events).await.initial_state_end);
    config
        .apply(apply([
            Step::PutEndpoint(endpoint(1)),
            Step::PutNeighbour(neighbour("192.0.2.1", "02:00:00:00:00:91")),
            Step::PutRoute(route("0.0.0.0/0", "192.0.2.1")),
        ]))
        .await
        .unwrap();
    assert!(matches!(next(&mut events).await.object, Some(Object::Route(_))));
    for kind in [0, 11] {
        let request = v1::WatchRequest {
            kinds: vec![kind],
            ..Default::default()
        };
        let error = watch(&lab, request).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!(
            error.message(),
            format!("kinds: {kind} is none, expected 1 to 10")
        );
    }
}

/// More events than are remembered and than any window holds, none of them read.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_ended_and_stops_nobody() {
    let lab = Lab::start().await;
    let mut slow = watch(&lab, v1::WatchRequest::default()).await.unwrap();
    let mut quick = watch(
        &lab,
        v1::WatchRequest {
            kinds: vec![v1::Kind::Port.into()],
            ..Default::default()
        },
    )
    .await
    .unwrap();
    let mut config = lab.config().await;
    let start = Instant::now();
    for round in 0..300 {
        let steps = (1..=1000).map(|id| {
            Step::PutEndpoint(v1::Endpoint {
                identity: 1000 + round,
                ..endpoint(id)
            })
        });
        let request = v1::ApplyRequest {
            omit_events: true,
            ..apply(steps)
        };
        config.apply(request).await.unwrap();
    }
    println!(
        "300 transactions of 1,000 endpoints beside a reader that does not read: {:?}",
        start.elapsed()
    );
    let port = v1::Port {
        name: "pod1".into(),
        mtu: 1400,
        ..Default::default()
    };
    config.apply(apply([Step::SetPort(port)])).await.unwrap();
    assert!(matches!(next(&mut quick).await.object, Some(Object::Port(_))));

    let mut last = 0;
    let error = loop {
        match slow.next().await.unwrap() {
            Ok(event) => {
                assert!(event.revision == last || event.revision == last + 1, "a gap");
                last = event.revision;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.message().contains("too slow"), "{error}");
    assert!(last < 300);
    assert!(slow.next().await.is_none());
}
