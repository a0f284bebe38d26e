//! A second of forwarding from end to end, with ordinary memory.

#![allow(clippy::unwrap_used, reason = "a test")]

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
    let output = Command::new(env!("CARGO_BIN_EXE_octobench"))
        .args([
            "forward",
            "--memory",
            "none",
            "--duration",
            "1",
            "--warmup",
            "0.2",
        ])
        .args(["--output", "json"])
        .args(options)
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
