//! Requests and their answers, line by line.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

use octoplane_api::v1;
use octoplane_api::v1::change::Change as Step;
use octoplane_state::State;
use octoplane_tables::Committed;

use crate::line::{Answer, Applied, Expected, Flow, Inject, Out, Removal, Request, Time, Unexpected, drops};
use crate::sim::{BEGIN, Sim, SimError};

/// Reads requests until there are no more and writes an answer to each. Whether all could be done, and everything was as
/// expected. Without a simulation the first request has to set one up.
///
/// # Errors
/// If lines cannot be read or written.
pub fn run(mut sim: Option<Sim>, input: impl BufRead, mut output: impl Write) -> io::Result<bool> {
    let mut good = true;
    for line in input.lines() {
        let line = line?;
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let answer = match serde_json::from_str(&line) {
            Ok(request) => answer(&mut sim, request),
            Err(error) => Answer::Error(error.to_string()),
        };
        good &= !matches!(answer, Answer::Error(_) | Answer::Unexpected(_));
        serde_json::to_writer(&mut output, &answer)?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(good)
}

/// All requests of a text.
///
/// # Errors
/// The number of the line, from 1, and what is wrong with it.
pub fn read(text: &str) -> Result<Vec<Request>, String> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|error| format!("line {}: {error}", index + 1))
        })
        .collect()
}

fn answer(sim: &mut Option<Sim>, request: Request) -> Answer {
    let error = |error: &dyn std::fmt::Display| Answer::Error(error.to_string());
    match (sim.as_mut(), request) {
        (None, Request::Setup(line)) => match line.setup() {
            Ok(setup) => match Sim::new(setup) {
                Ok(new) => {
                    *sim = Some(new);
                    Answer::Ready(true)
                }
                Err(it) => error(&it),
            },
            Err(it) => error(&it),
        },
        (None, _) => error(&"the first request has to be setup where neither --file nor --config is given"),
        (Some(sim), request) => carry_out(sim, request).unwrap_or_else(|it| error(&it)),
    }
}

fn carry_out(sim: &mut Sim, request: Request) -> Result<Answer, SimError> {
    Ok(match request {
        Request::Setup(_) => Answer::Error("setup: it was set up before".into()),
        Request::Apply(wanted) => applied(&sim.apply(*wanted)?),
        Request::Put(objects) => applied(&sim.change(puts(*objects)?)?),
        Request::Remove(objects) => applied(&sim.change(removals(*objects))?),
        Request::Advance(Time(span)) => {
            sim.advance(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX));
            Answer::Time(Time(std::time::Duration::from_nanos(sim.now() - BEGIN)))
        }
        Request::Inject(Inject { port, hex, frames }) => {
            let port = sim.port(&port)?;
            let frames: Vec<_> = hex.into_iter().chain(frames).collect();
            sim.inject(port, &frames);
            Answer::Injected(frames.len())
        }
        Request::Out {} => Answer::Out(take(sim)),
        Request::Expect(expected) => {
            let out = take(sim);
            match compare(&expected, &out) {
                Ok(()) => Answer::Expected(true),
                Err(what) => Answer::Unexpected(Unexpected { what, out }),
            }
        }
        Request::Drops {} => Answer::Drops(drops(&sim.drops())),
        Request::Explain(question) => match question.request() {
            Ok(request) => Answer::Explained(octoplane_state::explanation_value(&sim.explain(&request)?)),
            Err(text) => Answer::Error(text),
        },
        Request::Flows {} => Answer::Flows(sim.flows().iter().map(Flow::from).collect()),
    })
}

fn take(sim: &mut Sim) -> Out {
    let outcome = sim.take();
    Out::of(sim, outcome)
}

fn applied(it: &Committed) -> Answer {
    let removed = it.events.iter().filter(|event| event.removed).count();
    Answer::Applied(Applied {
        revision: it.revision,
        put: it.events.len() - removed,
        removed,
    })
}

/// The steps that put a state's objects in.
fn puts(objects: State) -> Result<Vec<v1::Change>, SimError> {
    let it = objects.into_request()?;
    let steps = (it.node.into_iter().map(Step::PutNode))
        .chain(it.endpoints.into_iter().map(Step::PutEndpoint))
        .chain(it.routes.into_iter().map(Step::PutRoute))
        .chain(it.neighbours.into_iter().map(Step::PutNeighbour))
        .chain(it.ports.into_iter().map(Step::SetPort))
        .chain(it.ipcache.into_iter().map(Step::PutIpcache))
        .chain(it.services.into_iter().map(Step::PutService))
        .chain(it.policies.into_iter().map(Step::PutPolicy))
        .chain(it.egress_gateways.into_iter().map(Step::PutEgressGateway))
        .chain(it.authentications.into_iter().map(Step::PutAuthentication));
    Ok(steps.map(change).collect())
}

/// The steps that take objects out.
fn removals(it: Removal) -> Vec<v1::Change> {
    let neighbour = |it: crate::line::Station| {
        Step::RemoveNeighbour(v1::Neighbour {
            port: it.port,
            address: it.address,
            ..Default::default()
        })
    };
    let rule = |it: octoplane_state::EgressGateway| Step::RemoveEgressGateway(it.into());
    let authentication = |it: octoplane_state::Authentication| Step::RemoveAuthentication(it.into());
    let steps = (it.endpoints.into_iter().map(Step::RemoveEndpoint))
        .chain(it.routes.into_iter().map(Step::RemoveRoute))
        .chain(it.neighbours.into_iter().map(neighbour))
        .chain(it.node.then_some(Step::RemoveNode(true)))
        .chain(it.ipcache.into_iter().map(Step::RemoveIpcache))
        .chain(it.services.into_iter().map(Step::RemoveService))
        .chain(it.policies.into_iter().map(Step::RemovePolicy))
        .chain(it.egress_gateways.into_iter().map(rule))
        .chain(it.authentications.into_iter().map(authentication));
    steps.map(change).collect()
}

fn change(step: Step) -> v1::Change {
    v1::Change { change: Some(step) }
}

/// What is different, if anything is.
fn compare(expected: &Expected, out: &Out) -> Result<(), String> {
    if let Some(wanted) = &expected.sent {
        let mut ports: Vec<&str> = wanted.iter().map(|it| it.port.as_str()).collect();
        ports.extend(out.sent.iter().map(|it| it.port.as_str()));
        ports.sort_unstable();
        ports.dedup();
        for port in ports {
            let wanted: Vec<_> = wanted.iter().filter(|it| it.port == port).collect();
            let came: Vec<_> = out.sent.iter().filter(|it| it.port == port).collect();
            if wanted.len() != came.len() {
                return Err(format!(
                    "{} frames on {port}, expected {}",
                    came.len(),
                    wanted.len()
                ));
            }
            for (index, (wanted, came)) in wanted.iter().zip(&came).enumerate() {
                if wanted.hex.as_ref().is_some_and(|wanted| *wanted != came.hex) {
                    let wanted = wanted.hex.as_ref().map(hex::encode).unwrap_or_default();
                    let came = hex::encode(&came.hex);
                    return Err(format!("frame {index} on {port} is {came}, expected {wanted}"));
                }
            }
        }
    }
    if let Some(wanted) = &expected.drops {
        let mut codes: BTreeMap<u16, u64> = BTreeMap::new();
        for code in wanted {
            *codes.entry(*code).or_default() += 1;
        }
        let mut came: BTreeMap<u16, u64> = BTreeMap::new();
        for drop in &out.drops {
            *came.entry(drop.code).or_default() += drop.packets;
        }
        if codes != came {
            return Err(format!("drops are {came:?}, expected {codes:?} (code: packets)"));
        }
    }
    Ok(())
}
