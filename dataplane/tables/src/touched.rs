//! Which prefixes a transaction may have changed the entries of, and about which addresses has to be decided anew.

use std::collections::BTreeSet;
use std::net::IpAddr;

use octoplane_packet::Prefix;

use crate::event::ObjectKey;
use crate::ipcache::identity;
use crate::model::HOST_ENDPOINT;
use crate::state::State;

/// Prefixes to be looked at again.
#[derive(Default)]
pub(crate) struct Touched {
    /// In the forwarding table.
    pub(crate) fib: BTreeSet<Prefix>,
    /// In the table of what is known of remote addresses.
    pub(crate) ipcache: BTreeSet<Prefix>,
    /// In neither; but what was decided about connections of these addresses may not hold any more.
    pub(crate) others: BTreeSet<Prefix>,
    /// Nothing that was decided may hold any more.
    pub(crate) everything: bool,
}

impl Touched {
    /// Addresses that are looked at in both.
    pub(crate) fn own(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        for addr in addresses {
            self.fib.insert(Prefix::host(addr));
            self.ipcache.insert(Prefix::host(addr));
        }
    }

    /// What a transaction from `old` to `new` that changed these objects may have changed.
    pub(crate) fn by(changed: &BTreeSet<ObjectKey>, old: &State, new: &State) -> Self {
        // A route, or the link of a port, decides whether the neighbours it covers are on its link.
        let decides = |key: &ObjectKey| matches!(key, ObjectKey::Route(_) | ObjectKey::Port(_));
        let neighbours: BTreeSet<IpAddr> = if changed.iter().any(decides) {
            old.neighbours()
                .chain(new.neighbours())
                .map(|neighbour| neighbour.addr)
                .collect()
        } else {
            BTreeSet::new()
        };
        let mut touched = Self::default();
        let cover = |prefix: Prefix, fib: &mut BTreeSet<Prefix>| {
            fib.insert(prefix);
            let covered = neighbours
                .range(prefix.addr()..)
                .take_while(|addr| prefix.contains(**addr));
            fib.extend(covered.map(|&addr| Prefix::host(addr)));
        };
        let authenticated: BTreeSet<u32> = changed
            .iter()
            .filter_map(|key| match key {
                ObjectKey::Authentication(key) => Some(key.local_identity),
                _ => None,
            })
            .collect();
        if !authenticated.is_empty() {
            let theirs = new.endpoints().filter(|it| authenticated.contains(&it.identity));
            touched.hosts(theirs.flat_map(|it| &it.addresses).copied());
            touched.everything |= authenticated.contains(&identity::HOST);
        }
        for key in changed {
            match *key {
                ObjectKey::Endpoint(id) => {
                    let both = [old.endpoint(id), new.endpoint(id)];
                    touched.own(both.into_iter().flatten().flat_map(|it| &it.addresses).copied());
                }
                ObjectKey::Route(prefix) => cover(prefix, &mut touched.fib),
                ObjectKey::Port(id) => {
                    touched.everything = true;
                    // Addresses never change while a port is there: only one that came or went touches any.
                    let (old, new) = (old.port(id), new.port(id));
                    if old.is_some() != new.is_some() {
                        for &(addr, len) in old.or(new).into_iter().flat_map(|port| &port.addresses) {
                            touched.fib.insert(Prefix::host(addr));
                            cover(Prefix::containing(addr, len), &mut touched.fib);
                        }
                    }
                }
                ObjectKey::Neighbour(_, addr) => {
                    touched.fib.insert(Prefix::host(addr));
                }
                ObjectKey::Node => {
                    touched.everything = true;
                    touched.own(old.node().addresses.iter().copied());
                    touched.own(new.node().addresses.iter().copied());
                }
                ObjectKey::Ipcache(prefix) => {
                    touched.ipcache.insert(prefix);
                }
                // The node's own policy also decides what of its traffic belongs to connections at all.
                ObjectKey::Policy(HOST_ENDPOINT) => touched.everything = true,
                ObjectKey::Policy(id) => {
                    let both = [old.endpoint(id), new.endpoint(id)];
                    touched.hosts(both.into_iter().flatten().flat_map(|it| &it.addresses).copied());
                }
                ObjectKey::Service(ref name) => {
                    for (state, service) in [(old, old.service(name)), (new, new.service(name))] {
                        for frontend in service.into_iter().flat_map(|service| &service.frontends) {
                            match frontend.addr.is_unspecified() {
                                true => touched.hosts(state.node().nodeport_addresses().iter().copied()),
                                false => touched.hosts([frontend.addr]),
                            }
                        }
                    }
                }
                ObjectKey::EgressGateway(key) => _ = touched.others.insert(key.source),
                // All of them were looked at above, at once.
                ObjectKey::Authentication(_) => {}
            }
        }
        touched
    }

    fn hosts(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.others.extend(addresses.into_iter().map(Prefix::host));
    }
}
