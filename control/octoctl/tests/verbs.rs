//! Every verb, as a user types it, against a control socket with the real tables behind it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "../../server/tests/common/mod.rs"]
mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use common::Lab;
use serde_json::{Value, json};

/// A hundred thousand take a while without optimisation.
const MANY: u32 = if cfg!(debug_assertions) { 20_000 } else { 100_000 };

struct Output {
    code: i32,
    out: String,
    err: String,
}

fn command(lab: &Lab, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_octoctl"));
    command
        .env("OCTOPLANE_SOCKET", &lab.socket)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs octoctl with `input` on its standard input.
fn with_input(lab: &Lab, arguments: &[&str], input: &str) -> Output {
    let run = || {
        let mut child = command(lab, arguments).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn({
            let input = input.to_owned();
            // It need not read what it does not want.
            move || drop(stdin.write_all(input.as_bytes()))
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    };
    let output = tokio::task::block_in_place(run);
    Output {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn run(lab: &Lab, arguments: &[&str]) -> Output {
    with_input(lab, arguments, "")
}

/// What octoctl prints when it succeeds.
fn ok(lab: &Lab, arguments: &[&str]) -> String {
    let output = run(lab, arguments);
    assert_eq!(output.code, 0, "{arguments:?}: {}", output.err);
    output.out
}

fn json_of(lab: &Lab, arguments: &[&str]) -> Value {
    let text = ok(lab, &[&["-o", "json"], arguments].concat());
    serde_json::from_str(&text).unwrap()
}

/// What octoctl says when it fails.
fn fails(lab: &Lab, code: i32, arguments: &[&str]) -> String {
    let output = run(lab, arguments);
    assert_eq!(output.code, code, "{arguments:?}: {}{}", output.out, output.err);
    assert_eq!(output.out, "");
    output.err
}

const ADD: [&str; 13] = [
    "endpoint",
    "add",
    "7",
    "--port",
    "pod1",
    "--mac",
    "02:00:00:00:00:07",
    "--identity",
    "1007",
    "--address",
    "10.0.0.7",
    "--address",
    "fd00::7",
];

#[tokio::test(flavor = "multi_thread")]
async fn endpoints() {
    let lab = Lab::start().await;
    let none = run(&lab, &["endpoint", "list"]);
    assert_eq!(
        (none.code, none.out.as_str(), none.err.as_str()),
        (0, "", "none\n")
    );
    assert_eq!(json_of(&lab, &["endpoint", "list"]), json!([]));
    let out = ok(&lab, &[&ADD[..], &["--name", "default/seven"]].concat());
    assert_eq!(
        out,
        "+ endpoint 7 default/seven port pod1 02:00:00:00:00:07 identity 1007 10.0.0.7 fd00::7\n\
         1 object changed (1 new, 0 different, 0 gone), revision 1\n"
    );
    let out = ok(&lab, &ADD);
    assert!(out.starts_with("~ endpoint 7 "), "{out}");
    assert_eq!(ok(&lab, &ADD), "no changes, revision 2\n");
    let expected = json!({
        "id": 7, "port": "pod1", "mac": "02:00:00:00:00:07", "identity": 1007, "addresses": ["10.0.0.7", "fd00::7"],
    });
    assert_eq!(json_of(&lab, &["endpoint", "get", "7"]), expected);
    assert_eq!(json_of(&lab, &["endpoint", "list"]), json!([expected]));
    let table = ok(&lab, &["endpoint", "list"]);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0].find("MAC"), lines[1].find("02:00"));
    assert_eq!(lines[0].find("ADDRESSES"), lines[1].find("10.0.0.7"));
    let yaml = ok(&lab, &["-o", "yaml", "endpoint", "get", "7"]);
    assert!(yaml.contains("identity: 1007"), "{yaml}");
    assert!(ok(&lab, &["endpoint", "del", "7"]).starts_with("- endpoint 7 "));
    assert_eq!(
        fails(&lab, 1, &["endpoint", "get", "7"]),
        "octoctl: endpoint 7: not found\n"
    );
    assert!(fails(&lab, 1, &["endpoint", "del", "7", "8"]).contains("changes[0]: endpoint 7: not found"));
    let mut bad = ADD;
    bad[6] = "zz";
    assert!(fails(&lab, 1, &bad).contains("endpoint 7: mac: \"zz\" is not a MAC address"));
    bad[2] = "seven";
    assert!(fails(&lab, 2, &bad).contains("invalid value 'seven'"));
}

#[tokio::test(flavor = "multi_thread")]
async fn routes() {
    let lab = Lab::start().await;
    let add = |arguments: &[&str]| ok(&lab, &[&["route", "add"], arguments].concat());
    assert!(
        add(&[
            "0.0.0.0/0",
            "--via",
            "192.0.2.1",
            "--port",
            "uplink0",
            "--mtu",
            "1450"
        ])
        .starts_with("+ route 0.0.0.0/0 to 192.0.2.1 port uplink0 mtu 1450\n")
    );
    assert!(
        add(&["198.51.100.0/24", "--port", "uplink0"])
            .starts_with("+ route 198.51.100.0/24 to link port uplink0\n")
    );
    assert!(add(&["203.0.113.0/24", "--host"]).starts_with("+ route 203.0.113.0/24 to host\n"));
    assert!(add(&["2001:db8:9::/48", "--blackhole"]).starts_with("+ route 2001:db8:9::/48 to blackhole\n"));
    assert_eq!(
        json_of(&lab, &["route", "list"]),
        json!([
            {"prefix": "0.0.0.0/0", "via": "192.0.2.1", "port": "uplink0", "mtu": 1450},
            {"prefix": "198.51.100.0/24", "port": "uplink0"},
            {"prefix": "203.0.113.0/24", "target": "host"},
            {"prefix": "2001:db8:9::/48", "target": "blackhole"},
        ])
    );
    let table = ok(&lab, &["route", "list"]);
    assert_eq!(table.lines().count(), 5);
    assert_eq!(
        table.lines().next().unwrap(),
        "PREFIX           TO         PORT     MTU"
    );
    assert!(ok(&lab, &["route", "del", "0.0.0.0/0", "203.0.113.0/24"]).contains("2 gone"));
    assert!(fails(&lab, 1, &["route", "del", "0.0.0.0/0"]).contains("route 0.0.0.0/0: not found"));
    assert!(fails(&lab, 1, &["route", "add", "10.0.0.1/8", "--host"]).contains("the prefix is 10.0.0.0/8"));
    for usage in [
        &["route", "add", "10.0.0.0/8"][..],
        &["route", "add", "10.0.0.0/8", "--via", "192.0.2.1"],
        &["route", "add", "10.0.0.0/8", "--host", "--blackhole"],
        &["route", "del"],
    ] {
        fails(&lab, 2, usage);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_and_ports() {
    let lab = Lab::start().await;
    let add = [
        "neigh",
        "add",
        "192.0.2.1",
        "--port",
        "uplink0",
        "--mac",
        "02:00:00:00:00:91",
    ];
    assert!(ok(&lab, &add).starts_with("+ neighbour 192.0.2.1 port uplink0 02:00:00:00:00:91\n"));
    assert_eq!(
        json_of(&lab, &["neigh", "list"]),
        json!([{"port": "uplink0", "address": "192.0.2.1", "mac": "02:00:00:00:00:91", "learned": false}])
    );
    assert!(ok(&lab, &["neigh", "list"]).contains("static"));
    let del = ["neigh", "del", "192.0.2.1", "--port", "uplink0"];
    assert!(ok(&lab, &del).starts_with("- neighbour 192.0.2.1 "));
    assert!(fails(&lab, 1, &del).contains("neighbour 192.0.2.1 on port uplink0: not found"));

    let out = ok(&lab, &["port", "set", "pod1", "--mtu", "1400", "--admin", "down"]);
    assert!(out.starts_with("~ port pod1 mtu 1400 admin down\n"), "{out}");
    let ports = json_of(&lab, &["port", "list"]);
    assert_eq!(
        ports[0],
        json!({"name": "pod1", "role": "pod", "mac": "02:00:00:00:01:00", "mtu": 1400, "admin": "down"})
    );
    assert_eq!(ports[2]["addresses"], json!(["192.0.2.2/24", "2001:db8::2/64"]));
    assert_eq!(ok(&lab, &["port", "list"]).lines().count(), 5);
    assert!(fails(&lab, 1, &["port", "set", "pod1", "--mtu", "9000"]).contains("expected 1280 to 1500"));
    assert!(fails(&lab, 1, &["port", "set", "pod9", "--mtu", "1400"]).contains("no port \"pod9\""));
    fails(&lab, 2, &["port", "set", "pod1"]);
    fails(&lab, 2, &["port", "set", "pod1", "--admin", "sideways"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_come_and_go() {
    let lab = Lab::start().await;
    let add = [
        "port",
        "add",
        "pod3",
        "--role",
        "pod",
        "--device",
        "net_af_packet7,iface=veth7",
    ];
    let with = |more: &[&'static str]| [&add[..], more].concat();
    assert_eq!(ok(&lab, &add), "+ port pod3 mtu 1500, revision 1\n");
    assert_eq!(ok(&lab, &add), "port pod3 is there already, revision 1\n");
    let again = json_of(&lab, &add);
    assert_eq!(
        (&again["existed"], &again["port"]["name"], &again["port"]["role"]),
        (&json!(true), &json!("pod3"), &json!("pod"))
    );
    assert_eq!(ok(&lab, &["port", "list"]).lines().count(), 6);
    let error = fails(&lab, 1, &with(&["--mtu", "9000"]));
    assert_eq!(
        error,
        "octoctl: port pod3: name: there is a port of this name already\n"
    );
    let error = fails(
        &lab,
        1,
        &with(&["--mtu", "100000", "--mac", "zz", "--address", "10.0.0.1/24"]),
    );
    for text in [
        "mtu: 100000 is out of range, expected 1280 to 9600",
        "mac: \"zz\"",
        "addresses: stands on a pod port",
    ] {
        assert!(error.contains(text), "{error}");
    }
    // A port that came this way is like the others, also in a state file; one that the file does not name stays.
    ok(&lab, &["port", "set", "pod3", "--mtu", "1400"]);
    let exported = ok(&lab, &["export"]);
    assert!(exported.contains("pod3"));
    assert!(
        with_input(&lab, &["apply", "-f", "-"], &exported)
            .out
            .contains("no changes")
    );
    let endpoint = with_input(
        &lab,
        &["apply", "-f", "-"],
        "endpoints:\n- {id: 9, name: default/nine, port: pod3, mac: '02:00:00:00:00:09', identity: 9, addresses: [10.0.0.9]}",
    );
    assert_eq!(endpoint.code, 0, "{}", endpoint.err);
    let del = ["port", "del", "pod3"];
    assert_eq!(
        fails(&lab, 1, &del),
        "octoctl: port pod3 is in use by endpoint 9 (default/nine): remove these first\n"
    );
    assert_eq!(with_input(&lab, &["apply", "-f", "-"], "{}").code, 0);
    assert_eq!(
        ok(&lab, &del),
        format!("- port pod3, revision {}\n", lab.revision())
    );
    assert_eq!(fails(&lab, 1, &del), "octoctl: there is no port \"pod3\"\n");
    assert!(
        fails(
            &lab,
            1,
            &["port", "add", "up", "--role", "uplink", "--device", "net_nosuch0"]
        )
        .contains("port up: device: no driver takes it")
    );
    for usage in [
        &["port", "add", "pod4", "--role", "pod"][..],
        &["port", "add", "pod4", "--device", "net_null0"],
        &["port", "add", "pod4", "--device", "net_null0", "--role", "pdo"],
        &["port", "del"],
    ] {
        fails(&lab, 2, usage);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics() {
    let lab = Lab::start().await;
    let status = ok(&lab, &["status"]);
    for text in [
        "1.2.3",
        "DPDK 99.11",
        "61.5 s",
        "7 of 1024",
        "75.0 %",
        "15.0",
        "endpoints",
    ] {
        assert!(status.contains(text), "{text}: {status}");
    }
    let status = json_of(&lab, &["status"]);
    assert_eq!(status["workers"][0]["burst_sizes"][4], 2);
    assert_eq!(status["tables"][0]["capacity"], 131_072);
    let stats = ok(&lab, &["port", "stats"]);
    assert_eq!(stats.lines().count(), 5);
    let stats = ok(&lab, &["port", "stats", "--xstats", "uplink0"]);
    assert!(stats.contains("net_fake") && stats.contains("rx_q0_packets") && !stats.contains("pod1"));
    let stats = json_of(&lab, &["port", "stats", "uplink0"]);
    assert_eq!(
        (&stats[0]["rx_packets"], &stats[0]["xstats"]),
        (&json!(12), &json!({}))
    );
    assert!(fails(&lab, 1, &["port", "stats", "pod9"]).contains("no port \"pod9\""));
    assert!(ok(&lab, &["drops"]).contains("Invalid source mac"));
    assert_eq!(json_of(&lab, &["drops"])[0]["bytes"], 256);
    assert!(ok(&lab, &["stages"]).contains("parse"));
    assert_eq!(json_of(&lab, &["stages"])[0]["timed_cycles"], 150);
}

const STATE: &str = "\
ports:
  - {name: pod2, mtu: 1400, admin: up}
endpoints:
  - {id: 1, name: default/web, port: pod1, mac: '02:00:00:00:00:01', identity: 1001, addresses: [10.0.0.2, 'fd00::2']}
  - id: 2
    name: default/db
    port: pod2
    mac: 02:00:00:00:00:02
    identity: 1002
    addresses: [10.0.0.3]
routes:
  - {prefix: 0.0.0.0/0, via: 192.0.2.1, port: uplink0, mtu: 1450}
  - {prefix: 198.51.100.0/24, port: uplink0}
  - {prefix: 203.0.113.0/24, target: host}
neighbours:
  - {port: uplink0, address: 192.0.2.9, mac: '02:00:00:00:00:88', learned: true}
  - {port: uplink0, address: 192.0.2.1, mac: '02:00:00:00:00:91'}
";

#[tokio::test(flavor = "multi_thread")]
async fn resync_is_about_the_kinds_that_are_named() {
    let lab = Lab::start().await;
    let resync = |more: &[&str], text: &str| with_input(&lab, &[&["resync", "-f", "-"], more].concat(), text);
    let first = resync(&[], STATE);
    assert_eq!(first.code, 0, "{}", first.err);
    assert_eq!(resync(&[], STATE).out, "no changes, revision 1\n");
    let routes = lab.store.state().route_count();
    assert!(routes > 0);
    // A dry run first.
    let out = resync(&["--kind", "endpoint", "--dry-run"], "{}").out;
    assert!(out.contains("would change"), "{out}");
    assert!(lab.store.state().endpoint_count() > 0);
    resync(&["--kind", "endpoint"], "{}");
    let state = lab.store.state();
    assert_eq!((state.endpoint_count(), state.route_count()), (0, routes));
    // What is not among the kinds is a mistake.
    let refused = resync(&["--kind", "endpoint"], STATE);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("KIND_ROUTE"), "{}", refused.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_is_declarative() {
    let lab = Lab::start().await;
    let apply = |text: &str| with_input(&lab, &["apply", "-f", "-"], text);
    let dry = with_input(&lab, &["apply", "--dry-run", "-f", "-"], STATE);
    assert_eq!(dry.code, 0, "{}", dry.err);
    assert!(
        dry.out
            .ends_with("7 objects would change (6 new, 1 different, 0 gone), revision 1\n"),
        "{}",
        dry.out
    );
    assert_eq!(lab.revision(), 0);
    let done = apply(STATE);
    assert_eq!(done.out.lines().count(), 8);
    assert!(done.out.contains("~ port pod2 mtu 1400"));
    assert!(
        done.out
            .ends_with("7 objects changed (6 new, 1 different, 0 gone), revision 1\n")
    );
    assert_eq!(apply(STATE).out, "no changes, revision 1\n");

    let next = STATE
        .replace("identity: 1002", "identity: 2002")
        .replace("  - {prefix: 203.0.113.0/24, target: host}\n", "");
    assert_eq!(
        apply(&next).out,
        "~ endpoint 2 default/db port pod2 02:00:00:00:00:02 identity 2002 10.0.0.3\n\
         - route 203.0.113.0/24 to host\n\
         2 objects changed (0 new, 1 different, 1 gone), revision 2\n"
    );
    // What is exported is what is there, in both languages.
    for format in ["yaml", "json", "table"] {
        let exported = ok(&lab, &["-o", format, "export"]);
        assert!(!exported.contains("learned: true"));
        assert_eq!(apply(&exported).out, "no changes, revision 2\n", "{exported}");
    }
    let file = lab.directory.path().join("state.json");
    std::fs::write(&file, "{}").unwrap();
    let out = json_of(&lab, &["apply", "-f", file.to_str().unwrap()]);
    assert_eq!((&out["removed"], &out["revision"]), (&json!(5), &json!(3)));
    assert_eq!(out["changes"][0]["existed"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_entry_is_named_with_its_line() {
    let lab = Lab::start().await;
    let file = lab.directory.path().join("state.yaml");
    let name = file.to_str().unwrap();
    let apply = |text: &str| {
        std::fs::write(&file, text).unwrap();
        run(&lab, &["apply", "-f", name])
    };
    let cases = [
        // Refused by the data plane, 1.
        (
            ("mac: 02:00:00:00:00:02", "mac: zz"),
            1,
            ":5: endpoints[1]: endpoint 2 (default/db): mac: \"zz\" is not a MAC address",
        ),
        (
            ("10.0.0.3", "10.0.0.2"),
            1,
            ":5: endpoints[1]: endpoint 2: address 10.0.0.2 belongs to endpoint 1",
        ),
        (
            ("mtu: 1400", "mtu: 1000"),
            1,
            ":2: ports[0]: port pod2: mtu 1000 is out of range",
        ),
        // Learned neighbours are not sent, and counted all the same.
        (
            ("02:00:00:00:00:91", "91"),
            1,
            ":17: neighbours[1]: neighbour 192.0.2.1: mac: \"91\"",
        ),
        // Mistakes of the file, 2.
        (
            ("target: host", "target: host, port: uplink0"),
            2,
            ":14: routes[2]: route 203.0.113.0/24: expected either port",
        ),
        (
            ("admin: up", "admin: upp"),
            2,
            ":2: ports[0]: port pod2: admin: \"upp\"",
        ),
        (("identity: 1002", "identty: 1002"), 2, "identty"),
        (("id: 2", "id: two"), 2, "line 5"),
        (("routes:", "routs:"), 2, "routs"),
    ];
    for ((from, to), code, text) in cases {
        let text_of = STATE.replacen(from, to, 1);
        assert_ne!(text_of, STATE);
        let output = apply(&text_of);
        assert_eq!(output.code, code, "{text}: {}", output.err);
        assert!(output.err.contains(text), "{text}: {}", output.err);
        assert!(output.err.contains(name), "{}", output.err);
        assert_eq!((output.out.as_str(), lab.revision()), ("", 0));
    }
    assert!(fails(&lab, 2, &["apply", "-f", "/nonexistent"]).contains("/nonexistent: No such file"));
    for nothing in ["", "\n", "# endpoints:\n", "---\n", "null\n", "~"] {
        let output = apply(nothing);
        assert_eq!((output.code, output.out.as_str()), (2, ""), "{nothing:?}");
        assert!(output.err.contains("the file is empty"), "{}", output.err);
        let output = with_input(&lab, &["node", "add", "-f", "-"], nothing);
        assert_eq!((output.code, output.out.as_str()), (2, ""), "{nothing:?}");
        assert!(
            output.err.contains("standard input: the file is empty"),
            "{}",
            output.err
        );
        assert_eq!(lab.revision(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_a_failure_and_a_reader_that_has_seen_enough_is_none() {
    let lab = Lab::start().await;
    let export = |out: Stdio| {
        let mut command = command(&lab, &["export"]);
        let child = tokio::task::block_in_place(|| command.stdout(out).spawn().unwrap().wait_with_output());
        let output = child.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let (code, text) = export(full.into());
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("standard output: No space left on device"),
        "{text}"
    );
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(export(writer.into()), (Some(0), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_that_is_none_is_a_mistake_of_the_caller() {
    let lab = Lab::start().await;
    let add = "ipsec sa add outbound --spi 256 --src 192.0.2.1 --dst 192.0.2.2 --reqid 1 --algorithm aes-128-gcm-16 --key-file";
    let add: Vec<&str> = add.split(' ').collect();
    let with = |file| fails(&lab, 2, &[&add[..], &[file]].concat());
    assert!(with("/nonexistent").contains("--key-file: /nonexistent: No such file"));
    let long = lab.directory.path().join("long");
    std::fs::write(&long, "00".repeat(513)).unwrap();
    assert!(with(long.to_str().unwrap()).contains("expected at most 1024 bytes"));
    std::fs::write(&long, "no key").unwrap();
    assert!(with(long.to_str().unwrap()).contains("expected one or two keys in hexadecimal"));
}

/// `count` endpoints as a state file with one entry a line.
fn large(count: u32) -> String {
    let mut text = String::from("endpoints:\n");
    for id in 1..=count {
        let octoplane_api::v1::Endpoint { name, addresses, .. } = common::endpoint(id);
        text.push_str(&format!(
            "- {{id: {id}, name: {name}, port: pod1, mac: '02:00:00:00:00:01', identity: 1001, addresses: [{}, '{}']}}\n",
            addresses[0], addresses[1]
        ));
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_among_ten_thousand() {
    let lab = Lab::start().await;
    let text = large(10_000).replace("10.64.18.104,", "10.64.18.1040,");
    let output = with_input(&lab, &["apply", "-f", "-"], &text);
    assert_eq!((output.code, output.out.as_str()), (1, ""));
    let expected = "octoctl: standard input:4713: endpoints[4711]: endpoint 4712 (default/web-4712): addresses[0]: \
                    \"10.64.18.1040\" is not an IPv4 or IPv6 address; nothing was changed\n";
    assert_eq!(output.err, expected);
    assert_eq!(lab.store.state().endpoint_count(), 0);
}

/// Prints how long it takes; run it with --release and --nocapture.
#[tokio::test(flavor = "multi_thread")]
async fn very_many_endpoints() {
    let lab = Lab::start().await;
    let text = large(MANY);
    for (what, expected) in [
        ("applied", format!("{MANY} objects changed")),
        ("applied again", "no changes".into()),
    ] {
        let start = Instant::now();
        let output = with_input(&lab, &["apply", "-f", "-"], &text);
        println!("{MANY} endpoints of YAML {what}: {:?}", start.elapsed());
        assert_eq!(output.code, 0, "{}", output.err);
        assert!(output.out.contains(&expected));
    }
    let start = Instant::now();
    let exported = ok(&lab, &["export"]);
    println!("exported: {:?}, {} bytes", start.elapsed(), exported.len());
    assert!(
        with_input(&lab, &["apply", "-f", "-"], &exported)
            .out
            .contains("no changes")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn watch() {
    let lab = Lab::start().await;
    ok(&lab, &["route", "add", "203.0.113.0/24", "--host"]);
    let mut child = command(
        &lab,
        &[
            "-o",
            "json",
            "watch",
            "--initial",
            "--kind",
            "route",
            "--kind",
            "endpoint",
        ],
    )
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value {
        let line = tokio::task::block_in_place(|| lines.next().unwrap().unwrap());
        serde_json::from_str(&line).unwrap()
    };
    assert_eq!(
        next(),
        json!({"revision": 1, "removed": false, "route": {"prefix": "203.0.113.0/24", "target": "host"}})
    );
    assert_eq!(
        next(),
        json!({"revision": 1, "removed": false, "initial_state_end": true})
    );
    ok(&lab, &["port", "set", "pod1", "--mtu", "1400"]);
    ok(&lab, &ADD);
    ok(&lab, &["route", "del", "203.0.113.0/24"]);
    let added = next();
    assert_eq!(
        (&added["revision"], &added["endpoint"]["id"]),
        (&json!(3), &json!(7))
    );
    let removed = next();
    assert_eq!(
        (&removed["revision"], &removed["removed"]),
        (&json!(4), &json!(true))
    );
    // Going on where another stopped, for people.
    let mut other = command(&lab, &["watch", "--from", "2"]).spawn().unwrap();
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
    let mut next = || tokio::task::block_in_place(|| lines.next().unwrap().unwrap());
    assert!(next().starts_with("3 + endpoint 7 "));
    assert_eq!(next(), "4 - route 203.0.113.0/24 to host");
    for child in [&mut child, &mut other] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(fails(&lab, 1, &["watch", "--from", "99"]).contains("99 was not reached yet"));
    fails(&lab, 2, &["watch", "--from", "1", "--initial"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon() {
    let lab = Lab::start().await;
    let version = ok(&lab, &["version"]);
    assert!(version.starts_with("octoctl ") && version.contains("octoplane.v1"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(ok(&lab, &["completion", shell]).contains("octoctl"));
    }
    assert!(ok(&lab, &["--help"]).contains("Exit status: 0 done, 1 the data plane refused, 2"));
    fails(&lab, 2, &["no-such-verb"]);
    let lost = fails(&lab, 3, &["--socket", "/nonexistent/socket", "status"]);
    assert!(lost.contains("cannot connect to /nonexistent/socket: "), "{lost}");
    // A socket on which nobody listens.
    let stale = lab.directory.path().join("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(Path::new(&stale).exists());
    let lost = fails(
        &lab,
        3,
        &["--socket", stale.to_str().unwrap(), "endpoint", "list"],
    );
    assert!(lost.contains("Connection refused"), "{lost}");
}

#[tokio::test(flavor = "multi_thread")]
async fn flows() {
    let lab = Lab::start().await;
    assert_eq!(json_of(&lab, &["flow", "list"]), json!([]));
    let mut worker = lab.worker();
    common::connect(&mut worker, 1, 17);
    common::connect(&mut worker, 2, 6);
    common::connect(&mut worker, 3, 47);
    let table = ok(&lab, &["flow", "list", "--protocol", "udp"]);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    let cells: Vec<_> = lines[1].split_whitespace().collect();
    assert_eq!(
        cells,
        [
            "udp",
            "10.0.0.1:4000",
            "172.20.0.1:80",
            "10.99.0.1:8080",
            "10.0.0.1:4000",
            "open",
            "0",
            "s",
            "60",
            "s",
            "pod1",
            "1001"
        ]
    );
    let expected = json!({
        "forward": {
            "source": "10.0.0.2", "destination": "172.20.0.1", "source_port": 4000, "destination_port": 80, "protocol": 6,
            "zone": 0, "translated": true, "decided": true, "current": true, "in_port": "pod1", "identity": 1001,
            "target": 3,
        },
        "reply": {
            "source": "10.99.0.1", "destination": "10.0.0.2", "source_port": 8080, "destination_port": 4000, "protocol": 6,
            "zone": 0, "translated": true, "decided": true, "current": true, "in_port": "pod1", "identity": 1001,
            "target": 3,
        },
        "state": "open", "idle_seconds": 0, "expires_seconds": 60,
    });
    for tuple in [
        ["10.0.0.2:4000", "172.20.0.1:80"],
        ["10.99.0.1:8080", "10.0.0.2:4000"],
    ] {
        assert_eq!(json_of(&lab, &[&["flow", "get"], &tuple[..]].concat()), expected);
    }
    let yaml = ok(
        &lab,
        &["-o", "yaml", "flow", "get", "10.0.0.2:4000", "172.20.0.1:80"],
    );
    assert!(yaml.contains("state: open"), "{yaml}");
    let filters: [(&[&str], usize); 6] = [
        (&[], 3),
        (&["--limit", "2"], 2),
        (&["--source", "10.0.0.0/24", "--port", "8080"], 3),
        (&["--destination", "10.0.0.0/24"], 0),
        (&["--address", "10.0.0.3"], 1),
        (&["--protocol", "47", "--address", "10.0.0.1"], 0),
    ];
    for (filter, count) in filters {
        let flows = json_of(&lab, &[&["flow", "list"], filter].concat());
        assert_eq!(flows.as_array().unwrap().len(), count, "{filter:?}");
    }
    assert_eq!(
        fails(&lab, 1, &["flow", "list", "--source", "10.0.0.0/33"])
            .lines()
            .count(),
        1
    );
    assert_eq!(
        fails(&lab, 1, &["flow", "get", "10.0.0.2:4001", "172.20.0.1:80"]),
        "octoctl: flow 10.0.0.2:4001 to 172.20.0.1:80, protocol 6: not found\n"
    );
    for bad in [
        &["flow", "flush"][..],
        &["flow", "flush", "--all", "--protocol", "tcp"],
        &["flow", "list", "--protocol", "tpc"],
        &["flow", "list", "--port", "0"],
        &["flow", "get", "10.0.0.2:x", "172.20.0.1:80"],
    ] {
        fails(&lab, 2, bad);
    }
    assert_eq!(
        ok(&lab, &["flow", "flush", "--address", "10.0.0.3"]),
        "1 connection flushed\n"
    );
    assert_eq!(json_of(&lab, &["flow", "flush", "--all"]), json!({"flushed": 2}));
    assert_eq!(json_of(&lab, &["flow", "list"]), json!([]));
    assert!(ok(&lab, &["flow", "--help"]).contains("flush"));
}

const OBJECTS: &str = "
node:
  addresses: [192.0.2.10]
  routing: tunnel
  tunnel: {protocol: geneve, local4: 192.0.2.10}
ipcache:
  - {prefix: 10.1.0.0/16, identity: 2000, tunnel_endpoint: 192.0.2.11}
services:
  - name: a/x:80
    protocol: tcp
    frontends:
      - {address: 203.0.113.1, port: 80, type: external_ip}
    backends:
      - {address: 10.64.0.1, port: 8080, weight: 2, state: terminating}
    algorithm: maglev
policies:
  - endpoint: 0
    enforce_ingress: true
    entries:
      - {direction: ingress, identity: 1001, protocol: 6, port: 80, port_prefix_len: 16}
egress_gateways:
  - {source: 10.64.0.0/24, destination: 0.0.0.0/0, gateway: excluded}
authentications:
  - {local_identity: 1001, remote_identity: 2000, remote_node: 192.0.2.11, auth_type: 1, expires: 4000000000}
";

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_the_state_file() {
    let lab = Lab::start().await;
    let done = with_input(&lab, &["apply", "-f", "-"], OBJECTS);
    assert_eq!(done.code, 0, "{}", done.err);
    for line in [
        "+ node 192.0.2.10",
        "+ ipcache 10.1.0.0/16 identity 2000 tunnel 192.0.2.11",
        "+ service a/x:80 frontends 1 backends 1",
        "+ policy 0 entries 1",
        "+ egress-gateway 10.64.0.0/24 to 0.0.0.0/0 gateway excluded",
        "+ authentication 1001 to 2000 type 1",
        "6 objects changed (6 new, 0 different, 0 gone), revision 1",
    ] {
        assert!(done.out.lines().any(|it| it == line), "{line}: {}", done.out);
    }
    let exported = ok(&lab, &["export"]);
    let again = with_input(&lab, &["apply", "-f", "-"], &exported);
    assert_eq!(again.out, "no changes, revision 1\n", "{exported}");
    let bad = OBJECTS.replace("port: 8080", "port: 0");
    let refused = with_input(&lab, &["apply", "-f", "-"], &bad);
    assert_eq!(refused.code, 1);
    assert!(
        refused
            .err
            .contains("standard input:9: services[0]: service \"a/x:80\": backends[0] port 0"),
        "{}",
        refused.err
    );
    let bad = OBJECTS.replace("state: terminating", "state: gone");
    let refused = with_input(&lab, &["apply", "-f", "-"], &bad);
    assert_eq!(refused.code, 2);
    assert!(
        refused
            .err
            .contains("backends[0].state: \"gone\", expected active, terminating"),
        "{}",
        refused.err
    );
    let bad = OBJECTS.replace("local4: 192.0.2.10", "local4: here");
    let refused = with_input(&lab, &["apply", "-f", "-"], &bad);
    assert!(
        refused
            .err
            .contains("standard input:3: node[0]: node: tunnel.local4: \"here\""),
        "{}",
        refused.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_one_by_one() {
    let lab = Lab::start().await;
    let service = "- {name: a/x:80, protocol: tcp, frontends: [{address: 203.0.113.1, port: 80}]}\n\
                   - {name: b/y:53, protocol: udp, frontends: [{address: 'fd00::1', port: 53}]}\n";
    let done = with_input(&lab, &["service", "add", "-f", "-"], service);
    assert!(
        done.out.contains("2 objects changed (2 new"),
        "{}{}",
        done.out,
        done.err
    );
    let table = ok(&lab, &["service", "list"]);
    assert!(
        table.contains("203.0.113.1:80") && table.contains("[fd00::1]:53"),
        "{table}"
    );
    let one = json_of(&lab, &["service", "get", "b/y:53"]);
    assert_eq!(
        (&one["protocol"], &one["algorithm"]),
        (&json!("udp"), &json!("random"))
    );
    assert!(ok(&lab, &["service", "get", "b/y:53"]).contains("protocol: udp"));
    assert!(ok(&lab, &["service", "del", "a/x:80", "b/y:53"]).contains("2 gone"));
    assert_eq!(
        fails(&lab, 1, &["service", "get", "a/x:80"]),
        "octoctl: service \"a/x:80\": not found\n"
    );
    let policy =
        "# One of them.\nendpoint: 7\nenforce_egress: true\nentries: [{direction: egress, deny: true}]\n";
    let done = with_input(&lab, &["policy", "add", "-f", "-"], policy);
    assert!(
        done.out.starts_with("+ policy 7 entries 1"),
        "{}{}",
        done.out,
        done.err
    );
    let expected = json!({
        "endpoint": 7, "enforce_egress": true, "entries": [{"direction": "egress", "deny": true}],
    });
    assert_eq!(json_of(&lab, &["policy", "get", "7"]), expected);
    assert_eq!(json_of(&lab, &["policy", "list"]), json!([expected]));
    assert!(ok(&lab, &["policy", "list"]).contains("ENTRIES"));
    ok(&lab, &["policy", "del", "7"]);
    let unknown = with_input(
        &lab,
        &["policy", "add", "-f", "-"],
        "endpoint: 7\nenforce: true\n",
    );
    assert!(
        unknown.code == 2 && unknown.err.contains("enforce"),
        "{}",
        unknown.err
    );

    let add = [
        "ipcache",
        "add",
        "10.1.0.0/16",
        "--identity",
        "2000",
        "--tunnel-endpoint",
        "192.0.2.11",
    ];
    ok(&lab, &add);
    let expected = json!({"prefix": "10.1.0.0/16", "identity": 2000, "tunnel_endpoint": "192.0.2.11"});
    assert_eq!(json_of(&lab, &["ipcache", "get", "10.1.0.0/16"]), expected);
    assert!(ok(&lab, &["ipcache", "list"]).contains("192.0.2.11"));
    ok(&lab, &["ipcache", "del", "10.1.0.0/16"]);
    assert_eq!(json_of(&lab, &["ipcache", "list"]), json!([]));

    let sides = ["1001", "2000", "--node", "192.0.2.11", "--type", "2"];
    ok(&lab, &[&["auth", "add"], &sides[..]].concat());
    let all = json_of(&lab, &["auth", "list"]);
    assert_eq!(
        (&all[0]["remote_identity"], &all[0]["auth_type"]),
        (&json!(2000), &json!(2))
    );
    assert!(ok(&lab, &["auth", "list"]).contains("192.0.2.11"));
    ok(&lab, &[&["auth", "del"], &sides[..]].concat());
    assert_eq!(json_of(&lab, &["auth", "list"]), json!([]));
    let refused = fails(&lab, 1, &["auth", "add", "0", "2000"]);
    assert!(refused.contains("local_identity 0 is out of range"), "{refused}");

    let key = ["10.64.0.0/24", "0.0.0.0/0"];
    let gateway = ["--gateway", "192.0.2.12", "--egress-ip", "192.0.2.13"];
    ok(
        &lab,
        &[&["egress-gateway", "add"], &key[..], &gateway[..]].concat(),
    );
    let one = json_of(&lab, &[&["egress-gateway", "get"], &key[..]].concat());
    assert_eq!(one["gateway"], "192.0.2.12");
    assert!(ok(&lab, &["egress-gateway", "list"]).contains("192.0.2.13"));
    ok(&lab, &[&["egress-gateway", "del"], &key[..]].concat());
    let gone = fails(&lab, 1, &[&["egress-gateway", "get"], &key[..]].concat());
    assert!(gone.contains("not found"), "{gone}");

    let done = with_input(
        &lab,
        &["node", "add", "-f", "-"],
        "addresses: [192.0.2.10]\npolicy_mode: always\n",
    );
    assert!(
        done.out.starts_with("+ node 192.0.2.10"),
        "{}{}",
        done.out,
        done.err
    );
    let node = json_of(&lab, &["node", "get"]);
    assert_eq!(
        (&node["policy_mode"], &node["nodeport_min"]),
        (&json!("always"), &json!(30_000))
    );
    ok(&lab, &["node", "del"]);
    assert_eq!(
        fails(&lab, 1, &["node", "del"]),
        "octoctl: changes[0]: node: not found\n"
    );
}
