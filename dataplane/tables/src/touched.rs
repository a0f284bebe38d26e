//! Which prefixes a transaction may have changed the entries of.

use std::collections::BTreeSet;
use std::net::IpAddr;

use octoplane_packet::Prefix;

use crate::event::ObjectKey;
use crate::state::State;

/// Prefixes to be looked at again.
#[derive(Default)]
pub(crate) struct Touched {
    /// In the forwarding table.
    pub(crate) fib: BTreeSet<Prefix>,
    /// In the table of what is known of remote addresses.
    pub(crate) ipcache: BTreeSet<Prefix>,
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
        // A route decides whether the neighbours it covers are on its link.
        let neighbours: BTreeSet<IpAddr> = if changed.iter().any(|key| matches!(key, ObjectKey::Route(_))) {
            old.neighbours()
                .chain(new.neighbours())
                .map(|neighbour| neighbour.addr)
                .collect()
        } else {
            BTreeSet::new()
        };
        let mut touched = Self::default();
        for key in changed {
            match *key {
                ObjectKey::Endpoint(id) => {
                    let both = [old.endpoint(id), new.endpoint(id)];
                    touched.own(both.into_iter().flatten().flat_map(|it| &it.addresses).copied());
                }
                ObjectKey::Route(prefix) => {
                    touched.fib.insert(prefix);
                    let covered = neighbours
                        .range(prefix.addr()..)
                        .take_while(|addr| prefix.contains(**addr));
                    touched.fib.extend(covered.map(|&addr| Prefix::host(addr)));
                }
                ObjectKey::Neighbour(_, addr) => {
                    touched.fib.insert(Prefix::host(addr));
                }
                ObjectKey::Node => {
                    touched.own(old.node().addresses.iter().copied());
                    touched.own(new.node().addresses.iter().copied());
                }
                ObjectKey::Ipcache(prefix) => {
                    touched.ipcache.insert(prefix);
                }
                ObjectKey::Port(_)
                | ObjectKey::Service(_)
                | ObjectKey::Policy(_)
                | ObjectKey::EgressGateway(_) => {}
            }
        }
        touched
    }
}
