//! Clients, what they have in hand at once, and how fast they ask.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use octoplane_config::ClientLimits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::{Classes, Kind};

/// Clients that are remembered although they have no connection, so that coming back does not make them new ones.
const REMEMBERED: usize = 1024;

/// Who a client is, as far as limits are concerned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum ClientId {
    /// A user of this machine, by number.
    User(u32),
    /// Somebody with a certificate that stands in the configuration, by the name given there.
    Certificate(String),
    /// Everybody else with a certificate of the right authority, together.
    UnknownCertificate,
    /// Somebody on the management wire.
    Address(IpAddr),
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) => write!(f, "user {uid}"),
            Self::Certificate(name) => write!(f, "{name}"),
            Self::UnknownCertificate => f.write_str("a certificate that control.tcp.clients does not name"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// One client.
pub(crate) struct Client {
    id: ClientId,
    limits: ClientLimits,
    connections: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    rate: DefaultDirectRateLimiter,
}

/// The other end of one connection. A copy of it comes with each request.
#[derive(Clone)]
pub(crate) struct Peer {
    client: Arc<Client>,
    /// What it may do on this connection: the same user may be in different groups.
    pub(crate) may: Classes,
}

/// Held for as long as a connection is open.
pub(crate) struct ConnectionPermit {
    _permit: OwnedSemaphorePermit,
}

/// Held for as long as a request is worked on, its answer included.
pub(crate) struct RequestPermit {
    _permit: OwnedSemaphorePermit,
}

/// All clients.
pub(crate) struct Clients {
    limits: ClientLimits,
    known: Mutex<HashMap<ClientId, Arc<Client>>>,
}

impl Clients {
    pub(crate) fn new(limits: ClientLimits) -> Self {
        Self {
            limits,
            known: Mutex::default(),
        }
    }

    /// Takes a connection, or says why not.
    pub(crate) fn connect(
        &self,
        id: ClientId,
        may: Classes,
    ) -> Result<(Peer, ConnectionPermit), &'static str> {
        let client = self.client(id);
        if client.rate.check().is_err() {
            return Err("too many connections and requests a second");
        }
        let permit = Arc::clone(&client.connections)
            .try_acquire_owned()
            .map_err(|_| "too many connections")?;
        Ok((Peer { client, may }, ConnectionPermit { _permit: permit }))
    }

    fn client(&self, id: ClientId) -> Arc<Client> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED && !known.contains_key(&id) {
            // Whoever has a connection holds a reference.
            known.retain(|_, client| Arc::strong_count(client) > 1);
        }
        let client = known
            .entry(id)
            .or_insert_with_key(|id| Arc::new(Client::new(id.clone(), self.limits)));
        Arc::clone(client)
    }
}

impl Client {
    fn new(id: ClientId, limits: ClientLimits) -> Self {
        let rate = NonZeroU32::new(limits.requests_per_second).unwrap_or(NonZeroU32::MIN);
        Self {
            id,
            limits,
            connections: Arc::new(Semaphore::new(limits.connections)),
            requests: Arc::new(Semaphore::new(limits.requests)),
            streams: Arc::new(Semaphore::new(limits.streams)),
            rate: RateLimiter::direct(Quota::per_second(rate)),
        }
    }
}

impl Peer {
    /// Whether the client asks slowly enough.
    pub(crate) fn check_rate(&self) -> Result<(), Status> {
        let Client { id, limits, rate, .. } = &*self.client;
        rate.check().map_err(|_| {
            let most = limits.requests_per_second;
            Status::resource_exhausted(format!(
                "{id} asks too often, expected at most {most} requests a second \
                 (control.client_requests_per_second)"
            ))
        })
    }

    /// Takes a request that lasts as its kind says.
    pub(crate) fn begin(&self, kind: Kind) -> Result<RequestPermit, Status> {
        let Client {
            id,
            limits,
            requests,
            streams,
            ..
        } = &*self.client;
        let (room, most, what, key) = match kind {
            Kind::Call => (requests, limits.requests, "requests", "control.client_requests"),
            Kind::Endless => (streams, limits.streams, "streams", "control.client_streams"),
        };
        let permit = Arc::clone(room).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!(
                "{id} has {most} {what} open already, expected at most so many at once ({key})"
            ))
        })?;
        Ok(RequestPermit { _permit: permit })
    }

    pub(crate) fn id(&self) -> &ClientId {
        &self.client.id
    }

    pub(crate) fn limits(&self) -> &ClientLimits {
        &self.client.limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coming_back_does_not_make_a_new_client() {
        let limits = ClientLimits {
            connections: 2,
            requests_per_second: 4,
            ..ClientLimits::default()
        };
        let clients = Clients::new(limits);
        let connect = |uid| clients.connect(ClientId::User(uid), Classes::all());
        let first = connect(1).unwrap();
        let _second = connect(1).unwrap();
        assert_eq!(connect(1).err(), Some("too many connections"));
        drop(first);
        connect(1).unwrap();
        // Four in this second; more than anybody makes in one are refused some time.
        let told = (0..10_000).find_map(|_| connect(1).err());
        assert_eq!(told, Some("too many connections and requests a second"));
        assert!(connect(2).is_ok(), "others are not concerned");
    }

    #[test]
    fn requests_and_streams_are_counted_apart() {
        let limits = ClientLimits {
            requests: 1,
            streams: 1,
            ..ClientLimits::default()
        };
        let clients = Clients::new(limits);
        let (peer, _permit) = clients.connect(ClientId::User(7), Classes::all()).unwrap();
        let call = peer.begin(Kind::Call).unwrap();
        let _watch = peer.begin(Kind::Endless).unwrap();
        let refused = peer.begin(Kind::Call).err().unwrap();
        assert_eq!(
            refused.message(),
            "user 7 has 1 requests open already, expected at most so many at once (control.client_requests)"
        );
        drop(call);
        assert!(peer.begin(Kind::Call).is_ok());
        assert!(peer.begin(Kind::Endless).is_err());
    }

    #[test]
    fn who_has_gone_is_forgotten_when_there_are_many() {
        let clients = Clients::new(ClientLimits::default());
        let stays = clients.connect(ClientId::User(0), Classes::all()).unwrap();
        for uid in 1..=2 * REMEMBERED as u32 {
            clients.connect(ClientId::User(uid), Classes::all()).unwrap();
        }
        let known = clients.known.lock().unwrap();
        assert!(known.len() <= REMEMBERED && known.contains_key(stays.0.id()));
    }
}
