//! The configuration as text, with every default resolved.

use std::fmt;
use std::path::PathBuf;

use crate::{Class, Cni, Config, Control, CryptoLibrary, Guard, Port, Queues};

impl Config {
    /// This configuration as a file that, read again on the same machine, gives the same configuration.
    pub fn to_effective_toml(&self) -> String {
        self.to_string()
    }
}

/// A TOML string.
fn quoted(text: impl fmt::Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

/// A TOML list of strings.
fn quoted_list<T: fmt::Display>(list: &[T]) -> String {
    let items: Vec<_> = list.iter().map(quoted).collect();
    format!("[{}]", items.join(", "))
}

fn auto(value: Option<usize>) -> String {
    value.map_or_else(|| quoted("auto"), |value| value.to_string())
}

fn queues(queues: Queues, workers: usize) -> String {
    match queues {
        Queues::PerWorker => format!("0 # one per worker: {}", queues.resolve(workers)),
        Queues::Fixed(n) => n.to_string(),
    }
}

/// The form of [`Config::to_effective_toml`].
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            log_level,
            eal,
            memory,
            workers,
            control,
            state,
            gateway,
            cni,
            ports,
            crypto,
            ipsec,
            exception,
            icmp,
            neighbours,
            timeouts,
            capacity,
        } = self;
        writeln!(f, "log_level = {}", quoted(log_level))?;

        writeln!(f, "\n[eal]")?;
        writeln!(f, "file_prefix = {}", quoted(&eal.file_prefix))?;
        writeln!(f, "log_level = {}", quoted(&eal.log_level))?;
        writeln!(f, "iova = {}", quoted(eal.iova.as_str()))?;
        writeln!(f, "extra_args = {}", quoted_list(&eal.extra_args))?;
        writeln!(f, "pci = {}", eal.pci)?;

        writeln!(f, "\n[memory]")?;
        writeln!(f, "hugepages = {}", memory.hugepages)?;
        writeln!(f, "size_mb = {}", memory.size_mb)?;
        writeln!(f, "mbufs = {}", memory.mbufs)?;
        writeln!(f, "mbuf_cache = {}", memory.mbuf_cache)?;
        writeln!(f, "data_room = {}", memory.data_room)?;

        writeln!(f, "\n[workers]")?;
        writeln!(f, "cores = {:?}", workers.cores)?;
        writeln!(f, "control_cores = {:?}", workers.control_cores)?;
        writeln!(f, "poll = {}", quoted(workers.poll.as_str()))?;
        writeln!(
            f,
            "max_wakeup_delay_us = {}",
            workers.max_wakeup_delay.as_micros()
        )?;
        writeln!(f, "burst = {}", workers.burst)?;

        write_control(f, control)?;

        let path = |path: &Option<PathBuf>| {
            quoted(
                path.as_ref()
                    .map(|path| path.display().to_string())
                    .unwrap_or_default(),
            )
        };
        writeln!(f, "\n[state]")?;
        writeln!(f, "directory = {}", path(&state.directory))?;
        writeln!(f, "connections = {}", path(&state.connections))?;

        writeln!(f, "\n[gateway]")?;
        writeln!(f, "ipv4 = {}", quoted(gateway.ipv4))?;
        writeln!(f, "ipv6 = {}", quoted(gateway.ipv6))?;

        write_cni(f, cni)?;

        writeln!(f, "\n[crypto]")?;
        writeln!(f, "provider = {}", quoted(crypto.provider.as_str()))?;
        writeln!(f, "devices = {}", quoted_list(&crypto.devices))?;
        writeln!(f, "queue_depth = {}", crypto.queue_depth)?;
        let library = crypto.library.map_or("auto", CryptoLibrary::as_str);
        writeln!(f, "library = {}", quoted(library))?;
        writeln!(f, "timeout_ms = {}", crypto.timeout.as_millis())?;
        writeln!(f, "retry_ms = {}", crypto.retry.as_millis())?;

        writeln!(f, "\n[ipsec]")?;
        if let Some(key_file) = &ipsec.key_file {
            writeln!(f, "key_file = {}", quoted(key_file.display()))?;
        }
        writeln!(f, "policies = {}", ipsec.policies)?;
        writeln!(f, "too_big = {}", quoted(ipsec.too_big.as_str()))?;
        writeln!(f, "strict = {}", ipsec.strict)?;
        writeln!(f, "strict_cidrs = {}", quoted_list(&ipsec.strict_cidrs))?;
        writeln!(f, "strict_remote_nodes = {}", ipsec.strict_remote_nodes)?;
        writeln!(f, "framing = {}", quoted(ipsec.framing.as_str()))?;
        writeln!(f, "addresses = {}", quoted_list(&ipsec.addresses))?;
        writeln!(f, "rotation_s = {}", ipsec.rotation.as_secs())?;
        writeln!(f, "directory = {}", quoted(ipsec.directory.display()))?;
        if let Some(boot_id) = &ipsec.boot_id {
            writeln!(f, "boot_id = {}", quoted(boot_id))?;
        }

        writeln!(f, "\n[exception]")?;
        writeln!(f, "rate_pps = {}", exception.rate_pps)?;
        writeln!(f, "burst = {}", exception.burst)?;

        writeln!(f, "\n[icmp]")?;
        writeln!(f, "error_rate_pps = {}", icmp.error_rate_pps)?;
        writeln!(f, "error_burst = {}", icmp.error_burst)?;

        writeln!(f, "\n[neighbours]")?;
        writeln!(f, "max_parked = {}", neighbours.max_parked)?;
        writeln!(f, "retry_ms = {}", neighbours.retry.as_millis())?;
        writeln!(f, "reachable_s = {}", neighbours.reachable.as_secs())?;
        writeln!(f, "max_learned = {}", neighbours.max_learned)?;

        writeln!(f, "\n[timeouts]")?;
        writeln!(f, "tcp_s = {}", timeouts.tcp.as_secs())?;
        writeln!(f, "tcp_syn_s = {}", timeouts.tcp_syn.as_secs())?;
        writeln!(f, "tcp_closing_s = {}", timeouts.tcp_closing.as_secs())?;
        writeln!(f, "other_s = {}", timeouts.other.as_secs())?;

        writeln!(f, "\n[capacity]")?;
        writeln!(f, "endpoints = {}", capacity.endpoints)?;
        writeln!(f, "routes = {}", capacity.routes)?;
        writeln!(f, "neighbours = {}", capacity.neighbours)?;
        writeln!(f, "connections = {}", capacity.connections)?;
        writeln!(f, "fib_nodes_v4 = {}", auto(capacity.fib_nodes_v4))?;
        writeln!(f, "fib_nodes_v6 = {}", auto(capacity.fib_nodes_v6))?;
        writeln!(f, "ipcache = {}", capacity.ipcache)?;
        writeln!(f, "ipcache_nodes_v4 = {}", auto(capacity.ipcache_nodes_v4))?;
        writeln!(f, "ipcache_nodes_v6 = {}", auto(capacity.ipcache_nodes_v6))?;
        writeln!(f, "services = {}", capacity.services)?;
        writeln!(f, "frontends = {}", capacity.frontends)?;
        writeln!(f, "backends = {}", capacity.backends)?;
        writeln!(f, "policies = {}", capacity.policies)?;
        writeln!(f, "policy_entries = {}", capacity.policy_entries)?;
        writeln!(f, "egress_gateways = {}", capacity.egress_gateways)?;
        writeln!(f, "authentications = {}", capacity.authentications)?;

        ports
            .iter()
            .try_for_each(|port| write_port(f, port, workers.cores.len()))
    }
}

fn classes(classes: &[Class]) -> String {
    let words: Vec<_> = classes.iter().map(|class| class.as_str()).collect();
    quoted_list(&words)
}

fn write_control(f: &mut fmt::Formatter<'_>, control: &Control) -> fmt::Result {
    writeln!(f, "\n[control]")?;
    writeln!(f, "socket = {}", quoted(control.socket.display()))?;
    if let Some(group) = &control.socket_group {
        writeln!(f, "socket_group = {}", quoted(group))?;
    }
    if let Some(group) = &control.read_group {
        writeln!(f, "read_group = {}", quoted(group))?;
    }
    writeln!(f, "read_group_may = {}", classes(&control.read_group_may))?;
    writeln!(f, "max_message_mb = {}", control.max_message_mb)?;
    let limits = &control.limits;
    writeln!(f, "client_connections = {}", limits.connections)?;
    writeln!(f, "client_requests = {}", limits.requests)?;
    writeln!(f, "client_streams = {}", limits.streams)?;
    writeln!(f, "client_requests_per_second = {}", limits.requests_per_second)?;
    writeln!(f, "request_timeout_s = {}", limits.request_timeout.as_secs())?;
    let Some(tcp) = &control.tcp else { return Ok(()) };
    let listen = quoted(tcp.listen);
    match &tcp.guard {
        Guard::Tls {
            certificate,
            key,
            client_ca,
            clients,
        } => {
            let clients: Vec<_> = clients
                .iter()
                .map(|client| {
                    format!(
                        "{{ name = {}, may = {} }}",
                        quoted(&client.name),
                        classes(&client.may)
                    )
                })
                .collect();
            writeln!(
                f,
                "tcp = {{ listen = {listen}, certificate = {}, key = {}, client_ca = {}, clients = [{}] }}",
                quoted(certificate.display()),
                quoted(key.display()),
                quoted(client_ca.display()),
                clients.join(", "),
            )
        }
        Guard::ManagementInterface { interface, may } => writeln!(
            f,
            "tcp = {{ listen = {listen}, management_interface = {}, may = {} }}",
            quoted(interface),
            classes(may),
        ),
    }
}

fn write_cni(f: &mut fmt::Formatter<'_>, cni: &Cni) -> fmt::Result {
    writeln!(f, "\n[cni]")?;
    if let Some(listen) = cni.listen {
        writeln!(f, "listen = {}", quoted(listen))?;
    }
    if let Some(tls) = &cni.tls {
        writeln!(
            f,
            "tls = {{ listen = {}, certificate = {}, key = {}, client_ca = {} }}",
            quoted(tls.listen),
            quoted(tls.certificate.display()),
            quoted(tls.key.display()),
            quoted(tls.client_ca.display()),
        )?;
    }
    writeln!(f, "ports = {}", quoted_list(&cni.ports))?;
    writeln!(f, "directory = {}", quoted(cni.directory.display()))?;
    let pools: Vec<_> = cni
        .pools
        .iter()
        .map(|pool| {
            let exclude = quoted_list(&pool.exclude);
            format!("{{ prefix = {}, exclude = {exclude} }}", quoted(pool.prefix))
        })
        .collect();
    writeln!(f, "pools = [{}]", pools.join(", "))?;
    writeln!(f, "reuse_delay_s = {}", cni.reuse_delay.as_secs())?;
    writeln!(f, "orphan_grace_s = {}", cni.orphan_grace.as_secs())?;
    let identities: Vec<_> = cni
        .identities
        .iter()
        .map(|rule| {
            format!(
                "{{ namespace = {}, name = {}, identity = {}, labels = {} }}",
                quoted(&rule.namespace),
                quoted(&rule.name),
                rule.identity,
                quoted_list(&rule.labels),
            )
        })
        .collect();
    writeln!(f, "identities = [{}]", identities.join(", "))
}

fn write_port(f: &mut fmt::Formatter<'_>, port: &Port, workers: usize) -> fmt::Result {
    writeln!(f, "\n[[ports]]")?;
    writeln!(f, "name = {}", quoted(&port.name))?;
    writeln!(f, "role = {}", quoted(port.role.as_str()))?;
    writeln!(f, "device = {}", quoted(&port.device))?;
    writeln!(f, "rx_queues = {}", queues(port.rx_queues, workers))?;
    writeln!(f, "tx_queues = {}", queues(port.tx_queues, workers))?;
    writeln!(f, "rx_descriptors = {}", port.rx_descriptors)?;
    writeln!(f, "tx_descriptors = {}", port.tx_descriptors)?;
    writeln!(f, "mtu = {}", port.mtu)?;
    if let Some(mac) = port.mac {
        writeln!(f, "mac = {}", quoted(mac))?;
    }
    if !port.addresses.is_empty() {
        writeln!(f, "addresses = {}", quoted_list(&port.addresses))?;
    }
    writeln!(f, "promiscuous = {}", port.promiscuous)
}
