//! What is known of remote addresses, each distinct answer numbered.

use std::collections::BTreeSet;
use std::net::IpAddr;

use imbl::{OrdMap, Vector};
use octoplane_packet::Prefix;

use crate::model::{IpcacheEntry, MAX_IDENTITY};

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
    /// Number of that node, for [`crate::Snapshot::tunnel_end`]; 0: there is no tunnel.
    pub tunnel_end: u32,
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
            tunnel_end: 0,
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
            tunnel_end: 0,
            key: entry.key,
            skip_tunnel: entry.skip_tunnel,
        }
    }
}

/// A node at the other end of a tunnel.
#[derive(Clone, Copy)]
struct Peer {
    number: u32,
    /// Number of the target that leads to it.
    target: u32,
    /// How many remotes and egress-gateway rules lead to it.
    users: u32,
}

/// Numbers the remotes that entries lead to, and keeps them up to date. Cheap to copy.
#[derive(Clone, Default)]
pub(crate) struct Remotes {
    /// The remote of each number, from 1.
    table: Vector<Remote>,
    /// Number of each remote, and how many entries lead to it. Those behind one peer stand side by side.
    by_key: OrdMap<u64, (u32, u32)>,
    free: Vector<u32>,
    peers: OrdMap<IpAddr, Peer>,
    free_peers: Vector<u32>,
    /// Peers that came since [`Remotes::take_fresh`].
    fresh: Vec<IpAddr>,
    /// Numbers of peers that went since [`Remotes::take_gone`].
    gone: Vec<u32>,
}

/// Bits of a remote's key below the number of its peer.
const PEER_SHIFT: u32 = 35;

/// What tells a remote from others, in one word. The numbers of peers fit as they are fewer than the values of a tree.
fn pack(remote: &Remote, peer: u32) -> u64 {
    u64::from(peer) << PEER_SHIFT
        | u64::from(remote.skip_tunnel) << 34
        | u64::from(remote.key) << 26
        | u64::from(remote.identity & MAX_PACKED_IDENTITY)
}

const MAX_PACKED_IDENTITY: u32 = (1 << 26) - 1;
const _: () = assert!(MAX_IDENTITY <= MAX_PACKED_IDENTITY);

impl Remotes {
    /// What workers look up by number.
    pub(crate) fn table(&self) -> Vector<Remote> {
        self.table.clone()
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Remote> {
        self.table.get((number as usize).checked_sub(1)?)
    }

    /// The number of a remote, with one more user.
    pub(crate) fn acquire(&mut self, mut remote: Remote) -> u32 {
        // Peers have numbers from 1; behind a new one there is nothing yet.
        let existing = match remote.tunnel {
            None => Some(0),
            Some(addr) => self.peers.get(&addr).map(|peer| peer.number),
        };
        if let Some(number) = existing.and_then(|peer| self.share_key(pack(&remote, peer))) {
            return number;
        }
        remote.tunnel_end = remote.tunnel.map_or(0, |addr| self.acquire_peer(addr));
        let number = if let Some(number) = self.free.pop_front() {
            self.table.set(number as usize - 1, remote);
            number
        } else {
            self.table.push_back(remote);
            self.table.len() as u32
        };
        self.by_key.insert(pack(&remote, remote.tunnel_end), (number, 1));
        number
    }

    /// One more user of a number that is in use.
    pub(crate) fn share(&mut self, number: u32) {
        if let Some(key) = self.key(number) {
            self.share_key(key);
        }
    }

    /// One user less.
    pub(crate) fn release(&mut self, number: u32) {
        let Some(key) = self.key(number) else { return };
        match self.by_key.get_mut(&key) {
            Some((_, users)) if *users > 1 => *users -= 1,
            Some(_) => {
                self.by_key.remove(&key);
                self.free.push_back(number);
                if let Some(addr) = self.get(number).and_then(|remote| remote.tunnel) {
                    self.release_peer(addr);
                }
            }
            None => {}
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

    /// The numbers of tunnel endpoints that went since the last call; they may be others' by now.
    pub(crate) fn take_gone(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.gone)
    }

    /// The tunnel endpoints that some targets lead to.
    pub(crate) fn peers_behind(&self, targets: &BTreeSet<u32>) -> impl Iterator<Item = IpAddr> {
        let peers = self
            .peers
            .iter()
            .filter(|(_, peer)| targets.contains(&peer.target));
        peers.map(|(&addr, _)| addr)
    }

    /// All tunnel endpoints.
    pub(crate) fn peers(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.peers.keys().copied()
    }

    /// Says which target leads to a tunnel endpoint; returns the endpoint's number.
    pub(crate) fn set_target(&mut self, addr: IpAddr, target: u32) -> Option<u32> {
        let peer = self.peers.get_mut(&addr)?;
        peer.target = target;
        Some(peer.number)
    }

    /// The number of a tunnel endpoint, or 0.
    pub(crate) fn peer_number(&self, addr: IpAddr) -> u32 {
        self.peers.get(&addr).map_or(0, |peer| peer.number)
    }

    /// The number of a tunnel endpoint, with one more user.
    pub(crate) fn acquire_peer(&mut self, addr: IpAddr) -> u32 {
        let mut peer = self.peers.get(&addr).copied();
        let peer = peer.get_or_insert_with(|| self.new_peer(addr));
        peer.users += 1;
        self.peers.insert(addr, *peer);
        peer.number
    }

    /// One user of a tunnel endpoint less.
    pub(crate) fn release_peer(&mut self, addr: IpAddr) {
        match self.peers.get_mut(&addr) {
            Some(peer) if peer.users > 1 => peer.users -= 1,
            Some(&mut Peer { number, .. }) => {
                self.peers.remove(&addr);
                self.free_peers.push_back(number);
                self.gone.push(number);
            }
            None => {}
        }
    }

    fn key(&self, number: u32) -> Option<u64> {
        let remote = self.get(number)?;
        Some(pack(remote, remote.tunnel_end))
    }

    fn share_key(&mut self, key: u64) -> Option<u32> {
        let (number, users) = self.by_key.get_mut(&key)?;
        *users += 1;
        Some(*number)
    }

    fn new_peer(&mut self, addr: IpAddr) -> Peer {
        self.fresh.push(addr);
        let number = self
            .free_peers
            .pop_front()
            .unwrap_or_else(|| self.peers.len() as u32 + 1);
        Peer {
            number,
            target: 0,
            users: 0,
        }
    }
}
