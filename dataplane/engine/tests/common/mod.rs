//! An engine with tables, two pod ports, an uplink and (on request) a host port.

#![allow(dead_code, reason = "not every test binary uses every helper")]

pub(crate) mod bytes;

pub(crate) mod flows;

use std::sync::Arc;

use arrayvec::ArrayVec;
use octoplane_engine::{
    BURST, Direction, DropReason, Engine, EngineConfig, HostMac, Memory, NeighbourEvent, Output, Stage,
    WorkerStats,
};
use octoplane_flow::FlowTable;
use octoplane_packet::{BufPool, HeapBuf, HeapPool, MacAddr, PacketBuf};
use octoplane_tables::model::{Change, Endpoint, Neighbour, Origin, Port, PortId, Role, Route, RouteTarget};
use octoplane_tables::{Capacity, Gateways, Store};

use bytes::{Mac, ip};

pub(crate) const POD0: PortId = 0;
pub(crate) const POD1: PortId = 1;
pub(crate) const UPLINK: PortId = 2;
pub(crate) const HOST: PortId = 3;

/// Our address on each port.
pub(crate) const OURS: [Mac; 4] = [
    [2, 0, 0, 0, 0xff, 0],
    [2, 0, 0, 0, 0xff, 1],
    [2, 0, 0, 0, 0xff, 2],
    [2, 0, 0, 0, 0xff, 3],
];
/// Endpoint 1 behind [`POD0`]: 10.0.0.1 and fd00::1.
pub(crate) const EP1: Mac = [2, 0, 0, 0, 0, 1];
/// Endpoints 2 and 3 behind [`POD1`]: 10.0.0.2, fd00::2; 10.0.0.3, fd00::3.
pub(crate) const EP2: Mac = [2, 0, 0, 0, 0, 2];
pub(crate) const EP3: Mac = [2, 0, 0, 0, 0, 3];
/// The router behind the uplink: 192.0.2.254 and 2001:db8::fe, known when there are default routes.
pub(crate) const ROUTER: Mac = [2, 0, 0, 0, 1, 0xfe];
/// The kernel's address behind the host port.
pub(crate) const KERNEL: Mac = [2, 0, 0, 0, 2, 1];

/// Gateway addresses that pods see.
pub(crate) const GATEWAY4: &str = "169.254.1.1";
pub(crate) const GATEWAY6: &str = "fe80::1";
/// Our addresses on the uplink.
pub(crate) const OWN4: &str = "192.0.2.1";
pub(crate) const OWN6: &str = "2001:db8::1";

pub(crate) const SECOND: u64 = 1_000_000_000;

/// What became of a burst.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Frames to send, by port, in the order of each port's queue.
    pub(crate) sent: Vec<(PortId, Vec<u8>)>,
    /// Buffers given up.
    pub(crate) freed: u64,
    /// Code, direction and number of what was dropped.
    pub(crate) drops: Vec<(u16, Direction, u64)>,
    pub(crate) drop_bytes: u64,
    pub(crate) fast: u64,
    /// Packets that the fast path gave up.
    pub(crate) slow: u64,
    pub(crate) answered: u64,
    pub(crate) consumed: u64,
    pub(crate) punted: u64,
    pub(crate) icmp_errors: u64,
    pub(crate) icmp_suppressed: u64,
    /// Packets waiting now.
    pub(crate) parked: u64,
    pub(crate) events: Vec<NeighbourEvent>,
}

impl Outcome {
    /// The one frame sent; nothing was dropped, nothing ended here.
    #[track_caller]
    pub(crate) fn only(&self) -> (PortId, &[u8]) {
        assert_eq!((self.sent.len(), self.freed), (1, 0), "{self:?}");
        assert!(self.drops.is_empty(), "{self:?}");
        (self.sent[0].0, &self.sent[0].1)
    }

    /// The code of the one packet dropped; nothing was sent.
    #[track_caller]
    pub(crate) fn dropped(&self) -> u16 {
        assert!(self.sent.is_empty(), "{self:?}");
        self.dropped_and_sent().0
    }

    /// The code of the one packet dropped, and what was sent because of it.
    #[track_caller]
    pub(crate) fn dropped_and_sent(&self) -> (u16, &[(PortId, Vec<u8>)]) {
        assert_eq!((self.drops.len(), self.freed), (1, 1), "{self:?}");
        assert_eq!(self.drops[0].2, 1, "{self:?}");
        (self.drops[0].0, &self.sent)
    }

    /// The packet ended here as it should: no frame, no drop.
    #[track_caller]
    pub(crate) fn silent(&self) {
        assert_eq!(
            (self.sent.len(), self.drops.len(), self.freed, self.consumed),
            (0, 0, 1, 1),
            "{self:?}"
        );
    }

    /// How many packets were dropped, whatever for.
    pub(crate) fn drop_count(&self) -> u64 {
        self.drops.iter().map(|drop| drop.2).sum()
    }
}

/// What the engine's counters say.
#[derive(Clone, PartialEq, Eq)]
struct Counts {
    drops: Vec<(u64, u64)>,
    others: [u64; 7],
}

fn counts(stats: &WorkerStats) -> Counts {
    Counts {
        drops: DropReason::ALL
            .iter()
            .flat_map(|&reason| Direction::ALL.map(|direction| stats.drops(reason, direction)))
            .map(|tally| (tally.packets.get(), tally.bytes.get()))
            .collect(),
        others: [
            stats.fast.packets.get(),
            stats.answered.get(),
            stats.consumed.get(),
            stats.punted.get(),
            stats.icmp_errors.get(),
            stats.icmp_suppressed.get(),
            stats.stage(Stage::Slow).packets.get(),
        ],
    }
}

/// How a [`Lab`] is set up.
pub(crate) struct Plan {
    pub(crate) host: bool,
    pub(crate) default_routes: bool,
    pub(crate) mtu: [u16; 4],
    pub(crate) uplink: Vec<(&'static str, u8)>,
    pub(crate) config: EngineConfig,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            host: false,
            default_routes: true,
            mtu: [1500; 4],
            uplink: vec![(OWN4, 24), (OWN6, 64)],
            config: EngineConfig::default(),
        }
    }
}

impl Plan {
    pub(crate) fn lab(self) -> Lab<HeapPool> {
        self.lab_with(HeapPool::default())
    }

    pub(crate) fn lab_with<P: BufPool<Buf = HeapBuf>>(self, pool: P) -> Lab<P> {
        let memory = Memory::new(Arc::new(FlowTable::new(1024).unwrap())).unwrap();
        let mut lab = self.empty_lab(pool, &memory);
        lab.apply(programme(self.default_routes));
        lab
    }

    /// With tables that have ports only, over memory that may have something in it.
    pub(crate) fn empty_lab<P: BufPool<Buf = HeapBuf>>(&self, pool: P, memory: &Memory) -> Lab<P> {
        let store = tables(self);
        let engine = Engine::new(
            store.reader(),
            pool,
            Arc::new(WorkerStats::default()),
            Arc::new(HostMac::default()),
            memory.part(0, 1).unwrap(),
            &self.config,
        );
        Lab {
            store,
            engine,
            flows: Arc::clone(&memory.flows),
            out: Output::new(4),
            now: SECOND,
        }
    }
}

fn tables(plan: &Plan) -> Store {
    let roles = [Role::Pod, Role::Pod, Role::Uplink, Role::Host];
    let names = ["pod0", "pod1", "uplink0", "host"];
    let ports = (0..if plan.host { 4 } else { 3 })
        .map(|id| Port {
            id: id as PortId,
            name: names[id].into(),
            role: roles[id],
            mac: MacAddr(OURS[id]),
            mtu: plan.mtu[id],
            admin_up: true,
            addresses: if roles[id] == Role::Uplink {
                plan.uplink.iter().map(|&(addr, len)| (ip(addr), len)).collect()
            } else {
                Vec::new()
            },
        })
        .collect();
    let gateways = Gateways {
        ipv4: bytes::v4(GATEWAY4),
        ipv6: bytes::v6(GATEWAY6),
    };
    let capacity = Capacity {
        fib_nodes_v4: 256,
        fib_nodes_v6: 1024,
        ..Capacity::default()
    };
    Store::new(ports, gateways, capacity).unwrap()
}

pub(crate) fn programme(default_routes: bool) -> Vec<Change> {
    let mut changes = vec![
        endpoint(1, POD0, EP1, &["10.0.0.1", "fd00::1"]),
        endpoint(2, POD1, EP2, &["10.0.0.2", "fd00::2"]),
        endpoint(3, POD1, EP3, &["10.0.0.3", "fd00::3"]),
        route("10.9.0.0/16", RouteTarget::Blackhole, None),
        route("fd09::/16", RouteTarget::Blackhole, None),
    ];
    if default_routes {
        for (prefix, gateway) in [("0.0.0.0/0", "192.0.2.254"), ("::/0", "2001:db8::fe")] {
            changes.extend([
                route(prefix, via(gateway), None),
                neighbour(gateway, Some(ROUTER)),
            ]);
        }
    }
    changes
}

pub(crate) fn endpoint(id: u32, port: PortId, mac: Mac, addresses: &[&str]) -> Change {
    Change::PutEndpoint(Endpoint {
        id,
        name: format!("test/pod-{id}"),
        port,
        mac: MacAddr(mac),
        identity: 1000 + id,
        addresses: addresses.iter().map(|addr| ip(addr)).collect(),
        ingress_rate: 0,
        egress_rate: 0,
    })
}

pub(crate) fn via(gateway: &str) -> RouteTarget {
    RouteTarget::Gateway {
        port: UPLINK,
        gateway: ip(gateway),
    }
}

pub(crate) fn route(prefix: &str, target: RouteTarget, mtu: Option<u16>) -> Change {
    Change::PutRoute(Route {
        prefix: prefix.parse().unwrap(),
        target,
        mtu,
    })
}

pub(crate) fn neighbour(addr: &str, mac: Option<Mac>) -> Change {
    Change::PutNeighbour(Neighbour {
        port: UPLINK,
        addr: ip(addr),
        mac: mac.map(MacAddr),
        origin: Origin::Learned,
    })
}

pub(crate) fn admin(id: PortId, up: bool) -> Change {
    Change::SetPort {
        id,
        mtu: None,
        admin_up: Some(up),
    }
}

/// An engine, its tables and its output.
pub(crate) struct Lab<P: BufPool> {
    pub(crate) store: Store,
    pub(crate) engine: Engine<P>,
    pub(crate) flows: Arc<FlowTable>,
    pub(crate) out: Output<HeapBuf>,
    pub(crate) now: u64,
}

/// No host port, default routes.
pub(crate) fn lab() -> Lab<HeapPool> {
    Plan::default().lab()
}

/// With a host port and without default routes, so that there are unknown destinations.
pub(crate) fn lab_with_host() -> Lab<HeapPool> {
    Plan {
        host: true,
        default_routes: false,
        ..Plan::default()
    }
    .lab()
}

impl<P: BufPool<Buf = HeapBuf>> Lab<P> {
    pub(crate) fn apply(&mut self, changes: Vec<Change>) {
        self.store.apply(changes).unwrap();
    }

    /// Sends one frame through.
    pub(crate) fn one(&mut self, port: PortId, frame: &[u8]) -> Outcome {
        self.burst(port, &[frame])
    }

    /// Sends frames through together.
    pub(crate) fn burst<F: AsRef<[u8]>>(&mut self, port: PortId, frames: &[F]) -> Outcome {
        let mut burst: ArrayVec<HeapBuf, BURST> =
            frames.iter().map(|frame| HeapBuf::new(frame.as_ref())).collect();
        let before = counts(self.engine.stats());
        self.engine.process(self.now, port, &mut burst, &mut self.out);
        assert!(burst.is_empty());
        self.outcome(&before)
    }

    /// Lets time pass and looks after what waits.
    pub(crate) fn tick(&mut self, nanoseconds: u64) -> Outcome {
        self.now += nanoseconds;
        let before = counts(self.engine.stats());
        self.engine.tick(self.now, &mut self.out);
        self.outcome(&before)
    }

    fn outcome(&mut self, before: &Counts) -> Outcome {
        let after = counts(self.engine.stats());
        let mut outcome = Outcome {
            freed: self.out.free.drain(..).count() as u64,
            parked: self.engine.stats().parked.get(),
            events: self.engine.events().collect(),
            ..Outcome::default()
        };
        for port in self.out.take_touched() {
            let queue = self.out.queue(port).unwrap();
            outcome
                .sent
                .extend(queue.drain(..).map(|buf| (port, buf.data().to_vec())));
        }
        for port in 0..4 {
            assert!(
                self.out.queue(port).unwrap().is_empty(),
                "port {port} not touched"
            );
        }
        for (index, (new, old)) in after.drops.iter().zip(&before.drops).enumerate() {
            if new.0 > old.0 {
                let reason = DropReason::ALL[index / 2];
                outcome
                    .drops
                    .push((reason.code(), Direction::ALL[index % 2], new.0 - old.0));
            }
            outcome.drop_bytes += new.1 - old.1;
        }
        let [
            fast,
            answered,
            consumed,
            punted,
            icmp_errors,
            icmp_suppressed,
            slow,
        ] = std::array::from_fn(|at| after.others[at] - before.others[at]);
        Outcome {
            fast,
            slow,
            answered,
            consumed,
            punted,
            icmp_errors,
            icmp_suppressed,
            ..outcome
        }
    }
}

/// What a router has to make of an IP packet on its way: TTL and checksum, nothing else (RFC 1812, RFC 8200).
pub(crate) fn forwarded(frame: &[u8], dst: Mac, src: Mac) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[..6].copy_from_slice(&dst);
    frame[6..12].copy_from_slice(&src);
    match bytes::be16(&frame, 12) {
        0x0800 => {
            let header = 14 + usize::from(frame[14] % 16) * 4;
            frame[22] -= 1;
            frame[24..26].fill(0);
            let sum = bytes::internet_checksum(&frame[14..header]);
            bytes::put16(&mut frame, 24, sum);
        }
        0x86dd => frame[21] -= 1,
        _ => unreachable!("not IP"),
    }
    frame
}
