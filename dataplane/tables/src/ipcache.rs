//! What is known of remote addresses, each distinct answer numbered.

use std::net::IpAddr;

use imbl::{OrdMap, OrdSet, Vector};
use octoplane_packet::Prefix;

use crate::fast_map::FastMap;
use crate::model::IpcacheEntry;

/// Reserved identities (specification of the datapath, section 4).
pub mod identity {
    /// This node.
    pub const HOST: u32 = 1;
    /// Anything outside of the cluster.
    pub const WORLD: u32 = 2;
    /// The same where nodes have addresses of both families: IPv4.
    pub const WORLD_IPV4: u32 = 9;
    /// IPv6.
    pub const WORLD_IPV6: u32 = 10;
}

/// What is known of a remote address (specification of the datapath, section 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    /// Its security identity.
    pub identity: u32,
    /// The node it lives on, if a tunnel leads to it.
    pub tunnel: Option<IpAddr>,
    /// Number of the target that packets to the tunnel endpoint take; 0: no route leads there, or there is no tunnel.
    pub tunnel_target: u32,
    /// Number of the encryption key of that node; 0: none.
    pub key: u8,
    /// Whether it is reached without tunnel all the same.
    pub skip_tunnel: bool,
}

impl Remote {
    /// An address of which the identity is known only.
    pub(crate) fn plain(identity: u32) -> Self {
        Self {
            identity,
            tunnel: None,
            tunnel_target: 0,
            key: 0,
            skip_tunnel: false,
        }
    }
}

impl From<&IpcacheEntry> for Remote {
    fn from(entry: &IpcacheEntry) -> Self {
        Self {
            identity: entry.identity,
            tunnel: entry.tunnel,
            tunnel_target: 0,
            key: entry.key,
            skip_tunnel: entry.skip_tunnel,
        }
    }
}

/// A remote without what the writer derives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct RemoteKey {
    identity: u32,
    tunnel: Option<IpAddr>,
    key: u8,
    skip_tunnel: bool,
}

impl From<&Remote> for RemoteKey {
    fn from(remote: &Remote) -> Self {
        Self {
            identity: remote.identity,
            tunnel: remote.tunnel,
            key: remote.key,
            skip_tunnel: remote.skip_tunnel,
        }
    }
}

/// A node at the other end of a tunnel.
#[derive(Clone, Default)]
struct Peer {
    /// Number of the target that leads to it.
    target: u32,
    /// The remotes behind it.
    remotes: OrdSet<u32>,
}

/// Numbers the remotes that entries lead to, and keeps them up to date. Cheap to copy.
#[derive(Clone, Default)]
pub(crate) struct Remotes {
    /// The remote of each number, from 1.
    table: Vector<Remote>,
    /// Number of each remote, and how many entries lead to it.
    by_key: FastMap<RemoteKey, (u32, u32)>,
    free: Vector<u32>,
    peers: OrdMap<IpAddr, Peer>,
    /// Peers without target since [`Remotes::take_fresh`].
    fresh: Vec<IpAddr>,
}

impl Remotes {
    /// What workers look up by number.
    pub(crate) fn table(&self) -> Vector<Remote> {
        self.table.clone()
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Remote> {
        self.table.get((number as usize).checked_sub(1)?)
    }

    /// The number of a remote, with one more user.
    pub(crate) fn acquire(&mut self, remote: Remote) -> u32 {
        let key = RemoteKey::from(&remote);
        if let Some((number, users)) = self.by_key.get_mut(&key) {
            *users += 1;
            return *number;
        }
        let mut remote = Remote {
            tunnel_target: 0,
            ..remote
        };
        let number = self
            .free
            .pop_front()
            .unwrap_or_else(|| self.table.len() as u32 + 1);
        if let Some(addr) = remote.tunnel {
            if !self.peers.contains_key(&addr) {
                self.fresh.push(addr);
            }
            let peer = self.peers.entry(addr).or_default();
            peer.remotes.insert(number);
            remote.tunnel_target = peer.target;
        }
        if number as usize > self.table.len() {
            self.table.push_back(remote);
        } else {
            self.table.set(number as usize - 1, remote);
        }
        self.by_key.insert(key, (number, 1));
        number
    }

    /// One more user of a number that is in use.
    pub(crate) fn share(&mut self, number: u32) {
        let Some(key) = self.get(number).map(RemoteKey::from) else {
            return;
        };
        if let Some((_, users)) = self.by_key.get_mut(&key) {
            *users += 1;
        }
    }

    /// One user less.
    pub(crate) fn release(&mut self, number: u32) {
        let Some(key) = self.get(number).map(RemoteKey::from) else {
            return;
        };
        match self.by_key.get_mut(&key) {
            Some((_, users)) if *users > 1 => *users -= 1,
            _ => {
                self.by_key.remove(&key);
                self.free.push_back(number);
                if let Some(addr) = key.tunnel
                    && let Some(peer) = self.peers.get_mut(&addr)
                {
                    peer.remotes.remove(&number);
                    if peer.remotes.is_empty() {
                        self.peers.remove(&addr);
                    }
                }
            }
        }
    }

    /// The tunnel endpoints that came since the last call.
    pub(crate) fn take_fresh(&mut self) -> Vec<IpAddr> {
        std::mem::take(&mut self.fresh)
    }

    /// The tunnel endpoints in a prefix.
    pub(crate) fn peers_in(&self, prefix: Prefix) -> impl Iterator<Item = IpAddr> + '_ {
        self.peers
            .range(prefix.addr()..)
            .map(|(&addr, _)| addr)
            .take_while(move |&addr| prefix.contains(addr))
    }

    /// Says which target leads to a tunnel endpoint.
    pub(crate) fn set_target(&mut self, addr: IpAddr, target: u32) {
        let Some(peer) = self.peers.get_mut(&addr) else {
            return;
        };
        if peer.target == target {
            return;
        }
        peer.target = target;
        for number in &peer.remotes {
            if let Some(remote) = self.table.get_mut(*number as usize - 1) {
                remote.tunnel_target = target;
            }
        }
    }
}
