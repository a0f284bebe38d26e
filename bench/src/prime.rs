//! Connections that are there before anything is measured: the packets whose answers are.

use std::sync::Arc;

use anyhow::ensure;
use dpdk::ArrayVec;
use octoplane_engine::{BURST, Engine, EngineConfig, HostMac, Memory, Output, WorkerStats};
use octoplane_packet::{HeapBuf, HeapPool};
use octoplane_tables::Reader;
use octoplane_tables::model::MAX_PORTS;

use crate::frames::Frame;

/// Has an engine of its own handle the packets, on heap buffers; it remembers in the `memory` that the measured ones share.
/// `worker` is a number that none of them has.
pub(crate) fn prime(
    (port, questions): (usize, Vec<Frame>),
    reader: Reader,
    memory: &Memory,
    worker: usize,
    now: u64,
) -> anyhow::Result<()> {
    let stats = Arc::new(WorkerStats::default());
    let mut engine = Engine::new(
        reader,
        HeapPool::default(),
        Arc::clone(&stats),
        Arc::new(HostMac::default()),
        memory.part(worker, worker + 1)?,
        &EngineConfig::default(),
    );
    let mut out = Output::new(MAX_PORTS);
    for frames in questions.chunks(BURST) {
        let mut burst: ArrayVec<HeapBuf, BURST> =
            frames.iter().map(|frame| HeapBuf::new(frame.header())).collect();
        engine.process(now, port as u16, &mut burst, &mut out);
        for port in out.take_touched() {
            if let Some(queue) = out.queue(port) {
                queue.clear();
            }
        }
        out.free.clear();
    }
    let made = stats.flows_created.get();
    ensure!(
        made == questions.len() as u64,
        "{made} of {} connections were made",
        questions.len()
    );
    Ok(())
}
