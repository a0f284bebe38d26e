//! Going on where another process stopped: what was programmed.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use dpdk::Eal;
use octoplane_config::Gateway;
use octoplane_config::schema::{Config, Port};
use octoplane_control::{Restored, Saved, StateFile, StateJournal};
use octoplane_worker::{Connections, Dataplane, Plan, Resume};
use tracing::{info, warn};

use crate::interfaces::Interfaces;
use crate::plan;

/// Lost objects that are named, at most.
const NAMED: usize = 20;

/// A data plane that goes on.
pub(crate) struct Resumed {
    pub(crate) dataplane: Dataplane,
    /// The ports that came over the API and are there again.
    pub(crate) ports: Vec<Port>,
    pub(crate) journal: Option<Arc<StateJournal>>,
}

/// Reads what was programmed, if that is kept. No device is touched.
pub(crate) fn open(config: &Config) -> anyhow::Result<Option<(StateFile, Saved)>> {
    let Some(directory) = &config.state.directory else {
        return Ok(None);
    };
    StateFile::open(directory).map(Some).context("state.directory")
}

/// Starts the data plane with what was programmed.
pub(crate) fn dataplane(
    eal: &Eal,
    config: &Config,
    plan: &Plan,
    state: Option<(StateFile, Saved)>,
) -> anyhow::Result<Resumed> {
    let (file, mut saved) = state.unzip();
    let mut ports = match &mut saved {
        Some(saved) => added_ports(config, saved)?,
        None => Vec::new(),
    };
    let workers = config.workers.cores.len();
    let plans: Vec<_> = ports
        .iter()
        .map(|port| (plan::port(port, workers), port.device.to_string()))
        .collect();
    let mut restored = Restored::default();
    let begin = Instant::now();
    let mut took = begin.elapsed();
    let resume = Resume {
        ports: &plans,
        connections: config.state.connections.as_deref(),
        restore: Box::new(|store| {
            let begin = Instant::now();
            if let Some(saved) = saved {
                restored = saved.restore(store)?;
            }
            took = begin.elapsed();
            Ok(())
        }),
    };
    let (dataplane, missing) = Dataplane::resume(eal, plan, resume)?;
    for missing in &missing {
        warn!("port {} is not there any more: {}", missing.port, missing.error);
    }
    ports.retain(|port| missing.iter().all(|missing| missing.port != port.name));
    tell(&dataplane.connections);
    let state = dataplane.store.state();
    for object in restored.dropped.iter().take(NAMED) {
        warn!("its port is not there any more: removed {object}");
    }
    if let Some(others) = restored.dropped.len().checked_sub(NAMED).filter(|it| *it > 0) {
        warn!("removed {others} more objects for the same reason");
    }
    let journal = file
        .map(|file| {
            info!(
                "{}: revision {}, {} objects, restored in {} ms",
                file.path().display(),
                state.revision(),
                restored.objects,
                took.as_millis()
            );
            file.journal(&state, restored)
        })
        .transpose()
        .context("state thread")?;
    if let Some(journal) = &journal {
        dataplane.store.keep(Arc::clone(journal) as _);
    }
    Ok(Resumed {
        dataplane,
        ports,
        journal,
    })
}

/// Says what became of the connections.
fn tell(connections: &Connections) {
    match connections {
        Connections::NotKept | Connections::Anew(None) => {}
        Connections::Anew(Some(unusable)) => {
            warn!("state.connections: what is there cannot be used, connections begin anew: {unusable}");
        }
        Connections::CannotBeKept(error) => {
            warn!("state.connections: {error}: connections will end with this process");
        }
        Connections::Resumed { connections, took } => {
            let (there, dropped) = (connections.connections, connections.dropped);
            info!("{there} connections go on, after {} ms", took.as_millis());
            if dropped > 0 {
                warn!("{dropped} connections were damaged and are gone");
            }
        }
    }
}

/// Ports that came over the API, but for those that cannot be had again: the configuration has them now, or the kernel
/// interface is gone.
fn added_ports(config: &Config, saved: &mut Saved) -> anyhow::Result<Vec<Port>> {
    let gateway = Gateway {
        ipv4: config.gateway.ipv4,
        ipv6: config.gateway.ipv6,
    };
    let mut ports = saved.ports(gateway)?;
    let interfaces = Interfaces::default();
    ports.retain(|port| {
        if config.ports.iter().any(|other| other.name == port.name) {
            info!(
                "port {}: the configuration has it now, and what the API said of it no longer counts",
                port.name
            );
            saved.forget_port(&port.name);
            return false;
        }
        if let Err(error) = interfaces.check(&port.device) {
            warn!("port {} is not there any more: {error}", port.name);
            return false;
        }
        true
    });
    Ok(ports)
}
