//! From the configuration to what DPDK and the workers are told.

use dpdk::eal::{EalOptions, IovaMode, LogLevel, Memory};
use octoplane_config::IpsecTooBig;
use octoplane_config::schema::{self, Config, PollMode};
use octoplane_control::{Access, Server};
use octoplane_engine::{EngineConfig, IpsecConfig, PolicyOptions, Timeouts, TooBig};
use octoplane_tables::model::Role;
use octoplane_tables::{Capacity, Gateways};
use octoplane_worker::{IpsecPlan, Plan, Poll, PortPlan};

/// How the EAL is started.
pub(crate) fn eal(config: &Config) -> EalOptions {
    let ports = |pci: bool| {
        let devices = config.ports.iter().map(|port| &port.device);
        devices
            .filter(move |device| device.is_pci() == pci)
            .map(ToString::to_string)
    };
    // Those that are no hardware are made when they are opened.
    let crypto = config.crypto.devices.iter().filter(|device| device.is_pci());
    EalOptions {
        program: "octoplaned".into(),
        memory: if config.memory.hugepages {
            Memory::Hugepages {
                mb_per_socket: vec![config.memory.size_mb],
            }
        } else {
            Memory::NoHuge {
                mb: config.memory.size_mb,
            }
        },
        // Nothing is left behind by a process that is killed, and nothing has to be cleared away by the next.
        in_memory: true,
        file_prefix: Some(config.eal.file_prefix.clone()),
        no_pci: !config.eal.pci,
        allow: ports(true).chain(crypto.map(ToString::to_string)).collect(),
        vdevs: ports(false).collect(),
        main_cpus: Some(config.workers.control_cores.clone()),
        iova_mode: match config.eal.iova {
            schema::IovaMode::Auto => IovaMode::Auto,
            schema::IovaMode::Va => IovaMode::Virtual,
            schema::IovaMode::Pa => IovaMode::Physical,
        },
        log_level: match config.eal.log_level.as_str() {
            "debug" => LogLevel::Debug,
            "info" => LogLevel::Info,
            "notice" => LogLevel::Notice,
            "warning" => LogLevel::Warning,
            _ => LogLevel::Error,
        },
        telemetry: false,
        extra: config.eal.extra_args.clone(),
    }
}

/// What the data plane consists of.
pub(crate) fn dataplane(config: &Config, ipsec: Option<IpsecConfig>) -> Plan {
    let options = PolicyOptions {
        too_big: match config.ipsec.too_big {
            IpsecTooBig::Icmp => TooBig::Icmp,
            IpsecTooBig::Fragment => TooBig::Fragment,
        },
        strict: config.ipsec.strict_cidrs.clone(),
        strict_nodes: config.ipsec.strict_remote_nodes,
    };
    let asked = config.ipsec.policies || !options.strict.is_empty();
    let workers = config.workers.cores.len();
    let defaults = Capacity::default();
    Plan {
        ports: config
            .ports
            .iter()
            .map(|port| self::port(port, workers))
            .collect(),
        cores: config.workers.cores.clone(),
        poll: match config.workers.poll {
            PollMode::Busy => Poll::Busy,
            PollMode::Adaptive => Poll::Adaptive {
                max_sleep: config.workers.max_wakeup_delay,
            },
        },
        burst: config.workers.burst.into(),
        mbufs: config.memory.mbufs,
        mbuf_cache: config.memory.mbuf_cache,
        data_room: config.memory.data_room,
        gateways: Gateways {
            ipv4: config.gateway.ipv4,
            ipv6: config.gateway.ipv6,
        },
        capacity: Capacity {
            endpoints: config.capacity.endpoints,
            routes: config.capacity.routes,
            neighbours: config.capacity.neighbours,
            fib_nodes_v4: config.capacity.fib_nodes_v4.unwrap_or(defaults.fib_nodes_v4),
            fib_nodes_v6: config.capacity.fib_nodes_v6.unwrap_or(defaults.fib_nodes_v6),
            ipcache: config.capacity.ipcache,
            ipcache_nodes_v4: config
                .capacity
                .ipcache_nodes_v4
                .unwrap_or(defaults.ipcache_nodes_v4),
            ipcache_nodes_v6: config
                .capacity
                .ipcache_nodes_v6
                .unwrap_or(defaults.ipcache_nodes_v6),
            services: config.capacity.services,
            frontends: config.capacity.frontends,
            backends: config.capacity.backends,
            policies: config.capacity.policies,
            policy_entries: config.capacity.policy_entries,
            egress_gateways: config.capacity.egress_gateways,
            authentications: config.capacity.authentications,
        },
        connections: u32::try_from(config.capacity.connections).unwrap_or(u32::MAX),
        engine: EngineConfig {
            icmp_errors: (config.icmp.error_rate_pps, config.icmp.error_burst),
            exceptions: (config.exception.rate_pps, config.exception.burst),
            max_parked: config.neighbours.max_parked as usize,
            timeouts: timeouts(config.timeouts),
            // Long enough for every question to be asked.
            park_ns: nanoseconds(config.neighbours.retry * crate::neighbours::TRIES),
            ..EngineConfig::default()
        },
        ipsec: ipsec.map(|ipsec| IpsecPlan {
            config: ipsec,
            nodes: config.ipsec.key_file.is_some(),
            policies: asked.then_some(options),
            crypto: (&config.crypto).into(),
        }),
    }
}

fn timeouts(config: octoplane_config::Timeouts) -> Timeouts {
    let seconds = |time: std::time::Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    Timeouts {
        tcp: seconds(config.tcp),
        syn: seconds(config.tcp_syn),
        closing: seconds(config.tcp_closing),
        other: seconds(config.other),
    }
}

fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What one port consists of.
pub(crate) fn port(port: &schema::Port, workers: usize) -> PortPlan {
    let queues = |queues: schema::Queues| match queues {
        schema::Queues::PerWorker => None,
        fixed @ schema::Queues::Fixed(_) => Some(fixed.resolve(workers)),
    };
    PortPlan {
        name: port.name.clone(),
        role: match port.role {
            schema::Role::Pod => Role::Pod,
            schema::Role::Uplink => Role::Uplink,
            schema::Role::Host => Role::Host,
        },
        device: port.device.name().to_owned(),
        rx_queues: queues(port.rx_queues),
        tx_queues: queues(port.tx_queues),
        rx_descriptors: port.rx_descriptors,
        tx_descriptors: port.tx_descriptors,
        mtu: port.mtu,
        mac: port.mac,
        addresses: port
            .addresses
            .iter()
            .map(|address| (address.addr, address.prefix_len))
            .collect(),
        promiscuous: port.promiscuous,
    }
}

/// Where the control socket is.
pub(crate) fn control(config: &Config) -> Server {
    Server {
        socket: config.control.socket.clone(),
        group: config.control.socket_group.clone(),
        max_message: config.control.max_message_bytes(),
        access: Access {
            read_group: config.control.read_group.clone(),
            read_group_may: config.control.read_group_may.clone(),
            limits: config.control.limits,
            tcp: config.control.tcp.clone(),
        },
    }
}
