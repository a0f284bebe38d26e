//! A second of forwarding from end to end, with ordinary memory.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::File;
use std::path::Path;
use std::process::Command;

/// Where Debian's and DPDK's own builds put drivers.
const DRIVER_FOLDERS: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu/dpdk",
    "/usr/lib/aarch64-linux-gnu/dpdk",
    "/usr/lib/dpdk",
    "/usr/local/lib/x86_64-linux-gnu/dpdk",
    "/usr/local/lib/aarch64-linux-gnu/dpdk",
    "/usr/local/lib64/dpdk",
];

fn pcap_driver_installed() -> bool {
    DRIVER_FOLDERS
        .iter()
        .filter_map(|folder| Path::new(folder).read_dir().ok())
        .flatten()
        .flatten()
        .any(|folder| folder.path().join("librte_net_pcap.so").exists())
}

fn forward(options: &[&str]) -> serde_json::Value {
    octobench(&[&["forward", "--duration", "1"], options].concat())
}

fn octobench(options: &[&str]) -> serde_json::Value {
    // One at a time, whatever runs the tests: they all poll on the same CPU.
    let turn = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("octobench.lock")).unwrap();
    turn.lock().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_octobench"))
        .args(options)
        .args(["--memory", "none", "--warmup", "0.2", "--output", "json"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{options:?}: {stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn check(options: &[&str]) {
    let report = forward(options);
    let run = &report["octoplane"]["runs"][0];
    assert!(run["packets"].as_u64().unwrap() > 0, "{options:?}: {report}");
    assert!(
        run["drops"].as_object().unwrap().is_empty(),
        "{options:?}: {report}"
    );
}

#[test]
fn a_second_of_forwarding_drops_nothing() {
    if !pcap_driver_installed() {
        eprintln!("SKIPPED: DPDK's libpcap driver is not installed");
        return;
    }
    check(&["--scenario", "uplink"]);
    check(&["--scenario", "uplink-to-pod", "--ipv6", "--imix"]);
}

#[test]
fn the_generator_needs_no_device() {
    check(&[
        "--scenario",
        "pod-to-uplink",
        "--source",
        "generator",
        "--flows",
        "5000",
    ]);
}

/// Every packet comes through, the device does them all, and there is a ratio to the yardstick.
fn check_esp(operation: &str, provider: &str, ratio: &str) {
    let options = [
        "esp",
        "--provider",
        provider,
        "--operation",
        operation,
        "--size",
        "64",
    ];
    let rest = [
        "--sas",
        "1,100",
        "--duration",
        "0.2",
        "--burst",
        "32",
        "--yardstick",
    ];
    let report = octobench(&[&options[..], &rest].concat());
    let cases = report.as_array().unwrap();
    assert_eq!(cases.len(), 2);
    for case in cases {
        for candidate in ["octoplane", ratio.strip_prefix("ratio_").unwrap()] {
            let run = &case[candidate]["runs"][0];
            assert!(run["packets"].as_u64().unwrap() > 0, "{case}");
            assert!(run["drops"].as_object().unwrap().is_empty(), "{case}");
        }
        assert!(case[ratio].as_f64().unwrap() > 0.0, "{case}");
        let many = case["setup"]["sas"] == 100;
        assert_eq!(case["ratio_1_sas"].is_f64(), many, "{case}");
    }
}

#[test]
fn esp_in_software_and_by_a_device() {
    check_esp("encrypt", "software", "ratio_bare");
    if Command::new("dpdk-test-crypto-perf")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("SKIPPED: dpdk-test-crypto-perf is not installed");
        return;
    }
    check_esp("decrypt", "cryptodev:crypto_openssl", "ratio_crypto_perf");
}

#[test]
fn a_policy_is_looked_for_once_a_shape() {
    let output = Command::new(env!("CARGO_BIN_EXE_octobench"))
        .args([
            "policies",
            "--entries",
            "10,1000",
            "--shapes",
            "1,4",
            "--rounds",
            "20",
        ])
        .args(["--output", "json"])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows: Vec<_> = rows.as_array().unwrap().iter().collect();
    let of = |row: &serde_json::Value| (row["policies"].as_u64(), row["shapes"].as_u64());
    let expected =
        [(10, 1), (1000, 1), (10, 4), (1000, 4)].map(|(policies, shapes)| (Some(policies), Some(shapes)));
    assert!(rows.iter().copied().map(of).eq(expected), "{rows:?}");
    assert!(rows.iter().all(|row| row["quiet"].as_f64().unwrap() > 0.0));
}
