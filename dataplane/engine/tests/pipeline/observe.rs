//! Verdicts and drops for those who want to know (specification, 1.2 step 12, 1.3 step 4, 4: verdict event).

use std::sync::Arc;

use octoplane_engine::{Dropped, Event, EventKind, Interest, PolicyVerdict};
use octoplane_packet::HeapPool;
use octoplane_tables::MatchType;
use octoplane_tables::model::{Change, Direction, Policy, PolicyEntry, PolicyKey, PolicyValue};

use crate::common::bytes::{ethernet, ip, ip4};
use crate::common::flows::packet;
use crate::common::*;

const SYN: u8 = 2;
const ACK: u8 = 16;

/// Endpoint 2 takes TCP to port 80 from endpoint 1's identity, and nothing else; port 81 is denied to all.
fn policy(audit: bool) -> Change {
    let entry = |identity, port, deny, cookie| PolicyEntry {
        key: PolicyKey {
            direction: Direction::Ingress,
            identity,
            protocol: 6,
            port,
            port_prefix_len: 16,
        },
        value: PolicyValue {
            deny,
            cookie,
            ..PolicyValue::default()
        },
    };
    Change::PutPolicy(Policy {
        endpoint: 2,
        enforce_ingress: true,
        enforce_egress: false,
        audit,
        entries: vec![entry(1001, 80, false, 8), entry(0, 81, true, 9)],
    })
}

fn wants(lab: &Lab<HeapPool>, kinds: u32, endpoint: Option<u32>) {
    lab.engine.monitor().set(Interest { kinds, endpoint });
}

fn told(lab: &Lab<HeapPool>) -> Vec<Event> {
    let monitor = Arc::clone(lab.engine.monitor());
    std::iter::from_fn(|| monitor.pop()).collect()
}

fn verdicts(lab: &Lab<HeapPool>) -> Vec<PolicyVerdict> {
    let verdict = |event: Event| match event.kind {
        EventKind::Verdict(it) => Some(it),
        EventKind::Drop(_) => None,
    };
    told(lab).into_iter().filter_map(verdict).collect()
}

fn drops(lab: &Lab<HeapPool>) -> Vec<Dropped> {
    let dropped = |event: Event| match event.kind {
        EventKind::Drop(it) => Some(it),
        EventKind::Verdict(_) => None,
    };
    told(lab).into_iter().filter_map(dropped).collect()
}

/// From endpoint 1 to endpoint 2.
fn there(port: u16, flags: u8) -> Vec<u8> {
    packet(6, ("10.0.0.1", 4000), ("10.0.0.2", port), flags, (OURS[0], EP1))
}

#[test]
fn nobody_asks_nobody_is_told() {
    let mut lab = lab();
    lab.apply(vec![policy(false)]);
    lab.one(POD0, &there(80, SYN));
    lab.one(POD0, &there(81, SYN));
    assert_eq!(told(&lab), []);
}

#[test]
fn what_policies_say_of_first_packets() {
    let mut lab = lab();
    lab.apply(vec![policy(false)]);
    wants(&lab, Interest::VERDICTS, None);
    lab.one(POD0, &there(80, SYN));
    let [egress, ingress] = verdicts(&lab)[..] else {
        panic!()
    };
    // The sender has no policy: everything is allowed.
    assert_eq!(
        (egress.endpoint, egress.egress, egress.enforced),
        (1, true, false)
    );
    assert_eq!(
        (egress.decided.match_type, egress.decided.cookie),
        (MatchType::All, 0)
    );
    assert_eq!(
        (ingress.endpoint, ingress.egress, ingress.enforced),
        (2, false, true)
    );
    assert_eq!((ingress.local, ingress.remote), (egress.remote, egress.local));
    assert_eq!(
        (ingress.decided.match_type, ingress.decided.cookie),
        (MatchType::L3L4, 8)
    );
    assert_eq!((ingress.tuple.dst(), ingress.tuple.dport()), (ip("10.0.0.2"), 80));
    assert!(ingress.first && ingress.reason().is_none());
    // Neither what follows nor answers, even if it has to be decided again.
    lab.apply(vec![
        policy(false),
        route("198.51.100.0/24", via("192.0.2.254"), None),
    ]);
    lab.one(POD0, &there(80, ACK));
    lab.one(
        POD1,
        &packet(6, ("10.0.0.2", 80), ("10.0.0.1", 4000), ACK, (OURS[1], EP2)),
    );
    assert_eq!(verdicts(&lab), []);
}

#[test]
fn everything_that_is_refused() {
    let mut lab = lab();
    lab.apply(vec![policy(false)]);
    wants(&lab, Interest::VERDICTS, Some(2));
    for (port, code, cookie, closely) in [(81, 181, 9, MatchType::L4Only), (82, 133, 0, MatchType::None)] {
        for _ in 0..2 {
            assert_eq!(lab.one(POD0, &there(port, SYN)).dropped(), code);
            let [it] = verdicts(&lab)[..] else { panic!() };
            assert_eq!(it.reason().map(|it| it.code()), Some(code));
            assert_eq!((it.decided.cookie, it.decided.match_type), (cookie, closely));
        }
    }
    // A connection that policy cuts.
    lab.one(POD0, &there(80, SYN));
    assert_eq!(verdicts(&lab).len(), 1);
    let Change::PutPolicy(mut none) = policy(false) else {
        panic!()
    };
    none.entries.clear();
    lab.apply(vec![Change::PutPolicy(none)]);
    assert_eq!(lab.one(POD0, &there(80, ACK)).dropped(), 133);
    let [cut] = verdicts(&lab)[..] else { panic!() };
    assert!(!cut.first && cut.reason().is_some());
}

#[test]
fn what_only_audit_lets_pass() {
    let mut lab = lab();
    lab.apply(vec![policy(true)]);
    wants(&lab, Interest::VERDICTS, Some(2));
    lab.one(POD0, &there(81, SYN)).only();
    let [it] = verdicts(&lab)[..] else { panic!() };
    assert!(it.decided.audited && it.reason().is_none());
    assert_eq!(it.decided.cookie, 9);
}

#[test]
fn the_nodes_policy_is_not_told_of_what_it_does_not_forbid() {
    let mut lab = lab_with_host();
    lab.apply(vec![Change::PutPolicy(Policy {
        endpoint: 0,
        enforce_ingress: true,
        enforce_egress: false,
        audit: false,
        entries: Vec::new(),
    })]);
    wants(&lab, Interest::VERDICTS, Some(0));
    // Egress is not enforced: "allow all" of the host endpoint is suppressed.
    lab.one(
        HOST,
        &packet(6, (OWN4, 4000), ("10.0.0.1", 80), SYN, (OURS[3], KERNEL)),
    )
    .only();
    assert_eq!(verdicts(&lab), []);
}

#[test]
fn drops_say_what_and_why() {
    let mut lab = lab();
    lab.apply(vec![policy(false)]);
    wants(&lab, Interest::DROPS, None);
    let frame = there(81, SYN);
    lab.one(POD0, &frame);
    let [it] = drops(&lab)[..] else { panic!() };
    assert_eq!(
        (it.reason.code(), it.port, it.len as usize),
        (181, POD0, frame.len())
    );
    assert_eq!((it.endpoints, it.tuple.unwrap().dport()), ([1, 2], 81));
    assert!(it.identities.iter().all(|it| *it > 0));
    // Of a source that is nobody's, and of what is no packet at all.
    lab.one(POD0, &ip4("10.0.0.9", "10.0.0.2").frame(OURS[0], EP1));
    let [it] = drops(&lab)[..] else { panic!() };
    assert_eq!((it.reason.code(), it.endpoints), (132, [0, 2]));
    lab.one(POD0, &ethernet(OURS[0], EP1, 0x1234, &[0; 46]));
    let [it] = drops(&lab)[..] else { panic!() };
    assert_eq!((it.reason.code(), it.tuple, it.endpoints), (139, None, [0, 0]));
    // Whose neither end is does not count.
    wants(&lab, Interest::DROPS, Some(3));
    lab.one(POD0, &frame);
    assert_eq!(drops(&lab), []);
    wants(&lab, Interest::DROPS, Some(1));
    lab.one(POD0, &frame);
    assert_eq!(drops(&lab).len(), 1);
}
