//! The way to the daemon: its socket, or its TCP listener.

use std::path::{Path, PathBuf};

use octoplane_api::Credentials;
use tonic::transport::Channel;

use crate::cli::Remote;
use crate::error::Failure;

/// Connects to the TCP listener if one is named, else to the socket.
pub(crate) async fn connect(socket: &Path, remote: &Remote) -> Result<Channel, Failure> {
    let Some(server) = &remote.server else {
        let channel = octoplane_api::connect(socket).await;
        return channel.map_err(|error| Failure::Connect {
            place: socket.display().to_string(),
            error,
        });
    };
    let credentials = match server.scheme_str() {
        Some("https") => Some(Credentials {
            ca: read("--tls-ca", remote.tls_ca.as_ref())?,
            certificate: read("--tls-certificate", remote.tls_certificate.as_ref())?,
            key: read("--tls-key", remote.tls_key.as_ref())?,
        }),
        Some("http") => None,
        _ => {
            return Err(Failure::Usage(format!(
                "--server: {server}: expected https://NAME:PORT or http://ADDRESS:PORT"
            )));
        }
    };
    let channel = octoplane_api::connect_tcp(server.clone(), credentials).await;
    channel.map_err(|error| Failure::Connect {
        place: server.to_string(),
        error,
    })
}

fn read(option: &str, path: Option<&PathBuf>) -> Result<Vec<u8>, Failure> {
    let Some(path) = path else {
        return Err(Failure::Usage(format!("--server: https:// needs {option}, too")));
    };
    std::fs::read(path).map_err(|error| Failure::Usage(format!("{option}: {}: {error}", path.display())))
}
