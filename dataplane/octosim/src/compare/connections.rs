//! Connections of the engine and of the model in the same terms.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use octoplane_engine::FlowView;
use octoplane_model::{Flow, Kind, Mapping, Tuple};

/// A connection: the addresses and ports that its first packet arrives with and leaves with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Connection {
    protocol: u8,
    arrives: (SocketAddr, SocketAddr),
    leaves: (SocketAddr, SocketAddr),
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            protocol,
            arrives: (from, to),
            leaves: (src, dst),
        } = self;
        write!(f, "protocol {protocol}: {from} to {to}, leaves as {src} to {dst}")
    }
}

fn ends(src: IpAddr, sport: u16, dst: IpAddr, dport: u16) -> (SocketAddr, SocketAddr) {
    (SocketAddr::new(src, sport), SocketAddr::new(dst, dport))
}

/// The engine's connections, with what their first packets arrived with.
pub(super) fn of_engine(flows: &[FlowView]) -> BTreeMap<Connection, octoplane_flow::Tuple> {
    let one = |flow: &FlowView| {
        let (there, out) = (flow.forward.tuple, flow.reply.tuple.reverse());
        let connection = Connection {
            protocol: there.protocol(),
            arrives: ends(there.src(), there.sport(), there.dst(), there.dport()),
            leaves: ends(out.src(), out.sport(), out.dst(), out.dport()),
        };
        (connection, there)
    };
    flows.iter().map(one).collect()
}

/// The model's connections, with the tuples of their entries. An entry on the side of the receiver says nothing that one on the side of the sender does not.
pub(super) fn of_model(flows: &[Flow], mappings: &[Mapping]) -> BTreeMap<Connection, Tuple> {
    let sent: BTreeSet<Tuple> = flows
        .iter()
        .filter(|flow| flow.kind == Kind::Out)
        .map(|flow| flow.tuple)
        .collect();
    flows
        .iter()
        .filter(|flow| !flow.tuple.related)
        .filter(|flow| match flow.kind {
            Kind::Out => true,
            Kind::In => !sent.contains(&flow.tuple),
            Kind::Service => false,
        })
        .map(|flow| {
            let it = flow.tuple;
            let src = if flow.entry.loopback { it.dst } else { it.src };
            let meant = flow
                .entry
                .nat
                .or_else(|| flow.entry.rev_nat.map(|id| (id.address, id.port)));
            let (dst, dport) = meant.unwrap_or((it.dst, it.dport));
            let out = mappings
                .iter()
                .find(|mapping| mapping.original == it)
                .map_or(it, |mapping| mapping.translated);
            let connection = Connection {
                protocol: it.protocol,
                arrives: ends(src, it.sport, dst, dport),
                leaves: ends(out.src, out.sport, out.dst, out.dport),
            };
            (connection, it)
        })
        .collect()
}
