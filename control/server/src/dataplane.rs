//! What the services need of the daemon.

use std::sync::Arc;

use octoplane_api::v1;
use octoplane_cni_server::Attachments;
use octoplane_config::Port;
use octoplane_flow::{FlowRef, FlowTable};
use octoplane_tables::{ChangeError, SharedStore, State};

use crate::ipsec::IpsecControl;
use crate::observe::Observer;
use crate::saved::StateJournal;

/// The data plane, as the services see it. All methods but those that add and remove ports read counters only, and return
/// at once.
pub trait Dataplane: Send + Sync + 'static {
    /// The tables.
    fn store(&self) -> &SharedStore;

    /// What keeps added ports, if anything does; the tables know it as their journal.
    fn saved(&self) -> Option<&StateJournal> {
        None
    }

    /// The daemon, its workers and memory. Tables and revision are filled in by the caller.
    fn status(&self) -> v1::Status;

    /// Counters of all ports, in the order of their numbers; with the driver's own if `xstats` is set.
    fn port_stats(&self, xstats: bool) -> Vec<v1::PortStats>;

    /// Pods that come and go by way of CNI plugins. Without them, that service is not there.
    fn attachments(&self) -> Option<Arc<Attachments>> {
        None
    }

    /// Encryption between nodes. Without it, that service is not there.
    fn ipsec(&self) -> Option<Arc<dyn IpsecControl>> {
        None
    }

    /// What becomes of packets. Without it, that service is not there.
    fn observer(&self) -> Option<Arc<dyn Observer>> {
        None
    }

    /// Dropped packets by reason and direction, those that are not zero.
    fn drops(&self) -> Vec<v1::Drop>;

    /// Pipeline stages by worker.
    fn stages(&self) -> Vec<v1::Stage>;

    /// The connections.
    fn flows(&self) -> &FlowTable;

    /// What a connection means, in the terms of `state`. `None` if it is gone, or goes meanwhile.
    fn flow(&self, state: &State, flow: FlowRef) -> Option<v1::Flow>;

    /// Adds a port whose settings are right in themselves: device, workers, tables. Says whether it was there already,
    /// with the same settings. What fails leaves nothing behind. Blocks as long as the device takes.
    ///
    /// # Errors
    /// [`PortRefusal`]
    fn add_port(&self, port: Port) -> Result<bool, PortRefusal>;

    /// Removes a port: tables, workers, device. Blocks as long as the device takes.
    ///
    /// # Errors
    /// [`PortRefusal`]
    fn remove_port(&self, name: &str) -> Result<(), PortRefusal>;
}

/// Why a port was not added or not removed. The texts do not name the port where they need not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortRefusal {
    /// A setting does not fit this daemon.
    #[error("{field}: {text}")]
    Invalid {
        /// The setting.
        field: &'static str,
        /// What is wrong with it, and what would be right.
        text: String,
    },
    /// Another port has what can be had once only.
    #[error("{field}: {text}")]
    Exists {
        /// The setting.
        field: &'static str,
        /// Who has it.
        text: String,
    },
    /// There is no room for it.
    #[error("{field}: {text}")]
    Full {
        /// The setting that asks for the room.
        field: &'static str,
        /// What is full, and where the limit stands.
        text: String,
    },
    /// There is no such port.
    #[error("there is no port \"{0}\"")]
    NoSuchPort(String),
    /// The device cannot be used: it is not there, or its driver says no.
    #[error("device: {0}")]
    Device(String),
    /// An earlier removal did not come to its end.
    #[error("{0}")]
    Leaving(String),
    /// The tables say no.
    #[error(transparent)]
    Tables(#[from] ChangeError),
    /// Something that should not happen.
    #[error("{0}")]
    Failed(String),
}

impl PortRefusal {
    /// The field of the request that it is about.
    pub(crate) fn field(&self) -> Option<&'static str> {
        match self {
            Self::Invalid { field, .. } | Self::Exists { field, .. } | Self::Full { field, .. } => {
                Some(field)
            }
            Self::Device(_) => Some("device"),
            Self::Tables(error) => match error {
                ChangeError::PortExists { .. }
                | ChangeError::TooManyPorts { .. }
                | ChangeError::PortInUse { .. } => Some("name"),
                ChangeError::SecondHostPort { .. } => Some("role"),
                ChangeError::PortAddress { .. } => Some("addresses"),
                _ => None,
            },
            Self::NoSuchPort(_) => Some("name"),
            Self::Leaving(_) | Self::Failed(_) => None,
        }
    }
}
