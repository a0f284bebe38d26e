//! `[cni]`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use octoplane_packet::Prefix;

/// Pods that come and go by way of CNI plugins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cni {
    /// Where `CNIAction` is served in plain text, without authentication: the DPU's address on the management wire, whose
    /// other end is the host alone. Never an unspecified address. Default none: it is not served.
    pub listen: Option<SocketAddr>,
    /// Where `CNIAction` is served with mutual TLS. Default none.
    pub tls: Option<CniTls>,
    /// Names of pod ports by index (PFs times VF number, plus PF number): what stands for the host's virtual functions where
    /// there are none. A port may stand more than once. Default none: SDP functions by their PCI addresses.
    pub ports: Vec<String>,
    /// Where attachments and their addresses are kept; absolute. Default `/var/lib/octoplane/attachments`.
    pub directory: PathBuf,
    /// Where addresses are taken from, in this order; disjoint. Default none: whoever attaches a pod brings its addresses.
    pub pools: Vec<Pool>,
    /// How long an address rests that was given back, 0 to 86,400 seconds. Default 60.
    pub reuse_delay: Duration,
    /// How long an address is kept for a pod that has no endpoint, 10 to 86,400 seconds. Default 600.
    pub orphan_grace: Duration,
    /// Who is what: the first rule that matches decides. Default none: endpoints have the identity "init" (5) until the
    /// agent gives them another.
    pub identities: Vec<IdentityRule>,
}

impl Cni {
    /// Highest security identity (specification of the datapath, section 4).
    pub const MAX_IDENTITY: u32 = 0x02ff_ffff;
}

impl Default for Cni {
    fn default() -> Self {
        Self {
            listen: None,
            tls: None,
            ports: Vec::new(),
            directory: "/var/lib/octoplane/attachments".into(),
            pools: Vec::new(),
            reuse_delay: Duration::from_secs(60),
            orphan_grace: Duration::from_secs(600),
            identities: Vec::new(),
        }
    }
}

/// A listener that asks clients for a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniTls {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Our certificate and those between it and the root, PEM; absolute path.
    pub certificate: PathBuf,
    /// Our private key, PEM; absolute path.
    pub key: PathBuf,
    /// The certificate authority that signs those of clients, PEM; absolute path.
    pub client_ca: PathBuf,
}

/// Addresses for pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The addresses. Of IPv4, the first and the last one are not given to pods (unless there are two at most); of IPv6, the
    /// first one, which is the anycast address of routers (RFC 4291, section 2.6.1).
    pub prefix: Prefix,
    /// Parts of it that are not given to pods. Default none.
    pub exclude: Vec<Prefix>,
}

/// Which identity pods have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityRule {
    /// Namespaces; `*` stands for any text, `?` for one character. Default `*`.
    pub namespace: String,
    /// Names of pods, likewise. Default `*`.
    pub name: String,
    /// Security identity, 1 to 50,331,647.
    pub identity: u32,
    /// Labels of these pods beside those that every pod has. Default none.
    pub labels: Vec<String>,
}
