//! The daemon's life: devices, workers, control, and all of it in reverse.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, bail};
use dpdk::{Eal, EalError};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use octoplane_config::schema::Config;
use octoplane_control::Server;
use octoplane_observe::Policies;
use octoplane_worker::{Command, Dataplane};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{debug, info, warn};

use crate::attachments::Cni;
use crate::ipsec::{Ipsec, Service};
use crate::neighbours::{Neighbours, Rounds};
use crate::observe::Observed;
use crate::ports::PortChanges;
use crate::status::Daemon;
use crate::{plan, report, resume, supervisor};

/// Runs until a signal says to stop.
pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    let begin = Instant::now();
    // A second daemon must be refused before it touches the first one's devices.
    let control = plan::control(config);
    control.probe().context("control socket")?;
    crate::attachments::leave_management(config)?;
    let state = resume::open(config)?;
    let eal = Eal::init(&plan::eal(config)).context("DPDK did not start")?;
    info!("{}", dpdk::eal::version());
    // All threads that are started from here on, but for the workers, which pin themselves.
    keep_off_workers(&config.workers.control_cores)?;
    let ipsec = Ipsec::open(&config.ipsec)?.map(Arc::new);
    let plan = plan::dataplane(config, ipsec.as_deref().map(Ipsec::engine));
    let resumed = resume::dataplane(&eal, config, &plan, state)?;
    let dataplane = resumed.dataplane;
    for bound in dataplane.ports() {
        info!("{}", report::port(&bound));
        report::warn_of_mtu(&bound);
    }
    for worker in &dataplane.workers {
        info!(
            "worker {} polls on CPU {} ({:?})",
            worker.number, worker.core, worker.poll
        );
    }
    let dataplane = Arc::new(dataplane);
    let startup = begin.elapsed();
    let stop = Arc::new(AtomicBool::new(false));
    let (neighbours, rounds) = start_neighbours(config, &dataplane, &stop)?;
    let looking = match &ipsec {
        Some(ipsec) => Some(ipsec.start(dataplane.store.clone(), dataplane.clock, Arc::clone(&stop))?),
        None => None,
    };
    let encryption = ipsec.clone().map(|ipsec| {
        Arc::new(Service {
            ipsec,
            dataplane: Arc::clone(&dataplane),
        })
    });
    let ports = PortChanges::new(config, &resumed.ports, Arc::clone(&dataplane), rounds);
    let cni = Cni::new(config, &dataplane);
    let nodes = ipsec.as_deref().filter(|_| config.ipsec.key_file.is_some());
    let encrypted = nodes.map(Ipsec::engine);
    let options = plan.ipsec.as_ref().and_then(|ipsec| ipsec.policies.clone());
    let policies = ipsec.as_deref().zip(options);
    let policies = policies.map(|(ipsec, options)| Policies {
        reader: ipsec.engine().reader,
        options,
    });
    let observed = Observed::new(Arc::clone(&dataplane), plan.engine.timeouts, encrypted, policies);
    let fetching = observed.start(Arc::clone(&stop)).context("events thread")?;
    let daemon = Arc::new(Daemon::new(
        Arc::clone(&dataplane),
        ports,
        cni.attachments(),
        plan.engine.timeouts,
        resumed.journal,
        encryption,
        observed,
        startup,
    ));
    let served = serve(control, Arc::clone(&daemon), cni, &dataplane, begin);
    info!("stopping");
    stop.store(true, Relaxed);
    if neighbours.join().is_err() {
        warn!("the neighbour thread panicked");
    }
    if looking.is_some_and(|thread| thread.join().is_err()) {
        warn!("the ipsec thread panicked");
    }
    if fetching.join().is_err() {
        warn!("the events thread panicked");
    }
    for line in report::counters(&dataplane) {
        info!("{line}");
    }
    drop(daemon);
    let Ok(dataplane) = Arc::try_unwrap(dataplane) else {
        bail!("something still uses the data plane")
    };
    let errors = dataplane.stop();
    if let Some(ipsec) = &ipsec {
        ipsec.finish();
    }
    for error in &errors {
        warn!("{error}");
    }
    served?;
    match eal.cleanup() {
        // Drivers of virtual devices (AF_XDP) keep buffers to the end; the end of the process frees them.
        Err(EalError::InUse) => debug!("a driver kept packet buffers"),
        result => result.context("DPDK did not stop cleanly")?,
    }
    if !errors.is_empty() {
        bail!("{} ports did not stop cleanly", errors.len());
    }
    info!("stopped");
    Ok(())
}

/// Serves the control socket until a signal comes.
fn serve(
    control: Server,
    daemon: Arc<Daemon>,
    cni: Cni,
    dataplane: &Arc<Dataplane>,
    begin: Instant,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .context("control threads")?;
    runtime.block_on(async {
        let mut term = signal(SignalKind::terminate()).context("SIGTERM")?;
        let mut int = signal(SignalKind::interrupt()).context("SIGINT")?;
        let bound = control.bind().context("control socket")?;
        let cni = cni.start()?;
        info!(
            "ready after {} ms, control socket {}",
            begin.elapsed().as_millis(),
            bound.path().display()
        );
        if let Some(address) = bound.tcp_address() {
            info!("control services at {address}, too");
        }
        drop(tokio::spawn(crate::authentications::expire(Arc::downgrade(
            dataplane,
        ))));
        supervisor::ready(dataplane);
        // On the threads that serve the API: if these hang, nobody feeds it. It ends with the runtime.
        drop(tokio::spawn(supervisor::feed_watchdog(Arc::clone(dataplane))));
        let shutdown = async move {
            tokio::select! {
                _ = term.recv() => info!("SIGTERM"),
                _ = int.recv() => info!("SIGINT"),
            }
            supervisor::stopping();
        };
        let served = bound.serve(daemon, shutdown).await.context("control socket");
        cni.stop().await?;
        served
    })?;
    Ok(())
}

fn start_neighbours(
    config: &Config,
    dataplane: &Arc<Dataplane>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<(thread::JoinHandle<()>, Rounds)> {
    let (sender, stop) = (Arc::downgrade(dataplane), Arc::clone(stop));
    let full = Mutex::new(false);
    let send = move |port, frame| {
        let Some(dataplane) = sender.upgrade() else { return };
        let owner = dataplane
            .port(port)
            .and_then(|bound| bound.assignment.tx_owner.first().copied());
        let Some(worker) = owner.and_then(|owner| dataplane.workers.get(owner)) else {
            return;
        };
        let refused = worker.command(Command::Send { port, frame }).is_err();
        if let Ok(mut full) = full.lock() {
            if refused && !*full {
                warn!("worker {} takes no more frames", worker.number);
            }
            *full = refused;
        }
    };
    let neighbours = Neighbours::new(dataplane.store.clone(), Box::new(send), config.neighbours);
    let events = Arc::clone(&dataplane.events);
    let beaten = Arc::downgrade(dataplane);
    let beat = move || {
        if let Some(dataplane) = beaten.upgrade() {
            dataplane.beat();
        }
    };
    let rounds = neighbours.rounds();
    let thread = thread::Builder::new()
        .name("neighbours".into())
        .spawn(move || neighbours.run(|| events.pop(), beat, &stop))
        .context("neighbour thread")?;
    Ok((thread, rounds))
}

/// Confines the calling thread and its children to the control CPUs.
fn keep_off_workers(cpus: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu)
            .with_context(|| format!("workers.control_cores: CPU {cpu}"))?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).context("workers.control_cores")
}
