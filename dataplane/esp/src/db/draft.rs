//! A transaction under way: a copy of everything, which becomes the truth or is thrown away.

use std::net::IpAddr;
use std::sync::Arc;

use arrayvec::ArrayVec;
use imbl::{HashMap, OrdMap, OrdSet};

use super::change::{Change, ChangeError, Committed, NodeConfig, PolicyConfig};
use super::policies::Policies;
use super::writer::Options;
use crate::ip::map;
use crate::key::Fingerprint;
use crate::sa::{Direction, Sa, SaConfig, SaId, SaKey};
use crate::store::{RecordKey, SequenceStore};
use crate::view::{Action, MAX_KEYS, MAX_SAME_ADDRESSES, MAX_TUNNELS, NodeView, Snapshot, TunnelId};

/// What the writer knows besides what it publishes. Copies share what did not change.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) policies: Policies,
    pub(super) inbound: Policies,
    pub(super) tunnels: OrdMap<TunnelId, SaKey>,
    pub(super) nodes: OrdMap<IpAddr, Arc<NodeConfig>>,
    /// Tunnels and nodes that use a security association.
    users: HashMap<SaKey, OrdSet<User>>,
    /// Who has which keys: one that encrypts, or some that decrypt.
    keys: HashMap<Fingerprint, OrdSet<SaKey>>,
    /// Places in the table that were given back, and the first that never was given.
    free: imbl::Vector<u32>,
    next_index: u32,
    generation: u32,
}

/// Who uses a security association.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum User {
    Tunnel(TunnelId),
    Node(IpAddr),
}

/// A transaction under way.
pub(super) struct Draft<'a> {
    pub(super) snapshot: Snapshot,
    pub(super) state: State,
    pub(super) committed: Committed,
    /// Sequence numbers that have to be on disk before this is published, with what they are for and which change it was.
    pub(super) reservations: Vec<(RecordKey, u64, Arc<Sa>, usize)>,
    options: &'a Options,
    store: &'a dyn SequenceStore,
    now: u64,
}

impl<'a> Draft<'a> {
    pub(super) fn new(
        snapshot: &Snapshot,
        state: &State,
        options: &'a Options,
        store: &'a dyn SequenceStore,
        now: u64,
    ) -> Self {
        Self {
            snapshot: snapshot.clone(),
            state: state.clone(),
            committed: Committed::default(),
            reservations: Vec::new(),
            options,
            store,
            now,
        }
    }

    pub(super) fn apply(&mut self, index: usize, change: Change) -> Result<(), ChangeError> {
        match change {
            Change::PutSa(config) => self.put_sa(index, *config, false),
            Change::RestoreSa(config) => self.put_sa(index, *config, true),
            Change::DeleteSa(key) => self.delete_sa(&key),
            Change::PutTunnel(id, key) => self.put_tunnel(id, key),
            Change::DeleteTunnel(id) => self.delete_tunnel(id),
            Change::PutPolicy(policy) => self.put_policy(policy),
            Change::DeletePolicy(id) if self.state.inbound.get(id).is_some() => {
                self.state.inbound.delete(&mut self.snapshot.spd_inbound, id)
            }
            Change::DeletePolicy(id) => self.state.policies.delete(&mut self.snapshot.spd, id),
            Change::PutNode(node) => self.put_node(node),
            Change::DeleteNode(addr) => self.delete_node(addr),
            Change::SetLocalKey(key) => {
                self.snapshot.nodes.local = key;
                Ok(())
            }
        }
    }

    fn put_policy(&mut self, policy: PolicyConfig) -> Result<(), ChangeError> {
        let (id, direction) = (policy.id, policy.direction);
        if let Action::Protect(tunnel) = policy.action
            && direction == Direction::Outbound
            && !self.state.tunnels.contains_key(&tunnel)
        {
            return Err(ChangeError::NoSuchTunnel(tunnel));
        }
        let State {
            policies, inbound, ..
        } = &self.state;
        let new = policies.get(id).is_none() && inbound.get(id).is_none();
        full(
            "policy",
            policies.len() + inbound.len(),
            self.options.max_policies,
            new,
        )?;
        let Snapshot { spd, spd_inbound, .. } = &mut self.snapshot;
        let State {
            policies, inbound, ..
        } = &mut self.state;
        let ((here, spd), (there, other)) = match direction {
            Direction::Outbound => ((policies, spd), (inbound, spd_inbound)),
            Direction::Inbound => ((inbound, spd_inbound), (policies, spd)),
        };
        if there.get(id).is_some() {
            there.delete(other, id)?;
        }
        here.put(spd, policy)
    }

    /// Adds a security association. `used_up`: one without sequence numbers may be added, too.
    fn put_sa(&mut self, index: usize, config: SaConfig, used_up: bool) -> Result<(), ChangeError> {
        let key = config.key();
        let error = |error| ChangeError::Sa { key, error };
        let fingerprint = config.keys.fingerprint();
        // Two that encrypt with the same keys would use the same nonces, and so would this node and its peer if one key
        // served both directions. Inbound ones may share: each sender has its own numbers.
        let clash = |other: &&SaKey| {
            **other != key && (key.direction, other.direction) != (Direction::Inbound, Direction::Inbound)
        };
        let others = self.state.keys.get(&fingerprint);
        if let Some(other) = others.and_then(|others| others.iter().find(clash))
            && config.algorithm.is_aead()
        {
            return Err(ChangeError::KeysInUse { key, other: *other });
        }
        let old = self.snapshot.sad.find(&key).cloned();
        if let Some(old) = &old
            && old.fingerprint() == fingerprint
        {
            if old.config().same_but_keys(&config) {
                self.committed.sas.push(old.id());
                return Ok(());
            }
            let id = self.take_id();
            let sa = old.reconfigured(id, config).map_err(error)?;
            self.replace(old, Arc::new(sa));
            return Ok(());
        }
        full(
            "security association",
            self.snapshot.sad.len(),
            self.options.max_sas,
            old.is_none(),
        )?;
        if old.is_none() && self.snapshot.sad.same_addresses(&key) >= MAX_SAME_ADDRESSES {
            let max = MAX_SAME_ADDRESSES;
            return Err(ChangeError::TooManyMarks { key, max });
        }
        let record = RecordKey::of(fingerprint, &key);
        let kept = self.store.get(record);
        let resume = match key.direction {
            Direction::Outbound => kept.unwrap_or(1),
            // Before inbound ones had records of their own, there was one for all with the same keys. It is not below what any of
            // them had accepted, but nothing tells which of them it is about, nor which there were: none may begin below it. The
            // slower senders' packets are refused until they have come so far, once; what they send then is theirs alone.
            Direction::Inbound => kept
                .or_else(|| self.store.get(RecordKey::of_all_inbound(fingerprint)))
                .unwrap_or(0),
        };
        let id = self.take_id();
        let sa = Arc::new(Sa::new(id, config, self.now, resume).map_err(error)?);
        if key.direction == Direction::Outbound {
            if resume >= sa.sequence().end() && !used_up {
                return Err(ChangeError::Exhausted { key });
            }
            let reserve = self.options.block(sa.config().esn);
            let end = resume.saturating_add(reserve).min(sa.sequence().end());
            self.reservations.push((record, end, Arc::clone(&sa), index));
        }
        match old {
            Some(old) => self.replace(&old, sa),
            None => self.insert(sa),
        }
        Ok(())
    }

    fn take_id(&mut self) -> SaId {
        self.state.generation = self.state.generation.wrapping_add(1);
        let index = self.state.free.pop_front().unwrap_or_else(|| {
            self.state.next_index += 1;
            self.state.next_index - 1
        });
        SaId {
            index,
            generation: self.state.generation,
        }
    }

    fn insert(&mut self, sa: Arc<Sa>) {
        self.committed.sas.push(sa.id());
        let owners = self.state.keys.entry(sa.fingerprint()).or_default();
        owners.insert(sa.config().key());
        self.snapshot.sad.insert(sa);
    }

    fn remove(&mut self, id: SaId) {
        if let Some(sa) = self.snapshot.sad.remove(id) {
            forget(&mut self.state.keys, sa.fingerprint(), &sa.config().key());
            self.state.free.push_back(id.index);
            self.committed.removed.push(id);
        }
    }

    /// Puts one in the place of another of the same key; who used that uses this.
    fn replace(&mut self, old: &Sa, new: Arc<Sa>) {
        let (old_id, id, key) = (old.id(), new.id(), new.config().key());
        self.remove(old_id);
        self.insert(new);
        for user in self.state.users.get(&key).cloned().unwrap_or_default() {
            match user {
                User::Tunnel(tunnel) => self.snapshot.tunnels.set(tunnel, Some(id)),
                User::Node(addr) => {
                    if let Some(node) = self.state.nodes.get(&addr).map(Arc::clone) {
                        self.publish_node(&node);
                    }
                }
            }
        }
    }

    fn delete_sa(&mut self, key: &SaKey) -> Result<(), ChangeError> {
        let users = self.state.users.get(key).map_or(0, OrdSet::len);
        if users > 0 {
            return Err(ChangeError::SaInUse { key: *key, users });
        }
        let sa = self
            .snapshot
            .sad
            .find(key)
            .ok_or(ChangeError::NoSuchSa { key: *key })?;
        self.remove(sa.id());
        Ok(())
    }

    /// The outbound security association of this key.
    fn outbound(&self, key: &SaKey) -> Result<SaId, ChangeError> {
        if key.direction != Direction::Outbound {
            return Err(ChangeError::NotOutbound { key: *key });
        }
        let sa = self.snapshot.sad.find(key);
        Ok(sa.ok_or(ChangeError::NoSuchSa { key: *key })?.id())
    }

    fn uses(&mut self, user: User, key: &SaKey) {
        self.state.users.entry(*key).or_default().insert(user);
    }

    fn uses_no_more(&mut self, user: User, key: &SaKey) {
        forget(&mut self.state.users, *key, &user);
    }

    fn put_tunnel(&mut self, id: TunnelId, key: SaKey) -> Result<(), ChangeError> {
        if id >= MAX_TUNNELS {
            return Err(ChangeError::TunnelNumber(id));
        }
        let sa = self.outbound(&key)?;
        if let Some(old) = self.state.tunnels.insert(id, key) {
            self.uses_no_more(User::Tunnel(id), &old);
        }
        self.uses(User::Tunnel(id), &key);
        self.snapshot.tunnels.set(id, Some(sa));
        Ok(())
    }

    fn delete_tunnel(&mut self, id: TunnelId) -> Result<(), ChangeError> {
        let users = self.state.policies.users(id);
        if users > 0 {
            return Err(ChangeError::TunnelInUse { id, users });
        }
        let key = self
            .state
            .tunnels
            .remove(&id)
            .ok_or(ChangeError::NoSuchTunnel(id))?;
        self.uses_no_more(User::Tunnel(id), &key);
        self.snapshot.tunnels.set(id, None);
        Ok(())
    }

    fn put_node(&mut self, node: NodeConfig) -> Result<(), ChangeError> {
        let addr = node.addr;
        if node.id == 0 {
            return Err(ChangeError::NodeZero { addr });
        }
        if node.outbound.len() > MAX_KEYS {
            return Err(ChangeError::NodeKeys {
                addr,
                count: node.outbound.len(),
                max: MAX_KEYS,
            });
        }
        for (at, (index, key)) in node.outbound.iter().enumerate() {
            if node.outbound[..at].iter().any(|(other, _)| other == index) {
                return Err(ChangeError::NodeKeyTwice { addr, index: *index });
            }
            self.outbound(key)?;
        }
        let new = !self.state.nodes.contains_key(&addr);
        full("node", self.state.nodes.len(), self.options.max_nodes, new)?;
        let node = Arc::new(node);
        if let Some(old) = self.state.nodes.insert(addr, Arc::clone(&node)) {
            for (_, key) in &old.outbound {
                self.uses_no_more(User::Node(addr), key);
            }
        }
        for (_, key) in &node.outbound {
            self.uses(User::Node(addr), key);
        }
        self.publish_node(&node);
        Ok(())
    }

    fn publish_node(&mut self, node: &NodeConfig) {
        let mut outbound = ArrayVec::new();
        for (index, key) in &node.outbound {
            if let Some(sa) = self.snapshot.sad.find(key) {
                // There is room: the number was checked.
                let _ = outbound.try_push((*index, sa.id()));
            }
        }
        let view = NodeView {
            id: node.id,
            announced: node.announced,
            outbound,
        };
        self.snapshot.nodes.by_addr.insert(map(node.addr), Arc::new(view));
    }

    fn delete_node(&mut self, addr: IpAddr) -> Result<(), ChangeError> {
        let node = self
            .state
            .nodes
            .remove(&addr)
            .ok_or(ChangeError::NoSuchNode(addr))?;
        for (_, key) in &node.outbound {
            self.uses_no_more(User::Node(addr), key);
        }
        self.snapshot.nodes.by_addr.remove(&map(addr));
        Ok(())
    }
}

/// Takes a member out of a set, and the set out of the map when it was the last.
fn forget<K: std::hash::Hash + Eq + Clone, T: Ord + Clone>(
    map: &mut HashMap<K, OrdSet<T>>,
    key: K,
    member: &T,
) {
    if let Some(set) = map.get_mut(&key) {
        set.remove(member);
        if set.is_empty() {
            map.remove(&key);
        }
    }
}

fn full(table: &'static str, len: usize, max: usize, new: bool) -> Result<(), ChangeError> {
    if new && len >= max {
        return Err(ChangeError::Full { table, max });
    }
    Ok(())
}
