//! The attachments: who has which port, endpoint and addresses.
//!
//! What is remembered comes first and goes last: an attachment is kept durably before its endpoint is made, and its endpoint is
//! removed before it is forgotten. A process that dies in between leaves an attachment that the next one makes whole
//! ([`Attachments::restore`]) or its owner removes; it never leaves an endpoint that nobody knows.
//!
//! Writing takes milliseconds, so nothing is locked meanwhile but the container that it is about.

mod busy;
mod endpoint;
mod make;
mod remove;
mod restore;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use octoplane_config::schema;
use octoplane_packet::MacAddr;
use octoplane_tables::SharedStore;

use crate::clock::{Clock, seconds};
use crate::error::AttachError;
use crate::identity::IdentitySource;
use crate::ipam::{Family, Ipam, Usage};
use crate::record::{Key, Pod, Record};
use crate::storage::AllocationStore;

pub use make::Function;

/// The first endpoint id that is given here: those that fit into 16 bits are Cilium's.
const FIRST_ENDPOINT: u32 = 0x1_0000;

/// Where addresses come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// One of each of these families, from our pools.
    Pools(Vec<Family>),
    /// Somebody else gave these out.
    Given(Vec<IpAddr>),
}

/// What is to be attached.
#[derive(Debug, Clone)]
pub struct Reservation {
    /// Container and interface.
    pub key: Key,
    /// Name of the CNI network.
    pub network: String,
    /// The pod.
    pub pod: Pod,
    /// Its addresses.
    pub wanted: Wanted,
}

/// Where it is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name of a port of role pod.
    pub port: String,
    /// The pod's Ethernet address.
    pub mac: MacAddr,
}

/// All attachments of this daemon. Its methods block: call them off the threads of a runtime.
pub struct Attachments {
    tables: SharedStore,
    store: Box<dyn AllocationStore>,
    identities: Box<dyn IdentitySource>,
    reuse_delay: u64,
    orphan_grace: u64,
    clock: Clock,
    inner: Mutex<Inner>,
    /// Told when a container is no longer busy.
    released: Condvar,
}

#[derive(Default)]
struct Inner {
    records: BTreeMap<Key, Record>,
    ipam: Ipam,
    /// Containers that somebody is about to change.
    busy: BTreeSet<Key>,
    /// Functions that somebody is about to give to a container.
    busy_functions: BTreeSet<Function>,
    /// The next endpoint id to try.
    next_endpoint: u32,
    /// Since when an attachment lacks its endpoint.
    orphans: HashMap<Key, u64>,
}

impl Attachments {
    /// Without any attachment; see [`Self::restore`].
    pub fn new(
        config: &schema::Cni,
        tables: SharedStore,
        store: Box<dyn AllocationStore>,
        identities: Box<dyn IdentitySource>,
    ) -> Self {
        Self {
            tables,
            store,
            identities,
            reuse_delay: config.reuse_delay.as_secs(),
            orphan_grace: config.orphan_grace.as_secs(),
            clock: Box::new(seconds),
            inner: Mutex::new(Inner {
                ipam: Ipam::new(&config.pools),
                next_endpoint: FIRST_ENDPOINT,
                ..Inner::default()
            }),
            released: Condvar::new(),
        }
    }

    /// With another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The tables that endpoints are in.
    pub fn tables(&self) -> &SharedStore {
        &self.tables
    }

    /// One attachment.
    ///
    /// # Errors
    /// [`AttachError::NotFound`]
    pub fn get(&self, key: &Key) -> Result<Record, AttachError> {
        let found = self.inner().records.get(key).cloned();
        found.ok_or_else(|| AttachError::NotFound(key.clone()))
    }

    /// All attachments, or those of one network.
    pub fn list(&self, network: Option<&str>) -> Vec<Record> {
        let wanted = |record: &&Record| network.is_none_or(|network| record.network == network);
        self.inner().records.values().filter(wanted).cloned().collect()
    }

    /// The attachments of one container.
    pub fn of_container(&self, container: &str) -> Vec<Key> {
        let inner = self.inner();
        let keys = inner.records.keys().filter(|key| key.container == container);
        keys.cloned().collect()
    }

    /// How full the pools are.
    pub fn pools(&self) -> Vec<Usage> {
        self.inner().ipam.usage()
    }

    /// Whether pods can get an address of a family here.
    pub fn has_pool(&self, family: Family) -> bool {
        self.inner().ipam.has(family)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds this; if it did, what is in memory would still be what is on disk.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        (self.clock)()
    }
}
