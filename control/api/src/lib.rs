//! The gRPC API of the data plane. The protos in `proto/` are the documentation.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Error, Identity, Uri};

/// `octoplane.v1`, as generated.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated"
)]
pub mod v1 {
    tonic::include_proto!("octoplane.v1");

    impl std::fmt::Debug for IpsecSaConfig {
        /// All but the keys.
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("IpsecSaConfig")
                .field("direction", &self.direction)
                .field("spi", &self.spi)
                .field("source", &self.source)
                .field("destination", &self.destination)
                .field("algorithm", &self.algorithm)
                .field("reqid", &self.reqid)
                .finish_non_exhaustive()
        }
    }

    /// All protos, for reflection.
    pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("octoplane");
}

/// Where the daemon listens unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/octoplane/octoplane.sock";

/// Largest message that clients accept and send, in bytes.
pub const MAX_MESSAGE: usize = 64 << 20;

/// Objects that clients and the server put into one message of a stream.
pub const CHUNK: usize = 4096;

/// Connects to a control socket.
pub async fn connect(socket: &Path) -> Result<Channel, Error> {
    let socket: PathBuf = socket.into();
    let dial = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // The name is never resolved: the connector dials the socket.
    Endpoint::from_static("http://octoplane.invalid")
        .connect_with_connector(dial)
        .await
}

/// How a client of a TCP listener shows who it is, and knows the server: each in PEM.
#[derive(Clone)]
pub struct Credentials {
    /// Authorities that the server's certificate may be from.
    pub ca: Vec<u8>,
    /// The client's certificate and what leads from it to its authority.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
}

/// Connects to a TCP listener: `http://ADDRESS:PORT` in plain text, `https://NAME:PORT` with mutual TLS, where the server's
/// certificate must have that name.
pub async fn connect_tcp(server: Uri, credentials: Option<Credentials>) -> Result<Channel, Error> {
    let endpoint = Endpoint::from(server);
    let endpoint = match credentials {
        None => endpoint,
        Some(it) => endpoint.tls_config(
            ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(it.ca))
                .identity(Identity::from_pem(it.certificate, it.key)),
        )?,
    };
    endpoint.connect().await
}
