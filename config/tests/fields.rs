//! A port that does not come from a file is checked as if it did.

use octoplane_config::{DeviceSpec, Gateway, Port, PortFields, Queues, Role, parse};

fn pod() -> PortFields {
    PortFields {
        name: "pod3".into(),
        role: "pod".into(),
        device: "net_af_packet7,iface=veth7".into(),
        ..PortFields::default()
    }
}

#[test]
fn what_is_left_out_is_the_default() {
    let port = pod().read(Gateway::default()).unwrap();
    assert_eq!(port.role, Role::Pod);
    assert_eq!(port.device.to_string(), "net_af_packet7,iface=veth7");
    assert_eq!(port.device.name(), "net_af_packet7");
    assert_eq!(
        (port.mtu, port.rx_descriptors, port.rx_queues),
        (Port::DEFAULT_MTU, Port::DEFAULT_DESCRIPTORS, Queues::PerWorker)
    );
}

#[test]
fn it_is_the_port_that_a_file_would_have() {
    let text = "[[ports]]\nname = \"up\"\nrole = \"uplink\"\ndevice = \"0002:02:00.0\"\nrx_queues = 2\ntx_queues = 3\n\
                rx_descriptors = 128\ntx_descriptors = 256\nmtu = 9000\nmac = \"02:00:00:00:00:01\"\n\
                addresses = [\"192.0.2.1/24\", \"2001:db8::1/64\"]\npromiscuous = true\n";
    let fields = PortFields {
        name: "up".into(),
        role: "uplink".into(),
        device: "0002:02:00.0".into(),
        rx_queues: 2,
        tx_queues: 3,
        rx_descriptors: 128,
        tx_descriptors: 256,
        mtu: 9000,
        mac: "02:00:00:00:00:01".into(),
        addresses: vec!["192.0.2.1/24".into(), "2001:db8::1/64".into()],
        promiscuous: true,
    };
    let port = fields.read(Gateway::default()).unwrap();
    assert_eq!(parse(text, "f").unwrap().ports, std::slice::from_ref(&port));
    assert!(matches!(port.device, DeviceSpec::Pci(_)));
}

#[test]
fn all_mistakes_are_named_by_field() {
    let fields = PortFields {
        role: "pdo".into(),
        device: "eth0\n\"".into(),
        mtu: 100_000,
        rx_descriptors: 1,
        tx_queues: 65,
        mac: "zz".into(),
        addresses: vec![
            "10.0.0.1/24".into(),
            "169.254.1.1/24".into(),
            "10.0.0.1/24".into(),
        ],
        ..PortFields::default()
    };
    let mistakes = fields.read(Gateway::default()).unwrap_err();
    let mut lines: Vec<String> = mistakes
        .iter()
        .map(|it| format!("{}: {}", it.key, it.message))
        .collect();
    lines.sort();
    let starts = [
        "addresses[1]: 169.254.1.1 is the pods' gateway address",
        "addresses[2]: 10.0.0.1 is given twice",
        "device: \"eth0",
        "mac: \"zz\" is invalid",
        "mtu: 100000 is out of range, expected 1280 to 9600 bytes",
        "name: is missing, expected 1 to 15",
        "role: \"pdo\" is unknown, expected \"pod\", \"uplink\" or \"host\"",
        "rx_descriptors: 1 is out of range, expected 64 to 32768 descriptors",
        "tx_queues: 65 is out of range",
    ];
    assert_eq!(lines.len(), starts.len(), "{lines:#?}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
}
