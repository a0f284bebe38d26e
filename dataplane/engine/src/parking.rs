//! Packets that wait until a neighbour's Ethernet address is known.

use std::collections::VecDeque;
use std::net::IpAddr;

use octoplane_packet::{BufPool, PacketBuf};
use octoplane_tables::Snapshot;
use octoplane_tables::model::PortId;

use crate::drop_reason::{Direction, DropReason};
use crate::engine::{Core, Rx};
use crate::event::NeighbourEvent;
use crate::icmp::Error;
use crate::output::Output;

/// Packets that may wait for one neighbour: the start of a few connections (RFC 1122, 2.3.2.2 asks for at least one).
const PER_NEIGHBOUR: usize = 16;

struct Parked<B> {
    buf: B,
    /// Where it came in.
    rx_port: PortId,
    /// When it came in.
    born: u64,
    /// Whom it waits for.
    next_hop: (PortId, IpAddr),
}

/// All that wait at one worker. Its memory is taken once.
pub(crate) struct ParkingLot<B> {
    waiting: VecDeque<Parked<B>>,
    capacity: usize,
    timeout: u64,
    /// The tables that were looked at last.
    revision: u64,
}

impl<B> ParkingLot<B> {
    pub(crate) fn new(capacity: usize, timeout: u64) -> Self {
        Self {
            waiting: VecDeque::with_capacity(capacity),
            capacity,
            timeout,
            revision: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }
}

/// Packets that one that waited may become: its fragments, or an error about it.
const ROOM: usize = 64;

impl<P: BufPool> Core<P> {
    /// Keeps a packet until the neighbour is known, and asks for it.
    pub(crate) fn park(
        &mut self,
        rx: &Rx<'_>,
        port: PortId,
        next_hop: IpAddr,
        buf: P::Buf,
        out: &mut Output<P::Buf>,
    ) {
        let next_hop = (port, next_hop);
        let already = self
            .parking
            .waiting
            .iter()
            .filter(|parked| parked.next_hop == next_hop)
            .count();
        if already == 0 {
            // A full list loses a question that the next packet repeats.
            let _ = self.events.try_push(NeighbourEvent::Wanted {
                port,
                addr: next_hop.1,
            });
        }
        if already >= PER_NEIGHBOUR || self.parking.waiting.len() >= self.parking.capacity {
            return self.discard(rx, DropReason::ParkingFull, buf, out);
        }
        if self.parking.waiting.is_empty() {
            self.parking.revision = rx.snapshot.revision();
        }
        self.parking.waiting.push_back(Parked {
            buf,
            rx_port: rx.port,
            born: rx.born,
            next_hop,
        });
        self.stats.parked.set(self.parking.waiting.len() as u64);
    }

    /// Sends what can be sent now, and gives up what waited too long.
    pub(crate) fn retry(&mut self, snapshot: &Snapshot, now: u64, out: &mut Output<P::Buf>) {
        let changed = snapshot.revision() != self.parking.revision;
        let oldest = self.parking.waiting.front().map_or(now, |parked| parked.born);
        if !changed && now.saturating_sub(oldest) < self.parking.timeout {
            return;
        }
        self.parking.revision = snapshot.revision();
        // Those that have to go on waiting come back at the end, in the same order.
        let all = self.parking.waiting.len();
        for done in 0..all {
            if out.is_crowded(ROOM) {
                // The others' turn is when the queues have been emptied; those that came back keep their place before them.
                let back = self.parking.waiting.len() + done - all;
                self.parking.waiting.rotate_right(back);
                self.parking.revision = u64::MAX;
                break;
            }
            let Some(Parked {
                buf, rx_port, born, ..
            }) = self.parking.waiting.pop_front()
            else {
                break;
            };
            let Some(view) = snapshot.port(rx_port).filter(|view| view.admin_up) else {
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
            };
            if now.saturating_sub(born) >= self.parking.timeout {
                self.icmp_error(&rx, buf.data(), Error::HostUnreachable, out);
                self.discard(&rx, DropReason::NoFib, buf, out);
            } else {
                self.slow(&rx, buf, out);
            }
        }
        self.stats.parked.set(self.parking.waiting.len() as u64);
    }
}
