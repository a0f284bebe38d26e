//! A process that was killed leaves nothing behind that keeps the next from starting.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::io::{BufRead, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use dpdk::{Eal, EalOptions};

const ROLE: &str = "DPDK_TEST_RESTART_CHILD";
const READY: &str = "the EAL runs";

fn start() -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "starts_again_after_kill", "--nocapture"])
        .env(ROLE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Returns the pipe, without which the child fails to print that it passed.
fn wait_ready(child: &mut Child) -> impl BufRead + use<> {
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains(READY) {
        line.clear();
        assert_ne!(out.read_line(&mut line).unwrap(), 0, "the child did not start");
    }
    out
}

#[test]
fn starts_again_after_kill() {
    if std::env::var_os(ROLE).is_some() {
        let options = EalOptions {
            vdevs: vec!["net_ring0".into()],
            file_prefix: Some("dpdk-test-restart".into()),
            ..EalOptions::without_hardware(64)
        };
        let _eal = Eal::init(&options).unwrap();
        println!("{READY}");
        // Until the parent kills us, or is gone.
        let _ = std::io::stdin().lines().count();
        return;
    }
    for _ in 0..2 {
        let mut child = start();
        let _out = wait_ready(&mut child);
        // SIGKILL.
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
    }
    let mut last = start();
    let mut out = wait_ready(&mut last);
    drop(last.stdin.take());
    out.read_to_string(&mut String::new()).unwrap();
    assert!(last.wait().unwrap().success());
}
