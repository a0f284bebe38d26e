//! `[state]`.

use std::path::PathBuf;

/// What outlives the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Absolute path of the directory where everything programmed is kept. Default `/var/lib/octoplane`; `None`: nothing is
    /// kept.
    pub directory: Option<PathBuf>,
    /// Absolute path of a directory in memory where connections are kept: on tmpfs or hugetlbfs. Default
    /// `/dev/shm/octoplane`; `None`: connections do not outlive the daemon.
    pub connections: Option<PathBuf>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            directory: Some("/var/lib/octoplane".into()),
            connections: Some("/dev/shm/octoplane".into()),
        }
    }
}
