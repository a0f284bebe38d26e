use std::net::IpAddr;

use octoplane_packet::Prefix;
use proptest::prelude::*;

use super::*;
use crate::sa::Mark;
use crate::view::PolicyQuery;

/// RFC 4301 as it stands there: the first in the list that fits.
fn reference(policies: &[PolicyConfig], query: &PolicyQuery) -> Option<u32> {
    let fits = |policy: &&PolicyConfig| {
        let port = |range: PortRange, port: Option<u16>| {
            range == PortRange::ANY || port.is_some_and(|port| (range.first..=range.last).contains(&port))
        };
        policy.source.contains(query.source)
            && policy.destination.contains(query.destination)
            && policy.protocol.is_none_or(|protocol| protocol == query.protocol)
            && port(policy.source_ports, query.ports.map(|ports| ports.0))
            && port(policy.destination_ports, query.ports.map(|ports| ports.1))
            && policy.mark.matches(query.mark)
    };
    let first = policies
        .iter()
        .filter(fits)
        .min_by_key(|policy| (policy.priority, policy.id));
    first.map(|policy| policy.id)
}

#[test]
fn ranges_of_ports_are_covered_exactly() {
    for (first, last) in [
        (0, 65535),
        (0, 0),
        (1, 65534),
        (80, 80),
        (1024, 2047),
        (3, 1000),
        (65535, 65535),
    ] {
        let parts = ports(PortRange { first, last });
        assert!(parts.len() <= 30);
        for port in 0..=u16::MAX {
            let covered = parts.iter().filter(|(value, mask)| port & mask == *value).count();
            let expected = usize::from((first..=last).contains(&port));
            assert_eq!(covered, expected, "{port} in {first}-{last}");
        }
    }
}

fn addr(ipv4: bool, value: u8) -> IpAddr {
    match ipv4 {
        true => IpAddr::from([10, 0, value >> 4, value & 15]),
        false => IpAddr::from([
            0xfd00,
            0,
            0,
            0,
            0,
            0,
            u16::from(value >> 4),
            u16::from(value & 15),
        ]),
    }
}

fn prefix(ipv4: bool) -> impl Strategy<Value = Prefix> {
    let lens = if ipv4 {
        vec![0, 8, 24, 28, 32]
    } else {
        vec![0, 16, 112, 128]
    };
    (any::<u8>(), proptest::sample::select(lens))
        .prop_map(move |(value, len)| Prefix::containing(addr(ipv4, value & 0x33), len))
}

fn policy() -> impl Strategy<Value = PolicyConfig> {
    let range = prop_oneof![
        3 => Just(PortRange::ANY),
        1 => (0u16..8, 0u16..8).prop_map(|(first, more)| PortRange { first, last: first + more }),
    ];
    any::<bool>().prop_flat_map(move |ipv4| {
        (
            (0u32..12, 0u32..4, prefix(ipv4), prefix(ipv4)),
            proptest::sample::select(vec![None, Some(6u8), Some(17)]),
            (range.clone(), range.clone()),
            proptest::sample::select(vec![(0, 0), (0x0100, 0xff00), (0x0200, 0xff00)]),
            any::<bool>(),
        )
            .prop_map(
                |((id, priority, source, destination), protocol, ports, mark, discard)| {
                    let ports = if protocol.is_some() {
                        ports
                    } else {
                        (PortRange::ANY, PortRange::ANY)
                    };
                    PolicyConfig {
                        id,
                        direction: crate::Direction::Outbound,
                        priority,
                        source,
                        destination,
                        protocol,
                        source_ports: ports.0,
                        destination_ports: ports.1,
                        mark: Mark {
                            value: mark.0,
                            mask: mark.1,
                        },
                        action: if discard { Action::Discard } else { Action::Bypass },
                    }
                },
            )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn lookup_is_the_first_in_the_list(
        steps in proptest::collection::vec((policy(), 0u8..4), 1..30),
        queries in proptest::collection::vec(
            (any::<bool>(), any::<u8>(), any::<u8>(), proptest::sample::select(vec![6u8, 17, 1]),
             0u16..10, 0u16..10, proptest::sample::select(vec![0u32, 0x0100, 0x02ff])), 40),
    ) {
        let (mut policies, mut spd) = (Policies::default(), Spd::default());
        let mut model: Vec<PolicyConfig> = Vec::new();
        for (policy, kind) in steps {
            model.retain(|other| other.id != policy.id);
            if kind == 0 {
                let _ = policies.delete(&mut spd, policy.id);
            } else {
                policies.put(&mut spd, policy.clone()).unwrap();
                model.push(policy);
            }
            prop_assert_eq!(policies.len(), model.len());
        }
        for (ipv4, source, destination, protocol, sport, dport, mark) in &queries {
            let query = PolicyQuery {
                source: addr(*ipv4, source & 0x33),
                destination: addr(*ipv4, destination & 0x33),
                protocol: *protocol,
                ports: (*protocol != 1).then_some((*sport, *dport)),
                mark: *mark,
            };
            let expected = reference(&model, &query);
            let found = spd.lookup(&query);
            prop_assert_eq!(found.map(|found| found.policy), expected, "{:?}", query);
            if let Some(found) = found {
                prop_assert_eq!(Some(found.action), policies.get(found.policy).map(|policy| policy.action));
            }
        }
        for policy in model {
            policies.delete(&mut spd, policy.id).unwrap();
        }
        prop_assert_eq!(spd.shapes(), 0);
    }
}
