//! A node with two pods, an uplink and a kernel.

use octoplane_model::config::{Mac as MacText, Port, Role, State};
use octoplane_model::{Choices, Model, Outcome};
use serde_json::{Value, json};

use crate::bytes::{Mac, Seen, dissect, ethernet};

/// Our address on each port.
pub(crate) const OURS: Mac = [2, 0, 0, 0, 0xff, 0];
pub(crate) const EP1: Mac = [2, 0, 0, 0, 0, 1];
pub(crate) const EP2: Mac = [2, 0, 0, 0, 0, 2];
pub(crate) const ROUTER: Mac = [2, 0, 0, 0, 1, 0xfe];
pub(crate) const KERNEL: Mac = [2, 0, 0, 0, 2, 1];

pub(crate) const SECOND: u64 = 1_000_000_000;

pub(crate) fn ports() -> Vec<Port> {
    let port = |name: &str, role, addresses: &[&str]| Port {
        name: name.into(),
        role,
        mac: MacText(OURS),
        mtu: 1500,
        admin_up: true,
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
    };
    vec![
        port("pod1", Role::Pod, &[]),
        port("pod2", Role::Pod, &[]),
        port("uplink", Role::Uplink, &["192.0.2.1/24", "2001:db8::1/64"]),
        port("host", Role::Host, &[]),
    ]
}

/// Endpoint 1 (10.0.0.1, fd00::1; identity 1001) and 2, default routes, a node at 192.0.2.2 and its pods 10.0.2.0/24.
pub(crate) fn base() -> Value {
    json!({
        "node": {
            "addresses": ["192.0.2.1", "2001:db8::1"],
            "router4": "10.0.0.254", "router6": "fd00::fe",
        },
        "endpoints": [
            {"id": 1, "mac": "02:00:00:00:00:01", "addresses": ["10.0.0.1", "fd00::1"], "port": "pod1", "identity": 1001},
            {"id": 2, "mac": "02:00:00:00:00:02", "addresses": ["10.0.0.2", "fd00::2"], "port": "pod2", "identity": 1002},
        ],
        "routes": [
            {"prefix": "0.0.0.0/0", "target": {"via": {"port": "uplink", "gateway": "192.0.2.254"}}},
            {"prefix": "::/0", "target": {"via": {"port": "uplink", "gateway": "2001:db8::fe"}}},
            {"prefix": "10.9.0.0/16", "target": "blackhole"},
        ],
        "neighbours": [
            {"port": "uplink", "address": "192.0.2.254", "mac": "02:00:00:00:01:fe"},
            {"port": "uplink", "address": "192.0.2.2", "mac": "02:00:00:00:01:fe"},
            {"port": "uplink", "address": "2001:db8::fe", "mac": "02:00:00:00:01:fe"},
        ],
        "ipcache": [
            {"prefix": "192.0.2.2/32", "identity": 6},
            {"prefix": "10.0.2.0/24", "identity": 2001, "tunnel_endpoint": "192.0.2.2"},
        ],
    })
}

pub(crate) struct Lab {
    pub(crate) model: Model,
}

impl Lab {
    /// The base configuration with objects of the top level replaced, and fields of the node.
    pub(crate) fn new(changes: Value) -> Self {
        let mut model = Model::new(ports());
        model.apply(state(changes));
        model.set_time(SECOND);
        Self { model }
    }

    /// Sends a packet into a port from whoever is behind it.
    pub(crate) fn send(&mut self, port: &str, packet: &[u8]) -> Outcome {
        let frame = ethernet(OURS, behind(port), packet);
        let outcome = self.model.receive(port, &frame);
        check(&outcome);
        outcome
    }

    pub(crate) fn send_with(&mut self, port: &str, packet: &[u8], choices: &mut dyn Choices) -> Outcome {
        let frame = ethernet(OURS, behind(port), packet);
        let outcome = self.model.receive_with(port, &frame, choices);
        check(&outcome);
        outcome
    }

    /// Sends a packet of which exactly one comes out.
    #[track_caller]
    pub(crate) fn through(&mut self, port: &str, packet: &[u8]) -> (String, Seen) {
        only(&self.send(port, packet))
    }

    #[track_caller]
    pub(crate) fn dropped(&mut self, port: &str, packet: &[u8]) -> u16 {
        let outcome = self.send(port, packet);
        assert!(outcome.sent.is_empty(), "{outcome:?}");
        assert_eq!(outcome.drops.len(), 1, "{outcome:?}");
        outcome.drops[0].0
    }

    pub(crate) fn wait(&mut self, seconds: u64) {
        let now = self.now() + seconds * SECOND;
        self.model.set_time(now);
    }

    fn now(&self) -> u64 {
        self.model.now()
    }
}

pub(crate) fn state(changes: Value) -> State {
    let mut all = base();
    for (key, value) in changes.as_object().unwrap() {
        if key == "node" {
            for (key, value) in value.as_object().unwrap() {
                all["node"][key] = value.clone();
            }
        } else {
            all[key] = value.clone();
        }
    }
    serde_json::from_value(all).unwrap()
}

pub(crate) fn behind(port: &str) -> Mac {
    match port {
        "pod1" => EP1,
        "pod2" => EP2,
        "uplink" => ROUTER,
        _ => KERNEL,
    }
}

#[track_caller]
pub(crate) fn only(outcome: &Outcome) -> (String, Seen) {
    assert!(outcome.drops.is_empty(), "{outcome:?}");
    assert_eq!(outcome.sent.len(), 1, "{outcome:?}");
    let (port, frame) = &outcome.sent[0];
    (port.clone(), dissect(&frame[14..]))
}

/// Everything sent is well formed.
fn check(outcome: &Outcome) {
    for (_, frame) in &outcome.sent {
        if matches!(frame[12..14], [8, 0] | [0x86, 0xdd]) {
            dissect(&frame[14..]);
        }
    }
}

/// Source, source port, destination, destination port.
pub(crate) fn four(seen: &Seen) -> (&str, u16, &str, u16) {
    (&seen.src, seen.sport, &seen.dst, seen.dport)
}
