//! Which service has which frontend, and the numbers of frontends and backends.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::fast_map::FastMap;
use crate::model::{Node, Protocol, Service, ServiceFrontend};
use crate::services::Ids;

/// Names a frontend that workers look up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FrontendKey {
    pub(crate) addr: IpAddr,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
}

/// Names a backend, whatever services have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BackendKey {
    pub(crate) addr: IpAddr,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
}

/// Highest number of frontends: their numbers have 16 bits.
pub(crate) const MAX_FRONTEND_ID: u32 = u16::MAX as u32;

/// Frontend numbers rest while flows may still carry them.
const FRONTEND_REST: usize = 4096;

/// The same for backends.
const BACKEND_REST: usize = 65_536;

/// The names in use. Cheap to copy.
#[derive(Clone)]
pub(crate) struct Names {
    frontends: FastMap<FrontendKey, (u32, Arc<str>)>,
    frontend_ids: Ids,
    /// Number of each backend, and how many services have it.
    backends: FastMap<BackendKey, (u32, u32)>,
    backend_ids: Ids,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            frontends: FastMap::default(),
            frontend_ids: Ids::new(MAX_FRONTEND_ID, FRONTEND_REST),
            backends: FastMap::default(),
            backend_ids: Ids::new(u32::MAX - 1, BACKEND_REST),
        }
    }
}

/// Why a name cannot be had.
pub(crate) enum NameError {
    /// Another service has it.
    Taken(Arc<str>),
    /// There are as many as there may be.
    Full,
}

impl Names {
    pub(crate) fn frontend_count(&self) -> usize {
        self.frontends.len()
    }

    pub(crate) fn backend_count(&self) -> usize {
        self.backends.len()
    }

    /// The number of a frontend.
    pub(crate) fn frontend(&self, key: &FrontendKey) -> Option<u16> {
        self.frontends.get(key).map(|&(id, _)| id as u16)
    }

    /// The number of a backend.
    pub(crate) fn backend(&self, key: &BackendKey) -> Option<u32> {
        self.backends.get(key).map(|&(id, _)| id)
    }

    /// Gives a frontend to `service`; one that it has keeps its number.
    pub(crate) fn take_frontend(
        &mut self,
        key: FrontendKey,
        service: &Arc<str>,
        capacity: usize,
    ) -> Result<(), NameError> {
        match self.frontends.get(&key) {
            Some((_, owner)) if owner == service => return Ok(()),
            Some((_, owner)) => return Err(NameError::Taken(Arc::clone(owner))),
            None => {}
        }
        if self.frontends.len() >= capacity {
            return Err(NameError::Full);
        }
        let id = self.frontend_ids.take().ok_or(NameError::Full)?;
        self.frontends.insert(key, (id, Arc::clone(service)));
        Ok(())
    }

    pub(crate) fn release_frontend(&mut self, key: &FrontendKey) {
        if let Some((id, _)) = self.frontends.remove(key) {
            self.frontend_ids.put(id);
        }
    }

    /// One user more.
    pub(crate) fn take_backend(&mut self, key: BackendKey, capacity: usize) -> Result<(), NameError> {
        if let Some((_, users)) = self.backends.get_mut(&key) {
            *users += 1;
            return Ok(());
        }
        if self.backends.len() >= capacity {
            return Err(NameError::Full);
        }
        let id = self.backend_ids.take().ok_or(NameError::Full)?;
        self.backends.insert(key, (id, 1));
        Ok(())
    }

    /// One user less.
    pub(crate) fn release_backend(&mut self, key: &BackendKey) {
        match self.backends.get_mut(key) {
            Some((_, users)) if *users > 1 => *users -= 1,
            Some(&mut (id, _)) => {
                self.backends.remove(key);
                self.backend_ids.put(id);
            }
            None => {}
        }
    }
}

impl FrontendKey {
    /// The frontends of a service that workers look up: those with the unspecified address stand for one on each
    /// NodePort address of the node, unless the service names that one itself.
    pub(crate) fn all(service: &Service, node: &Node) -> Vec<(Self, ServiceFrontend)> {
        let key = |addr: IpAddr, frontend: &ServiceFrontend| Self {
            addr,
            port: frontend.port,
            protocol: service.protocol,
        };
        let (surrogates, exact): (Vec<&ServiceFrontend>, Vec<&ServiceFrontend>) = service
            .frontends
            .iter()
            .partition(|frontend| frontend.addr.is_unspecified());
        let mut all: Vec<_> = exact
            .into_iter()
            .map(|frontend| (key(frontend.addr, frontend), *frontend))
            .collect();
        let mut seen: BTreeSet<Self> = all.iter().map(|&(key, _)| key).collect();
        for frontend in surrogates {
            let addresses = node.nodeport_addresses().iter();
            for &addr in addresses.filter(|addr| addr.is_ipv4() == frontend.addr.is_ipv4()) {
                if seen.insert(key(addr, frontend)) {
                    all.push((key(addr, frontend), ServiceFrontend { addr, ..*frontend }));
                }
            }
        }
        all
    }
}

impl BackendKey {
    /// The backends of a service.
    pub(crate) fn all(service: &Service) -> impl Iterator<Item = Self> + '_ {
        service.backends.iter().map(|backend| Self {
            addr: backend.addr,
            port: backend.port,
            protocol: service.protocol,
        })
    }
}
