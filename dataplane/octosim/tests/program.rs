//! The program: what it reads, what it says, how it ends.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use octosim::line::Answer;
use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};

const STATE: &str = r#"{
    "ports": [{"name": "a", "role": "pod"}, {"name": "b", "role": "pod"}, {"name": "host", "role": "host"}],
    "endpoints": [
        {"id": 1, "port": "a", "mac": "02:00:00:00:00:01", "identity": 1001, "addresses": ["10.0.0.1"]},
        {"id": 2, "port": "b", "mac": "02:00:00:00:00:02", "identity": 1002, "addresses": ["10.0.0.2"]}
    ]
}"#;

fn program(directory: &Path, arguments: &[&str], input: &str) -> Output {
    std::fs::write(directory.join("state.json"), STATE).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_octosim"))
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn answers(output: &Output) -> Vec<Answer> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A UDP packet from 10.0.0.1 to 10.0.0.2, four bytes of payload, without UDP checksum; the IP checksum was computed by hand.
const FRAME: &str = "02000000ff00 020000000001 0800 4500 0020 0000 0000 40 11 66cb 0a000001 0a000002 1388 1389 000c 0000 61626364";

fn errors(output: &Output) -> Vec<String> {
    let only = |answer| match answer {
        Answer::Error(text) => Some(text),
        _ => None,
    };
    answers(output).into_iter().filter_map(only).collect()
}

#[test]
fn mistakes_are_named_and_the_rest_is_done() {
    let directory = tempfile::tempdir().unwrap();
    let requests = format!(
        r#"
{{"inject": {{"port": "c", "hex": "00"}}}}
{{"inject": {{"port": "a", "hex": "0"}}}}
{{"advance": "soon"}}
{{"remove": {{"endpoints": [7]}}}}
{{"put": {{"routes": [{{"prefix": "10.0.0.0/8", "via": "192.0.2.1"}}]}}}}
{{"put": {{"endpoints": [{{"id": 3, "port": "c", "mac": "02:00:00:00:00:03", "identity": 1, "addresses": []}}]}}}}
# Not one of them changed anything, and what follows works.
{{"inject": {{"port": "a", "hex": "{FRAME}"}}}}
{{"expect": {{"sent": [{{"port": "b"}}], "drops": []}}}}
"#
    );
    let output = program(directory.path(), &["run", "-f", "state.json"], &requests);
    assert_eq!(output.status.code(), Some(1));
    let errors = errors(&output);
    let expected = [
        "there is no port \"c\", only a, b, host",
        "Odd number of digits",
        "\"soon\"",
        "endpoint 7",
        "routes[0]",
        "there is no port \"c\"",
    ];
    assert_eq!(errors.len(), expected.len(), "{errors:?}");
    for (error, expected) in errors.iter().zip(expected) {
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(answers(&output).last(), Some(&Answer::Expected(true)));
}

#[test]
fn what_was_not_expected_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let requests = format!(
        "{{\"inject\": {{\"port\": \"a\", \"hex\": \"{FRAME}\"}}}}\n{{\"expect\": {{\"sent\": [], \"drops\": [133]}}}}\n"
    );
    let output = program(directory.path(), &["run", "-f", "state.json"], &requests);
    assert_eq!(output.status.code(), Some(1));
    let answers = answers(&output);
    let Some(Answer::Unexpected(it)) = answers.last() else {
        panic!("{answers:?}");
    };
    assert_eq!(it.what, "1 frames on b, expected 0");
    assert_eq!(it.out.sent[0].port, "b");
}

#[test]
fn a_wrong_command_line_or_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let refuse = |arguments: &[&str], expected: &str| {
        let output = program(directory.path(), arguments, "");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    };
    refuse(
        &["pcap", "--in", "a=b", "--out", "o"],
        "--file or --config is needed",
    );
    refuse(&["run", "-f", "nowhere.yaml"], "nowhere.yaml");
    std::fs::write(
        directory.path().join("bad.yaml"),
        "ports:\n  - {name: a, role: pot}\n",
    )
    .unwrap();
    refuse(
        &["run", "-f", "bad.yaml"],
        "role: \"pot\", expected pod, uplink or host",
    );
    std::fs::write(directory.path().join("no.yaml"), "ports:\n  - {name: a}\n").unwrap();
    refuse(&["run", "-f", "no.yaml"], "ports[0] (a): role: is missing");
    refuse(
        &["pcap", "-f", "state.json", "--in", "a", "--out", "o"],
        "PORT=FILE",
    );
    refuse(
        &["pcap", "-f", "state.json", "--in", "a=state.json", "--out", "o"],
        "state.json",
    );
}

#[test]
fn captures_in_and_out() {
    let directory = tempfile::tempdir().unwrap();
    let frame = hex::decode(FRAME.replace(' ', "")).unwrap();
    let start = Duration::new(1_700_000_000, 0);
    let file = File::create(directory.path().join("in.pcap")).unwrap();
    let mut writer = PcapWriter::new(file).unwrap();
    // The second one broken: its IP checksum is wrong.
    let mut broken = frame.clone();
    broken[24] ^= 1;
    for (millis, frame) in [(0, &frame), (5, &broken), (70_000, &frame)] {
        let packet = PcapPacket::new(start + Duration::from_millis(millis), frame.len() as u32, frame);
        writer.write_packet(&packet).unwrap();
    }
    drop(writer);
    let arguments = ["pcap", "-f", "state.json", "--in", "a=in.pcap", "--out", "out"];
    let output = program(directory.path(), &arguments, "");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let answers = answers(&output);
    let [Answer::Out(out), Answer::Flows(flows)] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    assert_eq!(
        (out.drops[0].code, out.drops[0].packets, out.drops.len()),
        (153, 1, 1)
    );
    assert_eq!(flows.len(), 1);
    let mut reader = PcapReader::new(File::open(directory.path().join("out/b.pcap")).unwrap()).unwrap();
    let mut sent = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.unwrap();
        sent.push((packet.timestamp, packet.data.into_owned()));
    }
    // RFC 1812, 5.3.1: one less TTL; the checksum's upper byte is one more then (RFC 1624).
    let mut expected = frame;
    expected[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0xff, 1]);
    expected[22] = 0x3f;
    expected[24] = 0x67;
    let times = [start, start + Duration::from_secs(70)];
    assert_eq!(sent, times.map(|time| (time, expected.clone())));
    for other in ["a", "host"] {
        let file = File::open(directory.path().join(format!("out/{other}.pcap"))).unwrap();
        assert!(PcapReader::new(file).unwrap().next_packet().is_none());
    }
}

#[test]
fn neighbours_are_asked_for_and_learned() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("uplink.yaml"),
        r#"
ports:
  - {name: a, role: pod}
  - {name: up, role: uplink, addresses: [192.0.2.1/24]}
endpoints:
  - {id: 1, port: a, mac: "02:00:00:00:00:01", identity: 1001, addresses: [10.0.0.1]}
routes:
  - {prefix: 10.0.0.0/8, via: 192.0.2.9, port: up}
"#,
    )
    .unwrap();
    // The router answers: 192.0.2.9 is at 02:00:00:00:09:09.
    let reply =
        "02000000ff01 020000000909 0806 0001 0800 06 04 0002 020000000909 c0000209 02000000ff01 c0000201";
    let requests = format!(
        "{{\"inject\": {{\"port\": \"a\", \"hex\": \"{FRAME}\"}}}}
{{\"out\": {{}}}}
{{\"inject\": {{\"port\": \"up\", \"hex\": \"{reply}\"}}}}
{{\"out\": {{}}}}
"
    );
    let output = program(directory.path(), &["run", "-f", "uplink.yaml"], &requests);
    let answers = answers(&output);
    let [_, Answer::Out(asked), _, Answer::Out(sent)] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    assert_eq!(asked.waiting, 1);
    assert_eq!(asked.neighbours[0].address, "192.0.2.9");
    // RFC 826: a request for it, to everybody.
    let question = hex::encode(&asked.sent[0].hex.0);
    assert_eq!(asked.sent[0].port, "up");
    assert!(question.starts_with("ffffffffffff02000000ff010806"), "{question}");
    assert!(question.ends_with("c0000209"), "{question}");
    assert_eq!(sent.waiting, 0);
    assert!(sent.sent[0].hex.0.starts_with(&[2, 0, 0, 0, 9, 9]));
}

#[test]
fn no_dpdk() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree", "--locked", "-p", "octosim", "-e", "normal", "--prefix", "none",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(tree.contains("octoplane-engine"), "{tree}");
    assert!(!tree.contains("dpdk"), "{tree}");
}
