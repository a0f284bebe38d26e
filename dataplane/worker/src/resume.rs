//! Going on where another process stopped: its ports, tables and connections.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use octoplane_engine::{MEANING, Memory};
use octoplane_flow::{Directory, FlowTable, Kept, Purpose, Resumed, SegmentError, Unusable};
use octoplane_tables::Store;

use crate::bind::PortPlan;
use crate::bringup::BringupError;
use crate::clock::Clock;
use crate::hotplug::PortChangeError;

/// Tells the times apart that the machine was started.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Why [`Resume::restore`] failed.
pub type ResumeError = Box<dyn std::error::Error + Send + Sync>;

/// Fills tables.
pub type Restore<'a> = Box<dyn FnOnce(&mut Store) -> Result<(), ResumeError> + 'a>;

/// How to go on where another process stopped.
pub struct Resume<'a> {
    /// Ports beside those of the plan, each with the text that its device is made from. Those that do not come up are left out.
    pub ports: &'a [(PortPlan, String)],
    /// Fills the tables, before any packet is looked at.
    pub restore: Restore<'a>,
    /// Directory in memory where connections are kept; `None`: they end with the process.
    pub connections: Option<&'a Path>,
}

impl Default for Resume<'_> {
    /// Nothing is there, and nothing is kept.
    fn default() -> Self {
        Self {
            ports: &[],
            restore: Box::new(|_| Ok(())),
            connections: None,
        }
    }
}

/// A port of [`Resume`] that did not come up.
pub struct Missing {
    /// Its name.
    pub port: String,
    /// Why.
    pub error: PortChangeError,
}

/// What became of the connections of another process.
#[derive(Debug)]
pub enum Connections {
    /// They are not kept.
    NotKept,
    /// There is no memory for them that outlives the process; they are in other memory.
    CannotBeKept(SegmentError),
    /// There were none, or they cannot be used because of this.
    Anew(Option<Unusable>),
    /// They are there.
    Resumed {
        /// How many.
        connections: Resumed,
        /// How long that took.
        took: Duration,
    },
}

/// What workers remember, and their clock.
pub(crate) struct Remembered {
    pub(crate) memory: Memory,
    pub(crate) clock: Clock,
    pub(crate) kept: Option<Kept>,
    pub(crate) connections: Connections,
}

/// In the version of what is kept: with encryption, other things are decided about connections. None may go on in the clear
/// that a daemon without it left.
const ENCRYPTED: u64 = 1 << 32;

/// Memory for so many connections, with those that are in the directory.
pub(crate) fn remember(
    directory: Option<&Path>,
    connections: u32,
    encrypted: bool,
) -> Result<Remembered, BringupError> {
    let Some(path) = directory else {
        return forget(connections, Connections::NotKept);
    };
    let purpose = Purpose {
        meaning: MEANING | if encrypted { ENCRYPTED } else { 0 },
        boot: boot(),
        capacities: Memory::kept_capacities(connections),
    };
    let begin = Instant::now();
    let opened = Directory::take(path).and_then(|directory| Kept::open(directory, &purpose));
    let (kept, unusable) = match opened {
        Ok(opened) => opened,
        // Two processes that write the same memory are worse than none.
        Err(error @ SegmentError::InUse(_)) => return Err(BringupError::Kept(error)),
        Err(error) => return forget(connections, Connections::CannotBeKept(error)),
    };
    let system = system_clock();
    let clock = Clock::starting_at(kept.engine_clock(system));
    let (memory, resumed) = Memory::resume(&kept, clock.now())?;
    let connections = match unusable {
        None if resumed != Resumed::default() => Connections::Resumed {
            connections: resumed,
            took: begin.elapsed(),
        },
        unusable => Connections::Anew(unusable),
    };
    kept.beat(clock.now(), system);
    Ok(Remembered {
        memory,
        clock,
        kept: Some(kept),
        connections,
    })
}

fn forget(connections: u32, why: Connections) -> Result<Remembered, BringupError> {
    let flows = Arc::new(FlowTable::new(connections).map_err(BringupError::Flows)?);
    Ok(Remembered {
        memory: Memory::new(flows)?,
        clock: Clock::start(),
        kept: None,
        connections: why,
    })
}

/// Nanoseconds of the system's clock that nobody sets.
pub(crate) fn system_clock() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    // 0 means that there was none yet.
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// The kernel's random number of this start of the machine; 0 if it has none.
fn boot() -> u128 {
    let text = fs::read_to_string(BOOT).unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0)
}
