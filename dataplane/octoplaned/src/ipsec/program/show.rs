//! From what is programmed to messages.

use octoplane_api::v1;
use octoplane_esp::Direction;
use octoplane_esp::db::{PolicyConfig, PortRange};
use octoplane_esp::sa::{Mark, SaKey};
use octoplane_esp::view::{Action, Snapshot};
use octoplane_packet::Prefix;

fn direction(direction: Direction) -> String {
    match direction {
        Direction::Outbound => "outbound",
        Direction::Inbound => "inbound",
    }
    .into()
}

fn mark(mark: Mark) -> Option<v1::IpsecMark> {
    let Mark { value, mask } = mark;
    (mark != Mark::default()).then_some(v1::IpsecMark { value, mask })
}

/// What a security association is known by.
pub(crate) fn name(key: &SaKey) -> v1::IpsecSaName {
    v1::IpsecSaName {
        direction: direction(key.direction),
        spi: key.spi,
        source: key.source.map(|addr| addr.to_string()).unwrap_or_default(),
        destination: key.destination.to_string(),
        mark: mark(key.mark),
    }
}

/// A policy.
pub(crate) fn policy(policy: &PolicyConfig, snapshot: &Snapshot) -> v1::IpsecSelectorPolicy {
    let prefix = |prefix: Prefix| match prefix.len() {
        0 => String::new(),
        _ => prefix.to_string(),
    };
    let ports = |range: PortRange| {
        (range != PortRange::ANY).then_some(v1::IpsecPorts {
            first: range.first.into(),
            last: range.last.into(),
        })
    };
    let (action, reqid) = match policy.action {
        Action::Protect(reqid) => ("protect", reqid),
        Action::Bypass => ("bypass", 0),
        Action::Discard => ("discard", 0),
    };
    let outbound = policy.direction == Direction::Outbound && action == "protect";
    let used = snapshot
        .tunnel(reqid)
        .and_then(|id| snapshot.sa(id))
        .filter(|_| outbound);
    // Where both are empty, nobody could tell the family.
    let source = match (policy.source.len(), policy.destination.len()) {
        (0, 0) => policy.source.to_string(),
        _ => prefix(policy.source),
    };
    v1::IpsecSelectorPolicy {
        id: policy.id,
        direction: direction(policy.direction),
        priority: policy.priority,
        source,
        destination: prefix(policy.destination),
        protocol: policy.protocol.map(u32::from),
        source_ports: ports(policy.source_ports),
        destination_ports: ports(policy.destination_ports),
        mark: mark(policy.mark),
        action: action.into(),
        reqid,
        spi: used.map_or(0, |sa| sa.config().spi),
    }
}
