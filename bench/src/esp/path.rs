//! What a packet goes through: ESP and a provider. With the engine around it, see [`super::engine`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, ensure};
use dpdk::mempool::MbufAllocator;
use dpdk::{ArrayVec, Mbuf, PacketBuf, free_all};
use octoplane_esp::software::Software;
use octoplane_esp::{Inbound, Job, Outbound, Processed, Provider, Reader, SaId, Sad, ToDecrypt, ToEncrypt};
use octoplane_packet::{BufPool, MacAddr};
use octoplane_worker::crypto::CryptoProvider;

use super::setup::{ROUND, Setup, TRAILER};
use crate::frames::{FCS, Flow, Frame, build};

/// Bytes of an Ethernet header, which these packets do not have.
const ETHERNET: usize = 14;

/// Packets made with the clock stopped, and gone through with it running.
pub(super) trait Path {
    /// Makes [`ROUND`] packets.
    ///
    /// # Errors
    /// No buffers, or packets that cannot be made.
    fn fill(&mut self) -> anyhow::Result<()>;

    /// Sends them all through and frees them.
    fn run(&mut self);

    /// Packets that came through, and those that did not by cause, since the start.
    fn counts(&mut self) -> (u64, &BTreeMap<String, u64>);

    /// Waits for packets that a device still has.
    fn finish(&mut self);
}

/// The same without what encrypts.
pub(super) trait EspPath {
    /// As [`Path::fill`].
    fn fill(&mut self) -> anyhow::Result<()>;

    /// As [`Path::run`].
    fn run(&mut self, provider: &mut dyn Provider<Mbuf>);

    /// As [`Path::counts`].
    fn counts(&self) -> (u64, &BTreeMap<String, u64>);
}

/// Together with it.
pub(super) struct With<P>(pub(super) P, pub(super) CryptoProvider);

impl<P: EspPath> Path for With<P> {
    fn fill(&mut self) -> anyhow::Result<()> {
        self.0.fill()
    }

    fn run(&mut self) {
        self.0.run(&mut *self.1);
    }

    fn counts(&mut self) -> (u64, &BTreeMap<String, u64>) {
        self.0.counts()
    }

    fn finish(&mut self) {
        let mut rest = Vec::<Job<Mbuf>>::with_capacity(ROUND);
        while self.1.in_flight() > 0 {
            self.1.poll(&mut rest, usize::MAX);
            rest.clear();
        }
    }
}

/// What both directions have in common.
struct Common {
    reader: Reader,
    jobs: Vec<Job<Mbuf>>,
    done: Vec<Job<Mbuf>>,
    out: Vec<Processed<Mbuf>>,
    through: u64,
    refused: BTreeMap<String, u64>,
}

impl Common {
    fn new(reader: Reader) -> Self {
        Self {
            reader,
            jobs: Vec::with_capacity(2 * ROUND),
            done: Vec::with_capacity(2 * ROUND),
            out: Vec::with_capacity(2 * ROUND),
            through: 0,
            refused: BTreeMap::new(),
        }
    }

    /// Frees what is through. Causes are looked at only where something was refused.
    fn free(&mut self) {
        let mut bufs = ArrayVec::<Mbuf, 64>::new();
        for packet in self.out.drain(..) {
            match packet.outcome {
                Ok(()) => self.through += 1,
                Err(cause) => *self.refused.entry(cause.text().to_owned()).or_default() += 1,
            }
            bufs.push(packet.buf);
            if bufs.is_full() {
                free_all(&mut bufs);
            }
        }
        free_all(&mut bufs);
    }
}

/// The packet inside the tunnel whose encryption takes `size` bytes, with the trailer and no padding.
pub(super) fn inner(size: u16) -> anyhow::Result<Frame> {
    let len = size
        .checked_sub(TRAILER)
        .filter(|len| *len >= 28 && size.is_multiple_of(4))
        .context("--size: a multiple of 4 from 32 on")?;
    let flow = Flow {
        src_mac: MacAddr::default(),
        dst_mac: MacAddr::default(),
        src: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        dst: IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1)),
        src_port: 1024,
        dst_port: 9,
    };
    Ok(build(&flow, len + ETHERNET as u16 + FCS))
}

/// Plain packets.
struct Source {
    alloc: MbufAllocator,
    frames: Vec<Frame>,
    next_frame: usize,
    sas: Vec<SaId>,
    next: usize,
}

impl Source {
    fn packet(&mut self) -> anyhow::Result<ToEncrypt<Mbuf>> {
        let mut buf = self.alloc.alloc().context("no packet buffers are left")?;
        let frame = self.frames.get(self.next_frame).context("no frame")?;
        self.next_frame = (self.next_frame + 1) % self.frames.len();
        let len = frame.len() - ETHERNET;
        let header = frame.header().get(ETHERNET..).unwrap_or_default();
        let data = buf.append(len)?;
        if let Some(front) = data.get_mut(..header.len()) {
            front.copy_from_slice(header);
        }
        let sa = *self.sas.get(self.next).context("no security association")?;
        self.next = (self.next + 1) % self.sas.len();
        Ok(ToEncrypt {
            buf,
            sa,
            cookie: [0; 3],
        })
    }
}

/// Encapsulation and encryption.
pub(super) struct Encrypting {
    common: Common,
    outbound: Outbound,
    source: Source,
    bursts: Vec<Vec<ToEncrypt<Mbuf>>>,
    burst: usize,
}

impl Encrypting {
    pub(super) fn new(
        setup: &Setup,
        reader: Reader,
        sas: &[SaId],
        first: usize,
        frames: Vec<Frame>,
        alloc: MbufAllocator,
    ) -> anyhow::Result<Self> {
        let burst = usize::from(setup.burst);
        Ok(Self {
            common: Common::new(reader),
            outbound: Outbound::new(),
            source: Source {
                alloc,
                frames,
                next_frame: 0,
                sas: sas.to_vec(),
                next: first % sas.len().max(1),
            },
            bursts: (0..ROUND.div_ceil(burst))
                .map(|_| Vec::with_capacity(burst))
                .collect(),
            burst,
        })
    }
}

impl EspPath for Encrypting {
    fn fill(&mut self) -> anyhow::Result<()> {
        for burst in &mut self.bursts {
            for _ in 0..self.burst {
                burst.push(self.source.packet()?);
            }
        }
        Ok(())
    }

    fn run(&mut self, provider: &mut dyn Provider<Mbuf>) {
        let Self {
            common,
            outbound,
            bursts,
            ..
        } = self;
        for burst in bursts {
            let snapshot = common.reader.load();
            outbound.prepare(&snapshot.sad, 1, burst, &mut common.jobs, &mut common.out);
            provider.submit(&snapshot.sad, &mut common.jobs);
            provider.poll(&mut common.done, usize::MAX);
            outbound.finish(&snapshot.sad, &mut common.done, &mut common.out);
            common.free();
        }
        while !common.jobs.is_empty() || provider.in_flight() > 0 {
            let snapshot = common.reader.load();
            provider.submit(&snapshot.sad, &mut common.jobs);
            provider.poll(&mut common.done, usize::MAX);
            outbound.finish(&snapshot.sad, &mut common.done, &mut common.out);
            common.free();
        }
    }

    fn counts(&self) -> (u64, &BTreeMap<String, u64>) {
        (self.common.through, &self.common.refused)
    }
}

/// Decryption and decapsulation.
pub(super) struct Decrypting {
    common: Common,
    inbound: Inbound,
    peer: Sealing,
    bursts: Vec<Vec<ToDecrypt<Mbuf>>>,
}

/// The other end, which seals packets.
pub(super) struct Sealing {
    peer: Encrypting,
    sealer: Software<Mbuf>,
}

impl Sealing {
    pub(super) fn new(peer: Encrypting, sealer: Software<Mbuf>) -> Self {
        Self { peer, sealer }
    }

    /// Makes a round of packets.
    pub(super) fn fill(&mut self) -> anyhow::Result<()> {
        self.peer.fill()
    }

    /// Seals one burst of them.
    pub(super) fn seal(
        &mut self,
        burst: usize,
        mut take: impl FnMut(Mbuf) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let Self { peer, sealer } = self;
        let packets = peer.bursts.get_mut(burst).context("no such burst")?;
        let common = &mut peer.common;
        let snapshot = common.reader.load();
        let sad: &Sad = &snapshot.sad;
        peer.outbound
            .prepare(sad, 1, packets, &mut common.jobs, &mut common.out);
        sealer.submit(sad, &mut common.jobs);
        sealer.poll(&mut common.done, usize::MAX);
        peer.outbound.finish(sad, &mut common.done, &mut common.out);
        ensure!(common.jobs.is_empty(), "the peer does not seal all packets");
        for sealed in common.out.drain(..) {
            sealed
                .outcome
                .map_err(|cause| anyhow::anyhow!("the peer seals nothing: {}", cause.text()))?;
            take(sealed.buf)?;
        }
        Ok(())
    }
}

impl Decrypting {
    /// `peer` is the other end.
    pub(super) fn new(peer: Encrypting, sealer: Software<Mbuf>, reader: Reader) -> Self {
        let bursts = peer
            .bursts
            .iter()
            .map(|burst| Vec::with_capacity(burst.capacity()));
        Self {
            common: Common::new(reader),
            inbound: Inbound::new(),
            bursts: bursts.collect(),
            peer: Sealing::new(peer, sealer),
        }
    }
}

impl EspPath for Decrypting {
    fn fill(&mut self) -> anyhow::Result<()> {
        self.peer.fill()?;
        for (index, burst) in self.bursts.iter_mut().enumerate() {
            self.peer.seal(index, |buf| {
                burst.push(ToDecrypt {
                    buf,
                    mark: 0,
                    cookie: [0; 3],
                });
                Ok(())
            })?;
        }
        Ok(())
    }

    fn run(&mut self, provider: &mut dyn Provider<Mbuf>) {
        let Self {
            common,
            inbound,
            bursts,
            ..
        } = self;
        for burst in bursts {
            let snapshot = common.reader.load();
            inbound.prepare(&snapshot.sad, 1, burst, &mut common.jobs, &mut common.out);
            provider.submit(&snapshot.sad, &mut common.jobs);
            provider.poll(&mut common.done, usize::MAX);
            inbound.finish(&snapshot.sad, &mut common.done, &mut common.out);
            common.free();
        }
        while !common.jobs.is_empty() || provider.in_flight() > 0 {
            let snapshot = common.reader.load();
            provider.submit(&snapshot.sad, &mut common.jobs);
            provider.poll(&mut common.done, usize::MAX);
            inbound.finish(&snapshot.sad, &mut common.done, &mut common.out);
            common.free();
        }
    }

    fn counts(&self) -> (u64, &BTreeMap<String, u64>) {
        (self.common.through, &self.common.refused)
    }
}
