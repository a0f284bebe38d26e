//! Differences that are known and were decided, each as narrow as can be. The README tells of them, too.

use std::collections::BTreeMap;

/// Reasons to drop one and the same packet of which the engine says the first and the model the second, because they look
/// in another order. Whether its sender is told is not compared then.
const OTHER_REASON: &[(u16, u16)] = &[
    // A packet that cannot be masqueraded, and could not be sent either (TTL, MTU).
    (168, 196),
    (168, 136),
    (134, 196),
    (134, 136),
    // Policy of the receiving endpoint forbids it, and it could not have been sent on to it (1.4 before 1.3).
    (133, 196),
    (181, 196),
    (189, 196),
    (133, 136),
    (181, 136),
    (189, 136),
    // It may not leave the cluster as it wants to (1.6), and could not have been sent as it is either (1.2 step 14).
    (194, 196),
    (194, 136),
    (204, 196),
    (204, 136),
    // There is no tunnel to the gateway, and it could not have been sent either.
    (160, 196),
    (160, 136),
    // What a load balancer says in it cannot be read, and the port of the endpoint that it is for is down (which the
    // specification does not know).
    (206, 134),
    // An SCTP port that cannot be changed: by a service before policy is asked (1.2 step 9 g), or at last.
    (133, 154),
    (181, 154),
    (189, 154),
    (196, 154),
    (136, 154),
];

/// Whether two sets of drops (code: number) are of packets that were dropped for one reason or another, apart from those on which
/// they agree.
pub(super) fn other_reason(engine: &BTreeMap<u16, u64>, model: &BTreeMap<u16, u64>) -> bool {
    let only = |drops: &BTreeMap<u16, u64>, others: &BTreeMap<u16, u64>| {
        let more = |(code, count): (&u16, &u64)| {
            let more = count.saturating_sub(others.get(code).copied().unwrap_or(0));
            (more > 0).then_some((*code, more))
        };
        match drops.iter().filter_map(more).collect::<Vec<_>>().as_slice() {
            [one] => Some(*one),
            _ => None,
        }
    };
    only(engine, model)
        .zip(only(model, engine))
        .is_some_and(|((here, one), (there, other))| one == other && OTHER_REASON.contains(&(here, there)))
}
