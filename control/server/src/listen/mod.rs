//! Where clients come from: listeners that find out who connects before anything is read.

mod io;
mod tcp;
mod tls;
mod unix;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use io::Io;
pub(crate) use tcp::TcpGate;
pub use tls::TlsError;
use tokio::sync::mpsc;
pub(crate) use unix::UnixGate;

use crate::access::Clients;

/// Connections that were let in and wait to be served.
const WAITING: usize = 64;
/// How long nobody is accepted after the system refused to: mostly, there are too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// What listeners need.
#[derive(Clone)]
pub(crate) struct Reception {
    pub(crate) clients: Arc<Clients>,
    pub(crate) served: mpsc::Sender<Io>,
}

impl Reception {
    /// A reception, and who comes through it.
    pub(crate) fn new(clients: Clients) -> (Self, mpsc::Receiver<Io>) {
        let (served, incoming) = mpsc::channel(WAITING);
        let reception = Self {
            clients: Arc::new(clients),
            served,
        };
        (reception, incoming)
    }
}
