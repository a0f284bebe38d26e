//! The sample files are right: they are accepted, and they show every key and its default.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use octoplane_config::{Config, CpuSet, DeviceSpec, PollMode, Role, parse_for};

const SAMPLE: &str = include_str!("../octoplaned.toml");
const OCTEON: &str = include_str!("../octoplaned-octeon.toml");

fn parsed(text: &str, cpus: &str) -> Config {
    parse_for(text, "sample", &cpus.parse::<CpuSet>().unwrap()).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A line that sets `key`, commented out as an example or not.
fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.strip_prefix('#').unwrap_or(line).split_once(" = ")?;
    key.bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        .then_some(key)
}

#[test]
fn documented_defaults_are_those_of_the_code() {
    let required = |line: &&str| {
        line.starts_with("[[") || key_of(line).is_some_and(|key| ["name", "role", "device"].contains(&key))
    };
    let bare: Vec<_> = SAMPLE.lines().filter(required).collect();
    for cpus in ["0", "0-1", "0-7"] {
        assert_eq!(parsed(SAMPLE, cpus), parsed(&bare.join("\n"), cpus));
    }
}

#[test]
fn every_example_is_accepted() {
    let examples: Vec<_> = SAMPLE
        .lines()
        .filter(|line| line.starts_with('#') && key_of(line).is_some())
        .collect();
    assert!(examples.len() >= 5, "{examples:?}");
    for example in examples {
        let mut text = SAMPLE.replace(example, example.trim_start_matches('#'));
        if example.starts_with("#cores") {
            text = text.replace("count = \"auto\"\n", "");
        }
        // Panics with the mistakes if there are any.
        parsed(&text, "0-3");
    }
}

#[test]
fn every_key_is_shown_in_its_section() {
    // The effective text of a configuration in which everything optional is present names every key there is.
    let port = "[[ports]]\nname = 'p'\nrole = 'uplink'\ndevice = 'net_null0'\nmac = '02:00:00:00:00:01'\n\
                addresses = ['10.0.0.1/24']\n[control]\nsocket_group = 'g'\nread_group = 'r'\n\
                tcp = { listen = '[::]:9443', management_interface = 'wire', may = ['read'] }\n\
                [cni]\nlisten = '127.0.0.1:8000'\nports = []\n\
                tls = { listen = '[::]:8443', certificate = '/c', key = '/k', client_ca = '/a' }\n";
    let keys = |text: &str| {
        let mut section = String::new();
        let mut keys = Vec::new();
        for line in text.lines() {
            if line.starts_with('[') {
                section = line.to_owned();
            } else if let Some(key) = key_of(line) {
                keys.push(format!("{section} {key}"));
            }
        }
        keys
    };
    let shown = keys(SAMPLE);
    for key in keys(&parsed(port, "0-1").to_effective_toml()) {
        assert!(shown.contains(&key), "{key} is not in the sample");
    }
}

#[test]
fn the_dpu_sample_leaves_the_management_function_alone() {
    let config = parsed(OCTEON, "0-23");
    assert!(config.memory.hugepages && config.eal.pci);
    assert_eq!(config.workers.poll, PollMode::Busy);
    assert_eq!(config.workers.control_cores, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert!(
        config
            .ports
            .iter()
            .filter(|port| port.role == Role::Pod)
            .all(|port| port.device.is_pci())
    );
    assert!(
        config
            .ports
            .iter()
            .all(|port| port.device != DeviceSpec::Pci("0002:01:00.1".into()))
    );
    assert_eq!(config.cni.listen, Some("192.168.1.1:8000".parse().unwrap()));
    assert!(config.cni.ports.is_empty() && !config.cni.pools.is_empty());
    assert!(OCTEON.contains("NEVER BEEN RUN ON HARDWARE"));
}
