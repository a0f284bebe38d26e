//! Defaults, what is resolved from them, and the text that shows it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use octoplane_config::{
    Capacity, Cni, Config, Control, CpuSet, Crypto, DeviceSpec, Eal, Exception, Gateway, Icmp, Ipsec, Memory,
    Neighbours, PollMode, Queues, Role, State, Workers, parse_for,
};

const PORT: &str = "[[ports]]\nname = 'p0'\nrole = 'uplink'\ndevice = 'net_null0,size=64'\n";

fn parsed(text: &str, cpus: &str) -> Config {
    parse_for(text, "f", &cpus.parse::<CpuSet>().unwrap()).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn a_port_is_all_that_is_needed() {
    let config = parsed(PORT, "0-3");
    assert_eq!(config.log_level, "info");
    assert_eq!(config.eal, Eal::default());
    assert_eq!(config.control, Control::default());
    assert_eq!(config.state, State::default());
    assert_eq!(config.gateway, Gateway::default());
    assert_eq!(config.cni, Cni::default());
    assert_eq!(config.crypto, Crypto::default());
    assert_eq!(config.ipsec, Ipsec::default());
    assert_eq!(config.exception, Exception::default());
    assert_eq!(config.icmp, Icmp::default());
    assert_eq!(config.neighbours, Neighbours::default());
    assert_eq!(config.capacity, Capacity::default());
    let workers = Workers {
        cores: vec![1, 2, 3],
        control_cores: vec![0],
        poll: PollMode::Adaptive,
        max_wakeup_delay: Workers::DEFAULT_MAX_WAKEUP_DELAY,
        burst: 64,
    };
    assert_eq!(config.workers, workers);
    // 3 queues each way of 1024 descriptors, 3 workers.
    let mbufs = 16_383;
    let size_mb = Memory::auto_size_mb(mbufs, 2176);
    let memory = Memory {
        hugepages: false,
        size_mb,
        mbufs,
        mbuf_cache: 256,
        data_room: 2176,
    };
    assert_eq!(config.memory, memory);
    let port = &config.ports[0];
    assert_eq!(port.role, Role::Uplink);
    assert_eq!(
        port.device,
        DeviceSpec::Vdev {
            name: "net_null0".into(),
            args: "size=64".into()
        }
    );
    assert_eq!(
        (port.rx_queues, port.tx_queues),
        (Queues::PerWorker, Queues::PerWorker)
    );
    assert_eq!(
        (port.rx_descriptors, port.tx_descriptors, port.mtu),
        (1024, 1024, 1500)
    );
    assert_eq!((port.mac, port.promiscuous), (None, false));
}

#[test]
fn a_pci_port_brings_the_bus_and_hugepages() {
    let config = parsed(&PORT.replace("net_null0,size=64", "0002:1F:00.2"), "0-3");
    assert_eq!(config.ports[0].device, DeviceSpec::Pci("0002:1f:00.2".into()));
    assert!(config.eal.pci && config.memory.hugepages);
    // So does a crypto device.
    let config = parsed(&format!("{PORT}[crypto]\ndevices = ['0002:20:00.1']\n"), "0-3");
    assert!(config.eal.pci && config.memory.hugepages);
    assert_eq!(config.crypto.devices, [DeviceSpec::Pci("0002:20:00.1".into())]);
}

#[test]
fn cpus_are_shared_out() {
    let cores = |keys: &str, cpus: &str| {
        let workers = parsed(&format!("{PORT}[workers]\n{keys}\n"), cpus).workers;
        (workers.cores, workers.control_cores)
    };
    assert_eq!(cores("", "0"), (vec![0], vec![0]));
    assert_eq!(cores("cores = [5]\ncontrol_cores = [5]", "5"), (vec![5], vec![5]));
    // Workers that sleep may share, when they are told to.
    assert_eq!(
        cores("cores = [0, 1]\ncontrol_cores = [0]", "0-1"),
        (vec![0, 1], vec![0])
    );
    assert_eq!(cores("", "2-3"), (vec![3], vec![2]));
    assert_eq!(cores("count = 2", "0-3"), (vec![2, 3], vec![0, 1]));
    assert_eq!(cores("cores = [3, 1]", "0-3"), (vec![3, 1], vec![0, 2]));
    assert_eq!(cores("control_cores = [1]", "0-3"), (vec![0, 2, 3], vec![1]));
    assert_eq!(cores("count = 'auto'", "0-199").0.len(), 64);
}

#[test]
fn a_large_mtu_makes_larger_buffers() {
    let config = parsed(&format!("{PORT}mtu = 9600\n"), "0-1");
    assert_eq!(config.memory.data_room, 9856);
}

#[test]
fn link_local_addresses_may_recur_on_another_link() {
    let second = PORT.replace("p0", "p1").replace("net_null0", "net_null1");
    let config = parsed(
        &format!("{PORT}addresses = ['fe80::2/64']\n{second}addresses = ['fe80::2/64']\n"),
        "0-1",
    );
    assert_eq!(config.ports[1].addresses[0].network().to_string(), "fe80::/64");
}

#[test]
fn the_effective_text_reads_back_as_the_same_configuration() {
    let text = format!(
        "log_level = 'warn,octoplane_worker=trace'\n{PORT}mac = '02:00:00:00:00:01'\nrx_queues = 2\n\
         addresses = ['10.0.0.1/31', '2001:db8::1/64']\n[control]\nsocket = '/tmp/a\"b'\nsocket_group = 'wheel'\nread_group = 'adm'\n\
         read_group_may = ['debug', 'read']\nclient_requests = 7\nrequest_timeout_s = 9\n\
         tcp = {{ listen = '[2001:db8::1]:1', certificate = '/c', key = '/k', client_ca = '/a', clients = [\
         {{ name = 'dns:A.example', may = ['program', 'read'] }}, {{ name = 'uri:spiffe://x/y', may = ['debug'] }}, \
         {{ name = 'cn:Joe \"X\" Doe', may = ['read'] }}] }}\n\
         [eal]\nextra_args = ['-n', '4']\n[capacity]\nfib_nodes_v4 = 4096\n[cni]\nlisten = '192.168.1.1:8000'\nreuse_delay_s = 0\norphan_grace_s = 30\n\
         tls = {{ listen = '[2001:db8::1]:8443', certificate = '/c', key = '/k', client_ca = '/a' }}\ndirectory = '/d'\n\
         pools = [{{ prefix = '10.1.0.0/16', exclude = ['10.1.0.0/24', '10.1.2.3'] }}, {{ prefix = 'fd00::/64' }}]\n\
         identities = [{{ namespace = 'kube-*', identity = 7, labels = ['a=b'] }}, {{ identity = 50331647 }}]\n[crypto]\nprovider = 'cryptodev'\nlibrary = 'ring'\ntimeout_ms = 3\nretry_ms = 7\n\
         queue_depth = 64\ndevices = ['crypto_openssl0,max_nb_queue_pairs=2', '0000:05:00.1']\n[ipsec]\nkey_file = '/k'\npolicies = true\ntoo_big = 'fragment'\nstrict = true\nstrict_cidrs = ['10.0.0.0/8', 'fd00::/8']\nstrict_remote_nodes = true\nframing = 'esp-in-tunnel'\naddresses = ['10.0.0.1', 'fd00::1']\nrotation_s = 7\n\
         directory = '/i'\nboot_id = '01234567-89ab-cdef-0123-456789abcdef'\n[state]\ndirectory = ''\nconnections = '/mnt/huge'\n[workers]\npoll = 'busy'\n"
    );
    for text in [PORT, text.as_str()] {
        let config = parsed(text, "0-3");
        let effective = config.to_effective_toml();
        assert_eq!(parsed(&effective, "0-3"), config, "{effective}");
    }
}
