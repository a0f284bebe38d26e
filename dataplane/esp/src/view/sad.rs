//! The table of security associations (RFC 4301, section 4.4.2).

use std::net::IpAddr;
use std::sync::Arc;

use super::cow_map::CowMap;
use super::slab::Slab;
use crate::ip::{Addr, map};
use crate::provider::SessionLookup;
use crate::sa::{Direction, Sa, SaConfig, SaId, SaKey};
use crate::session::{Session, SessionId};

/// Most security associations that differ by their marks alone.
pub const MAX_SAME_ADDRESSES: usize = 4;

const NONE: u32 = u32::MAX;

/// What a security association is looked up by. `source` 0 stands for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    outbound: bool,
    spi: u32,
    destination: Addr,
    source: Addr,
}

impl Key {
    fn of(config: &SaKey) -> Self {
        Self {
            outbound: config.direction == Direction::Outbound,
            spi: config.spi,
            destination: map(config.destination),
            source: config.source.map_or(0, map),
        }
    }
}

/// Security associations by their names, and inbound ones by what their packets carry. Immutable where it is read.
#[derive(Debug, Clone, Default)]
pub struct Sad {
    sas: Slab<Arc<Sa>>,
    by_key: CowMap<Key, [u32; MAX_SAME_ADDRESSES]>,
    /// How many inbound ones accept any source: 0 saves the second lookup.
    any_source: usize,
    /// How many inbound ones policies can name.
    named: usize,
}

impl Sad {
    /// The security association of this name, unless it was removed.
    #[inline(always)]
    pub fn get(&self, id: SaId) -> Option<&Arc<Sa>> {
        self.sas.get(id.index).filter(|sa| sa.id() == id)
    }

    /// What is in this place of the table now, whatever its generation. Reads nothing of it.
    #[inline(always)]
    pub(crate) fn place(&self, id: SaId) -> Option<&Sa> {
        self.sas.get(id.index).map(|sa| &**sa)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Sa>> {
        self.sas.iter()
    }

    /// Whether there are inbound ones that policies can name.
    #[inline]
    pub fn has_named_inbound(&self) -> bool {
        self.named > 0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sas.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The security association that a packet is to be decrypted with: by SPI, destination and source, or else by SPI and
    /// destination alone (RFC 4301, section 4.1); and the packet's mark.
    #[inline]
    pub(crate) fn inbound(&self, spi: u32, destination: Addr, source: Addr, mark: u32) -> Option<&Arc<Sa>> {
        let key = Key {
            outbound: false,
            spi,
            destination,
            source,
        };
        self.candidate(&key, mark).or_else(|| {
            if self.any_source == 0 {
                return None;
            }
            self.candidate(&Key { source: 0, ..key }, mark)
        })
    }

    /// Whether there is an outbound security association with these, whatever its mark.
    #[inline]
    pub(crate) fn has_outbound(&self, spi: u32, destination: Addr, source: Addr) -> bool {
        let key = Key {
            outbound: true,
            spi,
            destination,
            source,
        };
        self.by_key.get(&key).is_some()
    }

    /// Reads where [`Sad::inbound`] will look first, for its being read.
    #[inline]
    pub(crate) fn touch_inbound(&self, spi: u32, destination: Addr, source: Addr) -> bool {
        self.by_key.touch(&Key {
            outbound: false,
            spi,
            destination,
            source,
        })
    }

    #[inline(always)]
    fn candidate(&self, key: &Key, mark: u32) -> Option<&Arc<Sa>> {
        let indices = self.by_key.get(key)?;
        indices
            .iter()
            .take_while(|index| **index != NONE)
            .filter_map(|index| self.sas.get(*index))
            .find(|sa| sa.mark.matches(mark))
    }

    /// The security association that is known by this.
    pub fn find(&self, key: &SaKey) -> Option<&Arc<Sa>> {
        let indices = self.by_key.get(&Key::of(key))?;
        indices
            .iter()
            .filter_map(|index| self.sas.get(*index))
            .find(|sa| sa.config().mark == key.mark)
    }

    /// The inbound security association for a packet with these addresses.
    pub fn find_inbound(&self, spi: u32, destination: IpAddr, source: IpAddr, mark: u32) -> Option<&Arc<Sa>> {
        self.inbound(spi, map(destination), map(source), mark)
    }

    /// How many have the selectors of this one, but for the mark.
    pub(crate) fn same_addresses(&self, key: &SaKey) -> usize {
        let indices = self.by_key.get(&Key::of(key));
        indices.map_or(0, |indices| {
            indices.iter().filter(|index| **index != NONE).count()
        })
    }

    /// Adds one. The caller has made sure that its name and selectors are free, and that there is room.
    pub(crate) fn insert(&mut self, sa: Arc<Sa>) {
        let (key, index) = (Key::of(&sa.config().key()), sa.id().index);
        self.any_source += usize::from(counts_as_any_source(sa.config()));
        self.named += usize::from(counts_as_named(sa.config()));
        self.sas.set(index, Some(sa));
        let mut indices = self
            .by_key
            .get(&key)
            .copied()
            .unwrap_or([NONE; MAX_SAME_ADDRESSES]);
        if let Some(slot) = indices.iter_mut().find(|slot| **slot == NONE) {
            *slot = index;
        }
        // The most particular mask comes first.
        indices.sort_by_key(|index| {
            let sa = self.sas.get(*index);
            std::cmp::Reverse(sa.map_or(-1, |sa| sa.config().mark.mask.count_ones() as i32))
        });
        self.by_key.insert(key, indices);
    }

    /// Removes one.
    pub(crate) fn remove(&mut self, id: SaId) -> Option<Arc<Sa>> {
        let sa = Arc::clone(self.get(id)?);
        let key = Key::of(&sa.config().key());
        self.any_source -= usize::from(counts_as_any_source(sa.config()));
        self.named -= usize::from(counts_as_named(sa.config()));
        self.sas.set(id.index, None);
        let mut rest = [NONE; MAX_SAME_ADDRESSES];
        let others = self.by_key.get(&key).into_iter().flatten();
        for (slot, index) in rest.iter_mut().zip(others.filter(|other| **other != id.index)) {
            *slot = *index;
        }
        if rest[0] == NONE {
            self.by_key.remove(&key);
        } else {
            self.by_key.insert(key, rest);
        }
        Some(sa)
    }
}

fn counts_as_any_source(config: &SaConfig) -> bool {
    config.direction == Direction::Inbound && config.source.is_none()
}

fn counts_as_named(config: &SaConfig) -> bool {
    config.direction == Direction::Inbound && config.reqid != 0
}

impl SessionLookup for Sad {
    #[inline]
    fn session(&self, id: SessionId) -> Option<&Arc<Session>> {
        self.get(id).map(|sa| sa.session())
    }
}
