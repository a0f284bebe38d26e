//! Whether the daemon answers.

use std::path::Path;

use octoplane_api::v1;
use octoplane_api::v1::stats_client::StatsClient;

use super::Finding;
use super::machine::Machine;
use crate::cli::Remote;
use crate::connect::connect;

const CHECK: &str = "daemon";

/// Its status, if it answers.
pub(super) async fn check(
    machine: &Machine,
    socket: &Path,
    remote: &Remote,
    findings: &mut Vec<Finding>,
) -> Option<v1::Status> {
    let place = machine.path(socket);
    if remote.server.is_none() && !place.exists() {
        findings.push(Finding::warning(
            CHECK,
            format!("{}: nobody listens there", socket.display()),
            "once all else is well: systemctl start octoplaned\nif it ends: journalctl -u octoplaned",
        ));
        return None;
    }
    let status = match connect(&place, remote).await {
        Err(error) => Err(error.to_string()),
        Ok(channel) => {
            let answer = StatsClient::new(channel)
                .get_status(v1::GetStatusRequest {})
                .await;
            answer
                .map(tonic::Response::into_inner)
                .map_err(|status| status.message().to_owned())
        }
    };
    match status {
        Ok(status) => {
            findings.push(Finding::ok(
                CHECK,
                format!(
                    "octoplaned {} for {} s, {} workers, tables at revision {}",
                    status.version,
                    status.uptime_ms / 1000,
                    status.workers.len(),
                    status.revision
                ),
            ));
            Some(status)
        }
        Err(error) => {
            findings.push(Finding::failure(
                CHECK,
                error,
                "who may use the socket: root, and the groups of control.socket_group and control.read_group\n\
                 what the daemon says: systemctl status octoplaned, journalctl -u octoplaned",
            ));
            None
        }
    }
}
