//! One packet taken through the slow path of an engine of its own, on tables that stand still: what would happen to it.

use std::cell::RefCell;

use octoplane_flow::{FlowTable, Tuple};
use octoplane_packet::{BufPool, PacketBuf};
use octoplane_tables::model::PortId;

use super::trace::{Fate, Trace};
use crate::connection;
use crate::engine::{Core, Engine, Rx};
use crate::ipsec::Ipsec;
use crate::memory::{Memory, MemoryPart};
use crate::output::Output;
use crate::verdict::Verdict;

/// How a packet to explain comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// By which port.
    pub port: PortId,
    /// Whether it was in a tunnel from another node, and which identity that node said its sender has.
    pub tunnel: Option<u32>,
    /// Whether it was encrypted.
    pub encrypted: bool,
    /// Which of the backends that may get new connections it gets where any of them might be chosen, from 0.
    pub backend: u32,
}

impl<P: BufPool> Engine<P> {
    /// Takes a frame through the slow path and tells of every step. For engines that do nothing else: connections that the
    /// frame begins are stored in the engine's memory, which must not be that of workers. `None` if there is no such port, or it
    /// is down.
    pub fn explain(&mut self, now: u64, arrival: Arrival, buf: P::Buf) -> Option<Trace> {
        let ports = octoplane_tables::model::MAX_PORTS;
        let snapshot = self.reader.load();
        let view = snapshot.port(arrival.port).filter(|view| view.admin_up)?;
        let rx = Rx {
            snapshot,
            port: arrival.port,
            view,
            now,
            second: connection::second(now),
            born: now,
            ipsec: Ipsec::load(self.ipsec.as_mut()),
            decrypted: arrival.encrypted,
        };
        let core = &mut self.core;
        core.onlookers.trace = Some(Box::new(RefCell::new(Trace {
            choose: arrival.backend,
            ..Trace::default()
        })));
        let mut out = Output::new(ports);
        match arrival.tunnel {
            Some(identity) => core.slow_inner(&rx, identity, buf, &mut out),
            None => core.slow(&rx, buf, &mut out),
        }
        let mut trace = core.onlookers.trace.take()?.into_inner();
        let sent = match trace.fate {
            Some(Fate::Sent { port } | Fate::Host { port }) => out.queue(port).and_then(|it| it.first()),
            Some(Fate::Encrypted { .. }) => out.seal.first().map(|it| &it.buf),
            _ => None,
        };
        trace.frame = sent.map(|buf| buf.data().to_vec()).unwrap_or_default();
        Some(trace)
    }

    /// Takes over what workers remember of packets with this tuple: the connection they belong to, and which backend their sender
    /// is with. Whether there is such a connection.
    pub fn adopt(&mut self, live: &Memory, tuple: &Tuple) -> bool {
        connection::adopt_affinity(&mut self.core.affinities, &live.affinities, tuple);
        self.core.adopt(&live.flows, tuple)
    }

    /// Gives the memory back, for another engine.
    pub fn into_memory(self) -> MemoryPart {
        MemoryPart {
            flows: self.core.flows,
            affinities: self.core.affinities,
            fragments: self.core.fragments,
        }
    }

    /// The tuple that answers to packets with this one arrive with, if the engine knows their connection.
    #[must_use]
    pub fn answer_to(&self, tuple: &Tuple) -> Option<Tuple> {
        let table = self.core.flows.table();
        let flow = table.find(table.hash(tuple), tuple)?;
        table.half(flow.other()).map(|half| half.tuple())
    }
}

impl<P: BufPool> Core<P> {
    fn adopt(&mut self, live: &FlowTable, tuple: &Tuple) -> bool {
        connection::copy(&mut self.flows, live, tuple)
    }

    /// Takes note of how a packet that is explained ends. `host`: it was to be given to the kernel.
    #[inline]
    pub(crate) fn note_fate(&self, verdict: Verdict, host: bool) {
        if let Some(trace) = &self.onlookers.trace
            && let Ok(mut trace) = trace.try_borrow_mut()
        {
            trace.fate.get_or_insert_with(|| Fate::of(verdict, host));
        }
    }
}
