//! Encryption: from keys and nodes to security associations, and what is programmed besides, for as long as the daemon runs.

mod events;
mod keys;
mod nodes;
mod program;
mod service;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;
use octoplane_config::{Ipsec as Config, IpsecFraming, IpsecTooBig};
use octoplane_engine::{Framing, IpsecConfig};
use octoplane_esp::cilium::{End, KeyIndex, pair_sas};
use octoplane_esp::db::{ApplyError, Change, Database, NodeConfig, Options};
use octoplane_esp::sa::SaKey;
use octoplane_esp::store::FileStore;
use octoplane_tables::{Object, SharedStore, State};
use octoplane_worker::Clock;
use tracing::{info, warn};

use events::Events;
use keys::Keys;
use nodes::{Node, Nodes};
use program::Programmed;
pub(crate) use service::Service;

/// Time between two looks at everything.
const TICK: Duration = Duration::from_millis(100);
/// Looks between two at the key file.
const FILE: u32 = 5;

/// Encryption between nodes, as the daemon holds it.
pub(crate) struct Ipsec(Mutex<Inner>);

struct Inner {
    database: Database,
    keys: Keys,
    nodes: Nodes,
    nodes_file: PathBuf,
    strict: bool,
    framing: Framing,
    boot_id: String,
    /// Security associations and policies of one's own.
    programmed: Programmed,
    events: Events,
    /// What the configuration says about our ends.
    configured: Vec<IpAddr>,
    /// Our ends.
    local: Vec<IpAddr>,
    /// The security associations of each node, and how many nodes use each.
    sas_of: HashMap<IpAddr, Vec<SaKey>>,
    users: HashMap<SaKey, usize>,
    /// The key that was announced last.
    announced: Option<KeyIndex>,
    /// The last change of keys or ends did not come about: it is tried again.
    again: bool,
}

impl Ipsec {
    /// Reads keys, sequence numbers and nodes. `None`: nothing is to be encrypted.
    pub(crate) fn open(config: &Config) -> anyhow::Result<Option<Self>> {
        if config.key_file.is_none() && !config.policies && config.strict_cidrs.is_empty() {
            return Ok(None);
        }
        // Neither core dumps nor other processes get to see keys.
        nix::sys::prctl::set_dumpable(false).context("core dumps could not be turned off")?;
        let keys = match &config.key_file {
            Some(key_file) => Keys::open(key_file, config.rotation).context("ipsec.key_file")?,
            None => Keys::none(),
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&config.directory)
            .with_context(|| format!("ipsec.directory: {}", config.directory.display()))?;
        let store = FileStore::open(&config.directory.join("sequence")).context("ipsec.directory")?;
        let nodes_file = config.directory.join("nodes.json");
        let nodes = nodes::load(&nodes_file).context("ipsec.directory")?;
        let boot_id = match &config.boot_id {
            Some(boot_id) => boot_id.clone(),
            None => fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .context("ipsec.boot_id: the kernel's")?
                .trim()
                .to_owned(),
        };
        Ok(Some(Self(Mutex::new(Inner {
            database: Database::new(Box::new(store), Options::default()),
            keys,
            nodes,
            nodes_file,
            strict: config.strict,
            framing: match config.framing {
                IpsecFraming::TunnelInEsp => Framing::TunnelInEsp,
                IpsecFraming::EspInTunnel => Framing::EspInTunnel,
            },
            boot_id,
            programmed: Programmed::new(config),
            events: Events::default(),
            configured: config.addresses.clone(),
            local: Vec::new(),
            sas_of: HashMap::new(),
            users: HashMap::new(),
            announced: None,
            again: false,
        }))))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the engines are told.
    pub(crate) fn engine(&self) -> IpsecConfig {
        let inner = self.inner();
        IpsecConfig {
            reader: inner.database.reader(),
            strict: inner.strict,
            framing: inner.framing,
            cut: inner.programmed.too_big == IpsecTooBig::Fragment,
        }
    }

    /// Looks after everything in a thread of its own until `stop`.
    pub(crate) fn start(
        self: &Arc<Self>,
        store: SharedStore,
        clock: Clock,
        stop: Arc<AtomicBool>,
    ) -> anyhow::Result<JoinHandle<()>> {
        let mut inner = self.inner();
        inner.begin(&store.state(), clock.now())?;
        inner.restore(clock.now())?;
        drop(inner);
        let (this, settings) = (Arc::clone(self), store.clone());
        let run = move || {
            let mut round = 0_u32;
            while !stop.load(Relaxed) {
                thread::park_timeout(TICK);
                round = round.wrapping_add(1);
                let state = store.state();
                this.inner().tick(&state, clock.now(), round.is_multiple_of(FILE));
            }
        };
        let running = thread::Builder::new()
            .name("ipsec".into())
            .spawn(run)
            .context("ipsec thread")?;
        // Our ends may be among the node's settings: traffic that comes right after them does not wait for the next look.
        let thread = running.thread().clone();
        settings.subscribe(Box::new(move |committed| {
            if committed
                .events
                .iter()
                .any(|event| matches!(event.object, Object::Node(_)))
            {
                thread.unpark();
            }
        }));
        Ok(running)
    }

    /// After the workers stopped: writes exactly which sequence numbers were used.
    pub(crate) fn finish(&self) {
        let mut inner = self.inner();
        if let Err(error) = inner.database.checkpoint() {
            warn!("{error}: sequence numbers are skipped at the next start");
        }
        if let Err(error) = inner.save() {
            warn!("{error}: what was used of lifetimes is forgotten");
        }
    }
}

impl Inner {
    fn begin(&mut self, state: &State, now: u64) -> anyhow::Result<()> {
        self.local = self.local_ends(state);
        let all: Vec<_> = self.nodes.keys().copied().collect();
        self.update(now, &all, &[])
            .map_err(anyhow::Error::msg)
            .context("ipsec")?;
        if self.announced.is_some() {
            info!(
                "encryption between nodes with key {}, {} nodes",
                self.announced.map_or(0, KeyIndex::get),
                self.nodes.len()
            );
        }
        Ok(())
    }

    fn tick(&mut self, state: &State, now: u64, file: bool) {
        for event in self.database.tick(now) {
            warn!("{event}");
            let reqid = program::reqid(&self.database, &event);
            self.events.add(&event, reqid);
        }
        let mut changed = self.again | self.keys.retire(now);
        if file {
            match self.keys.look(now, RandomState::new().hash_one(now)) {
                Ok(None) => {}
                Ok(Some(new)) => {
                    changed |= new;
                    self.keys.error = None;
                }
                Err(error) => {
                    let text = error.to_string();
                    if self.keys.error.as_ref() != Some(&text) {
                        warn!("{text}; the keys stay as they are");
                    }
                    self.keys.error = Some(text);
                }
            }
        }
        let local = self.local_ends(state);
        if local != self.local {
            self.local = local;
            changed = true;
        }
        if changed {
            let all: Vec<_> = self.nodes.keys().copied().collect();
            let result = self.update(now, &all, &[]);
            let tried = std::mem::replace(&mut self.again, result.is_err());
            match result {
                Ok(()) => info!(
                    "encryption between nodes with key {}, in use: {:?}",
                    self.announced.map_or(0, KeyIndex::get),
                    self.keys
                        .held()
                        .iter()
                        .map(|held| held.key.index.get())
                        .collect::<Vec<_>>()
                ),
                Err(error) if !tried => warn!("ipsec: {error}"),
                // Told already.
                Err(_) => {}
            }
        }
    }

    /// Our ends: one of each family at most.
    fn local_ends(&self, state: &State) -> Vec<IpAddr> {
        if !self.configured.is_empty() {
            return self.configured.clone();
        }
        let node = state.node();
        let first = |v4: bool| node.addresses.iter().copied().find(|addr| addr.is_ipv4() == v4);
        let v4 = node.tunnel.local4.map(IpAddr::V4).or_else(|| first(true));
        let v6 = node.tunnel.local6.map(IpAddr::V6).or_else(|| first(false));
        v4.into_iter().chain(v6).collect()
    }

    /// What a node needs: the changes that make its security associations and itself, and the names of those.
    fn plan(&self, addr: IpAddr, node: &Node) -> Result<(Vec<Change>, NodeConfig, Vec<SaKey>), String> {
        let local = self.local.iter().find(|it| it.is_ipv4() == node.end.is_ipv4());
        let (mut changes, mut outbound, mut names) = (Vec::new(), Vec::new(), Vec::new());
        if let (Some(local), Some(_)) = (local, node.key) {
            let here = End {
                addr: *local,
                boot_id: &self.boot_id,
            };
            let there = End {
                addr: node.end,
                boot_id: &node.boot_id,
            };
            for held in self.keys.held() {
                let pair = pair_sas(&held.key, here, there, None).map_err(|error| error.to_string())?;
                let (inbound, out) = (pair.inbound, pair.outbound);
                outbound.push((held.key.index, out.key()));
                names.extend([inbound.key(), out.key()]);
                changes.extend([Change::PutSa(Box::new(inbound)), Change::PutSa(Box::new(out))]);
            }
        }
        let config = NodeConfig {
            addr,
            id: node.id,
            announced: node.key,
            outbound,
        };
        Ok((changes, config, names))
    }

    /// Brings the security associations of these nodes up to date, and removes those of others, in one transaction: new keys
    /// are there before they are announced, and old ones go after everything that used them.
    fn update(&mut self, now: u64, put: &[IpAddr], removed: &[IpAddr]) -> Result<(), String> {
        let (mut changes, mut configs) = (Vec::new(), Vec::new());
        let mut sas_of = BTreeMap::new();
        for addr in put {
            let Some(node) = self.nodes.get(addr) else {
                continue;
            };
            let (sas, config, names) = self
                .plan(*addr, node)
                .map_err(|error| format!("node {addr}: {error}"))?;
            changes.extend(sas);
            configs.push(Change::PutNode(config));
            sas_of.insert(*addr, names);
        }
        let announced = self.keys.announced();
        changes.push(Change::SetLocalKey(announced));
        changes.extend(configs);
        changes.extend(removed.iter().map(|addr| Change::DeleteNode(*addr)));
        let mut users = self.users.clone();
        let mut left = HashSet::new();
        for name in sas_of.values().flatten() {
            *users.entry(*name).or_default() += 1;
        }
        for addr in put.iter().chain(removed) {
            for name in self.sas_of.get(addr).into_iter().flatten() {
                if let Some(count) = users.get_mut(name) {
                    *count -= 1;
                    if *count == 0 {
                        users.remove(name);
                        left.insert(*name);
                    }
                }
            }
        }
        changes.extend(left.into_iter().map(Change::DeleteSa));
        self.database
            .apply(now, changes)
            .map_err(|ApplyError { error, .. }| error.to_string())?;
        for addr in removed {
            self.sas_of.remove(addr);
        }
        self.sas_of.extend(sas_of);
        self.users = users;
        self.announced = announced;
        Ok(())
    }
}
