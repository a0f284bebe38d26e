//! One address and port of a service as the workers see it.

use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{Algorithm, Forwarding, FrontendType, Protocol, TrafficPolicy};
use crate::services::{BackendSet, SourceRanges};

/// An address and port where a service answers (specification of the datapath, sections 2.8 and 3.1).
#[derive(Debug, Clone)]
pub struct Frontend {
    /// Number on this node, the same while the frontend lives: Cilium's `rev_nat_index`. Not 0.
    pub id: u16,
    /// Its address: never the unspecified one.
    pub addr: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// Name of the service.
    pub service: Arc<str>,
    /// Why the address is the service's.
    pub kind: FrontendType,
    /// Whether clients outside of the cluster may use it; if not, the drop reason is 174.
    pub routable: bool,
    /// Backends for clients outside of the cluster.
    pub external: Arc<BackendSet>,
    /// Backends for clients inside of the cluster; the same as `external` unless the policies differ.
    pub internal: Arc<BackendSet>,
    /// Backends for clients inside of the cluster, as the service says.
    pub internal_policy: TrafficPolicy,
    /// Backends for clients outside of the cluster, as the service says.
    pub external_policy: TrafficPolicy,
    /// How long a client stays with its backend; 0: for one flow.
    pub affinity_seconds: u32,
    /// Clients from outside of the cluster that may use it; `None`: all.
    pub source_ranges: Option<Arc<SourceRanges>>,
    /// How a backend is chosen for a flow from outside of the cluster.
    pub algorithm: Algorithm,
    /// How packets reach a backend on another node; `None`: as the node's settings say.
    pub forwarding: Option<Forwarding>,
    /// Port of the proxy on this node that takes the flows; 0: none.
    pub proxy_port: u16,
}

impl Frontend {
    /// Asks the CPU for what a new flow reads of it.
    pub fn prefetch(&self) {
        prefetch::read(&self.internal);
        prefetch::read(&self.external);
        prefetch::read(&self.addr);
        prefetch::read(&self.affinity_seconds);
        prefetch::read(&self.kind);
    }
}
