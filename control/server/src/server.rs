//! The control services: where they are offered, and their beginning and end.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::Gid;
use octoplane_api::v1;
use octoplane_cni_server::AttachmentService;
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use crate::access::{Access, AccessLayer, Classes, Clients, let_group_in};
use crate::config::ConfigService;
use crate::dataplane::Dataplane;
use crate::flows::FlowsService;
use crate::history::History;
use crate::ipsec::IpsecService;
use crate::listen::{Reception, TcpGate, TlsError, UnixGate};
use crate::observe::ObserveService;
use crate::stats::StatsService;

/// How long calls may take to end once the server stops.
pub const GRACE: Duration = Duration::from_secs(1);
/// How often a silent connection is asked whether it is still there, and how long it may take to answer (HTTP/2 pings).
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(20);
/// Requests at once on one connection beyond what its client may have on all: so many are told that they are too many, more
/// wait at the client, by HTTP/2's own means.
const TOLD: usize = 64;
/// Bytes of a request's headers.
const HEADERS: u32 = 16 << 10;
/// Requests that a client took back before they were looked at: beyond them it plays tricks (CVE-2023-44487).
const TAKEN_BACK: usize = 20;

/// Why the control socket is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody else serves it.
    #[error("{0}: another daemon listens there")]
    InUse(PathBuf),
    /// Something that is no socket is in the way.
    #[error("{0}: there is a file that is not a socket")]
    NotASocket(PathBuf),
    /// A configured group does not exist.
    #[error("control.{key}: there is no group \"{name}\"")]
    NoGroup {
        /// Where it was named.
        key: &'static str,
        /// Its name.
        name: String,
    },
    /// The second group cannot be let in.
    #[error("control.read_group: {path}: its file system keeps no access control list: {error}")]
    NoList {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The TCP address cannot be listened on.
    #[error("control.tcp.listen: {address}: {error}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The management wire cannot be bound to.
    #[error("control.tcp.management_interface: {interface}: {error}")]
    Interface {
        /// Its name.
        interface: String,
        /// What the system said.
        error: io::Error,
    },
    /// Certificates are no good.
    #[error("control.tcp: {0}")]
    Tls(#[from] TlsError),
    /// The operating system refused.
    #[error("{path}: {error}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Serving failed.
    #[error(transparent)]
    Transport(#[from] tonic::transport::Error),
    /// The descriptors for reflection are broken.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Where and how to serve.
#[derive(Debug, Clone)]
pub struct Server {
    /// Path of the Unix socket. Its directory is made if it is missing.
    pub socket: PathBuf,
    /// Group that may use the socket besides root, for everything.
    pub group: Option<String>,
    /// Largest message taken from a client, in bytes.
    pub max_message: usize,
    /// Who else may use the services, and how much each.
    pub access: Access,
}

/// A socket that listens. Dropping it removes the socket's file.
pub struct Bound {
    listener: Option<UnixListener>,
    gate: UnixGate,
    tcp: Option<TcpGate>,
    server: Server,
    /// Tells our file from one that somebody put in its place.
    id: (u64, u64),
}

fn file_id(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

impl Server {
    /// Whether the socket can be bound: refuses when somebody answers there.
    pub fn probe(&self) -> Result<(), ServeError> {
        let path = &self.socket;
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.io(error)),
            Ok(meta) if !meta.file_type().is_socket() => Err(ServeError::NotASocket(path.clone())),
            Ok(_) => match UnixStream::connect(path) {
                Ok(_) => Err(ServeError::InUse(path.clone())),
                // Left behind, or just gone: nobody listens.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
                    ) =>
                {
                    Ok(())
                }
                // Whether somebody listens cannot be told.
                Err(error) => Err(self.io(error)),
            },
        }
    }

    /// Listens. A socket that a killed daemon left behind is replaced. Must be called inside a tokio runtime.
    pub fn bind(self) -> Result<Bound, ServeError> {
        self.probe()?;
        let path = &self.socket;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.io(error)),
            _ => {}
        }
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(|error| self.io(error))?;
        }
        let group = self.group_id("socket_group", self.group.as_deref())?;
        let other = self.group_id("read_group", self.access.read_group.as_deref())?;
        let tcp = self.access.tcp.as_ref().map(TcpGate::bind).transpose()?;
        let listener = UnixListener::bind(path).map_err(|error| self.io(error))?;
        let id = file_id(path).map_err(|error| self.io(error))?;
        let gate = UnixGate {
            group: group.unwrap_or_else(nix::unistd::getegid),
            other: other.map(|gid| (gid, Classes::of(&self.access.read_group_may))),
        };
        // From here on the file is removed again, whatever happens.
        let bound = Bound {
            listener: Some(listener),
            gate,
            tcp,
            server: self,
            id,
        };
        let path = bound.path();
        if group.is_some() {
            nix::unistd::chown(path, None, group).map_err(|error| bound.server.io(error.into()))?;
        }
        fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(|error| bound.server.io(error))?;
        if let Some(gid) = other {
            let_group_in(path, gid).map_err(|error| ServeError::NoList {
                path: path.into(),
                error,
            })?;
        }
        Ok(bound)
    }

    fn group_id(&self, key: &'static str, name: Option<&str>) -> Result<Option<Gid>, ServeError> {
        let Some(name) = name else { return Ok(None) };
        let group = nix::unistd::Group::from_name(name).map_err(|error| self.io(error.into()))?;
        let name = name.to_owned();
        group.map_or(Err(ServeError::NoGroup { key, name }), |group| {
            Ok(Some(group.gid))
        })
    }

    fn io(&self, error: io::Error) -> ServeError {
        ServeError::Io {
            path: self.socket.clone(),
            error,
        }
    }
}

impl Bound {
    /// Path of the socket.
    pub fn path(&self) -> &Path {
        &self.server.socket
    }

    /// Our TCP address, if there is a TCP listener.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().map(TcpGate::address)
    }

    /// Serves until `shutdown` is done: then nobody is let in any more, watches are ended, and calls under way have
    /// [`GRACE`] to be answered.
    pub async fn serve<D: Dataplane>(
        mut self,
        dataplane: Arc<D>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let Some(listener) = self.listener.take() else {
            return Ok(());
        };
        let history = History::of(dataplane.store());
        let max = self.server.max_message;
        let service = ConfigService::new(Arc::clone(&dataplane), Arc::clone(&history));
        let config = v1::config_server::ConfigServer::new(service)
            .max_decoding_message_size(max)
            .max_encoding_message_size(usize::MAX);
        let flows = v1::flows_server::FlowsServer::new(FlowsService(Arc::clone(&dataplane)))
            .max_decoding_message_size(max)
            .max_encoding_message_size(usize::MAX);
        let attachments = dataplane.attachments().map(|attachments| {
            v1::attachments_server::AttachmentsServer::new(AttachmentService(attachments))
                .max_decoding_message_size(max)
        });
        let (running, stopping) = tokio::sync::watch::channel(());
        let ipsec = dataplane.ipsec().map(|control| {
            v1::ipsec_server::IpsecServer::new(IpsecService { control, stopping })
                .max_decoding_message_size(max)
                .max_encoding_message_size(usize::MAX)
        });
        let observer = dataplane.observer();
        let hub = observer.as_ref().map(|observer| Arc::clone(observer.events()));
        let observe = observer.map(|observer| {
            v1::observe_server::ObserveServer::new(ObserveService(observer))
                .max_decoding_message_size(max)
                .max_encoding_message_size(usize::MAX)
        });
        let stats =
            v1::stats_server::StatsServer::new(StatsService(dataplane)).max_decoding_message_size(max);
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter
            .set_serving::<v1::config_server::ConfigServer<ConfigService<D>>>()
            .await;
        reporter
            .set_serving::<v1::flows_server::FlowsServer<FlowsService<D>>>()
            .await;
        reporter
            .set_serving::<v1::stats_server::StatsServer<StatsService<D>>>()
            .await;
        if attachments.is_some() {
            reporter
                .set_serving::<v1::attachments_server::AttachmentsServer<AttachmentService>>()
                .await;
        }
        if ipsec.is_some() {
            reporter
                .set_serving::<v1::ipsec_server::IpsecServer<IpsecService>>()
                .await;
        }
        if observe.is_some() {
            reporter
                .set_serving::<v1::observe_server::ObserveServer<ObserveService>>()
                .await;
        }
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let limits = self.server.access.limits;
        let (reception, incoming) = Reception::new(Clients::new(limits));
        let streams = limits
            .requests
            .saturating_add(limits.streams)
            .saturating_add(TOLD);
        let mut gates = JoinSet::new();
        if let Some(tcp) = self.tcp.take() {
            gates.spawn(tcp.run(reception.clone()));
        }
        gates.spawn(self.gate.run(listener, reception));
        let serving = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(PING))
            .http2_keepalive_timeout(Some(PONG))
            .max_concurrent_streams(u32::try_from(streams).unwrap_or(u32::MAX))
            .http2_max_header_list_size(HEADERS)
            .http2_max_pending_accept_reset_streams(Some(TAKEN_BACK))
            .layer(AccessLayer { max_message: max })
            .add_service(config)
            .add_service(flows)
            .add_service(stats)
            .add_optional_service(attachments)
            .add_optional_service(ipsec)
            .add_optional_service(observe)
            .add_service(health)
            .add_service(reflection)
            .serve_with_incoming_shutdown(ReceiverStream::new(incoming).map(Ok::<_, io::Error>), async {
                let _ = stopped.await;
            });
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            result = &mut serving => return result.map_err(Into::into),
            () = shutdown => {}
        }
        // Nobody is let in any more.
        gates.shutdown().await;
        history.close();
        drop(running);
        if let Some(hub) = hub {
            hub.close();
        }
        drop(stop);
        // A client that does not read must not keep the daemon from stopping.
        if let Ok(result) = tokio::time::timeout(GRACE, serving).await {
            result?;
        }
        Ok(())
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Nobody can connect any more; a file that is gone already is fine.
        if file_id(self.path()).is_ok_and(|id| id == self.id) {
            let _ = fs::remove_file(self.path());
        }
    }
}
