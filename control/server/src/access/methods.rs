//! The table of all methods: what each does, and how long it lasts.

use octoplane_config::Class;

use Class::{Debug, Program, Read};
use Kind::{Call, Endless};

/// How long a method lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It has an end of its own: the answer must begin in time.
    Call,
    /// It lasts until one side has enough, or has limits of its own.
    Endless,
}

/// A method of one of the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// As in HTTP: `/package.Service/Method`.
    pub path: &'static str,
    /// What a client must be allowed.
    pub class: Class,
    /// How long it lasts.
    pub kind: Kind,
}

const fn method(path: &'static str, class: Class, kind: Kind) -> Method {
    Method { path, class, kind }
}

/// Every method that is served. What does not stand here is refused, so a new method needs a line here; a test compares this
/// table with the protos.
pub const METHODS: &[Method] = &[
    method("/octoplane.v1.Config/Apply", Program, Call),
    method("/octoplane.v1.Config/ApplyStream", Program, Call),
    method("/octoplane.v1.Config/Replace", Program, Call),
    // It has a limit of its own: how long nothing may come.
    method("/octoplane.v1.Config/Resync", Program, Endless),
    method("/octoplane.v1.Config/AddPort", Program, Call),
    method("/octoplane.v1.Config/RemovePort", Program, Call),
    method("/octoplane.v1.Config/ListEndpoints", Read, Call),
    method("/octoplane.v1.Config/ListRoutes", Read, Call),
    method("/octoplane.v1.Config/ListNeighbours", Read, Call),
    method("/octoplane.v1.Config/ListPorts", Read, Call),
    method("/octoplane.v1.Config/ListIpcache", Read, Call),
    method("/octoplane.v1.Config/ListServices", Read, Call),
    method("/octoplane.v1.Config/ListPolicies", Read, Call),
    method("/octoplane.v1.Config/ListEgressGateways", Read, Call),
    method("/octoplane.v1.Config/ListAuthentications", Read, Call),
    method("/octoplane.v1.Config/GetEndpoint", Read, Call),
    method("/octoplane.v1.Config/GetNode", Read, Call),
    method("/octoplane.v1.Config/GetIpcache", Read, Call),
    method("/octoplane.v1.Config/GetService", Read, Call),
    method("/octoplane.v1.Config/GetPolicy", Read, Call),
    method("/octoplane.v1.Config/GetEgressGateway", Read, Call),
    method("/octoplane.v1.Config/Watch", Read, Endless),
    // Who talks to whom is more than what was programmed, and costs a walk over all connections.
    method("/octoplane.v1.Flows/ListFlows", Debug, Call),
    method("/octoplane.v1.Flows/GetFlow", Debug, Call),
    method("/octoplane.v1.Flows/FlushFlows", Program, Call),
    method("/octoplane.v1.Attachments/Reserve", Program, Call),
    method("/octoplane.v1.Attachments/Attach", Program, Call),
    method("/octoplane.v1.Attachments/Detach", Program, Call),
    method("/octoplane.v1.Attachments/GetAttachment", Read, Call),
    method("/octoplane.v1.Attachments/ListAttachments", Read, Call),
    method("/octoplane.v1.Attachments/ListPools", Read, Call),
    method("/octoplane.v1.Stats/GetStatus", Read, Call),
    method("/octoplane.v1.Stats/GetPortStats", Read, Call),
    method("/octoplane.v1.Stats/GetDrops", Read, Call),
    method("/octoplane.v1.Stats/GetStages", Read, Call),
    method("/octoplane.v1.Ipsec/GetIpsecStatus", Read, Call),
    method("/octoplane.v1.Ipsec/SetIpsecNodes", Program, Call),
    method("/octoplane.v1.Ipsec/ProgramIpsec", Program, Call),
    method("/octoplane.v1.Ipsec/StreamIpsecEvents", Read, Endless),
    method("/octoplane.v1.Ipsec/ListIpsecNodes", Read, Call),
    method("/octoplane.v1.Ipsec/ListIpsecSas", Read, Call),
    method("/octoplane.v1.Ipsec/ListIpsecPolicies", Read, Call),
    method("/octoplane.v1.Ipsec/GetIpsecCounters", Read, Call),
    method("/octoplane.v1.Observe/Explain", Read, Call),
    // Who talks to whom.
    method("/octoplane.v1.Observe/StreamEvents", Debug, Endless),
    method("/grpc.health.v1.Health/Check", Read, Call),
    method("/grpc.health.v1.Health/Watch", Read, Endless),
    method(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Read,
        Endless,
    ),
];

/// The method with this path.
pub(crate) fn find(path: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.path == path)
}
