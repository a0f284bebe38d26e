//! From the file back into the tables, through the same checks as what is programmed.

use std::path::PathBuf;

use octoplane_api::v1;
use octoplane_config::{Gateway, Port as PortSettings};
use octoplane_tables::model::{Change, Neighbour, Origin, Role};
use octoplane_tables::{State, Store};

use super::StateError;
use super::record::Writes;
use super::rows::{Kind, Objects, number, pair};
use crate::{convert, ports};
use octoplane_convert::clip;

/// What a file had when it was opened.
#[derive(Debug)]
pub struct Saved {
    path: PathBuf,
    revision: u64,
    objects: Objects,
    /// Ports that are not to be had again.
    forgotten: Vec<String>,
}

/// What became of it.
#[derive(Debug, Default)]
pub struct Restored {
    /// Objects that the tables have.
    pub objects: usize,
    /// What they do not have, because its port is not there any more: in words.
    pub dropped: Vec<String>,
    /// Rows that are to go.
    pub(super) stale: Writes,
}

impl Restored {
    fn drop(&mut self, key: Vec<u8>, words: impl FnOnce() -> String) {
        self.stale.insert(key, None);
        self.dropped.push(words());
    }
}

impl Saved {
    pub(super) fn new(path: PathBuf, revision: u64, objects: Objects) -> Self {
        Self {
            path,
            revision,
            objects,
            forgotten: Vec::new(),
        }
    }

    /// The revision of the tables when they were saved last.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The ports that came over the API, in the order of their names. The daemon tries to have them again before it calls
    /// [`Saved::restore`].
    ///
    /// # Errors
    /// [`StateError::Refused`] if the settings of one are not right any more.
    pub fn ports(&self, gateway: Gateway) -> Result<Vec<PortSettings>, StateError> {
        let read = |request: &v1::AddPortRequest| {
            ports::fields(request.clone()).read(gateway).map_err(|mistakes| {
                let texts: Vec<_> = mistakes
                    .iter()
                    .map(|it| format!("{}: {}", it.key, it.message))
                    .collect();
                self.refused(format!("port {}: {}", clip(&request.name), texts.join("; ")))
            })
        };
        self.objects.ports.iter().map(read).collect()
    }

    /// Takes a port out of the file that is there in another way now.
    pub fn forget_port(&mut self, name: &str) {
        self.objects.ports.retain(|port| port.name != name);
        self.forgotten.push(name.to_owned());
    }

    /// Puts everything into tables that have nothing but ports, as one transaction. What names a port that is not there is
    /// left out, and will be taken out of the file.
    ///
    /// # Errors
    /// [`StateError::Refused`] if the tables refuse something else.
    pub fn restore(self, store: &mut Store) -> Result<Restored, StateError> {
        let Self {
            path,
            revision,
            objects,
            forgotten,
        } = self;
        let refused = |why: String| StateError::Refused {
            path: path.clone(),
            why,
        };
        let state = store.state();
        let mut restored = Restored::default();
        let Objects {
            mut programmed,
            mut learned,
            ports,
        } = objects;
        for name in forgotten {
            restored.stale.insert(Kind::AddedPort.key(name.as_bytes()), None);
        }
        for port in ports {
            if state.port_by_name(&port.name).is_none() {
                restored.drop(Kind::AddedPort.key(port.name.as_bytes()), || {
                    format!("port {}", clip(&port.name))
                });
            }
        }
        keep_with_port(&state, &mut programmed, &mut learned, &mut restored);
        restored.objects = octoplane_convert::size(&programmed) + usize::from(programmed.node.is_some());
        // Learned neighbours are no reason not to start.
        let learned = learned.iter().filter_map(|it| {
            let neighbour = convert::neighbour(&state, it).ok()?;
            Some(Change::PutNeighbour(Neighbour {
                origin: Origin::Learned,
                ..neighbour
            }))
        });
        let programmed = octoplane_convert::changes(&state, programmed)
            .map_err(|located| refused(located.mistake.text))?
            .changes;
        let revision = revision + u64::from(!restored.dropped.is_empty());
        let all = programmed.iter().cloned().chain(learned).collect();
        if store.restore(revision, all).is_err() {
            store
                .restore(revision, programmed)
                .map_err(|error| refused(error.error.to_string()))?;
        }
        Ok(restored)
    }

    fn refused(&self, why: String) -> StateError {
        StateError::Refused {
            path: self.path.clone(),
            why,
        }
    }
}

/// Leaves out what names a port that is not there, or has become another kind of port.
fn keep_with_port(
    state: &State,
    all: &mut v1::ReplaceRequest,
    learned: &mut Vec<v1::Neighbour>,
    restored: &mut Restored,
) {
    use v1::route::Target;
    let has = |name: &str, role| state.port_by_name(name).is_some_and(|port| port.role == role);
    all.endpoints.retain(|it| {
        let keep = has(&it.port, Role::Pod);
        if !keep {
            restored.drop(Kind::Endpoint.key(&number(it.id)), || {
                format!(
                    "endpoint {} ({}) on port {}",
                    it.id,
                    clip(&it.name),
                    clip(&it.port)
                )
            });
        }
        keep
    });
    all.routes.retain(|it| {
        let keep = match &it.target {
            Some(Target::Via(via)) => has(&via.port, Role::Uplink),
            Some(Target::Host(_)) => state.host_port().is_some(),
            _ => true,
        };
        if !keep {
            restored.drop(Kind::Route.key(it.prefix.as_bytes()), || {
                format!("route {}", clip(&it.prefix))
            });
        }
        keep
    });
    let mut station = |it: &v1::Neighbour| {
        let keep = has(&it.port, Role::Uplink);
        if !keep {
            restored.drop(Kind::Neighbour.key(&pair(&it.port, &it.address)), || {
                format!("neighbour {} on port {}", clip(&it.address), clip(&it.port))
            });
        }
        keep
    };
    all.neighbours.retain(&mut station);
    learned.retain(&mut station);
    all.ports.retain_mut(|it| {
        let port = state.port_by_name(&it.name);
        let Some(limit) = port.and_then(|port| state.mtu_limit(port.id)) else {
            restored.drop(Kind::Port.key(it.name.as_bytes()), || {
                format!("settings of port {}", clip(&it.name))
            });
            return false;
        };
        if it.mtu > limit.into() {
            // The configuration has less now.
            it.mtu = 0;
        }
        true
    });
}
