//! The TCP listener: with mutual TLS, or bound to the management wire.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use octoplane_config::{ControlTcp, Guard};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::tls::Tls;
use super::{Io, PAUSE, Reception};
use crate::access::{Classes, ClientId};
use crate::server::ServeError;

/// Connections that the kernel keeps for us.
const BACKLOG: u32 = 256;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes at once: whoever begins them is not known yet.
const HANDSHAKES: usize = 256;
/// Of these, from one address.
const HANDSHAKES_OF_ONE: usize = 16;

/// A TCP listener and who may come in there.
pub(crate) struct TcpGate {
    listener: TcpListener,
    address: SocketAddr,
    door: Door,
}

enum Door {
    Tls(Tls),
    Plain(Classes),
}

impl TcpGate {
    /// Listens. Must be called inside a tokio runtime.
    pub(crate) fn bind(config: &ControlTcp) -> Result<Self, ServeError> {
        let failed = |error| ServeError::Tcp {
            address: config.listen,
            error,
        };
        let (socket, door) = match &config.guard {
            Guard::Tls {
                certificate,
                key,
                client_ca,
                clients,
            } => {
                let tls = Tls::load(certificate, key, client_ca, clients)?;
                (socket(config.listen).map_err(failed)?, Door::Tls(tls))
            }
            Guard::ManagementInterface { interface, may } => {
                let socket = socket(config.listen).map_err(failed)?;
                // Whatever the routes say, what comes from another interface does not reach it.
                socket
                    .bind_device(Some(interface.as_bytes()))
                    .map_err(|error| ServeError::Interface {
                        interface: interface.clone(),
                        error,
                    })?;
                (socket, Door::Plain(Classes::of(may)))
            }
        };
        socket.bind(config.listen).map_err(failed)?;
        let listener = socket.listen(BACKLOG).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            address,
            door,
        })
    }

    /// Our address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets clients in until nobody serves them any more.
    pub(crate) async fn run(self, reception: Reception) {
        let door = Arc::new(self.door);
        let handshakes = Arc::new(Handshakes::default());
        let mut tasks = JoinSet::new();
        loop {
            let (stream, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "control.tcp: nobody can be let in");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            while tasks.try_join_next().is_some() {}
            let Some(turn) = handshakes.begin(address.ip()) else {
                debug!(%address, "control.tcp: too many handshakes at once");
                continue;
            };
            let (door, reception) = (Arc::clone(&door), reception.clone());
            tasks.spawn(async move {
                let accepted =
                    tokio::time::timeout(HANDSHAKE, door.let_in(stream, address, &reception)).await;
                drop(turn);
                match accepted {
                    Ok(Ok(io)) => {
                        // An error: nobody serves any more.
                        let _ = reception.served.send(io).await;
                    }
                    Ok(Err(error)) => debug!(%address, %error, "control.tcp: refused"),
                    Err(_) => debug!(%address, "control.tcp: no handshake in time"),
                }
            });
        }
    }
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    Ok(socket)
}

impl Door {
    async fn let_in(&self, stream: TcpStream, address: SocketAddr, reception: &Reception) -> io::Result<Io> {
        stream.set_nodelay(true)?;
        let connect = |id, may| {
            let accepted = reception.clients.connect(id, may);
            accepted.map_err(|reason| io::Error::new(io::ErrorKind::QuotaExceeded, reason))
        };
        match self {
            Self::Plain(may) => {
                // What this machine sends to one of its addresses counts as coming from the interface that has it.
                if is_ours(address.ip())? {
                    return Err(io::Error::new(
                        io::ErrorKind::PermissionDenied,
                        "from this machine, which has the socket",
                    ));
                }
                let accepted = connect(ClientId::Address(address.ip()), *may)?;
                Ok(Io::new(stream, accepted))
            }
            Self::Tls(tls) => {
                let stream = tls.acceptor().accept(stream).await?;
                let certificates = stream.get_ref().1.peer_certificates();
                let Some(certificate) = certificates.and_then(<[_]>::first) else {
                    return Err(io::Error::other("no certificate"));
                };
                let (id, may) = tls.owner(certificate);
                let accepted = connect(id, may)?;
                Ok(Io::new(stream, accepted))
            }
        }
    }
}

/// Whether an address is one of this machine's.
fn is_ours(address: IpAddr) -> io::Result<bool> {
    let address = address.to_canonical();
    if address.is_loopback() {
        return Ok(true);
    }
    let mut all = nix::ifaddrs::getifaddrs()?;
    Ok(all.any(|interface| {
        interface.address.is_some_and(|own| {
            let v4 = own.as_sockaddr_in().map(|it| IpAddr::from(it.ip()));
            let v6 = own.as_sockaddr_in6().map(|it| IpAddr::from(it.ip()));
            v4.or(v6) == Some(address)
        })
    }))
}

/// Handshakes under way, by address.
#[derive(Default)]
struct Handshakes(Mutex<HashMap<IpAddr, usize>>);

/// Held for as long as a handshake takes.
struct Turn {
    handshakes: Arc<Handshakes>,
    address: IpAddr,
}

impl Handshakes {
    fn begin(self: &Arc<Self>, address: IpAddr) -> Option<Turn> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.values().sum::<usize>() >= HANDSHAKES {
            return None;
        }
        let own = all.entry(address).or_default();
        if *own >= HANDSHAKES_OF_ONE {
            return None;
        }
        *own += 1;
        drop(all);
        Some(Turn {
            handshakes: Arc::clone(self),
            address,
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut all = self.handshakes.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = all.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                all.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_known() {
        for address in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert!(is_ours(address.parse().unwrap()).unwrap(), "{address}");
        }
        // Of a network for documentation (RFC 5737).
        assert!(!is_ours("203.0.113.77".parse().unwrap()).unwrap());
    }

    #[test]
    fn handshakes_have_limits() {
        let handshakes = Arc::new(Handshakes::default());
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let first: Vec<_> = (0..HANDSHAKES_OF_ONE)
            .map(|_| handshakes.begin(address(1)).unwrap())
            .collect();
        assert!(handshakes.begin(address(1)).is_none());
        let mut others: Vec<_> = (HANDSHAKES_OF_ONE..HANDSHAKES)
            .map(|n| {
                handshakes
                    .begin(address(2 + (n / HANDSHAKES_OF_ONE) as u8))
                    .unwrap()
            })
            .collect();
        assert!(handshakes.begin(address(200)).is_none(), "all are taken");
        others.pop();
        let last = handshakes.begin(address(200));
        assert!(last.is_some());
        drop((first, others, last));
        assert!(handshakes.0.lock().unwrap().is_empty());
    }
}
