//! Who may do what with the control services.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What a method of the control services does, and what a client may therefore be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Looks at tables, counters and health.
    Read,
    /// Changes tables or ports, or ends connections.
    Program,
    /// Looks at the traffic itself: who talks to whom.
    Debug,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Read, Self::Program, Self::Debug];

    /// Spelling in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Program => "program",
            Self::Debug => "debug",
        }
    }
}

/// How much one client may ask for, so that it leaves something for the others. A client is a user on the Unix socket, a
/// certificate's name with TLS, an address on the management wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// Connections at once, 1 to 65,536. Default 256.
    pub connections: usize,
    /// Requests at once, watches apart, 1 to 65,536. Default 256.
    pub requests: usize,
    /// Watches and other calls without an end at once, 1 to 65,536. Default 64.
    pub streams: usize,
    /// Requests a second, and as many at once after a pause; a connection counts as one. 1 to 1,000,000. Default 20,000.
    pub requests_per_second: u32,
    /// How long a request may take until its answer begins, watches apart. Seconds in the file, 1 to 3600, default 60.
    pub request_timeout: Duration,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connections: 256,
            requests: 256,
            streams: 64,
            requests_per_second: 20_000,
            request_timeout: Duration::from_secs(60),
        }
    }
}

/// A TCP listener of the control services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlTcp {
    /// Our address and port.
    pub listen: SocketAddr,
    /// How it is told who may connect.
    pub guard: Guard,
}

/// How a TCP listener is told who may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// Mutual TLS.
    Tls {
        /// Our certificate chain (PEM).
        certificate: PathBuf,
        /// Its private key (PEM).
        key: PathBuf,
        /// Authorities whose client certificates are accepted (PEM).
        client_ca: PathBuf,
        /// What the certificates' owners may do.
        clients: Vec<TlsClient>,
    },
    /// Plain text, from one network interface only: whoever stands at its other end is trusted.
    ManagementInterface {
        /// Its name.
        interface: String,
        /// What everybody there may do.
        may: Vec<Class>,
    },
}

/// What the owner of a certificate may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsClient {
    /// How the certificate names its owner.
    pub name: CertificateName,
    /// What it may do; never empty.
    pub may: Vec<Class>,
}

/// A name in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CertificateName {
    /// A DNS name among the subject's alternative names, without wildcards, in lower case.
    Dns(String),
    /// A URI among the subject's alternative names, as SPIFFE has them.
    Uri(String),
    /// The common name of the subject.
    CommonName(String),
}

/// As it stands in the file.
impl std::fmt::Display for CertificateName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "dns:{name}"),
            Self::Uri(name) => write!(f, "uri:{name}"),
            Self::CommonName(name) => write!(f, "cn:{name}"),
        }
    }
}
