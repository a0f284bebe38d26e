//! The set of ports: an immutable version of it is part of every state, and of what every transaction tells.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Port, PortId};

/// Ports by number. Numbers may have gaps: a port that is removed leaves one. Cheap to copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports(Arc<BTreeMap<PortId, Port>>);

impl Ports {
    /// The port with this number.
    pub fn get(&self, id: PortId) -> Option<&Port> {
        self.0.get(&id)
    }

    /// The port with this name.
    pub fn by_name(&self, name: &str) -> Option<&Port> {
        self.iter().find(|port| port.name == name)
    }

    /// All ports by number.
    pub fn iter(&self) -> impl Iterator<Item = &Port> {
        self.0.values()
    }

    /// Number of ports.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no port.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Name of the port with this number; the number where there is none.
    pub fn name(&self, id: PortId) -> String {
        self.get(id)
            .map_or_else(|| id.to_string(), |port| port.name.clone())
    }

    pub(crate) fn get_mut(&mut self, id: PortId) -> Option<&mut Port> {
        Arc::make_mut(&mut self.0).get_mut(&id)
    }

    pub(crate) fn insert(&mut self, port: Port) {
        Arc::make_mut(&mut self.0).insert(port.id, port);
    }

    pub(crate) fn remove(&mut self, id: PortId) -> Option<Port> {
        Arc::make_mut(&mut self.0).remove(&id)
    }
}

impl FromIterator<Port> for Ports {
    fn from_iter<I: IntoIterator<Item = Port>>(ports: I) -> Self {
        Self(Arc::new(ports.into_iter().map(|port| (port.id, port)).collect()))
    }
}
