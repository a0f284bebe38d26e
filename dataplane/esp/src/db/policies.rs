//! The writer's side of policies: which there are, and what workers look up.

use std::sync::Arc;

use imbl::{HashMap, OrdMap};
use octoplane_packet::headers::protocol;

use super::change::{ChangeError, PolicyConfig, PortRange};
use crate::ip::{Addr, masked};
use crate::view::cow_map::CowMap;
use crate::view::spd::{Bits, Rank, Shape, ShapeTable};
use crate::view::{Action, Spd, TunnelId};

/// Most shapes: what a lookup asks at most.
pub(crate) const MAX_SHAPES: usize = 256;

const DCCP: u8 = 33;

/// All policies. Copies share what did not change.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policies {
    by_id: OrdMap<u32, Arc<PolicyConfig>>,
    /// What wants the same bits, best first: only the first is looked up.
    wanting: HashMap<(Shape, Bits), OrdMap<Rank, Action>>,
    /// Ranks in each shape, with how many entries have them.
    ranks: HashMap<Shape, OrdMap<Rank, usize>>,
    /// Policies that use a tunnel.
    users: HashMap<TunnelId, usize>,
}

/// A range of ports as values and masks, as few as can be.
fn ports(range: PortRange) -> Vec<(u16, u16)> {
    let mut parts = Vec::new();
    let (mut first, last) = (u32::from(range.first), u32::from(range.last));
    while first <= last {
        let mut size = if first == 0 {
            1 << 16
        } else {
            1 << first.trailing_zeros()
        };
        while first + size - 1 > last {
            size /= 2;
        }
        parts.push((first as u16, !(size - 1) as u16));
        first += size;
    }
    parts
}

/// What a policy looks at: more than one entry if its ports are no power of two.
fn entries(policy: &PolicyConfig) -> Vec<(Shape, Bits, Action)> {
    let (source, source_mask) = masked(policy.source);
    let (destination, destination_mask) = masked(policy.destination);
    // The family is told apart by a bit of its own, so that no mask has to.
    let ipv4 = policy.destination.addr().is_ipv4();
    let family = |mask: Addr| if ipv4 { mask & 0xffff_ffff } else { mask };
    let mut entries = Vec::new();
    for (source_port, source_port_mask) in ports(policy.source_ports) {
        for (destination_port, destination_port_mask) in ports(policy.destination_ports) {
            let shape = Shape {
                source: family(source_mask),
                destination: family(destination_mask),
                protocol: policy.protocol.is_some(),
                source_port: source_port_mask,
                destination_port: destination_port_mask,
                mark: policy.mark.mask,
                later: false,
            };
            let bits = Bits {
                ipv4,
                source: source & shape.source,
                destination: destination & shape.destination,
                protocol: policy.protocol.unwrap_or(0),
                source_port,
                destination_port,
                mark: policy.mark.value,
            };
            entries.push((shape, bits, policy.action));
        }
    }
    let all = policy.source_ports == PortRange::ANY && policy.destination_ports == PortRange::ANY;
    if let Some((shape, bits, action)) = entries.first().filter(|_| !all)
        && *action != Action::Bypass
    {
        let shape = Shape {
            source_port: 0,
            destination_port: 0,
            later: true,
            ..*shape
        };
        let bits = Bits {
            source_port: 0,
            destination_port: 0,
            ..*bits
        };
        entries.push((shape, bits, Action::Discard));
    }
    entries
}

fn validate(policy: &PolicyConfig) -> Result<(), ChangeError> {
    let id = policy.id;
    if policy.source.addr().is_ipv4() != policy.destination.addr().is_ipv4() {
        return Err(ChangeError::PolicyFamilies {
            id,
            source_prefix: policy.source,
            destination: policy.destination,
        });
    }
    for (field, range) in [
        ("source_ports", policy.source_ports),
        ("destination_ports", policy.destination_ports),
    ] {
        let PortRange { first, last } = range;
        if first > last {
            return Err(ChangeError::PortOrder {
                id,
                field,
                first,
                last,
            });
        }
        let has_ports = matches!(
            policy.protocol,
            Some(protocol::TCP | protocol::UDP | protocol::SCTP | DCCP)
        );
        if range != PortRange::ANY && !has_ports {
            return Err(ChangeError::PortsWithoutProtocol { id, field });
        }
    }
    if policy.mark.value & !policy.mark.mask != 0 {
        return Err(ChangeError::PolicyMark {
            id,
            value: policy.mark.value,
            mask: policy.mark.mask,
        });
    }
    Ok(())
}

impl Policies {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Arc<PolicyConfig>> {
        self.by_id.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<PolicyConfig>> {
        self.by_id.values()
    }

    pub(crate) fn users(&self, tunnel: TunnelId) -> usize {
        self.users.get(&tunnel).copied().unwrap_or(0)
    }

    pub(crate) fn put(&mut self, spd: &mut Spd, policy: PolicyConfig) -> Result<(), ChangeError> {
        validate(&policy)?;
        if self.by_id.get(&policy.id).is_some_and(|old| **old == policy) {
            return Ok(());
        }
        if self.by_id.contains_key(&policy.id) {
            self.delete(spd, policy.id)?;
        }
        let rank = Rank {
            priority: policy.priority,
            policy: policy.id,
        };
        for (shape, bits, action) in entries(&policy) {
            let count = self.ranks.len() + usize::from(!self.ranks.contains_key(&shape));
            if count > MAX_SHAPES {
                return Err(ChangeError::TooManyShapes {
                    id: policy.id,
                    count,
                    max: MAX_SHAPES,
                });
            }
            self.wanting
                .entry((shape, bits))
                .or_default()
                .insert(rank, action);
            *self.ranks.entry(shape).or_default().entry(rank).or_default() += 1;
            self.publish(spd, shape, bits);
        }
        if let Action::Protect(tunnel) = policy.action {
            *self.users.entry(tunnel).or_default() += 1;
        }
        self.by_id.insert(policy.id, Arc::new(policy));
        Ok(())
    }

    pub(crate) fn delete(&mut self, spd: &mut Spd, id: u32) -> Result<(), ChangeError> {
        let policy = self.by_id.remove(&id).ok_or(ChangeError::NoSuchPolicy(id))?;
        let rank = Rank {
            priority: policy.priority,
            policy: id,
        };
        for (shape, bits, _) in entries(&policy) {
            if let Some(wanting) = self.wanting.get_mut(&(shape, bits)) {
                wanting.remove(&rank);
                if wanting.is_empty() {
                    self.wanting.remove(&(shape, bits));
                }
            }
            if let Some(ranks) = self.ranks.get_mut(&shape) {
                if let Some(count) = ranks.get_mut(&rank) {
                    *count -= 1;
                    if *count == 0 {
                        ranks.remove(&rank);
                    }
                }
                if ranks.is_empty() {
                    self.ranks.remove(&shape);
                }
            }
            self.publish(spd, shape, bits);
        }
        if let Action::Protect(tunnel) = policy.action
            && let Some(users) = self.users.get_mut(&tunnel)
        {
            *users -= 1;
            if *users == 0 {
                self.users.remove(&tunnel);
            }
        }
        Ok(())
    }

    /// Makes the lookup say what is wanted of these bits.
    fn publish(&self, spd: &mut Spd, shape: Shape, bits: Bits) {
        let at = spd.shapes.iter().position(|table| table.shape == shape);
        let Some(best) = self
            .ranks
            .get(&shape)
            .and_then(|ranks| ranks.get_min())
            .map(|(rank, _)| *rank)
        else {
            if let Some(at) = at {
                spd.shapes.remove(at);
            }
            return;
        };
        let mut table = match at {
            Some(at) => spd.shapes.remove(at),
            None => Arc::new(ShapeTable {
                shape,
                best,
                entries: CowMap::default(),
            }),
        };
        let changed = Arc::make_mut(&mut table);
        changed.best = best;
        match self
            .wanting
            .get(&(shape, bits))
            .and_then(|wanting| wanting.get_min())
        {
            Some((rank, action)) => changed.entries.insert(bits, (*rank, *action)),
            None => changed.entries.remove(&bits),
        }
        let place = spd.shapes.partition_point(|other| other.best < best);
        spd.shapes.insert(place, table);
    }
}

#[cfg(test)]
#[path = "policies_tests.rs"]
mod tests;
