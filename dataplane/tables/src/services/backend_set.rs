//! The backends of one service in one scope.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::model::{BackendState, Protocol};
use crate::services::maglev::{self, Candidate, Seed};

/// One address that a service stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// Number of this address, port and protocol, the same in all services, for as long as one has it.
    pub id: u32,
    /// Its address.
    pub addr: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its share of the flows.
    pub weight: u16,
    /// What may be sent to it.
    pub state: BackendState,
    /// Whether it lives on this node.
    pub local: bool,
}

impl Backend {
    /// Asks the CPU for it.
    pub fn prefetch(&self) {
        prefetch::read(self);
    }
}

/// The backends of a service for clients of one scope (specification of the datapath, section 3.1).
#[derive(Debug, Clone, Default)]
pub struct BackendSet {
    /// How many may get new flows: the active ones, or the terminating ones if there are no others.
    pub count: u32,
    /// How many more are listed, as in Cilium's `qcount`.
    pub unusable: u32,
    /// In the order of slots: those that may get new flows, then the others that are listed.
    slots: Box<[Backend]>,
    /// All that the service has in this family, whatever their scope and state, by number.
    all: Arc<[Backend]>,
    maglev: Option<Arc<[u16]>>,
}

impl BackendSet {
    /// The set of those in `all` (sorted by number) that `eligible` picks. `old` are those it replaces.
    pub(crate) fn new(
        all: Arc<[Backend]>,
        eligible: impl Fn(&Backend) -> bool,
        maglev: Option<Protocol>,
        old: &[Arc<Self>],
    ) -> Self {
        let mut slots: Vec<Backend> = all
            .iter()
            .filter(|backend| backend.state != BackendState::Maintenance && eligible(backend))
            .copied()
            .collect();
        slots.sort_unstable_by_key(|backend| (backend.state, backend.addr, backend.port));
        let in_state = |state| slots.iter().filter(|backend| backend.state == state).count();
        let count = match in_state(BackendState::Active) {
            0 => in_state(BackendState::Terminating),
            active => active,
        };
        let maglev = maglev.and_then(|protocol| maglev_table(&slots[..count], protocol, old));
        Self {
            count: count as u32,
            unusable: (slots.len() - count) as u32,
            slots: slots.into(),
            all,
            maglev,
        }
    }

    /// Asks the CPU for what says which backends these are.
    pub fn prefetch(&self) {
        prefetch::read(&self.count);
        prefetch::read(&self.slots);
    }

    /// The backends in the order of slots; the first `count` may get new flows.
    pub fn slots(&self) -> &[Backend] {
        &self.slots
    }

    /// A backend for a new flow, each with the same chance; `None` if there is none.
    pub fn pick_random(&self, random: u32) -> Option<&Backend> {
        self.slots.get(random.checked_rem(self.count)? as usize)
    }

    /// The backend for a new flow with this hash ([`maglev::hash4`], [`maglev::hash6`]). Where the service has no
    /// Maglev table the hash is used as a random number.
    pub fn pick_maglev(&self, hash: u32) -> Option<&Backend> {
        let Some(table) = &self.maglev else {
            return self.pick_random(hash);
        };
        let index = table.get(hash.checked_rem(table.len() as u32)? as usize)?;
        self.slots.get(usize::from(*index))
    }

    /// The backend with this number, whatever its state and scope: where an old flow goes. `None` if the service has
    /// it no more.
    pub fn get(&self, id: u32) -> Option<&Backend> {
        let index = self.all.binary_search_by_key(&id, |backend| backend.id).ok()?;
        self.all.get(index)
    }

    /// The backend with this address and port, whatever its state and scope.
    pub fn at(&self, addr: IpAddr, port: u16) -> Option<&Backend> {
        self.all
            .iter()
            .find(|backend| backend.addr == addr && backend.port == port)
    }

    /// The first backend with this address, whatever its port, state and scope.
    pub fn of(&self, addr: IpAddr) -> Option<&Backend> {
        self.all.iter().find(|backend| backend.addr == addr)
    }

    /// The backend with this address and port if clients may stay with it (`affinity_match`, section 3.3).
    pub fn affine(&self, addr: IpAddr, port: u16) -> Option<&Backend> {
        self.slots[..self.count as usize]
            .iter()
            .find(|backend| backend.addr == addr && backend.port == port)
    }
}

/// The table for the backends that may get new flows; that of an `old` set if they are the same.
fn maglev_table(slots: &[Backend], protocol: Protocol, old: &[Arc<BackendSet>]) -> Option<Arc<[u16]>> {
    let parts = |backend: &Backend| (backend.addr, backend.port, backend.weight);
    let same = |set: &&Arc<BackendSet>| {
        let active = &set.slots[..set.count as usize];
        set.maglev.is_some() && active.iter().map(parts).eq(slots.iter().map(parts))
    };
    if let Some(old) = old.iter().find(same) {
        return old.maglev.clone();
    }
    if slots.is_empty() {
        return None;
    }
    let candidates: Vec<Candidate> = slots
        .iter()
        .map(|backend| Candidate {
            addr: SocketAddr::new(backend.addr, backend.port),
            protocol,
            weight: backend.weight,
        })
        .collect();
    Some(maglev::table(&candidates, maglev::TABLE_SIZE, Seed::DEFAULT).into())
}
