//! Neighbours on uplinks, as the daemon keeps them but for its timers: who is missing is asked for once, who answers is
//! learned, nobody is forgotten.

use octoplane_engine::{NeighbourEvent, probe};
use octoplane_packet::Prefix;
use octoplane_tables::State;
use octoplane_tables::model::{Change, Neighbour, Origin, PortId, RouteTarget};

/// What is known of them is in the tables; this holds what the engine said since it was asked last.
pub(crate) struct Neighbours {
    learn: bool,
    pub(crate) heard: Vec<NeighbourEvent>,
}

impl Neighbours {
    pub(crate) fn new(learn: bool) -> Self {
        Self {
            learn,
            heard: Vec::new(),
        }
    }

    /// What follows from an event: a change of the tables, or a question to send.
    pub(crate) fn hear(
        &self,
        state: &State,
        event: NeighbourEvent,
        sent: &mut Vec<(PortId, Vec<u8>)>,
    ) -> Option<Change> {
        if !self.learn {
            return None;
        }
        match event {
            NeighbourEvent::Wanted { port, addr } => {
                let view = state.port(port).filter(|_| may_add(state, port, addr))?;
                let same_family = |own: &&(_, u8)| std::net::IpAddr::is_ipv4(&own.0) == addr.is_ipv4();
                let on_link = |own: &&(_, u8)| Prefix::containing(own.0, own.1).contains(addr);
                let (source, _) = view
                    .addresses
                    .iter()
                    .find(on_link)
                    .or_else(|| view.addresses.iter().find(same_family))?;
                sent.extend(probe::question(view.mac, *source, addr, None).map(|frame| (port, frame)));
                None
            }
            NeighbourEvent::Heard {
                port,
                addr,
                mac,
                addressed,
            } => {
                let known = state.neighbour(port, addr);
                let learns = match known {
                    Some(known) => known.origin == Origin::Learned && known.mac != Some(mac),
                    None => addressed && may_add(state, port, addr),
                };
                learns.then_some(Change::PutNeighbour(Neighbour {
                    port,
                    addr,
                    mac: Some(mac),
                    origin: Origin::Learned,
                }))
            }
        }
    }
}

/// Whether a station belongs on this link.
fn may_add(state: &State, port: PortId, addr: std::net::IpAddr) -> bool {
    let on_link = matches!(state.route_to(addr), Some((_, RouteTarget::Link { port: link })) if link == port);
    let target = RouteTarget::Gateway { port, gateway: addr };
    on_link || state.routes().any(|route| route.target == target)
}
