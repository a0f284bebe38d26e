//! An agent that was started again programs everything anew: begin, everything, end.

use std::time::Duration;

use octoplane_api::v1;
use octoplane_api::v1::change::Change as Step;
use octoplane_api::v1::resync_request::Step as Resync;
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::common::{Lab, apply, endpoint, neighbour, route};

/// An agent in the middle of it.
struct Agent {
    steps: Sender<v1::ResyncRequest>,
    answer: JoinHandle<Result<v1::ApplyResponse, Status>>,
}

impl Agent {
    async fn begin(lab: &Lab, begin: v1::ResyncBegin) -> Self {
        let (steps, receiver) = channel(16);
        let mut config = lab.config().await;
        let answer = tokio::spawn(async move {
            let answer = config.resync(ReceiverStream::new(receiver)).await?;
            Ok(answer.into_inner())
        });
        let agent = Self { steps, answer };
        agent.say(Resync::Begin(begin)).await;
        agent
    }

    async fn say(&self, step: Resync) {
        let message = v1::ResyncRequest { step: Some(step) };
        // Whoever has been refused hears no more.
        let _ = self.steps.send(message).await;
    }

    async fn send(&self, objects: v1::ReplaceRequest) {
        self.say(Resync::Objects(objects)).await;
    }

    async fn answer(self) -> Result<v1::ApplyResponse, Status> {
        let answer = tokio::time::timeout(Duration::from_secs(20), self.answer).await;
        answer.unwrap().unwrap()
    }

    async fn end(self) -> Result<v1::ApplyResponse, Status> {
        self.say(Resync::End(true)).await;
        self.answer().await
    }
}

fn kinds(kinds: &[v1::Kind]) -> v1::ResyncBegin {
    v1::ResyncBegin {
        kinds: kinds.iter().map(|kind| (*kind).into()).collect(),
        ..Default::default()
    }
}

fn endpoints(ids: impl IntoIterator<Item = u32>) -> v1::ReplaceRequest {
    v1::ReplaceRequest {
        endpoints: ids.into_iter().map(endpoint).collect(),
        ..Default::default()
    }
}

fn routes() -> v1::ReplaceRequest {
    v1::ReplaceRequest {
        routes: vec![route("0.0.0.0/0", "192.0.2.1")],
        neighbours: vec![neighbour("192.0.2.1", "02:00:00:00:00:91")],
        ..Default::default()
    }
}

/// Endpoints 1 to 4, a route, a static neighbour.
async fn programmed() -> Lab {
    let lab = Lab::start().await;
    let agent = Agent::begin(&lab, kinds(&[])).await;
    agent.send(endpoints([1, 2])).await;
    agent.send(endpoints([3, 4])).await;
    agent.send(routes()).await;
    let answer = agent.end().await.unwrap();
    assert_eq!((answer.created, answer.revision), (6, 1));
    lab
}

fn ids(lab: &Lab) -> Vec<u32> {
    lab.store.state().endpoints().map(|it| it.id).collect()
}

#[tokio::test]
async fn only_the_difference_is_applied_with_the_end() {
    let lab = programmed().await;
    // Nothing is different: nothing is touched.
    let agent = Agent::begin(&lab, kinds(&[])).await;
    agent.send(endpoints(1..=4)).await;
    agent.send(routes()).await;
    let answer = agent.end().await.unwrap();
    assert_eq!((answer.revision, answer.events.len()), (1, 0));
    // Two were not sent again, one is different.
    let agent = Agent::begin(&lab, kinds(&[])).await;
    let mut some = endpoints([1, 3]);
    some.endpoints[1].identity = 4711;
    agent.send(some).await;
    agent.send(routes()).await;
    assert_eq!(ids(&lab), [1, 2, 3, 4], "not before the end");
    let answer = agent.end().await.unwrap();
    assert_eq!((answer.created, answer.modified, answer.removed), (0, 1, 2));
    assert_eq!((ids(&lab), answer.revision), (vec![1, 3], 2));
}

#[tokio::test]
async fn kinds_that_are_not_announced_are_left_alone() {
    let lab = programmed().await;
    let agent = Agent::begin(&lab, kinds(&[v1::Kind::Endpoint])).await;
    agent.send(endpoints([2])).await;
    let answer = agent.end().await.unwrap();
    assert_eq!((answer.created, answer.modified, answer.removed), (0, 0, 3));
    let state = lab.store.state();
    assert_eq!((state.route_count(), state.neighbour_count()), (1, 1));

    let agent = Agent::begin(&lab, kinds(&[v1::Kind::Endpoint])).await;
    agent.send(routes()).await;
    let refused = agent.answer().await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("KIND_ROUTE"), "{}", refused.message());
    assert_eq!(ids(&lab), [2]);
}

#[tokio::test]
async fn what_others_program_meanwhile_stays() {
    let lab = programmed().await;
    let agent = Agent::begin(&lab, kinds(&[])).await;
    agent.send(endpoints([1])).await;
    // It has begun, or else the others would not be others.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let changed = v1::Endpoint {
        identity: 2000,
        ..endpoint(2)
    };
    lab.config()
        .await
        .apply(apply([
            Step::PutEndpoint(endpoint(9)),
            Step::PutEndpoint(changed),
            Step::RemoveEndpoint(3),
            Step::PutRoute(route("198.51.100.0/24", "192.0.2.1")),
        ]))
        .await
        .unwrap();
    agent.send(routes()).await;
    agent.end().await.unwrap();
    // 4 was there, and was not sent again.
    assert_eq!(ids(&lab), [1, 2, 9]);
    let state = lab.store.state();
    assert_eq!(state.endpoint(2).unwrap().identity, 2000);
    assert_eq!(state.route_count(), 2);
}

#[tokio::test]
async fn an_agent_that_dies_half_way_leaves_everything() {
    let lab = programmed().await;
    // Its process is gone, and with it the connection.
    let agent = Agent::begin(&lab, kinds(&[])).await;
    agent.send(endpoints([7])).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    agent.answer.abort();
    // It ends in order without having said so.
    let agent = Agent::begin(&lab, kinds(&[])).await;
    agent.send(endpoints([7])).await;
    let Agent { steps, answer } = agent;
    drop(steps);
    let refused = answer.await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::Cancelled);
    // It hangs.
    let begin = v1::ResyncBegin {
        idle_seconds: 1,
        ..kinds(&[])
    };
    let agent = Agent::begin(&lab, begin).await;
    agent.send(endpoints([7])).await;
    let refused = agent.answer().await.unwrap_err();
    assert_eq!(refused.code(), Code::DeadlineExceeded);
    assert_eq!((ids(&lab), lab.revision()), (vec![1, 2, 3, 4], 1));
}

#[tokio::test]
async fn beginning_again_ends_an_unfinished_one() {
    let lab = programmed().await;
    let first = Agent::begin(&lab, kinds(&[v1::Kind::Endpoint, v1::Kind::Route])).await;
    let other = Agent::begin(&lab, kinds(&[v1::Kind::Service])).await;
    first.send(endpoints([7])).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = Agent::begin(&lab, kinds(&[v1::Kind::Endpoint])).await;
    let refused = first.answer().await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    second.send(endpoints([1, 2])).await;
    assert_eq!(second.end().await.unwrap().removed, 2);
    // It was about something else.
    assert_eq!(other.end().await.unwrap().removed, 0);
}

#[tokio::test]
async fn steps_have_an_order() {
    let lab = programmed().await;
    let objects = || Resync::Objects(endpoints([1]));
    let begin = || Resync::Begin(kinds(&[]));
    let bad_kind = Resync::Begin(v1::ResyncBegin {
        kinds: vec![99],
        ..Default::default()
    });
    for (steps, expected) in [
        (vec![objects()], "begin: is missing"),
        (vec![begin(), begin()], "the first message only"),
        (vec![begin(), Resync::End(false)], "only true has a meaning"),
        (
            vec![begin(), objects(), objects(), Resync::End(true)],
            "is given twice",
        ),
        (vec![bad_kind], "kinds: 99 is none"),
    ] {
        let messages: Vec<_> = steps
            .into_iter()
            .map(|step| v1::ResyncRequest { step: Some(step) })
            .collect();
        let mut config = lab.config().await;
        let refused = config.resync(tokio_stream::iter(messages)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(expected), "{}", refused.message());
    }
    assert_eq!((ids(&lab), lab.revision()), (vec![1, 2, 3, 4], 1));
}

#[tokio::test]
async fn a_dry_run_says_what_it_would_do() {
    let lab = programmed().await;
    let begin = v1::ResyncBegin {
        dry_run: true,
        ..kinds(&[])
    };
    let agent = Agent::begin(&lab, begin).await;
    agent.send(endpoints([1])).await;
    let answer = agent.end().await.unwrap();
    assert_eq!((answer.removed, answer.events.len()), (5, 5));
    assert_eq!((ids(&lab).len(), lab.revision()), (4, 1));
}
