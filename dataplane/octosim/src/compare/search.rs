//! Looking for differences: random scenarios, and the smallest one that still shows a difference that was found.

use std::collections::VecDeque;

use octoplane_state::State;
use octoplane_tables::model::{PortId, TunnelProtocol};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::frame::dissect;
use super::generate::{Plan, StepPlan, Tunnel, plan, setup};
use super::{Comparison, StepError};
use crate::line::{Hex, Inject, Request, SetupLine, Time};

/// Frames that left which may still be answered.
const REMEMBERED: usize = 12;

/// A scenario on which the engine and the model differ.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What happened, as `octosim run` and `octosim replay` read it.
    pub requests: Vec<Request>,
    /// What is different at the end of it.
    pub difference: String,
}

/// Runs `cases` random scenarios of at most `steps` steps that follow from `seed`. Returns the first one on which the engine
/// and the model differ, made as small as could be.
///
/// # Errors
/// What the generator could not do.
pub fn search(seed: u64, cases: u32, steps: usize) -> Result<Option<Failure>, String> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let strategy = plan(steps);
    let result = runner.run(&strategy, |plan| match execute(&plan) {
        Ok(_) => Ok(()),
        Err((_, error)) => Err(TestCaseError::fail(error.to_string())),
    });
    match result {
        Ok(()) => Ok(None),
        Err(TestError::Fail(_, plan)) => match execute(&plan) {
            Err((requests, error)) => Ok(Some(without_needless(Failure {
                requests,
                difference: error.to_string(),
            }))),
            Ok(_) => Err("the same scenario went well the second time".into()),
        },
        Err(TestError::Abort(why)) => Err(why.to_string()),
    }
}

/// The same without what does not matter for there being a difference at the end: requests, and objects of the tables.
fn without_needless(mut failure: Failure) -> Failure {
    let mut shrunk = true;
    while shrunk {
        shrunk = false;
        let mut at = failure.requests.len();
        while at > 1 {
            at -= 1;
            let mut fewer = failure.requests.clone();
            if at >= fewer.len() {
                continue;
            }
            fewer.remove(at);
            shrunk |= keep(&mut failure, fewer);
        }
        for at in 1..failure.requests.len() {
            let Some(Request::Apply(state)) = failure.requests.get(at).cloned() else {
                continue;
            };
            for fewer in smaller(&state) {
                let mut requests = failure.requests.clone();
                if let Some(place) = requests.get_mut(at) {
                    *place = Request::Apply(Box::new(fewer));
                }
                if keep(&mut failure, requests) {
                    shrunk = true;
                    break;
                }
            }
        }
    }
    failure
}

/// Whether a scenario ends with a difference, too. If so, it takes the failure's place.
fn keep(failure: &mut Failure, requests: Vec<Request>) -> bool {
    match replay(&requests) {
        Err((last, StepError::Different(difference))) => {
            let mut requests = requests;
            requests.truncate(last + 1);
            *failure = Failure {
                requests,
                difference: difference.to_string(),
            };
            true
        }
        _ => false,
    }
}

/// The state with one object, or one entry of a list in one, less.
fn smaller(state: &State) -> Vec<State> {
    let mut all = Vec::new();
    macro_rules! without {
        ($($list:ident),*) => {$(
            for at in 0..state.$list.len() {
                let mut fewer = state.clone();
                fewer.$list.remove(at);
                all.push(fewer);
            }
        )*};
    }
    without!(
        ports,
        endpoints,
        routes,
        neighbours,
        ipcache,
        services,
        policies,
        egress_gateways,
        authentications
    );
    macro_rules! inside {
        ($($list:ident . $part:ident),*) => {$(
            for at in 0..state.$list.len() {
                for part in 0..state.$list[at].$part.len() {
                    let mut fewer = state.clone();
                    fewer.$list[at].$part.remove(part);
                    all.push(fewer);
                }
            }
        )*};
    }
    inside!(
        services.frontends,
        services.backends,
        policies.entries,
        endpoints.addresses
    );
    if state.node.is_some() {
        all.push(State {
            node: None,
            ..state.clone()
        });
    }
    all
}

/// Runs one scenario: what was asked of both, up to and with the request that they treat differently.
fn execute(plan: &Plan) -> Result<Vec<Request>, (Vec<Request>, StepError)> {
    let setup = setup(plan.kernel, plan.seed);
    let mut requests = vec![Request::Setup(Box::new(SetupLine::of(&setup)))];
    let mut comparison = match Comparison::new(setup.clone()) {
        Ok(comparison) => comparison,
        Err(error) => return Err((requests, error)),
    };
    let mut state = plan.state.clone();
    let mut injected: Vec<Inject> = Vec::new();
    let mut left: VecDeque<(PortId, Vec<u8>)> = VecDeque::new();
    let first = Some(Request::Apply(Box::new(state.clone())));
    let others = plan.steps.iter().map(Some);
    for step in std::iter::once(None).chain(others) {
        let wanted: Vec<Request> = match step {
            None => first.clone().into_iter().collect(),
            Some(StepPlan::Change(part)) => {
                let mut changed = state.clone();
                (**part).clone().put(&mut changed);
                vec![Request::Apply(Box::new(changed))]
            }
            Some(StepPlan::Advance(seconds)) => {
                vec![Request::Advance(Time(std::time::Duration::from_secs(*seconds)))]
            }
            Some(StepPlan::Packet(packet)) => vec![inject(packet.port, packet.frame(&setup, None))],
            Some(StepPlan::Fragments(packet, order)) => order
                .iter()
                .map(|first| inject(packet.port, packet.frame(&setup, Some(*first))))
                .collect(),
            Some(StepPlan::Again(which)) => match injected.as_slice() {
                [] => Vec::new(),
                all => vec![Request::Inject(all[which.index(all.len())].clone())],
            },
            Some(StepPlan::Answer(which, answer)) => {
                let found = (!left.is_empty())
                    .then(|| left.get(which.index(left.len())))
                    .flatten();
                let answered = found.and_then(|(port, frame)| {
                    let frame = match comparison.tunnel_packet(frame) {
                        Some(udp) => answer_in_tunnel(&comparison, frame, udp, answer)?,
                        None => answer.to(frame)?,
                    };
                    Some(inject(comparison.sim().port_name(*port), frame))
                });
                answered.into_iter().collect()
            }
            Some(StepPlan::Question(question)) => vec![inject(question.port, question.frame(&setup))],
        };
        for request in wanted {
            match comparison.step(&request) {
                Ok(sent) => {
                    left.extend(sent);
                    while left.len() > REMEMBERED {
                        left.pop_front();
                    }
                }
                // Parts that do not fit together: all stays as it was.
                Err(StepError::Refused(_)) if matches!(request, Request::Apply(_)) => continue,
                Err(error) => {
                    requests.push(request);
                    return Err((requests, error));
                }
            }
            match &request {
                Request::Apply(applied) => state = State::clone(applied),
                Request::Inject(it) => injected.push(it.clone()),
                _ => {}
            }
            requests.push(request);
        }
    }
    Ok(requests)
}

/// The other node's answer to what was sent to it in a tunnel.
fn answer_in_tunnel(
    comparison: &Comparison,
    frame: &[u8],
    udp: usize,
    answer: &super::generate::Answer,
) -> Option<Vec<u8>> {
    let outer = dissect(frame)?;
    let state = comparison.sim().state();
    let tunnel = &state.node().tunnel;
    let inner = answer.to(frame.get(udp + 16 + comparison.options(frame, udp)..)?)?;
    let (to, from) = (
        frame.get(6..12)?.try_into().ok()?,
        frame.get(..6)?.try_into().ok()?,
    );
    let tunnel = Tunnel {
        src: outer.dst,
        dst: outer.src,
        vni: 2001,
        class: 0,
        geneve: tunnel.protocol == TunnelProtocol::Geneve,
        odd: None,
        with_sum: true,
        told: None,
        port: tunnel.port,
    };
    Some(tunnel.wrap(to, from, &inner))
}

fn inject(port: &str, frame: Vec<u8>) -> Request {
    Request::Inject(Inject {
        port: port.into(),
        hex: Some(Hex(frame)),
        frames: Vec::new(),
    })
}

/// Runs a scenario that was written down.
///
/// # Errors
/// The number of the request, from 0, and what went wrong.
pub fn replay(requests: &[Request]) -> Result<(), (usize, StepError)> {
    let Some((Request::Setup(first), rest)) = requests.split_first() else {
        return Err((0, StepError::Model("a scenario begins with setup".into())));
    };
    let setup = first
        .setup()
        .map_err(|error| (0, StepError::Model(error.to_string())))?;
    let mut comparison = Comparison::new(setup).map_err(|error| (0, error))?;
    for (index, request) in rest.iter().enumerate() {
        comparison.step(request).map_err(|error| (index + 1, error))?;
    }
    Ok(())
}
