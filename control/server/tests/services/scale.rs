use std::time::Instant;

use octoplane_api::v1;
use octoplane_api::v1::change::Change as Step;
use tokio_stream::StreamExt as _;

use crate::common::{Lab, apply, endpoint};

/// A hundred thousand take a while without optimisation.
const COUNT: u32 = if cfg!(debug_assertions) { 20_000 } else { 100_000 };

/// Prints how long it takes; run it with --release and --nocapture.
#[tokio::test(flavor = "multi_thread")]
async fn very_many_endpoints() {
    let lab = Lab::start().await;
    let mut config = lab.config().await;
    let all: Vec<v1::Endpoint> = (1..=COUNT).map(endpoint).collect();
    let parts: Vec<_> = all
        .chunks(4096)
        .map(|part| v1::ApplyRequest {
            omit_events: true,
            ..apply(part.iter().cloned().map(Step::PutEndpoint))
        })
        .collect();
    let start = Instant::now();
    let answer = config.apply_stream(tokio_stream::iter(parts)).await.unwrap();
    println!("{COUNT} endpoints in one transaction: {:?}", start.elapsed());
    assert_eq!(
        (answer.get_ref().created, answer.get_ref().revision),
        (COUNT.into(), 1)
    );

    let start = Instant::now();
    let mut chunks = config
        .list_endpoints(v1::ListRequest {})
        .await
        .unwrap()
        .into_inner();
    let mut listed = Vec::new();
    while let Some(chunk) = chunks.next().await {
        listed.extend(chunk.unwrap().endpoints);
    }
    println!("listed: {:?}", start.elapsed());
    assert_eq!(listed, all);

    let mut wanted = all;
    wanted[4711].identity = 2000;
    for (text, modified) in [("replaced, one different", 1), ("replaced, none different", 0)] {
        let parts: Vec<_> = wanted
            .chunks(4096)
            .map(|part| v1::ReplaceRequest {
                endpoints: part.into(),
                ..Default::default()
            })
            .collect();
        let start = Instant::now();
        let answer = config.replace(tokio_stream::iter(parts)).await.unwrap();
        println!("{text}: {:?}", start.elapsed());
        assert_eq!(answer.get_ref().modified, modified);
        assert_eq!(answer.get_ref().events.len() as u64, modified);
    }

    // As one message, with the events in the answer.
    let start = Instant::now();
    let steps = (1..=COUNT).map(Step::RemoveEndpoint);
    let answer = config.apply(apply(steps)).await.unwrap();
    println!("removed again, events told: {:?}", start.elapsed());
    assert_eq!(answer.get_ref().events.len(), COUNT as usize);
}
