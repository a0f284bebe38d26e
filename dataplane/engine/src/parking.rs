//! Packets that wait: until a neighbour's Ethernet address is known, or the first fragment of their packet has come.

use std::collections::VecDeque;
use std::net::IpAddr;

use octoplane_flow::Tuple;
use octoplane_packet::{BufPool, PacketBuf};
use octoplane_tables::Snapshot;
use octoplane_tables::model::PortId;

use crate::drop_reason::{Direction, DropReason};
use crate::engine::{Core, Rx};
use crate::event::NeighbourEvent;
use crate::icmp::Error;
use crate::ipsec::Ipsec;
use crate::output::Output;

/// Packets that may wait for one neighbour: the start of a few connections (RFC 1122, 2.3.2.2 asks for at least one).
const PER_NEIGHBOUR: usize = 16;
/// Fragments that may wait for their first ones; the rest of the room is kept for neighbours.
const FRAGMENTS: usize = 64;
/// How often to look for first fragments that other workers have seen, in nanoseconds.
const LOOK_NS: u64 = 1_000_000;

/// What a packet waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// The Ethernet address of a neighbour on a port.
    Neighbour(PortId, IpAddr),
    /// The fragment with the ports; `fragment_ports.rs` knows the key.
    FirstFragment(Tuple),
}

struct Parked<B> {
    buf: B,
    /// Where it came in.
    rx_port: PortId,
    /// When it came in.
    born: u64,
    awaited: Awaited,
    /// Its sender's identity, if it came out of a tunnel.
    inner: Option<u32>,
    /// Whether it came encrypted.
    decrypted: bool,
}

/// All that wait at one worker. Its memory is taken once.
pub(crate) struct ParkingLot<B> {
    waiting: VecDeque<Parked<B>>,
    capacity: usize,
    timeout: u64,
    /// The tables that were looked at last.
    revision: u64,
    /// How many of those that wait are fragments.
    fragments: usize,
    /// When first fragments are looked for next.
    look: u64,
}

impl<B> ParkingLot<B> {
    pub(crate) fn new(capacity: usize, timeout: u64) -> Self {
        Self {
            waiting: VecDeque::with_capacity(capacity),
            capacity,
            timeout,
            revision: 0,
            fragments: 0,
            look: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        self.fragments = 0;
    }

    /// Has the next round look for first fragments.
    pub(crate) fn first_fragment_came(&mut self) {
        self.look = 0;
    }
}

/// Packets that one that waited may become: its fragments, or an error about it.
const ROOM: usize = 64;

impl<P: BufPool> Core<P> {
    /// Keeps a packet until what it waits for is there, and asks for it.
    pub(crate) fn park(
        &mut self,
        rx: &Rx<'_>,
        awaited: Awaited,
        inner: Option<u32>,
        buf: P::Buf,
        out: &mut Output<P::Buf>,
    ) {
        let lot = &mut self.parking;
        let already = lot
            .waiting
            .iter()
            .filter(|parked| parked.awaited == awaited)
            .count();
        let full = match awaited {
            Awaited::Neighbour(port, addr) => {
                if already == 0 {
                    // A full list loses a question that the next packet repeats.
                    let _ = self.events.try_push(NeighbourEvent::Wanted { port, addr });
                }
                already >= PER_NEIGHBOUR
            }
            Awaited::FirstFragment(_) => lot.fragments >= FRAGMENTS,
        };
        if full || lot.waiting.len() >= lot.capacity {
            let reason = match awaited {
                Awaited::Neighbour(..) => DropReason::ParkingFull,
                Awaited::FirstFragment(_) => DropReason::FragmentNotFound,
            };
            return self.discard(rx, reason, buf, out);
        }
        lot.fragments += usize::from(matches!(awaited, Awaited::FirstFragment(_)));
        if self.parking.waiting.is_empty() {
            self.parking.revision = rx.snapshot.revision();
        }
        self.parking.waiting.push_back(Parked {
            buf,
            rx_port: rx.port,
            born: rx.born,
            awaited,
            inner,
            decrypted: rx.decrypted,
        });
        self.stats.parked.set(self.parking.waiting.len() as u64);
    }

    /// Sends what can be sent now, and gives up what waited too long.
    pub(crate) fn retry(
        &mut self,
        snapshot: &Snapshot,
        ipsec: Option<Ipsec<'_>>,
        now: u64,
        out: &mut Output<P::Buf>,
    ) {
        let changed = snapshot.revision() != self.parking.revision;
        let oldest = self.parking.waiting.front().map_or(now, |parked| parked.born);
        let look = self.parking.fragments > 0 && now >= self.parking.look;
        if !changed && !look && now.saturating_sub(oldest) < self.parking.timeout {
            return;
        }
        self.parking.look = now.saturating_add(LOOK_NS);
        self.parking.revision = snapshot.revision();
        // Those that have to go on waiting keep their places; what waits anew, now for something else, comes behind them: a
        // fragment behind the first one of its packet.
        let mut at = 0;
        for _ in 0..self.parking.waiting.len() {
            if out.is_crowded(ROOM) {
                // The others' turn is when the queues have been emptied.
                self.parking.revision = u64::MAX;
                break;
            }
            let Some(parked) = self.parking.waiting.get(at) else {
                break;
            };
            let over = now.saturating_sub(parked.born) >= self.parking.timeout;
            let ready = match &parked.awaited {
                Awaited::Neighbour(..) => changed,
                Awaited::FirstFragment(key) => look && self.first_fragment_seen(key),
            };
            if !over && !ready {
                at += 1;
                continue;
            }
            let Some(Parked {
                buf,
                rx_port,
                born,
                awaited,
                inner,
                decrypted,
            }) = self.parking.waiting.remove(at)
            else {
                break;
            };
            self.parking.fragments -= usize::from(matches!(awaited, Awaited::FirstFragment(_)));
            // What has waited in vain did so while its port was up.
            let Some(view) = snapshot.port(rx_port).filter(|view| over || view.admin_up) else {
                self.stats
                    .count_drop(DropReason::NoDevice, Direction::Ingress, 1, buf.len() as u64);
                out.discard(buf);
                continue;
            };
            let rx = Rx {
                snapshot,
                port: rx_port,
                view,
                now,
                second: crate::connection::second(now),
                born,
                ipsec,
                decrypted,
            };
            match (over, awaited, inner) {
                (true, Awaited::Neighbour(..), inner) => {
                    if inner.is_some() || view.admin_up {
                        self.icmp_error(&rx, buf.data(), Error::HostUnreachable, inner.is_some(), out);
                    }
                    self.discard(&rx, DropReason::NoFib, buf, out);
                }
                (true, Awaited::FirstFragment(_), _) => {
                    self.discard(&rx, DropReason::FragmentNotFound, buf, out);
                }
                (false, _, Some(identity)) => self.slow_inner(&rx, identity, buf, out),
                (false, _, None) => self.slow(&rx, buf, out),
            }
        }
        self.stats.parked.set(self.parking.waiting.len() as u64);
    }
}
