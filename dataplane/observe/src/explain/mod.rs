//! What would happen to a packet.

mod answer;
mod frame;
mod policies;
mod question;
mod steps;

use std::sync::Arc;

use octoplane_api::v1;
use octoplane_convert::Mistake;
use octoplane_engine::{
    Arrival, Choice, Engine, EngineConfig, HostMac, IpsecConfig, Memory, MemoryPart, Step, Timeouts, Trace,
    WorkerStats, describe,
};
use octoplane_flow::{FlowError, FlowTable, Tuple};
use octoplane_packet::{HeapBuf, HeapPool};
use octoplane_tables::model::Role;
use octoplane_tables::{Reader, State};

use crate::flow::{flow_message, tuple_message};
use policies::Departs;
pub use policies::Policies;
use question::Question;

/// Backends of a service that are tried.
const TRIED: usize = 64;
/// Ports of our own address that are tried for one that no connection has.
const PORTS: usize = 64;

/// The data plane that a packet would come to.
pub struct Live<'a> {
    /// Its tables.
    pub state: State,
    /// The same tables as the engine reads them, standing still ([`SharedStore::frozen`](octoplane_tables::SharedStore::frozen)).
    pub reader: Reader,
    /// What its workers remember.
    pub memory: &'a Memory,
    /// Encryption between nodes.
    pub ipsec: Option<IpsecConfig>,
    /// Policies of IPsec, if they are followed.
    pub policies: Option<Policies>,
    /// How long its connections are kept.
    pub timeouts: Timeouts,
    /// Nanoseconds of the workers' clock.
    pub now: u64,
}

/// Where engines that explain keep what they remember, one after the other. It is never given back: make one, and use it again.
#[derive(Default)]
pub struct Scratch(Option<MemoryPart>);

impl Scratch {
    /// The memory, empty.
    fn take(&mut self) -> Result<MemoryPart, FlowError> {
        match self.0.take() {
            Some(mut part) => {
                part.clear();
                Ok(part)
            }
            // The first time, or an explanation panicked with it.
            None => Memory::small()?.part(0, 1),
        }
    }
}

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The question is wrong.
    #[error(transparent)]
    Mistake(#[from] Mistake),
    /// There is not enough memory for another engine.
    #[error("{0}")]
    Memory(#[from] FlowError),
}

/// What would happen to a packet.
///
/// # Errors
/// [`ExplainError`]
pub fn explain(
    live: &Live<'_>,
    scratch: &mut Scratch,
    request: &v1::ExplainRequest,
) -> Result<v1::Explanation, ExplainError> {
    let question = Question::read(live, request)?;
    let first = run(live, scratch, &question, 0)?;
    let mut steps = steps::messages(&live.state, &question, &first.trace.steps);
    let mut answer = first.answer(live, &question);
    try_others(live, scratch, &question, &first.trace, &answer, &mut steps)?;
    steps.extend(first.departs.as_ref().map(Departs::step));
    if question.role == Role::Uplink
        && question.tunnel.is_none()
        && let Some((step, dropped)) = policies::arrives(live, &question.frame(first.known))
    {
        if let Some(dropped) = dropped {
            (steps, answer) = (Vec::new(), dropped);
        }
        // Before anything else looks at it.
        steps.insert(0, step);
    }
    let table = &live.memory.flows;
    let connection = first.known.then(|| view(live, table, &question.tuple)).flatten();
    Ok(v1::Explanation {
        revision: live.state.revision(),
        packet: Some(tuple_message(&question.tuple)),
        in_port: live.state.port_set().name(question.port),
        steps,
        answer: Some(answer),
        connection,
    })
}

fn view(live: &Live<'_>, table: &FlowTable, tuple: &Tuple) -> Option<v1::Flow> {
    let flow = table.find(table.hash(tuple), tuple)?;
    let view = describe(table, flow, live.state.last_changed(), live.now, &live.timeouts)?;
    Some(flow_message(&live.state, &view))
}

/// What becomes of the packet with each of the backends that might be chosen.
fn try_others(
    live: &Live<'_>,
    scratch: &mut Scratch,
    question: &Question,
    trace: &Trace,
    answer: &v1::ExplainAnswer,
    steps: &mut [v1::ExplainStep],
) -> Result<(), ExplainError> {
    let chosen = trace.steps.iter().find_map(|step| match step {
        Step::Service { chosen, usable, .. } => chosen.map(|(_, choice)| (choice, *usable)),
        _ => None,
    });
    let Some((choice, usable)) = chosen else {
        return Ok(());
    };
    let service = steps.iter_mut().find_map(|step| match &mut step.entry {
        Some(v1::explain_step::Entry::Service(it)) => Some(it),
        _ => None,
    });
    let Some(service) = service else { return Ok(()) };
    if choice != Choice::Random {
        let backend = service.backend.clone();
        let taken = service
            .candidates
            .iter_mut()
            .find(|it| it.backend.as_ref().map(key) == backend.as_ref().map(key));
        if let Some(taken) = taken {
            taken.answer = Some(answer.clone());
        }
        return Ok(());
    }
    for (number, candidate) in service.candidates.iter_mut().enumerate().take(usable.min(TRIED)) {
        candidate.answer = Some(match number {
            0 => answer.clone(),
            number => {
                let other = run(live, scratch, question, number as u32)?;
                other.answer(live, question)
            }
        });
    }
    Ok(())
}

fn key(backend: &v1::Backend) -> (&str, u32) {
    (&backend.address, backend.port)
}

/// What came of one attempt.
struct Run {
    trace: Trace,
    /// What policies of IPsec say then.
    departs: Option<Departs>,
    /// Whether the packet belongs to a connection that is there.
    known: bool,
}

impl Run {
    fn answer(&self, live: &Live<'_>, question: &Question) -> v1::ExplainAnswer {
        let mut answer = answer::message(&live.state, question, &self.trace);
        if let Some(departs) = &self.departs {
            departs.correct(live, &mut answer);
        }
        answer
    }
}

/// Takes the packet through an engine, which gets the backend of this number where any may be chosen.
fn run(
    live: &Live<'_>,
    scratch: &mut Scratch,
    question: &Question,
    backend: u32,
) -> Result<Run, ExplainError> {
    // What live connections have that the packet's must not have.
    let mut taken: Vec<Tuple> = Vec::new();
    loop {
        let config = EngineConfig {
            max_parked: 1,
            events: (1, 1),
            timeouts: live.timeouts,
            ..EngineConfig::default()
        };
        let mut engine = Engine::new(
            live.reader.clone(),
            HeapPool::default(),
            Arc::new(WorkerStats::default()),
            Arc::new(HostMac::default()),
            scratch.take()?,
            &config,
        );
        if let Some(ipsec) = &live.ipsec {
            engine.set_ipsec(ipsec.clone());
        }
        let known = engine.adopt(live.memory, &question.tuple);
        for tuple in &taken {
            engine.adopt(live.memory, tuple);
        }
        let arrival = Arrival {
            port: question.port,
            tunnel: question.tunnel,
            encrypted: question.encrypted,
            backend,
        };
        let buf = HeapBuf::new(&question.frame(known));
        let trace = engine.explain(live.now, arrival, buf);
        let answer = engine.answer_to(&question.tuple);
        let departs = trace
            .as_ref()
            .and_then(|trace| Departs::of(live, &mut engine, trace));
        scratch.0 = Some(engine.into_memory());
        let trace = trace.ok_or_else(|| {
            let name = live.state.port_set().name(question.port);
            Mistake::invalid(format!("from: packets come in by port \"{name}\", which is down"))
        })?;
        let table = &live.memory.flows;
        // Another connection has that already: with it there, the engine decides otherwise.
        let other = answer.filter(|answer| table.find(table.hash(answer), answer).is_some() && !known);
        match other {
            Some(other) if !taken.contains(&other) && taken.len() < PORTS => taken.push(other),
            _ => {
                return Ok(Run {
                    trace,
                    departs,
                    known,
                });
            }
        }
    }
}
