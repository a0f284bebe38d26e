//! The configuration as text, with every default resolved.

use std::fmt;

use crate::{Config, CryptoLibrary, Port, Queues};

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
            gateway,
            ports,
            crypto,
            exception,
            icmp,
            neighbours,
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

        writeln!(f, "\n[control]")?;
        writeln!(f, "socket = {}", quoted(control.socket.display()))?;
        if let Some(group) = &control.socket_group {
            writeln!(f, "socket_group = {}", quoted(group))?;
        }
        writeln!(f, "max_message_mb = {}", control.max_message_mb)?;

        writeln!(f, "\n[gateway]")?;
        writeln!(f, "ipv4 = {}", quoted(gateway.ipv4))?;
        writeln!(f, "ipv6 = {}", quoted(gateway.ipv6))?;

        writeln!(f, "\n[crypto]")?;
        writeln!(f, "provider = {}", quoted(crypto.provider.as_str()))?;
        writeln!(f, "devices = {}", quoted_list(&crypto.devices))?;
        writeln!(f, "queue_depth = {}", crypto.queue_depth)?;
        let library = crypto.library.map_or("auto", CryptoLibrary::as_str);
        writeln!(f, "library = {}", quoted(library))?;
        writeln!(f, "timeout_ms = {}", crypto.timeout.as_millis())?;
        writeln!(f, "retry_ms = {}", crypto.retry.as_millis())?;

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

        writeln!(f, "\n[capacity]")?;
        writeln!(f, "endpoints = {}", capacity.endpoints)?;
        writeln!(f, "routes = {}", capacity.routes)?;
        writeln!(f, "neighbours = {}", capacity.neighbours)?;
        writeln!(f, "connections = {}", capacity.connections)?;
        writeln!(f, "fib_nodes_v4 = {}", auto(capacity.fib_nodes_v4))?;
        writeln!(f, "fib_nodes_v6 = {}", auto(capacity.fib_nodes_v6))?;

        ports
            .iter()
            .try_for_each(|port| write_port(f, port, workers.cores.len()))
    }
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
