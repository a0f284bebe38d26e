use octoplane_api::v1;
use octoplane_api::v1::change::Change as Step;
use octoplane_tables::Capacity;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::common::{Lab, apply, endpoint, neighbour, route};

#[tokio::test]
async fn every_change() {
    let lab = Lab::start().await;
    let mut config = lab.config().await;
    let port = v1::Port {
        name: "pod1".into(),
        mtu: 1400,
        admin_up: Some(false),
        ..Default::default()
    };
    let request = apply([
        Step::PutEndpoint(endpoint(1)),
        Step::PutRoute(route("0.0.0.0/0", "192.0.2.1")),
        Step::PutRoute(route("198.51.100.0/24", "")),
        Step::PutRoute(v1::Route {
            prefix: "203.0.113.0/24".into(),
            target: Some(v1::route::Target::Host(true)),
            mtu: 0,
        }),
        Step::PutRoute(v1::Route {
            prefix: "2001:db8:1::/48".into(),
            target: Some(v1::route::Target::Blackhole(true)),
            mtu: 1300,
        }),
        Step::PutNeighbour(neighbour("192.0.2.1", "02:00:00:00:00:99")),
        Step::SetPort(port),
    ]);
    let answer = config.apply(request.clone()).await.unwrap().into_inner();
    assert_eq!((answer.created, answer.modified, answer.removed), (6, 1, 0));
    assert_eq!((answer.revision, answer.events.len()), (1, 7));
    for event in &answer.events {
        let is_port = matches!(event.object, Some(v1::event::Object::Port(_)));
        assert_eq!(event.existed, Some(is_port));
        assert_eq!((event.revision, event.removed), (1, false));
    }
    // The same again is no change.
    let answer = config.apply(request).await.unwrap().into_inner();
    assert_eq!((answer.revision, answer.events.len()), (1, 0));
    let port = lab.store.state().port(0).cloned().unwrap();
    assert_eq!((port.mtu, port.admin_up), (1400, false));

    let request = apply([
        Step::RemoveEndpoint(1),
        Step::RemoveRoute("0.0.0.0/0".into()),
        Step::RemoveNeighbour(neighbour("192.0.2.1", "")),
    ]);
    let answer = config.apply(request).await.unwrap().into_inner();
    assert_eq!((answer.created, answer.modified, answer.removed), (0, 0, 3));
    assert!(answer.events.iter().all(|event| event.removed));
    let error = config
        .get_endpoint(v1::GetEndpointRequest { id: 1 })
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::NotFound, "endpoint 1: not found")
    );
}

#[tokio::test]
async fn mistakes_name_position_object_field_and_limit() {
    let lab = Lab::start().await;
    let mut config = lab.config().await;
    config
        .apply(apply([Step::PutEndpoint(endpoint(1))]))
        .await
        .unwrap();
    let ep = |change: fn(&mut v1::Endpoint)| {
        let mut it = endpoint(17);
        change(&mut it);
        Some(Step::PutEndpoint(it))
    };
    let via = |prefix, gateway| Some(Step::PutRoute(route(prefix, gateway)));
    let cases = [
        (None, Code::InvalidArgument, "change: nothing is set"),
        (
            ep(|it| it.mac = "zz".into()),
            Code::InvalidArgument,
            "endpoint 17 (default/web-17): mac: \"zz\" is not a MAC address",
        ),
        (
            ep(|it| it.mac = "01:00:00:00:00:01".into()),
            Code::InvalidArgument,
            "endpoint 17: mac 01:00:00:00:00:01 is not the address of a station",
        ),
        (
            ep(|it| it.addresses[1] = "fd00::zz".into()),
            Code::InvalidArgument,
            "endpoint 17 (default/web-17): addresses[1]: \"fd00::zz\" is not an IPv4 or IPv6 address",
        ),
        (
            ep(|it| it.addresses.clear()),
            Code::InvalidArgument,
            "endpoint 17: 0 addresses, expected 1 to 16",
        ),
        (
            ep(|it| it.addresses = endpoint(1).addresses),
            Code::AlreadyExists,
            "endpoint 17: address 10.64.0.1 belongs to endpoint 1",
        ),
        (
            ep(|it| it.port = "pod9".into()),
            Code::NotFound,
            "port: there is no port \"pod9\", only pod1, pod2, uplink0, host0",
        ),
        (
            ep(|it| it.port = "uplink0".into()),
            Code::InvalidArgument,
            "uplink0 has role uplink, expected pod",
        ),
        (
            ep(|it| it.identity = 0),
            Code::InvalidArgument,
            "endpoint 17: identity 0 is out of range, expected 1 to 50331647",
        ),
        (
            ep(|it| it.id = 0),
            Code::InvalidArgument,
            "endpoint id: 0 is reserved",
        ),
        (
            ep(|it| it.name = "x".repeat(300)),
            Code::InvalidArgument,
            "name is 300 bytes long, expected at most 253",
        ),
        (
            via("10.0.0.1/8", ""),
            Code::InvalidArgument,
            "route 10.0.0.1/8: prefix: 10.0.0.1/8 has host bits set: the prefix is 10.0.0.0/8",
        ),
        (
            via("10.0.0.0/8", "here"),
            Code::InvalidArgument,
            "route 10.0.0.0/8: gateway: \"here\" is not",
        ),
        (
            via("10.0.0.0/8", "2001:db8::1"),
            Code::InvalidArgument,
            "route 10.0.0.0/8: gateway 2001:db8::1",
        ),
        (
            Some(Step::PutRoute(v1::Route {
                mtu: 70_000,
                ..route("10.0.0.0/8", "")
            })),
            Code::InvalidArgument,
            "route 10.0.0.0/8: mtu: 70000 is out of range, expected at most 65535",
        ),
        (
            Some(Step::PutRoute(v1::Route {
                prefix: "10.0.0.0/8".into(),
                target: Some(v1::route::Target::Host(false)),
                mtu: 0,
            })),
            Code::InvalidArgument,
            "route 10.0.0.0/8: target: expected one of via, host, blackhole",
        ),
        (
            Some(Step::RemoveRoute("10.9.0.0/16".into())),
            Code::NotFound,
            "route 10.9.0.0/16: not found",
        ),
        (
            Some(Step::RemoveEndpoint(99)),
            Code::NotFound,
            "endpoint 99: not found",
        ),
        (
            Some(Step::RemoveNeighbour(neighbour("192.0.2.77", ""))),
            Code::NotFound,
            "neighbour 192.0.2.77 on port uplink0: not found",
        ),
        (
            Some(Step::PutNeighbour(neighbour("192.0.2.77", ""))),
            Code::InvalidArgument,
            "neighbour 192.0.2.77: mac: \"\" is not a MAC address",
        ),
        (
            Some(Step::SetPort(v1::Port {
                name: "pod1".into(),
                mtu: 1000,
                ..Default::default()
            })),
            Code::InvalidArgument,
            "port pod1: mtu 1000 is out of range, expected 1280 to 1500",
        ),
    ];
    for (step, code, text) in cases {
        let good = v1::Change {
            change: Some(Step::PutEndpoint(endpoint(5))),
        };
        let request = v1::ApplyRequest {
            changes: vec![good, v1::Change { change: step }],
            ..Default::default()
        };
        let error = config.apply(request).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(
            error.message().starts_with("changes[1]: ") && error.message().contains(text),
            "{error}"
        );
        let details = error.get_error_details();
        let violation = &details.bad_request().unwrap().field_violations[0];
        assert_eq!(violation.field, "changes[1]");
        assert!(violation.description.contains(text));
        assert_eq!(lab.revision(), 1, "nothing was changed");
    }
    assert_eq!(lab.store.state().endpoint_count(), 1);
}

#[tokio::test]
async fn one_bad_among_ten_thousand() {
    let lab = Lab::start().await;
    let mut steps: Vec<Step> = (1..=10_000).map(|id| Step::PutEndpoint(endpoint(id))).collect();
    if let Step::PutEndpoint(it) = &mut steps[4711] {
        it.mac = "zz".into();
    }
    // In parts, too: positions count over the whole stream.
    let parts: Vec<_> = steps
        .chunks(1000)
        .map(|part| apply(part.iter().cloned()))
        .collect();
    let mut config = lab.config().await;
    for error in [
        config.apply(apply(steps)).await.unwrap_err(),
        config.apply_stream(tokio_stream::iter(parts)).await.unwrap_err(),
    ] {
        assert_eq!(error.code(), Code::InvalidArgument);
        let expected = "changes[4711]: endpoint 4712 (default/web-4712): mac: \"zz\" is not a MAC address";
        assert!(error.message().starts_with(expected), "{error}");
    }
    assert_eq!((lab.revision(), lab.store.state().endpoint_count()), (0, 0));
}

#[tokio::test]
async fn a_full_table_is_named() {
    let lab = Lab::with(Capacity {
        endpoints: 10,
        ..Capacity::default()
    })
    .await;
    let steps = (1..=11).map(|id| Step::PutEndpoint(endpoint(id)));
    let error = lab.config().await.apply(apply(steps)).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(
        error
            .message()
            .starts_with("changes[10]: table endpoints is full: 10 entries"),
        "{error}"
    );
    assert_eq!(lab.store.state().endpoint_count(), 0);
}

#[tokio::test]
async fn dry_run_says_the_same_and_changes_nothing() {
    let lab = Lab::start().await;
    let mut config = lab.config().await;
    let real = apply([
        Step::PutEndpoint(endpoint(1)),
        Step::PutRoute(route("0.0.0.0/0", "192.0.2.1")),
    ]);
    let dry = v1::ApplyRequest {
        dry_run: true,
        ..real.clone()
    };
    let said = config.apply(dry.clone()).await.unwrap().into_inner();
    assert_eq!(lab.revision(), 0);
    let streamed = config
        .apply_stream(tokio_stream::once(dry))
        .await
        .unwrap()
        .into_inner();
    let done = config.apply(real).await.unwrap().into_inner();
    assert_eq!(said, done);
    assert_eq!(streamed, done);
    assert_eq!(lab.revision(), 1);
}

#[tokio::test]
async fn an_expected_revision_must_be_the_current_one() {
    let lab = Lab::start().await;
    let mut config = lab.config().await;
    let at = |revision, id, dry_run| v1::ApplyRequest {
        expected_revision: Some(revision),
        dry_run,
        ..apply([Step::PutEndpoint(endpoint(id))])
    };
    config.apply(at(0, 1, false)).await.unwrap();
    for dry_run in [false, true] {
        let error = config.apply(at(0, 2, dry_run)).await.unwrap_err();
        assert_eq!(error.code(), Code::Aborted);
        assert_eq!(
            error.message(),
            "expected_revision is 0, the tables are at revision 1"
        );
    }
    config.apply(at(1, 2, false)).await.unwrap();
    assert_eq!(lab.revision(), 2);
}

#[tokio::test]
async fn events_can_be_left_out() {
    let lab = Lab::start().await;
    let request = v1::ApplyRequest {
        omit_events: true,
        ..apply([Step::PutEndpoint(endpoint(1))])
    };
    let answer = lab.config().await.apply(request).await.unwrap().into_inner();
    assert_eq!((answer.created, answer.events.len()), (1, 0));
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused() {
    let lab = Lab::start().await;
    let mut config = lab.config().await.max_encoding_message_size(usize::MAX);
    let mut large = endpoint(1);
    large.name = "x".repeat(65 << 20);
    let error = config.apply(apply([Step::PutEndpoint(large)])).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange, "{error}");
    assert!(config.apply(apply([])).await.is_ok());
}
