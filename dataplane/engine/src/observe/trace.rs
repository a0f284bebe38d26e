//! What became of one packet, step by step.

use std::net::IpAddr;

use octoplane_flow::Tuple;
use octoplane_tables::model::{FrontendType, PolicyEntry, PortId};
use octoplane_tables::{Backend, EgressRule, Target};

use super::PolicyVerdict;
use crate::drop_reason::DropReason;
use crate::parking::Awaited;
use crate::verdict::Verdict;

/// How a backend was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The client is with it.
    Affinity,
    /// At random: any of those that may get new connections could have been.
    Random,
    /// By the hash of the connection: always this one.
    Maglev,
}

/// One step of a packet through the slow path, in their order.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "there are a few of them")]
pub enum Step {
    /// The destination was looked up in the forwarding tables.
    Route {
        /// The destination.
        dst: IpAddr,
        /// Where it leads.
        target: Target,
    },
    /// The sender is known.
    Sender {
        /// Its address.
        src: IpAddr,
        /// Its identity.
        identity: u32,
        /// Its endpoint, or 0.
        endpoint: u32,
        /// Whether another node sent the packet through a tunnel, and says so.
        tunnel: bool,
    },
    /// The packet belongs to a connection.
    Known {
        /// What packets of its first direction arrive with.
        forward: Tuple,
        /// Whether this is one of those.
        is_forward: bool,
    },
    /// The packet is for a service.
    Service {
        /// Name of the service.
        name: String,
        /// Its address and port that the packet is for.
        addr: (IpAddr, u16),
        /// Why that is the service's.
        kind: FrontendType,
        /// Whether the client is inside of the cluster, as far as services are concerned.
        inside: bool,
        /// The backend, and how it was chosen.
        chosen: Option<(Backend, Choice)>,
        /// All backends for such clients; the first `usable` may get new connections.
        backends: Vec<Backend>,
        /// How many.
        usable: usize,
    },
    /// A policy was asked; the entry that decided, if one did.
    Policy(PolicyVerdict, Option<PolicyEntry>),
    /// The packet goes to the proxy on this node: its first address, and this port.
    Proxy {
        /// The port.
        port: u16,
    },
    /// A rule says where packets to the world leave from.
    EgressGateway {
        /// The packet's source.
        src: IpAddr,
        /// Its destination.
        dst: IpAddr,
        /// What the rule says.
        rule: EgressRule,
    },
    /// The packet takes on another source address.
    Masquerade {
        /// The address.
        addr: IpAddr,
        /// What it leaves with.
        out: Tuple,
    },
    /// Where it goes.
    Way {
        /// What it leaves with.
        out: Tuple,
        /// The target, which leads to the other node if there is one.
        target: Target,
        /// The other node, and whether a tunnel leads to it.
        node: Option<(IpAddr, bool)>,
    },
    /// A rate counts for it; whether there is room in it was not looked at.
    Rate {
        /// The endpoint that has it.
        endpoint: u32,
        /// Whether it is for what the endpoint receives.
        ingress: bool,
    },
    /// It is encrypted for this node.
    Encrypt {
        /// The node.
        node: IpAddr,
        /// Security parameter index.
        spi: u32,
    },
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is sent.
    Sent {
        /// The port it leaves by.
        port: PortId,
    },
    /// It is encrypted and then sent.
    Encrypted {
        /// The port it leaves by.
        port: PortId,
    },
    /// It is given to this machine's kernel.
    Host {
        /// The port it leaves by.
        port: PortId,
    },
    /// It is dropped.
    Dropped {
        /// Why.
        reason: DropReason,
        /// Whether the sender is told.
        told: bool,
    },
    /// It waits until a neighbour's Ethernet address is known.
    Waits {
        /// Where the neighbour is.
        port: PortId,
        /// Its address.
        addr: IpAddr,
    },
    /// It is answered here.
    Answered,
    /// It ends here as it should.
    Consumed,
    /// It is decrypted, and then looked at anew.
    Decrypted,
    /// It waits for the first fragment of its packet.
    WaitsForFragment,
}

impl Fate {
    /// `host`: it was to be given to the kernel.
    pub(super) fn of(verdict: Verdict, host: bool) -> Self {
        match verdict {
            Verdict::Send(port) if host => Self::Host { port },
            Verdict::Send(port) | Verdict::SendInPieces(port, _) => Self::Sent { port },
            Verdict::Seal(seal) | Verdict::SealInPieces(seal, _) => Self::Encrypted { port: seal.port },
            Verdict::Open => Self::Decrypted,
            Verdict::Drop(reason) | Verdict::Punt(reason) => Self::Dropped { reason, told: false },
            Verdict::Refuse(reason, _) | Verdict::RefuseInner(reason, _) => {
                Self::Dropped { reason, told: true }
            }
            Verdict::Consumed => Self::Consumed,
            Verdict::Answer => Self::Answered,
            Verdict::Park(awaited) | Verdict::ParkInner(awaited, _) => match awaited {
                Awaited::Neighbour(port, addr) => Self::Waits { port, addr },
                Awaited::FirstFragment(_) => Self::WaitsForFragment,
            },
        }
    }
}

/// What became of one packet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trace {
    /// Which of the backends that may get new connections to take: the number of one, from 0.
    pub(crate) choose: u32,
    /// The steps.
    pub steps: Vec<Step>,
    /// The end.
    pub fate: Option<Fate>,
    /// The frame as it leaves, before encryption.
    pub frame: Vec<u8>,
}
