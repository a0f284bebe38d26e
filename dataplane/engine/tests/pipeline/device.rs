//! What a device says about a packet.

use std::sync::Arc;

use octoplane_engine::{Direction, DropReason, Engine, EngineConfig, HostMac, Memory, Output, WorkerStats};
use octoplane_flow::FlowTable;
use octoplane_packet::{BufPool, ChecksumStatus, HeapBuf, NoRoom, PacketBuf};

use crate::common::bytes::{ip4, ip6};
use crate::common::*;

/// A packet as a device gives it.
struct Received {
    buf: HeapBuf,
    checksum: ChecksumStatus,
    contiguous: bool,
}

impl PacketBuf for Received {
    fn data(&self) -> &[u8] {
        self.buf.data()
    }
    fn data_mut(&mut self) -> &mut [u8] {
        self.buf.data_mut()
    }
    fn headroom(&self) -> usize {
        self.buf.headroom()
    }
    fn tailroom(&self) -> usize {
        self.buf.tailroom()
    }
    fn prepend(&mut self, n: usize) -> Result<&mut [u8], NoRoom> {
        self.buf.prepend(n)
    }
    fn append(&mut self, n: usize) -> Result<&mut [u8], NoRoom> {
        self.buf.append(n)
    }
    fn trim_front(&mut self, n: usize) -> Result<(), NoRoom> {
        self.buf.trim_front(n)
    }
    fn trim_back(&mut self, n: usize) -> Result<(), NoRoom> {
        self.buf.trim_back(n)
    }
    fn is_contiguous(&self) -> bool {
        self.contiguous
    }
    fn ip_checksum_status(&self) -> ChecksumStatus {
        self.checksum
    }
}

/// Gives none.
struct NoPool;

impl BufPool for NoPool {
    type Buf = Received;

    fn alloc(&mut self) -> Option<Received> {
        None
    }
}

/// Sends one packet of endpoint 1 through: what was sent, and the code of a drop.
fn run(frame: &[u8], checksum: ChecksumStatus, contiguous: bool) -> (Option<Vec<u8>>, Option<u16>) {
    let lab = lab();
    let mut engine = Engine::new(
        lab.store.reader(),
        NoPool,
        Arc::new(WorkerStats::default()),
        Arc::new(HostMac::default()),
        Memory::new(Arc::new(FlowTable::new(65_536).unwrap()))
            .unwrap()
            .part(0, 1)
            .unwrap(),
        &EngineConfig::default(),
    );
    let mut out = Output::new(4);
    let received = Received {
        buf: HeapBuf::new(frame),
        checksum,
        contiguous,
    };
    engine.process(SECOND, POD0, &mut [received].into_iter().collect(), &mut out);
    let dropped = DropReason::ALL
        .iter()
        .find(|reason| engine.stats().drops(**reason, Direction::Egress).packets.get() > 0);
    let sent = out.queue(POD1).unwrap().pop();
    (
        sent.map(|packet| packet.data().to_vec()),
        dropped.map(|reason| reason.code()),
    )
}

#[test]
fn its_verdict_on_the_checksum_stands() {
    for options in [0, 8] {
        let frame = ip4("10.0.0.1", "10.0.0.2")
            .options(&vec![1; options])
            .frame(OURS[0], EP1);
        let want = forwarded(&frame, EP2, OURS[1]);
        for status in [ChecksumStatus::Good, ChecksumStatus::Unknown] {
            assert_eq!(run(&frame, status, true), (Some(want.clone()), None));
        }
        assert_eq!(run(&frame, ChecksumStatus::Bad, true), (None, Some(153)));
    }
    // IPv6 has no such checksum, whatever the device says.
    let frame = ip6("fd00::1", "fd00::2").frame(OURS[0], EP1);
    for status in [ChecksumStatus::Good, ChecksumStatus::Unknown, ChecksumStatus::Bad] {
        assert_eq!(run(&frame, status, true).1, None);
    }
}

#[test]
fn packets_in_several_buffers_are_dropped() {
    for frame in [
        ip4("10.0.0.1", "10.0.0.2").frame(OURS[0], EP1),
        ip4("10.0.0.1", "10.0.0.2").options(&[1; 4]).frame(OURS[0], EP1),
        ip6("fd00::1", "fd00::2").frame(OURS[0], EP1),
        vec![0; 10],
    ] {
        assert_eq!(run(&frame, ChecksumStatus::Unknown, false), (None, Some(1002)));
    }
}
