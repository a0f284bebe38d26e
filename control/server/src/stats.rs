//! The service `Stats`.

use std::sync::Arc;

use octoplane_api::v1;
use tonic::{Request, Response, Status};

use crate::dataplane::Dataplane;
use crate::refusal::clip;

pub(crate) struct StatsService<D>(pub(crate) Arc<D>);

#[tonic::async_trait]
impl<D: Dataplane> v1::stats_server::Stats for StatsService<D> {
    async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Result<Response<v1::Status>, Status> {
        let store = self.0.store().clone();
        // Off the runtime's threads: a large transaction holds the store for a while.
        let read = move || (store.state().revision(), store.usage());
        let (revision, usage) = tokio::task::spawn_blocking(read)
            .await
            .map_err(|_| Status::internal("the tables could not be read"))?;
        let tables = usage.into_iter().map(|usage| v1::Table {
            name: usage.table.into(),
            used: usage.used as u64,
            capacity: usage.capacity as u64,
        });
        let mut status = self.0.status();
        status.revision = revision;
        // The daemon's own tables come last.
        status.tables = tables.chain(status.tables).collect();
        Ok(Response::new(status))
    }

    async fn get_port_stats(
        &self,
        request: Request<v1::GetPortStatsRequest>,
    ) -> Result<Response<v1::PortStatsList>, Status> {
        let v1::GetPortStatsRequest { names, xstats } = request.into_inner();
        let mut ports = self.0.port_stats(xstats);
        if let Some(unknown) = names
            .iter()
            .find(|name| !ports.iter().any(|port| port.name == **name))
        {
            let unknown = clip(unknown);
            return Err(Status::not_found(format!(
                "names: there is no port \"{unknown}\""
            )));
        }
        if !names.is_empty() {
            ports.retain(|port| names.contains(&port.name));
        }
        Ok(Response::new(v1::PortStatsList { ports }))
    }

    async fn get_drops(&self, _: Request<v1::GetDropsRequest>) -> Result<Response<v1::DropList>, Status> {
        Ok(Response::new(v1::DropList {
            drops: self.0.drops(),
        }))
    }

    async fn get_stages(&self, _: Request<v1::GetStagesRequest>) -> Result<Response<v1::StageList>, Status> {
        Ok(Response::new(v1::StageList {
            stages: self.0.stages(),
        }))
    }
}
