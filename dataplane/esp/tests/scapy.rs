//! Another implementation as the peer: scapy's IPsec layer, over Python's `cryptography`, which is OpenSSL. The tests are in
//! `tests/scapy/`, in Python; here is what they drive: a server on a Unix socket, one node for each connection.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests"
)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use common::hex;
use common::lab::{Node, config};
use octoplane_esp::db::{Database, Options};
use octoplane_esp::sa::{Direction, NatTraversal, SaId};
use octoplane_esp::store::{MemoryStore, RecordKey, SequenceStore};
use octoplane_esp::{Aead, AesKey, Algorithm, Cause, Hmac, IcvLen, KeyMaterial, Mode};
use serde_json::{Value, json};

/// A Python that has scapy, cryptography and pytest.
fn python() -> Option<&'static str> {
    ["/usr/bin/python3", "python3"].into_iter().find(|python| {
        Command::new(python)
            .args(["-c", "import pytest, cryptography, scapy.layers.ipsec"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}

#[test]
fn scapy_agrees() {
    let Some(python) = python() else {
        eprintln!(
            "SKIPPED: no Python with scapy: apt-get install python3-scapy python3-cryptography python3-pytest"
        );
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("esp");
    let listener = UnixListener::bind(&path).unwrap();
    // Ends with the process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || serve(&stream.unwrap()));
        }
    });
    let output = Command::new(python)
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scapy"))
        .env("ESP_PEER_SOCKET", &path)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains(" passed") && !text.contains("skipped"), "{text}");
}

/// Answers requests, a line of JSON each, until the other end hangs up.
fn serve(stream: &UnixStream) {
    let mut node = Node::new();
    for line in BufReader::new(stream).lines() {
        let request: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let answer = answer(&mut node, &request);
        let mut stream = stream;
        writeln!(stream, "{answer}").unwrap();
    }
}

fn answer(node: &mut Node, request: &Value) -> Value {
    let packets = || -> Vec<Vec<u8>> {
        let packets = request["packets"].as_array().unwrap();
        packets
            .iter()
            .map(|packet| hex(packet.as_str().unwrap()))
            .collect()
    };
    match request["op"].as_str().unwrap() {
        "add" => {
            let id = add(node, request);
            json!([id.index, id.generation])
        }
        "encrypt" => {
            let number = |at: usize| request["sa"][at].as_u64().unwrap() as u32;
            let sa = SaId {
                index: number(0),
                generation: number(1),
            };
            let packets = packets().into_iter().map(|packet| (packet, sa)).collect();
            results(node.encrypt_all(packets))
        }
        "decrypt" => results(node.decrypt_all(packets())),
        "counters" => {
            let (inbound, outbound) = (node.inbound.counters(), node.outbound.counters());
            let count = |cause: &Cause| inbound.get(*cause) + outbound.get(*cause);
            let counts = Cause::ALL
                .iter()
                .map(|cause| (cause.label().to_owned(), count(cause).into()));
            Value::Object(counts.collect())
        }
        op => panic!("{op}"),
    }
}

fn results(results: Vec<Result<Vec<u8>, Cause>>) -> Value {
    let digits = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let results = results.into_iter().map(|result| match result {
        Ok(packet) => json!({ "packet": digits(packet) }),
        Err(cause) => json!({ "cause": cause.label() }),
    });
    results.collect()
}

fn add(node: &mut Node, request: &Value) -> SaId {
    let text = |field: &str| request[field].as_str().unwrap();
    let number = |field: &str| request[field].as_u64().unwrap();
    let flag = |field: &str| request[field].as_bool().unwrap();
    let key = hex(text("key"));
    let icv = number("icv") as usize;
    let (algorithm, keys) = match text("algorithm") {
        "gcm" => (
            Algorithm::Aead(Aead::AesGcm(
                AesKey::from_len(key.len() - 4).unwrap(),
                IcvLen::from_len(icv).unwrap(),
            )),
            KeyMaterial::aead(&key),
        ),
        "chacha" => (Algorithm::Aead(Aead::ChaCha20Poly1305), KeyMaterial::aead(&key)),
        "cbc" => {
            let auth = hex(text("auth"));
            let hmac = match (auth.len(), icv) {
                (32, 12) => Hmac::Sha256Icv12,
                (32, 16) => Hmac::Sha256,
                (48, 24) => Hmac::Sha384,
                (64, 32) => Hmac::Sha512,
                other => panic!("{other:?}"),
            };
            let cipher = AesKey::from_len(key.len()).unwrap();
            (
                Algorithm::CbcHmac(cipher, hmac),
                KeyMaterial::cbc_hmac(&key, &auth),
            )
        }
        other => panic!("{other}"),
    };
    let direction = if flag("outbound") {
        Direction::Outbound
    } else {
        Direction::Inbound
    };
    let mut config = config(direction, algorithm);
    config.spi = number("spi") as u32;
    config.source = Some(text("source").parse().unwrap());
    config.destination = text("destination").parse().unwrap();
    config.keys = keys;
    config.esn = flag("esn");
    config.replay_window = number("window") as u32;
    if flag("transport") {
        config.mode = Mode::Transport;
    }
    config.nat_traversal = flag("nat").then_some(NatTraversal {
        source_port: 4500,
        destination_port: 4500,
    });
    // Where numbers go on, as after a restart.
    let resume = number("resume");
    if resume > 0 {
        let mut store = MemoryStore::default();
        let record = RecordKey {
            fingerprint: config.keys.fingerprint(),
            kind: direction.into(),
        };
        store.put(&[(record, resume)]).unwrap();
        node.db = Database::new(Box::new(store), Options::default());
        node.reader = node.db.reader();
    }
    node.add(config)
}
