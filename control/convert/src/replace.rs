//! From a wanted state to the transaction that brings it about.

use std::collections::HashSet;
use std::hash::Hash;

use octoplane_api::v1;
use octoplane_tables::State;
use octoplane_tables::model::{Change, Origin};

use crate::mistake::{Located, Mistake, clip};
use crate::objects as convert;
use crate::scope::Scope;
use crate::transaction::Transaction;

/// What turns `state` into the wanted state. Puts of what is there already are among it: the tables see that they change
/// nothing.
///
/// # Errors
/// What is wrong with the wanted state.
pub fn changes(state: &State, wanted: v1::ReplaceRequest) -> Result<Transaction, Located> {
    changes_in(state, wanted, Scope::ALL)
}

/// The same for a wanted state that is about a part of the tables only.
///
/// # Errors
/// What is wrong with the wanted state.
pub fn changes_in(
    state: &State,
    wanted: v1::ReplaceRequest,
    scope: Scope<'_>,
) -> Result<Transaction, Located> {
    use v1::Kind;
    let (endpoints, ids) = read(
        "endpoints",
        wanted.endpoints,
        |message| convert::endpoint(state, message),
        |it| (it.id, format!("endpoint {}: id", it.id)),
    )?;
    let (routes, prefixes) = read(
        "routes",
        wanted.routes,
        |message| convert::route(state, message),
        |it| (it.prefix, format!("route {}: prefix", it.prefix)),
    )?;
    let (neighbours, stations) = read(
        "neighbours",
        wanted.neighbours,
        |message| convert::neighbour(state, &message),
        |it| {
            (
                (it.port, it.addr),
                format!("neighbour {}: address on this port", it.addr),
            )
        },
    )?;
    let node = wanted
        .node
        .map(|message| convert::node(&message).map_err(|mistake| mistake.at("node", 0)))
        .transpose()?;
    let (ipcache, remotes) = read(
        "ipcache",
        wanted.ipcache,
        |message| convert::ipcache(&message),
        |it| (it.prefix, format!("ipcache {}: prefix", it.prefix)),
    )?;
    let (services, names) = read("services", wanted.services, convert::service, |it| {
        (it.name.clone(), format!("service \"{}\": name", clip(&it.name)))
    })?;
    let (policies, governed) = read(
        "policies",
        wanted.policies,
        |message| convert::policy(&message),
        |it| {
            (
                it.endpoint,
                format!("{}: endpoint", convert::policy_name(it.endpoint)),
            )
        },
    )?;
    let (gateways, keys) = read(
        "egress_gateways",
        wanted.egress_gateways,
        |message| convert::egress_gateway(&message),
        |it| {
            let text = format!("egress gateway {} to {}", it.key.source, it.key.destination);
            (it.key, format!("{text}: source and destination"))
        },
    )?;
    let (authentications, proved) = read(
        "authentications",
        wanted.authentications,
        |message| convert::authentication(&message),
        |it| {
            let text = format!(
                "authentication {} to {}",
                it.key.local_identity, it.key.remote_identity
            );
            (it.key, format!("{text}: all but expires"))
        },
    )?;
    let (ports, _) = read(
        "ports",
        wanted.ports,
        |message| convert::set_port(state, &message).map(|change| (message.name, change)),
        |(name, _)| (name.clone(), format!("port {name}: name")),
    )?;

    // What goes, goes first: an address may move from one endpoint to another.
    let gone = state.endpoints().filter(|it| {
        !ids.contains(&it.id) && scope.may_go(Kind::Endpoint, |then| then.endpoint(it.id) == Some(it))
    });
    let mut changes: Vec<Change> = gone.map(|it| Change::RemoveEndpoint { id: it.id }).collect();
    // Endpoints that swap addresses would stand in each other's way: those that change are removed first.
    let moved = endpoints.iter().filter(|wanted| {
        state
            .endpoint(wanted.id)
            .is_some_and(|old| old.addresses != wanted.addresses)
    });
    changes.extend(moved.map(|it| Change::RemoveEndpoint { id: it.id }));
    let gone = state.routes().filter(|it| {
        !prefixes.contains(&it.prefix) && scope.may_go(Kind::Route, |then| then.route(&it.prefix) == Some(it))
    });
    changes.extend(gone.map(|it| Change::RemoveRoute { prefix: it.prefix }));
    let gone = state.neighbours().filter(|it| {
        it.origin == Origin::Static
            && !stations.contains(&(it.port, it.addr))
            && scope.may_go(Kind::Neighbour, |then| {
                then.neighbour(it.port, it.addr) == Some(it)
            })
    });
    changes.extend(gone.map(|it| Change::RemoveNeighbour {
        port: it.port,
        addr: it.addr,
    }));

    let gone = state.services().filter(|it| {
        !names.contains(&it.name) && scope.may_go(Kind::Service, |then| then.service(&it.name) == Some(it))
    });
    changes.extend(gone.map(|it| Change::RemoveService {
        name: it.name.clone(),
    }));
    // As with addresses of endpoints.
    let moved = services.iter().filter(|wanted| {
        state
            .service(&wanted.name)
            .is_some_and(|old| old.frontends != wanted.frontends || old.protocol != wanted.protocol)
    });
    changes.extend(moved.map(|it| Change::RemoveService {
        name: it.name.clone(),
    }));
    let same_node = |then: &State| then.has_node() && then.node() == state.node();
    let node_goes = match &node {
        Some(node) => node != state.node(),
        None => scope.may_go(Kind::Node, same_node),
    };
    if state.has_node() && node_goes {
        changes.push(Change::RemoveNode);
    }
    let gone = state.ipcache().filter(|it| {
        !remotes.contains(&it.prefix)
            && scope.may_go(Kind::Ipcache, |then| then.ipcache_entry(&it.prefix) == Some(*it))
    });
    changes.extend(gone.map(|it| Change::RemoveIpcache { prefix: it.prefix }));
    let gone = state.policies().filter(|it| {
        !governed.contains(&it.endpoint)
            && scope.may_go(Kind::Policy, |then| then.policy(it.endpoint) == Some(it))
    });
    changes.extend(gone.map(|it| Change::RemovePolicy {
        endpoint: it.endpoint,
    }));
    let gone = state.egress_gateways().filter(|it| {
        !keys.contains(&it.key)
            && scope.may_go(Kind::EgressGateway, |then| {
                then.egress_gateway(&it.key) == Some(it)
            })
    });
    changes.extend(gone.map(|it| Change::RemoveEgressGateway { key: it.key }));
    let gone = state.authentications().filter(|it| {
        !proved.contains(&it.key)
            && scope.may_go(Kind::Authentication, |then| {
                then.authentication(&it.key) == Some(it)
            })
    });
    changes.extend(gone.map(|it| Change::RemoveAuthentication { key: it.key }));

    let mut origins: Vec<_> = (0..changes.len()).map(|index| ("removed", index)).collect();
    let mut put = |list, puts: Vec<Change>| {
        origins.extend((0..puts.len()).map(|index| (list, index)));
        changes.extend(puts);
    };
    // Before endpoints: an address may move from the node to one of them.
    put(
        "node",
        node.into_iter().map(|it| Change::PutNode(Box::new(it))).collect(),
    );
    put(
        "endpoints",
        endpoints.into_iter().map(Change::PutEndpoint).collect(),
    );
    put("routes", routes.into_iter().map(Change::PutRoute).collect());
    put(
        "neighbours",
        neighbours.into_iter().map(Change::PutNeighbour).collect(),
    );
    put("ports", ports.into_iter().map(|(_, change)| change).collect());
    put("ipcache", ipcache.into_iter().map(Change::PutIpcache).collect());
    put(
        "services",
        services
            .into_iter()
            .map(|it| Change::PutService(Box::new(it)))
            .collect(),
    );
    put("policies", policies.into_iter().map(Change::PutPolicy).collect());
    put(
        "egress_gateways",
        gateways.into_iter().map(Change::PutEgressGateway).collect(),
    );
    put(
        "authentications",
        authentications
            .into_iter()
            .map(Change::PutAuthentication)
            .collect(),
    );
    Ok(Transaction { changes, origins })
}

/// Number of objects of a state.
pub fn size(it: &v1::ReplaceRequest) -> usize {
    let first = it.endpoints.len() + it.routes.len() + it.neighbours.len() + it.ports.len();
    let remote = it.ipcache.len() + it.egress_gateways.len() + it.authentications.len();
    first + remote + it.services.len() + it.policies.len()
}

/// Converts a list, and collects its keys, of which each may be given once.
fn read<M, T, K: Eq + Hash>(
    list: &'static str,
    messages: Vec<M>,
    convert: impl Fn(M) -> Result<T, Mistake>,
    key: impl Fn(&T) -> (K, String),
) -> Result<(Vec<T>, HashSet<K>), Located> {
    let mut objects = Vec::with_capacity(messages.len());
    let mut keys = HashSet::with_capacity(messages.len());
    for (index, message) in messages.into_iter().enumerate() {
        let object = convert(message).map_err(|mistake| mistake.at(list, index))?;
        let (key, text) = key(&object);
        if !keys.insert(key) {
            return Err(Mistake::invalid(format!("{text} is given twice")).at(list, index));
        }
        objects.push(object);
    }
    Ok((objects, keys))
}
