//! The command line.

use crate::own_ipsec::{IpsecPolicyVerb, IpsecSaVerb};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::flow::{Protocol, Side};

/// Looks at the Octoplane data plane and programs it.
///
/// Exit status: 0 done, 1 the data plane refused, 2 the command line or a file is wrong, 3 nobody answers.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    /// The daemon's control socket.
    #[arg(long, global = true, env = "OCTOPLANE_SOCKET", default_value = octoplane_api::DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// A daemon that is asked over TCP.
#[derive(Debug, Args)]
#[command(next_help_heading = "Another machine's daemon")]
pub(crate) struct Remote {
    /// Its TCP listener in place of the socket: https://NAME:PORT with the three files below, http://ADDRESS:PORT in plain
    /// text over the management wire.
    #[arg(long, global = true, env = "OCTOPLANE_SERVER", value_name = "URL")]
    pub(crate) server: Option<tonic::transport::Uri>,
    /// Authorities that its certificate may be from (PEM).
    #[arg(long, global = true, env = "OCTOPLANE_TLS_CA", value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Our certificate (PEM).
    #[arg(long, global = true, env = "OCTOPLANE_TLS_CERTIFICATE", value_name = "FILE")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, global = true, env = "OCTOPLANE_TLS_KEY", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For both.
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// The daemon, its workers, how full its tables are.
    Status,
    /// Ports.
    #[command(subcommand)]
    Port(PortVerb),
    /// Endpoints.
    #[command(subcommand)]
    Endpoint(EndpointVerb),
    /// Routes.
    #[command(subcommand)]
    Route(RouteVerb),
    /// Neighbours on uplinks.
    #[command(subcommand)]
    Neigh(NeighVerb),
    /// The settings of this node.
    #[command(subcommand)]
    Node(NodeVerb),
    /// Services.
    #[command(subcommand)]
    Service(ServiceVerb),
    /// What endpoints may talk to.
    #[command(subcommand)]
    Policy(PolicyVerb),
    /// What is known of addresses elsewhere.
    #[command(subcommand)]
    Ipcache(IpcacheVerb),
    /// Which nodes traffic leaves the cluster from.
    #[command(subcommand)]
    EgressGateway(EgressGatewayVerb),
    /// Who has authenticated to whom.
    #[command(subcommand)]
    Auth(AuthVerb),
    /// What CNI plugins attached.
    #[command(subcommand)]
    Attachment(AttachmentVerb),
    /// Encryption between nodes.
    #[command(subcommand)]
    Ipsec(IpsecVerb),
    /// Connections.
    #[command(subcommand)]
    Flow(FlowVerb),
    /// What would happen to a packet, and which entries decide it, from the tables as they are.
    Explain {
        /// Who sends it: an endpoint's name, number or address, "host", or another address for a packet from the network.
        #[arg(long, value_name = "POD")]
        from: String,
        /// Where to: address:port as in 10.96.0.10:80 or [fd00::1]:80; the address alone for ICMP.
        #[arg(long, value_name = "ADDR:PORT")]
        to: Side,
        /// tcp, udp, sctp or icmp.
        #[arg(short, long, default_value = "tcp")]
        protocol: Protocol,
        /// Its source port, or identifier of the ping; 0: one that no connection has.
        #[arg(long, default_value_t = 0)]
        source_port: u16,
        /// The uplink that a packet from the network comes in by. Default: the one that leads back to its sender.
        #[arg(long, value_name = "PORT")]
        in_port: Option<String>,
    },
    /// Print what policies say of packets, and drops, as they happen.
    Monitor {
        /// Only of this endpoint: its number or name, or "host".
        #[arg(short, long)]
        endpoint: Option<String>,
        /// What policies say; without --drops nothing else.
        #[arg(long)]
        verdicts: bool,
        /// Packets dropped; without --verdicts nothing else.
        #[arg(long)]
        drops: bool,
    },
    /// Make the tables equal to a file, and print what that changes: + new, ~ different, - gone.
    Apply {
        /// YAML or JSON; - for standard input.
        #[arg(short, long)]
        file: PathBuf,
        /// Only print what would change.
        #[arg(long)]
        dry_run: bool,
    },
    /// Program everything anew, as an agent does that was started again: like apply, but only for the kinds that are named, and
    /// what others program meanwhile stays.
    Resync {
        /// YAML or JSON; - for standard input.
        #[arg(short, long)]
        file: PathBuf,
        /// Only this kind; give it again for more. Default: everything.
        #[arg(long = "kind", value_enum)]
        kinds: Vec<Kind>,
        /// Only print what would change.
        #[arg(long)]
        dry_run: bool,
    },
    /// Print the tables in the form that apply reads.
    Export,
    /// Print what changes, until interrupted.
    Watch {
        /// Everything that is there first.
        #[arg(long, conflicts_with = "from")]
        initial: bool,
        /// Go on after this revision.
        #[arg(long, value_name = "REVISION")]
        from: Option<u64>,
        /// Only this kind; give it again for more.
        #[arg(long = "kind", value_enum)]
        kinds: Vec<Kind>,
    },
    /// Dropped packets by reason.
    Drops,
    /// Pipeline stages by worker.
    Stages,
    /// Whether this machine is ready for the daemon, and what to do where it is not. Exit status 1 if something stands in the
    /// way.
    Doctor {
        /// The daemon's configuration.
        #[arg(long, value_name = "FILE", default_value = "/etc/octoplane/octoplaned.toml")]
        config: PathBuf,
        /// A directory that stands for the machine; with it, all paths are below it.
        #[arg(long, value_name = "DIRECTORY", default_value = "/")]
        root: PathBuf,
    },
    /// A completion script for a shell.
    Completion {
        /// Which shell.
        shell: Shell,
    },
    /// The version of this program.
    Version,
}

/// What sort of thing an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Endpoint,
    Route,
    Neighbour,
    Port,
    Node,
    Ipcache,
    Service,
    Policy,
    EgressGateway,
    Authentication,
}

impl From<Kind> for octoplane_api::v1::Kind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Endpoint => Self::Endpoint,
            Kind::Route => Self::Route,
            Kind::Neighbour => Self::Neighbour,
            Kind::Port => Self::Port,
            Kind::Node => Self::Node,
            Kind::Ipcache => Self::Ipcache,
            Kind::Service => Self::Service,
            Kind::Policy => Self::Policy,
            Kind::EgressGateway => Self::EgressGateway,
            Kind::Authentication => Self::Authentication,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum IpsecVerb {
    /// What this node announces, keys, devices.
    Status,
    /// Security associations.
    #[command(subcommand)]
    Sa(IpsecSaVerb),
    /// What becomes of packets to other nodes, and policies of one's own.
    #[command(subcommand)]
    Policy(IpsecPolicyVerb),
    /// What happens to security associations, as it happens: limits that are passed.
    Events {
        /// Only events with greater numbers.
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
    /// Packets, and errors by cause.
    Counters,
    /// Other nodes.
    #[command(subcommand)]
    Node(IpsecNodeVerb),
}

#[derive(Debug, Subcommand)]
pub(crate) enum IpsecNodeVerb {
    /// Add a node by one of its addresses, or replace it.
    #[command(visible_alias = "set")]
    Add {
        /// Address that packets to it are recognised by: end of its tunnels.
        address: String,
        /// Number of the node, 1 to 65535; 0: the daemon chooses one.
        #[arg(long, default_value_t = 0)]
        id: u32,
        /// The key it announces, 1 to 15; 0: none, packets go as they are.
        #[arg(long)]
        key: u32,
        /// Its boot id, 36 characters.
        #[arg(long, default_value = "")]
        boot_id: String,
        /// Its end of the security associations, if that is not the address.
        #[arg(long, default_value = "")]
        sa_address: String,
    },
    /// Remove nodes by their addresses.
    Del {
        /// The addresses.
        #[arg(required = true)]
        addresses: Vec<String>,
    },
    /// All nodes.
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AttachmentVerb {
    /// All attachments.
    List {
        /// Only those of this CNI network.
        #[arg(long)]
        network: Option<String>,
    },
    /// Remove an attachment with its endpoint and addresses. What a plugin made beside them stays.
    Del {
        /// The container's id.
        container: String,
        /// Its interface.
        #[arg(default_value = "eth0")]
        interface: String,
    },
    /// Where addresses come from, and how full that is.
    Pools,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PortVerb {
    /// All ports.
    List,
    /// Counters.
    Stats {
        /// Names; none for all.
        names: Vec<String>,
        /// With the driver's own counters.
        #[arg(long)]
        xstats: bool,
    },
    /// Add one under traffic. It is there again after a restart of the daemon.
    Add(PortArguments),
    /// Remove one that no endpoint, route or static neighbour names, and its device.
    Del {
        /// Its name.
        name: String,
    },
    /// Change a port.
    Set {
        /// Its name.
        name: String,
        /// Largest IP packet in bytes.
        #[arg(long, required_unless_present = "admin")]
        mtu: Option<u16>,
        /// Administrative state.
        #[arg(long)]
        admin: Option<Admin>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PortArguments {
    /// Its name.
    pub(crate) name: String,
    /// What stands at its other end.
    #[arg(long, value_enum)]
    pub(crate) role: Role,
    /// A PCI address, or a virtual device with its arguments as in net_af_packet7,iface=veth7.
    #[arg(long)]
    pub(crate) device: String,
    /// Receive queues; one for each worker unless given.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub(crate) rx_queues: u32,
    /// Send queues; one for each worker unless given.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub(crate) tx_queues: u32,
    /// Descriptors of each receive queue; 1024 unless given.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub(crate) rx_descriptors: u32,
    /// Descriptors of each send queue; 1024 unless given.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub(crate) tx_descriptors: u32,
    /// Largest IP packet in bytes; 1500 unless given.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub(crate) mtu: u32,
    /// Our Ethernet address on it; the device's unless given.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) mac: String,
    /// Our address on the link with the length of its prefix; give it again for more.
    #[arg(long = "address")]
    pub(crate) addresses: Vec<String>,
    /// Receive frames for other stations, too.
    #[arg(long)]
    pub(crate) promiscuous: bool,
}

/// What stands at a port's other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// One or more pods.
    Pod,
    /// The network between nodes.
    Uplink,
    /// This machine's kernel.
    Host,
}

impl From<Role> for octoplane_api::v1::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Pod => Self::Pod,
            Role::Uplink => Self::Uplink,
            Role::Host => Self::Host,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Admin {
    Up,
    Down,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EndpointVerb {
    /// Create or replace one.
    Add(EndpointArguments),
    /// Remove some.
    Del {
        /// Ids.
        #[arg(required = true)]
        ids: Vec<u32>,
    },
    /// All endpoints.
    List,
    /// One endpoint.
    Get {
        /// Its id.
        id: u32,
    },
}

#[derive(Debug, Args)]
pub(crate) struct EndpointArguments {
    /// Its id, 1 to 4294967295.
    pub(crate) id: u32,
    /// Name of its port.
    #[arg(long)]
    pub(crate) port: String,
    /// Its Ethernet address.
    #[arg(long)]
    pub(crate) mac: String,
    /// Its security identity.
    #[arg(long)]
    pub(crate) identity: u32,
    /// An address of it; give it again for more.
    #[arg(long = "address", required = true)]
    pub(crate) addresses: Vec<String>,
    /// A name for people.
    #[arg(long, default_value = "")]
    pub(crate) name: String,
    /// How much it may receive, in bytes a second; 0: no limit.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub(crate) ingress_rate: u64,
    /// How much it may send, in bytes a second; 0: no limit.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub(crate) egress_rate: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RouteVerb {
    /// Create or replace one: through a neighbour (--via and --port), on a link (--port), to the kernel, or nowhere.
    Add(RouteArguments),
    /// Remove some.
    Del {
        /// Prefixes.
        #[arg(required = true)]
        prefixes: Vec<String>,
    },
    /// All routes.
    List,
}

#[derive(Debug, Args)]
pub(crate) struct RouteArguments {
    /// Destinations.
    pub(crate) prefix: String,
    /// The next hop.
    #[arg(long, requires = "port")]
    pub(crate) via: Option<String>,
    /// Name of the uplink.
    #[arg(long, required_unless_present_any = ["host", "blackhole"])]
    pub(crate) port: Option<String>,
    /// To this machine's kernel.
    #[arg(long, conflicts_with_all = ["via", "port", "blackhole"])]
    pub(crate) host: bool,
    /// Nowhere.
    #[arg(long, conflicts_with_all = ["via", "port"])]
    pub(crate) blackhole: bool,
    /// Largest IP packet in bytes, where it is less than the port's.
    #[arg(long)]
    pub(crate) mtu: Option<u16>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NeighVerb {
    /// Create or replace a static one.
    Add {
        /// Its address.
        address: String,
        /// Name of the uplink.
        #[arg(long)]
        port: String,
        /// Its Ethernet address.
        #[arg(long)]
        mac: String,
    },
    /// Remove one.
    Del {
        /// Its address.
        address: String,
        /// Name of the uplink.
        #[arg(long)]
        port: String,
    },
    /// All neighbours.
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FlowVerb {
    /// Those that fit all filters, in no order.
    List {
        #[command(flatten)]
        filter: FlowFilter,
        /// At most so many.
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        limit: u64,
    },
    /// The one to which packets of a direction belong: octoctl flow get 10.0.0.1:4000 10.0.0.2:80 --protocol tcp.
    Get {
        /// Source of the packets as they arrive, with its port as in 10.0.0.1:4000 or [fd00::1]:4000 if there is one.
        source: Side,
        /// Destination of the packets as they arrive. An ICMP echo request has its identifier as the destination's port.
        destination: Side,
        /// Protocol: tcp, udp, icmp, icmpv6, sctp or a number.
        #[arg(long, default_value = "tcp")]
        protocol: Protocol,
        /// Zone.
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        zone: u8,
    },
    /// End those that fit all filters. The next packet of one begins another.
    Flush {
        #[command(flatten)]
        filter: FlowFilter,
        /// All connections.
        #[arg(long, conflicts_with_all = ["address", "source", "destination", "port", "protocol"],
              required_unless_present_any = ["address", "source", "destination", "port", "protocol"])]
        all: bool,
    },
}

/// Which connections are meant. What packets have before and after translation counts both.
#[derive(Debug, Args)]
pub(crate) struct FlowFilter {
    /// Address or prefix of either side.
    #[arg(long)]
    pub(crate) address: Option<String>,
    /// Address or prefix of the side that began.
    #[arg(long)]
    pub(crate) source: Option<String>,
    /// Address or prefix of the side that it began to talk to.
    #[arg(long)]
    pub(crate) destination: Option<String>,
    /// Port of either side.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// Protocol: tcp, udp, icmp, icmpv6, sctp or a number.
    #[arg(long)]
    pub(crate) protocol: Option<Protocol>,
}

/// Objects out of a file.
#[derive(Debug, Args)]
pub(crate) struct Objects {
    /// YAML or JSON, one object or a list of them, each as in the file of apply; - for standard input.
    #[arg(short, long)]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// Set all settings; what the file does not have goes to its default.
    #[command(visible_alias = "set")]
    Add(Objects),
    /// Take all settings back to the defaults.
    Del,
    /// The settings.
    #[command(visible_alias = "list")]
    Get,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceVerb {
    /// Create or replace some.
    Add(Objects),
    /// Remove some.
    Del {
        /// Names.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// All services.
    List,
    /// One service.
    Get {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyVerb {
    /// Create or replace some, each with all its entries.
    Add(Objects),
    /// Remove some.
    Del {
        /// Ids of the endpoints; 0: the node itself.
        #[arg(required = true)]
        endpoints: Vec<u32>,
    },
    /// All policies.
    List,
    /// One policy.
    Get {
        /// Id of the endpoint; 0: the node itself.
        endpoint: u32,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum IpcacheVerb {
    /// Create or replace an entry.
    Add {
        /// The addresses.
        prefix: String,
        /// Their security identity.
        #[arg(long)]
        identity: u32,
        /// Address of the node they live on, if a tunnel leads to it.
        #[arg(long, default_value = "", hide_default_value = true)]
        tunnel_endpoint: String,
        /// Number of the node's encryption key; 0: none.
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        key: u8,
        /// They are reached without tunnel all the same.
        #[arg(long)]
        skip_tunnel: bool,
    },
    /// Remove some.
    Del {
        /// Prefixes.
        #[arg(required = true)]
        prefixes: Vec<String>,
    },
    /// All entries.
    List,
    /// One entry.
    Get {
        /// Its prefix.
        prefix: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuthVerb {
    /// Enter that two sides have authenticated, for a time.
    Add {
        #[command(flatten)]
        who: AuthWho,
        /// For how many seconds from now.
        #[arg(long, default_value_t = 3600)]
        seconds: u64,
    },
    /// Take it back: their connections are cut.
    Del {
        #[command(flatten)]
        who: AuthWho,
    },
    /// All of them.
    List,
}

/// Two sides.
#[derive(Debug, clap::Args)]
pub(crate) struct AuthWho {
    /// Identity of endpoints of this node.
    pub(crate) local: u32,
    /// Identity of the other side.
    pub(crate) remote: u32,
    /// Address of the node of the other side, if it is another one.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) node: String,
    /// How they authenticated, as policies ask for it.
    #[arg(long = "type", default_value_t = 1)]
    pub(crate) auth_type: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EgressGatewayVerb {
    /// Create or replace a rule.
    Add {
        /// Addresses of endpoints.
        source: String,
        /// Where they send to.
        destination: String,
        /// Address of the node that traffic leaves from, or "missing" (dropped), or "excluded" (no rule for these).
        #[arg(long)]
        gateway: String,
        /// Source address that traffic gets there.
        #[arg(long, default_value = "", hide_default_value = true)]
        egress_ip: String,
    },
    /// Remove a rule.
    Del {
        /// Its source.
        source: String,
        /// Its destination.
        destination: String,
    },
    /// All rules.
    List,
    /// One rule.
    Get {
        /// Its source.
        source: String,
        /// Its destination.
        destination: String,
    },
}
