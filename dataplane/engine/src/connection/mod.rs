//! Connections: what the first packet of one decides, and how others follow it.
//!
//! The first packet goes through all checks ([`create`](Core::create)) and leaves a connection in the flow table, which
//! has for either direction where its packets go. Later packets need that one lookup, until the tables change: then the
//! next packet of each direction decides again ([`compile`](Core::compile)), policy included, but keeps the translation.

mod packet;
mod state;
mod translate;
mod view;

use std::net::IpAddr;

use octoplane_flow::{FlowError, FlowRef, Tuple};
use octoplane_packet::headers::ETHERNET_LEN;
use octoplane_packet::{BufPool, PacketBuf};
use octoplane_tables::{Action as Way, Target};

pub(crate) use packet::{Packet, Upper};
pub use state::Timeouts;
pub(crate) use state::{Action, Progress, flag, progress};
pub use view::{Decided, DirectionView, FlowState, FlowView, describe};

use crate::drop_reason::DropReason;
use crate::engine::{Core, Rx};
use crate::slow::{Verdict, send};

/// Who sent a packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender {
    /// Security identity.
    pub(crate) identity: u32,
    /// The port it came in by.
    pub(crate) port: u16,
}

impl<P: BufPool> Core<P> {
    /// Takes a packet that belongs to a connection, or begins one, through the checks and on its way.
    pub(crate) fn connection(
        &mut self,
        rx: &Rx<'_>,
        buf: &mut P::Buf,
        packet: &Packet,
        sender: Sender,
    ) -> Verdict {
        match self.follow(rx, packet, sender) {
            Ok((flow, action)) => self.carry_out(rx, buf, packet, flow, action),
            Err(verdict) => verdict,
        }
    }

    /// The direction that a packet belongs to and what is to be done with it, by the tables as they are now.
    fn follow(&mut self, rx: &Rx<'_>, packet: &Packet, sender: Sender) -> Result<(FlowRef, Action), Verdict> {
        let hash = self.flows.table().hash(&packet.tuple);
        let flow = match self.flows.table().find(hash, &packet.tuple) {
            Some(flow) => flow,
            None => self.create(rx, packet, sender)?,
        };
        let now = rx.second;
        let table = self.flows.table();
        let half = table.half(flow).ok_or(Verdict::Drop(DropReason::CtInsertion))?;
        let flow = match progress(table, flow, &half, packet.upper, now) {
            Progress::Known => flow,
            Progress::Again => {
                self.flows.remove(flow);
                self.create(rx, packet, sender)?
            }
        };
        let action = self.compile(rx, packet, flow, sender)?;
        Ok((flow, action))
    }

    /// Decides about the first packet of a connection, and stores it.
    fn create(&mut self, rx: &Rx<'_>, packet: &Packet, sender: Sender) -> Result<FlowRef, Verdict> {
        let there = packet.tuple;
        let out = there;
        let now = rx.second;
        let payload = |forward| {
            let [first, second] = Action {
                port: if forward { sender.port } else { 0 },
                ..Action::default()
            }
            .words();
            [first, second, state::first_word(packet.upper, now, forward)]
        };
        let payloads = [payload(true), payload(false)];
        let look = now.saturating_add(self.timeouts.syn.min(self.timeouts.other));
        match self.flows.insert([&there, &out.reverse()], payloads, look) {
            Ok(flow) => {
                self.stats.flows_created.add(1);
                Ok(flow)
            }
            // Another worker was faster.
            Err(FlowError::Taken(flow)) => Ok(flow),
            Err(_) => Err(Verdict::Drop(DropReason::CtInsertion)),
        }
    }

    /// Ends connections that nothing was heard of for as long as their state allows.
    pub(crate) fn expire(&mut self, now: u64, records: usize) {
        let (now, timeouts) = (second(now), self.timeouts);
        let ended = self.flows.sweep(now, records, |table, flow| {
            let ends = state::ends(table, flow, &timeouts);
            (ends > now).then_some(ends)
        });
        self.flows.quiesce();
        self.stats.flows_expired.add(ended as u64);
    }

    /// What packets of a direction look like when they leave.
    fn outgoing(&self, flow: FlowRef) -> Tuple {
        let table = self.flows.table();
        let back = table.half(flow.other()).map(|half| half.tuple());
        back.map_or_else(|| Tuple::v4(0, 0, 0, 0, 0, 0), |back| back.reverse())
    }

    /// Decides where packets of a direction go by the tables as they are, and stores it.
    fn compile(
        &self,
        rx: &Rx<'_>,
        packet: &Packet,
        flow: FlowRef,
        sender: Sender,
    ) -> Result<Action, Verdict> {
        let out = self.outgoing(flow);
        let target = match out.dst() {
            IpAddr::V4(dst) => rx.snapshot.find4(dst.to_bits()),
            IpAddr::V6(dst) => rx.snapshot.find6(dst.to_bits()),
        };
        let mut flags = flag::COMPILED;
        if out != packet.tuple {
            flags |= flag::TRANSLATE;
        }
        let action = Action {
            target,
            port: sender.port,
            flags,
            revision: rx.snapshot.revision() as u32,
            identity: sender.identity,
        };
        if let Some(half) = self.flows.table().half(flow) {
            action.store(&half);
        }
        Ok(action)
    }

    /// Does with a packet what its connection says.
    fn carry_out(
        &self,
        rx: &Rx<'_>,
        buf: &mut P::Buf,
        packet: &Packet,
        flow: FlowRef,
        action: Action,
    ) -> Verdict {
        let target: Target = *rx.snapshot.target(action.target);
        let out = if action.flags & flag::TRANSLATE != 0 {
            self.outgoing(flow)
        } else {
            packet.tuple
        };
        let size = packet.end - ETHERNET_LEN;
        let ttl = ttl(buf.data(), out.is_v6());
        // Who allows fragments is not told, but cut (RFC 1191).
        let may_cut = !out.is_v6()
            && buf
                .data()
                .get(ETHERNET_LEN + 6)
                .is_some_and(|flags| flags & 0x40 == 0);
        if let Err(verdict) = self.route(rx, &target, out.dst(), size, ttl, may_cut) {
            return verdict;
        }
        match target.action {
            Way::Forward | Way::Deliver => {
                let frame = buf.data_mut();
                if action.flags & flag::TRANSLATE != 0
                    && let Err(reason) = translate::translate(frame, packet, &out)
                {
                    return Verdict::Drop(reason);
                }
                one_hop_further(frame, out.is_v6());
                frame[..12].copy_from_slice(&target.macs);
                // What stands behind the IP packet need not fit.
                let padding = buf.len() - packet.end;
                if buf.len() - ETHERNET_LEN > usize::from(target.mtu) && buf.trim_back(padding).is_err() {
                    return Verdict::Drop(DropReason::InvalidPacket);
                }
                send(&target, size)
            }
            _ => Verdict::Punt(DropReason::LocalHostUnreachable),
        }
    }
}

fn ttl(frame: &[u8], v6: bool) -> u8 {
    let at = ETHERNET_LEN + if v6 { 7 } else { 8 };
    frame.get(at).copied().unwrap_or(0)
}

/// One less TTL or hop limit.
fn one_hop_further(frame: &mut [u8], v6: bool) {
    let Some(ip) = frame.get_mut(ETHERNET_LEN..) else {
        return;
    };
    if v6 {
        if let Some(hops) = ip.get_mut(7) {
            *hops = hops.wrapping_sub(1);
        }
    } else if let Some([ttl, _, high, low]) = ip.get_mut(8..12) {
        // TTL is the upper byte of its word.
        *ttl = ttl.wrapping_sub(1);
        let sum = octoplane_packet::checksum::update(u16::from_be_bytes([*high, *low]), 0x0100, 0);
        [*high, *low] = sum.to_be_bytes();
    }
}

/// Nanoseconds in seconds, the unit in which connections age; never 0.
pub(crate) fn second(now: u64) -> u32 {
    (now / 1_000_000_000) as u32 + 1
}
