//! The TCP listeners of `CNIAction`.

mod connections;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};
use octoplane_config::schema::{Cni, CniTls};
use tokio::net::TcpListener;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tracing::info;

use self::connections::Connections;
use crate::wire::Action;
use crate::wire::pb::cni_action_server::CniActionServer;

/// Largest request, in bytes: a pod's names and addresses take a few hundred.
const MAX_MESSAGE: usize = 64 << 10;
/// Calls of one connection at once, of those that wait, too.
const MOST_CALLS: u32 = 64;
/// A client that says nothing for so long is asked whether it is there, and has as long to answer.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Connections of one listener at once. Others wait until one of them ends.
const MOST_CONNECTIONS: usize = 256;
/// How long a connection lives: a plugin makes one for each call, and waits five seconds for its answer.
const MOST_AGE: Duration = Duration::from_secs(10);
/// How long its calls then have to end, before it is cut off.
const AGE_GRACE: Duration = Duration::from_secs(5);
/// How long a client may take to show its certificate.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long calls may take to end once the server stops.
const GRACE: Duration = Duration::from_secs(1);

/// Why a listener is not served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be had.
    #[error("cni.{key}: {address}: {error}")]
    Bind {
        /// Key in the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// A certificate or key cannot be read.
    #[error("cni.tls.{key}: {path}: {error}")]
    Read {
        /// Key in the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A certificate or key is not one, or serving failed.
    #[error("cni: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Listeners that are bound.
pub struct Listeners {
    plain: Option<TcpListener>,
    tls: Option<(TcpListener, ServerTlsConfig)>,
}

impl Listeners {
    /// Binds what the configuration names. Must be called inside a tokio runtime. An address that the machine does not have yet
    /// is no mistake: the management wire may come up later.
    ///
    /// # Errors
    /// [`ListenError`]
    pub fn bind(config: &Cni) -> Result<Self, ListenError> {
        let plain = config
            .listen
            .map(|address| bound(address, "listen"))
            .transpose()?;
        let tls = config
            .tls
            .as_ref()
            .map(|tls| Ok::<_, ListenError>((bound(tls.listen, "tls.listen")?, settings(tls)?)))
            .transpose()?;
        Ok(Self { plain, tls })
    }

    /// Where the plain listener is, if there is one.
    pub fn plain_address(&self) -> Option<SocketAddr> {
        self.plain.as_ref()?.local_addr().ok()
    }

    /// Serves until `stop` is done, which is asked for once for each listener.
    ///
    /// # Errors
    /// [`ListenError::Transport`]
    pub async fn serve<S: Future<Output = ()>>(
        self,
        action: Action,
        stop: impl Fn() -> S,
    ) -> Result<(), ListenError> {
        let one = async |listener: Option<TcpListener>, server: Result<Server, tonic::transport::Error>| {
            let Some(listener) = listener else { return Ok(()) };
            let service = CniActionServer::new(action.clone())
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE);
            let incoming = Connections::of(listener, MOST_CONNECTIONS);
            let (quit, quitting) = tokio::sync::oneshot::channel::<()>();
            let serving = server?
                .http2_keepalive_interval(Some(KEEPALIVE))
                .http2_keepalive_timeout(Some(KEEPALIVE))
                .max_concurrent_streams(MOST_CALLS)
                .max_connection_age(MOST_AGE)
                .max_connection_age_grace(AGE_GRACE)
                .add_service(service)
                .serve_with_incoming_shutdown(incoming, async {
                    let _ = quitting.await;
                });
            let mut serving = std::pin::pin!(serving);
            tokio::select! {
                result = &mut serving => return result,
                () = stop() => {}
            }
            drop(quit);
            tokio::time::timeout(GRACE, serving).await.unwrap_or(Ok(()))
        };
        let (tls, secured) = match self.tls {
            Some((listener, settings)) => (Some(listener), Server::builder().tls_config(settings)),
            None => (None, Ok(Server::builder())),
        };
        let (plain, tls) = tokio::join!(one(self.plain, Ok(Server::builder())), one(tls, secured));
        plain?;
        tls?;
        Ok(())
    }
}

fn settings(tls: &CniTls) -> Result<ServerTlsConfig, ListenError> {
    let read = |path: &PathBuf, key| {
        std::fs::read(path).map_err(|error| ListenError::Read {
            key,
            path: path.clone(),
            error,
        })
    };
    let identity = Identity::from_pem(read(&tls.certificate, "certificate")?, read(&tls.key, "key")?);
    let authority = Certificate::from_pem(read(&tls.client_ca, "client_ca")?);
    let settings = ServerTlsConfig::new()
        .identity(identity)
        .client_ca_root(authority)
        .timeout(HANDSHAKE);
    // Found out now, not with the first client.
    Server::builder().tls_config(settings.clone())?;
    Ok(settings)
}

fn bound(address: SocketAddr, key: &'static str) -> Result<TcpListener, ListenError> {
    let listener = open(address).map_err(|error| ListenError::Bind { key, address, error })?;
    info!("CNIAction is served at {address} (cni.{key})");
    Ok(listener)
}

/// A listening socket, whether the machine has its address yet or not.
fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    // This option is IPv6's, too (ipv6(7), IPV6_FREEBIND by ip(7)'s IP_FREEBIND).
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    bind(
        std::os::fd::AsRawFd::as_raw_fd(&socket),
        &SockaddrStorage::from(address),
    )?;
    listen(&socket.as_fd(), Backlog::new(128)?)?;
    TcpListener::from_std(socket.into())
}
