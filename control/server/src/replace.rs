//! From a wanted state to the transaction that brings it about.

use std::collections::HashSet;
use std::hash::Hash;

use octoplane_api::v1;
use octoplane_tables::State;
use octoplane_tables::model::{Change, Origin};
use tonic::Status;

use crate::convert;
use crate::refusal::Mistake;
use crate::transact::Transaction;

/// What turns `state` into the wanted state. Puts of what is there already are among it: the tables see that they change
/// nothing.
pub(crate) fn changes(state: &State, wanted: v1::ReplaceRequest) -> Result<Transaction, Status> {
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
    let (ports, _) = read(
        "ports",
        wanted.ports,
        |message| convert::set_port(state, &message).map(|change| (message.name, change)),
        |(name, _)| (name.clone(), format!("port {name}: name")),
    )?;

    // What goes, goes first: an address may move from one endpoint to another.
    let gone = state.endpoints().filter(|it| !ids.contains(&it.id));
    let mut changes: Vec<Change> = gone.map(|it| Change::RemoveEndpoint { id: it.id }).collect();
    // Endpoints that swap addresses would stand in each other's way: those that change are removed first.
    let moved = endpoints.iter().filter(|wanted| {
        state
            .endpoint(wanted.id)
            .is_some_and(|old| old.addresses != wanted.addresses)
    });
    changes.extend(moved.map(|it| Change::RemoveEndpoint { id: it.id }));
    let gone = state.routes().filter(|it| !prefixes.contains(&it.prefix));
    changes.extend(gone.map(|it| Change::RemoveRoute { prefix: it.prefix }));
    let gone = state
        .neighbours()
        .filter(|it| it.origin == Origin::Static && !stations.contains(&(it.port, it.addr)));
    changes.extend(gone.map(|it| Change::RemoveNeighbour {
        port: it.port,
        addr: it.addr,
    }));

    let mut origins: Vec<_> = (0..changes.len()).map(|index| ("removed", index)).collect();
    let mut put = |list, puts: Vec<Change>| {
        origins.extend((0..puts.len()).map(|index| (list, index)));
        changes.extend(puts);
    };
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
    Ok(Transaction { changes, origins })
}

/// Converts a list, and collects its keys, of which each may be given once.
fn read<M, T, K: Eq + Hash>(
    list: &str,
    messages: Vec<M>,
    convert: impl Fn(M) -> Result<T, Mistake>,
    key: impl Fn(&T) -> (K, String),
) -> Result<(Vec<T>, HashSet<K>), Status> {
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
