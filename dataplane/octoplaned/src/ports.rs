//! Ports that the API adds and removes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dpdk::hotplug::HotplugError;
use octoplane_config::schema::{Config, Memory, Port, Workers};
use octoplane_control::PortRefusal;
use octoplane_worker::{BringupError, Dataplane, PortChangeError};
use tracing::{info, warn};

use crate::interfaces::{Interfaces, buffers_for};
use crate::neighbours::Rounds;
use crate::{plan, report};

/// What is known of ports beside what the data plane knows.
struct Known {
    /// What each port was asked to be, by name.
    settings: BTreeMap<String, Port>,
    interfaces: Interfaces,
}

/// Adds and removes ports, one at a time.
pub(crate) struct PortChanges {
    dataplane: Arc<Dataplane>,
    neighbours: Rounds,
    memory: Memory,
    workers: Workers,
    /// Held for as long as a change takes.
    known: Mutex<Known>,
}

impl PortChanges {
    /// Over the ports of the configuration and those that are there again.
    pub(crate) fn new(
        config: &Config,
        again: &[Port],
        dataplane: Arc<Dataplane>,
        neighbours: Rounds,
    ) -> Self {
        let ports = again.iter().chain(&config.ports);
        let settings = ports.map(|port| (port.name.clone(), port.clone()));
        Self {
            dataplane,
            neighbours,
            memory: config.memory,
            workers: config.workers.clone(),
            known: Mutex::new(Known {
                settings: settings.collect(),
                interfaces: Interfaces::default(),
            }),
        }
    }

    /// Adds a port, or says that it is there.
    pub(crate) fn add(&self, port: Port) -> Result<bool, PortRefusal> {
        let mut known = self.known();
        let listed = self
            .dataplane
            .ports()
            .iter()
            .any(|bound| bound.plan.name == port.name);
        if let Some(old) = known.settings.get(&port.name).filter(|_| listed) {
            return match difference(old, &port) {
                None => Ok(true),
                Some((key, value)) => Err(PortRefusal::Exists {
                    field: "name",
                    text: format!(
                        "there is a port of this name already, with other settings: its {key} is {value}"
                    ),
                }),
            };
        }
        if crate::attachments::is_management(&port.device) {
            return Err(PortRefusal::Invalid {
                field: "device",
                text: crate::attachments::management_text(&port.device),
            });
        }
        known.interfaces.check(&port.device)?;
        self.check_memory(&known.settings, &port)?;
        let plan = plan::port(&port, self.workers.cores.len());
        let bound = self
            .dataplane
            .add_port(&plan, &port.device.to_string())
            .map_err(refusal)?;
        info!("added {}", report::port(&bound));
        report::warn_of_mtu(&bound);
        known.settings.insert(port.name.clone(), port);
        Ok(false)
    }

    /// Removes a port.
    pub(crate) fn remove(&self, name: &str) -> Result<(), PortRefusal> {
        let mut known = self.known();
        let result = self.dataplane.remove_port(name, || self.neighbours.wait());
        if self.dataplane.port_named(name).is_none()
            && let Some(port) = known.settings.remove(name)
        {
            known.interfaces.removed(&port.device);
        }
        match result {
            Ok(()) => info!("removed port {name}"),
            Err(PortChangeError::Refused(_) | PortChangeError::NoSuchPort(_)) => {}
            Err(ref error) => warn!("port {name} was not removed cleanly: {error}"),
        }
        result.map_err(refusal)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Packet buffers are made once, for the ports of the configuration and what its `[memory]` leaves room for.
    fn check_memory(&self, settings: &BTreeMap<String, Port>, port: &Port) -> Result<(), PortRefusal> {
        let (needed, room) = (Memory::data_room_for(port.mtu), self.memory.data_room);
        if needed > room {
            let most = port.mtu.saturating_sub(needed - room);
            return Err(PortRefusal::Invalid {
                field: "mtu",
                text: format!(
                    "{} does not fit into the packet buffers, expected at most {most}: memory.data_room is {room} bytes, \
                     {needed} would be needed",
                    port.mtu
                ),
            });
        }
        let others = settings.values().filter(|other| other.name != port.name);
        let all: Vec<Port> = others.chain([port]).cloned().collect();
        let least = Memory::least_mbufs(&all, &self.workers, self.memory.mbuf_cache);
        if least > self.memory.mbufs {
            return Err(PortRefusal::Full {
                field: "rx_descriptors",
                text: format!(
                    "all ports' receive descriptors and the workers' caches would need {least} packet buffers, memory.mbufs is \
                     {}",
                    self.memory.mbufs
                ),
            });
        }
        // Packets under way and what drivers kept are not in that sum.
        let queues = u32::from(port.rx_queues.resolve(self.workers.cores.len()));
        let (needed, free) = (
            queues.saturating_mul(buffers_for(&port.device, port.rx_descriptors)),
            self.dataplane.pool.available(),
        );
        if needed > free {
            return Err(PortRefusal::Full {
                field: "rx_descriptors",
                text: format!(
                    "its receive queues need {needed} packet buffers, {free} of memory.mbufs ({}) are free",
                    self.memory.mbufs
                ),
            });
        }
        Ok(())
    }
}

/// The first setting in which two ports differ, and its value in the first.
fn difference(old: &Port, new: &Port) -> Option<(&'static str, String)> {
    let queues = |port: &Port| (port.rx_queues.resolve(0), port.tx_queues.resolve(0));
    let mac = |port: &Port| {
        port.mac
            .map_or_else(|| "the device's".into(), |mac| mac.to_string())
    };
    let list = |port: &Port| {
        let texts: Vec<String> = port.addresses.iter().map(ToString::to_string).collect();
        if texts.is_empty() {
            "none".into()
        } else {
            texts.join(" ")
        }
    };
    let settings = |port: &Port| {
        [
            ("role", port.role.as_str().to_owned()),
            ("device", port.device.to_string()),
            ("rx_queues", queues(port).0.to_string()),
            ("tx_queues", queues(port).1.to_string()),
            ("rx_descriptors", port.rx_descriptors.to_string()),
            ("tx_descriptors", port.tx_descriptors.to_string()),
            ("mtu", port.mtu.to_string()),
            ("mac", mac(port)),
            ("addresses", list(port)),
            ("promiscuous", port.promiscuous.to_string()),
        ]
    };
    let pairs = settings(old).into_iter().zip(settings(new));
    pairs
        .into_iter()
        .find_map(|(old, new)| (old != new).then_some(old))
}

fn refusal(error: PortChangeError) -> PortRefusal {
    match error {
        PortChangeError::Refused(error) => PortRefusal::Tables(error),
        PortChangeError::NoSuchPort(name) => PortRefusal::NoSuchPort(name),
        PortChangeError::DeviceInUse { device, port } => PortRefusal::Exists {
            field: "device",
            text: format!("{device} is the device of port {port} already, expected another device"),
        },
        PortChangeError::Leaving(_) => PortRefusal::Leaving(error.to_string()),
        PortChangeError::Attach(HotplugError::Exists(device)) => PortRefusal::Exists {
            field: "device",
            text: format!("DPDK has a device {device} already, expected another device"),
        },
        PortChangeError::Attach(error) => PortRefusal::Device(error.to_string()),
        PortChangeError::Setup(BringupError::Queues { key, asked, most, .. }) => PortRefusal::Invalid {
            field: key,
            text: format!("{asked} is more than the device has, expected at most {most}"),
        },
        PortChangeError::Setup(BringupError::Port { error, .. }) => PortRefusal::Device(error.to_string()),
        PortChangeError::Setup(error) => PortRefusal::Device(error.to_string()),
        PortChangeError::Worker(_) | PortChangeError::Detach { .. } | PortChangeError::LeftBehind { .. } => {
            PortRefusal::Failed(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use octoplane_config::{Gateway, PortFields};

    use super::*;

    fn port(mtu: u32) -> Port {
        PortFields {
            name: "pod3".into(),
            role: "pod".into(),
            device: "net_null3,size=64".into(),
            mtu,
            ..PortFields::default()
        }
        .read(Gateway::default())
        .unwrap()
    }

    #[test]
    fn the_first_difference_is_named_with_what_is_there() {
        assert_eq!(difference(&port(0), &port(1500)), None);
        assert_eq!(
            difference(&port(1400), &port(1500)),
            Some(("mtu", "1400".to_owned()))
        );
    }
}
