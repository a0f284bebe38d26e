use std::process::{Command, Stdio};

use octoplane_api::v1::change::Change as Step;

use crate::common::{Lab, apply, endpoint};

const PROTOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../api/proto");
const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/client.py");

/// A Python that has gRPC and Protocol Buffers.
fn python() -> Option<&'static str> {
    ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        Command::new(python)
            .args(["-c", "import grpc, google.protobuf"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}

/// Another implementation of gRPC, with messages that it generates itself from the protos.
#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_lists_and_applies() {
    let Some(python) = python() else {
        eprintln!("SKIPPED: no Python with grpcio: apt-get install python3-grpcio python3-protobuf");
        return;
    };
    let lab = Lab::start().await;
    let mut config = lab.config().await;
    config
        .apply(apply((1..=5000).map(|id| Step::PutEndpoint(endpoint(id)))))
        .await
        .unwrap();
    let (socket, stubs) = (lab.socket.clone(), lab.directory.path().to_owned());
    let run = move || {
        Command::new(python)
            .arg(CLIENT)
            .args([PROTOS.as_ref(), stubs.as_os_str(), socket.as_os_str()])
            .output()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let state = lab.store.state();
    assert_eq!(state.endpoint(9001).unwrap().name, "python/one");
    assert_eq!(state.endpoint_count(), 5001);
}
