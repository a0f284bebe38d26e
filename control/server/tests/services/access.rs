//! Every method has a class, and no client gets more than its share.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use octoplane_api::v1;
use octoplane_api::v1::change::Change as Step;
use octoplane_config::{Class, ClientLimits};
use octoplane_control::{Access, Kind, METHODS};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tonic::Code;

use crate::common::{Lab, apply, endpoint};

/// Paths of all methods in a descriptor set, and whether client and server stream.
fn methods(descriptors: &[u8]) -> Vec<(String, bool, bool)> {
    let files = FileDescriptorSet::decode(descriptors).unwrap().file;
    let mut all = Vec::new();
    for file in &files {
        for service in &file.service {
            all.extend(service.method.iter().map(|method| {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                (path, method.client_streaming(), method.server_streaming())
            }));
        }
    }
    all
}

#[test]
fn every_method_of_every_service_has_a_class_and_nothing_else_has() {
    let served: Vec<_> = [
        v1::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    ]
    .into_iter()
    .flat_map(methods)
    .collect();
    assert!(served.len() > 25);
    for (path, ..) in &served {
        let listed = METHODS.iter().filter(|method| method.path == path).count();
        // The health service lists what there is, which nobody asks for.
        let wanted = usize::from(path != "/grpc.health.v1.Health/List");
        assert_eq!(
            listed, wanted,
            "{path}: a method needs a line in control/server/src/access/methods.rs"
        );
    }
    let paths: BTreeSet<_> = served.iter().map(|(path, ..)| path.as_str()).collect();
    for method in METHODS {
        assert!(paths.contains(method.path), "{} is not served", method.path);
        let (_, takes, gives) = served.iter().find(|(path, ..)| path == method.path).unwrap();
        assert!(
            method.kind == Kind::Call || *takes || *gives,
            "{}: only what streams can be without end",
            method.path
        );
        // The names say what changes something.
        let name = method.path.rsplit('/').next().unwrap();
        let looks = [
            "Get",
            "List",
            "Watch",
            "Explain",
            "Stream",
            "Check",
            "ServerReflectionInfo",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix));
        assert_eq!(method.class != Class::Program, looks, "{}", method.path);
    }
}

fn limited(limits: ClientLimits) -> Access {
    Access {
        limits,
        ..Access::default()
    }
}

#[tokio::test]
async fn an_unknown_method_is_not_there() {
    let lab = Lab::start().await;
    let mut client = tonic::client::Grpc::new(lab.channel().await);
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/octoplane.v1.Config/Destroy");
    let codec = tonic_prost::ProstCodec::<v1::GetDropsRequest, v1::DropList>::default();
    let refused = client
        .unary(tonic::Request::new(v1::GetDropsRequest {}), path, codec)
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (
            Code::Unimplemented,
            "there is no method /octoplane.v1.Config/Destroy"
        )
    );
}

#[tokio::test]
async fn watches_are_counted_over_all_connections() {
    let lab = Lab::with_access(limited(ClientLimits {
        streams: 3,
        ..ClientLimits::default()
    }))
    .await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut config = lab.config().await;
        open.push(config.watch(v1::WatchRequest::default()).await.unwrap());
    }
    let refused = lab
        .config()
        .await
        .watch(v1::WatchRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(
        refused.message().contains("(control.client_streams)"),
        "{refused}"
    );
    // Other requests are not concerned, and an end makes room.
    lab.stats().await.get_drops(v1::GetDropsRequest {}).await.unwrap();
    open.pop();
    let begin = Instant::now();
    while lab
        .config()
        .await
        .watch(v1::WatchRequest::default())
        .await
        .is_err()
    {
        assert!(begin.elapsed() < Duration::from_mins(1));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn who_asks_too_often_is_told() {
    let lab = Lab::with_access(limited(ClientLimits {
        requests_per_second: 5,
        ..ClientLimits::default()
    }))
    .await;
    let mut stats = lab.stats().await;
    let mut refused = None;
    for _ in 0..600 {
        if let Err(status) = stats.get_drops(v1::GetDropsRequest {}).await {
            refused = Some(status);
            break;
        }
    }
    let refused = refused.expect("one after the other they are more than 5 a second");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(
        refused
            .message()
            .contains("at most 5 requests a second (control.client_requests_per_second)"),
        "{refused}"
    );
    // Who waits is heard again.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    stats.get_drops(v1::GetDropsRequest {}).await.unwrap();
}

#[tokio::test]
async fn a_request_that_does_not_come_to_an_end_is_ended() {
    let lab = Lab::with_access(limited(ClientLimits {
        request_timeout: Duration::from_secs(3),
        ..ClientLimits::default()
    }))
    .await;
    let first = apply([Step::PutEndpoint(endpoint(1))]);
    let slow = tokio_stream::StreamExt::chain(tokio_stream::once(first), tokio_stream::pending());
    let begin = Instant::now();
    let refused = lab.config().await.apply_stream(slow).await.unwrap_err();
    assert_eq!(refused.code(), Code::DeadlineExceeded, "{refused}");
    assert!(begin.elapsed() < Duration::from_secs(30));
    assert_eq!(lab.store.state().endpoints().count(), 0, "all or nothing");
    // A watch may last longer than that.
    let mut watch = lab
        .config()
        .await
        .watch(v1::WatchRequest::default())
        .await
        .unwrap()
        .into_inner();
    tokio::time::sleep(Duration::from_millis(3300)).await;
    lab.config()
        .await
        .apply(apply([Step::PutEndpoint(endpoint(1))]))
        .await
        .unwrap();
    let event = tokio::time::timeout(Duration::from_mins(1), watch.message()).await;
    assert!(event.unwrap().unwrap().is_some());
}

#[tokio::test]
async fn a_question_has_a_size() {
    let lab = Lab::start().await;
    let request = v1::GetServiceRequest {
        name: "x".repeat(2 << 20),
    };
    let refused = lab.config().await.get_service(request).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (
            Code::ResourceExhausted,
            "the request is too large, expected at most 1048576 bytes"
        )
    );
}

#[tokio::test]
async fn who_connects_and_says_nothing_is_in_nobodys_way_and_is_sent_away() {
    let lab = Lab::with_access(limited(ClientLimits {
        connections: 20,
        ..ClientLimits::default()
    }))
    .await;
    // The laboratory's own connection may be there yet.
    let mut silent = Vec::new();
    for at in 0..18 {
        let mut stream = UnixStream::connect(&lab.socket).await.unwrap();
        if at % 2 == 0 {
            stream.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
        }
        silent.push(stream);
    }
    let begin = Instant::now();
    lab.stats().await.get_drops(v1::GetDropsRequest {}).await.unwrap();
    assert!(
        begin.elapsed() < Duration::from_secs(9),
        "they are sent away after ten"
    );
    for mut stream in silent {
        let mut all = Vec::new();
        // The server's first frames may come, then the end.
        let end = tokio::time::timeout(Duration::from_mins(1), stream.read_to_end(&mut all)).await;
        assert!(end.is_ok(), "still open");
    }
}

async fn count_ended(streams: &mut [UnixStream]) -> usize {
    let mut ended = 0;
    for stream in streams {
        let mut byte = [0; 64];
        let read = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut byte)).await;
        ended += usize::from(matches!(read, Ok(Ok(0) | Err(_))));
    }
    ended
}

/// A connection more than the client may have is closed; nothing is read from it.
#[tokio::test]
async fn connections_have_a_limit() {
    let lab = Lab::with_access(limited(ClientLimits {
        connections: 4,
        ..ClientLimits::default()
    }))
    .await;
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(UnixStream::connect(&lab.socket).await.unwrap());
    }
    let (begin, mut ended) = (Instant::now(), 0);
    while ended < 6 {
        assert!(begin.elapsed() < Duration::from_mins(1), "{ended}");
        ended = count_ended(&mut open).await;
    }
    assert!(count_ended(&mut open).await <= 8);
}
