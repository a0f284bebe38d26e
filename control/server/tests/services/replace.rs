use octoplane_api::v1;
use octoplane_api::v1::event::Object;
use octoplane_tables::model::{Change, Neighbour, Origin};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::common::{Lab, endpoint, neighbour, route};

type Damage = fn(&mut v1::ReplaceRequest);

fn wanted() -> v1::ReplaceRequest {
    v1::ReplaceRequest {
        endpoints: (1..=4).map(endpoint).collect(),
        routes: vec![
            route("0.0.0.0/0", "192.0.2.1"),
            route("198.51.100.0/24", "192.0.2.9"),
        ],
        neighbours: vec![neighbour("192.0.2.1", "02:00:00:00:00:91")],
        ..Default::default()
    }
}

async fn replace(lab: &Lab, wanted: v1::ReplaceRequest) -> Result<v1::ApplyResponse, tonic::Status> {
    let answer = lab.config().await.replace(tokio_stream::once(wanted)).await?;
    Ok(answer.into_inner())
}

fn learn(lab: &Lab, addr: &str) {
    let learned = Neighbour {
        port: 2,
        addr: addr.parse().unwrap(),
        mac: Some("02:00:00:00:00:77".parse().unwrap()),
        origin: Origin::Learned,
    };
    lab.store.apply(vec![Change::PutNeighbour(learned)]).unwrap();
}

#[tokio::test]
async fn only_the_difference_is_applied() {
    let lab = Lab::start().await;
    let first = replace(&lab, wanted()).await.unwrap();
    assert_eq!((first.created, first.modified, first.removed), (7, 0, 0));
    let again = replace(&lab, wanted()).await.unwrap();
    assert_eq!((again.revision, again.events.len()), (first.revision, 0));
    learn(&lab, "192.0.2.50");

    let mut next = wanted();
    next.endpoints.remove(0);
    next.endpoints[0].identity = 2000;
    next.routes.pop();
    next.neighbours.clear();
    next.ports = vec![v1::Port {
        name: "pod2".into(),
        mtu: 1400,
        ..Default::default()
    }];
    let dry = v1::ReplaceRequest {
        dry_run: true,
        ..next.clone()
    };
    let said = replace(&lab, dry).await.unwrap();
    let done = replace(&lab, next.clone()).await.unwrap();
    assert_eq!(said, done);
    assert_eq!((done.created, done.modified, done.removed), (0, 2, 3));
    let modified: Vec<_> = done
        .events
        .iter()
        .filter(|event| !event.removed)
        .map(|event| event.object.clone().unwrap())
        .collect();
    assert!(matches!(&modified[0], Object::Endpoint(it) if it.id == 2 && it.identity == 2000));
    assert!(
        matches!(&modified[1], Object::Port(it) if it.name == "pod2" && it.mtu == 1400 && it.admin_up == Some(true))
    );
    // What was learned stays; the static neighbour went.
    let state = lab.store.state();
    let left: Vec<_> = state.neighbours().map(|it| it.addr.to_string()).collect();
    assert_eq!(left, ["192.0.2.50"]);
    assert!(replace(&lab, next).await.unwrap().events.is_empty());
}

#[tokio::test]
async fn messages_of_a_stream_are_one_state() {
    let lab = Lab::start().await;
    let all = wanted();
    let parts = vec![
        v1::ReplaceRequest {
            endpoints: all.endpoints[..2].into(),
            ..Default::default()
        },
        v1::ReplaceRequest {
            endpoints: all.endpoints[2..].into(),
            routes: all.routes.clone(),
            ..Default::default()
        },
        v1::ReplaceRequest {
            neighbours: all.neighbours.clone(),
            ..Default::default()
        },
    ];
    let answer = lab
        .config()
        .await
        .replace(tokio_stream::iter(parts))
        .await
        .unwrap();
    assert_eq!((answer.get_ref().created, answer.get_ref().revision), (7, 1));
    assert!(replace(&lab, all).await.unwrap().events.is_empty());
    // A stream without a message is an empty state.
    let answer = lab.config().await.replace(tokio_stream::empty()).await.unwrap();
    assert_eq!(answer.get_ref().removed, 7);
}

#[tokio::test]
async fn addresses_can_be_exchanged() {
    let lab = Lab::start().await;
    replace(&lab, wanted()).await.unwrap();
    let mut next = wanted();
    let first = next.endpoints[0].addresses.clone();
    next.endpoints[0].addresses = std::mem::replace(&mut next.endpoints[1].addresses, first);
    // And one that goes hands its addresses on.
    let gone = next.endpoints.pop().unwrap();
    next.endpoints[2].addresses.extend(gone.addresses);
    let answer = replace(&lab, next).await.unwrap();
    assert_eq!((answer.modified, answer.removed), (3, 1));
    let state = lab.store.state();
    assert_eq!(state.owner("10.64.0.1".parse().unwrap()).unwrap().id, 2);
    assert_eq!(state.owner("10.64.0.4".parse().unwrap()).unwrap().id, 3);
}

#[tokio::test]
async fn a_learned_neighbour_can_be_made_static() {
    let lab = Lab::start().await;
    learn(&lab, "192.0.2.1");
    let answer = replace(&lab, wanted()).await.unwrap();
    assert_eq!((answer.created, answer.modified), (6, 1));
}

#[tokio::test]
async fn mistakes_name_list_and_position() {
    let lab = Lab::start().await;
    replace(&lab, wanted()).await.unwrap();
    let broken: [(Damage, &str, Code); 7] = [
        (
            |it| it.endpoints[2].mac = "zz".into(),
            "endpoints[2]: endpoint 3 (default/web-3): mac: \"zz\"",
            Code::InvalidArgument,
        ),
        (
            |it| it.endpoints[3].id = 1,
            "endpoints[3]: endpoint 1: id is given twice",
            Code::InvalidArgument,
        ),
        (
            |it| it.endpoints[1].addresses[0] = "10.64.0.1".into(),
            "endpoints[1]: endpoint 2: address 10.64.0.1 belongs to endpoint 1",
            Code::AlreadyExists,
        ),
        (
            |it| it.routes[1].prefix = "0.0.0.0/0".into(),
            "routes[1]: route 0.0.0.0/0: prefix is given twice",
            Code::InvalidArgument,
        ),
        (
            |it| it.neighbours.push(it.neighbours[0].clone()),
            "neighbours[1]: neighbour 192.0.2.1: address on this port is given twice",
            Code::InvalidArgument,
        ),
        (
            |it| it.neighbours[0].port = "pod1".into(),
            "neighbours[0]: ",
            Code::InvalidArgument,
        ),
        (
            |it| {
                it.ports = vec![
                    v1::Port {
                        name: "pod1".into(),
                        ..Default::default()
                    };
                    2
                ];
            },
            "ports[1]: port pod1: name is given twice",
            Code::InvalidArgument,
        ),
    ];
    for (damage, text, code) in broken {
        let mut next = wanted();
        damage(&mut next);
        let error = replace(&lab, next).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().starts_with(text), "{error}");
        let details = error.get_error_details();
        let violation = &details.bad_request().unwrap().field_violations[0];
        assert!(text.starts_with(&format!("{}: ", violation.field)));
        assert_eq!(lab.revision(), 1);
    }
}
