//! What the services need of the daemon.

use octoplane_api::v1;
use octoplane_tables::SharedStore;

/// The data plane, as the services see it. All methods read counters only, and return at once.
pub trait Dataplane: Send + Sync + 'static {
    /// The tables.
    fn store(&self) -> &SharedStore;

    /// The daemon, its workers and memory. Tables and revision are filled in by the caller.
    fn status(&self) -> v1::Status;

    /// Counters of all ports, in the order of their numbers; with the driver's own if `xstats` is set.
    fn port_stats(&self, xstats: bool) -> Vec<v1::PortStats>;

    /// Dropped packets by reason and direction, those that are not zero.
    fn drops(&self) -> Vec<v1::Drop>;

    /// Pipeline stages by worker.
    fn stages(&self) -> Vec<v1::Stage>;
}
