//! All crypto devices and the providers of all workers, as the daemon holds them.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use dpdk::crypto::{self, CryptoStats};
use dpdk::{Eal, Mbuf, Mempool, cycles};
use octoplane_esp::software::{Plan, Software};
use octoplane_esp::{Provider, Session};

use crate::crypto::bound::{BoundDevice, Found, Share, bare_name, find};
use crate::crypto::cryptodev::Cryptodev;
use crate::crypto::failover::{DeviceMailbox, Failover, FailoverParts};
use crate::crypto::health::{Cause, Limits};
use crate::crypto::options::{CryptoOptions, CryptoSetupError};
use crate::crypto::stats::ProviderStats;
use crate::ipsec::WAITING;

/// One worker's provider.
pub type CryptoProvider = Box<dyn Provider<Mbuf> + Send>;

/// Failures in a row after which a device is given up.
const ERRORS: u32 = 32;
/// How much longer than the first the longest wait for another try is.
const LONGEST: u32 = 100;
/// How long removing a device waits for the workers.
const PATIENCE: Duration = Duration::from_secs(5);

/// One worker, seen from here.
#[derive(Debug)]
struct WorkerEnd {
    mailbox: Arc<DeviceMailbox<Mbuf, Cryptodev>>,
    stats: Arc<ProviderStats>,
}

/// The crypto devices and who has them.
#[derive(Debug)]
pub struct Crypto {
    eal: Eal,
    options: CryptoOptions,
    plan: Arc<Plan>,
    workers: Vec<WorkerEnd>,
    devices: Mutex<Vec<BoundDevice>>,
    /// Devices that were not used although they were asked for, and why.
    skipped: Vec<CryptoSetupError>,
}

/// A device, for an operator.
#[derive(Debug, Clone)]
pub struct DeviceReport {
    /// As it stands in the configuration.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Whether it is hardware of its own.
    pub hardware: bool,
    /// What it can do.
    pub algorithms: Vec<String>,
    /// Its workers, with why each does not use it now, if so.
    pub workers: Vec<(usize, Option<Cause>)>,
    /// Its own counters, if it has any.
    pub counters: Option<CryptoStats>,
    /// Sessions it has.
    pub sessions: u64,
    /// Sessions it could not make, and why the last could not.
    pub failed_sessions: (u64, Option<String>),
}

impl Crypto {
    /// [`Crypto::open`] with what the configuration says.
    ///
    /// # Errors
    /// [`CryptoSetupError`], if the provider is `cryptodev`.
    pub fn from_config(
        eal: &Eal,
        config: &octoplane_config::Crypto,
        workers: usize,
        pool: &Mempool,
    ) -> Result<(Self, Vec<CryptoProvider>), CryptoSetupError> {
        Self::open(eal, config.into(), workers, pool)
    }

    /// Opens the devices, and makes each of `workers` its provider. A provider may be used on a thread that is an lcore
    /// only, unless there is no device. `pool` is where buffers come from that a failing device keeps.
    ///
    /// # Errors
    /// [`CryptoSetupError`]; only with [`CryptoOptions::required`]. Otherwise see [`Crypto::skipped`].
    pub fn open(
        eal: &Eal,
        options: CryptoOptions,
        workers: usize,
        pool: &Mempool,
    ) -> Result<(Self, Vec<CryptoProvider>), CryptoSetupError> {
        let plan = Arc::new(options.library.map_or_else(Plan::calibrate, Plan::only));
        let (mut devices, mut shares, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        match bind_all(eal, &options, workers, &mut skipped) {
            Ok(bound) => {
                for (device, its) in bound {
                    shares.extend(device.workers.clone().into_iter().zip(its));
                    devices.push(device);
                }
            }
            Err(error) if options.required => return Err(error),
            Err(error) => skipped.push(error),
        }
        if options.required
            && let Some(error) = skipped.pop()
        {
            return Err(error);
        }
        let ends: Vec<WorkerEnd> = (0..workers)
            .map(|_| WorkerEnd {
                mailbox: Arc::default(),
                stats: Arc::default(),
            })
            .collect();
        let wanted = !options.devices.is_empty();
        for (worker, share) in shares {
            if let Some(end) = ends.get(worker) {
                end.mailbox.offer(share);
            }
        }
        let providers = ends
            .iter()
            .map(|end| provider(end, &options, &plan, pool, wanted))
            .collect();
        let crypto = Self {
            eal: eal.clone(),
            options,
            plan,
            workers: ends,
            devices: Mutex::new(devices),
            skipped,
        };
        Ok((crypto, providers))
    }

    /// Which library does what in software.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Why devices were not used that the configuration asks for, or that were found.
    pub fn skipped(&self) -> &[CryptoSetupError] {
        &self.skipped
    }

    /// The counters of each worker's provider. Those of a worker without devices stay 0.
    pub fn stats(&self) -> impl Iterator<Item = &ProviderStats> {
        self.workers.iter().map(|end| &*end.stats)
    }

    /// Makes the devices know a session before its first packet. Not needed, but without it the first packets of a
    /// session are done in software. `false`: too much waits already; then the first packets ask for it.
    pub fn prepare(&self, session: &Arc<Session>) -> bool {
        let mut all = true;
        for device in self.devices().iter() {
            all &= device.maker.prepare(session);
        }
        all
    }

    /// The device that does this session's jobs: one that can, and that a worker uses now. `None`: software does them.
    pub fn device_of(&self, session: &Session) -> Option<String> {
        let used = |device: &&BoundDevice| {
            let ends = device
                .workers
                .iter()
                .filter_map(|&worker| self.workers.get(worker));
            device.capabilities.contains(session.algorithm(), session.esn())
                && ends.map(|end| end.stats.unused()).any(|unused| unused.is_none())
        };
        self.devices().iter().find(used).map(|device| device.name.clone())
    }

    /// What there is.
    pub fn report(&self) -> Vec<DeviceReport> {
        let of = |device: &BoundDevice| DeviceReport {
            name: device.name.clone(),
            driver: device.info.driver.clone(),
            hardware: device.info.is_hardware(),
            algorithms: device.capabilities.names(),
            workers: device
                .workers
                .iter()
                .map(|&worker| {
                    let unused = self.workers.get(worker).and_then(|end| end.stats.unused());
                    (worker, unused)
                })
                .collect(),
            counters: device.device.stats().ok(),
            sessions: device.maker.sessions(),
            failed_sessions: device.maker.failures(),
        };
        self.devices().iter().map(of).collect()
    }

    /// Adds a device, while the workers run, for those that have none. Only where there were devices at the start.
    ///
    /// # Errors
    /// [`CryptoSetupError`]
    pub fn add(&self, name: &str) -> Result<(), CryptoSetupError> {
        let mut devices = self.devices();
        if devices
            .iter()
            .any(|device| bare_name(&device.name) == bare_name(name))
        {
            return Err(CryptoSetupError::Known(name.to_owned()));
        }
        if self.options.devices.is_empty() {
            // They do not look into their mailboxes.
            return Err(CryptoSetupError::NobodyWaits(name.to_owned()));
        }
        let served = |worker: &usize| devices.iter().any(|device| device.workers.contains(worker));
        let waiting: Vec<usize> = (0..self.workers.len()).filter(|it| !served(it)).collect();
        if waiting.is_empty() {
            return Err(CryptoSetupError::NobodyWaits(name.to_owned()));
        }
        let found = find(&self.eal, name)?;
        let most = found.info.max_queue_pairs as usize;
        let waiting = waiting.into_iter().take(most).collect();
        let (device, shares) =
            BoundDevice::start(found, self.options.queue_depth, waiting, self.workers.len())?;
        for (share, &worker) in shares.into_iter().zip(&device.workers) {
            if let Some(end) = self.workers.get(worker) {
                end.mailbox.offer(share);
            }
        }
        devices.push(device);
        Ok(())
    }

    /// Takes a device from the workers, which go on in software, and removes it. Call it from a thread that is none of
    /// theirs: it waits for them.
    ///
    /// # Errors
    /// [`CryptoSetupError::Unknown`], [`CryptoSetupError::Busy`], and DPDK's.
    pub fn remove(&self, name: &str) -> Result<(), CryptoSetupError> {
        let mut devices = self.devices();
        let place = devices
            .iter()
            .position(|device| bare_name(&device.name) == bare_name(name))
            .ok_or_else(|| CryptoSetupError::Unknown(name.to_owned()))?;
        let device = devices.get_mut(place);
        let workers = device
            .map(|it| std::mem::take(&mut it.workers))
            .unwrap_or_default();
        for end in workers.iter().filter_map(|&worker| self.workers.get(worker)) {
            end.mailbox.ask_back();
        }
        let deadline = Instant::now() + PATIENCE;
        let mut late = Vec::new();
        for worker in workers {
            let Some(end) = self.workers.get(worker) else {
                continue;
            };
            if !fetch(end, deadline) {
                late.push(worker);
            }
        }
        if let Some(&worker) = late.first() {
            if let Some(device) = devices.get_mut(place) {
                device.workers = late;
            }
            return Err(CryptoSetupError::Busy {
                name: name.to_owned(),
                worker,
            });
        }
        let device = devices.remove(place);
        drop(devices);
        self.detach(device)
    }

    fn detach(&self, bound: BoundDevice) -> Result<(), CryptoSetupError> {
        let BoundDevice {
            name,
            maker,
            device,
            info,
            ..
        } = bound;
        let failed = |error| CryptoSetupError::Device {
            name: name.clone(),
            error,
        };
        // Its thread has sessions, and the device is not closed before they are gone.
        drop(maker);
        device.close().map_err(|(error, _)| failed(error))?;
        crypto::detach(&self.eal, info.id).map_err(failed)
    }

    fn devices(&self) -> std::sync::MutexGuard<'_, Vec<BoundDevice>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for what a worker gives back, and frees it here.
fn fetch(end: &WorkerEnd, deadline: Instant) -> bool {
    loop {
        // A share that the worker never took counts, too.
        if end
            .mailbox
            .take_offered()
            .or_else(|| end.mailbox.take_back())
            .is_some()
        {
            return true;
        }
        if Arc::strong_count(&end.mailbox) == 1 {
            // The worker is gone, and its queue with it.
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

type Bound = Vec<(BoundDevice, Vec<Share>)>;

/// Opens everything that is to be used, and spreads the workers.
fn bind_all(
    eal: &Eal,
    options: &CryptoOptions,
    workers: usize,
    skipped: &mut Vec<CryptoSetupError>,
) -> Result<Bound, CryptoSetupError> {
    let mut found = Vec::new();
    for name in &options.devices {
        match find(eal, name) {
            Ok(device) => found.push(device),
            Err(error) => skipped.push(error),
        }
    }
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let have: u32 = found.iter().map(|device| device.info.max_queue_pairs).sum();
    if (have as usize) < workers {
        return Err(CryptoSetupError::QueuePairs { have, workers });
    }
    let shares = spread(&found, workers);
    found
        .into_iter()
        .zip(shares)
        .filter(|(_, its)| !its.is_empty())
        .map(|(device, its)| BoundDevice::start(device, options.queue_depth, its, workers))
        .collect()
}

/// Deals workers out by turns, as far as each device has queue pairs.
fn spread(found: &[Found], workers: usize) -> Vec<Vec<usize>> {
    let mut shares = vec![Vec::new(); found.len()];
    let mut worker = 0;
    while worker < workers {
        let before = worker;
        for (share, device) in shares.iter_mut().zip(found) {
            if worker < workers && share.len() < device.info.max_queue_pairs as usize {
                share.push(worker);
                worker += 1;
            }
        }
        if worker == before {
            break;
        }
    }
    shares
}

fn provider(
    end: &WorkerEnd,
    options: &CryptoOptions,
    plan: &Arc<Plan>,
    pool: &Mempool,
    wanted: bool,
) -> CryptoProvider {
    // As many wait for their turn as are in the device.
    let in_flight = options.queue_depth as usize * 2;
    if !wanted {
        return Box::new(Software::new(Arc::clone(plan), WAITING));
    }
    let software = Software::new(Arc::clone(plan), in_flight);
    let ticks = |time: Duration| (time.as_secs_f64() * cycles::hz() as f64) as u64;
    Box::new(Failover::new(FailoverParts {
        name: "cryptodev".to_owned(),
        software,
        pool: pool.allocator(),
        mailbox: Arc::clone(&end.mailbox),
        in_flight,
        limits: Limits {
            timeout: ticks(options.timeout),
            errors: ERRORS,
            backoff: ticks(options.retry),
            max_backoff: ticks(options.retry * LONGEST),
        },
        clock: cycles::now,
        stats: Arc::clone(&end.stats),
    }))
}
