//! Connections of the engine and of the model in the same terms.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use octoplane_engine::FlowView;
use octoplane_model::{Model, Tuple};

/// A connection: the addresses and ports that its first packet arrives with and leaves with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Connection {
    protocol: u8,
    arrives: (SocketAddr, SocketAddr),
    leaves: (SocketAddr, SocketAddr),
}

impl Connection {
    /// Whether its first packet is another's, too.
    pub(super) fn arrives_as(&self, other: &Self) -> bool {
        (self.protocol, self.arrives) == (other.protocol, other.arrives) && self.leaves != other.leaves
            || self == other
    }
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

/// The model's connections, with the tuples of their entries.
pub(super) fn of_model(model: &Model) -> BTreeMap<Connection, Tuple> {
    let one = |it: octoplane_model::Connection| {
        let octoplane_model::Connection {
            arrives: there,
            leaves: out,
            entry,
            ..
        } = it;
        let connection = Connection {
            protocol: there.protocol,
            arrives: ends(there.src, there.sport, there.dst, there.dport),
            leaves: ends(out.src, out.sport, out.dst, out.dport),
        };
        (connection, entry)
    };
    model.connections().into_iter().map(one).collect()
}
