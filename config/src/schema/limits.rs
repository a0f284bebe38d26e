//! `[exception]`, `[icmp]`, `[neighbours]`, `[timeouts]` and `[capacity]`.

use std::time::Duration;

/// Limits of the exception path: packets that go to the kernel by way of the host port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exception {
    /// Packets per second and worker, 1 to 100,000,000. Default 100,000.
    pub rate_pps: u32,
    /// Packets that may exceed the rate at once, per worker, 1 to 1,000,000. Default 1024.
    pub burst: u32,
}

impl Default for Exception {
    fn default() -> Self {
        Self {
            rate_pps: 100_000,
            burst: 1024,
        }
    }
}

/// Limits of the ICMP errors we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Icmp {
    /// Errors per second and worker, 0 to 1,000,000; 0 sends none beyond the burst. Default 100.
    pub error_rate_pps: u32,
    /// Errors that may exceed the rate at once, per worker, 0 to 1,000,000. Default 1000.
    pub error_burst: u32,
}

impl Default for Icmp {
    fn default() -> Self {
        Self {
            error_rate_pps: 100,
            error_burst: 1000,
        }
    }
}

/// Neighbour resolution (ARP and IPv6 neighbour discovery).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbours {
    /// Packets that wait for a resolution at once, per worker, 0 to 65,536. Default 256.
    pub max_parked: u32,
    /// Time between two requests for the same neighbour. Milliseconds in the file, 10 to 60,000, default 1000.
    pub retry: Duration,
    /// How long a neighbour counts as reachable after it was heard from. Seconds in the file, 1 to 86,400,
    /// default 30.
    pub reachable: Duration,
    /// Most neighbours learned from the network, at most [`Capacity::neighbours`]. Default: half of that, so that
    /// a scan of our networks leaves room for the configured ones.
    pub max_learned: usize,
}

impl Default for Neighbours {
    fn default() -> Self {
        Self {
            max_parked: 256,
            retry: Duration::from_millis(1000),
            reachable: Duration::from_secs(30),
            max_learned: Capacity::default().neighbours / 2,
        }
    }
}

/// How long connections are remembered after their last packet, 1 second to 30 days each (specification of the datapath,
/// section 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP after the first packet that is not a SYN. Seconds in the file, default 8000.
    pub tcp: Duration,
    /// TCP before it. Seconds in the file, default 60.
    pub tcp_syn: Duration,
    /// TCP after both sides have closed, or one has reset. Seconds in the file, default 10.
    pub tcp_closing: Duration,
    /// Everything else. Seconds in the file, default 60.
    pub other: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp: Duration::from_secs(8000),
            tcp_syn: Duration::from_secs(60),
            tcp_closing: Duration::from_secs(10),
            other: Duration::from_secs(60),
        }
    }
}

/// Sizes of the configuration tables, all allocated for at start. A full table refuses the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Endpoints, 1 to 16,777,216. Default 131,072.
    pub endpoints: usize,
    /// Routes of both address families together, 1 to 16,777,216. Default 131,072.
    pub routes: usize,
    /// Neighbours, configured and learned, 1 to 16,777,216. Default 16,384.
    pub neighbours: usize,
    /// Connections, 64 to 16,777,216. Default 1,000,000: about 165 bytes each, taken from the system as they are used.
    pub connections: usize,
    /// Nodes of the IPv4 forwarding table, 64 to 16,777,216. Default `None`: the tables decide.
    pub fib_nodes_v4: Option<usize>,
    /// Nodes of the IPv6 forwarding table, 64 to 16,777,216. Default `None`: the tables decide.
    pub fib_nodes_v6: Option<usize>,
    /// Prefixes of the ipcache, both families together, 1 to 16,777,216. Default 1,048,576.
    pub ipcache: usize,
    /// Nodes of the IPv4 ipcache, 64 to 16,777,216. Default `None`: the tables decide.
    pub ipcache_nodes_v4: Option<usize>,
    /// Nodes of the IPv6 ipcache, 64 to 16,777,216. Default `None`: the tables decide.
    pub ipcache_nodes_v6: Option<usize>,
    /// Services, 1 to 16,777,216. Default 65,536.
    pub services: usize,
    /// Frontends of all services, one for each NodePort address of the node, 1 to 65,535 (their numbers have 16 bits). Default
    /// 65,535.
    pub frontends: usize,
    /// Backends of all services, those they share counted once, 1 to 16,777,216. Default 524,288.
    pub backends: usize,
    /// Policies, one for an endpoint, 1 to 16,777,216. Default 131,072.
    pub policies: usize,
    /// Entries of one policy, 1 to 1,048,576. Default 65,536.
    pub policy_entries: usize,
    /// Rules of egress gateways, 1 to 16,777,216. Default 65,536.
    pub egress_gateways: usize,
    /// Authentications, 1 to 16,777,216. Default 524,288.
    pub authentications: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            endpoints: 131_072,
            routes: 131_072,
            neighbours: 16_384,
            connections: 1_000_000,
            fib_nodes_v4: None,
            fib_nodes_v6: None,
            ipcache: 1_048_576,
            ipcache_nodes_v4: None,
            ipcache_nodes_v6: None,
            services: 65_536,
            frontends: 65_535,
            backends: 524_288,
            policies: 131_072,
            policy_entries: 65_536,
            egress_gateways: 65_536,
            authentications: 524_288,
        }
    }
}
