//! What the tables say of an address, looked up once for all who ask.

use std::cell::OnceCell;
use std::net::IpAddr;

use octoplane_tables::{Action as Way, Remote, Snapshot, Target};

use super::way::{find, remote};

/// Where packets go, by their destination.
pub(super) struct Place<'a> {
    snapshot: &'a Snapshot,
    addr: IpAddr,
    /// Number of the target that packets to it go to.
    pub(super) number: u32,
    pub(super) target: &'a Target,
    /// Not everybody who goes there has to know it.
    remote: OnceCell<&'a Remote>,
}

impl<'a> Place<'a> {
    pub(super) fn of(snapshot: &'a Snapshot, addr: IpAddr) -> Self {
        let number = find(snapshot, addr);
        Self {
            snapshot,
            addr,
            number,
            target: snapshot.target(number),
            remote: OnceCell::new(),
        }
    }

    /// What is known of the address.
    pub(super) fn remote(&self) -> &'a Remote {
        self.remote.get_or_init(|| remote(self.snapshot, self.addr))
    }

    /// Whether it is an endpoint's of this node.
    pub(super) fn is_endpoint(&self) -> bool {
        self.target.action == Way::Deliver
    }
}
