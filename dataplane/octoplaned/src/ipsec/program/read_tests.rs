use super::*;

fn good() -> v1::IpsecSaConfig {
    v1::IpsecSaConfig {
        direction: "inbound".into(),
        spi: 0x1001,
        destination: "192.0.2.1".into(),
        algorithm: "chacha20-poly1305".into(),
        key: vec![7; 36],
        reqid: 1,
        ..Default::default()
    }
}

fn policy_message() -> v1::IpsecSelectorPolicy {
    v1::IpsecSelectorPolicy {
        id: 7,
        direction: "outbound".into(),
        destination: "10.9.0.0/16".into(),
        action: "discard".into(),
        ..Default::default()
    }
}

fn mistake<T: fmt::Debug>(read: Result<T, IpsecRefusal>) -> String {
    read.unwrap_err().to_string()
}

#[test]
fn every_algorithm_is_known_by_its_name_and_takes_keys_of_its_length() {
    let names: std::collections::BTreeSet<_> = algorithms().map(|it| it.to_string()).collect();
    assert_eq!(names.len(), algorithms().count());
    for algorithm in algorithms() {
        let mut message = good();
        message.algorithm = algorithm.to_string();
        message.key = vec![1; algorithm.cipher_key_len() + algorithm.salt_len()];
        message.auth_key = vec![2; algorithm.auth_key_len()];
        let config = sa(&message, "sas[0]").unwrap();
        assert_eq!(config.algorithm, algorithm);
        assert_eq!(config.keys.cipher.len(), algorithm.cipher_key_len());
        message.key.push(1);
        assert!(
            mistake(sa(&message, "sas[0]")).starts_with("sas[0].key: "),
            "{algorithm}"
        );
        message.key.pop();
        message.auth_key.push(1);
        assert!(mistake(sa(&message, "sas[0]")).starts_with("sas[0].auth_key: "));
    }
}

#[test]
fn what_is_not_said_has_its_default() {
    let config = sa(&good(), "sas[0]").unwrap();
    assert_eq!(
        (config.source, config.mode, config.replay_window),
        (None, Mode::Tunnel, 1024)
    );
    assert_eq!(config.outer, OuterHeader::default());
    assert_eq!(config.lifetime, Lifetime::default());
    let policy = policy(&policy_message(), "policies[0]").unwrap();
    assert_eq!(policy.source.to_string(), "0.0.0.0/0");
    assert_eq!(policy.source_ports, PortRange::ANY);
    // Outbound, nobody but this node encrypts.
    let mut message = good();
    message.direction = "outbound".into();
    assert!(mistake(sa(&message, "sas[3]")).starts_with("sas[3].source: "));
}

#[test]
fn limits_are_named() {
    let mut message = good();
    message.replay_window = Some(4096);
    assert_eq!(sa(&message, "sas[0]").unwrap().replay_window, 4096);
    message.inner = vec![v1::IpsecInnerSelector::default(); 65];
    assert_eq!(
        mistake(sa(&message, "sas[0]")),
        "sas[0].inner: 65 selectors, expected at most 64"
    );
    let mut message = policy_message();
    message.protocol = Some(6);
    message.destination_ports = Some(v1::IpsecPorts {
        first: 80,
        last: 65536,
    });
    assert_eq!(
        mistake(policy(&message, "policies[0]")),
        "policies[0].destination_ports.last: 65536, expected 0 to 65535"
    );
    message.destination_ports = None;
    message.action = "x".repeat(1000);
    let said = mistake(policy(&message, "policies[0]"));
    assert!(said.len() < 200, "{said}");
}
