//! Node, services, policies, ipcache and egress gateways.

use octoplane_api::v1;
use octoplane_api::v1::change::Change as Step;
use octoplane_api::v1::event::Object;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::common::{Lab, apply, endpoint};

fn node() -> v1::Node {
    v1::Node {
        addresses: vec!["192.0.2.10".into()],
        masquerade4: "192.0.2.10".into(),
        native_cidrs: vec!["10.0.0.0/8".into()],
        nodeport_min: 30_000,
        nodeport_max: 32_767,
        routing: v1::Routing::Tunnel.into(),
        tunnel: Some(v1::Tunnel {
            protocol: v1::TunnelProtocol::Geneve.into(),
            port: 6081,
            local4: "192.0.2.10".into(),
            local6: String::new(),
        }),
        policy_mode: v1::PolicyMode::Always.into(),
        no_backend: v1::NoBackend::Drop.into(),
        forwarding: v1::Forwarding::Hybrid.into(),
        dsr: Some(v1::Dsr {
            dispatch: v1::DsrDispatch::Geneve.into(),
            source4: "198.18.0.0/16".into(),
            source6: "2001:db8:5::/64".into(),
        }),
        audit: true,
        ..Default::default()
    }
}

fn ipcache(prefix: &str) -> v1::Ipcache {
    v1::Ipcache {
        prefix: prefix.into(),
        identity: 2000,
        tunnel_endpoint: "192.0.2.11".into(),
        key: 3,
        skip_tunnel: true,
    }
}

fn service(name: &str, address: &str) -> v1::Service {
    v1::Service {
        name: name.into(),
        protocol: v1::ServiceProtocol::Tcp.into(),
        frontends: vec![v1::Frontend {
            address: address.into(),
            port: 80,
            r#type: v1::FrontendType::ExternalIp.into(),
        }],
        backends: vec![v1::Backend {
            address: "10.64.0.1".into(),
            port: 8080,
            weight: 2,
            state: v1::BackendState::Terminating.into(),
            local: true,
        }],
        algorithm: v1::Algorithm::Maglev.into(),
        affinity_seconds: 60,
        source_ranges: vec!["198.51.100.0/24".into()],
        source_ranges_deny: true,
        internal_policy: v1::TrafficPolicy::Cluster.into(),
        external_policy: v1::TrafficPolicy::Local.into(),
        forwarding: v1::Forwarding::Dsr.into(),
        proxy_port: 0,
    }
}

fn entry(port: u32) -> v1::PolicyEntry {
    v1::PolicyEntry {
        direction: v1::PolicyDirection::Ingress.into(),
        identity: 1001,
        protocol: 6,
        port,
        port_prefix_len: 16,
        proxy_port: 15_001,
        auth_type: 1,
        auth_explicit: true,
        precedence: 7,
        cookie: 9,
        ..Default::default()
    }
}

fn policy(endpoint: u32) -> v1::Policy {
    v1::Policy {
        endpoint,
        enforce_ingress: true,
        enforce_egress: false,
        audit: true,
        entries: vec![entry(80)],
    }
}

fn gateway(source: &str) -> v1::EgressGateway {
    v1::EgressGateway {
        source: source.into(),
        destination: "0.0.0.0/0".into(),
        gateway: Some(v1::egress_gateway::Gateway::Node("192.0.2.12".into())),
        egress_ip: "192.0.2.13".into(),
    }
}

fn all() -> v1::ReplaceRequest {
    v1::ReplaceRequest {
        node: Some(node()),
        ipcache: vec![ipcache("10.1.0.0/16"), ipcache("fd00:1::/64")],
        services: vec![service("a/x:80", "203.0.113.1"), service("b/y:80", "203.0.113.2")],
        policies: vec![policy(0), policy(7)],
        egress_gateways: vec![gateway("10.64.0.0/24"), gateway("10.64.1.0/24")],
        ..Default::default()
    }
}

#[tokio::test]
async fn everything_comes_back_as_it_was_put() {
    let lab = Lab::start().await;
    let mut config = lab.config().await;
    let wanted = all();
    let answer = config
        .replace(tokio_stream::once(wanted.clone()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.created, 9, "{answer:?}");
    let list = v1::ListRequest {};
    let mut stream = config.list_ipcache(list).await.unwrap().into_inner();
    assert_eq!(stream.next().await.unwrap().unwrap().ipcache, wanted.ipcache);
    let mut stream = config.list_services(list).await.unwrap().into_inner();
    assert_eq!(stream.next().await.unwrap().unwrap().services, wanted.services);
    let mut stream = config.list_policies(list).await.unwrap().into_inner();
    assert_eq!(stream.next().await.unwrap().unwrap().policies, wanted.policies);
    let mut stream = config.list_egress_gateways(list).await.unwrap().into_inner();
    let listed = stream.next().await.unwrap().unwrap().egress_gateways;
    assert_eq!(listed, wanted.egress_gateways);
    assert_eq!(
        config.get_node(v1::GetNodeRequest {}).await.unwrap().into_inner(),
        node()
    );
    let request = v1::GetServiceRequest {
        name: "b/y:80".into(),
    };
    assert_eq!(
        config.get_service(request).await.unwrap().into_inner(),
        wanted.services[1]
    );
    let request = v1::GetPolicyRequest { endpoint: 0 };
    assert_eq!(
        config.get_policy(request).await.unwrap().into_inner(),
        wanted.policies[0]
    );
    let request = v1::GetIpcacheRequest {
        prefix: "10.1.0.0/16".into(),
    };
    assert_eq!(
        config.get_ipcache(request).await.unwrap().into_inner(),
        wanted.ipcache[0]
    );
    let request = v1::GetEgressGatewayRequest {
        source: "10.64.1.0/24".into(),
        destination: "0.0.0.0/0".into(),
    };
    assert_eq!(
        config.get_egress_gateway(request).await.unwrap().into_inner(),
        wanted.egress_gateways[1]
    );
    // Again: nothing changes. Nothing: everything goes.
    let again = config.replace(tokio_stream::once(wanted)).await.unwrap();
    assert_eq!((again.get_ref().revision, lab.revision()), (1, 1));
    let nothing = config
        .replace(tokio_stream::once(v1::ReplaceRequest::default()))
        .await
        .unwrap();
    assert_eq!(nothing.get_ref().removed, 9);
    let defaults = config.get_node(v1::GetNodeRequest {}).await.unwrap().into_inner();
    assert_eq!((defaults.nodeport_min, defaults.addresses.len()), (30_000, 0));
}

#[tokio::test]
async fn services_swap_frontends_and_addresses_move() {
    let lab = Lab::start().await;
    let mut config = lab.config().await;
    let mut wanted = all();
    config.replace(tokio_stream::once(wanted.clone())).await.unwrap();
    wanted.services = vec![service("a/x:80", "203.0.113.2"), service("b/y:80", "203.0.113.1")];
    // The node's address becomes an endpoint's.
    wanted.node = Some(v1::Node {
        addresses: vec!["192.0.2.20".into()],
        ..node()
    });
    let mut moved = endpoint(1);
    moved.addresses = vec!["192.0.2.10".into()];
    moved.ingress_rate = 1_000_000;
    moved.egress_rate = 2_000_000;
    wanted.endpoints = vec![moved.clone()];
    let answer = config
        .replace(tokio_stream::once(wanted.clone()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((answer.created, answer.modified, answer.removed), (1, 3, 0));
    let request = v1::GetEndpointRequest { id: 1 };
    assert_eq!(config.get_endpoint(request).await.unwrap().into_inner(), moved);
    // And back.
    let answer = config
        .replace(tokio_stream::once(all()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((answer.created, answer.modified, answer.removed), (0, 3, 1));
}

#[tokio::test]
async fn single_entries_and_removals() {
    let lab = Lab::start().await;
    let mut config = lab.config().await;
    let entries = |entries| v1::PolicyEntries { endpoint: 7, entries };
    config
        .apply(apply([
            Step::PutNode(node()),
            Step::PutIpcache(ipcache("10.1.0.0/16")),
            Step::PutService(service("a/x:80", "203.0.113.1")),
            Step::PutPolicy(policy(7)),
            Step::PutPolicyEntries(entries(vec![entry(443)])),
            Step::PutEgressGateway(gateway("10.64.0.0/24")),
        ]))
        .await
        .unwrap();
    let get = v1::GetPolicyRequest { endpoint: 7 };
    let there = config.get_policy(get).await.unwrap().into_inner();
    assert_eq!(there.entries, [entry(80), entry(443)]);
    let removals = [
        Step::RemovePolicyEntries(entries(vec![entry(80)])),
        Step::RemovePolicy(7),
        Step::RemoveService("a/x:80".into()),
        Step::RemoveIpcache("10.1.0.0/16".into()),
        Step::RemoveEgressGateway(gateway("10.64.0.0/24")),
        Step::RemoveNode(true),
    ];
    let answer = config.apply(apply(removals.clone())).await.unwrap().into_inner();
    assert_eq!(answer.removed, 5);
    for step in removals {
        let error = config.apply(apply([step])).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
        assert!(error.message().ends_with("not found"), "{error}");
    }
}

#[tokio::test]
async fn watches_tell_of_all_kinds() {
    let lab = Lab::start().await;
    let mut config = lab.config().await;
    config.replace(tokio_stream::once(all())).await.unwrap();
    let kinds = [
        v1::Kind::Node,
        v1::Kind::Ipcache,
        v1::Kind::Service,
        v1::Kind::Policy,
        v1::Kind::EgressGateway,
    ];
    let request = v1::WatchRequest {
        initial_state: true,
        kinds: kinds.map(Into::into).to_vec(),
        ..Default::default()
    };
    let mut events = config.watch(request).await.unwrap().into_inner();
    let mut initial = Vec::new();
    loop {
        let event = events.next().await.unwrap().unwrap();
        if event.initial_state_end {
            break;
        }
        initial.push(event.object.unwrap());
    }
    assert_eq!(initial.len(), 9);
    assert_eq!(initial[0], Object::Node(node()));
    config
        .apply(apply([
            Step::PutEndpoint(endpoint(1)),
            Step::RemoveService("a/x:80".into()),
        ]))
        .await
        .unwrap();
    let event = events.next().await.unwrap().unwrap();
    let gone = Object::Service(service("a/x:80", "203.0.113.1"));
    assert_eq!((event.removed, event.object), (true, Some(gone)));
}

#[tokio::test]
async fn mistakes_are_named_by_their_field() {
    let lab = Lab::start().await;
    let mut config = lab.config().await;
    let mut tunnel = node();
    tunnel.tunnel.as_mut().unwrap().local4 = "fd00::1".into();
    let mut cidr = node();
    cidr.native_cidrs.push("10.0.0.1/8".into());
    let mut routing = node();
    routing.routing = 9;
    let mut long = node();
    long.nodeport_max = 70_000;
    let mut frontend = service("a/x:80", "nowhere");
    frontend.frontends[0].port = 1;
    let mut backend = service("a/x:80", "203.0.113.1");
    backend.backends[0].port = 65_536;
    let mut weight = service("a/x:80", "203.0.113.1");
    weight.protocol = 0;
    let mut kind = service("a/x:80", "203.0.113.1");
    kind.frontends[0].address = "0.0.0.0".into();
    let mut undirected = policy(7);
    undirected.entries[0].direction = 0;
    let mut wide = policy(0);
    wide.entries[0].protocol = 256;
    let mut key = ipcache("10.1.0.0/16");
    key.key = 256;
    let mut identity = ipcache("10.1.0.0/16");
    identity.identity = 0;
    let mut without = gateway("10.64.0.0/24");
    without.gateway = None;
    let mut other = gateway("10.64.0.0/24");
    other.destination = "::/0".into();
    let cases = [
        (
            Step::PutNode(tunnel),
            "node: tunnel.local4: fd00::1 is not an IPv4 address",
        ),
        (Step::PutNode(cidr), "node: native_cidrs[1]: "),
        (Step::PutNode(routing), "node: routing: 9 is no value of it"),
        (Step::PutNode(long), "node: nodeport_max: 70000 is out of range"),
        (Step::RemoveNode(false), "remove_node: only true has a meaning"),
        (
            Step::PutService(frontend),
            "service \"a/x:80\": frontends[0].address: \"nowhere\" is not an IPv4 or IPv6 address",
        ),
        (
            Step::PutService(backend),
            "service \"a/x:80\": backends[0].port: 65536 is out of range, expected at most 65535",
        ),
        (
            Step::PutService(weight),
            "service \"a/x:80\": protocol: is missing",
        ),
        (
            Step::PutService(kind),
            "service \"a/x:80\": frontends[0] address 0.0.0.0 is unspecified",
        ),
        (
            Step::PutPolicy(undirected),
            "policy of endpoint 7: entries[0].direction: is missing",
        ),
        (
            Step::PutPolicy(wide),
            "policy of the host: entries[0].protocol: 256 is out of range",
        ),
        (
            Step::PutIpcache(key),
            "ipcache 10.1.0.0/16: key: 256 is out of range",
        ),
        (
            Step::PutIpcache(identity),
            "ipcache 10.1.0.0/16: identity 0 is out of range",
        ),
        (
            Step::RemoveIpcache("10.1.0.0".into()),
            "ipcache 10.1.0.0: prefix: ",
        ),
        (
            Step::PutEgressGateway(without),
            "egress gateway 10.64.0.0/24 to 0.0.0.0/0: gateway: expected one of node, missing, excluded",
        ),
        (
            Step::PutEgressGateway(other),
            "egress gateway 10.64.0.0/24 to ::/0: destination ::/0 is of another",
        ),
    ];
    for (step, text) in cases {
        let good = Step::PutEndpoint(endpoint(5));
        let error = config.apply(apply([good, step])).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        let details = error.get_error_details();
        let violation = &details.bad_request().unwrap().field_violations[0];
        assert_eq!(violation.field, "changes[1]");
        assert!(
            violation.description.starts_with(text),
            "{}",
            violation.description
        );
    }
    let mut twice = all();
    twice.services[1].name = "a/x:80".into();
    let error = config.replace(tokio_stream::once(twice)).await.unwrap_err();
    assert_eq!(
        error.message(),
        "services[1]: service \"a/x:80\": name is given twice"
    );
    let mut taken = all();
    taken.services[1].frontends = taken.services[0].frontends.clone();
    let error = config.replace(tokio_stream::once(taken)).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    assert!(error.message().starts_with("services[1]: "), "{error}");
    assert_eq!(lab.revision(), 0);
}
