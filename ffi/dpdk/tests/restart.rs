//! A process that was killed leaves nothing behind that keeps the next from starting.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::io::{BufRead, BufReader};
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

fn wait_ready(child: &mut Child) {
    let out = BufReader::new(child.stdout.take().unwrap());
    assert!(
        out.lines().map_while(Result::ok).any(|line| line.contains(READY)),
        "the child did not start"
    );
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
        wait_ready(&mut child);
        // SIGKILL.
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
    }
    let mut last = start();
    wait_ready(&mut last);
    drop(last.stdin.take());
    assert!(last.wait().unwrap().success());
}
