//! `octobench instructions`: the engine alone, on heap buffers, for an instruction counter to watch.

use std::sync::Arc;

use anyhow::ensure;
use dpdk::ArrayVec;
use octoplane_engine::{
    BURST, Direction, DropReason, Engine, EngineConfig, HostMac, Memory, Output, WorkerStats,
};
use octoplane_flow::FlowTable;
use octoplane_packet::{HeapBuf, HeapPool, PacketBuf};
use octoplane_tables::Store;
use octoplane_tables::model::MAX_PORTS;

use crate::cli::{Case, InstructionArgs};
use crate::frames::Frame;
use crate::generator::model_ports;
use crate::prime::prime;
use crate::scenario::{GATEWAYS, MAX_HEADER, Scale, Scenario};
use crate::worker::CAPACITY;

/// Different packets, which are repeated.
const FLOWS: u32 = 1024;

/// Runs the packets through and prints how many there were.
pub(crate) fn run(args: &InstructionArgs) -> anyhow::Result<()> {
    let (scenario, ipv6) = match args.case {
        Case::PodToPod4 => (Scenario::PodToPod, false),
        Case::Uplink4 | Case::Bare => (Scenario::Uplink, false),
        Case::Uplink6 => (Scenario::Uplink, true),
        Case::PodToService4 | Case::NewConnection4 => (Scenario::PodToService, false),
        Case::PodToService6 => (Scenario::PodToService, true),
        Case::FromTunnel4 => (Scenario::FromTunnel, false),
        Case::FromTunnel6 => (Scenario::FromTunnel, true),
    };
    let (scale, fresh) = (Scale::default(), args.case == Case::NewConnection4);
    let mut store = Store::new(model_ports(scenario), GATEWAYS, CAPACITY)?;
    store.apply(scenario.changes(FLOWS, &scale))?;
    let memory = Memory::new(Arc::new(FlowTable::new(131_072)?))?;
    prime(
        scenario.questions(ipv6, FLOWS, &scale),
        store.reader(),
        &memory,
        1,
        0,
    )?;
    let stats = Arc::new(WorkerStats::default());
    let mut engine = Engine::new(
        store.reader(),
        HeapPool::default(),
        Arc::clone(&stats),
        Arc::new(HostMac::default()),
        memory.part(0, 1)?,
        &EngineConfig::default(),
    );
    let size = if ipv6 && scenario.has_connections() {
        MAX_HEADER
    } else {
        64
    };
    let frames = scenario.frames(0, ipv6, FLOWS, &[size], false, &scale);
    let per_burst = u64::from(args.burst);
    let bursts = args.packets / per_burst;
    let mut out = Output::new(MAX_PORTS);
    let mut burst: ArrayVec<HeapBuf, BURST> = (0..args.burst).map(|_| HeapBuf::new(&[])).collect();
    let mut spare = ArrayVec::<HeapBuf, BURST>::new();
    let mut source = frames.iter().cycle();
    for number in 0..bursts {
        fill(&mut burst, &mut source);
        if fresh {
            let port = 1024 + (number * per_burst / u64::from(FLOWS)) as u16;
            for buf in &mut burst {
                buf.data_mut()[34..36].copy_from_slice(&port.to_be_bytes());
            }
        }
        if args.case == Case::Bare {
            collect(&mut burst, &mut spare);
            std::mem::swap(&mut burst, &mut spare);
            continue;
        }
        engine.process(0, 0, &mut burst, &mut out);
        for port in out.take_touched() {
            if let Some(queue) = out.queue(port) {
                collect(queue, &mut burst);
            }
        }
    }
    let dropped: u64 = DropReason::ALL
        .iter()
        .map(|&reason| stats.drops(reason, Direction::Ingress).packets.get())
        .sum();
    let forwarded = if args.case == Case::Bare {
        0
    } else {
        bursts * per_burst
    };
    ensure!(
        // All but the packets that begin connections, one a flow and burst at most.
        dropped == 0
            && match fresh {
                true => stats.flows_created.get() == forwarded,
                false => stats.fast.packets.get() + 2 * u64::from(FLOWS) >= forwarded,
            },
        "not all packets took the path that they should"
    );
    println!("{}", bursts * per_burst);
    Ok(())
}

/// Moves everything to the back of `to`.
#[inline(never)]
fn collect<const N: usize>(from: &mut ArrayVec<HeapBuf, N>, to: &mut ArrayVec<HeapBuf, BURST>) {
    to.extend(from.drain(..));
}

#[inline(never)]
fn fill<'a>(burst: &mut ArrayVec<HeapBuf, BURST>, source: &mut impl Iterator<Item = &'a Frame>) {
    for (buf, frame) in burst.iter_mut().zip(source) {
        buf.fill(frame.header());
    }
}
