use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::common::Lab;

#[tokio::test]
async fn health() {
    let lab = Lab::start().await;
    let mut health = HealthClient::new(lab.channel().await);
    for service in [
        "",
        "octoplane.v1.Config",
        "octoplane.v1.Flows",
        "octoplane.v1.Stats",
    ] {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let request = HealthCheckRequest {
        service: "octoplane.v1.Nothing".into(),
    };
    assert_eq!(health.check(request).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn reflection() {
    let lab = Lab::start().await;
    let mut reflection = ServerReflectionClient::new(lab.channel().await);
    let requests = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol("octoplane.v1.Config".into()),
        MessageRequest::FileContainingSymbol("grpc.health.v1.Health".into()),
    ]
    .map(|message| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message),
    });
    let mut answers = reflection
        .server_reflection_info(tokio_stream::iter(requests))
        .await
        .unwrap()
        .into_inner();
    let mut next = async || answers.next().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = next().await else {
        panic!("no list of services")
    };
    let names: Vec<_> = list.service.iter().map(|it| it.name.as_str()).collect();
    for name in [
        "octoplane.v1.Config",
        "octoplane.v1.Stats",
        "grpc.health.v1.Health",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
    for _ in 0..2 {
        let MessageResponse::FileDescriptorResponse(file) = next().await else {
            panic!("no file descriptor")
        };
        assert!(!file.file_descriptor_proto.is_empty());
    }
}
