use octoplane_api::v1;
use octoplane_api::v1::change::Change as Step;
use tonic::Code;

use crate::common::{Lab, apply, endpoint};

#[tokio::test]
async fn status_has_revision_and_tables() {
    let lab = Lab::start().await;
    lab.config()
        .await
        .apply(apply([Step::PutEndpoint(endpoint(1))]))
        .await
        .unwrap();
    let status = lab
        .stats()
        .await
        .get_status(v1::GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((status.revision, status.version.as_str()), (1, "1.2.3"));
    assert_eq!((status.mbufs_in_use, status.workers.len()), (7, 1));
    let endpoints = status.tables.iter().find(|it| it.name == "endpoints").unwrap();
    assert_eq!((endpoints.used, endpoints.capacity), (1, 131_072));
}

#[tokio::test]
async fn ports_by_name() {
    let lab = Lab::start().await;
    let mut stats = lab.stats().await;
    let mut ask = async |names: &[&str], xstats| {
        let request = v1::GetPortStatsRequest {
            names: names.iter().map(ToString::to_string).collect(),
            xstats,
        };
        stats
            .get_port_stats(request)
            .await
            .map(|answer| answer.into_inner().ports)
    };
    assert_eq!(ask(&[], false).await.unwrap().len(), 4);
    let ports = ask(&["uplink0"], true).await.unwrap();
    assert_eq!((ports.len(), ports[0].rx_packets), (1, 12));
    assert_eq!(ports[0].xstats[0].name, "rx_q0_packets");
    let error = ask(&["pod1", "pod9"], false).await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::NotFound, "names: there is no port \"pod9\"")
    );
}

#[tokio::test]
async fn drops_and_stages() {
    let lab = Lab::start().await;
    let mut stats = lab.stats().await;
    let drops = stats.get_drops(v1::GetDropsRequest {}).await.unwrap();
    assert_eq!(drops.get_ref().drops[0].code, 130);
    let stages = stats.get_stages(v1::GetStagesRequest {}).await.unwrap();
    assert_eq!(stages.get_ref().stages[0].timed_cycles, 150);
}
