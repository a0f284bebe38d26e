//! A connection that was let in.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

use crate::access::{ConnectionPermit, Peer};

/// How long a client may take to begin: connection preface and first frame (RFC 9113, section 3.4). From then on, HTTP/2's own
/// pings find out who does not answer.
const BEGINNING: Duration = Duration::from_secs(10);
/// Bytes of these two: 24, and a frame header.
const PREFACE: usize = 24 + 9;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection, who is at its other end, and the room that it takes.
pub(crate) struct Io {
    stream: Box<dyn Stream>,
    peer: Peer,
    _permit: ConnectionPermit,
    /// Until the client has begun: when it must have.
    beginning: Option<Pin<Box<Sleep>>>,
    read: usize,
}

impl Io {
    pub(crate) fn new(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        (peer, permit): (Peer, ConnectionPermit),
    ) -> Self {
        Self {
            stream: Box::new(stream),
            peer,
            _permit: permit,
            beginning: Some(Box::pin(tokio::time::sleep(BEGINNING))),
            read: 0,
        }
    }
}

impl Connected for Io {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(end) = &mut self.beginning
            && end.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if self.beginning.is_some() {
            self.read += buf.filled().len() - before;
            if self.read >= PREFACE {
                self.beginning = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
