//! Applies one change to a state, or says what is wrong with it.

mod authentication;
mod egress_gateway;
mod ipcache;
mod node;
mod policy;
mod service;

use std::net::IpAddr;
use std::sync::Arc;

use crate::error::ChangeError;
use crate::model::{
    Change, Endpoint, MAX_ENDPOINT_ADDRESSES, MAX_IDENTITY, Neighbour, Origin, Port, PortId, Role, Route,
    RouteTarget,
};
use crate::state::State;
use crate::store::Capacity;

/// Smallest MTU of an IPv6 link (RFC 8200, section 5); also ours for ports.
pub const MIN_MTU: u16 = 1280;

/// Smallest MTU of an IPv4 path (RFC 791).
const MIN_MTU_V4: u16 = 68;

const MAX_NAME: usize = 253;

impl State {
    /// Applies `change`. On an error the state may hold half of it and must be thrown away.
    pub(crate) fn apply(&mut self, change: Change, capacity: &Capacity) -> Result<(), ChangeError> {
        match change {
            Change::PutEndpoint(endpoint) => self.put_endpoint(endpoint, capacity),
            Change::RemoveEndpoint { id } => {
                let old = self
                    .endpoints
                    .remove(&id)
                    .ok_or(ChangeError::NoSuchEndpoint { id })?;
                for addr in &old.addresses {
                    self.owners.remove(addr);
                }
                Ok(())
            }
            Change::PutRoute(route) => self.put_route(route, capacity),
            Change::RemoveRoute { prefix } => self
                .routes
                .remove(&prefix)
                .map(drop)
                .ok_or(ChangeError::NoSuchRoute { prefix }),
            Change::PutNeighbour(neighbour) => self.put_neighbour(neighbour, capacity),
            Change::RemoveNeighbour { port, addr } => {
                let gone = self.neighbours.remove(&(port, addr));
                gone.map(drop).ok_or_else(|| ChangeError::NoSuchNeighbour {
                    port: self.port_name(port),
                    addr,
                })
            }
            Change::AddPort(port) => self.add_port(port),
            Change::RemovePort { id } => self.remove_port(id),
            Change::SetPort { id, mtu, admin_up } => self.set_port(id, mtu, admin_up),
            Change::PutNode(node) => self.put_node(*node, capacity),
            Change::RemoveNode => self.remove_node(capacity),
            Change::PutIpcache(entry) => self.put_ipcache(entry, capacity),
            Change::RemoveIpcache { prefix } => self.remove_ipcache(prefix),
            Change::PutService(service) => self.put_service(*service, capacity),
            Change::RemoveService { name } => self.remove_service(&name),
            Change::PutPolicy(policy) => self.put_policy(policy, capacity),
            Change::PutPolicyEntries { endpoint, entries } => {
                self.put_policy_entries(endpoint, &entries, capacity)
            }
            Change::RemovePolicyEntries { endpoint, keys } => self.remove_policy_entries(endpoint, &keys),
            Change::RemovePolicy { endpoint } => self.remove_policy(endpoint),
            Change::PutEgressGateway(rule) => self.put_egress_gateway(rule, capacity),
            Change::RemoveEgressGateway { key } => self.remove_egress_gateway(&key),
            Change::PutAuthentication(it) => self.put_authentication(it, capacity),
            Change::RemoveAuthentication { key } => self.remove_authentication(&key),
        }
    }

    fn put_endpoint(&mut self, endpoint: Endpoint, capacity: &Capacity) -> Result<(), ChangeError> {
        let id = endpoint.id;
        if id == 0 {
            return Err(ChangeError::EndpointIdZero);
        }
        if endpoint.name.len() > MAX_NAME {
            return Err(ChangeError::NameTooLong {
                id,
                len: endpoint.name.len(),
            });
        }
        self.port_with_role(endpoint.port, Role::Pod, || format!("endpoint {id}"))?;
        if !endpoint.mac.is_unicast() {
            return Err(ChangeError::EndpointMac {
                id,
                mac: endpoint.mac,
            });
        }
        if endpoint.identity == 0 || endpoint.identity > MAX_IDENTITY {
            return Err(ChangeError::Identity {
                id,
                identity: endpoint.identity,
                max: MAX_IDENTITY,
            });
        }
        let count = endpoint.addresses.len();
        if count == 0 || count > MAX_ENDPOINT_ADDRESSES {
            return Err(ChangeError::AddressCount {
                id,
                count,
                max: MAX_ENDPOINT_ADDRESSES,
            });
        }
        if let Some(old) = self.endpoints.get(&id).cloned() {
            for addr in &old.addresses {
                self.owners.remove(addr);
            }
        } else if self.endpoints.len() >= capacity.endpoints {
            return Err(ChangeError::TableFull {
                table: "endpoints",
                size: capacity.endpoints,
            });
        }
        for &addr in &endpoint.addresses {
            if let Some(why) = unusable(addr) {
                return Err(ChangeError::EndpointAddress { id, addr, why });
            }
            if self.is_own(addr) {
                return Err(ChangeError::EndpointAddress {
                    id,
                    addr,
                    why: "it is one of the data plane's own",
                });
            }
            match self.owners.insert(addr, id) {
                Some(owner) if owner == id => return Err(ChangeError::AddressTwice { id, addr }),
                Some(owner) => return Err(ChangeError::AddressTaken { id, addr, owner }),
                None => {}
            }
        }
        self.endpoints.insert(id, Arc::new(endpoint));
        Ok(())
    }

    fn put_route(&mut self, route: Route, capacity: &Capacity) -> Result<(), ChangeError> {
        let prefix = route.prefix;
        if prefix.addr().is_multicast() {
            return Err(ChangeError::RoutePrefix {
                prefix,
                why: "multicast is not routed",
            });
        }
        match route.target {
            RouteTarget::Gateway { port, gateway } => {
                self.port_with_role(port, Role::Uplink, || format!("route {prefix}"))?;
                let refuse = |why| Err(ChangeError::Gateway { prefix, gateway, why });
                if gateway.is_ipv4() != prefix.addr().is_ipv4() {
                    return refuse("is of the other address family");
                }
                // A link-local gateway is usual in IPv6.
                if !is_link_local(gateway) && unusable(gateway).is_some() {
                    return refuse("is not the address of a station");
                }
                if self.gateways.contains(gateway) || self.own_address(gateway).is_some() {
                    return refuse("is one of the data plane's own addresses");
                }
            }
            RouteTarget::Link { port } => {
                self.port_with_role(port, Role::Uplink, || format!("route {prefix}"))?;
            }
            RouteTarget::Host if self.host_port().is_none() => {
                return Err(ChangeError::NoHostPort { prefix });
            }
            RouteTarget::Host | RouteTarget::Blackhole => {}
        }
        if let Some(mtu) = route.mtu {
            let min = if prefix.addr().is_ipv4() {
                MIN_MTU_V4
            } else {
                MIN_MTU
            };
            if mtu < min {
                return Err(ChangeError::RouteMtu { prefix, mtu, min });
            }
        }
        if !self.routes.contains_key(&prefix) && self.routes.len() >= capacity.routes {
            return Err(ChangeError::TableFull {
                table: "routes",
                size: capacity.routes,
            });
        }
        self.routes.insert(prefix, route);
        Ok(())
    }

    fn put_neighbour(&mut self, neighbour: Neighbour, capacity: &Capacity) -> Result<(), ChangeError> {
        let Neighbour {
            port,
            addr,
            mac,
            origin,
        } = neighbour;
        self.port_with_role(port, Role::Uplink, || format!("neighbour {addr}"))?;
        let refuse = |why| {
            Err(ChangeError::NeighbourAddress {
                port: self.port_name(port),
                addr,
                why,
            })
        };
        if !is_link_local(addr) && unusable(addr).is_some() {
            return refuse("is not the address of a station");
        }
        if self.gateways.contains(addr) || self.own_address(addr).is_some() {
            return refuse("is one of the data plane's own addresses");
        }
        match mac {
            Some(mac) if !mac.is_unicast() => {
                return Err(ChangeError::NeighbourMac {
                    port: self.port_name(port),
                    addr,
                    mac,
                });
            }
            None if origin == Origin::Static => {
                return Err(ChangeError::NeighbourMacMissing {
                    port: self.port_name(port),
                    addr,
                });
            }
            _ => {}
        }
        match self.neighbours.get(&(port, addr)) {
            // What the control plane said is never overwritten by what was heard.
            Some(old) if old.origin == Origin::Static && origin == Origin::Learned => return Ok(()),
            Some(_) => {}
            None if self.neighbours.len() >= capacity.neighbours => {
                return Err(ChangeError::TableFull {
                    table: "neighbours",
                    size: capacity.neighbours,
                });
            }
            None => {}
        }
        self.neighbours.insert((port, addr), neighbour);
        Ok(())
    }

    fn set_port(&mut self, id: PortId, mtu: Option<u16>, admin_up: Option<bool>) -> Result<(), ChangeError> {
        let limit = self.mtu_limits.get(&id).copied();
        let Some(port) = self.ports.get_mut(id) else {
            return Err(ChangeError::NoSuchPort {
                object: "port".into(),
                port: id,
            });
        };
        if let Some(mtu) = mtu {
            let max = limit.unwrap_or(port.mtu);
            if mtu < MIN_MTU || mtu > max {
                return Err(ChangeError::PortMtu {
                    port: port.name.clone(),
                    mtu,
                    max,
                });
            }
            port.mtu = mtu;
        }
        port.admin_up = admin_up.unwrap_or(port.admin_up);
        Ok(())
    }

    fn port_with_role(
        &self,
        id: PortId,
        role: Role,
        object: impl Fn() -> String,
    ) -> Result<&Port, ChangeError> {
        let port = self.port(id).ok_or_else(|| ChangeError::NoSuchPort {
            object: object(),
            port: id,
        })?;
        if port.role != role {
            return Err(ChangeError::PortRole {
                object: object(),
                port: port.name.clone(),
                role: port.role.name(),
                expected: role.name(),
            });
        }
        Ok(port)
    }

    fn port_name(&self, id: PortId) -> String {
        self.ports.name(id)
    }
}

/// A field that is out of its range.
fn field(object: impl Into<String>, field: &str, why: impl Into<String>) -> ChangeError {
    ChangeError::Field {
        object: object.into(),
        field: field.into(),
        why: why.into(),
    }
}

pub(crate) fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    }
}

/// Why `addr` cannot be the address of one station that packets are routed to.
fn unusable(addr: IpAddr) -> Option<&'static str> {
    if addr.is_unspecified() {
        return Some("it is unspecified");
    }
    if addr.is_loopback() {
        return Some("it is a loopback address");
    }
    if addr.is_multicast() {
        return Some("it is multicast");
    }
    match addr {
        IpAddr::V4(a) if a.octets()[0] >= 240 => Some("it is reserved or broadcast"),
        IpAddr::V4(a) if a.octets()[0] == 0 => Some("it means \"this network\""),
        IpAddr::V6(a) if a.is_unicast_link_local() => Some("it is link-local"),
        IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => Some("it is an IPv4-mapped address"),
        _ => None,
    }
}
