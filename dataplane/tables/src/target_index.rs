//! Numbers the targets that forwarding entries lead to, and keeps each target up to date.

use std::collections::BTreeSet;
use std::net::IpAddr;

use octoplane_packet::MacAddr;

use crate::event::ObjectKey;
use crate::model::{Port, PortId};
use crate::state::State;
use crate::target::{Action, Target, TargetKey, TargetTable, macs};

/// Which number each target has and how many forwarding entries use it. Cheap to copy, so that a transaction that fails
/// can be thrown away.
#[derive(Clone, Default)]
pub(crate) struct TargetIndex {
    /// Number and users of each target.
    by_key: imbl::HashMap<TargetKey, (u32, u32)>,
    /// The target of each number, from 1.
    by_number: imbl::Vector<Option<TargetKey>>,
    /// The targets that go to one neighbour differ in their MTU only.
    by_neighbour: imbl::HashMap<(PortId, IpAddr), imbl::Vector<u32>>,
    free: imbl::Vector<u32>,
    /// Numbers given out since the last refresh.
    new: Vec<u32>,
}

impl TargetIndex {
    /// The number of the target for `key`, with one more user.
    pub(crate) fn acquire(&mut self, key: TargetKey) -> u32 {
        if let Some((number, users)) = self.by_key.get_mut(&key) {
            *users += 1;
            return *number;
        }
        let number = self.free.pop_front().unwrap_or_else(|| {
            self.by_number.push_back(None);
            self.by_number.len() as u32
        });
        self.by_number.set(number as usize - 1, Some(key));
        self.by_key.insert(key, (number, 1));
        if let TargetKey::NextHop { port, addr, .. } = key {
            self.by_neighbour
                .entry((port, addr))
                .or_default()
                .push_back(number);
        }
        self.new.push(number);
        number
    }

    /// One user less; a target without users is listed in `gone`.
    pub(crate) fn release(&mut self, number: u32, gone: &mut Vec<u32>) {
        let Some(key) = self.key(number) else { return };
        let Some((_, users)) = self.by_key.get_mut(&key) else {
            return;
        };
        *users -= 1;
        if *users == 0 {
            gone.push(number);
        }
    }

    /// Brings `targets` up to date with `state`, of which `changed` names what is new. The numbers in `gone` are free
    /// from the next transaction on, so that within one no number means two things. Returns the numbers of targets that may be
    /// others now, but for endpoints'.
    pub(crate) fn refresh(
        &mut self,
        state: &State,
        changed: &BTreeSet<ObjectKey>,
        gone: Vec<u32>,
        targets: &mut TargetTable,
    ) -> BTreeSet<u32> {
        let mut stale: BTreeSet<u32> = self.new.drain(..).collect();
        let ports: BTreeSet<PortId> = changed
            .iter()
            .filter_map(|key| {
                if let ObjectKey::Port(id) = key {
                    Some(*id)
                } else {
                    None
                }
            })
            .collect();
        if !ports.is_empty() {
            // Rare enough to look at all of them.
            stale.extend(1..=self.by_number.len() as u32);
        }
        for key in changed {
            match key {
                ObjectKey::Endpoint(id) => stale.extend(
                    self.by_key
                        .get(&TargetKey::Endpoint(*id))
                        .map(|&(number, _)| number),
                ),
                ObjectKey::Neighbour(port, addr) => {
                    stale.extend(self.by_neighbour.get(&(*port, *addr)).into_iter().flatten());
                }
                _ => {}
            }
        }
        for number in gone {
            let Some(key) = self.key(number) else { continue };
            // It may have found a new user later in the same transaction.
            if self.by_key.get(&key).is_some_and(|&(_, users)| users > 0) {
                continue;
            }
            self.by_key.remove(&key);
            self.by_number.set(number as usize - 1, None);
            if let TargetKey::NextHop { port, addr, .. } = key
                && let Some(numbers) = self.by_neighbour.get_mut(&(port, addr))
            {
                numbers.retain(|&other| other != number);
                if numbers.is_empty() {
                    self.by_neighbour.remove(&(port, addr));
                }
            }
            self.free.push_back(number);
            stale.insert(number);
        }
        stale.retain(|&number| {
            let key = self.key(number);
            let was_endpoint = targets.get(number).action == Action::Deliver;
            targets.set(number, key.map_or_else(Target::default, |key| build(key, state)));
            !was_endpoint && !matches!(key, Some(TargetKey::Endpoint(_)))
        });
        stale
    }

    fn key(&self, number: u32) -> Option<TargetKey> {
        self.by_number
            .get((number as usize).checked_sub(1)?)
            .copied()
            .flatten()
    }
}

/// The target that `key` stands for in `state`.
fn build(key: TargetKey, state: &State) -> Target {
    let simple = |action| Target {
        action,
        ..Target::default()
    };
    let towards = |port: &Port, action, mtu: Option<u16>, dst: MacAddr| Target {
        macs: macs(dst, port.mac),
        port: port.id,
        mtu: mtu.unwrap_or(port.mtu).min(port.mtu),
        action: if port.admin_up { action } else { Action::PortDown },
        ..Target::default()
    };
    match key {
        TargetKey::Endpoint(id) => {
            let Some(endpoint) = state.endpoint(id) else {
                return Target::default();
            };
            let Some(port) = state.port(endpoint.port) else {
                return Target::default();
            };
            Target {
                endpoint: id,
                identity: endpoint.identity,
                ..towards(port, Action::Deliver, None, endpoint.mac)
            }
        }
        TargetKey::NextHop { port, addr, mtu } => {
            let mac = state.neighbour(port, addr).and_then(|neighbour| neighbour.mac);
            let Some(port) = state.port(port) else {
                return Target::default();
            };
            let action = if mac.is_some() {
                Action::Forward
            } else {
                Action::Resolve
            };
            Target {
                next_hop: Some(addr),
                ..towards(port, action, mtu, mac.unwrap_or_default())
            }
        }
        TargetKey::Glean { port, mtu } => state.port(port).map_or_else(Target::default, |port| {
            towards(port, Action::Glean, mtu, MacAddr::ZERO)
        }),
        TargetKey::Local { port } => state.port(port).map_or_else(Target::default, |port| Target {
            port: port.id,
            ..simple(Action::Local)
        }),
        TargetKey::Gateway => simple(Action::Gateway),
        TargetKey::Host => simple(Action::Host),
        TargetKey::Blackhole => simple(Action::Blackhole),
    }
}
