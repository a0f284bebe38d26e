//! What is said to happen to a packet is what happens to it, and the entries that decide it are named.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

use std::net::{IpAddr, SocketAddr};

use octoplane_api::v1;
use octoplane_api::v1::explain_step::Entry;
use octoplane_api::v1::{ExplainOutcome as Outcome, ExplainStage as Stage, PolicyResult};
use octosim::{Setup, Sim};

/// Two pods here, one on node 192.0.2.2 behind a tunnel, the world behind a router whose Ethernet address is known.
const STATE: &str = r"
ports:
  - {name: pod1, role: pod, mac: '02:00:00:00:01:00'}
  - {name: pod2, role: pod, mac: '02:00:00:00:02:00'}
  - {name: up, role: uplink, mac: '02:00:00:00:09:00', addresses: [192.0.2.1/24, '2001:db8::1/64']}
  - {name: host, role: host, mac: '02:00:00:00:08:00'}
endpoints:
  - {id: 1, name: shop/cart, port: pod1, mac: '02:00:00:00:00:01', identity: 1001, addresses: [10.0.0.1, 'fd00::1']}
  - {id: 2, name: shop/db, port: pod2, mac: '02:00:00:00:00:02', identity: 1002, addresses: [10.0.0.2, 'fd00::2']}
node:
  addresses: [192.0.2.1, '2001:db8::1']
  masquerade4: 192.0.2.1
  routing: tunnel
  tunnel: {protocol: vxlan, local4: 192.0.2.1}
routes:
  - {prefix: 203.0.113.0/24, port: up, via: 192.0.2.254}
  - {prefix: 198.51.100.0/24, port: up, via: 192.0.2.253}
  - {prefix: 198.18.0.0/15, target: blackhole}
neighbours:
  - {port: up, address: 192.0.2.254, mac: '02:00:00:00:00:fe'}
  - {port: up, address: 192.0.2.2, mac: '02:00:00:00:00:f2'}
ipcache:
  - {prefix: 10.0.1.0/24, identity: 2001, tunnel_endpoint: 192.0.2.2}
  - {prefix: 203.0.113.0/28, identity: 16777217}
services:
  - name: shop/web:http
    protocol: tcp
    frontends: [{address: 10.96.0.10, port: 80}]
    backends:
      - {address: 10.0.0.2, port: 8080, local: true}
      - {address: 10.0.1.7, port: 8080}
      - {address: 10.0.1.8, port: 8080, state: terminating}
  - name: shop/none:http
    protocol: tcp
    frontends: [{address: 10.96.0.11, port: 80}]
policies:
  - endpoint: 2
    enforce_ingress: true
    entries:
      - {direction: ingress, identity: 1001, protocol: 6, port: 8080, port_prefix_len: 16, cookie: 77, precedence: 5}
      - {direction: ingress, protocol: 6, port: 9000, port_prefix_len: 16, deny: true, cookie: 78, precedence: 9}
";

fn sim(extra: &str) -> Sim {
    let state = octoplane_state::parse(&format!("{STATE}{extra}")).unwrap();
    let setup = Setup::of_state(&state).unwrap();
    let mut sim = Sim::new(Setup {
        learn: false,
        ..setup
    })
    .unwrap();
    sim.apply(state).unwrap();
    sim
}

fn ask(sim: &Sim, from: &str, to: &str) -> v1::Explanation {
    let to: SocketAddr = to.parse().unwrap();
    let request = v1::ExplainRequest {
        from: from.into(),
        to: to.ip().to_string(),
        port: to.port().into(),
        source_port: 1234,
        ..Default::default()
    };
    sim.explain(&request).unwrap()
}

fn outcome(it: &v1::Explanation) -> (Outcome, &v1::ExplainAnswer) {
    let answer = it.answer.as_ref().unwrap();
    (answer.outcome(), answer)
}

fn entries(it: &v1::Explanation, stage: Stage) -> Vec<&Entry> {
    let steps = it.steps.iter().filter(|it| it.stage() == stage);
    steps.filter_map(|it| it.entry.as_ref()).collect()
}

fn policies(it: &v1::Explanation) -> Vec<&v1::PolicyVerdict> {
    let mut all = Vec::new();
    for entry in entries(it, Stage::Policy) {
        let Entry::Policy(verdict) = entry else {
            panic!("{entry:?}");
        };
        all.push(verdict);
    }
    all
}

/// A TCP packet (RFC 9293) in a frame; the checksums are computed here.
fn tcp(macs: [[u8; 6]; 2], from: SocketAddr, to: SocketAddr, flags: u8) -> Vec<u8> {
    let sum = |data: &[u8]| {
        let words = data
            .chunks(2)
            .map(|it| u32::from(it[0]) << 8 | u32::from(*it.get(1).unwrap_or(&0)));
        let sum: u32 = words.sum();
        !(((sum & 0xffff) + (sum >> 16)) as u16)
    };
    let (IpAddr::V4(src), IpAddr::V4(dst)) = (from.ip(), to.ip()) else {
        panic!("IPv4 only");
    };
    let mut ip = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
    ip.extend(src.octets().into_iter().chain(dst.octets()));
    let checksum = sum(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut segment = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let pseudo = [&src.octets()[..], &dst.octets(), &[0, 6, 0, 20], &segment].concat();
    let checksum = sum(&pseudo);
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    [&macs[0][..], &macs[1], &[8, 0], &ip, &segment].concat()
}

const SYN: u8 = 2;
const ACK: u8 = 16;
const POD1: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 0], [2, 0, 0, 0, 0, 1]];
const UP: [[u8; 6]; 2] = [[2, 0, 0, 0, 9, 0], [2, 0, 0, 0, 0, 0xfe]];

/// Has the engine do what was explained and compares: port and Ethernet address, or drop code.
fn same(sim: &mut Sim, it: &v1::Explanation, macs: [[u8; 6]; 2], flags: u8) {
    let packet = it.packet.as_ref().unwrap();
    let side = |addr: &str, port: u32| SocketAddr::new(addr.parse().unwrap(), port as u16);
    let from = side(&packet.source, packet.source_port);
    let to = side(&packet.destination, packet.destination_port);
    let port = sim.port(&it.in_port).unwrap();
    sim.take();
    sim.inject(port, &[tcp(macs, from, to, flags)]);
    let did = sim.take();
    let answer = it.answer.as_ref().unwrap();
    match answer.outcome() {
        Outcome::Dropped => {
            let codes: Vec<u32> = did.drops.keys().map(|(code, _)| u32::from(*code)).collect();
            assert_eq!(codes, [answer.code], "{}", answer.text);
        }
        Outcome::Waits => assert_eq!((did.sent.len(), sim.waiting()), (0, 1)),
        _ => {
            let [(port, frame)] = did.sent.as_slice() else {
                panic!("{did:?}, expected {}", answer.text);
            };
            assert_eq!(sim.port_name(*port), answer.port);
            if !answer.mac.is_empty() {
                let mac: Vec<String> = frame[..6].iter().map(|it| format!("{it:02x}")).collect();
                assert_eq!(mac.join(":"), answer.mac);
            }
        }
    }
}

#[test]
fn allowed_by_an_entry_and_delivered() {
    let mut sim = sim("");
    for from in ["shop/cart", "1", "10.0.0.1"] {
        let it = ask(&sim, from, "10.0.0.2:8080");
        let (outcome, answer) = outcome(&it);
        assert_eq!((outcome, answer.endpoint), (Outcome::Delivered, 2));
        assert_eq!(
            (answer.port.as_str(), answer.mac.as_str()),
            ("pod2", "02:00:00:00:00:02")
        );
        assert!(it.connection.is_none());
    }
    let it = ask(&sim, "shop/cart", "10.0.0.2:8080");
    let [egress, ingress] = policies(&it)[..] else {
        panic!("{it:?}");
    };
    assert_eq!(
        (egress.endpoint, egress.enforced, egress.result()),
        (1, false, PolicyResult::Allow)
    );
    assert_eq!(
        (ingress.endpoint, ingress.cookie, ingress.remote_identity),
        (2, 77, 1001)
    );
    let entry = ingress.entry.unwrap();
    assert_eq!(
        (
            entry.identity,
            entry.port,
            entry.port_prefix_len,
            entry.precedence
        ),
        (1001, 8080, 16, 5)
    );
    same(&mut sim, &it, POD1, SYN);
    // Now it has a connection.
    let it = ask(&sim, "shop/cart", "10.0.0.2:8080");
    let connection = it.connection.as_ref().unwrap();
    assert_eq!(connection.state(), v1::FlowState::Syn);
    assert_eq!(entries(&it, Stage::Connection).len(), 1);
    same(&mut sim, &it, POD1, ACK);
}

#[test]
fn denied_by_an_entry_and_by_none() {
    let mut sim = sim("");
    let it = ask(&sim, "1", "10.0.0.2:9000");
    assert_eq!((outcome(&it).0, outcome(&it).1.code), (Outcome::Dropped, 181));
    let last = *policies(&it).last().unwrap();
    assert_eq!(
        (last.result(), last.cookie, last.code),
        (PolicyResult::Deny, 78, 181)
    );
    assert_eq!(last.entry.unwrap().identity, 0, "that of any identity");
    same(&mut sim, &it, POD1, SYN);
    let it = ask(&sim, "1", "10.0.0.2:22");
    assert_eq!((outcome(&it).0, outcome(&it).1.code), (Outcome::Dropped, 133));
    let last = *policies(&it).last().unwrap();
    assert_eq!(
        (last.result(), last.entry, last.enforced),
        (PolicyResult::Deny, None, true)
    );
    same(&mut sim, &it, POD1, SYN);
}

#[test]
fn each_backend_has_its_answer() {
    let sim = sim("");
    let it = ask(&sim, "1", "10.96.0.10:80");
    let [Entry::Service(service)] = entries(&it, Stage::Service)[..] else {
        panic!("{it:?}");
    };
    assert_eq!(
        (service.name.as_str(), service.choice()),
        ("shop/web:http", v1::BackendChoice::Random)
    );
    let all: Vec<_> = service
        .candidates
        .iter()
        .map(|it| {
            let backend = it.backend.as_ref().unwrap();
            (
                backend.address.as_str(),
                it.eligible,
                it.answer.as_ref().map(v1::ExplainAnswer::outcome),
            )
        })
        .collect();
    let expected = [
        ("10.0.0.2", true, Some(Outcome::Delivered)),
        ("10.0.1.7", true, Some(Outcome::Tunnelled)),
        ("10.0.1.8", false, None),
    ];
    assert_eq!(all, expected);
    // The policy of the backend counts, by the backend's port.
    assert_eq!(policies(&it).last().unwrap().cookie, 77);
    assert_eq!(outcome(&it).1.packet.as_ref().unwrap().destination_port, 8080);
    // Nobody is there.
    let it = ask(&sim, "1", "10.96.0.11:80");
    assert_eq!(
        (outcome(&it).0, outcome(&it).1.code, outcome(&it).1.told),
        (Outcome::Dropped, 158, true)
    );
    // From outside a ClusterIP is not to be had (3.6).
    let it = ask(&sim, "203.0.113.5", "10.96.0.10:80");
    assert_eq!((outcome(&it).0, outcome(&it).1.code), (Outcome::Dropped, 174));
}

#[test]
fn affinity_and_the_connections_backend_count() {
    let text = STATE.replace(
        "    protocol: tcp\n    frontends: [{address: 10.96.0.10",
        "    protocol: tcp\n    affinity_seconds: 60\n    frontends: [{address: 10.96.0.10",
    );
    let state = octoplane_state::parse(&text).unwrap();
    let setup = Setup::of_state(&state).unwrap();
    let mut sim = Sim::new(Setup {
        learn: false,
        ..setup
    })
    .unwrap();
    sim.apply(state).unwrap();
    let port = sim.port("pod1").unwrap();
    let from = "10.0.0.1:1000".parse().unwrap();
    sim.inject(port, &[tcp(POD1, from, "10.96.0.10:80".parse().unwrap(), SYN)]);
    let taken = sim.flows()[0].reply.tuple.src().to_string();
    // Another port of the same client.
    let it = ask(&sim, "1", "10.96.0.10:80");
    let [Entry::Service(service)] = entries(&it, Stage::Service)[..] else {
        panic!("{it:?}");
    };
    assert_eq!(service.choice(), v1::BackendChoice::Affinity);
    assert_eq!(service.backend.as_ref().unwrap().address, taken);
    assert_eq!(sim.flows().len(), 1, "explaining leaves nothing behind");
}

#[test]
fn to_another_node_in_a_tunnel() {
    let mut sim = sim("");
    let it = ask(&sim, "1", "10.0.1.9:80");
    let (outcome, answer) = outcome(&it);
    assert_eq!((outcome, answer.node.as_str()), (Outcome::Tunnelled, "192.0.2.2"));
    assert_eq!(
        (answer.port.as_str(), answer.mac.as_str()),
        ("up", "02:00:00:00:00:f2")
    );
    let [Entry::Ipcache(entry)] = entries(&it, Stage::Tunnel)[..] else {
        panic!("{it:?}");
    };
    assert_eq!((entry.prefix.as_str(), entry.identity), ("10.0.1.0/24", 2001));
    assert!(matches!(
        entries(&it, Stage::Neighbour)[..],
        [Entry::Neighbour(_)]
    ));
    same(&mut sim, &it, POD1, SYN);
}

#[test]
fn from_another_node() {
    let sim = sim("");
    let it = ask(&sim, "10.0.1.9", "10.0.0.2:8080");
    assert_eq!((outcome(&it).0, outcome(&it).1.code), (Outcome::Dropped, 133));
    assert_eq!(it.in_port, "up");
    assert_eq!(policies(&it)[0].remote_identity, 2001);
    let it = ask(&sim, "10.0.1.9", "10.0.0.1:8080");
    assert_eq!((outcome(&it).0, outcome(&it).1.endpoint), (Outcome::Delivered, 1));
}

#[test]
fn to_the_world_under_the_nodes_address() {
    let mut sim = sim("");
    let it = ask(&sim, "1", "203.0.113.5:443");
    let (kind, answer) = outcome(&it);
    let packet = answer.packet.as_ref().unwrap();
    assert_eq!((kind, packet.source.as_str()), (Outcome::Sent, "192.0.2.1"));
    assert_eq!(
        (answer.port.as_str(), answer.mac.as_str()),
        ("up", "02:00:00:00:00:fe")
    );
    let routes: Vec<_> = entries(&it, Stage::Route)
        .into_iter()
        .filter_map(|it| match it {
            Entry::Route(it) => Some(it.prefix.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(routes, ["203.0.113.0/24"]);
    let [Entry::Ipcache(entry)] = entries(&it, Stage::Identity)[..] else {
        panic!("{it:?}");
    };
    assert_eq!(
        (entry.prefix.as_str(), policies(&it)[0].remote_identity),
        ("203.0.113.0/28", 16_777_217)
    );
    same(&mut sim, &it, POD1, SYN);
    // The answer belongs to that connection: it is translated back.
    let under = sim.flows()[0].reply.tuple.dport();
    let request = v1::ExplainRequest {
        from: "203.0.113.5".into(),
        to: "192.0.2.1".into(),
        port: under.into(),
        source_port: 443,
        ..Default::default()
    };
    let it = sim.explain(&request).unwrap();
    assert_eq!((outcome(&it).0, outcome(&it).1.endpoint), (Outcome::Delivered, 1));
    assert_eq!(outcome(&it).1.packet.as_ref().unwrap().destination, "10.0.0.1");
    assert!(it.connection.is_some() && policies(&it).is_empty());
    same(&mut sim, &it, UP, ACK);
}

#[test]
fn a_port_that_a_live_connection_has_is_not_free() {
    let mut sim = sim("");
    let port = sim.port("pod1").unwrap();
    let to = "203.0.113.5:443".parse().unwrap();
    // Both want 40000, which is above the NodePorts: the first keeps it.
    sim.inject(port, &[tcp(POD1, "10.0.0.1:40000".parse().unwrap(), to, SYN)]);
    let request = v1::ExplainRequest {
        from: "2".into(),
        to: "203.0.113.5".into(),
        port: 443,
        source_port: 40_000,
        ..Default::default()
    };
    let it = sim.explain(&request).unwrap();
    assert_eq!(outcome(&it).1.packet.as_ref().unwrap().source_port, 40_001);
}

#[test]
fn no_way() {
    let mut sim = sim("");
    // Without a route: the kernel may know.
    let it = ask(&sim, "1", "8.8.8.8:53");
    assert_eq!(
        (outcome(&it).0, outcome(&it).1.port.as_str()),
        (Outcome::Host, "host")
    );
    same(&mut sim, &it, POD1, SYN);
    let it = ask(&sim, "1", "198.18.0.1:53");
    assert_eq!((outcome(&it).0, outcome(&it).1.code), (Outcome::Dropped, 151));
    same(&mut sim, &it, POD1, SYN);
    let it = ask(&sim, "1", "198.51.100.1:53");
    assert_eq!(
        (outcome(&it).0, outcome(&it).1.node.as_str()),
        (Outcome::Waits, "192.0.2.253")
    );
    same(&mut sim, &it, POD1, SYN);
}

#[test]
fn the_host_firewall() {
    let policy = "  - endpoint: 0
    enforce_ingress: true
    enforce_egress: true
    entries:
      - {direction: ingress, protocol: 6, port: 22, port_prefix_len: 16, cookie: 5}
      - {direction: egress, identity: 1001, cookie: 6}
";
    let mut sim = sim(policy);
    let it = ask(&sim, "203.0.113.5", "192.0.2.1:22");
    assert_eq!(
        (outcome(&it).0, outcome(&it).1.port.as_str()),
        (Outcome::Host, "host")
    );
    assert_eq!((policies(&it)[0].endpoint, policies(&it)[0].cookie), (0, 5));
    same(&mut sim, &it, UP, SYN);
    let it = ask(&sim, "203.0.113.5", "192.0.2.1:23");
    assert_eq!((outcome(&it).0, outcome(&it).1.code), (Outcome::Dropped, 133));
    same(&mut sim, &it, UP, SYN);
    let it = ask(&sim, "host", "10.0.0.1:80");
    assert_eq!((outcome(&it).0, policies(&it)[0].cookie), (Outcome::Delivered, 6));
    let it = ask(&sim, "host", "203.0.113.5:80");
    assert_eq!((outcome(&it).0, outcome(&it).1.code), (Outcome::Dropped, 133));
}

#[test]
fn both_families_and_pings() {
    let sim = sim("");
    let request = |from: &str, to: &str| v1::ExplainRequest {
        from: from.into(),
        to: to.into(),
        protocol: 1,
        ..Default::default()
    };
    let it = sim.explain(&request("1", "169.254.1.1")).unwrap();
    assert_eq!(outcome(&it).0, Outcome::Answered);
    let it = sim.explain(&request("2", "fd00::1")).unwrap();
    assert_eq!((outcome(&it).0, outcome(&it).1.endpoint), (Outcome::Delivered, 1));
    assert_eq!(it.packet.unwrap().protocol, 58);
    // ICMP is a type to policy.
    let it = sim.explain(&request("1", "fd00::2")).unwrap();
    assert_eq!(
        (outcome(&it).1.code, policies(&it).last().unwrap().port),
        (133, 128)
    );
}

#[test]
fn as_often_as_one_likes() {
    let sim = sim("");
    let first = ask(&sim, "1", "10.96.0.10:80");
    for _ in 0..500 {
        assert_eq!(ask(&sim, "1", "10.96.0.10:80"), first);
    }
    // What it keeps has room for 256 connections, and was given back each time: that of both backends, too.
    assert_eq!(sim.flows().len(), 0);
}

#[test]
fn mistakes_name_the_field() {
    let sim = sim("");
    let good = v1::ExplainRequest {
        from: "1".into(),
        to: "10.0.0.2".into(),
        port: 80,
        ..Default::default()
    };
    type Change = fn(&mut v1::ExplainRequest);
    let cases: [(&str, Change); 9] = [
        ("from:", |it| it.from = "nobody".into()),
        ("from:", |it| it.from = String::new()),
        ("to:", |it| it.to = "10.0.0".into()),
        ("port:", |it| it.port = 0),
        ("port:", |it| it.port = 65_536),
        ("source_port:", |it| it.source_port = 65_536),
        ("protocol:", |it| it.protocol = 47),
        ("in_port:", |it| it.in_port = "up".into()),
        ("to:", |it| {
            (it.from, it.to) = ("203.0.113.5".into(), "fd00::1".into());
        }),
    ];
    for (field, change) in cases {
        let mut request = good.clone();
        change(&mut request);
        let error = sim.explain(&request).unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    }
}

#[test]
fn verdicts_come_with_what_happened() {
    let mut sim = sim("");
    let port = sim.port("pod1").unwrap();
    let send = |sim: &mut Sim, to: &str, flags| {
        sim.inject(
            port,
            &[tcp(
                POD1,
                "10.0.0.1:1234".parse().unwrap(),
                to.parse().unwrap(),
                flags,
            )],
        );
        let mut all = sim.take().verdicts;
        all.retain(|it| it.endpoint == 2);
        all
    };
    let [first] = send(&mut sim, "10.0.0.2:8080", SYN)[..] else {
        panic!()
    };
    assert_eq!(
        (first.decided.cookie, first.local, first.remote, first.egress),
        (77, 1002, 1001, false)
    );
    assert!(first.first && first.reason().is_none());
    // Not again of a connection that is known.
    assert_eq!(send(&mut sim, "10.0.0.2:8080", ACK), []);
    for _ in 0..2 {
        let [denied] = send(&mut sim, "10.0.0.2:9000", SYN)[..] else {
            panic!()
        };
        assert_eq!(
            (denied.decided.cookie, denied.reason().unwrap().code()),
            (78, 181)
        );
    }
}
