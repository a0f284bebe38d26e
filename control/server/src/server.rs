//! The control socket.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use octoplane_api::v1;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

use crate::config::ConfigService;
use crate::dataplane::Dataplane;
use crate::stats::StatsService;
use crate::watch::Watchers;

/// Why the control socket is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody else serves it.
    #[error("{0}: another daemon listens there")]
    InUse(PathBuf),
    /// Something that is no socket is in the way.
    #[error("{0}: there is a file that is not a socket")]
    NotASocket(PathBuf),
    /// The configured group does not exist.
    #[error("control.socket_group: there is no group \"{0}\"")]
    NoGroup(String),
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
    /// Group that may use the socket besides root.
    pub group: Option<String>,
    /// Largest message taken from a client, in bytes.
    pub max_message: usize,
}

/// A socket that listens. Dropping it removes the socket's file.
pub struct Bound {
    listener: Option<UnixListener>,
    server: Server,
}

impl Server {
    /// Whether the socket can be bound: refuses when somebody answers there.
    pub fn probe(&self) -> Result<(), ServeError> {
        let path = &self.socket;
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.io(error)),
            Ok(meta) if !meta.file_type().is_socket() => Err(ServeError::NotASocket(path.clone())),
            Ok(_) if UnixStream::connect(path).is_ok() => Err(ServeError::InUse(path.clone())),
            Ok(_) => Ok(()),
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
        let listener = UnixListener::bind(path).map_err(|error| self.io(error))?;
        fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(|error| self.io(error))?;
        if let Some(name) = &self.group {
            let group = nix::unistd::Group::from_name(name).map_err(|error| self.io(error.into()))?;
            let group = group.ok_or_else(|| ServeError::NoGroup(name.clone()))?;
            nix::unistd::chown(path, None, Some(group.gid)).map_err(|error| self.io(error.into()))?;
        }
        Ok(Bound {
            listener: Some(listener),
            server: self,
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

    /// Serves until `shutdown` is done. Streams that are open then are cut off.
    pub async fn serve<D: Dataplane>(
        mut self,
        dataplane: Arc<D>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let Some(listener) = self.listener.take() else {
            return Ok(());
        };
        let store = dataplane.store().clone();
        let max = self.server.max_message;
        let config =
            v1::config_server::ConfigServer::new(ConfigService::new(store.clone(), Watchers::new(&store)))
                .max_decoding_message_size(max)
                .max_encoding_message_size(usize::MAX);
        let stats =
            v1::stats_server::StatsServer::new(StatsService(dataplane)).max_decoding_message_size(max);
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter
            .set_serving::<v1::config_server::ConfigServer<ConfigService>>()
            .await;
        reporter
            .set_serving::<v1::stats_server::StatsServer<StatsService<D>>>()
            .await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let serving = tonic::transport::Server::builder()
            .add_service(config)
            .add_service(stats)
            .add_service(health)
            .add_service(reflection)
            .serve_with_incoming(UnixListenerStream::new(listener));
        // Not the graceful way: a watcher that never hangs up must not keep the daemon from stopping.
        tokio::select! {
            result = serving => result?,
            () = shutdown => {}
        }
        Ok(())
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Nobody can connect any more; a file that is gone already is fine.
        let _ = fs::remove_file(&self.server.socket);
    }
}
