//! Between messages and the tables' types: endpoints, routes, neighbours, ports; a file each for the rest.

use std::net::IpAddr;

use octoplane_api::v1;
use octoplane_packet::{MacAddr, Prefix};
use octoplane_tables::model::{Change, Endpoint, Neighbour, Origin, Port, PortId, Role, Route, RouteTarget};
use octoplane_tables::{Event, Object, Ports, State};

use crate::mistake::{Mistake, clip};
pub use crate::node::{node, node_message};
pub use crate::policy::{policy, policy_entry_message, policy_message, policy_name};
use crate::policy::{put_entries, remove_entries};
pub use crate::remote::{
    authentication, authentication_key, authentication_message, egress_gateway, egress_gateway_message,
    egress_key, ipcache, ipcache_message, ipcache_prefix,
};
pub use crate::service::{service, service_message};

/// Names of ports in an error message, at most.
const NAMES: usize = 16;

fn address(object: &str, field: &str, text: &str) -> Result<IpAddr, Mistake> {
    text.parse().map_err(|_| {
        Mistake::invalid(format!(
            "{object}: {field}: \"{}\" is not an IPv4 or IPv6 address",
            clip(text)
        ))
    })
}

fn mac(object: &str, text: &str) -> Result<MacAddr, Mistake> {
    text.parse()
        .map_err(|error| Mistake::invalid(format!("{object}: mac: {error}")))
}

fn prefix(object: &str, text: &str) -> Result<Prefix, Mistake> {
    text.parse()
        .map_err(|error| Mistake::invalid(format!("{object}: prefix: {error}")))
}

fn port(state: &State, object: &str, name: &str) -> Result<PortId, Mistake> {
    state.port_by_name(name).map(|port| port.id).ok_or_else(|| {
        let names: Vec<&str> = state.ports().take(NAMES).map(|port| port.name.as_str()).collect();
        let others = match state.ports().count() - names.len() {
            0 => String::new(),
            others => format!(" and {others} others"),
        };
        Mistake::not_found(format!(
            "{object}: port: there is no port \"{}\", only {}{others}",
            clip(name),
            names.join(", ")
        ))
    })
}

fn mtu(object: &str, value: u32) -> Result<u16, Mistake> {
    u16::try_from(value).map_err(|_| {
        Mistake::invalid(format!(
            "{object}: mtu: {value} is out of range, expected at most 65535"
        ))
    })
}

/// A change in the tables' terms.
pub fn change(state: &State, change: v1::Change) -> Result<Change, Mistake> {
    use v1::change::Change as Step;
    let step = change
        .change
        .ok_or_else(|| Mistake::invalid("change: nothing is set, expected one of its fields".into()))?;
    Ok(match step {
        Step::PutEndpoint(message) => Change::PutEndpoint(endpoint(state, message)?),
        Step::RemoveEndpoint(id) => Change::RemoveEndpoint { id },
        Step::PutRoute(message) => Change::PutRoute(route(state, message)?),
        Step::RemoveRoute(text) => Change::RemoveRoute {
            prefix: prefix(&format!("route {}", clip(&text)), &text)?,
        },
        Step::PutNeighbour(message) => Change::PutNeighbour(neighbour(state, &message)?),
        Step::RemoveNeighbour(message) => {
            let object = format!("neighbour {}", clip(&message.address));
            Change::RemoveNeighbour {
                port: port(state, &object, &message.port)?,
                addr: address(&object, "address", &message.address)?,
            }
        }
        Step::SetPort(message) => set_port(state, &message)?,
        Step::PutNode(message) => Change::PutNode(Box::new(node(&message)?)),
        Step::RemoveNode(true) => Change::RemoveNode,
        Step::RemoveNode(false) => {
            return Err(Mistake::invalid("remove_node: only true has a meaning".into()));
        }
        Step::PutIpcache(message) => Change::PutIpcache(ipcache(&message)?),
        Step::RemoveIpcache(text) => Change::RemoveIpcache {
            prefix: ipcache_prefix(&text)?,
        },
        Step::PutService(message) => Change::PutService(Box::new(service(message)?)),
        Step::RemoveService(name) => Change::RemoveService { name },
        Step::PutPolicy(message) => Change::PutPolicy(policy(&message)?),
        Step::PutPolicyEntries(message) => put_entries(&message)?,
        Step::RemovePolicyEntries(message) => remove_entries(&message)?,
        Step::RemovePolicy(endpoint) => Change::RemovePolicy { endpoint },
        Step::PutEgressGateway(message) => Change::PutEgressGateway(egress_gateway(&message)?),
        Step::RemoveEgressGateway(message) => Change::RemoveEgressGateway {
            key: egress_key(&message.source, &message.destination)?,
        },
        Step::PutAuthentication(message) => Change::PutAuthentication(authentication(&message)?),
        Step::RemoveAuthentication(message) => Change::RemoveAuthentication {
            key: authentication_key(&message)?,
        },
    })
}

/// An endpoint in the tables' terms.
pub fn endpoint(state: &State, message: v1::Endpoint) -> Result<Endpoint, Mistake> {
    let object = if message.name.is_empty() {
        format!("endpoint {}", message.id)
    } else {
        format!("endpoint {} ({})", message.id, clip(&message.name))
    };
    Ok(Endpoint {
        id: message.id,
        port: port(state, &object, &message.port)?,
        mac: mac(&object, &message.mac)?,
        identity: message.identity,
        addresses: message
            .addresses
            .iter()
            .enumerate()
            .map(|(index, text)| address(&object, &format!("addresses[{index}]"), text))
            .collect::<Result<_, _>>()?,
        name: message.name,
        ingress_rate: message.ingress_rate,
        egress_rate: message.egress_rate,
    })
}

/// A route in the tables' terms.
pub fn route(state: &State, message: v1::Route) -> Result<Route, Mistake> {
    use v1::route::Target;
    let object = format!("route {}", clip(&message.prefix));
    let target = match message.target {
        Some(Target::Via(via)) => {
            let port = port(state, &object, &via.port)?;
            if via.gateway.is_empty() {
                RouteTarget::Link { port }
            } else {
                RouteTarget::Gateway {
                    port,
                    gateway: address(&object, "gateway", &via.gateway)?,
                }
            }
        }
        Some(Target::Host(true)) => RouteTarget::Host,
        Some(Target::Blackhole(true)) => RouteTarget::Blackhole,
        _ => {
            return Err(Mistake::invalid(format!(
                "{object}: target: expected one of via, host, blackhole"
            )));
        }
    };
    Ok(Route {
        prefix: prefix(&object, &message.prefix)?,
        target,
        mtu: if message.mtu == 0 {
            None
        } else {
            Some(mtu(&object, message.mtu)?)
        },
    })
}

/// A static neighbour in the tables' terms.
pub fn neighbour(state: &State, message: &v1::Neighbour) -> Result<Neighbour, Mistake> {
    let object = format!("neighbour {}", clip(&message.address));
    Ok(Neighbour {
        port: port(state, &object, &message.port)?,
        addr: address(&object, "address", &message.address)?,
        mac: Some(mac(&object, &message.mac)?),
        origin: Origin::Static,
    })
}

/// A port's new attributes in the tables' terms.
pub fn set_port(state: &State, message: &v1::Port) -> Result<Change, Mistake> {
    let object = format!("port {}", clip(&message.name));
    Ok(Change::SetPort {
        id: port(state, &object, &message.name)?,
        mtu: if message.mtu == 0 {
            None
        } else {
            Some(mtu(&object, message.mtu)?)
        },
        admin_up: message.admin_up,
    })
}

/// An endpoint as a message.
pub fn endpoint_message(ports: &Ports, endpoint: &Endpoint) -> v1::Endpoint {
    v1::Endpoint {
        id: endpoint.id,
        name: endpoint.name.clone(),
        port: ports.name(endpoint.port),
        mac: endpoint.mac.to_string(),
        identity: endpoint.identity,
        addresses: endpoint.addresses.iter().map(ToString::to_string).collect(),
        ingress_rate: endpoint.ingress_rate,
        egress_rate: endpoint.egress_rate,
    }
}

/// A route as a message.
pub fn route_message(ports: &Ports, route: &Route) -> v1::Route {
    use v1::route::{Target, Via};
    let target = match route.target {
        RouteTarget::Gateway { port, gateway } => Target::Via(Via {
            port: ports.name(port),
            gateway: gateway.to_string(),
        }),
        RouteTarget::Link { port } => Target::Via(Via {
            port: ports.name(port),
            gateway: String::new(),
        }),
        RouteTarget::Host => Target::Host(true),
        RouteTarget::Blackhole => Target::Blackhole(true),
    };
    v1::Route {
        prefix: route.prefix.to_string(),
        target: Some(target),
        mtu: route.mtu.unwrap_or(0).into(),
    }
}

/// A neighbour as a message.
pub fn neighbour_message(ports: &Ports, neighbour: &Neighbour) -> v1::Neighbour {
    v1::Neighbour {
        port: ports.name(neighbour.port),
        address: neighbour.addr.to_string(),
        mac: neighbour.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        learned: neighbour.origin == Origin::Learned,
    }
}

/// A port as a message.
pub fn port_message(port: &Port) -> v1::Port {
    v1::Port {
        name: port.name.clone(),
        role: match port.role {
            Role::Pod => v1::Role::Pod,
            Role::Uplink => v1::Role::Uplink,
            Role::Host => v1::Role::Host,
        }
        .into(),
        mac: port.mac.to_string(),
        mtu: port.mtu.into(),
        admin_up: Some(port.admin_up),
        addresses: port
            .addresses
            .iter()
            .map(|(addr, len)| format!("{addr}/{len}"))
            .collect(),
    }
}

/// An event as a message. `ports` are those that it names.
pub fn event_message(ports: &Ports, event: &Event) -> v1::Event {
    use v1::event::Object as Message;
    let object = match &event.object {
        Object::Endpoint(endpoint) => Message::Endpoint(endpoint_message(ports, endpoint)),
        Object::Route(route) => Message::Route(route_message(ports, route)),
        Object::Neighbour(neighbour) => Message::Neighbour(neighbour_message(ports, neighbour)),
        Object::Port(port) => Message::Port(port_message(port)),
        Object::Node(node) => Message::Node(node_message(node)),
        Object::Ipcache(entry) => Message::Ipcache(ipcache_message(entry)),
        Object::Service(service) => Message::Service(service_message(service)),
        Object::Policy(policy) => Message::Policy(policy_message(policy)),
        Object::EgressGateway(rule) => Message::EgressGateway(egress_gateway_message(rule)),
        Object::Authentication(it) => Message::Authentication(authentication_message(it)),
    };
    v1::Event {
        revision: event.revision,
        removed: event.removed,
        object: Some(object),
        ..Default::default()
    }
}

/// A text, empty if there is nothing.
pub(crate) fn text(it: Option<impl ToString>) -> String {
    it.map(|it| it.to_string()).unwrap_or_default()
}
