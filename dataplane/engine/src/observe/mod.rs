//! What the slow path tells those who look on: verdicts and drops to a [`Monitor`], every step of one packet to a
//! [`Trace`]. Nothing here is on the fast path, and without onlookers the slow path pays one comparison for each.

mod explain;
mod monitor;
mod trace;

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use octoplane_flow::Tuple;
use octoplane_packet::BufPool;
use octoplane_tables::model::PolicyEntry;
use octoplane_tables::{MatchType, Snapshot, Target, Verdict as Decided};

use crate::connection::Packet;
use crate::drop_reason::{Direction, DropReason};
use crate::engine::{Core, Rx};

pub use explain::Arrival;
pub use monitor::{Event, EventKind, Interest, Monitor};
pub use trace::{Choice, Fate, Step, Trace};

/// What a policy says of a packet (specification, section 4: verdict event).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyVerdict {
    /// Whose policy: an endpoint of ours, or [`HOST_ENDPOINT`](octoplane_tables::model::HOST_ENDPOINT).
    pub endpoint: u32,
    /// Whether that side sends the packet.
    pub egress: bool,
    /// Identity of that side.
    pub local: u32,
    /// Identity of the other side.
    pub remote: u32,
    /// The packet as policy sees it: after services.
    pub tuple: Tuple,
    /// What policy takes for its destination port: the ICMP type of what has no ports.
    pub port: u16,
    /// What became of it, by which entry.
    pub decided: Decided,
    /// Whether the endpoint has a policy, and it is enforced in this direction.
    pub enforced: bool,
    /// Whether the packet begins a connection.
    pub first: bool,
}

impl PolicyVerdict {
    /// Why it drops the packet, if it does.
    #[must_use]
    pub fn reason(&self) -> Option<DropReason> {
        use octoplane_tables::Decision::{Allow, AuthRequired, Deny, NoMatch};
        match self.decided.decision {
            Allow => None,
            Deny => Some(DropReason::PolicyDenylist),
            NoMatch => Some(DropReason::PolicyDenied),
            AuthRequired => Some(DropReason::AuthRequired),
        }
    }

    /// Whether it is news: of everything refused, redirected or only let pass in audit mode, and of connections that begin. That the
    /// node may do what nobody forbids is none.
    fn is_news(&self) -> bool {
        let decided = &self.decided;
        let host = self.endpoint == octoplane_tables::model::HOST_ENDPOINT;
        if host && decided.allowed() && decided.match_type == MatchType::All && !decided.audited {
            return false;
        }
        self.first || !decided.allowed() || decided.proxy_port != 0 || decided.audited
    }
}

/// A packet that was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// Why.
    pub reason: DropReason,
    /// Which way it was going.
    pub direction: Direction,
    /// Number of the port that it came in by.
    pub port: u16,
    /// What it said when it was dropped, if it was read so far.
    pub tuple: Option<Tuple>,
    /// Endpoints of ours that have its source and destination, or 0.
    pub endpoints: [u32; 2],
    /// Identities of its source and destination, 0 where they are not known.
    pub identities: [u32; 2],
    /// Bytes, with Ethernet header.
    pub len: u32,
}

/// Who looks on.
pub(crate) struct Onlookers {
    /// Verdicts and drops of this worker.
    pub(crate) monitor: Arc<Monitor>,
    /// The packet that is explained, if one is.
    trace: Option<Box<RefCell<Trace>>>,
}

impl Onlookers {
    pub(crate) fn new(monitor: Arc<Monitor>) -> Self {
        Self { monitor, trace: None }
    }
}

impl<P: BufPool> Core<P> {
    /// Whether a packet is explained, which must not leave traces elsewhere.
    #[inline]
    pub(crate) fn explains(&self) -> bool {
        self.onlookers.trace.is_some()
    }

    /// Tells of a step, if a packet is explained.
    #[inline]
    pub(crate) fn note(&self, step: impl FnOnce() -> Step) {
        if let Some(trace) = &self.onlookers.trace
            && let Ok(mut trace) = trace.try_borrow_mut()
        {
            trace.steps.push(step());
        }
    }

    /// Tells of a look into the forwarding tables.
    #[inline]
    pub(crate) fn note_route(&self, dst: IpAddr, target: &Target) {
        self.note(|| Step::Route { dst, target: *target });
    }

    /// The number to choose a backend with: that of the one to explain, else any.
    pub(crate) fn choice(&mut self) -> u32 {
        match &self.onlookers.trace {
            Some(trace) => trace.try_borrow().map_or(0, |trace| trace.choose),
            None => self.random(),
        }
    }

    /// Tells of what a policy says.
    #[inline]
    pub(crate) fn tell_verdict(
        &self,
        rx: &Rx<'_>,
        verdict: &PolicyVerdict,
        entry: impl FnOnce() -> Option<PolicyEntry>,
    ) {
        if self.onlookers.monitor.wants(Interest::VERDICTS) && verdict.is_news() {
            self.onlookers.monitor.tell(rx.now, EventKind::Verdict(*verdict));
        }
        self.note(|| Step::Policy(*verdict, entry()));
    }

    /// Tells of a drop.
    #[inline]
    pub(crate) fn tell_drop(&self, rx: &Rx<'_>, reason: DropReason, frame: &[u8]) {
        if self.onlookers.monitor.wants(Interest::DROPS) {
            self.tell_drop_of(rx, reason, frame);
        }
    }

    #[cold]
    #[inline(never)]
    fn tell_drop_of(&self, rx: &Rx<'_>, reason: DropReason, frame: &[u8]) {
        let tuple = read(frame);
        let ends = tuple.map(|tuple| [tuple.src(), tuple.dst()].map(|addr| whose(rx.snapshot, addr)));
        let ends = ends.unwrap_or_default();
        self.onlookers.monitor.tell(
            rx.now,
            EventKind::Drop(Dropped {
                reason,
                direction: rx.direction(),
                port: rx.port,
                tuple,
                endpoints: ends.map(|(endpoint, _)| endpoint),
                identities: ends.map(|(_, identity)| identity),
                len: frame.len() as u32,
            }),
        );
    }
}

/// What an IP packet in a frame says, as far as it can be read.
fn read(frame: &[u8]) -> Option<Tuple> {
    let packet = match frame.get(12..14)? {
        [0x08, 0x00] => Packet::v4(frame),
        [0x86, 0xdd] => Packet::v6(frame),
        _ => return None,
    };
    packet.ok().map(|packet| packet.tuple)
}

/// The endpoint and the identity behind an address.
fn whose(snapshot: &Snapshot, addr: IpAddr) -> (u32, u32) {
    let (target, remote) = match addr {
        IpAddr::V4(addr) => (snapshot.route4(addr.to_bits()), snapshot.remote4(addr.to_bits())),
        IpAddr::V6(addr) => (snapshot.route6(addr.to_bits()), snapshot.remote6(addr.to_bits())),
    };
    match target.endpoint {
        0 => (0, remote.identity),
        endpoint => (endpoint, target.identity),
    }
}
