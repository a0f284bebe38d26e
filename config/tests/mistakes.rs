//! What is wrong is reported where it is wrong, and all of it at once.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use octoplane_config::{ConfigErrors, CpuSet, parse_for};

/// A valid port; takes lines 1 to 4 when it stands first.
const PORT: &str = "[[ports]]\nname = 'p0'\nrole = 'uplink'\ndevice = 'net_null0'\n";

fn cpus(list: &str) -> CpuSet {
    list.parse().unwrap()
}

/// What `text` is told, one mistake a line, on a machine with CPUs 0 to 3.
fn errors_of(text: &str) -> String {
    parse_for(text, "f", &cpus("0-3")).map_or_else(|errors| errors.to_string(), |_| String::new())
}

#[test]
fn each_mistake_is_reported_with_line_key_and_expectation() {
    // What follows the valid port, and what is said about it.
    let after_port: &[(&str, &str)] = &[
        (
            "mtu = 70000",
            "f:5: ports[0].mtu: 70000 is out of range, expected 1280 to 9600 bytes",
        ),
        (
            "mtu = 1279",
            "f:5: ports[0].mtu: 1279 is out of range, expected 1280 to 9600 bytes",
        ),
        (
            "mtu = -1",
            "f:5: ports[0].mtu: -1 is out of range, expected 1280 to 9600 bytes",
        ),
        (
            "mtu = 99999999999999999999",
            "f:5: ports[0].mtu: 99999999999999999999 is out of range, expected 1280 to 9600 bytes",
        ),
        (
            "mtu = '1500'",
            "f:5: ports[0].mtu: expected an integer from 1280 to 9600 bytes, found a string",
        ),
        (
            "mtu = 1500.0",
            "f:5: ports[0].mtu: expected an integer from 1280 to 9600 bytes, found a floating-point number",
        ),
        (
            "rx_queue = 1",
            "f:5: ports[0].rx_queue: unknown key, did you mean \"rx_queues\"?",
        ),
        (
            "rx_queues = 65",
            "f:5: ports[0].rx_queues: 65 is out of range, expected 0 to 64 queues (0: one per worker)",
        ),
        (
            "rx_descriptors = 32",
            "f:5: ports[0].rx_descriptors: 32 is out of range, expected 64 to 32768 descriptors",
        ),
        (
            "promiscuous = 1",
            "f:5: ports[0].promiscuous: expected true or false, found an integer",
        ),
        (
            "mac = '01:00:00:00:00:01'",
            "f:5: ports[0].mac: \"01:00:00:00:00:01\" is invalid, expected a unicast MAC address as in 02:00:00:00:00:01",
        ),
        (
            "addresses = [\n '10.0.0.1/24',\n '10.0.0.1/33',\n]",
            "f:7: ports[0].addresses[1]: \"10.0.0.1/33\" is invalid, expected a unicast ADDRESS/LENGTH as in \
             \"192.0.2.1/24\" or \"2001:db8::1/64\"",
        ),
        (
            "addresses = ['10.0.0.0/24']",
            "f:5: ports[0].addresses[0]: \"10.0.0.0/24\" is invalid, expected a unicast ADDRESS/LENGTH as in \
             \"192.0.2.1/24\" or \"2001:db8::1/64\"",
        ),
        (
            "addresses = ['10.0.0.1/24', '10.0.0.1/16']",
            "f:5: ports[0].addresses[1]: 10.0.0.1 is given twice, expected another address",
        ),
        (
            "addresses = ['fe80::1/64']",
            "f:5: ports[0].addresses[0]: fe80::1 is the pods' gateway address, expected another address",
        ),
        (
            "[[ports]]\nname = 'p0'\nrole = 'pod'\ndevice = 'net_null1'",
            "f:6: ports[1].name: \"p0\" is the name of ports[0] already, expected another name",
        ),
        (
            "[[ports]]\nname = 'p1'\nrole = 'pod'\ndevice = 'net_null0,size=64'",
            "f:8: ports[1].device: net_null0 is the device of ports[0] already, expected another device",
        ),
        (
            "[[ports]]\nname = 'p1'\nrole = 'pod'\ndevice = 'net_null1'\naddresses = ['10.0.0.1/24']",
            "f:9: ports[1].addresses: stands on a pod port, expected only on an uplink or host port",
        ),
        (
            "[[ports]]\nname = 'Port 1'\nrole = 'pods'\ndevice = '02:00.1'",
            "f:6: ports[1].name: \"Port 1\" is invalid, expected 1 to 15 of the characters a-z, 0-9, \"_\", \".\" and \
             \"-\"\n\
             f:7: ports[1].role: \"pods\" is unknown, expected \"pod\", \"uplink\" or \"host\"\n\
             f:8: ports[1].device: \"02:00.1\" is invalid, expected a PCI address as in 0000:02:00.1 or a virtual \
             device as in net_tap0,iface=tap0",
        ),
        (
            "\n[[ports]]\nname = 'p1'",
            "f:6: ports[1].role: is missing, expected \"pod\", \"uplink\" or \"host\"\n\
             f:6: ports[1].device: is missing, expected a PCI address as in 0000:02:00.1 or a virtual device as in \
             net_tap0,iface=tap0",
        ),
        (
            "[[ports]]\nname = 'h0'\nrole = 'host'\ndevice = 'net_tap0'\n\
             [[ports]]\nname = 'h1'\nrole = 'host'\ndevice = 'net_tap1'",
            "f:11: ports[2].role: is \"host\" as that of ports[1], expected at most one host port",
        ),
        (
            "[control]\nsocket_group = 'a'\nread_group = 'a'\nread_group_may = ['program']\nclient_streams = 0\n\
             tcp = { listen = '192.0.2.1:9443' }",
            "f:7: control.read_group: is that of socket_group, which may do everything, expected another group\n\
             f:8: control.read_group_may[0]: \"program\" is invalid, expected one of \"read\", \"debug\"\n\
             f:9: control.client_streams: 0 is out of range, expected 1 to 65536\n\
             f:10: control.tcp.listen: would be open to everybody on the network, expected certificate, key, client_ca and \
             clients for mutual TLS, or management_interface to be bound to the management wire",
        ),
        (
            "[control.tcp]\nlisten = '192.0.2.1'\ncertificate = 'x'\nkey = '/k'\nmay = []\n\
             [[control.tcp.clients]]\nname = 'agent'\n[[control.tcp.clients]]\nname = 'dns:*.example'\nmay = []\n\
             [[control.tcp.clients]]\nname = 'cn:x'\nmay = ['read']\nwho = 1\n[[control.tcp.clients]]\nname = 'cn:x'\n\
             may = ['all']",
            "f:5: control.tcp.client_ca: is missing, expected an absolute path\n\
             f:6: control.tcp.listen: \"192.0.2.1\" is invalid, expected ADDRESS:PORT as in 192.0.2.10:9443\n\
             f:7: control.tcp.certificate: \"x\" is invalid, expected an absolute path\n\
             f:9: control.tcp.may: goes with management_interface only, expected clients\n\
             f:10: control.tcp.clients[0].may: is missing, expected a list of \"read\", \"program\", \"debug\"\n\
             f:11: control.tcp.clients[0].name: \"agent\" is invalid, expected \"dns:NAME\" or \"uri:URI\" (a subject's \
             alternative name), or \"cn:NAME\" (its common name)\n\
             f:13: control.tcp.clients[1].name: \"dns:*.example\" is invalid, expected \"dns:NAME\" or \"uri:URI\" (a \
             subject's alternative name), or \"cn:NAME\" (its common name)\n\
             f:14: control.tcp.clients[1].may: is empty, expected a list of \"read\", \"program\", \"debug\"\n\
             f:18: control.tcp.clients[2].who: unknown key, expected one of name, may\n\
             f:20: control.tcp.clients[3].name: \"cn:x\" stands here twice, expected each name once\n\
             f:21: control.tcp.clients[3].may[0]: \"all\" is invalid, expected one of \"read\", \"program\", \"debug\"",
        ),
        (
            "[control.tcp]\nlisten = '192.0.2.1:0'\nmanagement_interface = 'a/b'\nclient_ca = '/a'",
            "f:5: control.tcp.may: is missing, expected a list of \"read\", \"program\", \"debug\": what everybody there may \
             do\n\
             f:6: control.tcp.listen: \"192.0.2.1:0\" is invalid, expected ADDRESS:PORT as in 192.0.2.10:9443\n\
             f:7: control.tcp.management_interface: \"a/b\" is invalid, expected the name of a network interface, at most 15 \
             bytes\n\
             f:8: control.tcp.client_ca: does not go with management_interface, which is for plain text, expected either of \
             them",
        ),
        (
            "[cni]\nlisten = '0.0.0.0:8000'\nports = ['p0']\ndirectory = 'state'\nreuse_delay_s = -1",
            "f:6: cni.listen: 0.0.0.0:8000 means every network, expected our address on the management wire: this listener asks \
             for no certificate (cni.tls does)\n\
             f:7: cni.ports[0]: \"p0\" is not the name of a [[ports]] of role \"pod\"\n\
             f:8: cni.directory: \"state\" is invalid, expected an absolute path\n\
             f:9: cni.reuse_delay_s: -1 is out of range, expected 0 to 86400 seconds",
        ),
        (
            "[cni]\nlisten = '192.168.1.1'\ntls = { listen = '[::]:8443', key = 'k', client_ca = '/a', ca = '/b' }",
            "f:6: cni.listen: \"192.168.1.1\" is invalid, expected ADDRESS:PORT as in 192.168.1.1:8000\n\
             f:7: cni.tls.certificate: is missing, expected an absolute path\n\
             f:7: cni.tls.key: \"k\" is invalid, expected an absolute path\n\
             f:7: cni.tls.ca: unknown key, expected one of listen, certificate, key, client_ca",
        ),
        (
            "[[cni.pools]]\nprefix = '10.0.1.0/16'\n[[cni.pools]]\nprefix = '224.0.0.0/24'\n\
             [[cni.pools]]\nprefix = '10.0.0.0/16'\nexclude = ['10.1.0.0', '10.0.0.0/8', 'x']\n\
             [[cni.pools]]\nprefix = '10.0.3.0/24'\n[[cni.pools]]\nexclude = []",
            "f:6: cni.pools[0].prefix: \"10.0.1.0/16\" is invalid, expected a unicast prefix as in 10.200.0.0/16 or \
             fd00:200::/64: 10.0.1.0/16 has host bits set: the prefix is 10.0.0.0/16\n\
             f:8: cni.pools[1].prefix: \"224.0.0.0/24\" is invalid, expected a unicast prefix as in 10.200.0.0/16 or \
             fd00:200::/64\n\
             f:11: cni.pools[2].exclude[0]: 10.1.0.0/32 is not in the pool 10.0.0.0/16\n\
             f:11: cni.pools[2].exclude[1]: 10.0.0.0/8 is not in the pool 10.0.0.0/16\n\
             f:11: cni.pools[2].exclude[2]: \"x\" is invalid, expected an address or a prefix as in 10.200.0.1 or \
             10.200.1.0/24\n\
             f:13: cni.pools[3].prefix: 10.0.3.0/24 overlaps the pool 10.0.0.0/16\n\
             f:14: cni.pools[4].prefix: is missing, expected a unicast prefix as in 10.200.0.0/16 or fd00:200::/64",
        ),
        (
            "[[cni.identities]]\nnamespace = ''\nidentity = 50331648\n[[cni.identities]]\nlabels = 'a=b'",
            "f:6: cni.identities[0].namespace: \"\" is invalid, expected a pattern of 1 to 253 bytes, as in \"kube-*\"\n\
             f:7: cni.identities[0].identity: 50331648 is out of range, expected 1 to 50331647\n\
             f:8: cni.identities[1].identity: is missing, expected 1 to 50331647\n\
             f:9: cni.identities[1].labels: expected a list of labels as in \"app=web\", found a string",
        ),
        (
            "[ipsec]\ntoo_big = 'drop'\nstrict_cidrs = ['10.0.0.1/8', 'x']",
            "f:6: ipsec.too_big: \"drop\" is unknown, expected \"icmp\" or \"fragment\"\n\
             f:7: ipsec.strict_cidrs[0]: \"10.0.0.1/8\" is invalid, expected at most 16 prefixes as in 10.0.0.0/8\n\
             f:7: ipsec.strict_cidrs[1]: \"x\" is invalid, expected at most 16 prefixes as in 10.0.0.0/8",
        ),
        (
            "[ipsec]\nkey_file = 'k'\nboot_id = 'x'\nrotation_s = 86401\naddresses = ['10.0.0.1', '10.0.0.2', '::']",
            "f:6: ipsec.key_file: \"k\" is invalid, expected the absolute path of a file\n\
             f:7: ipsec.boot_id: \"x\" is invalid, expected 36 characters as in /proc/sys/kernel/random/boot_id\n\
             f:8: ipsec.rotation_s: 86401 is out of range, expected 0 to 86400 seconds\n\
             f:9: ipsec.addresses[1]: \"10.0.0.2\" is invalid, expected one unicast address of each family at most\n\
             f:9: ipsec.addresses[2]: \"::\" is invalid, expected one unicast address of each family at most",
        ),
        (
            "[crypto]\nprovider = 'hardware'",
            "f:6: crypto.provider: \"hardware\" is unknown, expected \"auto\", \"software\" or \"cryptodev\"",
        ),
        (
            "[crypto]\nprovider = 'cryptodev'",
            "f:5: crypto.devices: has no devices although the provider is \"cryptodev\", expected at least one",
        ),
        (
            "[crypto]\nprovider = 'software'\ndevices = ['crypto_openssl0']",
            "f:7: crypto.devices: has devices although the provider is \"software\", expected none, or \"auto\" or \
             \"cryptodev\"",
        ),
        (
            "[crypto]\ndevices = 'crypto_openssl0'",
            "f:6: crypto.devices: expected a list of crypto devices, found a string",
        ),
        (
            "[crypto]\nprovider = 'cryptodev'\ndevices = ['net_null7']",
            "f:7: crypto.devices[0]: \"net_null7\" is invalid, expected a PCI address as in 0002:20:00.1 or a virtual device \
             as in crypto_aesni_gcm0,max_nb_queue_pairs=8",
        ),
        (
            "[crypto]\ndevices = ['crypto_openssl0', 'crypto_openssl0,max_nb_queue_pairs=2']",
            "f:6: crypto.devices[1]: \"crypto_openssl0\" is listed twice, expected different devices",
        ),
        (
            "[[ports]]\nname = 'p1'\nrole = 'pod'\ndevice = '0002:02:00.0'\n[crypto]\ndevices = ['0002:02:00.0']",
            "f:10: crypto.devices[0]: \"0002:02:00.0\" is the device of port p1, expected a crypto device",
        ),
        (
            "[crypto]\nqueue_depth = 1000",
            "f:6: crypto.queue_depth: 1000 is no power of two, expected 512 or 1024",
        ),
        (
            "[crypto]\nqueue_depth = 32",
            "f:6: crypto.queue_depth: 32 is out of range, expected 64 to 32768 packets",
        ),
        (
            "[crypto]\nlibrary = 'openssl'",
            "f:6: crypto.library: \"openssl\" is unknown, expected \"aes-gcm\", \"ring\", \"aws-lc-rs\" or \"auto\"",
        ),
        (
            "[crypto]\ntimeout_ms = 0",
            "f:6: crypto.timeout_ms: 0 is out of range, expected 1 to 10000 milliseconds",
        ),
        (
            "[crypto]\nretry_ms = 60001",
            "f:6: crypto.retry_ms: 60001 is out of range, expected 1 to 60000 milliseconds",
        ),
        (
            "[crypto]\ndevices = ['0002:20:00.1']\n[eal]\npci = false",
            "f:8: eal.pci: is false although a port or crypto device is a PCI device, expected true or \"auto\"",
        ),
        ("[worker]", "f:5: worker: unknown key, did you mean \"workers\"?"),
        (
            "[state]\ndirectory = 'state'\nconnections = '/'",
            "f:6: state.directory: \"state\" is invalid, expected the absolute path of a directory, or \"\" for none\n\
             f:7: state.connections: \"/\" is invalid, expected the absolute path of a directory, or \"\" for none",
        ),
        (
            "[workers]\ncores = [9]",
            "f:6: workers.cores[0]: CPU 9 is not one that this process may use, expected one of 0-3",
        ),
        (
            "[workers]\ncores = [1, 1]",
            "f:6: workers.cores[1]: CPU 1 is listed twice, expected different CPUs",
        ),
        (
            "[workers]\ncores = []",
            "f:6: workers.cores: has 0 CPUs, expected 1 to 64",
        ),
        (
            "[workers]\ncores = [0, 1, 2, 3]",
            "f:6: workers.cores: leaves no CPU to the control threads, expected at most 3 of the CPUs 0-3, or \
             control_cores",
        ),
        (
            "[workers]\ncores = [1]\ncontrol_cores = [0, 1]\npoll = \"busy\"",
            "f:7: workers.control_cores: CPU 1 belongs to a worker that never sleeps, expected CPUs that no worker has, or \
             poll = \"adaptive\"",
        ),
        (
            "[workers]\ncores = [1]\ncount = 1",
            "f:7: workers.count: stands beside workers.cores, expected only one of the two",
        ),
        (
            "[workers]\ncount = 4",
            "f:6: workers.count: 4 is out of range, expected 1 to 3 workers (of the CPUs 0-3), or \"auto\"",
        ),
        (
            "[workers]\ncontrol_cores = [0, 1, 2, 3]",
            "f:6: workers.control_cores: no CPU of 0-3 is left for a worker, expected at least one",
        ),
        (
            "[workers]\nburst = 65",
            "f:6: workers.burst: 65 is out of range, expected 1 to 64 packets",
        ),
        (
            "[workers]\npoll = 'lazy'",
            "f:6: workers.poll: \"lazy\" is unknown, expected \"busy\" or \"adaptive\"",
        ),
        (
            "[workers]\nmax_wakeup_delay_us = 5",
            "f:6: workers.max_wakeup_delay_us: 5 is out of range, expected 10 to 10000 microseconds",
        ),
        (
            "[eal]\nextra_args = [\n'--legacy-mem',\n'--lcores=1']",
            "f:8: eal.extra_args[1]: \"--lcores=1\" is set by the daemon itself, expected another EAL argument",
        ),
        (
            "[eal]\niova = 'dc'",
            "f:6: eal.iova: \"dc\" is unknown, expected \"auto\", \"va\" or \"pa\"",
        ),
        (
            "[eal]\nfile_prefix = '../x'",
            "f:6: eal.file_prefix: \"../x\" is invalid, expected 1 to 32 letters, digits, \"_\" or \"-\"",
        ),
        (
            "[eal]\npci = false\n[[ports]]\nname = 'p1'\nrole = 'pod'\ndevice = '0002:01:00.2'",
            "f:6: eal.pci: is false although a port or crypto device is a PCI device, expected true or \"auto\"",
        ),
        (
            "[memory]\nmbufs = 512",
            "f:6: memory.mbufs: 512 does not fill the receive descriptors and the workers' caches, expected at least \
             4416 mbufs",
        ),
        (
            "[memory]\nmbufs = 10000\nsize_mb = 16",
            "f:7: memory.size_mb: 16 does not hold 10000 mbufs with a data room of 2176 bytes, expected at least 24 MiB",
        ),
        (
            "mtu = 9000\n[memory]\ndata_room = 2176",
            "f:7: memory.data_room: 2176 does not hold a packet of port p0 (MTU 9000) with its headers, expected at \
             least 9218 bytes",
        ),
        (
            "[memory]\nmbuf_cache = 513",
            "f:6: memory.mbuf_cache: 513 is out of range, expected 0 to 512 mbufs",
        ),
        (
            "[memory]\nhugepages = 'yes'",
            "f:6: memory.hugepages: expected true, false or \"auto\", found a string",
        ),
        (
            "[control]\nsocket = 'octoplane.sock'",
            "f:6: control.socket: \"octoplane.sock\" is invalid, expected the absolute path of a socket, at most 107 bytes",
        ),
        (
            "[control]\nmax_message_mb = 0",
            "f:6: control.max_message_mb: 0 is out of range, expected 1 to 1024 MiB",
        ),
        (
            "[gateway]\nipv4 = '224.0.0.1'",
            "f:6: gateway.ipv4: \"224.0.0.1\" is invalid, expected a unicast IPv4 address",
        ),
        (
            "[gateway]\nipv6 = '::'",
            "f:6: gateway.ipv6: \"::\" is invalid, expected a unicast IPv6 address",
        ),
        (
            "[exception]\nrate_pps = 0",
            "f:6: exception.rate_pps: 0 is out of range, expected 1 to 100000000 packets per second",
        ),
        (
            "[neighbours]\nmax_learned = 20000",
            "f:6: neighbours.max_learned: 20000 is more than the table holds, expected at most capacity.neighbours, 16384",
        ),
        (
            "[timeouts]\nother_s = 0",
            "f:6: timeouts.other_s: 0 is out of range, expected 1 to 2592000 seconds",
        ),
        (
            "[timeouts]\nsyn_s = 3",
            "f:6: timeouts.syn_s: unknown key, did you mean \"tcp_syn_s\"?",
        ),
        (
            "[capacity]\nroutes = 0",
            "f:6: capacity.routes: 0 is out of range, expected 1 to 16777216 routes",
        ),
        (
            "[capacity]\nfrontends = 65536",
            "f:6: capacity.frontends: 65536 is out of range, expected 1 to 65535 frontends",
        ),
        (
            "[capacity]\npolicy_entries = 2000000",
            "f:6: capacity.policy_entries: 2000000 is out of range, expected 1 to 1048576 entries",
        ),
        (
            "[capacity]\nfib_nodes_v4 = 'all'",
            "f:6: capacity.fib_nodes_v4: expected an integer from 64 to 16777216 nodes, or \"auto\", found a string",
        ),
    ];
    for (text, expected) in after_port {
        assert_eq!(errors_of(&format!("{PORT}{text}\n")), *expected, "{text}");
    }
}

#[test]
fn mistakes_of_the_whole_document() {
    let cases: &[(&str, &str)] = &[
        ("", "f:1: ports: is missing, expected at least one [[ports]]"),
        ("ports = []", "f:1: ports: has 0 ports, expected 1 to 256"),
        (
            "ports = [1]",
            "f:1: ports[0]: expected a table: [[ports]], found an integer",
        ),
        (
            "\n[ports]\nname = 'p0'",
            "f:2: ports: expected a list of tables: [[ports]], found a table",
        ),
        (
            "\n[[port]]\nname = 'p0'",
            "f:1: ports: is missing, expected at least one [[ports]]\nf:2: port: unknown key, did you mean \"ports\"?",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(errors_of(text), *expected, "{text}");
    }
    let text = format!("log_level = 'inof'\neal = 3\n{PORT}");
    let expected = "f:1: log_level: \"inof\" is invalid, expected error, warn, info, debug, trace, off, or a \
                    comma-separated list of TARGET=LEVEL\n\
                    f:2: eal: expected a table: [eal], found an integer";
    assert_eq!(errors_of(&text), expected);
}

#[test]
fn all_mistakes_are_reported_in_one_pass_in_the_order_of_the_file() {
    let text = "\
[workers]
cores = [1, 77]
burts = 32

[capacity]
endpoints = 'many'

[[ports]]
name = 'p0'
role = 'pod'
device = 'eth0'
mtu = 68

[[ports]]
name = 'p0'
device = 'net_null0'
colour = 'blue'
";
    let Err(ConfigErrors::Invalid { mistakes, file }) = parse_for(text, "octoplaned.toml", &cpus("0-3"))
    else {
        panic!("the text is full of mistakes");
    };
    assert_eq!(file, "octoplaned.toml");
    let found: Vec<_> = mistakes
        .iter()
        .map(|mistake| (mistake.line, mistake.key.as_str()))
        .collect();
    let expected = [
        (2, "workers.cores[1]"),
        (3, "workers.burts"),
        (6, "capacity.endpoints"),
        (11, "ports[0].device"),
        (12, "ports[0].mtu"),
        (14, "ports[1].role"),
        (15, "ports[1].name"),
        (17, "ports[1].colour"),
    ];
    assert_eq!(found, expected);
    assert!(
        mistakes[1].message.ends_with("did you mean \"burst\"?"),
        "{}",
        mistakes[1]
    );
    assert!(
        mistakes[7]
            .message
            .starts_with("unknown key, expected one of name, role"),
        "{}",
        mistakes[7]
    );
}

#[test]
fn syntax_errors_have_their_line() {
    let text = format!("{PORT}mtu = \n[control]\nsocket = 'a\n");
    let errors = parse_for(&text, "f", &cpus("0")).unwrap_err();
    let lines: Vec<_> = errors
        .mistakes()
        .iter()
        .map(|mistake| (mistake.line, mistake.key.as_str()))
        .collect();
    assert_eq!(lines, [(5, ""), (7, "")], "{errors}");
    let twice = parse_for("log_level = 'info'\nlog_level = 'warn'\n", "f", &cpus("0")).unwrap_err();
    assert_eq!(twice.to_string(), "f:2: duplicate key");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let errors = octoplane_config::load("/nonexistent/octoplaned.toml").unwrap_err();
    assert!(
        errors
            .to_string()
            .starts_with("/nonexistent/octoplaned.toml: cannot be read: "),
        "{errors}"
    );
}
