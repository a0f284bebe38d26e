//! One crypto device: from its name to queues for workers.

use std::sync::Arc;

use dpdk::Eal;
use dpdk::crypto::{self, CryptoConfig, CryptoDevice, CryptoError, CryptoInfo, CryptoQueue, CryptoSession};
use dpdk::mempool::HEADROOM;

use crate::crypto::capabilities::{Capabilities, transform_of};
use crate::crypto::cryptodev::{Cryptodev, CryptodevSessions};
use crate::crypto::failover::Attached;
use crate::crypto::maker::{Maker, SessionFactory};
use crate::crypto::options::CryptoSetupError;
use crate::crypto::probe::{Probe, Vector};

/// Bytes behind a packet that its buffer has at least, by the configuration's rule for data rooms.
const TAILROOM: u16 = 64;

/// A device that is in use.
#[derive(Debug)]
pub(crate) struct BoundDevice {
    pub(crate) name: String,
    pub(crate) info: CryptoInfo,
    pub(crate) capabilities: Arc<Capabilities>,
    /// Ends before the device: it makes sessions of it.
    pub(crate) maker: Maker<CryptodevSessions>,
    pub(crate) device: CryptoDevice,
    /// Workers that have a queue of it, in the order of the queues.
    pub(crate) workers: Vec<usize>,
}

/// A device that has been found, and what it can do.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) device: CryptoDevice,
    pub(crate) info: CryptoInfo,
    pub(crate) capabilities: Arc<Capabilities>,
}

/// The part of a device's name that DPDK knows it by.
pub(crate) fn bare_name(name: &str) -> &str {
    name.split(',').next().unwrap_or(name)
}

/// Finds the device, or makes it, and takes possession of it if ESP can use it.
pub(crate) fn find(eal: &Eal, name: &str) -> Result<Found, CryptoSetupError> {
    let failed = |error| CryptoSetupError::Device {
        name: name.to_owned(),
        error,
    };
    let id = match crypto::device_by_name(eal, bare_name(name)) {
        Some(id) => id,
        None => crypto::attach(eal, name).map_err(failed)?,
    };
    let device = CryptoDevice::open(eal, id).map_err(failed)?;
    let info = device.info().map_err(failed)?;
    for (place, needed, have) in [
        ("in front of", info.min_headroom, HEADROOM),
        ("behind", info.min_tailroom, TAILROOM),
    ] {
        if needed > have {
            return Err(CryptoSetupError::Room {
                name: name.to_owned(),
                place,
                needed,
                have,
            });
        }
    }
    let capabilities = Arc::new(Capabilities::of(&device.session_maker()));
    if capabilities.is_empty() {
        return Err(CryptoSetupError::Useless(name.to_owned()));
    }
    Ok(Found {
        name: name.to_owned(),
        device,
        info,
        capabilities,
    })
}

/// What one worker gets.
pub(crate) type Share = Attached<Cryptodev, CryptoSession>;

impl BoundDevice {
    /// Starts the device for these workers, of `all`.
    pub(crate) fn start(
        found: Found,
        depth: u32,
        workers: Vec<usize>,
        all: usize,
    ) -> Result<(Self, Vec<Share>), CryptoSetupError> {
        let Found {
            name,
            mut device,
            info,
            capabilities,
        } = found;
        let failed = |error| CryptoSetupError::Device {
            name: name.clone(),
            error,
        };
        let config = CryptoConfig {
            queue_pairs: u16::try_from(workers.len()).unwrap_or(u16::MAX),
            descriptors: depth,
        };
        let queues = device.start(&config).map_err(failed)?;
        let factory = CryptodevSessions::new(device.session_maker(), Arc::clone(&capabilities));
        let vector = known_answer(&factory).map_err(failed)?;
        let maker = Maker::start(factory, all).map_err(|error| CryptoSetupError::Thread {
            name: name.clone(),
            error,
        })?;
        let shares = queues
            .into_iter()
            .zip(&workers)
            .filter_map(|(queue, &worker)| share(queue, &maker, worker, &vector))
            .collect();
        let bound = Self {
            name,
            info,
            capabilities,
            maker,
            device,
            workers,
        };
        Ok((bound, shares))
    }
}

fn share(
    queue: CryptoQueue,
    maker: &Maker<CryptodevSessions>,
    worker: usize,
    answer: &Option<(usize, Arc<CryptoSession>)>,
) -> Option<Share> {
    let probe = answer.as_ref().and_then(|(which, session)| {
        let vector = Vector::known().ok()?.into_iter().nth(*which)?;
        Some(Probe::new(vector, Arc::clone(session)))
    });
    Some(Attached {
        device: Cryptodev::new(queue),
        sessions: Box::new(maker.client(worker)?),
        probe,
    })
}

/// The first known answer that the device can be asked for, and a session for it.
fn known_answer(factory: &CryptodevSessions) -> Result<Option<(usize, Arc<CryptoSession>)>, CryptoError> {
    let vectors = Vector::known().unwrap_or_default();
    for (which, vector) in vectors.iter().enumerate() {
        if factory.supports(&vector.session) {
            let keys = vector.session.keys();
            let transform = transform_of(&vector.session);
            let (key, auth) = (keys.cipher.expose(), keys.auth.expose());
            return Ok(Some((which, factory.maker().make(&transform, key, auth)?)));
        }
    }
    Ok(None)
}
