use std::time::Duration;

use octoplane_api::v1;
use octoplane_config::ClientLimits;
use octoplane_control::Access;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::common::{Lab, connect};

fn filter(filter: v1::FlowFilter) -> v1::ListFlowsRequest {
    v1::ListFlowsRequest {
        filter: Some(filter),
        limit: 0,
    }
}

/// Everything a list has, and in how many chunks.
async fn list(lab: &Lab, request: v1::ListFlowsRequest) -> (Vec<v1::Flow>, usize) {
    let mut chunks = lab.flows().await.list_flows(request).await.unwrap().into_inner();
    let (mut flows, mut count) = (Vec::new(), 0);
    while let Some(chunk) = chunks.next().await {
        flows.extend(chunk.unwrap().flows);
        count += 1;
    }
    (flows, count)
}

fn sources(flows: &[v1::Flow]) -> Vec<&str> {
    let mut sources: Vec<_> = flows
        .iter()
        .map(|it| {
            it.forward
                .as_ref()
                .unwrap()
                .tuple
                .as_ref()
                .unwrap()
                .source
                .as_str()
        })
        .collect();
    sources.sort_unstable();
    sources
}

#[tokio::test]
async fn lists_are_complete_and_in_chunks() {
    let lab = Lab::start().await;
    let mut worker = lab.worker();
    let mut there = 0;
    for count in [0, 1, 4095, 4096, 4097, 8192] {
        while there < count {
            there += 1;
            connect(&mut worker, there, 17);
        }
        let (flows, chunks) = list(&lab, v1::ListFlowsRequest::default()).await;
        assert_eq!(flows.len() as u32, count);
        assert_eq!(chunks as u32, count.div_ceil(4096).max(1));
        let mut names = sources(&flows);
        names.dedup();
        assert_eq!(names.len() as u32, count, "each once");
    }
    for (limit, expected) in [(1, 1), (4096, 4096), (5000, 5000), (9000, 8192)] {
        let request = v1::ListFlowsRequest { filter: None, limit };
        assert_eq!(list(&lab, request).await.0.len(), expected);
    }
}

#[tokio::test]
async fn a_flow_has_both_directions() {
    let lab = Lab::start().await;
    connect(&mut lab.worker(), 5, 17);
    let (flows, _) = list(&lab, v1::ListFlowsRequest::default()).await;
    let flow = &flows[0];
    let tuple = |source: &str, destination: &str, source_port, destination_port| v1::FlowTuple {
        source: source.into(),
        destination: destination.into(),
        source_port,
        destination_port,
        protocol: 17,
        zone: 0,
    };
    let forward = tuple("10.0.0.5", "172.20.0.1", 4000, 80);
    let reply = tuple("10.99.0.1", "10.0.0.5", 8080, 4000);
    assert_eq!(flow.forward.as_ref().unwrap().tuple.as_ref(), Some(&forward));
    assert_eq!(flow.reply.as_ref().unwrap().tuple.as_ref(), Some(&reply));
    assert_eq!(
        (flow.state(), flow.idle_seconds, flow.expires_seconds),
        (v1::FlowState::Open, 0, 60)
    );
    let mut client = lab.flows().await;
    let mut get = async |tuple| {
        let request = v1::GetFlowRequest { tuple };
        client.get_flow(request).await.map(tonic::Response::into_inner)
    };
    for known in [forward.clone(), reply.clone()] {
        assert_eq!(get(Some(known)).await.unwrap(), *flow);
    }
    let unknown = v1::FlowTuple {
        source_port: 4001,
        ..forward.clone()
    };
    let error = get(Some(unknown)).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert_eq!(
        error.message(),
        "flow 10.0.0.5:4001 to 172.20.0.1:80, protocol 17: not found"
    );
    let mut bad = forward.clone();
    bad.destination = "fd00::1".into();
    let mut large = forward.clone();
    large.source_port = 65_536;
    let mut strange = forward;
    strange.protocol = 256;
    for (tuple, field) in [
        (None, "tuple.source"),
        (Some(bad), "tuple.destination"),
        (Some(large), "tuple.source_port"),
        (Some(strange), "tuple.protocol"),
    ] {
        let error = get(tuple).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        let details = error.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, field);
        assert!(error.message().starts_with(field), "{error}");
    }
}

#[tokio::test]
async fn filters() {
    let lab = Lab::start().await;
    let mut worker = lab.worker();
    connect(&mut worker, 1, 6);
    connect(&mut worker, 2, 17);
    let none = v1::FlowFilter::default;
    let cases = [
        (none(), vec!["10.0.0.1", "10.0.0.2"]),
        (
            v1::FlowFilter {
                protocol: 6,
                ..none()
            },
            vec!["10.0.0.1"],
        ),
        (
            v1::FlowFilter {
                address: "10.0.0.2".into(),
                ..none()
            },
            vec!["10.0.0.2"],
        ),
        (
            v1::FlowFilter {
                destination: "10.99.0.0/16".into(),
                port: 80,
                ..none()
            },
            vec!["10.0.0.1", "10.0.0.2"],
        ),
        (
            v1::FlowFilter {
                source: "10.99.0.0/16".into(),
                ..none()
            },
            vec![],
        ),
    ];
    for (it, expected) in cases {
        let (flows, chunks) = list(&lab, filter(it)).await;
        assert_eq!((sources(&flows), chunks), (expected, 1));
    }
    let mut client = lab.flows().await;
    for (it, text) in [
        (
            v1::FlowFilter {
                address: "x".into(),
                ..none()
            },
            "filter.address: \"x\" is neither an address nor a prefix",
        ),
        (
            v1::FlowFilter {
                source: "10.0.0.1/8".into(),
                ..none()
            },
            "filter.source: ",
        ),
        (
            v1::FlowFilter {
                port: 65_536,
                ..none()
            },
            "filter.port: 65536 is out of range, expected at most 65535",
        ),
        (
            v1::FlowFilter {
                protocol: 256,
                ..none()
            },
            "filter.protocol: 256 is out of range, expected at most 255",
        ),
    ] {
        let error = client.list_flows(filter(it)).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().starts_with(text), "{error}");
    }
}

#[tokio::test]
async fn flushing_ends_what_fits() {
    let lab = Lab::start().await;
    let mut worker = lab.worker();
    for n in 0..100 {
        connect(&mut worker, n, if n % 4 == 0 { 6 } else { 17 });
    }
    let mut client = lab.flows().await;
    let mut flush = async |filter: Option<v1::FlowFilter>, all| {
        let request = v1::FlushFlowsRequest { filter, all };
        client
            .flush_flows(request)
            .await
            .map(|answer| answer.into_inner().flushed)
    };
    let tcp = v1::FlowFilter {
        protocol: 6,
        ..Default::default()
    };
    for (filter, all, field) in [
        (None, false, "filter"),
        (Some(v1::FlowFilter::default()), false, "filter"),
        (Some(tcp.clone()), true, "all"),
    ] {
        let error = flush(filter, all).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        let details = error.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, field);
    }
    assert_eq!(flush(Some(tcp.clone()), false).await.unwrap(), 25);
    assert_eq!(flush(Some(tcp), false).await.unwrap(), 0, "once only");
    // Not listed any more, and gone when a worker has come by.
    assert_eq!(list(&lab, v1::ListFlowsRequest::default()).await.0.len(), 75);
    assert_eq!(lab.flows.len(), 100);
    assert_eq!(worker.sweep(12, 1_000_000, |_, _| Some(71)), 25);
    assert_eq!(lab.flows.len(), 75);
    assert_eq!(flush(None, true).await.unwrap(), 75);
    worker.sweep(12, 1_000_000, |_, _| Some(71));
    assert!(lab.flows.is_empty());
}

/// Everything on one thread; many lists that nobody reads.
#[tokio::test(flavor = "current_thread")]
async fn slow_readers_stop_nobody() {
    let lab = Lab::with_access(Access {
        limits: ClientLimits {
            requests: 1000,
            ..ClientLimits::default()
        },
        ..Access::default()
    })
    .await;
    let mut worker = lab.worker();
    for n in 0..250_000 {
        connect(&mut worker, n, 17);
    }
    let mut client = lab.flows().await;
    let mut lists = Vec::new();
    // More than there are threads for what blocks.
    for _ in 0..600 {
        let request = v1::ListFlowsRequest::default();
        lists.push(client.list_flows(request).await.unwrap().into_inner());
    }
    let others = async {
        let (flows, _) = list(
            &lab,
            filter(v1::FlowFilter {
                source: "10.0.0.7".into(),
                ..Default::default()
            }),
        )
        .await;
        assert_eq!(sources(&flows), ["10.0.0.7"]);
        lab.stats()
            .await
            .get_status(v1::GetStatusRequest {})
            .await
            .unwrap();
    };
    tokio::time::timeout(Duration::from_secs(60), others)
        .await
        .unwrap();
    drop(lists);
}
