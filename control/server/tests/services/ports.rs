//! Ports that come and go.

use octoplane_api::v1;
use octoplane_api::v1::change::Change as Step;
use octoplane_api::v1::event::Object;
use octoplane_tables::model::MAX_PORTS;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::common::{self, Lab};

fn pod(name: &str) -> v1::AddPortRequest {
    v1::AddPortRequest {
        name: name.into(),
        role: v1::Role::Pod.into(),
        device: format!("net_af_packet_{name},iface={name}"),
        ..Default::default()
    }
}

fn uplink(name: &str, addresses: &[&str]) -> v1::AddPortRequest {
    v1::AddPortRequest {
        role: v1::Role::Uplink.into(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        ..pod(name)
    }
}

fn named(name: &str) -> v1::RemovePortRequest {
    v1::RemovePortRequest { name: name.into() }
}

/// Code, message, and the fields in the details.
fn told(status: &Status) -> (Code, String, Vec<String>) {
    let details = status.get_error_details();
    let fields = details.bad_request().map_or_else(Vec::new, |it| {
        it.field_violations.iter().map(|it| it.field.clone()).collect()
    });
    (status.code(), status.message().to_owned(), fields)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_added_is_there_until_it_is_removed() {
    let lab = Lab::start().await;
    let (mut config, mut stats) = (lab.config().await, lab.stats().await);
    let mut watch = lab.config().await;
    let mut events = watch
        .watch(v1::WatchRequest::default())
        .await
        .unwrap()
        .into_inner();

    let added = config.add_port(pod("pod3")).await.unwrap().into_inner();
    assert_eq!((added.existed, added.revision), (false, 1));
    let port = added.port.unwrap();
    assert_eq!(
        (port.name.as_str(), port.mtu, port.role()),
        ("pod3", 1500, v1::Role::Pod)
    );
    // A client that does not know whether it was heard asks again.
    let again = config.add_port(pod("pod3")).await.unwrap().into_inner();
    assert_eq!((again.existed, again.revision), (true, 1));
    assert_eq!(again.port.unwrap(), port);

    let endpoint = v1::Endpoint {
        port: "pod3".into(),
        ..common::endpoint(7)
    };
    config
        .apply(common::apply([Step::PutEndpoint(endpoint)]))
        .await
        .unwrap();
    let names = v1::GetPortStatsRequest {
        names: vec!["pod3".into()],
        xstats: false,
    };
    assert!(stats.get_port_stats(names.clone()).await.is_ok());

    let refused = config.remove_port(named("pod3")).await.unwrap_err();
    assert_eq!(
        told(&refused),
        (
            Code::FailedPrecondition,
            "port pod3 is in use by endpoint 7 (default/web-7): remove these first".into(),
            vec!["name".into()]
        )
    );
    config
        .apply(common::apply([Step::RemoveEndpoint(7)]))
        .await
        .unwrap();
    let removed = config.remove_port(named("pod3")).await.unwrap().into_inner();
    assert_eq!(removed.revision, 4);
    assert_eq!(
        stats.get_port_stats(names).await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(
        config.remove_port(named("pod3")).await.unwrap_err().code(),
        Code::NotFound
    );

    // Events name ports as they were called then.
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let event = events.next().await.unwrap().unwrap();
        let name = match event.object.unwrap() {
            Object::Port(port) => port.name,
            Object::Endpoint(endpoint) => format!("endpoint on {}", endpoint.port),
            other => panic!("{other:?}"),
        };
        seen.push((event.revision, event.removed, name));
    }
    assert_eq!(
        seen,
        [
            (1, false, "pod3".to_owned()),
            (2, false, "endpoint on pod3".to_owned()),
            (3, true, "endpoint on pod3".to_owned()),
            (4, true, "pod3".to_owned()),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_is_used_again_does_not_rename_what_was() {
    let lab = Lab::start().await;
    let mut config = lab.config().await;
    config.add_port(pod("first")).await.unwrap();
    config.remove_port(named("first")).await.unwrap();
    config.add_port(pod("second")).await.unwrap();
    let request = v1::WatchRequest {
        from_revision: Some(0),
        ..Default::default()
    };
    let mut events = config.watch(request).await.unwrap().into_inner();
    for expected in ["first", "first", "second"] {
        let event = events.next().await.unwrap().unwrap();
        assert!(matches!(event.object, Some(Object::Port(port)) if port.name == expected));
    }
    // The list is in the order of the numbers.
    let list = config.list_ports(v1::ListRequest {}).await.unwrap().into_inner();
    let chunks: Vec<_> = list.map(Result::unwrap).collect().await;
    let names: Vec<&str> = chunks[0].ports.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["pod1", "pod2", "uplink0", "host0", "second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_wrong_is_named_at_once() {
    let lab = Lab::start().await;
    let mut config = lab.config().await;
    let wrong = v1::AddPortRequest {
        device: "eth0".into(),
        mtu: 100,
        rx_descriptors: 1,
        addresses: vec!["10.0.0.1/24".into()],
        ..pod("A")
    };
    let (code, message, mut fields) = told(&config.add_port(wrong).await.unwrap_err());
    fields.sort();
    assert_eq!(code, Code::InvalidArgument);
    assert_eq!(fields, ["addresses", "device", "mtu", "name", "rx_descriptors"]);
    assert!(
        message.starts_with("port A: ")
            && message.contains("mtu: 100 is out of range, expected 1280 to 9600 bytes"),
        "{message}"
    );
    let empty = config.add_port(v1::AddPortRequest::default()).await.unwrap_err();
    let (_, message, mut fields) = told(&empty);
    fields.sort();
    assert_eq!(fields, ["device", "name", "role"]);
    assert!(message.contains("role: is missing, expected \"pod\", \"uplink\" or \"host\""));
    let unknown = v1::AddPortRequest {
        role: 9,
        ..pod("pod3")
    };
    let (_, message, fields) = told(&config.add_port(unknown).await.unwrap_err());
    assert!(message.contains("role: \"9\" is unknown") && fields == ["role"]);
    let gateway = told(
        &config
            .add_port(uplink("up", &["169.254.1.1/24"]))
            .await
            .unwrap_err(),
    );
    assert_eq!(gateway.2, ["addresses[0]"]);
    assert_eq!(lab.revision(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn contradictions_are_told_from_mistakes() {
    let lab = Lab::start().await;
    let mut config = lab.config().await;
    config
        .apply(common::apply([
            Step::PutEndpoint(common::endpoint(1)),
            Step::PutRoute(common::route("0.0.0.0/0", "192.0.2.1")),
            Step::PutNeighbour(common::neighbour("192.0.2.9", "02:00:00:00:00:91")),
        ]))
        .await
        .unwrap();
    let host = v1::AddPortRequest {
        role: v1::Role::Host.into(),
        ..pod("host1")
    };
    let cases = [
        (pod("pod1"), "there is a port of this name already", "name"),
        (host, "port host0 is the host port already", "role"),
        (
            uplink("up", &["192.0.2.2/24"]),
            "192.0.2.2 is that of port uplink0",
            "addresses",
        ),
        (
            uplink("up", &["10.64.0.1/24"]),
            "10.64.0.1 is that of endpoint 1",
            "addresses",
        ),
        (
            uplink("up", &["192.0.2.1/24"]),
            "192.0.2.1 is that of the gateway of route 0.0.0.0/0",
            "addresses",
        ),
        (
            uplink("up", &["192.0.2.9/24"]),
            "192.0.2.9 is that of a neighbour on port uplink0",
            "addresses",
        ),
    ];
    for (request, text, field) in cases {
        let (code, message, fields) = told(&config.add_port(request).await.unwrap_err());
        assert_eq!(
            (code, fields),
            (Code::AlreadyExists, vec![field.to_owned()]),
            "{message}"
        );
        assert!(message.contains(text), "{message}");
    }
    let device = v1::AddPortRequest {
        device: "net_nosuch0".into(),
        ..pod("pod3")
    };
    let (code, message, fields) = told(&config.add_port(device).await.unwrap_err());
    assert_eq!(
        (code, message.as_str(), fields),
        (
            Code::FailedPrecondition,
            "port pod3: device: no driver takes it",
            vec!["device".to_owned()]
        )
    );
    let (code, message, _) = told(&config.remove_port(named("uplink0")).await.unwrap_err());
    assert_eq!(code, Code::FailedPrecondition);
    assert_eq!(
        message,
        "port uplink0 is in use by route 0.0.0.0/0, neighbour 192.0.2.9: remove these first"
    );
    assert_eq!(lab.revision(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_a_most() {
    let lab = Lab::start().await;
    let mut config = lab.config().await;
    for number in 4..MAX_PORTS {
        config.add_port(pod(&format!("p{number}"))).await.unwrap();
    }
    let (code, message, _) = told(&config.add_port(pod("more")).await.unwrap_err());
    assert_eq!(code, Code::ResourceExhausted);
    assert!(message.contains("256 ports already"), "{message}");
    config.remove_port(named("p100")).await.unwrap();
    config.add_port(pod("more")).await.unwrap();
}
