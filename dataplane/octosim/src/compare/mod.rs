//! The engine and the model, told the same and held against each other.

mod connections;
mod frame;
mod generate;
mod known;
mod oracle;
mod question;
mod search;
mod translate;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use octoplane_engine::EngineConfig;
use octoplane_model::config::{Direction, Subject};
use octoplane_model::{Model, Outcome as Expected, Waiting};
use octoplane_state::State;
use octoplane_tables::model::{PortId, TunnelProtocol};

use crate::line::{Inject, Request, Time};
use crate::setup::Setup;
use crate::sim::{BEGIN, Outcome, Sim, SimError};
use connections::Connection;
use frame::{UDP, be16, dissect, put};
use oracle::{Hints, Oracle};
pub use search::{Failure, replay, search};

/// How long packets wait, in nanoseconds: as long as the model has fragments wait for their first one.
const PATIENCE: u64 = 1_000_000_000;

/// Bytes in front of UDP over IPv4 without options.
const ETHERNET_AND_IPV4: usize = 34;

/// Most combinations of choices that are tried before a packet counts as treated differently.
const ATTEMPTS: usize = 64;

/// The two of them.
pub struct Comparison {
    sim: Sim,
    model: Model,
    /// Packets that wait for neighbours on the model's behalf, which forgets them.
    parked: Vec<Parked>,
}

#[derive(Clone)]
struct Parked {
    since: u64,
    waiting: Waiting,
}

/// What the two did differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What is different, for people.
    pub what: String,
    /// What the engine did.
    pub engine: String,
    /// What the model did.
    pub model: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n  engine: {}\n  model:  {}",
            self.what, self.engine, self.model
        )
    }
}

/// Why a request could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The tables say no.
    #[error("{0}")]
    Refused(#[from] SimError),
    /// The model does not know this.
    #[error("the model does not understand it: {0}")]
    Model(String),
    /// The two did not do the same.
    #[error("{0}")]
    Different(Box<Difference>),
}

impl From<Difference> for StepError {
    fn from(it: Difference) -> Self {
        Self::Different(Box::new(it))
    }
}

/// A packet that a policy refused: drop code, endpoint (0: the node), whether it sends, the other identity, protocol, port, match type,
/// cookie.
type Refused = (u16, u32, bool, u32, u8, u16, u8, u32);

/// The identity of the world, whatever its family: whether a node without addresses has both is no difference.
fn one_world(identity: u32) -> u32 {
    match identity {
        9 | 10 => 2,
        identity => identity,
    }
}

/// What came of a request, the same on both sides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Doings {
    sent: BTreeMap<String, Vec<Vec<u8>>>,
    drops: BTreeMap<u16, u64>,
    /// What policies refused, by which entry.
    refused: BTreeMap<Refused, u64>,
    consumed: u64,
}

impl Comparison {
    /// Both of them with the ports of a state and empty tables.
    ///
    /// # Errors
    /// [`StepError`]
    pub fn new(setup: Setup) -> Result<Self, StepError> {
        let setup = Setup {
            learn: false,
            connections: 4096,
            engine: EngineConfig {
                park_ns: PATIENCE,
                ..setup.engine
            },
            ..setup
        };
        let mut model = Model::new(translate::ports(&setup));
        model.set_time(BEGIN);
        let mut it = Self {
            sim: Sim::new(setup)?,
            model,
            parked: Vec::new(),
        };
        it.configure(&State::default())?;
        Ok(it)
    }

    /// The engine's side.
    pub fn sim(&self) -> &Sim {
        &self.sim
    }

    /// Has both do what a request says and compares what comes of it. Returns what the engine sent.
    ///
    /// # Errors
    /// [`StepError`]
    pub fn step(&mut self, request: &Request) -> Result<Vec<(PortId, Vec<u8>)>, StepError> {
        match request {
            Request::Apply(state) => {
                let before = self.sim.state().revision();
                self.sim.apply((**state).clone())?;
                self.configure(state)?;
                // Nothing is tried again because of what was so before.
                let changed = self.sim.state().revision() != before;
                self.compare(|attempt, oracle, all| {
                    if changed {
                        attempt.retry(oracle, all);
                    }
                })
            }
            Request::Advance(Time(span)) => {
                self.sim
                    .advance(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX));
                self.compare(|attempt, _, all| attempt.age(all))
            }
            Request::Inject(Inject { port, hex, frames }) => {
                let id = self.sim.port(port)?;
                let frames: Vec<_> = hex.iter().chain(frames).cloned().collect();
                self.sim.inject(id, &frames);
                self.compare(|attempt, oracle, all| {
                    for frame in &frames {
                        attempt.receive(port, &frame.0, oracle, all);
                    }
                })
            }
            other => Err(StepError::Model(format!("{other:?}"))),
        }
    }

    /// Tells the model what the tables are.
    fn configure(&mut self, state: &State) -> Result<(), StepError> {
        let setup = self.sim.setup();
        self.model
            .apply(translate::state(setup, state).map_err(StepError::Model)?);
        for port in self.sim.state().ports() {
            self.model.set_port(&port.name, port.mtu, port.admin_up);
        }
        Ok(())
    }
}

impl Attempt {
    /// A frame for the model; what has to wait does so on its behalf.
    fn receive(&mut self, port: &str, frame: &[u8], oracle: &mut Oracle, all: &mut Expected) {
        let outcome = self.model.receive_with(port, frame, oracle);
        self.note(self.model.now(), outcome, all);
    }

    fn note(&mut self, since: u64, mut outcome: Expected, all: &mut Expected) {
        let waiting = std::mem::take(&mut outcome.waiting);
        self.parked
            .extend(waiting.into_iter().map(|waiting| Parked { since, waiting }));
        add(all, outcome);
    }

    /// Packets that wait try again: the tables have changed.
    fn retry(&mut self, oracle: &mut Oracle, all: &mut Expected) {
        for it in std::mem::take(&mut self.parked) {
            let outcome = self.model.retry_with(&it.waiting, oracle);
            self.note(it.since, outcome, all);
        }
    }

    /// Time goes on for the model, and those who wait may have waited too long.
    fn age(&mut self, all: &mut Expected) {
        let outcome = self.model.set_time(self.now);
        add(all, outcome);
        let now = self.now;
        let (over, waiting) = std::mem::take(&mut self.parked)
            .into_iter()
            .partition(|it: &Parked| now.saturating_sub(it.since) >= PATIENCE);
        self.parked = waiting;
        for it in over {
            let outcome = self.model.give_up(&it.waiting);
            add(all, outcome);
        }
    }
}

/// The model and what waits, to be tried with other choices.
#[derive(Clone)]
struct Attempt {
    model: Model,
    parked: Vec<Parked>,
    now: u64,
}

impl Comparison {
    /// Has the model do the same, with the choices that the engine made, and compares.
    fn compare(
        &mut self,
        run: impl Fn(&mut Attempt, &mut Oracle, &mut Expected),
    ) -> Result<Vec<(PortId, Vec<u8>)>, StepError> {
        let outcome = self.sim.take();
        let flows = self.sim.flows();
        let hints = self.hints(&outcome, &flows);
        let engine = self.of_engine(&outcome);
        let connections = connections::of_engine(&flows);
        let before: BTreeSet<Connection> = connections::of_model(&self.model).into_keys().collect();
        let start = Attempt {
            model: self.model.clone(),
            parked: self.parked.clone(),
            now: self.sim.now(),
        };
        let mut script: Option<Vec<usize>> = None;
        let mut first = None;
        for _ in 0..ATTEMPTS {
            let mut attempt = start.clone();
            let mut oracle = Oracle::new(hints.clone(), script.as_deref());
            let mut expected = Expected::default();
            run(&mut attempt, &mut oracle, &mut expected);
            let result = self
                .results(&engine, &self.of_model(&expected))
                .and_then(|()| same_waiting(self.sim.waiting(), &attempt))
                .and_then(|()| {
                    let model = connections::of_model(&attempt.model);
                    let again = |it: &Connection| {
                        let others = connections.keys().chain(model.keys());
                        others.filter(|other| other.arrives_as(it)).count() > 1
                    };
                    let new =
                        |it: &Connection| !engine.drops.is_empty() && (!before.contains(it) || again(it));
                    same_connections(&connections, &model, new)
                });
            match result {
                Ok(leftovers) => {
                    (self.model, self.parked) = (attempt.model, attempt.parked);
                    leftovers.engine.iter().for_each(|it| self.sim.forget(it));
                    leftovers.model.iter().for_each(|it| self.model.forget(it));
                    if !engine.drops.is_empty() {
                        self.forget_new(&connections, &before);
                    }
                    return Ok(outcome.sent);
                }
                Err(difference) => first.get_or_insert(difference),
            };
            // The first attempt follows the hints; then all combinations are tried in order.
            script = match script {
                None if oracle.asked.is_empty() => break,
                None => Some(vec![0]),
                Some(_) => match next_script(&oracle.asked) {
                    Some(next) => Some(next),
                    None => break,
                },
            };
        }
        match first {
            Some(difference) => Err(difference.into()),
            None => Ok(outcome.sent),
        }
    }

    /// Has both forget connections that both have made of packets of which some were dropped: what those leave behind is not
    /// compared.
    fn forget_new(
        &mut self,
        engine: &BTreeMap<Connection, octoplane_flow::Tuple>,
        before: &BTreeSet<Connection>,
    ) {
        for (it, tuple) in connections::of_model(&self.model) {
            if let Some(here) = engine.get(&it).filter(|_| !before.contains(&it)) {
                self.sim.forget(here);
                self.model.forget(&tuple);
            }
        }
    }

    /// What the engine did, as far as it shows what it chose.
    fn hints(&self, outcome: &Outcome, flows: &[octoplane_engine::FlowView]) -> Hints {
        let known = connections::of_model(&self.model);
        let (mut new, mut old) = (Vec::new(), Vec::new());
        let mut backends = Vec::new();
        for flow in flows {
            let out = flow.reply.tuple.reverse();
            let ports = [out.sport(), out.dport()];
            let connection = connections::of_engine(std::slice::from_ref(flow));
            if connection.keys().all(|it| known.contains_key(it)) {
                old.extend(ports);
            } else {
                new.extend(ports);
                backends.push(SocketAddr::new(out.dst(), out.dport()));
            }
        }
        new.extend(old);
        Hints {
            backends,
            ports: new,
            tunnels: outcome
                .sent
                .iter()
                .filter_map(|(_, frame)| Some(be16(frame, self.tunnel_packet(frame)?)))
                .collect(),
        }
    }

    /// Bytes of Geneve options of a tunnel packet whose UDP header begins at `udp`.
    fn options(&self, frame: &[u8], udp: usize) -> usize {
        match self.sim.state().node().tunnel.protocol {
            TunnelProtocol::Vxlan => 0,
            TunnelProtocol::Geneve => usize::from(be16(frame, udp + 8) >> 8 & 0x3f) * 4,
        }
    }

    /// Where the UDP header begins, if this is a tunnel packet of ours.
    fn tunnel_packet(&self, frame: &[u8]) -> Option<usize> {
        let state = self.sim.state();
        let tunnel = &state.node().tunnel;
        let it = dissect(frame)?;
        let ours = match it.src {
            IpAddr::V4(src) => tunnel.local4 == Some(src),
            IpAddr::V6(src) => tunnel.local6 == Some(src),
        };
        let udp = it.upper.start;
        let is_tunnel = ours && it.protocol == UDP && !it.later_fragment && it.upper.len() >= 16 + 14;
        (is_tunnel && be16(frame, udp + 2) == tunnel.port).then_some(udp)
    }

    fn of_engine(&self, outcome: &Outcome) -> Doings {
        let mut it = Doings {
            consumed: outcome.consumed,
            ..Doings::default()
        };
        for (port, frame) in &outcome.sent {
            let name = self.sim.port_name(*port).to_owned();
            it.sent.entry(name).or_default().push(self.comparable(frame));
        }
        for ((code, _), count) in &outcome.drops {
            *it.drops.entry(*code).or_default() += count;
        }
        for verdict in &outcome.verdicts {
            let Some(reason) = verdict.reason() else { continue };
            let refused = (
                reason.code(),
                verdict.endpoint,
                verdict.egress,
                one_world(verdict.remote),
                verdict.tuple.protocol(),
                verdict.port,
                verdict.decided.match_type as u8,
                verdict.decided.cookie,
            );
            *it.refused.entry(refused).or_default() += 1;
        }
        it
    }

    fn of_model(&self, outcome: &Expected) -> Doings {
        let mut it = Doings {
            consumed: outcome.consumed as u64,
            ..Doings::default()
        };
        for (port, frame) in &outcome.sent {
            it.sent
                .entry(port.clone())
                .or_default()
                .push(self.comparable(frame));
        }
        for (code, _) in &outcome.drops {
            *it.drops.entry(*code).or_default() += 1;
        }
        for verdict in &outcome.verdicts {
            let Ok(code) = u16::try_from(-verdict.verdict) else {
                continue;
            };
            let refused = (
                code,
                match verdict.subject {
                    Subject::Host => 0,
                    Subject::Endpoint(id) => id,
                },
                verdict.direction == Direction::Egress,
                one_world(verdict.remote),
                verdict.protocol,
                verdict.dport,
                verdict.match_type,
                verdict.cookie,
            );
            if code > 0 {
                *it.refused.entry(refused).or_default() += 1;
            }
        }
        it
    }

    /// A frame without what may be different: the Ethernet addresses inside of a tunnel, and the checksum over them; whether
    /// others may cut a tunnel packet (RFC 791, DF), which the model leaves to Linux, and the checksum over that.
    fn comparable(&self, frame: &[u8]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        if let Some(udp) = self.tunnel_packet(&frame) {
            if udp == ETHERNET_AND_IPV4 {
                put(&mut frame, 20, &[0; 2]);
                put(&mut frame, 24, &[0; 2]);
            }
            if be16(&frame, udp + 6) != 0 {
                put(&mut frame, udp + 6, &[0xff, 0xff]);
            }
            let inner = udp + 16 + self.options(&frame, udp);
            put(&mut frame, inner, &[0; 12]);
        }
        frame
    }

    fn results(&self, engine: &Doings, model: &Doings) -> Result<(), Difference> {
        let show = |frames: &[Vec<u8>]| frames.iter().map(hex::encode).collect::<Vec<_>>().join(" ");
        if known::other_reason(&engine.drops, &model.drops) {
            return Ok(());
        }
        if engine.drops != model.drops {
            return Err(Difference {
                what: "packets dropped (code: number)".into(),
                engine: format!("{:?} {:?}", engine.drops, engine.sent.keys()),
                model: format!("{:?} {:?}", model.drops, model.sent.keys()),
            });
        }
        if engine.refused != model.refused {
            return Err(Difference {
                what: "what policies refused (code, endpoint, egress, other identity, protocol, port, match, cookie)"
                    .into(),
                engine: format!("{:?}", engine.refused),
                model: format!("{:?}", model.refused),
            });
        }
        let ports: BTreeSet<_> = engine.sent.keys().chain(model.sent.keys()).collect();
        for port in ports {
            let none = Vec::new();
            let here = engine.sent.get(port).unwrap_or(&none);
            let there = model.sent.get(port).unwrap_or(&none);
            if here != there {
                return Err(Difference {
                    what: format!("frames sent by {port}"),
                    engine: show(here),
                    model: show(there),
                });
            }
        }
        if engine.consumed != model.consumed {
            return Err(Difference {
                what: "packets that ended here as they should".into(),
                engine: engine.consumed.to_string(),
                model: model.consumed.to_string(),
            });
        }
        Ok(())
    }
}

/// Connections that a packet which could not be sent has left with one of the two only. Whether it leaves any is not
/// compared: they are forgotten.
#[derive(Default)]
struct Leftovers {
    engine: Vec<octoplane_flow::Tuple>,
    model: Vec<octoplane_model::Tuple>,
}

/// Whether both have the same connections, but for those that may be different.
fn same_connections(
    engine: &BTreeMap<Connection, octoplane_flow::Tuple>,
    model: &BTreeMap<Connection, octoplane_model::Tuple>,
    may_differ: impl Fn(&Connection) -> bool,
) -> Result<Leftovers, Difference> {
    let here = engine.iter().filter(|(it, _)| !model.contains_key(it));
    let there = model.iter().filter(|(it, _)| !engine.contains_key(it));
    if here.clone().all(|(it, _)| may_differ(it)) && there.clone().all(|(it, _)| may_differ(it)) {
        return Ok(Leftovers {
            engine: here.map(|(_, tuple)| *tuple).collect(),
            model: there.map(|(_, tuple)| *tuple).collect(),
        });
    }
    let show = |it: Vec<String>| match it.as_slice() {
        [] => "none".into(),
        all => all.join("; "),
    };
    Err(Difference {
        what: "connections that only one has".into(),
        engine: show(here.map(|(it, _)| it.to_string()).collect()),
        model: show(there.map(|(it, _)| it.to_string()).collect()),
    })
}

fn same_waiting(engine: u64, model: &Attempt) -> Result<(), Difference> {
    let waiting = (model.parked.len() + model.model.held()) as u64;
    if engine == waiting {
        return Ok(());
    }
    Err(Difference {
        what: "packets that wait".into(),
        engine: engine.to_string(),
        model: waiting.to_string(),
    })
}

/// The choices to try after those that were made.
fn next_script(asked: &[(usize, usize)]) -> Option<Vec<usize>> {
    let mut taken: Vec<usize> = asked.iter().map(|(_, taken)| *taken).collect();
    for place in (0..asked.len()).rev() {
        let (of, at) = asked[place];
        if at + 1 < of {
            taken.truncate(place);
            taken.push(at + 1);
            return Some(taken);
        }
    }
    None
}

fn add(all: &mut Expected, outcome: Expected) {
    all.sent.extend(outcome.sent);
    all.drops.extend(outcome.drops);
    all.punts.extend(outcome.punts);
    all.verdicts.extend(outcome.verdicts);
    all.consumed += outcome.consumed;
    all.held += outcome.held;
}
