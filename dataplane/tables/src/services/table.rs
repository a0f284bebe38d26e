//! The frontends of all services as the workers look them up.

use std::net::IpAddr;
use std::sync::Arc;

use crate::fast_map::FastMap;
use crate::model::{Algorithm, Forwarding, FrontendType, Node, Protocol, Service, TrafficPolicy};
use crate::services::{Backend, BackendKey, BackendSet, Frontend, FrontendKey, Names, SourceRanges};

/// Frontends by address, port and protocol, and how many each address has that answers for all its ports. Cheap to copy.
#[derive(Clone, Default)]
pub(crate) struct ServiceTable {
    frontends4: FastMap<(u32, u16, u8), Arc<Frontend>>,
    frontends6: FastMap<(u128, u16, u8), Arc<Frontend>>,
    wildcards4: FastMap<u32, u32>,
    wildcards6: FastMap<u128, u32>,
    /// Blocks of 256 addresses, and how many frontends are in each that are not at addresses of the node.
    blocks: FastMap<IpAddr, u32>,
    /// How many frontends each address has.
    addresses: FastMap<IpAddr, u32>,
    /// Frontends of services that ask for direct server return themselves.
    direct: usize,
}

impl ServiceTable {
    /// Frontends of both families.
    pub(crate) fn len(&self) -> usize {
        self.frontends4.len() + self.frontends6.len()
    }

    pub(crate) fn frontend4(&self, addr: u32, port: u16, protocol: u8) -> Option<&Frontend> {
        self.frontends4.get(&(addr, port, protocol)).map(Arc::as_ref)
    }

    pub(crate) fn frontend6(&self, addr: u128, port: u16, protocol: u8) -> Option<&Frontend> {
        self.frontends6.get(&(addr, port, protocol)).map(Arc::as_ref)
    }

    pub(crate) fn wildcard4(&self, addr: u32) -> bool {
        self.wildcards4.contains_key(&addr)
    }

    pub(crate) fn wildcard6(&self, addr: u128) -> bool {
        self.wildcards6.contains_key(&addr)
    }

    /// Whether a frontend may be among the 256 addresses that differ from this one in the last byte only.
    pub(crate) fn in_block(&self, addr: IpAddr) -> bool {
        !self.blocks.is_empty() && self.blocks.contains_key(&block(addr))
    }

    /// Whether there is a frontend at this address, at whatever port.
    pub(crate) fn at(&self, addr: IpAddr) -> bool {
        self.addresses.contains_key(&addr)
    }

    /// Whether a service asks for direct server return itself.
    pub(crate) fn asks_for_direct_return(&self) -> bool {
        self.direct > 0
    }

    /// Takes a service's frontends out; returns them.
    pub(crate) fn remove(&mut self, service: &Service, node: &Node) -> Vec<Arc<Frontend>> {
        let keys = FrontendKey::all(service, node);
        keys.iter().filter_map(|(key, _)| self.take(key)).collect()
    }

    /// Puts a service's frontends in. `old` are those it had before.
    pub(crate) fn insert(&mut self, service: &Service, node: &Node, names: &Names, old: &[Arc<Frontend>]) {
        let keys = FrontendKey::all(service, node);
        let name: Arc<str> = service.name.as_str().into();
        let source_ranges = (!service.source_ranges.is_empty()).then(|| {
            Arc::new(SourceRanges::new(
                &service.source_ranges,
                service.source_ranges_deny,
            ))
        });
        let mut families: [Option<Family>; 2] = [None, None];
        for (key, frontend) in &keys {
            let Some(id) = names.frontend(key) else { continue };
            let external = external_policy(service, frontend.kind);
            let family = families[usize::from(key.addr.is_ipv6())].get_or_insert_with(|| {
                let outside = |policy| {
                    let same = |addr: IpAddr| addr.is_ipv4() == key.addr.is_ipv4();
                    keys.iter()
                        .any(|(key, it)| same(key.addr) && external_policy(service, it.kind) == policy)
                };
                Family::new(service, key.addr.is_ipv4(), names, old, outside)
            });
            self.put(Frontend {
                id,
                addr: key.addr,
                port: key.port,
                protocol: key.protocol,
                service: Arc::clone(&name),
                kind: frontend.kind,
                routable: frontend.kind != FrontendType::ClusterIp,
                external: family.set(external),
                internal: family.set(service.internal_policy),
                internal_policy: service.internal_policy,
                external_policy: service.external_policy,
                affinity_seconds: service.affinity_seconds,
                source_ranges: source_ranges.clone(),
                algorithm: service.algorithm,
                forwarding: service.forwarding,
                proxy_port: service.proxy_port,
            });
        }
    }

    fn put(&mut self, frontend: Frontend) {
        let answers = answers_for_all_ports(frontend.kind);
        self.direct += usize::from(is_direct(&frontend));
        *self.addresses.entry(frontend.addr).or_insert(0) += 1;
        if !is_nodes(frontend.kind) {
            *self.blocks.entry(block(frontend.addr)).or_insert(0) += 1;
        }
        let (port, protocol) = (frontend.port, frontend.protocol.number());
        match frontend.addr {
            IpAddr::V4(addr) => {
                let addr = addr.to_bits();
                if answers {
                    *self.wildcards4.entry(addr).or_insert(0) += 1;
                }
                self.frontends4.insert((addr, port, protocol), Arc::new(frontend));
            }
            IpAddr::V6(addr) => {
                let addr = addr.to_bits();
                if answers {
                    *self.wildcards6.entry(addr).or_insert(0) += 1;
                }
                self.frontends6.insert((addr, port, protocol), Arc::new(frontend));
            }
        }
    }

    fn take(&mut self, key: &FrontendKey) -> Option<Arc<Frontend>> {
        let (port, protocol) = (key.port, key.protocol.number());
        let taken = match key.addr {
            IpAddr::V4(addr) => {
                let addr = addr.to_bits();
                let frontend = self.frontends4.remove(&(addr, port, protocol))?;
                if answers_for_all_ports(frontend.kind) {
                    one_less(&mut self.wildcards4, addr);
                }
                frontend
            }
            IpAddr::V6(addr) => {
                let addr = addr.to_bits();
                let frontend = self.frontends6.remove(&(addr, port, protocol))?;
                if answers_for_all_ports(frontend.kind) {
                    one_less(&mut self.wildcards6, addr);
                }
                frontend
            }
        };
        self.direct = self.direct.saturating_sub(is_direct(&taken).into());
        one_less(&mut self.addresses, key.addr);
        if !is_nodes(taken.kind) {
            one_less(&mut self.blocks, block(key.addr));
        }
        Some(taken)
    }
}

fn is_direct(frontend: &Frontend) -> bool {
    frontend
        .forwarding
        .is_some_and(|forwarding| forwarding != Forwarding::Snat)
}

/// Whether such a frontend is at an address of the node.
fn is_nodes(kind: FrontendType) -> bool {
    matches!(kind, FrontendType::NodePort | FrontendType::HostPort)
}

fn block(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => IpAddr::V4((addr.to_bits() & !0xff).into()),
        IpAddr::V6(addr) => IpAddr::V6((addr.to_bits() & !0xff).into()),
    }
}

/// Whether packets to other ports of such a frontend's address are dropped (specification of the datapath, section 3.1).
fn answers_for_all_ports(kind: FrontendType) -> bool {
    matches!(kind, FrontendType::LoadBalancer | FrontendType::ClusterIp)
}

fn one_less<K: Clone + Eq + std::hash::Hash>(counts: &mut FastMap<K, u32>, key: K) {
    match counts.get_mut(&key) {
        Some(count) if *count > 1 => *count -= 1,
        _ => _ = counts.remove(&key),
    }
}

/// Which policy decides on the backends for clients outside of the cluster (specification, section 3.1).
fn external_policy(service: &Service, kind: FrontendType) -> TrafficPolicy {
    if kind == FrontendType::ClusterIp {
        service.internal_policy
    } else {
        service.external_policy
    }
}

/// A service's backends of one family: all of them, and those on this node.
struct Family {
    cluster: Option<Arc<BackendSet>>,
    local: Option<Arc<BackendSet>>,
}

impl Family {
    /// `outside` says whether clients outside of the cluster come by a policy: they alone need Maglev.
    fn new(
        service: &Service,
        ipv4: bool,
        names: &Names,
        old: &[Arc<Frontend>],
        outside: impl Fn(TrafficPolicy) -> bool,
    ) -> Self {
        let mut all: Vec<Backend> = BackendKey::all(service)
            .zip(&service.backends)
            .filter(|(key, _)| key.addr.is_ipv4() == ipv4)
            .filter_map(|(key, backend)| {
                Some(Backend {
                    id: names.backend(&key)?,
                    addr: backend.addr,
                    port: backend.port,
                    weight: backend.weight,
                    state: backend.state,
                    local: backend.local,
                })
            })
            .collect();
        all.sort_unstable_by_key(|backend| backend.id);
        let all: Arc<[Backend]> = all.into();
        let set = |policy: TrafficPolicy| {
            let outside = outside(policy);
            (outside || service.internal_policy == policy).then(|| {
                let maglev = (outside && service.algorithm == Algorithm::Maglev).then_some(service.protocol);
                let eligible = |backend: &Backend| policy == TrafficPolicy::Cluster || backend.local;
                Arc::new(BackendSet::new(
                    Arc::clone(&all),
                    eligible,
                    maglev,
                    &sets_of(old, service.protocol),
                ))
            })
        };
        Self {
            cluster: set(TrafficPolicy::Cluster),
            local: set(TrafficPolicy::Local),
        }
    }

    fn set(&self, policy: TrafficPolicy) -> Arc<BackendSet> {
        let set = match policy {
            TrafficPolicy::Cluster => &self.cluster,
            TrafficPolicy::Local => &self.local,
        };
        set.clone().unwrap_or_default()
    }
}

/// The sets that frontends of this protocol had, each once.
fn sets_of(old: &[Arc<Frontend>], protocol: Protocol) -> Vec<Arc<BackendSet>> {
    let mut sets: Vec<Arc<BackendSet>> = Vec::new();
    for frontend in old.iter().filter(|it| it.protocol == protocol) {
        if !sets.iter().any(|set| Arc::ptr_eq(set, &frontend.external)) {
            sets.push(Arc::clone(&frontend.external));
        }
    }
    sets
}
