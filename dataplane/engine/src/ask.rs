//! Policy for packets that begin no connection: what ends here, and what leads nowhere.

use std::net::IpAddr;

use octoplane_packet::BufPool;
use octoplane_tables::model::{HOST_ENDPOINT, Role};
use octoplane_tables::{Action, Target};

use crate::connection::Packet;
use crate::engine::{Core, Rx};
use crate::slow::sender;
use crate::verdict::Verdict::{self, Drop};

impl<P: BufPool> Core<P> {
    /// The same for a packet that leads nowhere: policy comes before the way (specification, 1.2 step 12, 1.5 `cil_from_host`).
    pub(crate) fn ask_before_lost(
        &mut self,
        rx: &Rx<'_>,
        frame: &[u8],
        target: &Target,
        src: IpAddr,
    ) -> Result<(), Verdict> {
        let lost = matches!(
            target.action,
            Action::None | Action::Host | Action::Blackhole | Action::PortDown
        );
        if !lost || !asks(rx) {
            return Ok(());
        }
        self.ask_with_ports(rx, frame, src)
    }

    /// The same for a packet that ends here, which the node's policy guards, too (1.5 step 9).
    pub(crate) fn ask_here(&mut self, rx: &Rx<'_>, frame: &[u8], src: IpAddr) -> Result<(), Verdict> {
        match asks(rx) || rx.snapshot.policy(HOST_ENDPOINT).is_some() {
            true => self.ask_with_ports(rx, frame, src),
            false => Ok(()),
        }
    }

    /// What policy says of a packet that has waited for its first fragment if it is a later one.
    pub(crate) fn ask_with_ports(&mut self, rx: &Rx<'_>, frame: &[u8], src: IpAddr) -> Result<(), Verdict> {
        let mut packet = match src {
            IpAddr::V4(_) => Packet::v4(frame),
            IpAddr::V6(_) => Packet::v6(frame),
        }
        .map_err(Drop)?;
        let _ = self.find_ports(rx, frame, &mut packet);
        self.may_send(rx, &packet, sender(rx, src))
    }

    /// What policy says of a packet by what can be read in it.
    pub(crate) fn ask_as_it_is(&self, rx: &Rx<'_>, frame: &[u8], src: IpAddr) -> Result<(), Verdict> {
        let packet = match src {
            IpAddr::V4(_) => Packet::v4(frame),
            IpAddr::V6(_) => Packet::v6(frame),
        };
        let packet = packet.map_err(Drop)?;
        self.may_send(rx, &packet, sender(rx, src))
    }

    /// Whether an endpoint, or the node, may send a packet that begins no connection: what ends here is asked about each time.
    pub(crate) fn ask_policy(&self, rx: &Rx<'_>, frame: &[u8], src: IpAddr) -> Result<(), Verdict> {
        match asks(rx) {
            true => self.ask_as_it_is(rx, frame, src),
            false => Ok(()),
        }
    }
}

/// Whether a packet that begins no connection is somebody's to allow: an endpoint's, or the node's if it has a policy.
fn asks(rx: &Rx<'_>) -> bool {
    match rx.view.role {
        Role::Pod => true,
        Role::Host => rx.snapshot.policy(HOST_ENDPOINT).is_some(),
        Role::Uplink => false,
    }
}
