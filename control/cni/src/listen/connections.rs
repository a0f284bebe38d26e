//! Connections that come in: no more than a number at once, and accepting goes on whatever goes wrong with one.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::warn;

/// How long accepting rests after an error, such as too many open files.
const PAUSE: Duration = Duration::from_millis(200);

/// One connection, which counts as long as it lives.
pub(super) struct Connection {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
}

/// The connections of a listener.
pub(super) struct Connections {
    accepted: mpsc::Receiver<Connection>,
    accepting: JoinHandle<()>,
}

impl Connections {
    /// Accepts from `listener`, as long as there are less than `most`.
    pub(super) fn of(listener: TcpListener, most: usize) -> Self {
        let (send, accepted) = mpsc::channel(1);
        let accepting = tokio::spawn(async move {
            let room = Arc::new(Semaphore::new(most));
            while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        // A call is one small packet each way.
                        let _ = stream.set_nodelay(true);
                        let connection = Connection {
                            stream,
                            _permit: permit,
                        };
                        if send.send(connection).await.is_err() {
                            break;
                        }
                    }
                    Err(error) => {
                        warn!("CNIAction: a connection was not accepted: {error}");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        });
        Self { accepted, accepting }
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Stream for Connections {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.accepted
            .poll_recv(context)
            .map(|connection| connection.map(Ok))
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        let known = |address: io::Result<SocketAddr>| address.ok();
        TcpConnectInfo {
            local_addr: known(self.stream.local_addr()),
            remote_addr: known(self.stream.peer_addr()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
