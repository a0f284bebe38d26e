//! Services.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::error::ChangeError;
use crate::model::{
    FrontendType, MAX_AFFINITY_SECONDS, MAX_BACKENDS, MAX_FRONTENDS, MAX_SOURCE_RANGES, Node, Service,
};
use crate::services::{BackendKey, FrontendKey, NameError};
use crate::state::State;
use crate::store::Capacity;
use crate::validate::{MAX_NAME, field, unusable};

impl State {
    pub(super) fn put_service(&mut self, service: Service, capacity: &Capacity) -> Result<(), ChangeError> {
        check(&service)?;
        let name: Arc<str> = service.name.as_str().into();
        let node = self.node.clone().unwrap_or_default();
        let old = self.services.get(&name).cloned();
        if old.is_none() && self.services.len() >= capacity.services {
            return Err(ChangeError::TableFull {
                table: "services",
                size: capacity.services,
            });
        }
        if let Some(old) = &old {
            let kept: BTreeSet<_> = FrontendKey::all(&service, &node)
                .into_iter()
                .map(|it| it.0)
                .collect();
            for (key, _) in FrontendKey::all(old, &node) {
                if !kept.contains(&key) {
                    self.names.release_frontend(&key);
                }
            }
        }
        self.take_frontends(&name, &service, &node, capacity)?;
        let (before, after) = (
            old.iter().flat_map(|old| BackendKey::all(old)).collect(),
            BackendKey::all(&service).collect(),
        );
        self.replace_backends(before, after, capacity)?;
        if service.frontends.iter().any(|it| it.addr.is_unspecified()) {
            self.surrogates.insert(Arc::clone(&name));
        } else {
            self.surrogates.remove(&name);
        }
        self.services.insert(name, Arc::new(service));
        Ok(())
    }

    pub(super) fn remove_service(&mut self, name: &str) -> Result<(), ChangeError> {
        let old = self
            .services
            .remove(name)
            .ok_or_else(|| ChangeError::NotFound { object: object(name) })?;
        for (key, _) in FrontendKey::all(&old, &self.node.clone().unwrap_or_default()) {
            self.names.release_frontend(&key);
        }
        for key in BackendKey::all(&old) {
            self.names.release_backend(&key);
        }
        self.surrogates.remove(name);
        Ok(())
    }

    /// Gives a service its frontends; those that it has stay as they are.
    pub(super) fn take_frontends(
        &mut self,
        name: &Arc<str>,
        service: &Service,
        node: &Node,
        capacity: &Capacity,
    ) -> Result<(), ChangeError> {
        for (key, _) in FrontendKey::all(service, node) {
            self.names
                .take_frontend(key, name, capacity.frontends)
                .map_err(|error| match error {
                    NameError::Taken(owner) => ChangeError::FrontendTaken {
                        service: name.to_string(),
                        frontend: format!("{}/{}", SocketAddr::new(key.addr, key.port), key.protocol.name()),
                        owner: owner.to_string(),
                    },
                    NameError::Full => ChangeError::TableFull {
                        table: "frontends",
                        size: capacity.frontends,
                    },
                })?;
        }
        Ok(())
    }

    fn replace_backends(
        &mut self,
        before: BTreeSet<BackendKey>,
        after: BTreeSet<BackendKey>,
        capacity: &Capacity,
    ) -> Result<(), ChangeError> {
        for key in before.difference(&after) {
            self.names.release_backend(key);
        }
        for key in after.difference(&before) {
            self.names
                .take_backend(*key, capacity.backends)
                .map_err(|_| ChangeError::TableFull {
                    table: "backends",
                    size: capacity.backends,
                })?;
        }
        Ok(())
    }
}

fn object(name: &str) -> String {
    format!("service \"{name}\"")
}

/// What can be said of a service by itself.
fn check(service: &Service) -> Result<(), ChangeError> {
    let refuse = |name: &str, why: String| Err(field(object(&service.name), name, why));
    if service.name.is_empty() || service.name.len() > MAX_NAME {
        let shown: String = service.name.chars().take(64).collect();
        return Err(field(
            object(&shown),
            "name",
            format!("is {} bytes long, expected 1 to {MAX_NAME}", service.name.len()),
        ));
    }
    let count = service.frontends.len();
    if count == 0 || count > MAX_FRONTENDS {
        return refuse("frontends", format!("has {count}, expected 1 to {MAX_FRONTENDS}"));
    }
    let mut seen = BTreeSet::new();
    for (index, frontend) in service.frontends.iter().enumerate() {
        let name = format!("frontends[{index}]");
        if frontend.port == 0 {
            return refuse(&name, "port 0 is out of range, expected 1 to 65535".into());
        }
        let surrogate = matches!(frontend.kind, FrontendType::NodePort | FrontendType::HostPort);
        if frontend.addr.is_unspecified() {
            if !surrogate {
                return refuse(
                    &name,
                    format!(
                        "address {} is unspecified, which only types node_port and host_port may be",
                        frontend.addr
                    ),
                );
            }
        } else if let Some(why) = unusable(frontend.addr) {
            return refuse(
                &name,
                format!("address {} cannot be a service's: {why}", frontend.addr),
            );
        }
        if !seen.insert((frontend.addr, frontend.port)) {
            return refuse(
                &name,
                format!("{} is given twice", SocketAddr::new(frontend.addr, frontend.port)),
            );
        }
    }
    check_backends(service)?;
    if service.affinity_seconds > MAX_AFFINITY_SECONDS {
        return refuse(
            "affinity_seconds",
            format!(
                "{} is out of range, expected 0 to {MAX_AFFINITY_SECONDS}",
                service.affinity_seconds
            ),
        );
    }
    let count = service.source_ranges.len();
    if count > MAX_SOURCE_RANGES {
        return refuse(
            "source_ranges",
            format!("has {count}, expected at most {MAX_SOURCE_RANGES}"),
        );
    }
    let mut seen = BTreeSet::new();
    match service.source_ranges.iter().find(|it| !seen.insert(**it)) {
        Some(prefix) => refuse("source_ranges", format!("holds {prefix} twice")),
        None => Ok(()),
    }
}

fn check_backends(service: &Service) -> Result<(), ChangeError> {
    let refuse = |name: &str, why: String| Err(field(object(&service.name), name, why));
    let count = service.backends.len();
    if count > MAX_BACKENDS {
        return refuse(
            "backends",
            format!("has {count}, expected at most {MAX_BACKENDS}"),
        );
    }
    let family = |ipv4: bool| service.frontends.iter().any(|it| it.addr.is_ipv4() == ipv4);
    let families = [family(false), family(true)];
    let mut seen = BTreeSet::new();
    for (index, backend) in service.backends.iter().enumerate() {
        let name = format!("backends[{index}]");
        if backend.port == 0 {
            return refuse(&name, "port 0 is out of range, expected 1 to 65535".into());
        }
        if backend.weight == 0 {
            return refuse(&name, "weight 0 is out of range, expected 1 to 65535".into());
        }
        if !families[usize::from(backend.addr.is_ipv4())] {
            return refuse(
                &name,
                format!(
                    "address {} is of the wrong family: no frontend is {}",
                    backend.addr,
                    if backend.addr.is_ipv4() { "IPv4" } else { "IPv6" }
                ),
            );
        }
        if let Some(why) = unusable(backend.addr) {
            return refuse(
                &name,
                format!("address {} cannot be a backend's: {why}", backend.addr),
            );
        }
        if !seen.insert((backend.addr, backend.port)) {
            return refuse(
                &name,
                format!("{} is given twice", SocketAddr::new(backend.addr, backend.port)),
            );
        }
    }
    Ok(())
}
