//! Who may talk to whom (specification, 1.2 step 12, 1.3, 2.6, 4).

use octoplane_packet::HeapPool;
use octoplane_tables::model::{
    AuthKey, Authentication, Change, Direction, IpcacheEntry, Node, Policy, PolicyEntry, PolicyKey,
    PolicyValue,
};

use crate::common::bytes::ip4;
use crate::common::flows::packet;
use crate::common::*;

const SYN: u8 = 2;
const ACK: u8 = 16;

fn entry(direction: Direction, identity: u32, protocol: u8, port: u16, deny: bool) -> PolicyEntry {
    PolicyEntry {
        key: PolicyKey {
            direction,
            identity,
            protocol,
            port,
            port_prefix_len: if port == 0 { 0 } else { 16 },
        },
        value: PolicyValue {
            deny,
            precedence: if deny { 0xffff_ffff } else { 0xffff_ff01 },
            ..PolicyValue::default()
        },
    }
}

fn policy(endpoint: u32, ingress: bool, egress: bool, entries: Vec<PolicyEntry>) -> Change {
    Change::PutPolicy(Policy {
        endpoint,
        enforce_ingress: ingress,
        enforce_egress: egress,
        audit: false,
        entries,
    })
}

/// From endpoint 1 to endpoint 2.
fn there(protocol: u8, port: u16, flags: u8) -> Vec<u8> {
    packet(
        protocol,
        ("10.0.0.1", 4000),
        ("10.0.0.2", port),
        flags,
        (OURS[0], EP1),
    )
}

/// And back.
fn back(protocol: u8, port: u16, flags: u8) -> Vec<u8> {
    packet(
        protocol,
        ("10.0.0.2", port),
        ("10.0.0.1", 4000),
        flags,
        (OURS[1], EP2),
    )
}

fn passes(lab: &mut Lab<HeapPool>, port: octoplane_tables::model::PortId, frame: &[u8]) {
    let outcome = lab.one(port, frame);
    assert_eq!((outcome.sent.len(), outcome.drop_count()), (1, 0));
}

#[test]
fn without_policy_everything_passes() {
    let mut lab = lab();
    passes(&mut lab, POD0, &there(6, 80, SYN));
    passes(&mut lab, POD0, &there(17, 53, 0));
}

#[test]
fn ingress_is_the_receivers_policy_on_the_senders_identity() {
    let mut lab = lab();
    lab.apply(vec![policy(
        2,
        true,
        false,
        vec![entry(Direction::Ingress, 1001, 6, 80, false)],
    )]);
    passes(&mut lab, POD0, &there(6, 80, SYN));
    assert_eq!(lab.one(POD0, &there(6, 81, SYN)).dropped(), 133);
    assert_eq!(lab.one(POD0, &there(17, 80, 0)).dropped(), 133);
    // Endpoint 3 has another identity.
    let other = packet(6, ("10.0.0.3", 4000), ("10.0.0.2", 80), SYN, (OURS[1], EP3));
    assert_eq!(lab.one(POD1, &other).dropped(), 133);
    // What is refused leaves no connection behind.
    assert_eq!(lab.flows.len(), 1);
}

#[test]
fn egress_is_the_senders_policy_on_the_receivers_identity() {
    let mut lab = lab();
    lab.apply(vec![policy(
        1,
        false,
        true,
        vec![entry(Direction::Egress, 1002, 6, 80, false)],
    )]);
    passes(&mut lab, POD0, &there(6, 80, SYN));
    let third = packet(6, ("10.0.0.1", 4000), ("10.0.0.3", 80), SYN, (OURS[0], EP1));
    assert_eq!(lab.one(POD0, &third).dropped(), 133);
    let world = packet(6, ("10.0.0.1", 4000), ("198.51.100.7", 80), SYN, (OURS[0], EP1));
    assert_eq!(lab.one(POD0, &world).dropped(), 133);
    // The world is known by its entries, or as the world.
    lab.apply(vec![policy(
        1,
        false,
        true,
        vec![entry(Direction::Egress, 2, 6, 80, false)],
    )]);
    passes(&mut lab, POD0, &world);
    lab.apply(vec![Change::PutIpcache(IpcacheEntry {
        prefix: "198.51.100.0/24".parse().unwrap(),
        identity: 0x0100_0001,
        tunnel: None,
        key: 0,
        skip_tunnel: false,
    })]);
    assert_eq!(lab.one(POD0, &world).dropped(), 133);
}

#[test]
fn replies_pass_whatever_policy_says() {
    let mut lab = lab();
    lab.apply(vec![
        policy(1, true, true, vec![entry(Direction::Egress, 0, 0, 0, false)]),
        policy(2, true, true, vec![entry(Direction::Ingress, 0, 6, 80, false)]),
    ]);
    passes(&mut lab, POD0, &there(6, 80, SYN));
    passes(&mut lab, POD1, &back(6, 80, SYN | ACK));
    passes(&mut lab, POD0, &there(6, 80, ACK));
    passes(&mut lab, POD1, &back(6, 80, ACK));
    // But endpoint 2 may not begin.
    assert_eq!(lab.one(POD1, &back(6, 81, SYN)).dropped(), 133);
}

#[test]
fn revoking_cuts_live_connections_and_deny_wins() {
    let mut lab = lab();
    lab.apply(vec![policy(
        2,
        true,
        false,
        vec![entry(Direction::Ingress, 1001, 6, 80, false)],
    )]);
    for _ in 0..2 {
        passes(&mut lab, POD0, &there(6, 80, SYN));
        passes(&mut lab, POD1, &back(6, 80, SYN | ACK));
    }
    lab.apply(vec![policy(
        2,
        true,
        false,
        vec![
            entry(Direction::Ingress, 1001, 6, 80, false),
            entry(Direction::Ingress, 0, 6, 80, true),
        ],
    )]);
    assert_eq!(lab.one(POD0, &there(6, 80, ACK)).dropped(), 181);
    // Replies are exempt.
    passes(&mut lab, POD1, &back(6, 80, ACK));
    lab.apply(vec![policy(2, true, false, Vec::new())]);
    assert_eq!(lab.one(POD0, &there(6, 80, ACK)).dropped(), 133);
    lab.apply(vec![Change::RemovePolicy { endpoint: 2 }]);
    passes(&mut lab, POD0, &there(6, 80, ACK));
}

#[test]
fn the_sender_is_told_if_the_node_says_so() {
    let mut lab = lab();
    lab.apply(vec![
        Change::PutNode(Box::new(Node {
            policy_deny_response: true,
            ..Node::default()
        })),
        policy(1, false, true, Vec::new()),
    ]);
    let outcome = lab.one(POD0, &there(6, 80, SYN));
    let (code, sent) = outcome.dropped_and_sent();
    // Communication administratively prohibited (RFC 1812, section 5.2.7.1).
    assert_eq!((code, sent.len(), &sent[0].1[34..36]), (133, 1, &[3, 13][..]));
}

#[test]
fn the_port_of_icmp_is_its_type() {
    let mut lab = lab();
    lab.apply(vec![policy(
        2,
        true,
        false,
        vec![entry(Direction::Ingress, 0, 1, 8, false)],
    )]);
    let icmp = |kind, code| {
        ip4("10.0.0.1", "10.0.0.2")
            .payload(1, vec![kind, code, 0, 0, 0, 9, 0, 1])
            .frame(OURS[0], EP1)
    };
    passes(&mut lab, POD0, &icmp(8, 0));
    assert_eq!(lab.one(POD0, &icmp(13, 0)).dropped(), 133);
    // Path-MTU discovery always works (2.6 step 1).
    passes(&mut lab, POD0, &icmp(3, 4));
}

#[test]
fn what_ends_here_is_asked_about_too() {
    // A ping of the gateway, one of our own address, which is answered here without a kernel, and a multicast.
    let ping = |dst| ip4("10.0.0.1", dst).payload(1, vec![8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    let frames = [
        ping(GATEWAY4).frame(OURS[0], EP1),
        ping(OWN4).frame(OURS[0], EP1),
        ping("224.0.0.5").frame(OURS[0], EP1),
    ];
    let mut lab = lab();
    let codes = |lab: &mut Lab<HeapPool>| {
        frames.each_ref().map(|frame| {
            let outcome = lab.one(POD0, frame);
            outcome.drops.first().map_or(0, |drop| drop.0)
        })
    };
    // Nobody is there to hear a multicast.
    assert_eq!(codes(&mut lab), [0, 0, 151]);
    lab.apply(vec![policy(1, false, true, vec![])]);
    assert_eq!(codes(&mut lab), [133, 133, 133]);
    assert_eq!(lab.flows.len(), 0);
}

#[test]
fn a_tunnel_leads_where_no_route_does() {
    let mut lab = Plan {
        default_routes: false,
        ..Plan::default()
    }
    .lab();
    lab.apply(vec![
        Change::PutNode(Box::new(Node {
            routing: octoplane_tables::model::Routing::Tunnel,
            tunnel: octoplane_tables::model::Tunnel {
                local4: Some([192, 0, 2, 1].into()),
                ..octoplane_tables::model::Tunnel::default()
            },
            ..Node::default()
        })),
        Change::PutIpcache(IpcacheEntry {
            prefix: "10.0.2.0/24".parse().unwrap(),
            identity: 2001,
            tunnel: Some([192, 0, 2, 2].into()),
            key: 0,
            skip_tunnel: false,
        }),
        neighbour("192.0.2.2", Some(ROUTER)),
    ]);
    let there = packet(17, ("10.0.0.1", 4000), ("10.0.2.1", 53), 0, (OURS[0], EP1));
    let outcome = lab.one(POD0, &there);
    let (port, sent) = outcome.only();
    assert_eq!((port, sent.len()), (UPLINK, there.len() + 50));
}

fn authenticated(local: u32, remote: u32, remote_node: Option<&str>, auth_type: u8) -> Authentication {
    Authentication {
        key: AuthKey {
            local_identity: local,
            remote_identity: remote,
            remote_node: remote_node.map(|addr| addr.parse().unwrap()),
            auth_type,
        },
        expires: 4_000_000_000,
    }
}

fn asks_for(auth_type: u8, direction: Direction, identity: u32) -> PolicyEntry {
    let mut entry = entry(direction, identity, 6, 80, false);
    (entry.value.auth_type, entry.value.auth_explicit) = (auth_type, true);
    entry
}

#[test]
fn who_has_to_authenticate_passes_once_both_have() {
    let mut lab = lab();
    lab.apply(vec![policy(
        2,
        true,
        false,
        vec![asks_for(1, Direction::Ingress, 1001)],
    )]);
    assert_eq!(lab.one(POD0, &there(6, 80, SYN)).dropped(), 189);
    // Somebody else's, another way, on another node: none of them counts.
    for other in [
        authenticated(1003, 1001, None, 1),
        authenticated(1001, 1002, None, 1),
        authenticated(1002, 1001, None, 2),
        authenticated(1002, 1001, Some("192.0.2.7"), 1),
    ] {
        lab.apply(vec![Change::PutAuthentication(other)]);
        assert_eq!(lab.one(POD0, &there(6, 80, SYN)).dropped(), 189, "{other:?}");
    }
    let theirs = authenticated(1002, 1001, None, 1);
    lab.apply(vec![Change::PutAuthentication(theirs)]);
    passes(&mut lab, POD0, &there(6, 80, SYN));
    passes(&mut lab, POD1, &back(6, 80, SYN | ACK));
    passes(&mut lab, POD0, &there(6, 80, ACK));
    // Once it is over, the connection is cut.
    lab.apply(vec![Change::RemoveAuthentication { key: theirs.key }]);
    assert_eq!(lab.one(POD0, &there(6, 80, ACK)).dropped(), 189);
}

#[test]
fn the_other_side_of_an_authentication_is_on_its_node() {
    let mut lab = lab();
    lab.apply(vec![
        Change::PutIpcache(IpcacheEntry {
            prefix: "198.51.100.0/24".parse().unwrap(),
            identity: 3000,
            tunnel: Some("192.0.2.7".parse().unwrap()),
            key: 0,
            skip_tunnel: true,
        }),
        policy(1, false, true, vec![asks_for(1, Direction::Egress, 3000)]),
    ]);
    let syn = packet(6, ("10.0.0.1", 4000), ("198.51.100.7", 80), SYN, (OURS[0], EP1));
    assert_eq!(lab.one(POD0, &syn).dropped(), 189);
    lab.apply(vec![Change::PutAuthentication(authenticated(
        1001, 3000, None, 1,
    ))]);
    assert_eq!(lab.one(POD0, &syn).dropped(), 189);
    lab.apply(vec![Change::PutAuthentication(authenticated(
        1001,
        3000,
        Some("192.0.2.7"),
        1,
    ))]);
    passes(&mut lab, POD0, &syn);
}
