//! Tables with a few pod ports, and a place for attachments that fails when it is told to.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use octoplane_cni_server::{
    AllocationStore, Attachments, Family, IdentitySource, Key, Place, Pod, Reservation, Rules, StorageError,
    Wanted,
};
use octoplane_config::schema::{Cni, IdentityRule, Pool};
use octoplane_packet::MacAddr;
use octoplane_tables::model::{Port, Role};
use octoplane_tables::{Capacity, Committed, Gateways, Journal, NotSaved, SharedStore, State, Store};

/// Keeps values in memory, for as long as somebody has a clone of it.
#[derive(Clone, Default)]
pub struct Memory {
    pub values: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    pub put_fails: Arc<AtomicBool>,
    pub remove_fails: Arc<AtomicBool>,
    /// Fails with the value in place, as a directory that cannot be synchronised does.
    pub put_fails_late: Arc<AtomicBool>,
}

fn full() -> StorageError {
    StorageError::Io {
        path: "/memory".into(),
        error: std::io::Error::other("no space left on device"),
    }
}

impl AllocationStore for Memory {
    fn load(&self) -> Result<Vec<(String, Vec<u8>)>, StorageError> {
        let values = self.values.lock().unwrap();
        Ok(values
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect())
    }

    fn put(&self, name: &str, value: &[u8]) -> Result<(), StorageError> {
        // As long as a disk, so that calls overlap.
        std::thread::sleep(std::time::Duration::from_millis(1));
        if self.put_fails.load(SeqCst) {
            return Err(full());
        }
        self.values.lock().unwrap().insert(name.into(), value.into());
        if self.put_fails_late.load(SeqCst) {
            return Err(full());
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), StorageError> {
        if self.remove_fails.load(SeqCst) {
            return Err(full());
        }
        self.values.lock().unwrap().remove(name);
        Ok(())
    }
}

impl Memory {
    /// Names of what is kept.
    pub fn names(&self) -> Vec<String> {
        self.values.lock().unwrap().keys().cloned().collect()
    }
}

/// Keeps no transaction when it is told to, and says so afterwards.
#[derive(Clone, Default)]
pub struct Forgetful(pub Arc<AtomicBool>);

impl Journal for Forgetful {
    fn ready(&self) -> Result<(), NotSaved> {
        Ok(())
    }

    fn record(&self, _: &Committed, _: &State) {}

    fn wait(&self, _: u64) -> Result<(), NotSaved> {
        match self.0.load(SeqCst) {
            true => Err(NotSaved("no space left on device".into())),
            false => Ok(()),
        }
    }

    fn saved(&self) -> u64 {
        u64::MAX
    }

    fn listen(&self, _: Box<dyn Fn() + Send + Sync>) {}
}

/// A daemon's worth of attachments.
pub struct Lab {
    pub attachments: Arc<Attachments>,
    pub tables: SharedStore,
    pub memory: Memory,
    pub now: Arc<AtomicU64>,
}

/// Tables with this many pod ports "pod0" and so on, and an uplink.
pub fn tables(pods: u16) -> SharedStore {
    let port = |id: u16, name: String, role, addresses| Port {
        id,
        name,
        role,
        mac: MacAddr([2, 0, 0, 0, 9, 9]),
        mtu: 1500,
        admin_up: true,
        addresses,
    };
    let mut ports: Vec<_> = (0..pods)
        .map(|id| port(id, format!("pod{id}"), Role::Pod, Vec::new()))
        .collect();
    let uplink = vec![("10.0.0.3".parse().unwrap(), 24)];
    ports.push(port(pods, "uplink".into(), Role::Uplink, uplink));
    let gateways = Gateways {
        ipv4: "169.254.1.1".parse().unwrap(),
        ipv6: "fe80::1".parse().unwrap(),
    };
    let capacity = Capacity {
        fib_nodes_v4: 1024,
        fib_nodes_v6: 1024,
        ipcache_nodes_v4: 1024,
        ipcache_nodes_v6: 1024,
        ..Capacity::DEFAULT
    };
    SharedStore::new(Store::new(ports, gateways, capacity).unwrap())
}

pub fn config(pools: &[&str]) -> Cni {
    Cni {
        pools: pools
            .iter()
            .map(|prefix| Pool {
                prefix: prefix.parse().unwrap(),
                exclude: Vec::new(),
            })
            .collect(),
        identities: vec![IdentityRule {
            namespace: "system".into(),
            name: "*".into(),
            identity: 1234,
            labels: vec!["tier=system".into()],
        }],
        ..Cni::default()
    }
}

impl Lab {
    pub fn new(config: &Cni) -> Self {
        Self::over(config, tables(4), Memory::default())
    }

    /// With tables and values of an earlier life, which are restored.
    pub fn over(config: &Cni, tables: SharedStore, memory: Memory) -> Self {
        let now = Arc::new(AtomicU64::new(1_000_000));
        let clock = Arc::clone(&now);
        let identities: Box<dyn IdentitySource> = Box::new(Rules::new(&config.identities));
        let attachments = Attachments::new(config, tables.clone(), Box::new(memory.clone()), identities)
            .with_clock(Box::new(move || clock.load(SeqCst)));
        attachments.restore().unwrap();
        Self {
            attachments: Arc::new(attachments),
            tables,
            memory,
            now,
        }
    }

    pub fn advance(&self, seconds: u64) {
        self.now.fetch_add(seconds, SeqCst);
    }

    pub fn endpoints(&self) -> Vec<String> {
        let state = self.tables.state();
        state.endpoints().map(|endpoint| endpoint.name.clone()).collect()
    }

    /// Whether nothing is left of anybody.
    pub fn is_empty(&self) -> bool {
        self.endpoints().is_empty()
            && self.attachments.list(None).is_empty()
            && self.attachments.pools().iter().all(|pool| pool.used == 0)
            && !self.memory.names().iter().any(|name| name.ends_with(".json"))
    }
}

pub fn key(container: &str) -> Key {
    Key::new(container, "eth0", ["container", "interface"]).unwrap()
}

pub fn reservation(container: &str, namespace: &str) -> Reservation {
    Reservation {
        key: key(container),
        network: "net".into(),
        pod: Pod {
            namespace: namespace.into(),
            name: container.into(),
        },
        wanted: Wanted::Pools(vec![Family::V4]),
    }
}

pub fn place(port: u8) -> Place {
    Place {
        port: format!("pod{port}"),
        mac: MacAddr([2, 0, 0, 0, 0, port]),
    }
}
