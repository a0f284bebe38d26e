//! How cryptography is set up, and what can be wrong with that.

use std::io;
use std::time::Duration;

use dpdk::crypto::CryptoError;
use octoplane_config::{Crypto, CryptoLibrary, CryptoProvider};
use octoplane_esp::software::Library;

/// What to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CryptoOptions {
    /// Devices by PCI address or as a virtual device with its arguments. Workers are spread over them: one has a queue
    /// pair of one. Without any, everything is done in software.
    pub devices: Vec<String>,
    /// Whether a device that cannot be used is an error, rather than something to report.
    pub required: bool,
    /// Size of each queue; a power of two.
    pub queue_depth: u32,
    /// The library that software uses, unless the fastest is to be found out.
    pub library: Option<Library>,
    /// Packets in a device and none back for so long: it is given up.
    pub timeout: Duration,
    /// Wait before a device that was given up is tried again. Doubles with each failure, up to a hundred times as long.
    pub retry: Duration,
}

impl Default for CryptoOptions {
    fn default() -> Self {
        Self {
            devices: Vec::new(),
            required: false,
            queue_depth: 1024,
            library: None,
            timeout: Duration::from_millis(10),
            retry: Duration::from_millis(100),
        }
    }
}

impl From<&Crypto> for CryptoOptions {
    fn from(config: &Crypto) -> Self {
        let devices = match config.provider {
            CryptoProvider::Software => Vec::new(),
            CryptoProvider::Auto | CryptoProvider::Cryptodev => {
                config.devices.iter().map(ToString::to_string).collect()
            }
        };
        Self {
            devices,
            required: config.provider == CryptoProvider::Cryptodev,
            queue_depth: config.queue_depth,
            library: config.library.map(|library| match library {
                CryptoLibrary::AesGcm => Library::RustCrypto,
                CryptoLibrary::Ring => Library::Ring,
                CryptoLibrary::AwsLcRs => Library::AwsLc,
            }),
            timeout: config.timeout,
            retry: config.retry,
        }
    }
}

/// Why cryptography could not be set up, or a device not be added or removed.
#[derive(Debug, thiserror::Error)]
pub enum CryptoSetupError {
    /// DPDK or the driver.
    #[error("crypto device {name}: {error}")]
    Device {
        /// As it was asked for.
        name: String,
        /// What went wrong.
        #[source]
        error: CryptoError,
    },
    /// The device cannot do anything that ESP needs.
    #[error("crypto device {0} offers none of the algorithms of ESP")]
    Useless(String),
    /// A worker has a queue pair of its own.
    #[error("crypto devices have {have} queue pairs together, {workers} workers need one each")]
    QueuePairs {
        /// Queue pairs of all devices.
        have: u32,
        /// Workers.
        workers: usize,
    },
    /// The device needs more room around packets than there is.
    #[error("crypto device {name} needs {needed} bytes {place} the packet, buffers have {have}")]
    Room {
        /// The device.
        name: String,
        /// `in front of` or `behind`.
        place: &'static str,
        /// Bytes it needs.
        needed: u16,
        /// Bytes there are.
        have: u16,
    },
    /// The thread that makes sessions does not start.
    #[error("crypto device {name}: {error}")]
    Thread {
        /// The device.
        name: String,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// There is no such device here.
    #[error("crypto device {0} is not in use")]
    Unknown(String),
    /// There is such a device already.
    #[error("crypto device {0} is in use already")]
    Known(String),
    /// Every worker has a device, or none was started to use one.
    #[error("crypto device {0}: no worker waits for a device")]
    NobodyWaits(String),
    /// A worker does not give its queue back.
    #[error("crypto device {name}: worker {worker} does not let go of it; try again")]
    Busy {
        /// The device.
        name: String,
        /// Which one.
        worker: usize,
    },
}
