//! An endpoint's packets through the engine, encryption, and the engine again where they come in: what a worker does with
//! them between two devices. With native routing, so that what is encrypted has the size that was asked for.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Context, ensure};
use dpdk::mempool::MbufAllocator;
use dpdk::{ArrayVec, Mbuf, Mempool, PacketBuf, cycles, free_all};
use octoplane_engine::{
    BURST, Engine, EngineConfig, Framing, HostMac, IpsecConfig, Memory, Output, WorkerStats,
};
use octoplane_esp::cilium::KeyIndex;
use octoplane_esp::db::{Change as EspChange, NodeConfig};
use octoplane_esp::software::{Library, Plan, Software};
use octoplane_flow::FlowTable;
use octoplane_packet::headers::{ETHERNET_LEN, ethertype};
use octoplane_packet::{BufPool, Prefix};
use octoplane_tables::model::{
    Change, IpcacheEntry, MAX_PORTS, Neighbour, Origin, PortId, Route, RouteTarget,
};
use octoplane_tables::{SharedStore, Store};
use octoplane_worker::crypto::CryptoProvider;
use octoplane_worker::{Clock, IpsecStage};

use super::path::{Path, Sealing};
use super::sas::{End, PEER, outbound_key};
use super::setup::{Operation, ROUND, Setup, TRAILER};
use crate::frames::{FCS, Flow, Frame, build};
use crate::generator::model_ports;
use crate::scenario::{GATEWAYS, Scenario, address, endpoint_mac, endpoints, neighbour_mac, port_mac};
use crate::worker::{CAPACITY, add_drops};

/// Endpoints behind port 0, the other nodes behind port 1.
const SCENARIO: Scenario = Scenario::PodToUplink;
const PODS: PortId = 0;
const UPLINK: PortId = 1;
/// Endpoints, and flows at least.
const FLOWS: u32 = 64;
/// Security identity of the other nodes' endpoints.
const IDENTITY: u32 = 5000;
/// The key that all nodes announce.
const KEY: u32 = 1;

/// What all workers have in common.
pub(super) struct Node {
    store: SharedStore,
    memory: Memory,
    ipsec: IpsecConfig,
    frames: Vec<Frame>,
    clock: Clock,
}

impl Node {
    /// The tables of a node, which has this end of the security associations. With several of them each leads to another node,
    /// and each flow to the next one.
    pub(super) fn new(setup: &Setup, end: &mut End) -> anyhow::Result<Self> {
        let key = KeyIndex::new(KEY).context("a key")?;
        let nodes = match setup.operation {
            Operation::Encrypt => setup.sas,
            Operation::Decrypt => 1,
        };
        let flows = setup.flows.max(FLOWS).max(setup.sas);
        let mut changes = vec![EspChange::SetLocalKey(Some(key))];
        changes.extend((0..nodes).map(|index| {
            EspChange::PutNode(NodeConfig {
                addr: node(index),
                id: index as u16 + 1,
                announced: Some(key),
                outbound: match setup.operation {
                    Operation::Encrypt => vec![(key, outbound_key(index))],
                    Operation::Decrypt => Vec::new(),
                },
            })
        }));
        end.db.apply(0, changes)?;
        let store = SharedStore::new(Store::new(model_ports(SCENARIO), GATEWAYS, CAPACITY)?);
        let mut changes = endpoints(PODS.into());
        changes.push(Change::PutNeighbour(Neighbour {
            port: UPLINK,
            addr: PEER,
            mac: Some(neighbour_mac(UPLINK.into(), 0)),
            origin: Origin::Static,
        }));
        changes.push(Change::PutRoute(Route {
            prefix: Prefix::containing(node(1), 16),
            target: RouteTarget::Gateway {
                port: UPLINK,
                gateway: PEER,
            },
            mtu: None,
        }));
        changes.extend((0..flows).map(|index| {
            Change::PutIpcache(IpcacheEntry {
                prefix: Prefix::host(address(UPLINK.into(), false, index)),
                identity: IDENTITY,
                tunnel: Some(node(index % nodes)),
                key: KEY as u8,
                skip_tunnel: false,
            })
        }));
        store.apply(changes)?;
        Ok(Self {
            memory: Memory::new(Arc::new(FlowTable::new(
                (flows * 4).next_power_of_two().max(1 << 16),
            )?))?,
            ipsec: IpsecConfig {
                reader: end.db.reader(),
                strict: false,
                framing: Framing::default(),
                cut: false,
            },
            frames: frames(setup, flows)?,
            store,
            clock: Clock::start(),
        })
    }

    /// What packets look like that the other end seals.
    pub(super) fn frames(&self) -> &[Frame] {
        &self.frames
    }
}

/// Another node's address; the first one is the other end of all security associations.
fn node(index: u32) -> IpAddr {
    match index {
        0 => PEER,
        index => Ipv4Addr::from_bits(Ipv4Addr::new(10, 64, 0, 0).to_bits() + index).into(),
    }
}

/// What endpoints here send to endpoints there, or the other way round: the packet with trailer as large as asked for.
fn frames(setup: &Setup, flows: u32) -> anyhow::Result<Vec<Frame>> {
    let len = setup
        .size
        .checked_sub(TRAILER)
        .filter(|len| *len >= 28 && setup.size.is_multiple_of(4))
        .context("--size: a multiple of 4 from 32 on")?;
    ensure!(len <= 1446, "--size: at most 1448, for an MTU of 1500");
    let frame = |index: u32| {
        let (here, there) = (
            address(PODS.into(), false, index % FLOWS),
            address(UPLINK.into(), false, index),
        );
        let encrypt = setup.operation == Operation::Encrypt;
        let flow = Flow {
            src_mac: endpoint_mac(PODS.into(), index % FLOWS),
            dst_mac: port_mac(PODS.into()),
            src: if encrypt { here } else { there },
            dst: if encrypt { there } else { here },
            src_port: 1024,
            dst_port: 9,
        };
        build(&flow, len + ETHERNET_LEN as u16 + FCS)
    };
    Ok((0..flows).map(frame).collect())
}

/// Where packets come from.
pub(super) enum Source {
    /// From endpoints here.
    Pods(MbufAllocator, usize),
    /// From another node's, sealed by it.
    Peer(Box<Sealing>),
}

/// One worker.
pub(super) struct EnginePath {
    engine: Engine<MbufAllocator>,
    stage: IpsecStage,
    out: Output<Mbuf>,
    stats: Arc<WorkerStats>,
    clock: Clock,
    frames: Vec<Frame>,
    source: Source,
    bursts: Vec<ArrayVec<Mbuf, BURST>>,
    through: u64,
    refused: BTreeMap<String, u64>,
}

impl EnginePath {
    pub(super) fn new(
        setup: &Setup,
        node: &Node,
        worker: usize,
        source: Source,
        provider: CryptoProvider,
        pool: &Mempool,
    ) -> anyhow::Result<Self> {
        let stats = Arc::new(WorkerStats::default());
        let config = EngineConfig {
            cycles: cycles::now,
            ..EngineConfig::default()
        };
        let mut engine = Engine::new(
            node.store.reader(),
            pool.allocator(),
            Arc::clone(&stats),
            Arc::new(HostMac::default()),
            node.memory.part(worker, setup.workers.len())?,
            &config,
        );
        engine.set_ipsec(node.ipsec.clone());
        Ok(Self {
            engine,
            stage: IpsecStage::new(&node.ipsec, provider),
            out: Output::new(MAX_PORTS),
            stats,
            clock: node.clock,
            frames: node.frames.clone(),
            source,
            bursts: (0..ROUND.div_ceil(setup.burst.into()))
                .map(|_| ArrayVec::new())
                .collect(),
            through: 0,
            refused: BTreeMap::new(),
        })
    }

    /// What devices would be given is freed.
    fn send(&mut self, way_out: PortId) {
        for id in self.out.take_touched() {
            let Some(queue) = self.out.queue(id) else { continue };
            if id == way_out {
                self.through += queue.len() as u64;
            }
            free_all(queue);
        }
        free_all(&mut self.out.free);
    }

    fn encryption(&mut self) {
        if self.stage.is_busy() || !self.out.seal.is_empty() || !self.out.open.is_empty() {
            let now = self.clock.ns(cycles::now());
            self.stage.run(now, &mut self.engine, &mut self.out);
        }
    }

    /// Where packets come in, and where they leave.
    fn ports(&self) -> (PortId, PortId) {
        match self.source {
            Source::Pods(..) => (PODS, UPLINK),
            Source::Peer(_) => (UPLINK, PODS),
        }
    }
}

impl Path for EnginePath {
    fn fill(&mut self) -> anyhow::Result<()> {
        let burst_len = ROUND / self.bursts.len().max(1);
        match &mut self.source {
            Source::Pods(alloc, next) => {
                for burst in &mut self.bursts {
                    while burst.len() < burst_len {
                        let frame = self.frames.get(*next).context("no frame")?;
                        *next = (*next + 1) % self.frames.len();
                        let mut buf = alloc.alloc().context("no packet buffers are left")?;
                        let data = buf.append(frame.len())?;
                        if let Some(front) = data.get_mut(..frame.header().len()) {
                            front.copy_from_slice(frame.header());
                        }
                        burst.push(buf);
                    }
                }
            }
            Source::Peer(peer) => {
                let mut header = [0; ETHERNET_LEN];
                header[..6].copy_from_slice(&port_mac(UPLINK.into()).0);
                header[6..12].copy_from_slice(&neighbour_mac(UPLINK.into(), 0).0);
                header[12..].copy_from_slice(&ethertype::IPV4.to_be_bytes());
                peer.fill()?;
                for (index, burst) in self.bursts.iter_mut().enumerate() {
                    peer.seal(index, |mut buf| {
                        buf.prepend(ETHERNET_LEN)?[..ETHERNET_LEN].copy_from_slice(&header);
                        burst.push(buf);
                        Ok(())
                    })?;
                }
            }
        }
        Ok(())
    }

    fn run(&mut self) {
        let (way_in, way_out) = self.ports();
        for index in 0..self.bursts.len() {
            let now = self.clock.ns(cycles::now());
            let Some(burst) = self.bursts.get_mut(index) else {
                break;
            };
            self.engine.process(now, way_in, burst, &mut self.out);
            self.engine.tick(now, &mut self.out);
            self.encryption();
            self.send(way_out);
        }
        while self.stage.is_busy() {
            self.encryption();
            self.send(way_out);
        }
        self.engine.refresh();
    }

    fn counts(&mut self) -> (u64, &BTreeMap<String, u64>) {
        self.refused.clear();
        add_drops(&self.stats, &mut self.refused);
        (self.through, &self.refused)
    }

    fn finish(&mut self) {
        let (_, way_out) = self.ports();
        while self.stage.is_busy() {
            self.encryption();
            self.send(way_out);
        }
        self.engine.clear();
    }
}

/// The other end, which seals what is sent here.
pub(super) fn peer(sealing: super::path::Encrypting) -> Source {
    Source::Peer(Box::new(Sealing::new(
        sealing,
        Software::new(Arc::new(Plan::only(Library::AwsLc)), 2 * ROUND),
    )))
}
