//! Mutual TLS: what we show, whom we believe, and how a certificate names its owner.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use octoplane_config::{CertificateName, TlsClient};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tracing::{info, warn};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::access::{Classes, ClientId};

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not what it should be.
    #[error("{}: {error}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: pem::Error,
    },
    /// A file has none of what it should have.
    #[error("{}: there is no certificate in it", .0.display())]
    Empty(PathBuf),
    /// A certificate authority cannot be believed in.
    #[error("{}: {error}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: rustls::Error,
    },
    /// No client could be verified.
    #[error("client certificates: {0}")]
    Verifier(#[from] VerifierBuilderError),
    /// Certificate and key do not go together, or are of no use.
    #[error("{}: {error}", path.display())]
    Identity {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong.
        error: rustls::Error,
    },
}

/// The files, and what was made of them.
pub(super) struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: PathBuf,
    clients: Vec<TlsClient>,
    now: Mutex<(Option<Stamps>, TlsAcceptor)>,
}

/// When each of the files was changed last.
type Stamps = [SystemTime; 3];

impl Tls {
    pub(super) fn load(
        certificate: &Path,
        key: &Path,
        client_ca: &Path,
        clients: &[TlsClient],
    ) -> Result<Self, TlsError> {
        let acceptor = acceptor(certificate, key, client_ca)?;
        Ok(Self {
            now: Mutex::new((stamps([certificate, key, client_ca]), acceptor)),
            certificate: certificate.into(),
            key: key.into(),
            client_ca: client_ca.into(),
            clients: clients.into(),
        })
    }

    /// By which the next connection is taken. Certificates are renewed while we run: files that changed are read again, and
    /// if they are no good, the old ones stay.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps([&self.certificate, &self.key, &self.client_ca]);
        if stamps.is_some() && stamps != now.0 {
            now.0 = stamps;
            match acceptor(&self.certificate, &self.key, &self.client_ca) {
                Ok(new) => {
                    info!("control.tcp: certificates read again");
                    now.1 = new;
                }
                Err(error) => warn!(%error, "control.tcp: the certificates as they were stay"),
            }
        }
        now.1.clone()
    }

    /// Who a verified certificate belongs to, and what its owner may do.
    pub(super) fn owner(&self, certificate: &CertificateDer<'_>) -> (ClientId, Classes) {
        let names = names(certificate);
        match self.clients.iter().find(|client| names.contains(&client.name)) {
            Some(client) => (
                ClientId::Certificate(client.name.to_string()),
                Classes::of(&client.may),
            ),
            None => (ClientId::UnknownCertificate, Classes::NONE),
        }
    }
}

fn stamps(paths: [&Path; 3]) -> Option<Stamps> {
    let stamp = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    Some([stamp(paths[0])?, stamp(paths[1])?, stamp(paths[2])?])
}

fn acceptor(certificate: &Path, key: &Path, client_ca: &Path) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for root in certificates(client_ca)? {
        roots.add(root).map_err(|error| TlsError::Authority {
            path: client_ca.into(),
            error,
        })?;
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::Pem {
        path: key.into(),
        error,
    })?;
    let identity = |error| TlsError::Identity {
        path: certificate.into(),
        error,
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(identity)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(identity)?;
    // gRPC is HTTP/2 (RFC 9113, section 3.3).
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |error| TlsError::Pem {
        path: path.into(),
        error,
    };
    let all = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    if all.is_empty() {
        return Err(TlsError::Empty(path.into()));
    }
    Ok(all)
}

/// The names in a certificate (RFC 5280, sections 4.1.2.6 and 4.2.1.6).
fn names(certificate: &CertificateDer<'_>) -> Vec<CertificateName> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let mut names = Vec::new();
    if let Ok(Some(alternatives)) = parsed.subject_alternative_name() {
        names.extend(
            alternatives
                .value
                .general_names
                .iter()
                .filter_map(|name| match name {
                    GeneralName::DNSName(name) => Some(CertificateName::Dns(name.to_ascii_lowercase())),
                    GeneralName::URI(uri) => Some(CertificateName::Uri((*uri).to_owned())),
                    _ => None,
                }),
        );
    }
    let common = parsed.subject().iter_common_name();
    names.extend(common.filter_map(|name| Some(CertificateName::CommonName(name.as_str().ok()?.to_owned()))));
    names
}
