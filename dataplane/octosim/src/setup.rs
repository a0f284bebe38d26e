//! What a simulation begins with: ports, gateways, limits, seed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use octoplane_config as config;
use octoplane_engine::EngineConfig;
use octoplane_packet::MacAddr;
use octoplane_state::State;
use octoplane_tables::model::{MAX_PORTS, Port, PortId, Role};
use octoplane_tables::{Capacity, Gateways};

/// MTU of ports that are given none.
const MTU: u16 = 1500;

/// Ports, gateways, limits, seed.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The ports; their places are their numbers.
    pub ports: Vec<Port>,
    /// Addresses that pods use as their default gateway.
    pub gateways: Gateways,
    /// Sizes of the tables.
    pub capacity: Capacity,
    /// Connections there is room for.
    pub connections: u32,
    /// What hashes and choices begin from: the same seed and input give the same output.
    pub seed: u64,
    /// Rates and timeouts.
    pub engine: EngineConfig,
    /// Whether neighbours are asked for and learned, as the daemon does it.
    pub learn: bool,
}

/// Why there can be no such simulation.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A port cannot be.
    #[error("ports[{index}] ({name}): {why}")]
    Port {
        /// Its place in the list.
        index: usize,
        /// Its name.
        name: String,
        /// What is wrong, and what is expected.
        why: String,
    },
    /// Too many of them.
    #[error("{0} ports, expected 1 to {MAX_PORTS}")]
    PortCount(usize),
    /// The configuration file is wrong.
    #[error("{0}")]
    Config(#[from] config::ConfigErrors),
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            ports: Vec::new(),
            gateways: Gateways {
                ipv4: Ipv4Addr::new(169, 254, 1, 1),
                ipv6: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
            },
            capacity: Capacity {
                fib_nodes_v4: 16_384,
                fib_nodes_v6: 16_384,
                ipcache_nodes_v4: 16_384,
                ipcache_nodes_v6: 16_384,
                ..Capacity::default()
            },
            connections: 65_536,
            seed: 1,
            engine: EngineConfig::default(),
            learn: true,
        }
    }
}

impl Setup {
    /// The ports that a state names: those in its list, and what endpoints (pods), routes and neighbours (uplinks) are
    /// behind.
    ///
    /// # Errors
    /// [`SetupError`]
    pub fn of_state(state: &State) -> Result<Self, SetupError> {
        let inferred = |name: &str| {
            let uplink = state.routes.iter().any(|it| it.port.as_deref() == Some(name))
                || state.neighbours.iter().any(|it| it.port == name);
            let pod = state.endpoints.iter().any(|it| it.port == name);
            match (pod, uplink) {
                (true, false) => Some(Role::Pod),
                (false, true) => Some(Role::Uplink),
                _ => None,
            }
        };
        let mut ports: Vec<Port> = Vec::new();
        for (index, it) in state.ports.iter().enumerate() {
            let wrong = |why: String| SetupError::Port {
                index,
                name: it.name.clone(),
                why,
            };
            let role = match it.role.as_deref() {
                Some("pod") => Role::Pod,
                Some("uplink") => Role::Uplink,
                Some("host") => Role::Host,
                Some(other) => {
                    return Err(wrong(format!("role: \"{other}\", expected pod, uplink or host")));
                }
                None => inferred(&it.name)
                    .ok_or_else(|| wrong("role: is missing, expected pod, uplink or host".into()))?,
            };
            let mac = match &it.mac {
                Some(text) => text.parse().map_err(|error| wrong(format!("mac: {error}")))?,
                None => mac(index),
            };
            let addresses = it.addresses.iter().enumerate().map(|(place, text)| {
                address(text).ok_or_else(|| {
                    wrong(format!(
                        "addresses[{place}]: \"{text}\", expected as in 192.0.2.1/24"
                    ))
                })
            });
            ports.push(Port {
                id: index as PortId,
                name: it.name.clone(),
                role,
                mac,
                mtu: it.mtu.unwrap_or(MTU),
                admin_up: it.admin.as_deref() != Some("down"),
                addresses: addresses.collect::<Result<_, _>>()?,
            });
        }
        let endpoints = state.endpoints.iter().map(|it| (&it.port, Role::Pod));
        let routes = state
            .routes
            .iter()
            .filter_map(|it| Some((it.port.as_ref()?, Role::Uplink)));
        let neighbours = state.neighbours.iter().map(|it| (&it.port, Role::Uplink));
        for (name, role) in endpoints.chain(routes).chain(neighbours) {
            if ports.iter().all(|port| port.name != *name) {
                let index = ports.len();
                ports.push(Port {
                    id: index as PortId,
                    name: name.clone(),
                    role,
                    mac: mac(index),
                    mtu: MTU,
                    admin_up: true,
                    addresses: Vec::new(),
                });
            }
        }
        Self::default().with_ports(ports)
    }

    /// What a daemon's configuration file says: ports, gateways, rates.
    ///
    /// # Errors
    /// [`SetupError`]
    pub fn of_config(file: &Path) -> Result<Self, SetupError> {
        let it = config::load(file)?;
        let ports = it.ports.iter().enumerate().map(|(index, port)| Port {
            id: index as PortId,
            name: port.name.clone(),
            role: match port.role {
                config::Role::Pod => Role::Pod,
                config::Role::Uplink => Role::Uplink,
                config::Role::Host => Role::Host,
            },
            mac: port.mac.unwrap_or_else(|| mac(index)),
            mtu: port.mtu,
            admin_up: true,
            addresses: port
                .addresses
                .iter()
                .map(|own| (own.addr, own.prefix_len))
                .collect(),
        });
        Self {
            gateways: Gateways {
                ipv4: it.gateway.ipv4,
                ipv6: it.gateway.ipv6,
            },
            engine: EngineConfig {
                icmp_errors: (it.icmp.error_rate_pps, it.icmp.error_burst),
                exceptions: (it.exception.rate_pps, it.exception.burst),
                ..EngineConfig::default()
            },
            ..Self::default()
        }
        .with_ports(ports.collect())
    }

    fn with_ports(self, ports: Vec<Port>) -> Result<Self, SetupError> {
        match ports.len() {
            1..=MAX_PORTS => Ok(Self { ports, ..self }),
            count => Err(SetupError::PortCount(count)),
        }
    }
}

/// Our Ethernet address on a port that is given none.
fn mac(index: usize) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0xff, index as u8])
}

fn address(text: &str) -> Option<(IpAddr, u8)> {
    let (addr, len) = text.split_once('/')?;
    let addr: IpAddr = addr.parse().ok()?;
    let len = len.parse().ok()?;
    (len <= if addr.is_ipv4() { 32 } else { 128 }).then_some((addr, len))
}
