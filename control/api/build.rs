//! Generates the Rust side of the protos, and the descriptor set that reflection serves.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

const PROTOS: &[&str] = &[
    "objects",
    "node",
    "remote",
    "service",
    "policy",
    "config",
    "flows",
    "stats",
    "attachments",
    "ipsec",
    "observe",
];

fn main() -> ExitCode {
    println!("cargo:rerun-if-changed=proto");
    let protoc = std::env::var("PROTOC").unwrap_or_else(|_| "protoc".into());
    if Command::new(&protoc).arg("--version").output().is_err() {
        println!(
            "cargo:error=protoc, the Protocol Buffers compiler, is missing: apt-get install protobuf-compiler"
        );
        return ExitCode::FAILURE;
    }
    let Some(out) = std::env::var_os("OUT_DIR").map(PathBuf::from) else {
        return ExitCode::FAILURE;
    };
    let files: Vec<String> = PROTOS
        .iter()
        .map(|name| format!("proto/octoplane/v1/{name}.proto"))
        .collect();
    let result = tonic_prost_build::configure()
        // Nobody gets to see a key.
        .skip_debug(["octoplane.v1.IpsecSaConfig"])
        .file_descriptor_set_path(out.join("octoplane.bin"))
        .compile_protos(&files, &["proto".to_owned()]);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo:error={error}");
            ExitCode::FAILURE
        }
    }
}
