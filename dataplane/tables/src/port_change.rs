//! Ports that come and go: what is asked of one before it may.

use std::net::IpAddr;

use crate::error::ChangeError;
use crate::model::{MAX_PORTS, Neighbour, Origin, Port, PortId, Role, RouteTarget};
use crate::state::State;

/// Users of a port that an error names.
const NAMED: usize = 3;

impl State {
    /// Adds a port. Its MTU is the largest it may have.
    pub(crate) fn add_port(&mut self, port: Port) -> Result<(), ChangeError> {
        let name = || port.name.clone();
        if self.port_by_name(&port.name).is_some() {
            return Err(ChangeError::PortExists { port: name() });
        }
        if usize::from(port.id) >= MAX_PORTS || self.ports.len() >= MAX_PORTS {
            return Err(ChangeError::TooManyPorts {
                port: name(),
                max: MAX_PORTS,
            });
        }
        if self.port(port.id).is_some() {
            return Err(ChangeError::PortNumberTaken {
                port: name(),
                id: port.id,
            });
        }
        if let Some(host) = self.host_port().filter(|_| port.role == Role::Host) {
            return Err(ChangeError::SecondHostPort {
                port: name(),
                host: host.name.clone(),
            });
        }
        for &(addr, _) in &port.addresses {
            if let Some(owner) = self.user_of(addr) {
                return Err(ChangeError::PortAddress {
                    port: name(),
                    addr,
                    owner,
                });
            }
        }
        self.mtu_limits.insert(port.id, port.mtu);
        self.ports.insert(port);
        Ok(())
    }

    /// Who has an address that a port is to have. What was merely heard of it stands back.
    fn user_of(&self, addr: IpAddr) -> Option<String> {
        let link_local = crate::validate::is_link_local(addr);
        if self.gateways.contains(addr) {
            return Some("the pods' gateway".into());
        }
        if let Some(endpoint) = self.owner(addr) {
            return Some(format!("endpoint {}", endpoint.id));
        }
        // A link-local address belongs to its link: two links may use the same.
        if link_local {
            return None;
        }
        if let Some(other) = self.own_address(addr) {
            return Some(format!("port {}", other.name));
        }
        if let Some(route) = self
            .routes()
            .find(|route| matches!(route.target, RouteTarget::Gateway { gateway, .. } if gateway == addr))
        {
            return Some(format!("the gateway of route {}", route.prefix));
        }
        self.neighbours()
            .find(|it| it.addr == addr && it.origin == Origin::Static)
            .map(|it| format!("a neighbour on port {}", self.ports.name(it.port)))
    }

    /// Removes a port that nobody programmed anything for. What was learned on it goes along.
    pub(crate) fn remove_port(&mut self, id: PortId) -> Result<(), ChangeError> {
        let Some(port) = self.port(id).cloned() else {
            return Err(ChangeError::NoSuchPort {
                object: "port".into(),
                port: id,
            });
        };
        let users = self.users_of(&port);
        if !users.is_empty() {
            return Err(ChangeError::PortInUse {
                port: port.name,
                users: listed(&users),
            });
        }
        for learned in self.learned_on(id) {
            self.neighbours.remove(&(id, learned.addr));
        }
        self.ports.remove(id);
        self.mtu_limits.remove(&id);
        Ok(())
    }

    /// What was learned on a port.
    pub(crate) fn learned_on(&self, id: PortId) -> Vec<Neighbour> {
        self.neighbours()
            .filter(|it| it.port == id && it.origin == Origin::Learned)
            .copied()
            .collect()
    }

    fn users_of(&self, port: &Port) -> Vec<String> {
        let endpoints = self
            .endpoints()
            .filter(|it| it.port == port.id)
            .map(|it| match it.name.as_str() {
                "" => format!("endpoint {}", it.id),
                name => format!("endpoint {} ({name})", it.id),
            });
        let routes = self.routes().filter(|it| match it.target {
            RouteTarget::Gateway { port: out, .. } | RouteTarget::Link { port: out } => out == port.id,
            RouteTarget::Host => port.role == Role::Host,
            RouteTarget::Blackhole => false,
        });
        let neighbours = self
            .neighbours()
            .filter(|it| it.port == port.id && it.origin == Origin::Static);
        endpoints
            .chain(routes.map(|it| format!("route {}", it.prefix)))
            .chain(neighbours.map(|it| format!("neighbour {}", it.addr)))
            .collect()
    }
}

/// The first few, and how many others there are.
fn listed(users: &[String]) -> String {
    let named = &users[..users.len().min(NAMED)];
    match users.len() - named.len() {
        0 => named.join(", "),
        others => format!("{} and {others} more", named.join(", ")),
    }
}
