//! Services: frontends, scopes, choice of a backend (specification, section 3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::choices::Choices;
use crate::config::{
    Algorithm, Backend, BackendState, FrontendType, Protocol, Service, State, TrafficPolicy,
};
use crate::conntrack::{Entry, Filter, Kind, Scope, Status};
use crate::maglev;
use crate::model::Model;
use crate::outcome::code;
use crate::wire::Tuple;

/// A frontend, which is what a reverse NAT index stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontendId {
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: u8,
}

/// A backend, whatever services it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId {
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: u8,
}

/// Which traffic policy applies: that for clients outside, or inside the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScopeOf {
    External,
    Internal,
}

/// A frontend found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) service: Service,
    pub(crate) kind: FrontendType,
    pub(crate) id: FrontendId,
    pub(crate) scope: ScopeOf,
}

/// The source of a pod that talks to itself through a service (specification, 1.2 step 9 f).
pub(crate) const LOOPBACK4: Ipv4Addr = Ipv4Addr::new(169, 254, 42, 1);
/// The same for IPv6.
pub(crate) const LOOPBACK6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The loopback address in the family of `addr`.
pub(crate) fn loopback(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(_) => LOOPBACK4.into(),
        IpAddr::V6(_) => LOOPBACK6.into(),
    }
}

/// Every frontend: a NodePort one without address stands for itself and for each NodePort address of the node.
fn frontends(state: &State) -> impl Iterator<Item = (&Service, FrontendType, IpAddr, u16)> {
    let node = &state.node;
    state.services.iter().flat_map(move |service| {
        service.frontends.iter().flat_map(move |frontend| {
            let own = if node.nodeport_addresses.is_empty() {
                &node.addresses
            } else {
                &node.nodeport_addresses
            };
            let wide = frontend.address.is_unspecified()
                && matches!(frontend.kind, FrontendType::NodePort | FrontendType::HostPort);
            let more = own
                .iter()
                .filter(move |addr| wide && addr.is_ipv4() == frontend.address.is_ipv4());
            std::iter::once(&frontend.address)
                .chain(more)
                .map(move |addr| (service, frontend.kind, *addr, frontend.port))
        })
    })
}

/// The frontend at exactly this address and port.
pub(crate) fn find(state: &State, address: IpAddr, port: u16, protocol: u8) -> Option<Found> {
    frontends(state)
        .find(|(service, _, addr, at)| {
            *addr == address && *at == port && service.protocol.number() == protocol
        })
        .map(|(service, kind, ..)| Found {
            service: service.clone(),
            kind,
            id: FrontendId {
                address,
                port,
                protocol,
            },
            scope: ScopeOf::External,
        })
}

/// Whether `address` is a load balancer's or cluster IP, whatever the port (specification, 3.1: wildcard entry).
pub(crate) fn wildcard(state: &State, address: IpAddr) -> bool {
    frontends(state).any(|(_, kind, addr, _)| {
        addr == address && matches!(kind, FrontendType::LoadBalancer | FrontendType::ClusterIp)
    })
}

/// Whether a service that answers somewhere is so.
pub(crate) fn asks(state: &State, is_so: impl Fn(&Service) -> bool) -> bool {
    frontends(state).any(|(service, _, addr, _)| !addr.is_unspecified() && is_so(service))
}

/// Whether some service answers on one of the 256 addresses around `address`, not counting ports of nodes: what a route sends
/// there is looked at more closely.
pub(crate) fn is_near_frontend(state: &State, address: IpAddr) -> bool {
    let block = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => (u128::from(addr.to_bits() >> 8), false),
        IpAddr::V6(addr) => (addr.to_bits() >> 8, true),
    };
    frontends(state).any(|(_, kind, addr, _)| {
        !matches!(kind, FrontendType::NodePort | FrontendType::HostPort) && block(addr) == block(address)
    })
}

/// Whether some service answers on `address`.
pub(crate) fn is_frontend(state: &State, address: IpAddr) -> bool {
    frontends(state).any(|(_, _, addr, _)| addr == address)
}

impl Found {
    /// The same for clients in the cluster (flag TWO_SCOPES: specification, 1.2 step 9 b).
    pub(crate) fn internal(self) -> Self {
        Self {
            scope: ScopeOf::Internal,
            ..self
        }
    }

    fn local_only(&self) -> bool {
        let policy = match (self.kind, self.scope) {
            (FrontendType::ClusterIp, _) | (_, ScopeOf::Internal) => self.service.internal_policy,
            (_, ScopeOf::External) => self.service.external_policy,
        };
        policy == TrafficPolicy::Local
    }

    /// Backends that new connections may go to, in the order of slots; terminating ones only if there are no active.
    pub(crate) fn candidates(&self) -> Vec<&Backend> {
        let with = |state| {
            let mut found: Vec<&Backend> = self
                .service
                .backends
                .iter()
                .filter(|backend| backend.state == state && (backend.local || !self.local_only()))
                .filter(|backend| backend.address.is_ipv4() == self.id.address.is_ipv4())
                .collect();
            found.sort_by_key(|backend| (backend.address, backend.port));
            found
        };
        let active = with(BackendState::Active);
        if active.is_empty() {
            with(BackendState::Terminating)
        } else {
            active
        }
    }

    /// Whether it can be reached from outside the cluster (flag ROUTABLE).
    pub(crate) fn routable(&self) -> bool {
        self.kind != FrontendType::ClusterIp && !self.id.address.is_unspecified()
    }

    /// Whether `client` may use it from outside (specification, 3.6 step 2).
    pub(crate) fn admits(&self, client: IpAddr) -> bool {
        let ranges = &self.service.source_ranges;
        ranges.is_empty()
            || ranges.iter().any(|range| range.contains(client)) != self.service.source_ranges_deny
    }

    /// Maglev's choice.
    fn maglev(&self, tuple: &Tuple) -> Option<BackendId> {
        let candidates = self.candidates();
        let texts: Vec<(String, u32)> = candidates
            .iter()
            .map(|backend| {
                (
                    hash_string(backend, self.service.protocol, self.scope),
                    backend.weight,
                )
            })
            .collect();
        let table = maglev::table(&texts, maglev::SEEDS.0, maglev::TABLE);
        let sport = if self.service.affinity_seconds > 0 {
            0
        } else {
            tuple.sport
        };
        let hash = maglev::flow_hash(tuple.src, sport, tuple.dport, tuple.protocol);
        let at = table.get(hash as usize % maglev::TABLE)?;
        candidates.get(*at).map(|backend| self.backend_id(backend))
    }

    fn backend_id(&self, backend: &Backend) -> BackendId {
        BackendId {
            address: backend.address,
            port: backend.port,
            protocol: self.id.protocol,
        }
    }
}

/// What a backend is hashed by (specification, 3.4).
fn hash_string(backend: &Backend, protocol: Protocol, _: ScopeOf) -> String {
    let addr = SocketAddr::new(backend.address, backend.port);
    format!("[{addr}/{},State:active]", protocol.name())
}

/// A backend chosen.
pub(crate) struct Chosen {
    pub(crate) backend: BackendId,
}

/// Where a flow goes whose service is not there any more.
pub(crate) struct Kept {
    pub(crate) backend: BackendId,
    pub(crate) entry: Entry,
}

impl Model {
    /// The backend of a flow that came by a service which is gone: it stays (README).
    pub(crate) fn kept(&self, tuple: &Tuple) -> Option<Kept> {
        self.ct.entries.iter().find_map(|((known, kind), entry)| {
            let meant = entry
                .nat
                .or_else(|| entry.rev_nat.map(|id| (id.address, id.port)))?;
            let src = if entry.loopback { known.dst } else { known.src };
            let same = *kind == Kind::Out
                && !entry.dsr
                && meant == (tuple.dst, tuple.dport)
                && (src, known.sport, known.protocol) == (tuple.src, tuple.sport, tuple.protocol)
                && entry.expires > self.now;
            same.then(|| Kept {
                backend: BackendId {
                    address: known.dst,
                    port: known.dport,
                    protocol: known.protocol,
                },
                entry: entry.clone(),
            })
        })
    }

    /// A backend's state: in this service, else in any other.
    fn backend_state(&self, found: &Found, id: BackendId) -> Option<BackendState> {
        let same = |service: &&Service| service.protocol.number() == id.protocol;
        std::iter::once(&found.service)
            .chain(self.state.services.iter().filter(same))
            .flat_map(|service| &service.backends)
            .find(|backend| (backend.address, backend.port) == (id.address, id.port))
            .map(|backend| backend.state)
    }

    /// Chooses a backend and remembers it (specification, 3.3); 158 if there is none. `pod` clients never use Maglev.
    pub(crate) fn lb_local(
        &mut self,
        choices: &mut dyn Choices,
        found: &Found,
        tuple: &Tuple,
        flags: u8,
        syn: bool,
        pod: bool,
    ) -> Result<Chosen, u16> {
        let now = self.now;
        let filter = (Scope::Forward, Filter::Service(found.id));
        let (status, entry) = self.ct.lookup(now, tuple, Kind::Service, filter, flags);
        let affinity = u64::from(found.service.affinity_seconds) * 1_000_000_000;
        let key = (found.id, tuple.src);
        let known = match status {
            Status::New => None,
            _ => entry.backend,
        };
        let backend = match known {
            Some(id) => {
                let state = self.backend_state(found, id);
                let stays = state == Some(BackendState::Active) || state.is_some() && !syn;
                if stays {
                    id
                } else {
                    let id = self.select(choices, found, tuple, pod)?;
                    self.ct
                        .update(tuple, Kind::Service, |entry| entry.backend = Some(id));
                    id
                }
            }
            None => {
                if found.candidates().is_empty() {
                    return Err(code::NO_SERVICE);
                }
                let sticky = self.affinity.get(&key).copied().filter(|(id, used)| {
                    affinity > 0
                        && now < used.saturating_add(affinity)
                        && found.candidates().iter().any(|backend| {
                            found.backend_id(backend) == *id && backend.state == BackendState::Active
                        })
                });
                let id = match sticky {
                    Some((id, _)) => id,
                    None => {
                        self.affinity.remove(&key);
                        self.select(choices, found, tuple, pod)?
                    }
                };
                let entry = Entry {
                    rev_nat: Some(found.id),
                    backend: Some(id),
                    ..Entry::default()
                };
                if !self.ct.create(now, tuple, Kind::Service, entry, flags) {
                    return Err(code::CT_FULL);
                }
                id
            }
        };
        if affinity > 0 {
            self.affinity.insert(key, (backend, now));
        }
        // What its client had begun with the address itself is over.
        for kind in [Kind::Out, Kind::In] {
            if self
                .ct
                .get(tuple, kind)
                .is_some_and(|entry| entry.rev_nat.is_none())
            {
                self.ct.entries.remove(&(*tuple, kind));
                self.nat.mappings.retain(|known| known.original != *tuple);
            }
        }
        Ok(Chosen { backend })
    }

    fn select(
        &self,
        choices: &mut dyn Choices,
        found: &Found,
        tuple: &Tuple,
        pod: bool,
    ) -> Result<BackendId, u16> {
        if found.service.algorithm == Algorithm::Maglev && !pod {
            return found.maglev(tuple).ok_or(code::NO_SERVICE);
        }
        let candidates = found.candidates();
        if candidates.is_empty() {
            return Err(code::NO_SERVICE);
        }
        let addresses: Vec<SocketAddr> = candidates
            .iter()
            .map(|backend| SocketAddr::new(backend.address, backend.port))
            .collect();
        let picked = choices.pick_backend(&addresses);
        // An illegal choice is no choice.
        candidates
            .get(picked)
            .map(|backend| found.backend_id(backend))
            .ok_or(code::NO_SERVICE)
    }
}
