//! A data plane without packets behind a real control socket; the tables are the real ones.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use octoplane_api::v1;
use octoplane_api::v1::change::Change as Step;
use octoplane_api::v1::config_client::ConfigClient;
use octoplane_api::v1::flows_client::FlowsClient;
use octoplane_api::v1::stats_client::StatsClient;
use octoplane_control::{
    Access, Dataplane, PortRefusal, PortSettings, Saved, ServeError, Server, StateError, StateFile,
    StateJournal, flow_tuple,
};
use octoplane_engine::Timeouts;
use octoplane_flow::{FlowHandle, FlowRef, FlowTable, Tuple};
use octoplane_packet::MacAddr;
use octoplane_tables::model::{Change, MAX_PORTS, Port, PortId, Role};
use octoplane_tables::{Capacity, Gateways, SharedStore, State, Store};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// Answers with made-up numbers.
pub struct Fake {
    store: SharedStore,
    /// The ports that were added.
    added: Mutex<BTreeMap<String, PortSettings>>,
    flows: Arc<FlowTable>,
    saved: Option<Arc<StateJournal>>,
}

impl Dataplane for Fake {
    fn store(&self) -> &SharedStore {
        &self.store
    }

    fn saved(&self) -> Option<&StateJournal> {
        self.saved.as_deref()
    }

    fn status(&self) -> v1::Status {
        v1::Status {
            version: "1.2.3".into(),
            dpdk: "DPDK 99.11".into(),
            uptime_ms: 61_500,
            startup_ms: 250,
            workers: vec![v1::Worker {
                core: 3,
                poll: "busy".into(),
                rounds: 10,
                busy_cycles: 750,
                idle_cycles: 250,
                bursts: 2,
                packets: 30,
                burst_sizes: vec![0, 0, 0, 0, 2, 0, 0, 0],
                ..Default::default()
            }],
            mbufs_in_use: 7,
            mbufs: 1024,
            ..Default::default()
        }
    }

    fn port_stats(&self, xstats: bool) -> Vec<v1::PortStats> {
        let port = |it: &Port| v1::PortStats {
            name: it.name.clone(),
            driver: "net_fake".into(),
            link_up: true,
            rx_packets: 10 + u64::from(it.id),
            tx_full: 1,
            device_stats: Some(v1::DeviceStats {
                rx_missed: 5,
                ..Default::default()
            }),
            xstats: xstats
                .then(|| v1::Xstat {
                    name: "rx_q0_packets".into(),
                    value: 10,
                })
                .into_iter()
                .collect(),
            ..Default::default()
        };
        self.store.state().ports().map(port).collect()
    }

    fn flows(&self) -> &FlowTable {
        &self.flows
    }

    /// As the daemon does, but for a clock that stands at ten seconds.
    fn flow(&self, state: &State, flow: FlowRef) -> Option<v1::Flow> {
        let view = octoplane_engine::describe(
            &self.flows,
            flow,
            state.last_changed(),
            10_000_000_000,
            &Timeouts::default(),
        )?;
        let direction = |tuple: &Tuple| v1::FlowDirection {
            tuple: Some(flow_tuple(tuple)),
            translated: view.forward.tuple.reverse() != view.reply.tuple,
            decided: true,
            current: true,
            in_port: "pod1".into(),
            identity: 1001,
            target: 3,
        };
        Some(v1::Flow {
            forward: Some(direction(&view.forward.tuple)),
            reply: Some(direction(&view.reply.tuple)),
            state: v1::FlowState::Open.into(),
            idle_seconds: view.idle,
            expires_seconds: view.expires,
        })
    }

    fn add_port(&self, port: PortSettings) -> Result<bool, PortRefusal> {
        let mut added = self.added.lock().unwrap();
        match added.get(&port.name) {
            Some(old) if *old == port => return Ok(true),
            Some(_) => {
                return Err(PortRefusal::Exists {
                    field: "name",
                    text: "there is a port of this name already".into(),
                });
            }
            None => {}
        }
        if port.device.name().starts_with("net_nosuch") {
            return Err(PortRefusal::Device("no driver takes it".into()));
        }
        let state = self.store.state();
        let id = (0..MAX_PORTS as PortId).find(|id| state.port(*id).is_none());
        let model = Port {
            id: id.unwrap_or(MAX_PORTS as PortId),
            name: port.name.clone(),
            role: match port.role.as_str() {
                "pod" => Role::Pod,
                "uplink" => Role::Uplink,
                _ => Role::Host,
            },
            mac: port.mac.unwrap_or(MacAddr([2, 0, 0, 0, 2, 0])),
            mtu: port.mtu,
            admin_up: true,
            addresses: port.addresses.iter().map(|it| (it.addr, it.prefix_len)).collect(),
        };
        self.store
            .apply(vec![Change::AddPort(model)])
            .map_err(|refused| refused.error)?;
        let takes_long = port.device.name().starts_with("net_slow");
        added.insert(port.name.clone(), port);
        drop(added);
        if takes_long {
            std::thread::sleep(std::time::Duration::from_millis(500));
        }
        Ok(false)
    }

    fn remove_port(&self, name: &str) -> Result<(), PortRefusal> {
        let state = self.store.state();
        let port = state
            .port_by_name(name)
            .ok_or_else(|| PortRefusal::NoSuchPort(name.into()))?;
        self.store
            .apply(vec![Change::RemovePort { id: port.id }])
            .map_err(|refused| refused.error)?;
        self.added.lock().unwrap().remove(name);
        Ok(())
    }

    fn drops(&self) -> Vec<v1::Drop> {
        vec![v1::Drop {
            code: 130,
            reason: "Invalid source mac".into(),
            direction: "egress".into(),
            packets: 4,
            bytes: 256,
        }]
    }

    fn stages(&self) -> Vec<v1::Stage> {
        vec![v1::Stage {
            worker: 0,
            name: "parse".into(),
            calls: 2,
            packets: 30,
            timed_packets: 15,
            timed_cycles: 150,
        }]
    }
}

/// A table for as many as one list is to have in the largest test.
const CONNECTIONS: u32 = 300_000;

/// A connection from `10.0.0.0 + n` to a service, which a backend answers, as of the second in which [`Fake`]'s clock stands.
pub fn connect(worker: &mut FlowHandle, n: u32, protocol: u8) -> FlowRef {
    let client = 0x0a00_0000 + n;
    let forward = Tuple::v4(client, 0xac14_0001, 4000, 80, protocol, 0);
    let reply = Tuple::v4(0x0a63_0001, client, 8080, 4000, protocol, 0);
    worker
        .insert([&forward, &reply], [[0, 0, 11], [0; 3]], 71)
        .unwrap()
}

fn port(id: PortId, name: &str, role: Role, addresses: &[&str]) -> Port {
    Port {
        id,
        name: name.into(),
        role,
        mac: MacAddr([2, 0, 0, 0, 1, id as u8]),
        mtu: 1500,
        admin_up: true,
        addresses: addresses
            .iter()
            .map(|text| {
                let (addr, len) = text.split_once('/').unwrap();
                (addr.parse().unwrap(), len.parse().unwrap())
            })
            .collect(),
    }
}

/// Tables over the ports pod1, pod2, uplink0 and host0.
pub fn store(capacity: Capacity) -> SharedStore {
    SharedStore::new(tables(capacity, &["pod1", "pod2", "uplink0", "host0"]))
}

/// The same, with only some of the ports.
pub fn tables(capacity: Capacity, names: &[&str]) -> Store {
    let mut ports = vec![
        port(0, "pod1", Role::Pod, &[]),
        port(1, "pod2", Role::Pod, &[]),
        port(2, "uplink0", Role::Uplink, &["192.0.2.2/24", "2001:db8::2/64"]),
        port(3, "host0", Role::Host, &[]),
    ];
    ports.retain(|port| names.contains(&port.name.as_str()));
    let gateways = Gateways {
        ipv4: "169.254.1.1".parse().unwrap(),
        ipv6: "fe80::1".parse().unwrap(),
    };
    Store::new(ports, gateways, capacity).unwrap()
}

/// Opens a state directory that was a server's before: who watched there lets go of it soon after the server's end.
pub fn reopen(state: &std::path::Path) -> (StateFile, Saved) {
    let begin = std::time::Instant::now();
    loop {
        match StateFile::open(state) {
            Err(StateError::InUse(_)) if begin.elapsed() < std::time::Duration::from_mins(1) => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            opened => return opened.unwrap(),
        }
    }
}

/// A server over its own tables. Dropping it stops it.
pub struct Lab {
    pub socket: PathBuf,
    pub store: SharedStore,
    pub directory: TempDir,
    pub flows: Arc<FlowTable>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<Result<(), ServeError>>>,
}

impl Lab {
    pub async fn start() -> Self {
        Self::with(Capacity::default()).await
    }

    pub async fn with(capacity: Capacity) -> Self {
        Self::over(store(capacity), None, Access::default()).await
    }

    pub async fn with_access(access: Access) -> Self {
        Self::over(store(Capacity::default()), None, access).await
    }

    /// Goes on where the daemon stopped that had this state directory.
    pub async fn resume(state: &std::path::Path) -> Self {
        let (file, saved) = reopen(state);
        let mut tables = tables(Capacity::default(), &["pod1", "pod2", "uplink0", "host0"]);
        let restored = saved.restore(&mut tables).unwrap();
        let journal = file.journal(&tables.state(), restored).unwrap();
        let store = SharedStore::new(tables);
        store.keep(journal.clone());
        Self::over(store, Some(journal), Access::default()).await
    }

    async fn over(store: SharedStore, saved: Option<Arc<StateJournal>>, access: Access) -> Self {
        let directory = TempDir::new().unwrap();
        let socket = directory.path().join("run/octoplane.sock");
        let bound = Server {
            access,
            ..server(&socket)
        }
        .bind()
        .unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let flows = Arc::new(FlowTable::new(CONNECTIONS).unwrap());
        let fake = Arc::new(Fake {
            store: store.clone(),
            added: Mutex::default(),
            flows: flows.clone(),
            saved,
        });
        let task = tokio::spawn(bound.serve(fake, async {
            let _ = stopped.await;
        }));
        let lab = Self {
            socket,
            store,
            directory,
            flows,
            stop: Some(stop),
            task: Some(task),
        };
        // It serves, and remembers what changes, from here on.
        let mut stats = lab.stats().await;
        stats.get_drops(v1::GetDropsRequest {}).await.unwrap();
        lab
    }

    pub async fn channel(&self) -> Channel {
        octoplane_api::connect(&self.socket).await.unwrap()
    }

    pub async fn config(&self) -> ConfigClient<Channel> {
        ConfigClient::new(self.channel().await).max_decoding_message_size(usize::MAX)
    }

    pub async fn stats(&self) -> StatsClient<Channel> {
        StatsClient::new(self.channel().await)
    }

    pub async fn flows(&self) -> FlowsClient<Channel> {
        FlowsClient::new(self.channel().await).max_decoding_message_size(usize::MAX)
    }

    /// A worker, to put connections into the table with.
    pub fn worker(&self) -> FlowHandle {
        FlowHandle::new(self.flows.clone(), 0, 1).unwrap()
    }

    pub fn revision(&self) -> u64 {
        self.store.state().revision()
    }

    /// Stops serving, as the daemon does.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        self.task.take().unwrap().await.unwrap().unwrap();
    }
}

pub fn server(socket: &std::path::Path) -> Server {
    Server {
        socket: socket.into(),
        group: None,
        max_message: 64 << 20,
        access: Access::default(),
    }
}

/// Endpoint number `id` with an address of each family.
pub fn endpoint(id: u32) -> v1::Endpoint {
    v1::Endpoint {
        id,
        name: format!("default/web-{id}"),
        port: "pod1".into(),
        mac: "02:00:00:00:00:01".into(),
        identity: 1000,
        addresses: vec![
            format!("10.{}.{}.{}", 64 + (id >> 16), id >> 8 & 255, id & 255),
            Ipv6Addr::from_bits((0xfd00 << 112) | u128::from(id)).to_string(),
        ],
        ingress_rate: 0,
        egress_rate: 0,
    }
}

/// A route out of uplink0.
pub fn route(prefix: &str, gateway: &str) -> v1::Route {
    v1::Route {
        prefix: prefix.into(),
        target: Some(v1::route::Target::Via(v1::route::Via {
            port: "uplink0".into(),
            gateway: gateway.into(),
        })),
        mtu: 0,
    }
}

/// A static neighbour on uplink0.
pub fn neighbour(address: &str, mac: &str) -> v1::Neighbour {
    v1::Neighbour {
        port: "uplink0".into(),
        address: address.into(),
        mac: mac.into(),
        learned: false,
    }
}

/// A transaction.
pub fn apply(steps: impl IntoIterator<Item = Step>) -> v1::ApplyRequest {
    v1::ApplyRequest {
        changes: steps
            .into_iter()
            .map(|step| v1::Change { change: Some(step) })
            .collect(),
        ..Default::default()
    }
}
