//! Generates the Rust side of `CNIAction`.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    println!("cargo:rerun-if-changed=proto");
    let protoc = std::env::var("PROTOC").unwrap_or_else(|_| "protoc".into());
    if Command::new(&protoc).arg("--version").output().is_err() {
        println!(
            "cargo:error=protoc, the Protocol Buffers compiler, is missing: apt-get install protobuf-compiler"
        );
        return ExitCode::FAILURE;
    }
    match tonic_prost_build::configure().compile_protos(&["proto/cniOffloadAgent.proto"], &["proto"]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo:error={error}");
            ExitCode::FAILURE
        }
    }
}
