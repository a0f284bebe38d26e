//! A hash map whose copies share what did not change: what the writer changes and publishes, and workers look up in.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use rustc_hash::FxBuildHasher;

const SHARDS: usize = 64;

/// A map of up to some hundred thousand entries. A lookup reads two or three cache lines, whatever the number of entries; a
/// change copies a 64th part.
#[derive(Debug, Clone)]
pub(crate) struct CowMap<K, V> {
    shards: Box<[Arc<Shard<K, V>>]>,
}

#[derive(Debug, Clone)]
struct Shard<K, V> {
    /// A power of two of them, less than half of them in use.
    slots: Box<[Option<(K, V)>]>,
    used: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> Shard<K, V> {
    fn new(slots: usize) -> Self {
        Self {
            slots: vec![None; slots].into(),
            used: 0,
        }
    }

    /// Where the key is, or where it would be.
    #[inline(always)]
    fn find(&self, hash: u64, key: &K) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while let Some((other, _)) = &self.slots[at] {
            if other == key {
                break;
            }
            at = (at + 1) & mask;
        }
        at
    }

    fn put(&mut self, hash: u64, key: K, value: V) {
        let at = self.find(hash, &key);
        self.used += usize::from(self.slots[at].is_none());
        self.slots[at] = Some((key, value));
    }
}

#[inline(always)]
fn hash<K: Hash>(key: &K) -> u64 {
    FxBuildHasher.hash_one(key)
}

#[inline(always)]
fn shard(hash: u64) -> usize {
    (hash >> 58) as usize
}

impl<K: Hash + Eq + Clone, V: Clone> Default for CowMap<K, V> {
    fn default() -> Self {
        let empty = Arc::new(Shard::new(4));
        Self {
            shards: vec![empty; SHARDS].into(),
        }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> CowMap<K, V> {
    #[inline]
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let hash = hash(key);
        let shard = self.shards.get(shard(hash))?;
        let at = shard.find(hash, key);
        shard.slots[at].as_ref().map(|(_, value)| value)
    }

    /// Reads where the key would be, for its being read.
    #[inline]
    pub(crate) fn touch(&self, key: &K) -> bool {
        let hash = hash(key);
        self.shards.get(shard(hash)).is_some_and(|shard| {
            let at = hash as usize & (shard.slots.len() - 1);
            shard.slots[at].is_some()
        })
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.iter().count()
    }

    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let slots = self.shards.iter().flat_map(|shard| shard.slots.iter());
        slots.flatten().map(|(key, value)| (key, value))
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        let hash = hash(&key);
        let Some(shared) = self.shards.get_mut(shard(hash)) else {
            return;
        };
        if (shared.used + 1) * 2 > shared.slots.len() {
            let mut larger = Shard::new(shared.slots.len() * 2);
            for (key, value) in shared.slots.iter().flatten() {
                larger.put(self::hash(key), key.clone(), value.clone());
            }
            *shared = Arc::new(larger);
        }
        Arc::make_mut(shared).put(hash, key, value);
    }

    pub(crate) fn remove(&mut self, key: &K) {
        let hash = hash(key);
        let Some(shared) = self.shards.get_mut(shard(hash)) else {
            return;
        };
        if shared.slots[shared.find(hash, key)].is_none() {
            return;
        }
        let mut rest = Shard::new(shared.slots.len());
        for (other, value) in shared.slots.iter().flatten().filter(|(other, _)| other != key) {
            rest.put(self::hash(other), other.clone(), value.clone());
        }
        *shared = Arc::new(rest);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_a_map(steps in proptest::collection::vec((0u32..300, any::<bool>(), any::<u8>()), 0..800)) {
            let (mut map, mut model) = (CowMap::default(), HashMap::new());
            let mut old = map.clone();
            let mut old_model = model.clone();
            for (index, (key, put, value)) in steps.into_iter().enumerate() {
                if put {
                    map.insert(key, value);
                    model.insert(key, value);
                } else {
                    map.remove(&key);
                    model.remove(&key);
                }
                if index == 200 {
                    (old, old_model) = (map.clone(), model.clone());
                }
            }
            for (map, model) in [(&map, &model), (&old, &old_model)] {
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(map.iter().count(), model.len());
                for key in 0..300 {
                    prop_assert_eq!(map.get(&key), model.get(&key));
                }
            }
        }
    }
}
