//! Connection tracking (specification, 2.3).

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::lb::{BackendId, FrontendId};
use crate::wire::{TCP, Tuple, tcp};

const SECOND: u64 = 1_000_000_000;

/// Timeouts in nanoseconds (specification, 2.3: agent defaults).
pub mod timeout {
    use super::SECOND;
    /// A TCP connection of which a segment without SYN was seen; services too.
    pub const TCP: u64 = 8000 * SECOND;
    /// A TCP connection before that.
    pub const SYN: u64 = 60 * SECOND;
    /// Everything else.
    pub const OTHER: u64 = 60 * SECOND;
    /// A TCP connection that was closed in both directions.
    pub const CLOSING: u64 = 10 * SECOND;
    /// How long after the last packet a closed service connection may change its backend.
    pub const REBALANCE: u64 = 60 * SECOND;
}

/// Which kind of entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Seen leaving an endpoint or this node (flag 0).
    Out,
    /// Seen entering an endpoint (flag 1).
    In,
    /// A client's choice of a backend (flag 4).
    Service,
}

impl Kind {
    fn opposite(self) -> Self {
        match self {
            Self::Out => Self::In,
            Self::In => Self::Out,
            Self::Service => Self::Service,
        }
    }
}

/// In which direction to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Forward,
    Reverse,
    Both,
}

/// Which entries count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filter {
    Any,
    /// With `node_port` and a service.
    NodePort,
    /// Of a DSR request.
    Dsr,
    /// Of this service.
    Service(FrontendId),
}

/// What is known of a flow in one direction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// Absolute time of expiry, nanoseconds.
    pub expires: u64,
    /// Closed by what comes in.
    pub rx_closing: bool,
    /// Closed by what goes out.
    pub tx_closing: bool,
    /// Whether a segment without SYN was seen, or it is not TCP.
    pub seen_non_syn: bool,
    /// A pod talks to itself through a service.
    pub loopback: bool,
    /// A client outside the cluster talks to a service.
    pub node_port: bool,
    /// It goes through a proxy.
    pub proxy_redirect: bool,
    /// It came with DSR information.
    pub dsr: bool,
    /// A backend on another node answers it directly: only one side of it is seen, and closes it.
    pub direct: bool,
    /// It came through the tunnel.
    pub from_tunnel: bool,
    /// The service whose address replies get.
    pub rev_nat: Option<FrontendId>,
    /// The address and port that replies get instead.
    pub nat: Option<(IpAddr, u16)>,
    /// Identity of who opened it.
    pub src_id: u32,
    /// TCP flags seen forwards and backwards.
    pub flags_seen: [u8; 2],
    /// The backend of a [`Kind::Service`] entry.
    pub backend: Option<BackendId>,
    /// Last time a packet was seen.
    pub last: u64,
    /// Higher than those of entries that were made before.
    pub number: u64,
}

/// What a lookup says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    New,
    Established,
    Reply,
}

/// What a packet does to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    None,
    Create,
    Close { reset: bool },
}

fn act(flags: u8, tuple: &Tuple) -> Act {
    if tuple.protocol != TCP {
        Act::None
    } else if flags & (tcp::RST | tcp::FIN) != 0 {
        Act::Close {
            reset: flags & tcp::RST != 0,
        }
    } else if flags & (tcp::SYN | tcp::ACK) == tcp::SYN {
        Act::Create
    } else {
        Act::None
    }
}

/// All entries: flows, services.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conntrack {
    pub(crate) entries: BTreeMap<(Tuple, Kind), Entry>,
    /// Most entries; a full table refuses new ones.
    pub(crate) capacity: usize,
    /// How many entries were made.
    pub(crate) made: u64,
}

impl Conntrack {
    pub(crate) fn expire(&mut self, now: u64) {
        self.entries.retain(|_, entry| entry.expires > now);
    }

    pub(crate) fn get(&self, tuple: &Tuple, kind: Kind) -> Option<&Entry> {
        self.entries.get(&(*tuple, kind))
    }

    /// Looks a packet with TCP flags `flags` up, and lets it refresh what it finds.
    pub(crate) fn lookup(
        &mut self,
        now: u64,
        tuple: &Tuple,
        kind: Kind,
        (scope, filter): (Scope, Filter),
        flags: u8,
    ) -> (Status, Entry) {
        // A packet that is its own reply begins a flow like others.
        if scope != Scope::Forward && tuple.reversed() != *tuple {
            let key = (tuple.reversed(), kind.opposite());
            match self.touch(now, key, kind, filter, flags) {
                Some((true, entry)) => return (Status::New, entry),
                Some((false, entry)) => return (Status::Reply, entry),
                None => {}
            }
        }
        if scope != Scope::Reverse {
            match self.touch(now, (*tuple, kind), kind, filter, flags) {
                Some((true, entry)) => return (Status::New, entry),
                // An existing choice of a backend is what "reply" means for services.
                Some((false, entry)) if kind == Kind::Service => return (Status::Reply, entry),
                Some((false, entry)) => return (Status::Established, entry),
                None => {}
            }
        }
        (Status::New, Entry::default())
    }

    /// Refreshes an entry; whether the packet starts the connection anew.
    fn touch(
        &mut self,
        now: u64,
        key: (Tuple, Kind),
        kind: Kind,
        filter: Filter,
        flags: u8,
    ) -> Option<(bool, Entry)> {
        let entry = self.entries.get_mut(&key).filter(|entry| entry.expires > now)?;
        let fits = match filter {
            Filter::Any => true,
            Filter::NodePort => entry.node_port && entry.rev_nat.is_some(),
            Filter::Dsr => entry.dsr,
            Filter::Service(id) => entry.rev_nat == Some(id),
        };
        if !fits {
            return None;
        }
        let is_tcp = key.0.protocol == TCP;
        let act = act(flags, &key.0);
        let forwards = key.1 == kind;
        let syn = is_tcp && flags & tcp::SYN != 0;
        let idle = now.saturating_sub(entry.last);
        let mut anew = false;
        let refresh = |entry: &mut Entry| {
            if !syn {
                entry.seen_non_syn = true;
            }
            entry.expires = now
                + match entry.direct && (entry.rx_closing || entry.tx_closing) {
                    true => timeout::CLOSING,
                    false => lifetime(&key.0, key.1, entry.seen_non_syn),
                };
        };
        let both = entry.rx_closing && entry.tx_closing;
        if !both || entry.direct {
            refresh(entry);
        }
        if let Some(seen) = entry.flags_seen.get_mut(usize::from(!forwards)) {
            *seen |= flags;
        }
        match act {
            Act::Create if key.1 == Kind::Service => {
                if both && idle >= timeout::REBALANCE {
                    anew = true;
                }
                if entry.rx_closing || entry.tx_closing {
                    (entry.rx_closing, entry.tx_closing) = (false, false);
                    entry.seen_non_syn = false;
                    refresh(entry);
                }
            }
            Act::Create if entry.rx_closing || entry.tx_closing => {
                (entry.rx_closing, entry.tx_closing) = (false, false);
                entry.flags_seen = [0, 0];
                entry.seen_non_syn = false;
                refresh(entry);
                anew = true;
            }
            Act::Close { reset } => {
                let unopened = !entry.flags_seen.iter().all(|seen| seen & tcp::SYN != 0);
                if key.1 == Kind::Service || reset && unopened {
                    (entry.rx_closing, entry.tx_closing) = (true, true);
                } else if kind == Kind::In {
                    entry.rx_closing = true;
                } else {
                    entry.tx_closing = true;
                }
                if entry.direct {
                    (entry.rx_closing, entry.tx_closing) = (true, true);
                }
                if entry.rx_closing && entry.tx_closing && !both {
                    entry.expires = now + timeout::CLOSING;
                }
            }
            Act::Create | Act::None => {}
        }
        entry.last = now;
        Some((anew, entry.clone()))
    }

    /// Creates or replaces an entry; `false` if there is no room.
    pub(crate) fn create(
        &mut self,
        now: u64,
        tuple: &Tuple,
        kind: Kind,
        mut entry: Entry,
        flags: u8,
    ) -> bool {
        let is_tcp = tuple.protocol == TCP;
        entry.seen_non_syn = !is_tcp;
        // The first lifetime is that of a connection of which only the SYN was seen.
        entry.expires = now + lifetime(tuple, kind, entry.seen_non_syn);
        entry.flags_seen = [if is_tcp { flags | tcp::SYN } else { 0 }, 0];
        entry.last = now;
        // Where both ends are here, the entry of the one begins where that of the other stands (README).
        let twin = self.entries.get(&(*tuple, kind.opposite()));
        if kind != Kind::Service
            && !self.entries.contains_key(&(*tuple, kind))
            && let Some(twin) = twin.filter(|twin| twin.expires > now)
        {
            entry.expires = twin.expires;
            entry.seen_non_syn = twin.seen_non_syn;
            entry.flags_seen = twin.flags_seen;
            (entry.rx_closing, entry.tx_closing) = (twin.tx_closing, twin.rx_closing);
        }
        self.made += 1;
        entry.number = self.made;
        let more = usize::from(!self.entries.contains_key(&(*tuple, kind)));
        if self.entries.len() + more > self.capacity {
            return false;
        }
        // What a backend had begun with its client is over when that one reaches it by a service (README).
        if kind != Kind::Service && entry.rev_nat.is_some() {
            let back = tuple.reversed();
            self.entries.retain(|(known, kind), entry| {
                *known != back || *kind == Kind::Service || entry.rev_nat.is_some()
            });
        }
        self.entries.insert((*tuple, kind), entry);
        true
    }

    pub(crate) fn update(&mut self, tuple: &Tuple, kind: Kind, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries.get_mut(&(*tuple, kind)) {
            change(entry);
        }
    }
}

fn lifetime(tuple: &Tuple, kind: Kind, established: bool) -> u64 {
    match (tuple.protocol, kind) {
        (TCP, Kind::Service) => timeout::TCP,
        (TCP, _) if established => timeout::TCP,
        (TCP, _) => timeout::SYN,
        _ => timeout::OTHER,
    }
}
