//! What policies of IPsec need of the engine. They are no part of the pipeline: they stand between it and the uplinks, and see
//! packets as they are on the wire.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use octoplane_packet::{BufPool, PacketBuf};
use octoplane_tables::model::{PortId, Role, Routing};
use octoplane_tables::{Action, Snapshot, identity};

use crate::connection;
use crate::drop_reason::DropReason;
use crate::engine::{BURST, Core, Engine, Rx};
use crate::fragment::MAX_PIECES;
use crate::icmp::Error;
use crate::ipsec::REMOTE_NODES;
use crate::output::Output;

/// How a packet that nobody received is looked at.
fn rx<'a>(snapshot: &'a Snapshot, now: u64, port: PortId) -> Option<Rx<'a>> {
    let view = snapshot.port(port).filter(|view| view.admin_up)?;
    Some(Rx {
        snapshot,
        port,
        view,
        now,
        second: connection::second(now),
        born: now,
        ipsec: None,
        decrypted: false,
    })
}

impl<P: BufPool> Engine<P> {
    /// What is at the other end of a port.
    pub fn role(&mut self, port: PortId) -> Option<Role> {
        self.reader.load().port(port).map(|view| view.role)
    }

    /// Counts packets that a port received and that the engine does not get to see.
    pub fn count_received(&mut self, port: PortId, packets: u64, bytes: u64) {
        let stats = self.core.stats.port(port);
        stats.rx_packets.add(packets);
        stats.rx_bytes.add(bytes);
    }

    /// Takes frames through the pipeline that are to go the way of what `port`, an uplink, receives: what ESP made, or what was
    /// in it. Each starts with an Ethernet header, of which type and destination (the port's address) count. Packets that wait
    /// for something are not looked after.
    #[inline(never)]
    pub fn forward(
        &mut self,
        now: u64,
        port: PortId,
        burst: &mut ArrayVec<P::Buf, BURST>,
        out: &mut Output<P::Buf>,
    ) {
        let ipsec = crate::ipsec::Ipsec::load(self.ipsec.as_mut());
        let Some(rx) = rx(self.reader.load(), now, port).map(|rx| Rx { ipsec, ..rx }) else {
            for buf in burst.drain(..) {
                let bytes = buf.len() as u64;
                self.core
                    .stats
                    .count_drop(DropReason::NoDevice, crate::Direction::Ingress, 1, bytes);
                out.discard(buf);
            }
            return;
        };
        self.core.burst::<false>(&rx, burst, out);
    }

    /// Whether a packet may leave in the clear although both addresses are where everything is encrypted (specification, 1.10): one
    /// of this machine's own, or, where nodes have addresses there (`nodes`) or there is a tunnel, one to another node.
    pub fn may_go_plain(&mut self, src: IpAddr, dst: IpAddr, nodes: bool) -> bool {
        let snapshot = self.reader.load();
        let target = match src {
            IpAddr::V4(src) => snapshot.route4(src.to_bits()),
            IpAddr::V6(src) => snapshot.route6(src.to_bits()),
        };
        let own =
            target.action == Action::Local || connection::remote(snapshot, src).identity == identity::HOST;
        let nodes = nodes || snapshot.node().routing == Routing::Tunnel;
        own || nodes && REMOTE_NODES.contains(&connection::remote(snapshot, dst).identity)
    }

    /// The largest IP packet on the way to this address, in bytes; `None` if there is no way.
    pub fn mtu_towards(&mut self, dst: IpAddr) -> Option<u16> {
        let snapshot = self.reader.load();
        let target = match dst {
            IpAddr::V4(dst) => snapshot.route4(dst.to_bits()),
            IpAddr::V6(dst) => snapshot.route6(dst.to_bits()),
        };
        matches!(
            target.action,
            Action::Forward | Action::Deliver | Action::Resolve | Action::Glean
        )
        .then_some(target.mtu)
    }

    /// An ICMP error that tells the sender of a frame, which is ready to leave `port`, that it is larger than `mtu` allows. For
    /// [`Engine::forward`], by `port`: so its way is that of an error from a router behind it. `None` if there may be none.
    pub fn too_big(
        &mut self,
        now: u64,
        port: PortId,
        frame: &[u8],
        mtu: u16,
        out: &mut Output<P::Buf>,
    ) -> Option<P::Buf> {
        let rx = rx(self.reader.load(), now, port)?;
        let queued = |out: &mut Output<P::Buf>| out.queue(port).map_or(0, |queue| queue.len());
        let before = queued(out);
        // The frame's source is the port: back to there.
        self.core.icmp_error(&rx, frame, Error::TooBig(mtu), false, out);
        if queued(out) == before {
            return None;
        }
        out.queue(port)?.pop()
    }

    /// Cuts a frame with an IPv4 packet into fragments of at most `mtu` bytes each.
    ///
    /// # Errors
    /// Reason to drop it. There may be fragments then, too.
    pub fn cut(
        &mut self,
        frame: &[u8],
        mtu: u16,
        pieces: &mut ArrayVec<P::Buf, MAX_PIECES>,
    ) -> Result<(), DropReason> {
        let core: &mut Core<P> = &mut self.core;
        core.cut(frame, mtu, pieces)?;
        core.stats.fragmented.add(1);
        Ok(())
    }
}
