//! The engine of one worker with its tables and a clock that others set.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrayvec::ArrayVec;
use octoplane_api::v1;
use octoplane_convert::{Located, Transaction, changes, steps};
use octoplane_engine::{
    BURST, Direction, DropReason, Engine, Event, EventKind, FlowView, HostMac, Interest, Memory,
    NeighbourEvent, Output, PolicyVerdict, WorkerStats, describe,
};
use octoplane_flow::{FlowError, FlowRef, FlowTable, Hasher, Tuple};
use octoplane_observe::{ExplainError, Live, Scratch, explain};
use octoplane_packet::{HeapBuf, HeapPool, PacketBuf};
use octoplane_state::{Mistake, State as File};
use octoplane_tables::model::{Change, PortId};
use octoplane_tables::{Committed, State, Store, StoreError};

use crate::neighbours::Neighbours;
use crate::setup::Setup;

/// The time a simulation begins at, in nanoseconds: a clock that has just been started would be 0.
pub const BEGIN: u64 = 1_000_000_000;

/// Verdicts of one burst: two policies for each packet, and packets that waited.
const EVENTS: usize = 4 * BURST + 1024;

/// A node's data plane without devices.
pub struct Sim {
    store: Store,
    engine: Engine<HeapPool>,
    out: Output<HeapBuf>,
    flows: Arc<FlowTable>,
    memory: Memory,
    /// What engines that explain remember.
    scratch: Mutex<Scratch>,
    setup: Setup,
    now: u64,
    neighbours: Neighbours,
    /// What came out since it was asked for.
    seen: Outcome,
    /// What the counters said then.
    counted: Outcome,
}

/// What came out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Frames sent, by port, in the order of each port's queue.
    pub sent: Vec<(PortId, Vec<u8>)>,
    /// Packets dropped, by reason and direction.
    pub drops: BTreeMap<(u16, &'static str), u64>,
    /// Packets for the kernel.
    pub punted: u64,
    /// Packets that ended here as they should.
    pub consumed: u64,
    /// Pings, ARP requests and neighbour solicitations answered.
    pub answered: u64,
    /// Denials that audit mode lets pass.
    pub audited: u64,
    /// What policies said of packets that begin a connection, are refused, audited or sent through a proxy.
    pub verdicts: Vec<PolicyVerdict>,
    /// Stations that packets wait for, and what was heard of stations.
    pub neighbours: Vec<NeighbourEvent>,
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// There is not enough memory.
    #[error("{0}")]
    Tables(#[from] StoreError),
    /// There is not enough memory for connections.
    #[error("connections: {0}")]
    Flows(#[from] FlowError),
    /// An entry of a state cannot be.
    #[error("{0}: {1}")]
    Entry(String, String),
    /// The tables say no.
    #[error("{0}")]
    Refused(#[from] Located),
    /// What is asked about cannot be.
    #[error("{0}")]
    Question(#[from] ExplainError),
    /// There is no such port.
    #[error("port: there is no port \"{0}\", only {1}")]
    NoSuchPort(String, String),
}

impl From<Mistake> for SimError {
    fn from(it: Mistake) -> Self {
        Self::Entry(it.entry, it.text)
    }
}

impl Sim {
    /// A data plane with these ports and empty tables, at [`BEGIN`].
    ///
    /// # Errors
    /// [`SimError::Tables`], [`SimError::Flows`]: no memory, or ports that cannot be.
    pub fn new(setup: Setup) -> Result<Self, SimError> {
        let store = Store::new(setup.ports.clone(), setup.gateways, setup.capacity)?;
        let words = [0, 1, 2, 3].map(|n| scramble(setup.seed.wrapping_add(n)));
        let flows = Arc::new(FlowTable::with_hasher(setup.connections, Hasher::seeded(words))?);
        let memory = Memory::new(Arc::clone(&flows))?;
        let config = octoplane_engine::EngineConfig {
            seed: Some(scramble(setup.seed)),
            // Emptied after each burst: nothing is lost.
            events: (EVENTS, u32::MAX),
            ..setup.engine.clone()
        };
        let engine = Engine::new(
            store.reader(),
            HeapPool::default(),
            Arc::new(WorkerStats::default()),
            Arc::new(HostMac::default()),
            memory.part(0, 1)?,
            &config,
        );
        engine.monitor().set(Interest {
            kinds: Interest::VERDICTS,
            endpoint: None,
        });
        Ok(Self {
            memory,
            scratch: Mutex::default(),
            out: Output::new(setup.ports.len()),
            neighbours: Neighbours::new(setup.learn),
            store,
            engine,
            flows,
            setup,
            now: BEGIN,
            seen: Outcome::default(),
            counted: Outcome::default(),
        })
    }

    /// The time, in nanoseconds.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// What it was set up with.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The tables as they are.
    pub fn state(&self) -> State {
        self.store.state()
    }

    /// The number of a port.
    ///
    /// # Errors
    /// [`SimError::NoSuchPort`]
    pub fn port(&self, name: &str) -> Result<PortId, SimError> {
        let found = self.setup.ports.iter().find(|port| port.name == name);
        found.map(|port| port.id).ok_or_else(|| {
            let names: Vec<_> = self.setup.ports.iter().map(|port| port.name.as_str()).collect();
            SimError::NoSuchPort(name.into(), names.join(", "))
        })
    }

    /// The name of a port.
    pub fn port_name(&self, id: PortId) -> &str {
        let port = self.setup.ports.get(usize::from(id));
        port.map_or("?", |port| port.name.as_str())
    }

    /// Makes the tables equal to what a state file says, as `octoctl apply` does it.
    ///
    /// # Errors
    /// [`SimError::Entry`], [`SimError::Refused`]; the tables are as they were then.
    pub fn apply(&mut self, wanted: File) -> Result<Committed, SimError> {
        let transaction = changes(&self.store.state(), wanted.into_request()?)?;
        self.transact(transaction)
    }

    /// Applies steps as one transaction.
    ///
    /// # Errors
    /// [`SimError::Refused`]; the tables are as they were then.
    pub fn change(&mut self, changes: Vec<v1::Change>) -> Result<Committed, SimError> {
        let transaction = steps(&self.store.state(), changes)?;
        self.transact(transaction)
    }

    fn transact(&mut self, it: Transaction) -> Result<Committed, SimError> {
        let Transaction { changes, origins } = it;
        let committed = self
            .store
            .apply(changes)
            .map_err(|error| Transaction::refused(&error, &origins))?;
        self.settle();
        Ok(committed)
    }

    /// Lets time pass: connections end, packets give up waiting.
    pub fn advance(&mut self, nanoseconds: u64) {
        self.now = self.now.saturating_add(nanoseconds);
        self.engine.expire(self.now, usize::MAX);
        self.settle();
    }

    /// Has a port receive frames, in bursts as large as there are.
    pub fn inject<F: AsRef<[u8]>>(&mut self, port: PortId, frames: &[F]) {
        for frames in frames.chunks(BURST) {
            let mut burst: ArrayVec<HeapBuf, BURST> =
                frames.iter().map(|frame| HeapBuf::new(frame.as_ref())).collect();
            self.engine.process(self.now, port, &mut burst, &mut self.out);
            self.collect();
        }
        self.settle();
    }

    /// Lets packets go on that wait for something that is there now, and does what the daemon does about neighbours.
    fn settle(&mut self) {
        // A first fragment that went on has others follow the next time.
        loop {
            let waiting = self.waiting();
            self.engine.tick(self.now, &mut self.out);
            self.collect();
            if self.waiting() >= waiting {
                break;
            }
        }
        loop {
            let heard = std::mem::take(&mut self.neighbours.heard);
            let state = self.store.state();
            let changes: Vec<Change> = heard
                .iter()
                .filter_map(|event| self.neighbours.hear(&state, *event, &mut self.seen.sent))
                .collect();
            // What is on its way to a worker may meet other tables there: it is forgotten then, as the daemon does.
            if changes.is_empty() || self.store.apply(changes).is_err() {
                break;
            }
            self.engine.tick(self.now, &mut self.out);
            self.collect();
        }
        self.store.reclaim();
    }

    /// Takes over what the engine has put out.
    fn collect(&mut self) {
        self.out.free.clear();
        for port in self.out.take_touched() {
            if let Some(queue) = self.out.queue(port) {
                let frames = queue.drain(..).map(|buf| (port, buf.data().to_vec()));
                self.seen.sent.extend(frames);
            }
        }
        while let Some(Event { kind, .. }) = self.engine.monitor().pop() {
            if let EventKind::Verdict(verdict) = kind {
                self.seen.verdicts.push(verdict);
            }
        }
        let events: Vec<_> = self.engine.events().collect();
        self.neighbours.heard.extend(&events);
        self.seen.neighbours.extend(events);
    }

    /// What came out since this was asked last.
    pub fn take(&mut self) -> Outcome {
        let stats = self.engine.stats();
        let mut total = Outcome {
            punted: stats.punted.get(),
            consumed: stats.consumed.get(),
            answered: stats.answered.get(),
            audited: stats.audited.get(),
            drops: self.drops(),
            ..Outcome::default()
        };
        let seen = std::mem::take(&mut self.seen);
        let counts = total.clone();
        let before = std::mem::replace(&mut self.counted, counts);
        for (key, count) in &mut total.drops {
            *count -= before.drops.get(key).copied().unwrap_or(0);
        }
        total.drops.retain(|_, count| *count > 0);
        total.punted -= before.punted;
        total.consumed -= before.consumed;
        total.answered -= before.answered;
        total.audited -= before.audited;
        total.sent = seen.sent;
        total.verdicts = seen.verdicts;
        total.neighbours = seen.neighbours;
        total
    }

    /// All packets dropped since the beginning, by code and direction.
    pub fn drops(&self) -> BTreeMap<(u16, &'static str), u64> {
        let stats = self.engine.stats();
        DropReason::ALL
            .iter()
            .flat_map(|&reason| Direction::ALL.map(|direction| (reason, direction)))
            .map(|(reason, direction)| {
                let packets = stats.drops(reason, direction).packets.get();
                ((reason.code(), direction.name()), packets)
            })
            .filter(|(_, packets)| *packets > 0)
            .collect()
    }

    /// What would happen to a packet.
    ///
    /// # Errors
    /// [`SimError::Question`]
    pub fn explain(&self, request: &v1::ExplainRequest) -> Result<v1::Explanation, SimError> {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, reader) = self.store.frozen();
        let live = Live {
            state,
            reader,
            memory: &self.memory,
            ipsec: None,
            policies: None,
            timeouts: self.setup.engine.timeouts,
            now: self.now,
        };
        Ok(explain(&live, &mut scratch, request)?)
    }

    /// Packets that wait for something.
    pub fn waiting(&self) -> u64 {
        self.engine.stats().parked.get()
    }

    /// Ends the connection whose first packet arrived with this tuple, as `octoctl flow flush` does.
    pub fn forget(&mut self, forward: &Tuple) {
        let table = &self.flows;
        // Nothing arrives with the tuple of one of which only the answers come by.
        let stored = |flow: &FlowRef| table.half(*flow).is_some_and(|half| half.tuple() == *forward);
        let found = table.find(table.hash(forward), forward);
        if let Some(flow) = found.or_else(|| table.iter().find(stored)) {
            table.end_soon(flow, forward);
            self.engine.expire(self.now, table.capacity() as usize);
        }
    }

    /// All connections, in the order of their first packets' tuples.
    pub fn flows(&self) -> Vec<FlowView> {
        let table = &self.flows;
        let state = self.store.state();
        let mut flows: Vec<FlowView> = table
            .iter()
            .filter_map(|flow| {
                describe(
                    table,
                    flow,
                    state.last_changed(),
                    self.now,
                    &self.setup.engine.timeouts,
                )
            })
            .collect();
        flows.sort_by_key(|flow| {
            let it = flow.forward.tuple;
            (it.protocol(), it.src(), it.sport(), it.dst(), it.dport())
        });
        flows
    }
}

/// Another number for each number (splitmix64), so that small seeds are as good as others.
fn scramble(seed: u64) -> u64 {
    let mut it = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    it ^ (it >> 31)
}
